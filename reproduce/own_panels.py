"""Panels without curves of the report: those of a figure of one's own, and the report's sketch, measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reproduce.axes import COLOURS, limits, literal, mapped, plain_log_ticks
from reproduce.series import Curve


def draw_own_panel(
    ax: Any,
    panel: str,
    what: Mapping[str, Any],
    curves: Mapping[str, Mapping[str, Curve]],
    facts: Mapping[str, Any],
    order: Sequence[str],
) -> None:
    """A panel that the report does not have: our curves alone, losses on a logarithmic axis.

    order: of every curve in the figure's file what the panel calls it; a curve has one colour in all panels.
    """
    lines = [(c, q) for q, series in curves.items() for c in series.values()]
    for curve, quantity in lines:
        place = order.index(curve.label) + len(order) * list(curves).index(quantity)
        colour, name = COLOURS[place % len(COLOURS)], quantity.replace("_", " ")
        ax.plot(curve.x, curve.mean, color=colour, linewidth=1.7, label=literal(f"{curve.label}, {name}"))
        if curve.replicates > 1:
            ax.fill_between(curve.x, *curve.band(), color=colour, alpha=0.18, linewidth=0)
    if all(quantity.endswith("loss") for _, quantity in lines):
        ax.set_yscale("log")
        low, high = limits((np.inf, 0.0), [c for c, _ in lines], log=True)
        if low < high:  # else all have diverged, and no limit would show anything
            ax.set_ylim(low, high)
            plain_log_ticks(ax)
    name = {"iteration": "Iterations", "lr": "Learning rate", "momentum": "Momentum"}[what["x"]]
    ax.set_xlabel(name + mapped(what, facts))
    ax.set_ylabel(", ".join(quantity.replace("_", " ") for quantity in curves))
    ax.set_title(literal(panel), loc="left")


def draw_capacity(ax: Any, curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """Figure 2, a sketch in the report, measured: errors over the number of parameters, with the sketch's words."""
    for (quantity, series), colour in zip(curves.items(), COLOURS, strict=False):
        for curve in series.values():
            name = quantity.replace("_", " ")
            ax.errorbar(curve.x, curve.mean, yerr=curve.std, color=colour, marker="o", capsize=3, label=name)
    test = next(iter(curves["test_error"].values()))
    ax.axvline(test.x[np.argmin(test.mean)], color="0.6", linewidth=0.8, linestyle=":")
    ax.set_xscale("log")
    for x, words, align in ((0.02, "underfitting", "left"), (0.98, "overfitting", "right")):
        ax.text(x, 0.5, words, ha=align, color="0.35", style="italic", transform=ax.transAxes)
    ax.plot([], [], ":", color="0.6", linewidth=0.8, label="lowest test error")
    ax.set_xlabel("Model complexity: learnable parameters")
    ax.set_ylabel("Prediction error")
    ax.set_title("2   report: a sketch without numbers", loc="left")
