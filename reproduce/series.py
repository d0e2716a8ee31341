"""Curves: the mean of a setting's replicates, as every figure of the report draws it.

A replicate is a data frame with one row per test (columns ``iteration, lr, momentum, train_loss, test_loss,
test_accuracy``; other columns are ignored). Needs numpy and pandas only, so that drawing starts fast.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from experiments.curves import own_curves
from experiments.divergence import diverged_at
from experiments.errors import UserError
from experiments.words import counted, panel_number

DIVERGED_LOSS = 87.3365
"""What Caffe's SoftmaxWithLoss prints once a network has diverged: -ln of the smallest normal float32.

The report's figures 11b to 15a average replicates with that number in them (a quarter of it is 22, see panel 11b)."""

LOSSES = ("test_loss", "train_loss")
T = TypeVar("T")


@dataclass(frozen=True)
class Curve:
    """One series of a panel.

    ``x``, ``mean`` and ``std`` are float64 of shape [n]; ``std`` is the sample standard deviation over replicates
    (zeros for a single one); ``diverged`` counts the replicates that have diverged by the end, ``diverges`` is where
    the first of them does, NaN where none; ``runs`` is each replicate's own curve, float64 [replicates, n], where there
    are several.
    """

    label: str
    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    replicates: int
    diverged: int = 0
    runs: np.ndarray | None = None
    diverges: float = math.nan

    def __post_init__(self) -> None:
        if not (self.x.shape == self.mean.shape == self.std.shape and self.x.ndim == 1):
            raise ValueError(
                f"curve {self.label!r}: x, mean and std must be vectors of one length, "
                f"got {self.x.shape}, {self.mean.shape}, {self.std.shape}"
            )
        if self.runs is not None and self.runs.shape != (self.replicates, len(self.x)):
            raise ValueError(
                f"curve {self.label!r}: runs must be [{self.replicates}, {len(self.x)}], got {self.runs.shape}"
            )

    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean less and plus one standard deviation, float64 [n] each.

        Where that would go below zero although no replicate does (one of them has diverged), which a logarithmic axis
        cannot show, it ends at the least of them.
        """
        low, high = self.mean - self.std, self.mean + self.std
        if self.runs is not None:
            least = self.runs.min(axis=0)
            low = np.where((low <= 0) & (least > 0), least, low)
        return low, high


def counts(curve: Curve, alike: int) -> str:
    """What a legend adds to a curve's name: " (2 runs)", " (1 of 4 diverged at 0.01)", or nothing.

    alike: how many runs those curves of the figure have that have fewest, of which nothing is said. Where the first
    replicate diverges is of use where that lies beyond the panel.
    """
    if curve.diverged:
        first = ", the first" if curve.diverged > 1 else ""
        at = f"{curve.diverges:{',.0f' if curve.diverges >= 1000 else '.3g'}}"
        return f" ({curve.diverged} of {curve.replicates} diverged{first} at {at})"
    return "" if curve.replicates == alike else f" ({counted(curve.replicates, 'run')})"


def moving_mean(curve: Curve, tests: int) -> Curve:
    """Each sample the mean of ``tests`` (odd) neighbouring ones, at the ends of those that there are: MATLAB's movmean.

    Replicates are averaged alike, and the spread is that of what comes out. Raises ValueError for an even number.
    """
    if tests < 1 or tests % 2 == 0:
        raise ValueError(f"a moving mean needs an odd number of tests, got {tests}")

    def averaged(values: np.ndarray) -> np.ndarray:
        return pd.Series(values).rolling(tests, center=True, min_periods=1).mean().to_numpy()

    if curve.runs is None:
        return replace(curve, mean=averaged(curve.mean))
    runs = np.stack([averaged(run) for run in curve.runs])
    return replace(curve, mean=runs.mean(axis=0), std=runs.std(axis=0, ddof=1), runs=runs)


def labels(figure: Mapping[str, Any], panel: str) -> dict[str, str]:
    """The curves that a panel shows, and what its legend calls each; a figure's other readings are in no panel."""
    what, curves = figure["panels"][panel], figure["curves"]
    shown = what.get("curves", own_curves(curves))
    return {name: what.get("labels", {}).get(name, curves[name]["label"]) for name in shown}


def x_scale(what: Mapping[str, Any], divide: float, reading: Mapping[str, Any] | None = None) -> float:
    """By what to multiply a run's x to have it on a panel's axis.

    divide: how much shorter than the report's it was, for iterations. The panel's file may have an `x_scale` where
    the report's axis shows other values than were run (14a), and another reading one of its own.
    """
    scale = (reading or {}).get("x_scale", what.get("x_scale", 1.0))
    return scale * (divide if what["x"] == "iteration" else 1.0)


def _tests(run: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``run`` that hold a test: an untested row has neither a test loss nor an accuracy."""
    recorded = run["test_loss"].notna() | run["test_accuracy"].notna()
    return run[recorded].reset_index(drop=True)


def average(
    runs: Sequence[pd.DataFrame], quantity: str, x: str = "iteration", x_scale: float = 1.0, label: str = ""
) -> Curve:
    """Mean and standard deviation of ``quantity`` over replicates, against ``x`` times ``x_scale``.

    Replicates must have been tested at the same iterations. One that stopped early shortens the curve to what
    all have (a run that goes on), but one that stopped because it diverged stays diverged to the end of the others:
    its losses count as 87.3365 from its divergence on, its accuracy stays at the last one recorded. Tests at which a
    replicate that is on course did not record the quantity are left out (a training loss after the last iteration).

    ``quantity``: a column, or ``generalization_error`` (test loss minus training loss). ``x``: a column.
    Raises UserError for no runs, for a missing column and for tests at different iterations.
    """
    if not runs:
        raise UserError(f"no runs to average for {label or quantity}: train at least one replicate first")
    tables = [_tests(run) for run in runs]
    needed = [x, *(LOSSES if quantity == "generalization_error" else [quantity])]
    for table in tables:
        if missing := [name for name in needed if name not in table]:
            raise UserError(
                f"a run of {label or quantity} has no column {missing[0]!r}, only {', '.join(map(str, table))}"
            )
    ends = [diverged_at(table["test_loss"]) for table in tables]
    alive = [len(table) for table, end in zip(tables, ends, strict=True) if end is None]
    length = min(alive) if alive else max(len(table) for table in tables)
    longest = max(tables, key=len)
    for table in tables:
        shared = min(len(table), length)
        if not np.array_equal(table["iteration"][:shared], longest["iteration"][:shared]):
            raise UserError(
                f"the replicates of {label or quantity} were tested at different iterations "
                f"({_few(table)} and {_few(longest)}); average runs of one setting only"
            )
    values = np.stack([_values(table, end, quantity, length) for table, end in zip(tables, ends, strict=True)])
    recorded = ~np.isnan(values).any(axis=0)  # a diverged one has its number where none of the others was taken
    values = values[:, recorded]
    places = longest[x].to_numpy(dtype=float)[:length] * x_scale
    gone = [end for end in ends if end is not None and end < length]
    return Curve(
        label=label,
        x=places[recorded],
        mean=values.mean(axis=0),
        std=values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1]),
        replicates=len(values),
        diverged=len(gone),
        runs=values if len(values) > 1 else None,
        diverges=float(places[min(gone)]) if gone else math.nan,
    )


def _values(table: pd.DataFrame, end: int | None, quantity: str, length: int) -> np.ndarray:
    """One replicate's ``quantity`` at the first ``length`` tests, divergence filled in. float64 [length]."""
    if quantity == "generalization_error":
        return _values(table, end, "test_loss", length) - _values(table, end, "train_loss", length)
    values = table[quantity].reindex(range(length)).to_numpy(dtype=float, copy=True)
    if quantity in LOSSES:
        # A missing training loss was not recorded, a missing test loss was not a number.
        values[np.isinf(values) | (np.isnan(values) & (quantity == "test_loss"))] = DIVERGED_LOSS
        values[length if end is None else end :] = DIVERGED_LOSS
    elif end is not None:
        values[end:] = pd.Series(values).ffill().to_numpy()[end:]
    return values


def _few(table: pd.DataFrame) -> str:
    return ", ".join(str(i) for i in table["iteration"][:3]) + ", ..."


def pick(series: Mapping[str, T], label: str | None) -> T | None:
    """The one entry with this legend label; None as a label: the only entry there is. None if there is no such entry.

    A label may be the last part of a legend entry: "Loss; CM=0.97-0.7" answers to "CM=0.97-0.7".
    """
    if label is not None and label in series:
        return series[label]
    hits = [item for name, item in series.items() if label is None or name.endswith(f"; {label}")]
    return hits[0] if len(hits) == 1 else None


def last_part(samples: int) -> slice:
    """Where a series ends: its last 5 % of samples, at least one. Means over it are called final values."""
    return slice(samples - max(1, round(0.05 * samples)), samples)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho, ties sharing their mean rank; NaN for fewer than two values or where one side is constant."""
    ranks_a, ranks_b = pd.Series(a).rank(), pd.Series(b).rank()
    if min(ranks_a.nunique(), ranks_b.nunique()) < 2:  # numpy would warn
        return math.nan
    return float(ranks_a.corr(ranks_b))


def one_run(figure: Mapping[str, Any], rows: pd.DataFrame) -> str:
    """Which curves are one run, in a sentence, as settings changed by hand may make them. Empty where none are."""
    runs = {curve: tuple(sorted(set(own["hash"]))) for curve, own in rows.groupby("curve", sort=False)}
    alike = [[figure["curves"][c]["label"] for c in runs if runs[c] == of] for of in dict.fromkeys(runs.values())]
    return "  ".join(f"{', '.join(labels)} are one run." for labels in alike if len(labels) > 1)


def over_others_rates(figure: Mapping[str, Any], rows: pd.DataFrame) -> list[str]:
    """Which curves of what was run a panel shows over another curve's rates (`x_of`): a sentence for each of these.

    Other readings are shown in the report's own panels only.
    """
    curves, ran, said = figure["curves"], set(rows["curve"]), []
    for panel, what in figure["panels"].items():
        shown = labels(figure, panel) if what["x"] in ("lr", "momentum") else {}
        moved = [c for c in curves if c in ran and "x_of" in curves[c] and _main(curves, c, panel) in shown]
        rates = "momentum" if what["x"] == "momentum" else "learning rates"
        for of in dict.fromkeys(curves[c]["x_of"] for c in moved):
            names = ", ".join(shown.get(c, curves[c]["label"]) for c in moved if curves[c]["x_of"] == of)
            said.append(f"{panel_number(panel)}: over the {rates} of {curves[of]['label']}: {names}.")
    return said


def _main(curves: Mapping[str, Any], curve: str, panel: str) -> str:
    """The curve in whose place a panel of the report shows this one, itself elsewhere."""
    return curves[curve].get("instead_of", curve) if re.fullmatch(r"fig\d\d[a-z]?", panel) else curve
