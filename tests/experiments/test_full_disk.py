"""A disk that is really full: one sentence, nothing lost, nothing half-written, and on it goes once there is room."""

import resource
import subprocess
from dataclasses import replace

import pytest
from small_runs import CPU

from experiments.errors import UserError
from experiments.store import Run
from experiments.training import train

PAGE = 4096
SIZE = 1024 * PAGE
pytestmark = pytest.mark.skipif(resource.getpagesize() != PAGE, reason="counts pages of 4 KiB")


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place, pages_left: int) -> None:
    with open(place / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(PAGE))
    size = (place / "ballast").stat().st_size
    with open(place / "ballast", "r+b") as file:
        file.truncate(size - pages_left * PAGE)


def trained(run: Run, data, checkpoint_seconds: float) -> dict:
    with run.claim() as mine:
        assert mine
        return train(run, data, CPU, checkpoint_seconds=checkpoint_seconds)


@pytest.mark.parametrize(
    ("pages_left", "checkpoint_seconds", "where"),
    [
        (0, 0.0, "runs"),  # not even the claim
        (1, 0.0, "settings.yaml"),
        (40, 0.0, "checkpoint.new"),
        (250, 0.0, "checkpoint.new"),  # the first checkpoint, not the one beside it
        (3, 1e9, "metrics.csv"),
        (4, 1e9, "summary.json"),
    ],
)
def test_a_full_disk_is_survived(disk, tmp_path, tiny, shapes, pages_left, checkpoint_seconds, where):
    data = shapes(tiny)
    undisturbed, earlier = Run(tmp_path / "other", tiny), Run(disk, replace(tiny, seed=7))
    trained(undisturbed, data, 1e9)
    trained(earlier, data, 1e9)
    kept = {path: path.read_bytes() for path in earlier.folder.iterdir()}
    run = Run(disk, tiny)
    run.folder.mkdir()
    fill(disk, pages_left)
    with pytest.raises(UserError, match=f"Cannot write .*{where}.*: the disk is full: free some space"):
        trained(run, data, checkpoint_seconds)
    assert not run.done()
    assert not list(run.folder.glob(".*")), "a half-written file was left"
    assert {path: path.read_bytes() for path in earlier.folder.iterdir()} == kept
    (disk / "ballast").unlink()
    trained(run, data, checkpoint_seconds)
    assert (run.folder / "metrics.csv").read_bytes() == (undisturbed.folder / "metrics.csv").read_bytes()
