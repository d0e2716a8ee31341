"""The environment that make makes: whose folder it is, one command at a time, and what an interruption leaves."""

import ast
import os
import subprocess
import threading
import venv
from types import SimpleNamespace

import pytest

from reproduce import install


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder to install into, where neither venv nor pip does anything: what pip was asked for is noted."""
    asked: list[list[str]] = []

    def create(_, folder):
        (folder / "pyvenv.cfg").touch()

    def run(words, cwd, pass_fds):
        asked.append(words)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(venv.EnvBuilder, "create", create)
    monkeypatch.setattr(install.subprocess, "run", run)
    return SimpleNamespace(folder=tmp_path / "new" / "venv", asked=asked)


def test_a_new_folder_is_filled_once(made):
    assert install.main([str(made.folder)]) == install.main([str(made.folder)]) == 0
    (words,) = made.asked
    assert words[0] == str(made.folder / "bin" / "python") and words[-2:] == ["--editable", ".[dev]"]
    assert install.filled(made.folder)


def test_other_requirements_are_installed(made, tmp_path, monkeypatch):
    assert install.main([str(made.folder)]) == 0
    (tmp_path / "pyproject.toml").touch()
    os.utime(made.folder / install.DONE, (0, 0))
    monkeypatch.setattr(install, "PROJECT", tmp_path)
    assert not install.filled(made.folder)
    assert install.main([str(made.folder)]) == 0 and len(made.asked) == 2


def test_what_was_interrupted_goes_on(made, monkeypatch, capsys):
    def interrupted(_, folder):
        (folder / "pyvenv.cfg").touch()  # the first thing that venv writes
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(venv.EnvBuilder, "create", interrupted)
        assert install.main([str(made.folder)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not install.filled(made.folder)
    assert install.main([str(made.folder)]) == 0 and install.filled(made.folder)


def test_a_python_without_pip_is_a_sentence(made, monkeypatch, capsys):
    def create(*_):
        raise subprocess.CalledProcessError(1, "ensurepip")

    with monkeypatch.context() as during:
        during.setattr(venv.EnvBuilder, "create", create)
        assert install.main([str(made.folder)]) == 2
    assert "the package python3-venv is missing" in capsys.readouterr().err
    assert install.main([str(made.folder)]) == 0


@pytest.mark.parametrize("words", [["--help"], ["-x"], []])
def test_an_option_is_no_folder(made, words, capsys):
    with pytest.raises(SystemExit) as end:
        install.main(words)
    assert end.value.code == (0 if words == ["--help"] else 2) and not made.asked
    assert "usage: python3 -m reproduce.install [-h] folder" in "".join(capsys.readouterr())


def test_a_failed_installation_is_not_taken_for_one(made, monkeypatch):
    monkeypatch.setattr(install.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    assert install.main([str(made.folder)]) == 1
    assert not install.filled(made.folder)


@pytest.mark.parametrize(
    "there, says", [("pyvenv.cfg", "activate it and say VENV="), ("thesis.tex", "something else is there")]
)
def test_what_is_someone_elses_stays_as_it_is(there, says, made, capsys):
    made.folder.mkdir(parents=True)
    (made.folder / there).write_text("mine")
    assert install.main([str(made.folder)]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in made.folder.iterdir()] == [there] and not made.asked


def test_a_file_is_no_folder(made, capsys):
    made.folder.parent.mkdir()
    made.folder.write_text("mine")
    assert install.main([str(made.folder)]) == 2
    assert "something else is there" in capsys.readouterr().err
    assert install.main([str(made.folder / "below")]) == 2
    assert "cannot be made" in capsys.readouterr().err and made.folder.read_text() == "mine"


@pytest.mark.parametrize("version", [(3, 6), (3, 10), (3, 14)])
def test_other_pythons_are_refused_before_anything_is_made(version, made, monkeypatch, capsys):
    monkeypatch.setattr(install.sys, "version_info", (*version, 0))
    assert install.main([str(made.folder)]) == 2
    assert f"Python 3.11 to 3.13 is needed, {install.sys.executable} is 3.{version[1]}" in capsys.readouterr().err
    assert not made.folder.parent.exists()


def test_a_python_that_is_refused_can_read_it():
    for path in (install.PROJECT / "reproduce" / name for name in ("__init__.py", "install.py")):
        ast.parse(path.read_text(), feature_version=(3, 6))


def test_of_two_at_once_one_installs(made, monkeypatch):
    made.folder.mkdir(parents=True)
    (made.folder / install.MARK).touch()
    codes, said, waits = list[int](), list[str](), threading.Event()

    def says(line, **_):  # not read back from capsys, which loses what another thread prints while it is emptied
        said.append(line)
        waits.set()

    monkeypatch.setattr(install, "print", says, raising=False)
    other = threading.Thread(target=lambda: codes.append(install.main([str(made.folder)])), daemon=True)
    with install.alone(made.folder):
        other.start()
        assert waits.wait(60) and other.is_alive()
        (made.folder / install.DONE).touch()
    other.join(60)
    assert codes == [0] and not made.asked
    assert said == [f"Waiting for another make that installs into {made.folder}."]
