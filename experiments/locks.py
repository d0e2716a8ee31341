"""One command at a time for what several may write, where the file system has locks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.errors import UserError
from experiments.words import duration

PATIENCE, TIMEOUT = 5.0, 600.0
"""Seconds after which a wait is said; seconds after which it is given up."""

NO_SOFT: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in signature(FileLock.__init__).parameters else {}
)
"""A soft lock in place of a missing one would outlive its owner on another machine. An environment that pip did not
make for us may have a filelock that knows neither."""


@contextmanager
def locked(path: Path, doing: str, say: Callable[[str], None], timeout: float = TIMEOUT) -> Iterator[bool]:
    """Hold the lock at `path` inside, whose owner `doing` tells, as "collects fig09". The kernel frees a dead owner's.

    True inside; False where there are no locks (ENOLCK, EOPNOTSUPP, ENOSYS) or none is permitted, as beside another
    user's lock file: that is said, and what was trained for hours is still written. Raises UserError where the owner
    does not let go.
    """
    lock = FileLock(path, mode=0o666, **NO_SOFT)  # the mode is for others too, as far as the umask lets
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            open(path, "a").close()  # filelock waits in vain for a file that cannot be made, as in /proc
            try:
                held.enter_context(lock.acquire(PATIENCE))
            except Timeout:
                say(f"Waiting for another command that {doing} (it holds {path}).")
                held.enter_context(lock.acquire(timeout))
        except Timeout:
            raise UserError(
                f"Another command that {doing} has held {path} for {duration(timeout)}. Has it been suspended? End it "
                f"(fuser {path} names its process) and run the same command again; finished runs are kept."
            ) from None
        except (OSError, NotImplementedError) as error:  # of filelock before 3.30 for ENOSYS
            why = (getattr(error, "strerror", None) or str(error)).lower()
            say(f"{path} cannot be locked ({why}): going on without. Run no other command that {doing} meanwhile.")
        yield lock.is_locked
