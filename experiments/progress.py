"""What a run in training tells its caller, and how it ends early: words that need no torch."""

from dataclasses import dataclass
from typing import Any


@dataclass
class Progress:
    """Where a run is: handed to the caller once per iteration. metrics is the newest row, None before the first."""

    iteration: int
    iterations: int
    lr: float
    metrics: dict[str, Any] | None


class Stopped(Exception):
    """The caller asked to stop; the checkpoint is written."""
