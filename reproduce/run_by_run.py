"""Each run by itself, read off as the claims read curves: what a mean and its band hide, one of four that has died."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.curves import quantities
from experiments.divergence import diverged_at
from experiments.words import panel_number
from reproduce import reference
from reproduce.claims.numbers import Number, PanelData, argmin, divergence_factor, diverges, final, own_minimum
from reproduce.markup import Fold, Paragraph, Table
from reproduce.panels import over_their_axes
from reproduce.series import Curve, average, labels, x_scale
from reproduce.summary import Summary
from reproduce.tables import final_accuracies

TITLE = "Run by run"
HEAD = ("panel", "series", "replicate", "lowest loss", "at", "above {} x lowest from", "final loss", "final accuracy")
EXPLAINED = (
    "Each run alone, averaged over neighbouring tests where the panel's curves are: its lowest test loss, and where on "
    "the panel's axis that is (the iteration where there is none or it does not rise); from where its loss stays above "
    "{} times as much for a tenth of the run or to its end, which claims call to diverge; the means of its last 5 % of "
    "tests, to our last one even where the report's curve ends earlier (the table of agreement stops there)."
)
OF_A_TABLE = "Accuracies in percent, read off each run as the table's are, in the order of replicates."


def fold(figure: Mapping[str, Any], summary: Summary) -> list[Any]:
    """A folded table of all runs of a figure or table, other readings of a setting among them."""
    if figure.get("kind") == "table":
        rows = [_row_of_table(figure, str(curve), runs) for curve, runs in _by_curve(figure, summary.rows)]
        table = Table(("row", "runs", "accuracies"), rows)
        return [Fold(TITLE, [Paragraph(OF_A_TABLE, "quiet"), table])] if rows else []
    over = over_their_axes(figure, summary.rows, summary.facts)
    rows = [row for curve, runs in _by_curve(figure, over) for row in of_curve(figure, curve, runs, summary)]
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
        panels.setdefault(divergence_factor(panel), []).append(panel)
    return [(factor, of if len(panels) > 1 else []) for factor, of in sorted(panels.items())]


def _by_curve(figure: Mapping[str, Any], rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of every curve that the figure's file still has, in its order."""
    runs = {str(curve): of for curve, of in rows.groupby("curve", sort=False)}
    return [(curve, runs[curve]) for curve in figure["curves"] if curve in runs]


def _row_of_table(figure: Mapping[str, Any], curve: str, runs: pd.DataFrame) -> tuple[str, ...]:
    accuracies = final_accuracies(runs)
    return figure["curves"][curve]["label"], str(len(accuracies)), ", ".join(f"{value:.2f}" for value in accuracies)


def of_curve(figure: Mapping[str, Any], curve: str, runs: pd.DataFrame, summary: Summary) -> list[tuple[str, ...]]:
    """A row of the table for each replicate of a curve, whose x is that of the first panel that shows its loss.

    Or the iteration, where the panel's x does not rise from test to test.
    """
    what = figure["curves"][curve]
    panel, divide = _panel(figure, what.get("instead_of", curve)), summary.facts["divide"]
    axes = figure["panels"].get(panel, {"x": "iteration"})
    if any((np.diff(run[axes["x"]]) <= 0).any() for run in _split(runs)):
        axes = {"x": "iteration"}
    x, scale = axes["x"], x_scale(axes, divide, what if "instead_of" in what else None)
    label = labels(figure, panel).get(curve, what["label"]) if panel else what["label"]
    curves = {
        quantity: reference.as_drawn(panel, average(_split(runs), quantity, x, scale, label), divide)
        for quantity in ("test_loss", "test_accuracy")
    }
    rows: list[tuple[str, ...]] = []
    for i, (replicate, run) in enumerate(runs.groupby("replicate")):
        tests = run[run["test_loss"].notna() | run["test_accuracy"].notna()]
        gone = diverged_at(tests["test_loss"]) is not None
        data = PanelData(panel, {quantity: {"": _alone(c, i)} for quantity, c in curves.items()})
        place, goes = argmin(data, None), diverges(data, None)
        rows.append(
            (
                panel_number(panel) if panel else "–",
                label,
                str(replicate),
                _number(own_minimum(data, None)),
                _place(place),
                _place(goes),
                "diverged" if gone else _number(final(data, None)),
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


def _place(number: Number) -> str:
    """A learning rate, a momentum or an iteration."""
    if number.missing or math.isinf(number.value):
        return "–" if number.missing else "never"
    return f"{number.value:,.0f}" if number.value >= 1000 else f"{number.value:.4g}"
