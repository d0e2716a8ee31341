"""How command lines end: with one sentence and a code, whatever became of them."""

import errno

import pytest

from experiments import cli
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


def test_what_nobody_expected_keeps_its_traceback():
    def main():
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        cli.run(main)
