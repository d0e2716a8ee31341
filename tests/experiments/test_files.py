"""A file is written whole or not at all, and what was there before stays."""

import errno
import os
import socket

import pytest

from experiments import files
from experiments.errors import UserError
from experiments.files import sealed, unsealed, write_atomically


def test_looking_whether_a_folder_can_be_written_follows_no_link(tmp_path):
    kept, folder = tmp_path / "kept", tmp_path / "results"
    kept.write_text("mine")
    folder.mkdir()
    (folder / f".writable.{socket.gethostname()}.{os.getpid()}").symlink_to(kept)
    files.check_writable(folder, "results")
    assert kept.read_text() == "mine"


def test_a_file_where_a_folder_belongs_is_said_before_anything_else(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path)
    for wrong in ("file", "file/x/y", "loop", "loop/x", "dangling"):
        with pytest.raises(UserError, match="is no folder: choose another one with figures=DIR"):
            files.check_folder(tmp_path / wrong, "figures")
    for right in (".", "new", "new/er", "link", "link/new"):
        files.check_folder(tmp_path / right, "figures")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "new").exists(), "looking made a folder"


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    write_atomically(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path], "a half-written file was left beside"


def test_another_writers_file_may_be_renamed_while_it_is_looked_at(tmp_path, monkeypatch):
    """As where two commands that were started at once write the same summary."""
    monkeypatch.setattr(files.Path, "glob", lambda folder, pattern: iter([folder / ".summary.csv.of-another"]))
    write_atomically(tmp_path / "summary.csv", "rows")
    assert (tmp_path / "summary.csv").read_text() == "rows"


@pytest.mark.parametrize("content", [b"", b"state"])
def test_what_was_sealed_is_known_to_be_whole(content):
    raw = sealed(content)
    assert unsealed(raw) == content
    for damaged in (raw[:-1], raw + b"0", bytes([raw[0] ^ 1]) + raw[1:], raw[:-1] + bytes([raw[-1] ^ 1]), b""):
        assert unsealed(damaged) is None
