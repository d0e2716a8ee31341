"""Downloading what torchvision's data set classes name, from mirrors first and then from the original host.

The classes give the files' names and checksums, but are never constructed: CIFAR's would unpickle what was downloaded.
"""

import http.client
import importlib
import shutil
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from experiments.data.known import Facts
from experiments.errors import UserError
from experiments.locks import locked

TIMEOUT = 10.0  # seconds of silence, when connecting or reading, after which a host counts as dead
TRIES = 2
BACK_OFF = 2.0  # seconds between two tries of one host
LONGEST = 3600.0  # seconds that another process is waited for, which downloads the same

# What urllib, tarfile and torchvision raise for a host, an answer or an archive that is no good; AttributeError is for
# an answer without a length, as after a redirection to FTP.
FAILURES = (OSError, RuntimeError, ValueError, AttributeError, EOFError, http.client.HTTPException, tarfile.TarError)


def download(facts: Facts, folder: Path, mirrors: Sequence[str], report: Callable[[str], None]) -> list[str]:
    """Fetch ``facts``' archive into ``folder``; returns one line "<url>: <what went wrong>" for each failed try
    and each address that is not on the web.

    The files are unpacked and checked (torchvision's md5) in a temporary folder beside and then renamed, so that an
    interrupted download leaves no half data set; processes that start at the same time download once. The data set is
    there if ``sources.find`` finds it afterwards; where no host delivers, folders made for it go again. Raises
    UserError where ``folder`` cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f".download-{facts.name}.lock"
        with locked(lock, f"downloads {facts.label}", report, LONGEST) as alone:
            if (folder / facts.folder).is_dir():  # another process was faster
                return []
            if alone:
                for stale in folder.glob(f".download-{facts.name}-*"):  # left by a process that was killed
                    shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(prefix=f".download-{facts.name}-", dir=folder) as part:
                errors = _try_all(facts, folder, Path(part), mirrors, report)
        if made and not (folder / facts.folder).is_dir():
            with suppress(OSError):  # another process has put something there meanwhile
                lock.unlink(missing_ok=True)
                for path in made:
                    path.rmdir()
        return errors
    except OSError as error:
        raise UserError(
            f"{facts.label} is to be downloaded into {folder}, which cannot be written ({error}); "
            "say DATA_DIR=/a/folder/of/yours."
        ) from error


def _try_all(
    facts: Facts, folder: Path, part: Path, mirrors: Sequence[str], report: Callable[[str], None]
) -> list[str]:
    """Go through the hosts until one delivers; the errors on the way."""
    errors = []
    for base in [*mirrors, *_original_hosts(facts)]:
        base = base.rstrip("/") + "/"
        if not base.lower().startswith(("https://", "http://")):
            errors.append(f"{base}: not tried, since only https:// and http:// are; name a folder by DATA_DIR=")
            continue
        for attempt in range(1, TRIES + 1):
            report(f"downloading {facts.label} from {base} (try {attempt} of {TRIES})")
            try:
                with _timeout(TIMEOUT):
                    _fetch(facts, base, part)
            except FAILURES as error:
                errors.append(f"{base} (try {attempt}): {_one_line(error)}")
                if attempt < TRIES:
                    time.sleep(BACK_OFF)
                continue
            target = folder / facts.folder
            target.parent.mkdir(exist_ok=True)
            if not target.is_dir():  # where there are no locks, another process may have been faster
                (part / facts.folder).rename(target)
            return errors
    return errors


def _dataset_class(facts: Facts) -> Any:
    datasets: Any = importlib.import_module("torchvision.datasets")  # here, because it imports torch
    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "mnist": datasets.MNIST}[facts.name]


def _original_hosts(facts: Facts) -> list[str]:
    original = _dataset_class(facts)
    return list(original.mirrors) if facts.name == "mnist" else [original.url.rsplit("/", 1)[0]]


def _fetch(facts: Facts, base: str, root: Path) -> None:
    """Download from ``base`` into ``root``, check torchvision's md5 of every packed file, and unpack."""
    utils: Any = importlib.import_module("torchvision.datasets.utils")
    original = _dataset_class(facts)
    if facts.name == "mnist":
        raw = root / facts.folder
        for name, md5 in original.resources:
            utils.download_and_extract_archive(base + name, raw, filename=name, md5=md5)
        for packed in raw.glob("*.gz"):
            packed.unlink()  # kept until all are there, so that a second try goes on
        return
    utils.download_url(base + original.filename, root, original.filename, original.tgz_md5)
    folder = PurePosixPath(facts.folder)
    (root / folder).mkdir(exist_ok=True)
    with tarfile.open(root / original.filename) as archive:
        for member in archive:  # not extractall, which writes outside too before Python 3.14
            path = PurePosixPath(member.name)
            if member.isfile() and path.parent == folder:
                with open(root / path, "wb") as file:
                    shutil.copyfileobj(cast(IO[bytes], archive.extractfile(member)), file)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its URLs without a timeout: set the process's default while it does."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
