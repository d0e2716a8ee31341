"""How closely our curves agree with the report's: numbers per series, the order of the series of a panel.

Plain dictionaries of JSON-able values come out: what is undefined is None.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from reproduce import reference
from reproduce.reference import Points
from reproduce.series import DIVERGED_LOSS, Curve, last_part, pick, rank_correlation

Numbers = dict[str, Any]


def common_range(ours: Curve, report: Points) -> tuple[float, float] | None:
    """The x range that both cover; None where it holds fewer than two of our samples or none of the report's."""
    if len(ours.x) == 0 or len(report[0]) == 0:
        return None
    low, high = max(ours.x[0], report[0][0]), min(ours.x[-1], report[0][-1])
    mine, theirs = (np.sum((x >= low) & (x <= high)) for x in (ours.x, report[0]))
    return (float(low), float(high)) if mine >= 2 and theirs >= 1 else None


def mean_log_ratio(ours: Curve, report: Points) -> float | None:
    """Mean of |log(ours / report)| over our samples in the common range; the report's loss interpolated in its log.

    0.05 means: 5 % apart on average. None without a common range or where a loss is not positive.
    """
    if (span := common_range(ours, report)) is None:
        return None
    inside = (ours.x >= span[0]) & (ours.x <= span[1])
    mean = np.where(np.isfinite(ours.mean[inside]), ours.mean[inside], DIVERGED_LOSS)
    if (mean <= 0).any() or (report[1] <= 0).any():
        return None
    log_report = np.interp(ours.x[inside], report[0], np.log(report[1]))
    return float(np.abs(np.log(mean) - log_report).mean())


def mean_difference(ours: Curve, report: Points) -> float | None:
    """Mean of |ours - report| over our samples in the common range: for accuracies. None without a common range."""
    if (span := common_range(ours, report)) is None:
        return None
    inside = (ours.x >= span[0]) & (ours.x <= span[1])
    return _plain(np.abs(ours.mean[inside] - np.interp(ours.x[inside], *report)).mean())


def median_offset(ours: Curve, report: Points) -> float | None:
    """Median of ours - report over our samples in the common range: what other data cost, where that is all there is.

    A stretch that only one of the two has diverged in counts for little. None without a common range.
    """
    if (span := common_range(ours, report)) is None:
        return None
    inside = (ours.x >= span[0]) & (ours.x <= span[1])
    mean = np.where(np.isfinite(ours.mean[inside]), ours.mean[inside], DIVERGED_LOSS)
    return _plain(np.median(mean - np.interp(ours.x[inside], *report)))


def finals(ours: Curve, report: Points) -> Numbers:
    """The mean of the last 5 % of samples of the common range: ours, the report's, their ratio and difference.

    ``final_std``: the standard deviation of ours over replicates (of a curve that does not carry them: the root mean
    square of its spread at each test); ``in_std``: the difference in these. None for a single run.
    """
    nothing: Numbers = dict.fromkeys(("x", "final", "final_std", "report_final", "ratio", "difference", "in_std"))
    if (span := common_range(ours, report)) is None:
        return nothing
    mine, theirs = ((x >= span[0]) & (x <= span[1]) for x in (ours.x, report[0]))
    last = last_part(int(mine.sum()))
    final = float(ours.mean[mine][last].mean())
    # The report samples more or less densely than we do: the same stretch of x, not the same number of samples.
    from_x = min(ours.x[mine][last][0], report[0][theirs][last_part(int(theirs.sum()))][0])
    report_final = float(report[1][theirs & (report[0] >= from_x)].mean())
    std = 0.0
    if ours.runs is not None:
        std = float(ours.runs[:, mine][:, last].mean(axis=1).std(ddof=1))
    elif ours.replicates > 1:
        std = float(np.sqrt(np.mean(ours.std[mine][last] ** 2)))
    difference = final - report_final
    return {
        "x": span[1],
        "final": _plain(final),
        "final_std": _plain(std) if ours.replicates > 1 else None,
        "report_final": _plain(report_final),
        "ratio": _plain(final / report_final if report_final else math.nan),
        "difference": _plain(difference),
        "in_std": _plain(difference / std) if std > 0 else None,
    }


def compare_series(ours: Curve, report: Points, quantity: str) -> Numbers:
    """Everything about one series: see `finals`, `median_offset`, `mean_log_ratio` (losses), `mean_difference`
    (accuracies)."""
    loss = quantity.endswith(("loss", "error"))
    return {
        "quantity": quantity,
        "label": ours.label,
        "mean_log_ratio": mean_log_ratio(ours, report) if loss else None,
        "mean_difference": None if loss else mean_difference(ours, report),
        "median_offset": median_offset(ours, report),
        **finals(ours, report),
        "replicates": ours.replicates,
        "diverged": ours.diverged,
    }


def agreement(panel: str, curves: Mapping[str, Mapping[str, Curve]], divide: float = 1) -> Numbers:
    """Compare a panel (quantity -> label -> Curve, x in the report's units, `reference.as_drawn`) with the report's.

    divide: how much shorter than the report's the runs were.
    ``series``: the report's legend label -> numbers of a series that both have (``report_leaves_at``: x at which the
    report's curve leaves through the top for good). ``not_in_report``, ``not_run``: labels that only one has.
    ``order``: Spearman's rho between the two orders of the final values, by quantity (None for fewer than two series);
    a report's curve that left its panel at the top counts as high as the panel reaches.
    """
    drawn = reference.load(panel)
    left = reference.exits(panel)
    report = reference.curves(panel)
    entries: dict[str, Numbers] = {}
    extra: list[str] = []
    order: dict[str, float | None] = {}
    for quantity, by_label in curves.items():
        theirs = report.get(quantity, {})
        pairs = []
        for label, ours in by_label.items():
            alone = len(by_label) == len(theirs) == 1
            found = pick(theirs, None if alone else label)
            if found is None:
                extra.append(label)
                continue
            entries[found.label] = compare_series(ours, drawn[found.label], quantity)
            gone = left.get(found.label, drawn[found.label])[0][-1]
            entries[found.label]["report_leaves_at"] = float(gone) if gone > drawn[found.label][0][-1] else None
            pairs.append((_height(ours, found.x[-1]), _height(found, math.inf)))
        order[quantity] = _plain(rank_correlation(*np.array(pairs).T)) if len(pairs) > 1 else None
    return {
        "panel": panel,
        "note": reference.note(panel, divide),
        "series": entries,
        "order": order,
        "not_in_report": extra,
        "not_run": [label for label in drawn if label not in entries],
    }


def _height(curve: Curve, end: float) -> float:
    """The final value, up to x = ``end``, by which series are ordered."""
    mean = curve.mean[curve.x <= end * (1 + 1e-6)]
    return float(mean[last_part(len(mean))].mean()) if len(mean) else math.nan


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
