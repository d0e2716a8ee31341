"""Locks that are held, that do not exist and that may not be taken."""

import errno
import fcntl
import threading
from pathlib import Path

import pytest

from experiments import locks
from experiments.errors import UserError
from experiments.locks import locked


def refuse(monkeypatch, number):
    def flock(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_one_at_a_time_and_who_waits_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    path, said, order = tmp_path / "new" / "lock", [], []
    waiting = threading.Event()

    def second():
        with locked(path, "counts", lambda text: (said.append(text), waiting.set())) as alone:
            order.append(("second", alone))

    with locked(path, "counts", said.append) as alone:
        other = threading.Thread(target=second)
        other.start()
        assert waiting.wait(30)
        order.append(("first", alone))
    other.join()
    assert order == [("first", True), ("second", True)]
    assert said == [f"Waiting for another command that counts (it holds {path})."]


def test_an_owner_that_does_not_let_go_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    path = tmp_path / "lock"
    with (
        locked(path, "counts", print),
        pytest.raises(UserError, match=f"Another command that counts has held {path} for 0 s"),
        locked(path, "counts", lambda _: None, timeout=0.1),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
def test_where_there_are_no_locks_it_goes_on_without(tmp_path, monkeypatch, number):
    refuse(monkeypatch, number)
    said = []
    with locked(tmp_path / "lock", "counts", said.append) as alone:
        assert not alone
    (line,) = said
    assert line.startswith(f"{tmp_path / 'lock'} cannot be locked (refused): going on without")


def test_another_users_lock_file_stops_nobody(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    said = []
    with monkeypatch.context() as context:
        context.setattr(locks.FileLock, "_acquire", denied)
        with locked(tmp_path / "lock", "counts", said.append) as alone:
            assert not alone
    assert "cannot be locked (permission denied)" in said[0]


def test_nobody_waits_for_a_lock_file_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    said = []
    for path in (tmp_path / "file" / "lock", Path("/proc/lock")):
        with locked(path, "counts", said.append) as alone:
            assert not alone
    assert len(said) == 2 and all("cannot be locked" in line for line in said), said


def test_what_goes_wrong_inside_is_raised_and_the_lock_is_free_again(tmp_path):
    path = tmp_path / "lock"
    with pytest.raises(OSError, match="inside"), locked(path, "counts", print):
        raise OSError("inside")
    with locked(path, "counts", print) as alone:
        assert alone
