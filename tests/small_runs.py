"""Runs of about a second, which tests share: the words of their command lines, and waiting for their processes."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.compose import ROOT

CPU = torch.device("cpu")

SMALL = [
    "scale=smoke",
    "device=cpu",
    "threads=1",
    "dataset.size=8",
    "dataset.train_images=64",
    "dataset.test_images=40",
    "batch.per_gpu=4",
]
"""Of any figure, on made images of 8x8."""

TINY = [*SMALL, "iterations=40", "test_interval=4"]

FIGURE_9 = ["figure=fig09", *SMALL, "checkpoint_seconds=0"]

SUMMARY = {
    "hash": "0123456789ab",
    "iterations": 4,
    "parameters": 3,
    "final_test_loss": 1.25,
    "final_test_accuracy": 0.5,
    "diverged_at": None,
    "seconds": 1.0,
    "images_per_second": 1.0,
}
"""What training gives back at its end."""

BENCHMARK = [
    "device=cpu",
    "networks=cifar3",
    "batches=8",
    "repeats=1",
    "seconds=0.05",
    "threads=1",
    "variants=bare,trainer,plain",
]
"""Of `experiments.benchmark`."""


def wait_for(condition: Callable[[], object], seconds: float = 120.0, pause: float = 0.01) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(pause)


RUNNING: list[subprocess.Popen] = []


def begin(command: Sequence[str], **more: Any) -> subprocess.Popen:
    """Start a process in the project's folder. It ends with the test at the latest (conftest.py), even a failed one."""
    process = subprocess.Popen(command, cwd=ROOT, text=True, **more)
    RUNNING.append(process)
    return process


def checkpointed(results: Path) -> bool:
    """Whether any run has a checkpoint."""
    return any((results / "runs").glob("*/checkpoint"))


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and what was said."""
    said, _ = process.communicate(timeout=400)
    return process.returncode, said
