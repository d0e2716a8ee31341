"""Files that are written whole or not at all, and what to say where one can be neither read nor written."""

import contextlib
import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from experiments.errors import UserError, unreadable

ABANDONED = 3600.0
"""Seconds after which a half-written file belongs to nobody."""
DIGEST = hashlib.sha256().digest_size


def write_atomically(path: Path, content: bytes | str, check: Callable[[], None] = lambda: None) -> None:
    """Write `content` beside `path`, flush it to the disk and rename it into place.

    check: called first, since a folder that was deleted would be made anew, and when all but the renaming is done;
    where it raises, nothing changes. Raises UserError where the disk is full or the folder cannot be written; what was
    there before stays.
    """
    content = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")  # process ids repeat on other machines
    try:
        check()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        check()
        os.replace(beside, path)
        for left in path.parent.glob(f".{path.name}.*"):  # by processes that were killed
            with contextlib.suppress(FileNotFoundError):  # another writer's, who has just renamed it
                if os.path.getmtime(path) - os.path.getmtime(left) > ABANDONED:
                    left.unlink()
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            raise explained(error, path) from error
        raise


def check_folder(folder: Path, option: str) -> None:
    """Raises UserError where a file lies in the place of the folder, or of one that it would lie in."""
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
    if there is not None and not os.path.isdir(there):
        raise UserError(f"{option} names {folder}, but {there} is no folder: choose another one with {option}=DIR.")


def check_writable(folder: Path, option: str) -> None:
    """Raises UserError where results could not be written, before hours are spent on them.

    option: the command line's name for the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable."):  # a name that nobody can have prepared
            pass
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{folder} cannot be written: {why}. Choose another folder with {option}=DIR.") from error


def explained(error: OSError, path: Path) -> UserError:
    """The sentence for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full: free some space and run the same command again; finished runs are kept"
    elif error.errno == errno.EFBIG:
        what = "a limit on file sizes (ulimit -f) is too low: raise it and run the same command again"
    elif error.errno == errno.EISDIR:
        what = "a folder lies there: move it away and run the same command again"
    else:
        what = f"{(error.strerror or str(error)).lower()}: choose a folder that can be written"
    return UserError(f"Cannot write {path}: {what}.")


def there(path: Path) -> bool:
    """Whether a file is there. Raises UserError where that cannot be seen, or a folder lies there."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder, where a file belongs: move it away and run the same command again.")
        return path.is_file()
    except OSError as error:
        raise unreadable(path, error) from error


def read(path: Path) -> bytes:
    """A file's content, empty where there is none. Raises UserError where it cannot be read, which says nothing of it:
    what may not be read now may be whole."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise unreadable(path, error) from error


def sealed(content: bytes) -> bytes:
    """`content` with its SHA-256 in front, which tells a whole file from a damaged one."""
    return hashlib.sha256(content).digest() + content


def unsealed(raw: bytes) -> bytes | None:
    """What was sealed; None where it is not what it was."""
    content = raw[DIGEST:]
    return content if hashlib.sha256(content).digest() == raw[:DIGEST] else None
