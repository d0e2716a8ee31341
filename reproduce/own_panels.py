"""Panels without curves of the report: those of a figure of one's own, and the report's sketch, measured."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reproduce.axes import COLOURS, limits, literal, mapped, plain_log_ticks, spread
from reproduce.series import Curve, counts
from reproduce.summary import fewest


def draw_own_panel(
    ax: Any,
    panel: str,
    what: Mapping[str, Any],
    curves: Mapping[str, Mapping[str, Curve]],
    facts: Mapping[str, Any],
    names: Mapping[str, str],
) -> None:
    """A panel that the report does not have: our curves, losses on a logarithmic axis, and what others published.

    names: what the panel calls every curve of the figure's file ("" where it does not show it), in the file's order: a
    curve has one colour in all panels, and the points that the panel's `published` has of it have that colour, too.
    """
    order = list(names.values())
    lines = [(c, q) for q, series in curves.items() for c in series.values()]
    for curve, quantity in lines:
        place = order.index(curve.label) + len(order) * list(curves).index(quantity)
        colour, name = COLOURS[place % len(COLOURS)], quantity.replace("_", " ")
        ax.plot(
            curve.x,
            curve.mean,
            color=colour,
            linewidth=1.7,
            label=literal(f"{curve.label}, {name}") + counts(curve, fewest(facts)),
        )
        spread(ax, curve, colour)
    published = what.get("published") or {}
    for curve_name, points in published.items():
        colour = COLOURS[order.index(names[curve_name]) % len(COLOURS)]
        ax.plot(*zip(*points, strict=True), "o", color=colour, markerfacecolor="white", markersize=5, zorder=3)
    if published:
        ax.plot([], [], "o", color="0.3", markerfacecolor="white", markersize=5, label="published by others")
    if all(quantity.endswith("loss") for _, quantity in lines):
        ax.set_yscale("log")
        known = [y for points in published.values() for _, y in points if y > 0]  # on a logarithmic axis
        around = (0.97 * min(known, default=np.inf), 1.03 * max(known, default=0.0))
        low, high = limits(around, [c for c, _ in lines], log=True)
        if low < high:  # else all have diverged, and no limit would show anything
            ax.set_ylim(low, high)
            plain_log_ticks(ax)
    axis = {"iteration": "Iterations", "lr": "Learning rate", "momentum": "Momentum"}[what["x"]]
    ax.set_xlabel(axis + mapped(what, facts))
    ax.set_ylabel(", ".join(quantity.replace("_", " ") for quantity in curves))
    ax.set_title(literal(what.get("title", panel)), loc="left")


def draw_capacity(ax: Any, curves: Mapping[str, Mapping[str, Curve]], missing: Sequence[str] = ()) -> None:
    """Figure 2, a sketch in the report, measured: errors over the number of parameters, with the sketch's words.

    missing: what the networks are called that have not been run.
    """
    for (quantity, series), colour in zip(curves.items(), COLOURS, strict=False):
        for curve in series.values():
            name = quantity.replace("_", " ")
            ax.errorbar(curve.x, curve.mean, yerr=curve.std, color=colour, marker="o", capsize=3, label=name)
    test = next(iter(curves["test_error"].values()))
    lowest = test.x[np.argmin(test.mean)]
    ax.set_xscale("log")
    if test.x.min() < lowest < test.x.max():  # else the test error only falls or only rises: the sketch is not seen
        ax.axvline(lowest, color="0.6", linewidth=0.8, linestyle=":")
        at = {"xy": (lowest, 0.5), "xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "color": "0.35"}
        ax.annotate("\u2190 underfitting", xytext=(-6, 0), ha="right", style="italic", **at)
        ax.annotate("overfitting \u2192", xytext=(6, 0), ha="left", style="italic", **at)
        ax.plot([], [], ":", color="0.6", linewidth=0.8, label="optimal: lowest test error")
    if missing:
        ax.plot([], [], " ", label=textwrap.fill(f"not run: {', '.join(missing)}", 40))
    ax.set_xlabel("Model complexity: learnable parameters")
    ax.set_ylabel("Prediction error")
    ax.set_title("2   report: a sketch without numbers", loc="left")
