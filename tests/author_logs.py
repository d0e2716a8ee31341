"""The author's logs, and how exactly they print what his solver computed."""

import numpy as np
import pandas as pd

from experiments.compose import ROOT

LOGS = ROOT / "results" / "paper" / "logs"
INDEX = pd.read_csv(LOGS / "index.csv").set_index("name")

# Beyond the rounding of print, Caffe computes in float32: half its spacing, relative to the largest value in the
# formula, stays behind where a difference cancels (1cycle next to 2S, a range test next to 0): up to 4.3e-5 and
# 2.4e-5 of the small value that is left there.
HALF_SPACING = 2.0**-24


def half_digit(printed: np.ndarray) -> np.ndarray:
    """Half a unit in the sixth significant digit, Caffe's print precision."""
    exponent = np.floor(np.log10(np.where(printed > 0, printed, 1)))
    return np.where(printed > 0, 0.5 * 10.0 ** (exponent - 5), 0)
