"""``load`` and ``fingerprint``: from a data set's name to arrays, or to the proof of which arrays they would be."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.data.cache import cached, content_key
from experiments.data.download import download as fetch
from experiments.data.imageset import ImageSet, Split, digest
from experiments.data.known import FACTS, KNOWN_PREPARATIONS, Facts
from experiments.data.shapes import ShapesSpec, draw_shapes
from experiments.data.sources import Source, candidates, find, is_original_mnist
from experiments.errors import DataMissing, UserError

NAMES = (*FACTS, "shapes")
SHAPES_TITLE = "shapes (made on the fly)"

Progress = Callable[[str], None]


def data_folder(data_dir: Path | None = None) -> Path:
    """The folder that is searched: ``data_dir``, else the environment's DATA_DIR, else ``data/`` in the project."""
    if data_dir is not None:
        return Path(data_dir).expanduser().absolute()
    if os.environ.get("DATA_DIR"):
        return Path(os.environ["DATA_DIR"]).expanduser().absolute()
    return Path(__file__).resolve().parents[2] / "data"


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    mirrors: Sequence[str] = (),
    download: bool = True,
    shapes: ShapesSpec | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Read "cifar10", "cifar100" or "mnist" (downloaded if need be), or draw "shapes".

    ``mirrors`` are base URLs that hold the archives under torchvision's file names; they are tried before the original
    host. ``shapes`` are the settings of a drawn set. ``progress`` is called with one line for every slow step.
    Raises UserError if the data are missing, damaged, or not what their place says.
    """
    report = progress or _silent
    if _facts(name) is None:
        spec = shapes or ShapesSpec()
        train, test = draw_shapes(spec)
        return ImageSet(train, test, name, SHAPES_TITLE, spec.classes, False, digest(train, test), repr(spec))
    source = _locate(FACTS[name], data_folder(data_dir), mirrors, download, report)
    return _read(source, report)


def fingerprint(
    name: str,
    *,
    data_dir: Path | None = None,
    mirrors: Sequence[str] = (),
    download: bool = True,
    shapes: ShapesSpec | None = None,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> tuple[str, str]:
    """(fingerprint, title) of what ``load`` would return; raises as ``load`` does.

    Remembered in ``.fingerprints.json`` in ``cache_dir``, else in the data folder, under the names, sizes and times of
    the data's files: asking again reads no image. A folder that cannot be written only costs the time of asking again.
    """
    report = progress or _silent
    folder = data_folder(data_dir)
    cache = (Path(cache_dir) if cache_dir is not None else folder) / ".fingerprints.json"
    if _facts(name) is None:
        spec = shapes or ShapesSpec()
        key = content_key(repr(spec), [])
        return cached(cache, key, lambda: (digest(*draw_shapes(spec)), SHAPES_TITLE), report)
    source = _locate(FACTS[name], folder, mirrors, download, report)
    key = content_key(f"{name} {source.form}", source.files())

    def compute() -> tuple[str, str]:
        found = _read(source, report)
        return found.fingerprint, found.title

    return cached(cache, key, compute, report)


def _facts(name: str) -> Facts | None:
    if name not in NAMES:
        raise UserError(f"There is no data set {name!r}; expected one of {', '.join(NAMES)}.")
    return FACTS.get(name)


def _locate(facts: Facts, folder: Path, mirrors: Sequence[str], download: bool, report: Progress) -> Source:
    source = find(facts, folder)
    if source is not None:
        return source
    tried = fetch(facts, folder, mirrors, report) if download else []
    source = find(facts, folder)
    if source is not None:
        return source
    looked = "".join(f"\n  {path}" for path in candidates(facts, folder))
    attempts = "".join(f"\n  {line}" for line in tried)
    attempts = f"Tried to download:{attempts}\n" if download else ""
    why = "and could not be downloaded" if download else "and downloading is switched off here"
    absent = "" if folder.is_dir() else f" (there is no folder {folder})"
    raise DataMissing(
        f"{facts.label} was not found {why}.\nLooked for{absent}:{looked}\n{attempts}"
        f"Ways out: DATA_DIR=/folder/that/holds/it; a mirror of {facts.label}'s files, data.mirrors=[https://...]; "
        "or SCALE=smoke, which draws its own images."
    )


def _read(source: Source, report: Progress) -> ImageSet:
    facts = source.facts
    report(f"reading {facts.label} from {source.root} ({source.description})")
    train, test = source.read()
    fingerprint = digest(train, test)
    title, original = _identify(source, train, test, fingerprint)
    return ImageSet(train, test, facts.name, title, facts.classes, original, fingerprint, source.description)


def _identify(source: Source, train: Split, test: Split, fingerprint: str) -> tuple[str, bool]:
    """What a figure may call the data, and whether they are the published ones bit for bit."""
    facts = source.facts
    # A CIFAR batch was read only because its md5 is the official one; MNIST is recognised in any form by its content.
    verified = is_original_mnist(train, test) if facts.name == "mnist" else source.form == "torchvision"
    if verified:
        return facts.label, True
    unknown = f"{facts.label} (not verified as the original)"
    return KNOWN_PREPARATIONS.get(fingerprint, unknown), False


def _silent(line: str) -> None:
    """The default of ``progress``."""
