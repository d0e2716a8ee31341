"""Make the environment of the Makefile and fill it, one command at a time: several may begin in one new folder.

    python3 -m reproduce.install .venv

Runs in any Python 3, which it may have to refuse, and needs nothing but its standard library. What is interrupted is
gone on with by the same command.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

OLDEST, TOO_NEW = (3, 11), (3, 14)
PROJECT = Path(__file__).resolve().parents[1]
MARK, DONE, LOCK = ".made-by-make", ".installed", ".lock"
"""In the environment's folder: it is ours to fill; it is filled; one command fills it now."""

# No syntax and no annotation that a Python which is refused could not read.


def refusal(folder: Path) -> str:
    """Why nothing can be installed there with this Python, "" where it can."""
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        here = f"{sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}"
        return f"Python 3.11 to 3.13 is needed, {here}: make PYTHON=python3.12 ..."
    if folder.exists() and not folder.is_dir():
        return f"VENV={folder}: something else is there; name a new folder."
    if folder.name == ".venv" or any((folder / name).exists() for name in (DONE, MARK)):
        return ""  # .venv is ours by name; another folder that make did not make may be someone else's
    if (folder / "pyvenv.cfg").exists():
        return (
            f"{folder} is an environment that make did not make: activate it and say VENV= (nothing is installed), or "
            "name a new folder."
        )
    if folder.exists() and any(folder.iterdir()):
        return f"VENV={folder}: something else is there; name a new folder."
    return ""


@contextlib.contextmanager
def alone(folder: Path) -> "Iterator[int]":
    """Hold the folder's lock inside, where its file system has locks: its file descriptor, which a child process may
    hold as well. The kernel frees that of dead owners."""
    with open(folder / LOCK, "a") as file:
        try:
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"Waiting for another make that installs into {folder}.", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError) as error:
            print(f"{folder} cannot be locked ({error}): start no second make until this one has installed.")
        yield file.fileno()


def filled(folder: Path) -> bool:
    """Whether it has the packages that pyproject.toml asks for now."""
    done = folder / DONE
    return done.exists() and done.stat().st_mtime >= (PROJECT / "pyproject.toml").stat().st_mtime


def install(folder: Path) -> int:
    """Make the environment, unless another command does meanwhile. Returns the exit code: 0, or that of pip."""
    if not (folder / "pyvenv.cfg").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()  # first of all, so that what is interrupted here can be gone on with
    with alone(folder) as lock:
        if filled(folder):
            return 0
        print(f"Installing into {folder}, once: PyTorch and its libraries are several GB on Linux.", flush=True)
        venv.EnvBuilder(symlinks=True, with_pip=True).create(folder)
        pip = [os.path.abspath(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        pip += [] if sys.stdout.isatty() else ["--progress-bar", "off"]  # of lines that say what it is at
        pip += ["--editable", ".[dev]"]
        done = subprocess.run(pip, cwd=PROJECT, pass_fds=[lock])
        if done.returncode == 0:
            (folder / DONE).touch()
        return done.returncode


def main(words: "Sequence[str]") -> int:
    """The command line above. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "python3 -m reproduce.install", description="Make the environment of the Makefile and fill it."
    )
    parser.add_argument("folder", type=Path, help="the environment's folder, as .venv")
    folder = parser.parse_args(words).folder
    why = refusal(folder)
    if why:
        print(why, file=sys.stderr)
        return 2
    try:
        return install(folder)
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on from here.", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError:  # of ensurepip, which Debian has in a package of its own
        why = f"{sys.executable} brings no pip into it. On Debian and Ubuntu the package python3-venv is missing"
        print(f"{folder} cannot be made: {why}: install it, and the same command goes on.", file=sys.stderr)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"{folder} cannot be made: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
