"""One command at a time for what several may write, where the file system has locks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.errors import UserError
from experiments.words import duration

PATIENCE, TIMEOUT = 5.0, 600.0
"""Seconds after which a wait is said; seconds after which it is given up."""


@contextmanager
def locked(path: Path, doing: str, say: Callable[[str], None], timeout: float = TIMEOUT) -> Iterator[bool]:
    """Hold the lock at `path` inside, whose owner `doing` tells, as "collects fig09". The kernel frees a dead owner's.

    True inside; False where there are no locks (ENOLCK, EOPNOTSUPP, ENOSYS) or none is permitted, as beside another
    user's lock file: that is said, and what was trained for hours is still written. Raises UserError where the owner
    does not let go.
    """
    # A soft lock in place of a missing one would outlive its owner on another machine.
    lock = FileLock(path, mode=0o666, fallback_to_soft=False)  # for others too, as far as the umask lets
    with ExitStack() as held:
        try:
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
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            say(f"{path} cannot be locked ({why}): going on without. Run no other command that {doing} meanwhile.")
        yield lock.is_locked
