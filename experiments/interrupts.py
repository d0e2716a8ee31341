"""What Ctrl-C does where an exception would not do: while modules are imported (half a traceback, within C++ an abort)
and in callbacks of the garbage collector (Python prints it and goes on)."""

import os
import signal
import sys
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
def not_lost() -> Iterator[None]:
    """Inside a KeyboardInterrupt that Python cannot raise where it came, as in a weak reference's callback, is raised
    again in the main thread a moment later, or at the end; without this it would be printed and forgotten."""
    hook, waiting = sys.unraisablehook, list[threading.Timer]()

    def raise_it() -> None:
        waiting.clear()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it where it sleeps, too

    def again(lost: "sys.UnraisableHookArgs") -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            waiting.append(threading.Timer(0.05, raise_it))  # not at once: that would be within this hook
            waiting[-1].daemon = True
            waiting[-1].start()
        else:
            hook(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in waiting:
            timer.cancel()
        if waiting:
            raise KeyboardInterrupt


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
