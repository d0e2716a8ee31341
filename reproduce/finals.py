"""Final losses and accuracies as text, ours beside the report's: for a terminal, and for README."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.curves import told_apart
from experiments.divergence import DIVERGED_FROM
from reproduce.series import labels

GONE = 2.0
"""How many times the loss of the tests compared the last one has to be, to be named beside it."""


def beside(figure: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Each curve's final test loss and accuracy as text, ours and the report's, by its label.

    Curves of one label, in different panels (figure 13's WD=1e-4), are told apart by their names.

    Both are means of the last 5 % of the tests that ours and the report's curve have. Where the report's has none, or
    is said to have diverged, ours is the last test of the run; that is said, too, where the loss has left by then.
    """
    report, lines = report_finals(figure, facts), {}
    called = told_apart({row["curve"]: row["label"] for row in facts["finals"]})
    for row in facts["finals"]:
        pairs = []
        for quantity in ("test_loss", "test_accuracy"):
            known = report.get(row["curve"], {}).get(quantity)
            if known is None or math.isinf(known["report_final"]):
                ours = final(row[quantity], row[f"{quantity}_std"])
            else:
                ours = final(known["final"], known["final_std"])
                if quantity == "test_loss" and row[quantity] and row[quantity] > GONE * known["final"]:
                    ours += f", last test {final(row[quantity])}"
            pairs.append((ours, final(None if known is None else known["report_final"])))
        lines[called[row["curve"]]] = pairs
    return lines


def report_finals(figure: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """What `compare.finals` says by curve and quantity, in the first panel that shows both.

    The report's value is infinite where its curve leaves the panel at the top: there replicates have diverged.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for panel in figure.get("panels", {}):
        series = facts["agreement"].get(panel, {}).get("series", {})
        for curve, label in labels(figure, panel).items():
            for numbers in series.values():
                if numbers["label"] == label and numbers["report_final"] is not None:
                    gone = {"report_final": math.inf} if numbers["report_leaves_at"] is not None else {}
                    found.setdefault(curve, {}).setdefault(numbers["quantity"], numbers | gone)
    return found


def final(mean: float | None, std: float | None = None) -> str:
    """A final loss or accuracy with its standard deviation over replicates; a dash where there is none."""
    if mean is None:
        return "-"
    if mean >= DIVERGED_FROM:
        return "diverged"
    return f"{mean:.4f}" + (f" ± {std:.4f}" if std is not None else "")
