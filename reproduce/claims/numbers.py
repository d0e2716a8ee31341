"""Numbers read off a panel's curves, with their noise: the vocabulary in which the claims are written.

The noise of a value is its standard deviation over the replicates, each read by itself; two places (the minimum's, of
divergence) are told apart by more than one test only. For a curve that carries no more than its spread at each test,
the root mean square of that over the window stands for it, an upper bound, for places what is said there. Single runs
have no spread.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from reproduce.series import DIVERGED_LOSS, Curve, last_part, pick, rank_correlation

FEWEST_TESTS = 4

CLASSES = {"fig03b": 1000, "fig04b": 1000, "fig15a": 100, "fig15b": 100, "fig16a": 1000, "fig16b": 1000}
"""How many classes a panel's data have; the other panels' have ten."""

DIVERGED_TIMES = {"fig11b": 2.0}
"""How many times its lowest a test loss has to be to count as diverged in a panel; 1.5 in the others."""

BY_CHANCE = 1.2
"""A network that always answers the same is right once in as many tests as there are classes. One that is right at most
so much more often has learned nothing: on MNIST, whose classes differ in size, the best guess has 1.135."""


@dataclass(frozen=True)
class Number:
    """A value, its standard deviation over ``replicates``, its name in sentences; ``missing``: why there is none.

    ``grain``: of a place, how far tests lie apart there: two places are told apart no better, whatever the spread.
    ``lost``: it was read where the run has diverged or is no better than chance. ``doubt``: why it does not show what
    it is read for, even if it comes out as the claim says.
    """

    name: str
    value: float = math.nan
    std: float = 0.0
    replicates: int = 1
    missing: str = ""
    grain: float = 0.0
    lost: bool = False
    doubt: str = ""


@dataclass(frozen=True)
class PanelData:
    """What a claim is judged on.

    ``curves``: quantity -> label -> Curve. ``ends``: quantity -> label -> (first, last) x of the report's series, which
    ours must reach for claims about whole series; without an entry a series is taken as it is.
    ``table``: for tables 1 and 2, a data frame with ``row, accuracy_percent, accuracy_std, replicates``.
    """

    name: str
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    ends: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    table: pd.DataFrame | None = None

    def series(self, quantity: str, label: str | None) -> Curve | str:
        """The curve, or why there is none; see `series.pick` for labels."""
        curve = pick(self.curves.get(quantity, {}), label)
        if curve is None:
            return f"{self.name} has no {quantity.replace('_', ' ')} of {label or 'a single run'}"
        if len(curve.x) < FEWEST_TESTS:
            return f"{quantity.replace('_', ' ')} of {label or self.name} has only {len(curve.x)} values"
        return _finite(curve, DIVERGED_LOSS if quantity.endswith("loss") else math.nan)

    def extent(self, quantity: str, label: str | None, curve: Curve) -> tuple[float, float]:
        """The x range that the series should cover: the report's, else its own."""
        return pick(self.ends.get(quantity, {}), label) or (float(curve.x[0]), float(curve.x[-1]))


def _finite(curve: Curve, instead: float) -> Curve:
    """A loss that is no finite number is a divergence, Caffe's 87.3365; of other quantities nothing is known then."""
    mean = np.where(np.isfinite(curve.mean), curve.mean, instead)
    std = np.where(np.isfinite(curve.std), curve.std, 0.0)
    runs = None if curve.runs is None else np.where(np.isfinite(curve.runs), curve.runs, instead)
    return replace(curve, mean=mean, std=std, runs=runs)


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def _noise(curve: Curve, of: Callable[[np.ndarray], float], otherwise: float) -> float:
    """The standard deviation over replicates of what ``of`` reads off each one's curve; ``otherwise`` without them."""
    return otherwise if curve.runs is None else float(np.std([of(run) for run in curve.runs], ddof=1))


def alive(number: Number) -> Number:
    """The number, in doubt where its run is lost: such a loss is high, or still, for other reasons than the claim's."""
    return replace(number, doubt=f"{number.name} is of a run that has {LOST}") if number.lost else number


LOST = "diverged or learned nothing"


def by_chance(quantity: str, value: float, classes: int) -> bool:
    """Whether a loss, an accuracy (a fraction) or a generalisation error is that of a run that is lost.

    At chance the loss is that of equal odds, diverged 87.3365; the generalisation error of a diverged run is exactly 0.
    """
    if quantity == "generalization_error":
        return value == 0
    if quantity.endswith("loss"):
        return value > math.log(classes) - 0.001
    return quantity.endswith("accuracy") and value <= BY_CHANCE / classes


Reader = Callable[[Curve, slice], tuple[float, float]]
NOWHERE: Callable[[Curve, slice, int], bool] = lambda *_: False  # noqa: E731  (of places and ranks: no levels)


def read(
    panel: PanelData,
    name: str,
    label: str | None,
    quantity: str,
    reader: Reader,
    between: tuple[float, float] | None = None,
    level: Callable[[Curve, slice, int], bool] | None = None,
    place: bool = False,
) -> Number:
    """Apply ``reader`` (curve, samples in range) -> (value, std) to a series over ``between``, or over all of it.

    The series must cover the range, or the report's whole range, to within a tenth of it or one and a half tests (panel
    16b draws 1.15 million iterations of a run whose log ends at 1.09). ``level`` (curve, samples in range, classes)
    says whether the run is lost there, where the value itself does not. ``place``: the value is an x.
    """
    name = f"{name}({label})" if label else name
    curve = panel.series(quantity, label)
    if isinstance(curve, str):
        return Number(name, missing=curve)
    low, high = between or panel.extent(quantity, label, curve)
    slack = max(0.1 * (high - low), 1.5 * float(np.median(np.diff(curve.x))))
    if curve.x[0] > low + slack or curve.x[-1] < high - slack:
        had = f"{curve.x[0]:g} to {curve.x[-1]:g}"
        return Number(name, missing=f"{label or 'the run'} covers {had}, the claim needs {low:g} to {high:g}")
    part = slice(None)
    if between:
        # A hair of tolerance: x values come out of schedules and of a drawing.
        hair = 1e-6 * (high - low)
        part = slice(int(np.searchsorted(curve.x, low - hair)), int(np.searchsorted(curve.x, high + hair)))
        if part.stop - part.start < 2:
            return Number(name, missing=f"{label or 'the run'} has fewer than two tests between {low:g} and {high:g}")
    value, std = reader(curve, part)
    if math.isnan(value):
        return Number(name, missing=f"{name} is not a number")
    classes = CLASSES.get(panel.name, 10)
    lost = by_chance(quantity, float(value), classes) if level is None else level(curve, part, classes)
    grain = _apart(curve) if place else 0.0
    return Number(name, float(value), float(std), curve.replicates, lost=lost, grain=grain)


def _apart(curve: Curve) -> float:
    """How far the tests of a curve lie apart, with a hair of tolerance: x values come out of schedules."""
    return float(np.median(np.diff(curve.x))) * (1 + 1e-6)


def final(panel: PanelData, label: str | None, quantity: str = "test_loss") -> Number:
    """Mean of the last 5 % of the samples (at least one)."""

    def reader(curve: Curve, _: slice) -> tuple[float, float]:
        last = last_part(len(curve.x))
        return float(curve.mean[last].mean()), _noise(curve, lambda run: run[last].mean(), rms(curve.std[last]))

    return read(panel, f"final {short(quantity)}", label, quantity, reader)


def minimum(
    panel: PanelData, label: str | None, between: tuple[float, float] | None = None, quantity: str = "test_loss"
) -> Number:
    """Smallest value (of the test loss) of the replicates' mean, over the whole series or over a range of x.

    To be set against other values of the same curve; its noise is the spread at that place.
    """
    return _read_extreme(panel, "minimum", label, quantity, between, -1)


def own_minimum(panel: PanelData, label: str | None) -> Number:
    """Mean of each replicate's own smallest test loss, to be compared with that of another curve.

    That of their mean lies higher, for a mean is smoother: four runs of one curve could not be compared with one of
    another. It is no measure of how far a curve falls: the noisier the tests, the lower each run's lowest.
    """

    def reader(curve: Curve, _: slice) -> tuple[float, float]:
        if curve.runs is None:
            return _extreme(curve, slice(None), -1)[:2]
        own = curve.runs.min(axis=1)
        return float(own.mean()), float(own.std(ddof=1))

    return read(panel, "minimum", label, "test_loss", reader)


def argmin(
    panel: PanelData, label: str | None, between: tuple[float, float] | None = None, quantity: str = "test_loss"
) -> Number:
    """x of the smallest value. Its noise without replicates: how far, going out from there, the curve stays within its
    own spread."""
    return _read_extreme(panel, "minimum's place", label, quantity, between, -1, place=True)


def maximum(
    panel: PanelData, label: str | None, between: tuple[float, float] | None = None, quantity: str = "test_loss"
) -> Number:
    """Largest value, as `minimum`."""
    return _read_extreme(panel, "maximum", label, quantity, between, 1)


def argmax(
    panel: PanelData, label: str | None, between: tuple[float, float] | None = None, quantity: str = "test_loss"
) -> Number:
    """x of the largest value, with noise as for `argmin`."""
    return _read_extreme(panel, "maximum's place", label, quantity, between, 1, place=True)


def _read_extreme(
    panel: PanelData,
    name: str,
    label: str | None,
    quantity: str,
    between: tuple[float, float] | None,
    sign: int,
    place: bool = False,
) -> Number:
    """The largest (sign 1) or smallest (-1) value, or its place; the name says the range where that is not all."""
    name += f" over {between[0]:g}-{between[1]:g}" if between else ""

    def reader(curve: Curve, part: slice) -> tuple[float, float]:
        value, std, x, around = _extreme(curve, part, sign)
        if not place:
            return value, std
        return x, _noise(curve, lambda run: curve.x[part][np.argmax(sign * run[part])], around)

    return read(panel, name, label, quantity, reader, between, NOWHERE if place else None, place)


def _extreme(curve: Curve, part: slice, sign: int) -> tuple[float, float, float, float]:
    """The largest (sign 1) or smallest (-1) mean, its std, its x, and how far the curve stays within that std of it."""
    x, height, std = curve.x[part], sign * curve.mean[part], curve.std[part]
    if np.isnan(height).any():
        return math.nan, 0.0, math.nan, 0.0
    i = int(np.argmax(height))
    below = np.flatnonzero(height < height[i] - std[i])
    first = below[below < i].max(initial=-1) + 1
    last = below[below > i].min(initial=len(x)) - 1
    return sign * height[i], std[i], x[i], max(x[i] - x[first], x[last] - x[i])


def divergence_factor(panel: str) -> float:
    """How many times its lowest a test loss has to be to count as diverged in this panel."""
    return DIVERGED_TIMES.get(panel, 1.5)


def diverges(panel: PanelData, label: str | None) -> Number:
    """First x after the minimum where the test loss exceeds `divergence_factor` times the minimum and stays above for
    the next 10 % of the run (two tests at least), or to its end, be that its last test alone.

    Infinite where it never does. Each replicate has a place of its own, by its own minimum and not in its last test
    alone; one that never diverges counts as one test past the end. Where the mean never does but some of them do, or
    none does but their mean, the noise is infinite. Without replicates it is how much earlier the mean plus its
    standard deviation gets there, searched from the first place at which the minimum may lie.
    """

    def first(curve: Curve, loss: np.ndarray, lowest: float, start: int, last: int = 0) -> float:
        above = loss > divergence_factor(panel.name) * lowest
        run = 0.1 * (curve.x[-1] - curve.x[0])
        for i in range(start + 1, len(loss) - last):
            # At least one more test: few tests may lie further apart than a tenth of the run.
            until = max(i + 2, int(np.searchsorted(curve.x, curve.x[i] + run, side="right")))
            if above[i:until].all():
                return float(curve.x[i])
        return math.inf

    def reader(curve: Curve, _: slice) -> tuple[float, float]:
        place = first(curve, curve.mean, curve.mean.min(), int(np.argmin(curve.mean)))
        if curve.runs is None:
            around = _extreme(curve, slice(None), -1)
            start = int(np.searchsorted(curve.x, around[2] - around[3]))
            early = first(curve, curve.mean + curve.std, curve.mean.min(), start)
            return place, 0.0 if place == early else place - early
        own = np.array([first(curve, run, run.min(), int(np.argmin(run)), last=1) for run in curve.runs])
        never, none = math.isinf(place), bool(np.isinf(own).all())
        if never or none:
            return place, 0.0 if never and none else math.inf
        return place, float(np.std(np.minimum(own, curve.x[-1] + _apart(curve)), ddof=1))

    return read(panel, "diverges", label, "test_loss", reader, level=NOWHERE, place=True)


def at(panel: PanelData, label: str | None, x: float, quantity: str = "test_loss") -> Number:
    """The curve at ``x``, between its tests by straight lines."""

    def reader(curve: Curve, _: slice) -> tuple[float, float]:
        std = float(np.interp(x, curve.x, curve.std))
        return float(np.interp(x, curve.x, curve.mean)), _noise(curve, lambda run: np.interp(x, curve.x, run), std)

    return read(panel, f"{short(quantity)} at {x:g}", label, quantity, reader, None)


def mean_over(panel: PanelData, label: str | None, low: float, high: float, quantity: str = "test_loss") -> Number:
    """Mean of the samples with x in [low, high]."""

    def reader(curve: Curve, part: slice) -> tuple[float, float]:
        return float(curve.mean[part].mean()), _noise(curve, lambda run: run[part].mean(), rms(curve.std[part]))

    return read(panel, f"mean {short(quantity)} over {low:g}-{high:g}", label, quantity, reader, (low, high))


def deaths(panel: PanelData, label: str | None, low: float, high: float) -> Number:
    """How many of the runs have diverged or learned nothing by the end of [low, high], as its last two tests say: where
    one test alone is so high, the run may come back."""

    def count(curve: Curve, part: slice) -> tuple[float, float]:
        runs = curve.mean[None] if curve.runs is None else curve.runs
        classes = CLASSES.get(panel.name, 10)
        gone = [all(by_chance("test_loss", float(loss), classes) for loss in run[part][-2:]) for run in runs]
        return float(sum(gone)) * curve.replicates / len(runs), 0.0

    number = read(panel, "runs that have died", label, "test_loss", count, (low, high), NOWHERE)
    return number if number.missing else replace(number, name=f"{number.name} by {high:g}")


def slope(panel: PanelData, label: str | None, low: float, high: float) -> Number:
    """Least-squares slope of log test loss per unit of x over [low, high]."""

    def reader(curve: Curve, part: slice) -> tuple[float, float]:
        x, mean = curve.x[part], curve.mean[part]
        weights = (x - x.mean()) / np.square(x - x.mean()).sum()
        std = float(np.sqrt(np.square(weights * curve.std[part] / mean).sum()))
        return float(weights @ np.log(mean)), _noise(curve, lambda run: weights @ np.log(run[part]), std)

    def level(curve: Curve, part: slice, classes: int) -> bool:
        return by_chance("test_loss", float(curve.mean[part].max()), classes)

    name = f"slope of log loss over {low:g}-{high:g}"
    return alive(read(panel, name, label, "test_loss", reader, (low, high), level))


def spearman(
    panel: PanelData, label: str | None, quantity: str = "test_loss", between: tuple[float, float] | None = None
) -> Number:
    """Rank correlation of a curve with x. Where the curve moves less than its spread, the order is noise: std 2."""

    def reader(curve: Curve, part: slice) -> tuple[float, float]:
        mean = curve.mean[part]
        return rank_correlation(curve.x[part], mean), 2.0 if np.ptp(mean) <= rms(curve.std[part]) else 0.0

    return read(panel, f"rank correlation of {short(quantity)}", label, quantity, reader, between, NOWHERE)


def ratio(a: Number, b: Number, name: str) -> Number:
    """a / b with the noise of both; in doubt where a is of a run that is lost, as is a loss that has "risen" to 87."""
    if a.missing or b.missing or b.value == 0:
        return Number(name, missing=a.missing or b.missing or f"{b.name} is 0")
    value = a.value / b.value
    std = math.hypot(a.std / b.value, value * b.std / b.value)
    return Number(name, value, std, min(a.replicates, b.replicates), doubt=alive(a).doubt)


def short(quantity: str) -> str:
    """A quantity as sentences name it: "loss", "accuracy", "train loss"."""
    return quantity.removeprefix("test_").replace("_", " ")
