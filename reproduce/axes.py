"""Limits, ticks, names, colours and spread of a panel."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.divergence import DIVERGED_FROM
from reproduce.series import Curve

COLOURS = ("#0072BD", "#D95319", "#EDB120", "#7E2F8E", "#77AC30", "#4DBEEE", "#A2142F")
"""MATLAB's order, in which the report drew its series."""


FAR = 5.0
"""So many times its median lies far above a curve."""


def limits(report: tuple[float, float], curves: list[Curve], log: bool, lowest: float = np.inf) -> tuple[float, float]:
    """The report's limits, widened to hold our curves as far as they have not diverged.

    Where a curve rises far above most of itself it leaves the panel, as in the report: a single test would flatten the
    rest.
    lowest: of the report's own samples, which its logarithmic axes may end at: a thin line on the axis is not seen.
    """
    low, high = report
    shown = [c.mean[np.isfinite(c.mean) & (c.mean < DIVERGED_FROM / 4)] for c in curves]
    if log:
        shown = [mean[mean <= max(high, FAR * np.median(mean))] for mean in shown if len(mean)]
    ours = np.concatenate(shown) if shown else np.empty(0)
    if log and 0 < lowest < 1.02 * low:
        low = lowest / 1.02
    if len(ours):
        margin = 1.05 if log else 0.02 * (high - low)
        top, bottom = np.percentile(ours, 99.5), ours.min()
        if not log or bottom > 0:
            low = min(low, bottom / margin if log else bottom - margin)
        high = max(high, top * margin if log else top + margin)
    return low, high


def plain_log_ticks(ax: Any) -> None:
    """Losses as people write them (0.7, 1.2), not as powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = ax.get_ylim()
    subs = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5)
    ax.yaxis.set_major_locator(LogLocator(subs=subs[int(high >= 6 * low) + int(high >= 20 * low)]))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def mapped(what: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What to add to the name of an axis of which ours are multiplied, as a shortened run's iterations are."""
    if what["x"] == "momentum" and facts["one_momentum"]:
        return " (recorded; solid: not applied)"
    if "x_scale" in what:
        return f" (ours x {what['x_scale']:g})"
    if facts["divide"] == 1 or what["x"] != "iteration":
        return ""
    return f" (ours x {facts['divide']:g}: at most {max(facts['iterations']):,} were run)"


def spread(ax: Any, curve: Curve, colour: str) -> None:
    """What lies behind a mean: a band of one standard deviation, and each run, since of four one may have died."""
    if curve.replicates > 1:
        ax.fill_between(curve.x, *curve.band(), color=colour, alpha=0.14, linewidth=0, zorder=1)
    if curve.runs is not None:
        point = "." if len(curve.x) == 1 else ""  # no line goes through a single test
        ax.plot(curve.x, curve.runs.T, color=colour, linewidth=0.6, alpha=0.5, marker=point, zorder=2)


def literal(text: str) -> str:
    """A text of the user's as matplotlib draws it: without this, what stands between dollar signs is a formula."""
    return text.replace("$", r"\$")
