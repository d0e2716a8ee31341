"""What a diverged run looks like: a test loss of Caffe's ceiling, or no number, from some test to the last."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LOSS_CEILING = 87.33654475
"""-ln of the smallest normal float32: what Caffe reports for a sample whose probability is zero or not a number."""

DIVERGED_FROM = 87.3
"""A test loss from here on is a diverged network's: at most one of 2,000 images is not at the ceiling."""


def diverged_at(losses: ArrayLike) -> int | None:
    """Index of the test from which on every loss is NaN, infinite or at the ceiling; None if the last one is not.

    losses: one per test; what is no number may be NaN or None. A loss at the ceiling that comes down again is no
    divergence: with statistics of BatchNorm that nothing has filled yet, the author's runs of figures 1 and 5 start
    there.
    """
    values = np.asarray(losses, dtype=float)
    fine = np.flatnonzero(np.isfinite(values) & (values < DIVERGED_FROM))
    end = int(fine[-1]) + 1 if len(fine) else 0
    return end if end < len(values) else None


def divergence(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The iteration from whose test on a run has diverged, None where it has not."""
    tests = [row for row in rows if row.get("test_loss") is not None]
    at = diverged_at([row["test_loss"] for row in tests])
    return None if at is None else tests[at]["iteration"]
