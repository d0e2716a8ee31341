"""Other readings of a setting: where the report's print and the author's files contradict each other, both are run.

A curve with `instead_of: C` in a figure's file is what curve C would be by the other source. It is trained only when
asked for (`curve=NAME`, or `readings=true` for all of a figure), stays out of panels, tables and claims, and is
compared with the same curve or row of the report as C is: whichever lies closer is the likelier setting. Where the
doubt is about a panel's axis, `x_scale` brings the reading's x onto it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from experiments.curves import described, other_readings, own_curves, quantities
from experiments.divergence import diverged_at
from experiments.words import panel_number
from reproduce import compare, reference
from reproduce.series import Curve, average, labels, x_scale
from reproduce.tables import final_accuracies

Record = dict[str, Any]


def split(figure: Mapping[str, Any], rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the figure's own curves, and those of its other readings."""
    other = rows["curve"].isin(other_readings(figure["curves"]))
    return rows[~other], rows[other]


def as_described(figure: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame | None:
    """The rows that the figure's own curves have where momentum follows the report's schedules, whoever applied them.

    Curves whose schedule is recorded only (`experiments.curves`) are replaced by their readings CURVE_described, or
    are left out where those were not run. None where none was.
    """
    readings = {described(c): c for c in figure["curves"] if described(c) in figure["curves"]}
    own, others = split(figure, rows)
    found = others[others["curve"].isin([r for r, c in readings.items() if c in own_curves(figure["curves"])])]
    if found.empty:
        return None
    return pd.concat([own[~own["curve"].isin(list(readings.values()))], found.replace({"curve": readings})])


def compared(figure: Mapping[str, Any], rows: pd.DataFrame, divide: float) -> list[Record]:
    """How far each other reading that was run lies from the report, beside what was run in its place.

    One record a row or a panel's quantity: `as_run` and `otherwise` are distances in `unit` (None: not run, or nothing
    to compare, which of `as_run` `ran` tells apart); both are taken up to x = `until`, where the first replicate of
    either diverges (None: to the end), and from `since` on, where one begins later than the other (said only then).
    Where one side has more replicates they are those of single runs on average (`each`), as a mean of several is
    smoother and so nearer to the report's mean than any of them. divide: how much shorter than the report's the runs
    were.
    """
    own, others = split(figure, rows)
    found: list[Record] = []
    for curve, other in others.groupby("curve", sort=False):
        what = figure["curves"][curve]
        instead = what["instead_of"]
        runs = {"as_run": own[own["curve"] == instead], "otherwise": other}
        record = {"curve": curve, "label": what["label"], "instead_of": figure["curves"][instead]["label"]}
        record["replicates"] = int(other["replicate"].nunique())
        record["each"] = len({of["replicate"].nunique() for of in runs.values() if len(of)}) > 1
        if figure.get("kind") == "table":
            places = [_row(figure["name"], what["row"], runs, record["each"])]
        else:
            places = _panels(figure, instead, runs, divide, what, record["each"])
        ran = len(runs["as_run"]) > 0
        found += [{**record, **place, **({"ran": True} if ran and place["as_run"] is None else {})} for place in places]
    return found


def _row(table: str, row: int, runs: Mapping[str, pd.DataFrame], each: bool) -> Record:
    printed = reference.table(table).set_index("row")["accuracy_percent"].astype(float)[row]
    record: Record = {"where": f"row {row}", "unit": "points of accuracy", "until": None}
    for side, of_side in runs.items():
        finals = final_accuracies(of_side)
        of = finals if each or not finals else [sum(finals) / len(finals)]
        record[side] = _mean([abs(accuracy - printed) for accuracy in of])
    return record


def _placed(runs: pd.DataFrame, x: str, scale: float) -> list[pd.DataFrame]:
    """The replicates, each with its `place` on the panel's axis."""
    return [run.assign(place=run[x] * scale) for _, run in runs.groupby("replicate")]


def _panels(
    figure: Mapping[str, Any],
    instead: str,
    runs: Mapping[str, pd.DataFrame],
    divide: float,
    reading: Mapping[str, Any],
    each: bool,
) -> list[Record]:
    found = []
    for panel, what in figure["panels"].items():
        if (label := labels(figure, panel).get(instead)) is None or not reference.known(panel):
            continue
        placed = {
            "as_run": _placed(runs["as_run"], what["x"], x_scale(what, divide)),
            "otherwise": _placed(runs["otherwise"], what["x"], x_scale(what, divide, reading)),
        }
        until = min((_fine_until(run) for side in placed.values() for run in side), default=math.inf)
        begins = [min(_tests(run)["place"].min() for run in side) for side in placed.values() if side]
        since = None if math.isclose(min(begins), max(begins)) else max(begins)
        for quantity in quantities(what):
            loss = quantity.endswith(("loss", "error"))
            record = {
                "where": f"{panel_number(panel)}, {quantity.replace('_', ' ')}",
                "unit": "in mean |log(ours / report)|" if loss else "in mean difference",
                "until": until if math.isfinite(until) else None,
            }
            record |= {} if since is None else {"since": since}
            span = -math.inf if since is None else since, until
            found.append(record | _apart(panel, quantity, label, placed, span, divide, each))
    return found


def on_panel(figure: Mapping[str, Any], rows: pd.DataFrame, panel: str, divide: float) -> list[tuple[str, str, Curve]]:
    """The other readings that a panel could show: the label of the curve each stands for, a quantity, its own curve."""
    what, found = figure["panels"][panel], []
    for curve, other in split(figure, rows)[1].groupby("curve", sort=False):
        of = figure["curves"][curve]
        if (main := labels(figure, panel).get(of["instead_of"])) is None:
            continue
        runs = _placed(other, what["x"], x_scale(what, divide, of))
        name = of["label"] + (f" (x {of['x_scale']:g})" if "x_scale" in of else "")  # not what the axis says of ours
        for quantity in quantities(what):
            alike = reference.as_drawn(panel, average(runs, quantity, "place", label=name), divide)
            found.append((main, quantity, alike))
    return found


def _tests(run: pd.DataFrame) -> pd.DataFrame:
    """Its rows with a test: the first of a run has none."""
    return run[run["test_loss"].notna() | run["test_accuracy"].notna()]


def _fine_until(run: pd.DataFrame) -> float:
    """The place of the last test before a run diverges; infinity where it does not."""
    tests = _tests(run)
    if (end := diverged_at(tests["test_loss"])) is None:
        return math.inf
    return float(tests["place"].iloc[end - 1]) if end else -math.inf


def _mean(distances: Sequence[float]) -> float | None:
    """None where there are none."""
    return sum(distances) / len(distances) if distances else None


def _apart(
    panel: str,
    quantity: str,
    label: str,
    placed: Mapping[str, Sequence[pd.DataFrame]],
    span: tuple[float, float],
    divide: float,
    each: bool,
) -> Record:
    """Both sides' distances: of single runs on average where `each` asks for it and every run has one, else of means.

    A run may have none, as a generalisation error about 0.
    """
    if each:
        single = {
            side: [_distance(panel, quantity, label, [run], span, divide) for run in runs]
            for side, runs in placed.items()
        }
        known = {side: [d for d in of if d is not None] for side, of in single.items()}
        if known == single:
            return {"each": True} | {side: _mean(of) for side, of in known.items()}
    means = {side: _distance(panel, quantity, label, runs, span, divide) for side, runs in placed.items()}
    return {"each": False} | means


def _distance(
    panel: str, quantity: str, label: str, runs: Sequence[pd.DataFrame], span: tuple[float, float], divide: float
) -> float | None:
    if not runs:
        return None
    curve = average(runs, quantity, "place", label=label)
    kept = (curve.x >= span[0]) & (curve.x <= span[1])
    curve = replace(curve, x=curve.x[kept], mean=curve.mean[kept], std=curve.std[kept], runs=None)
    curve = reference.as_drawn(panel, curve, divide)
    for numbers in compare.agreement(panel, {quantity: {label: curve}}, divide)["series"].values():
        return numbers["mean_difference"] if numbers["mean_log_ratio"] is None else numbers["mean_log_ratio"]
    return None


def sentence(r: Record, scale: str) -> str:
    """One record in words, for example "row 6, without drops (row 6): 0.2 points of accuracy from the report, ..."

    Which of the two is closer is not said of scale smoke's made images, nor where both are as far to three digits.
    """
    if r["otherwise"] is None:
        return f"{r['label']} ({r['where']}): nothing in it can be compared with the report."
    text = f"{r['label']} ({r['where']}): {r['otherwise']:.3g} {r['unit']} from the report"
    if r["as_run"] is None:
        why = "has nothing to be compared with" if r.get("ran") else "was not run"
        return f"{text}; {r['instead_of']} itself {why}."
    since = f", both from {r['since']:.3g} on" if "since" in r else ""
    until = "" if r["until"] is None else f", both up to {r['until']:.3g}, where a run diverges"
    each = ", single runs compared" if r.get("each") else ""
    text = f"{text}, {r['instead_of']} as run {r['as_run']:.3g}{each}{since}{until}"
    if scale == "smoke":
        return f"{text}: on made images, which says nothing of either."
    if f"{r['otherwise']:.3g}" == f"{r['as_run']:.3g}":
        return f"{text}: neither is closer."
    return f"{text}: {'the other reading is closer' if r['otherwise'] < r['as_run'] else 'what was run is closer'}."
