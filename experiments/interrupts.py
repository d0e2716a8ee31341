"""What Ctrl-C does while modules are imported: an exception would end in half a traceback, within C++ in an abort."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def leave_at_once() -> None:
    """From now on Ctrl-C ends the process with a word and code 130, until `answered` or for good.

    Where the signal is ignored, as in what a script starts in the background, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def answered() -> None:
    """Ctrl-C raises KeyboardInterrupt again: something is there that answers it."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def importing() -> Iterator[None]:
    """Inside Ctrl-C leaves at once, unless something else has been told to answer it.

    Only for places where nothing has to be cleaned up: no `finally` is run. Handlers belong to the main thread; in any
    other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is _leave:
        yield
        return
    leave_at_once()
    try:
        yield
    finally:
        answered()


def _leave(*_: object) -> None:
    with suppress(OSError):  # Ctrl-C has ended the reader of a pipe as well
        os.write(2, b"Interrupted.\n")
    os._exit(130)
