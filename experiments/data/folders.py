"""ImageNet from class folders: an index of its files that opens in milliseconds, and the decoding of one file.

``<root>/train/<class>/*.JPEG`` and ``<root>/val/<class>/*.JPEG``, as the archives unpack. The images (140 GB) stay on
disk and are decoded while training goes on (``experiments.streams``). What the author's LMDB held is not known; the
records made here rest on three assumptions:

* Every image is squeezed to 256 x 256, whatever its shape, small ones enlarged. His net files subtract a mean image,
  which Caffe admits only if all records have its size (BVLC/caffe data_transformer.cpp), and Caffe's recipe for
  ImageNet squeezes (examples/imagenet). The filter is bilinear over all the pixels that fall on a new one.
* The order is mixed once and then fixed: Caffe's recipe shuffles the list of files when it makes the LMDB. Ours sorts
  by the sha256 of ``split/class/file``, which is the same on every machine.
* The mean image is that of the first 10,000 records. Caffe's takes all of them; the difference is noise of less than a
  grey level (a pixel's spread is about 70), the same in every run.

Labels number the class folders by name, which for synset ids is the official order.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.sources import IMAGE_FORMATS, IMAGE_SUFFIXES
from experiments.device import check_sockets, cores
from experiments.errors import DataMissing, UserError
from experiments.files import sealed, unsealed, write_atomically

SIDE = 256
"""Height and width of a record in pixels."""

MEAN_IMAGES = 10_000
MOST_WORKERS = 16
PROBES = 200
"""Files of which the index remembers size and time, to notice that images were overwritten in place."""

FORMAT = 1
SPLITS = ("train", "val")
LAYOUT = "expected train/<class>/*.JPEG and val/<class>/*.JPEG"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Listing:
    """The files of one split in the order in which they are read: names (bytes [N]) and labels (int64 [N])."""

    folder: str
    classes: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def path(self, record: int) -> str:
        """Where record 0, 1, ... lies."""
        return os.path.join(self.folder, self.classes[self.labels[record]], os.fsdecode(self.names[record]))


@dataclass(frozen=True)
class ImageFolders:
    """What ``ImageSet`` is to data in memory: two splits, with what a figure must say about them.

    mean: float32 [side, side, 3], of the training records. side: of a record in pixels. workers: processes that decode
    for training, and as many for tests; 0 decodes in the calling process. fingerprint: over the names and sizes of all
    files, since reading 140 GB for it would take longer than an epoch.
    """

    train: Listing
    test: Listing
    mean: np.ndarray
    title: str
    fingerprint: str
    side: int
    workers: int
    name: str = "imagenet"
    source: str = "class folders of images, train/ and val/"
    original: bool = False

    @property
    def classes(self) -> int:
        return len(self.train.classes)


def load(
    data_dir: Path,
    *,
    cache_dir: Path | None = None,
    workers: int | None = None,
    side: int = SIDE,
    progress: Progress | None = None,
) -> ImageFolders:
    """Open ImageNet in ``data_dir/imagenet`` or ``data_dir``; the first time list its files and compute its mean.

    Both are remembered in ``cache_dir``, else beside train/ and val/; a folder that cannot be written only costs the
    time of doing it again. workers: as in ``ImageFolders``, None for one per core up to 16. progress: called with one
    line for every slow step. Raises DataMissing where neither is there, UserError where folders or images are missing,
    broken or not alike in both splits, or where workers could not hand over what they decode.
    """
    report = progress or _silent
    if workers is not None and workers < 0:
        raise UserError(f"{workers} decoding processes: a whole number from 0 up is expected.")
    workers = min(cores(), MOST_WORKERS) if workers is None else workers
    root = find(data_dir)
    if workers:
        check_sockets("data.workers=0, which decodes in the training process")
    cache = cache_dir or root
    index = _index(root, cache, report)
    fingerprint, title = _identity(index, side)
    train, test = (
        Listing(str(root / split), tuple(index["classes"]), index[f"{split}_names"], index[f"{split}_labels"])
        for split in SPLITS
    )
    mean = _mean(train, side, cache / f"imagenet-mean-{fingerprint}.npy", report)
    return ImageFolders(train, test, mean, title, fingerprint, side, workers)


def fingerprint(
    data_dir: Path, *, cache_dir: Path | None = None, side: int = SIDE, progress: Progress | None = None
) -> tuple[str, str]:
    """(fingerprint, title) of what ``load`` would return, without a look at any image; raises as ``load`` does."""
    root = find(data_dir)
    return _identity(_index(root, cache_dir or root, progress or _silent), side)


def find(data_dir: Path) -> Path:
    """The folder that holds train/ and val/. Raises DataMissing where there is none."""
    places = [data_dir / "imagenet", data_dir]
    for root in places:
        if any((root / split).is_dir() for split in SPLITS):
            return root
    looked = "".join(f"\n  {root / 'train'}" for root in places)
    raise DataMissing(
        f"ImageNet was not found and cannot be downloaded without an account.\nLooked for:{looked}\n"
        f"Ways out: DATA_DIR=/folder/that/holds/it ({LAYOUT}); or SCALE=smoke, which draws its own images."
    )


def decode(path: str, side: int) -> np.ndarray:
    """One file as a record, uint8 [side, side, 3], red first. Raises UserError where it is no whole image."""
    from PIL import Image  # here, because the other data sets do without

    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            image.draft(None, (side, side))  # large JPEGs shrink in the decoder, never below a record
            squeezed = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(squeezed)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as PNG or JPEG ({error}); copy it again, or convert it.") from error


# ---------------------------------------------------------------------------------------------------------- index


def _identity(index: dict[str, Any], side: int) -> tuple[str, str]:
    recipe = f"{index['content']} {side} {MEAN_IMAGES}"
    count = len(index["train_labels"])
    return hashlib.sha256(recipe.encode()).hexdigest()[:16], f"ImageNet (folder, {count:,} images)"


def _index(root: Path, cache: Path, report: Progress) -> dict[str, Any]:
    """classes, content (sha256 of all names and sizes), <split>_names and <split>_labels; from the cache if it can.

    The cache is good as long as every class folder has its name and time (files added, removed, renamed) and a sample
    of the files their sizes and times.
    """
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    path = cache / f"imagenet-index-{place}.npz"
    classes = _classes(root)
    stamp = _stamp(root, classes)
    known = _read_index(path)
    if known is not None and known["stamp"] == stamp:
        probes = known["probes"]
        if probes == _probe(root, [name for name, _, _ in probes]):
            return known
    report(f"listing {len(classes):,} class folders of {root}" + (", which has changed" if known else ""))
    sha, probed = hashlib.sha256(), []
    arrays: dict[str, Any] = {}
    for split in SPLITS:
        names, labels = _scan(root / split, classes, sha)
        arrays[f"{split}_names"], arrays[f"{split}_labels"] = names, labels
        listing = Listing(split, tuple(classes), names, labels)
        step = max(1, len(labels) // (PROBES // len(SPLITS)))
        probed += [listing.path(record) for record in range(0, len(labels), step)]
    facts = {
        "format": FORMAT,
        "stamp": stamp,
        "classes": classes,
        "content": sha.hexdigest(),
        "probes": _probe(root, probed),
    }
    saved = {"facts": np.array(json.dumps(facts)), **arrays}
    _save(path, lambda file: np.savez(file, **saved), "the list of its files", report)
    return facts | arrays


def _classes(root: Path) -> list[str]:
    """Names of the class folders, the same in both splits."""
    found = {split: _class_folders(root / split) for split in SPLITS}
    train, val = (set(found[split]) for split in SPLITS)
    if train != val:
        name = min(train ^ val)
        has, lacks = ("train", "val") if name in train else ("val", "train")
        raise UserError(
            f"{root / has} holds {len(found[has])} class folders and {root / lacks} {len(found[lacks])}, which are not "
            f"the same: {name} is only in {has}/. Complete {lacks}/ or remove what is too much."
        )
    return found["train"]


def _class_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); {LAYOUT} in {folder.parent}.") from None
    found = sorted(entry.name for entry in listed if entry.is_dir())
    if not found:
        raise UserError(
            f"{folder} holds {len(listed):,} files and no class folder: {LAYOUT}. The validation archive unpacks "
            "without folders; sort its images by their synset ids first."
        )
    return found


def _stamp(root: Path, classes: list[str]) -> str:
    """What a cheap look says of the content: the folders' names and times."""
    sha = hashlib.sha256()
    for split in SPLITS:
        for name in classes:
            sha.update(f"{split}/{name}\0{(root / split / name).stat().st_mtime_ns}\n".encode())
    return sha.hexdigest()


def _probe(root: Path, names: list[str]) -> list[list[Any]]:
    """[file, size, time] of some files; size and time are 0 where a file is gone."""
    found = []
    for name in names:
        try:
            status = os.stat(root / name)
            found.append([name, status.st_size, status.st_mtime_ns])
        except OSError:
            found.append([name, 0, 0])
    return found


def _files(folder: str) -> list[tuple[bytes, int]]:
    """Name and size of every image of a class, sorted."""
    suffixes = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            listed = [
                (entry.name, entry.stat().st_size)
                for entry in entries
                if entry.name.lower().endswith(suffixes) and not entry.name.startswith(b".")
            ]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error
    if not listed:
        raise UserError(f"{folder} holds no image; expected .JPEG files in every class folder.")
    return sorted(listed)


def _scan(folder: Path, classes: list[str], sha: Any) -> tuple[np.ndarray, np.ndarray]:
    """Names and labels of a split in reading order. All names and sizes go into sha."""
    names, labels, keys = [], [], []
    with ThreadPoolExecutor(MOST_WORKERS) as pool:  # on a network drive every look takes its time
        listed = pool.map(_files, [os.path.join(folder, name) for name in classes])
        for label, (name, files) in enumerate(zip(classes, listed, strict=True)):
            for file, size in files:
                full = b"/".join((os.fsencode(folder.name), os.fsencode(name), file))
                sha.update(b"%s\0%d\n" % (full, size))
                keys.append(hashlib.sha256(full).digest())
                names.append(file)
                labels.append(label)
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    return np.array(names)[order], np.array(labels, np.int64)[order]


# ------------------------------------------------------------------------------------------------- mean and cache


def _mean(train: Listing, side: int, path: Path, report: Progress) -> np.ndarray:
    """Mean of the first records, float32 [side, side, 3]: an exact sum of integers, divided in float64."""
    if (saved := _recalled(path)) is not None:
        return np.load(saved, allow_pickle=False)
    n = min(len(train), MEAN_IMAGES)
    report(f"computing the mean image of {n:,} images, once")
    total = np.zeros((side, side, 3), np.int64)
    with ThreadPoolExecutor(min(cores(), MOST_WORKERS)) as pool:
        for start in range(0, n, PROBES):  # a few at a time, for the sum may be slower than the decoders
            paths = [train.path(record) for record in range(start, min(start + PROBES, n))]
            for image in pool.map(decode, paths, [side] * len(paths)):
                total += image
    mean = (total / n).astype(np.float32)
    _save(path, lambda file: np.save(file, mean), "the mean image", report)
    return mean


def _read_index(path: Path) -> dict[str, Any] | None:
    """What was saved; None where nothing of ours is there."""
    if (content := _recalled(path)) is None:
        return None
    with np.load(content, allow_pickle=False) as saved:
        index = json.loads(str(saved["facts"])) | {key: saved[key] for key in saved.files if key != "facts"}
    return index if index["format"] == FORMAT else None


def _recalled(path: Path) -> io.BytesIO | None:
    """What ``_save`` wrote; None where it is missing or damaged, since all of it can be made again."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    content = unsealed(raw)
    return None if content is None else io.BytesIO(content)


def _save(path: Path, write: Callable[[Any], None], what: str, report: Progress) -> None:
    """Replace ``path`` whole by what ``write`` writes, sealed; failing costs only the time of the next start."""
    file = io.BytesIO()
    write(file)
    try:
        write_atomically(path, sealed(file.getvalue()))
    except UserError as error:
        report(f"{what} cannot be remembered, the next start will take as long: {error}")


def _silent(line: str) -> None:
    """The default of ``progress``."""
