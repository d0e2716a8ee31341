"""What Ctrl-C does while modules are imported: an exception would end in half a traceback, within C++ in an abort."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
    """Inside Ctrl-C leaves at once, where nothing else has been told to answer it and nothing is left to be cleaned up.

    Handlers belong to the main thread; in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is _leave:
        yield
        return
    leave_at_once()
    try:
        yield
    finally:
        answered()


def _leave(*_: Any) -> None:
    os.write(2, b"Interrupted.\n")
    os._exit(130)
