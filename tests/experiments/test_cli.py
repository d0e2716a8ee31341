"""How command lines end: with one sentence and a code, whatever became of them."""

import errno
import signal
import sys
import time
import weakref

import pytest
import torch

from experiments import cli, interrupts
from experiments.errors import UserError


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("Wrong."), 2, "error: Wrong.\n"),
        (MemoryError(), 2, "error: There is not enough memory: make the run smaller.\n"),
        (MemoryError("96 GiB asked for"), 2, "error: There is not enough memory: 96 GiB asked for.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "that this command's output goes to: free some space.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 2, "of /tmp/x: free some space.\n"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/tmp/x"), 2, "of /tmp/x: free some space.\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/tmp/x"),
            2,
            "error: /tmp/x cannot be read (permission denied): "
            "correct its permissions, or see to its disk, and run the same command again.\n",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "/tmp/x"),
            2,
            "(file name too long): choose a shorter one.\n",
        ),
        (torch.AcceleratorError("CUDA error: device busy\nmore"), 2, "shows where this was.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
    ],
)
def test_an_error_is_a_sentence(error, code, says, capsys, monkeypatch):
    def main():
        raise error

    monkeypatch.setattr(cli.sys, "stdout", cli.sys.stdout)  # given up where it cannot be written
    monkeypatch.delenv("DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == code
    assert capsys.readouterr().err.endswith(says)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),  # of no file
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/tmp/x"),  # whoever reads it should have asked
        KeyError("x"),
        RuntimeError("x"),
    ],
)
def test_what_nobody_expected_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)) as kept:
        cli.run(main)
    assert kept.value is error


@pytest.mark.parametrize("ends", ["returns", "raises", "sleeps"])
def test_one_that_is_waited_for_comes_before_the_commands_end_and_wakes_it(capsys, ends):
    def main() -> int:
        image = type("Image", (), {})()
        kept = weakref.ref(image, lambda _: signal.raise_signal(signal.SIGINT))
        del image
        if ends == "raises":
            raise UserError("something else")
        if ends == "sleeps":
            time.sleep(20)
        return 0 if kept() is None else 1

    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 130 and capsys.readouterr().err == "Interrupted.\n"
    assert time.monotonic() - began < 15
    time.sleep(0.1)  # nothing comes later


def test_what_else_a_callback_raises_is_printed_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with interrupts.not_lost():
        image = type("Image", (), {})()
        kept = weakref.ref(image, lambda _: 1 / 0)
        del image
    assert kept() is None and [one.exc_type for one in told] == [ZeroDivisionError]


def test_an_interrupt_that_meets_a_callback_is_not_lost(capsys):
    """Python prints what a weak reference's callback raises, and goes on; a report went on to its end so."""

    def main() -> int:
        image = type("Image", (), {})()
        kept = weakref.ref(image, lambda _: signal.raise_signal(signal.SIGINT))
        del image
        for _ in range(100):  # of a second at most
            time.sleep(0.01)
        return 0 if kept() is None else 1

    hook = sys.unraisablehook
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 130 and capsys.readouterr().err == "Interrupted.\n"
    assert sys.unraisablehook is hook
