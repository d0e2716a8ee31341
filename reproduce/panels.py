"""The curves of a figure's panels, made of the rows of its runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.compose import settings_for
from experiments.curves import quantities
from reproduce import reference
from reproduce.series import Curve, average, labels, x_scale


def capacity_curves(
    runs: Mapping[str, Sequence[pd.DataFrame]], parameters: Mapping[str, int]
) -> dict[str, dict[str, Curve]]:
    """Figure 2: final errors (1 - accuracy, the mean of the last fifth of the tests) against the number of parameters.

    A fifth, because the training accuracy at a test is that of one batch of one GPU.
    """
    found = {}
    for quantity, column in (("train_error", "train_accuracy"), ("test_error", "test_accuracy")):
        points = []
        for curve in sorted(runs, key=lambda c: parameters[c]):
            finals = [1 - r[column].dropna().tail(max(1, len(r) // 5)).mean() for r in runs[curve]]
            points.append((parameters[curve], np.mean(finals), np.std(finals, ddof=1) if len(finals) > 1 else 0.0))
        x, mean, std = np.array(points, dtype=float).T
        label = quantity.replace("_", " ")
        found[quantity] = {label: Curve(label, x, mean, std, max(len(r) for r in runs.values()))}
    return found


def panel_curves(
    figure: Mapping[str, Any], rows: pd.DataFrame, divide: float, parameters: Mapping[str, int]
) -> dict[str, dict[str, dict[str, Curve]]]:
    """Panel -> quantity -> the report's label -> our curve, x in the report's units.

    A panel's file says what is on its axes (x, and one y or several) and which curves it shows (all unless said);
    `labels` renames those that its legend calls otherwise.
    divide: how much shorter than the report's the runs were; iterations are multiplied by it. parameters: learnable
    values of each curve's network, for panels over capacity.
    """
    runs = {
        str(curve): [r for _, r in group.groupby("replicate")] for curve, group in rows.groupby("curve", sort=False)
    }
    panels: dict[str, dict[str, dict[str, Curve]]] = {}
    for panel, what in figure["panels"].items():
        if what["x"] == "parameters":
            panels[panel] = capacity_curves({c: r for c, r in runs.items() if c in parameters}, parameters)
            continue
        x, scale = what["x"], x_scale(what, divide)
        shown = {curve: label for curve, label in labels(figure, panel).items() if curve in runs}
        panels[panel] = {
            y: {label: average(runs[curve], y, x, x_scale=scale, label=label) for curve, label in shown.items()}
            for y in quantities(what)
        }
    return panels


def over_their_axes(figure: Mapping[str, Any], rows: pd.DataFrame, facts: Mapping[str, Any]) -> pd.DataFrame:
    """The rows, in which a curve with `x_of: C` has the learning rate and momentum of C's schedule at each iteration.

    So a panel's axis may show a range that was not run over (12a). Without the rows beyond C's end.
    facts: the scale of the runs and what was changed by hand.
    """
    for curve, what in figure["curves"].items():
        if "x_of" in what and (rows["curve"] == curve).any():
            by_hand = {name: value for name, value in facts["overrides"].items() if name != "replicates"}
            of = settings_for(figure, what["x_of"], 0, facts["scale"], by_hand)
            rows = rows[(rows["curve"] != curve) | (rows["iteration"] <= of.iterations)].copy()
            mine = rows["curve"] == curve
            at = rows.loc[mine, "iteration"].to_numpy(dtype=int)
            rows.loc[mine, "lr"], rows.loc[mine, "momentum"] = of.lr_array()[at], of.momentum_array()[at]
    return rows


def as_drawn(panel: str, curves: Mapping[str, Mapping[str, Curve]], divide: float) -> dict[str, dict[str, Curve]]:
    """A panel's curves, each as the report drew its own (`reference.as_drawn`)."""
    return {
        quantity: {label: reference.as_drawn(panel, curve, divide) for label, curve in series.items()}
        for quantity, series in curves.items()
    }
