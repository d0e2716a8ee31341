"""What tests share: small runs on made images, single-threaded so that they can run side by side; ImageNet in small."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import RUNNING

from experiments.compose import load, settings_for
from experiments.data import load as load_data
from experiments.data_sets import shapes_of
from experiments.device import LONGEST_TMPDIR, cores
from experiments.settings import Settings

torch.set_num_threads(1)

for name in ("OMP_NUM_THREADS", "DATA_DIR", "DEBUG"):  # what tests say of threads, data and errors is without them
    os.environ.pop(name, None)

if len(tempfile.gettempdir()) > LONGEST_TMPDIR:  # the tests that have worker processes would be told so
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

# A script that starts the tests with & has them ignore SIGINT, and so would the commands that they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The same examples every time, however slow the machine.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Whatever number of threads the command of an earlier test has chosen."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """A failed test's training would go on for hours beside the others."""
    yield
    while RUNNING:
        process = RUNNING.pop()
        process.kill()
        process.wait()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`pytest -n auto`: a process a core (as a container counts), at most 4: each takes 0.8 GB, as may its children."""
    return min(cores(), 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are run by one of the processes, one after the other (`--dist loadgroup`); slow ones have
    an hour before they count as hanging."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600))
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.xdist_group("gpu"))


TINY = {
    "dataset": {"name": "shapes", "size": 8, "train_images": 50, "test_images": 30, "label_noise": 0.0},
    "batch": {"per_gpu": 3, "gpus": 2},
    "iterations": 24,
    "test_interval": 6,
}


@pytest.fixture
def tiny() -> Settings:
    """Figure 9's network and solver on 50 images of 8x8: milliseconds a run."""
    return settings_for(load("figure", "fig09"), "wd_1e-3", 0, "smoke", TINY)


@pytest.fixture
def shapes():
    """The images of a run's settings."""

    def images_of(settings: Settings):
        return load_data("shapes", shapes=shapes_of(settings))

    return images_of


CLASSES = ("n01440764", "n01443537", "n02123045")
SIZES = ((50, 37), (37, 50), (40, 40), (64, 48), (200, 130), (18, 12))


@pytest.fixture
def jpegs(tmp_path):
    """A function that makes tmp_path/imagenet with train images and val images per class, and returns tmp_path.

    Every class has a colour of its own, every image another pattern and shape.
    """

    def make(train: int = 8, val: int = 7) -> Path:
        rng = np.random.default_rng(0)
        for split, n in (("train", train), ("val", val)):
            for label, name in enumerate(CLASSES):
                folder = tmp_path / "imagenet" / split / name
                folder.mkdir(parents=True)
                for i in range(n):
                    small = rng.integers(0, 120, (6, 6, 3))
                    small[..., label] += 120
                    image = Image.fromarray(small.astype(np.uint8)).resize(SIZES[i % len(SIZES)], Image.BICUBIC)
                    image.save(folder / f"{split}_{name}_{i}.JPEG", quality=90)
        return tmp_path

    return make
