"""Each run by itself, read off as the claims read curves: what a mean and its band hide, one of four that has died."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.curves import quantities
from experiments.words import panel_number
from reproduce import reference
from reproduce.claims.numbers import Number, PanelData, argmin, diverges, final, own_minimum, times
from reproduce.markup import Fold, Paragraph, Table
from reproduce.series import DIVERGED_LOSS, Curve, average, labels, x_scale
from reproduce.summary import Summary
from reproduce.tables import final_accuracies

TITLE = "Run by run"
HEAD = ("panel", "series", "replicate", "lowest loss", "at", "{} times that from", "final loss", "final accuracy")
EXPLAINED = (
    "Each run alone, averaged over neighbouring tests where the panel's curves are: its lowest test loss, and where on "
    "the panel's axis that is (the iteration for curves in none); from where its loss stays above {} times as much for "
    "a tenth of the run or to its end, which claims call to diverge; and the means of its last 5 % of tests, wherever "
    "the report's curve ends, where the table of agreement takes what both have."
)
OF_A_TABLE = "Accuracies in percent, read off each run as the table's are, in the order of replicates."


def fold(figure: Mapping[str, Any], summary: Summary) -> list[Any]:
    """A folded table of all runs of a figure or table, other readings of a setting among them; nothing without runs."""
    if figure.get("kind") == "table":
        rows = [_row_of_table(figure, str(curve), runs) for curve, runs in _by_curve(figure, summary.rows)]
        return [Fold(TITLE, [Paragraph(OF_A_TABLE, "quiet"), Table(("row", "runs", "accuracies"), rows)])]
    rows = [row for curve, runs in _by_curve(figure, summary.rows) for row in of_curve(figure, curve, runs, summary)]
    factors = " or ".join(
        f"{factor:g}" + (f" ({', '.join(map(panel_number, panels))})" if panels else "")
        for factor, panels in _factors(figure)
    )
    head = tuple(name.format(factors) for name in HEAD)
    table = Table(head, rows, frozenset(range(2, len(head))))
    return [Fold(TITLE, [Paragraph(EXPLAINED.format(factors), "quiet"), table])] if rows else []


def _factors(figure: Mapping[str, Any]) -> list[tuple[float, list[str]]]:
    """How many times its lowest a loss has to be, with the panels it is so in where others differ."""
    panels: dict[float, list[str]] = {}
    for panel in figure["panels"]:
        panels.setdefault(times(panel), []).append(panel)
    return [(factor, of if len(panels) > 1 else []) for factor, of in sorted(panels.items())]


def _by_curve(figure: Mapping[str, Any], rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of every curve that the figure's file still has, in its order."""
    runs = {str(curve): of for curve, of in rows.groupby("curve", sort=False)}
    return [(curve, runs[curve]) for curve in figure["curves"] if curve in runs]


def _row_of_table(figure: Mapping[str, Any], curve: str, runs: pd.DataFrame) -> tuple[str, ...]:
    accuracies = final_accuracies(runs)
    return figure["curves"][curve]["label"], str(len(accuracies)), ", ".join(f"{value:.2f}" for value in accuracies)


def of_curve(figure: Mapping[str, Any], curve: str, runs: pd.DataFrame, summary: Summary) -> list[tuple[str, ...]]:
    """A row of the table for each replicate of a curve, whose x is that of the first panel that shows its loss."""
    what = figure["curves"][curve]
    panel = _panel(figure, what.get("instead_of", curve))
    axes = figure["panels"].get(panel, {"x": "iteration"})
    x, divide = axes["x"], summary.facts["divide"]
    scale = x_scale(axes, divide, what if "instead_of" in what else None)
    curves = {
        quantity: reference.as_drawn(panel, average(_split(runs), quantity, x, scale, what["label"]), divide)
        for quantity in ("test_loss", "test_accuracy")
    }
    rows: list[tuple[str, ...]] = []
    for i, replicate in enumerate(sorted(runs["replicate"].unique())):
        data = PanelData(panel, {quantity: {"": _alone(c, i)} for quantity, c in curves.items()})
        place, goes = argmin(data, None), diverges(data, None)
        rows.append(
            (
                panel_number(panel) if panel else "–",
                what["label"],
                str(replicate),
                _loss(own_minimum(data, None)),
                _place(place),
                _place(goes),
                _loss(final(data, None)),
                _number(final(data, None, "test_accuracy")),
            )
        )
    return rows


def _panel(figure: Mapping[str, Any], curve: str) -> str:
    """The panel that a curve is read off in: the first that shows its loss, else its first; none over capacity."""
    shown = [
        panel
        for panel, what in figure["panels"].items()
        if what["x"] != "parameters" and curve in labels(figure, panel)
    ]
    return next((panel for panel in shown if "test_loss" in quantities(figure["panels"][panel])), (shown or [""])[0])


def _split(runs: pd.DataFrame) -> list[pd.DataFrame]:
    return [run for _, run in runs.groupby("replicate")]


def _alone(curve: Curve, i: int) -> Curve:
    """The i-th replicate of a curve as a curve."""
    run = curve.mean if curve.runs is None else curve.runs[i]
    return replace(curve, mean=run, std=np.zeros_like(run), replicates=1, runs=None)


def _number(number: Number) -> str:
    return "–" if number.missing else f"{number.value:.4f}"


def _loss(number: Number) -> str:
    return "diverged" if not number.missing and number.value > DIVERGED_LOSS / 4 else _number(number)


def _place(number: Number) -> str:
    """A learning rate, a momentum or an iteration."""
    if number.missing or math.isinf(number.value):
        return "–" if number.missing else "never"
    return f"{number.value:,.0f}" if number.value >= 1000 else f"{number.value:.4g}"
