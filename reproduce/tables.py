"""The report's tables beside ours: mean and spread of the final accuracy, row by row."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from experiments.curves import described, own_curves
from experiments.divergence import diverged_at
from reproduce import reference

LAST_TESTS, STILL_FALLING = 3, 10
"""A run's accuracy is the mean of its last three tests, without those at more than ten times the last one's learning
rate: in table 2's shortest rows 1cycle has not come down yet there, and the author's log of row 6 gains 2 points from
such a test to the end."""

REPORT_RUNS = 4
WITHIN = 2
"""Standard errors within which a row counts as reproduced."""
COLUMNS = (
    *("row", "accuracy_percent", "accuracy_std", "replicates", "diverged", "runs"),
    *("described_percent", "described_std", "described_replicates", "described_diverged"),
)


def table_rows(figure: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows run: row, accuracy_percent, accuracy_std (over replicates; NaN for one), replicates, diverged.

    runs: the hashes of the runs, by which rows that are one run are told. described_percent, described_std,
    described_replicates and described_diverged: the same row with its momentum as described
    (`experiments.curves.with_readings`), NaN and 0 where that was not run.
    """
    found = []
    for curve in own_curves(figure["curves"]):
        what = figure["curves"][curve]
        runs = rows[rows["curve"] == curve]
        if finals := final_accuracies(runs):
            series, gone = pd.Series(finals), _diverged(runs)
            again = rows[rows["curve"] == described(curve)]
            otherwise = pd.Series(final_accuracies(again), dtype=float)
            found.append(
                {
                    "row": what["row"],
                    "accuracy_percent": series.mean(),
                    "accuracy_std": series.std(),
                    "replicates": len(finals),
                    "diverged": sum(gone),
                    "runs": " ".join(runs["hash"].unique()) if "hash" in runs else "",
                    "described_percent": otherwise.mean(),
                    "described_std": otherwise.std(),
                    "described_replicates": len(otherwise),
                    "described_diverged": sum(_diverged(again)),
                }
            )
    return pd.DataFrame(found, columns=list(COLUMNS))


def _diverged(runs: pd.DataFrame) -> list[bool]:
    """Whether each replicate has."""
    tested = runs[runs["test_loss"].notna()]
    return [diverged_at(run["test_loss"]) is not None for _, run in tested.groupby("replicate")]


def shared_runs(ours: pd.DataFrame) -> str:
    """Which rows are one run, in a sentence: they differ in a momentum that is recorded only. Empty where none are."""
    same = ours[ours["runs"].fillna("") != ""].groupby("runs", sort=False)["row"]
    alike = [" and ".join(f"{n:.0f}" for n in rows) for _, rows in same if len(rows) > 1]
    return f"Rows {', '.join(alike)} are the same runs." if alike else ""


def within(errors: Iterable[float | None]) -> tuple[int, int]:
    """How many of the rows that were run lie within `WITHIN` standard errors of the report's, and how many were run."""
    known = [abs(e) for e in errors if e is not None]
    return sum(e <= WITHIN for e in known), len(known)


def final_accuracies(runs: pd.DataFrame) -> list[float]:
    """A row's accuracy in percent, replicate by replicate."""
    return [_final_accuracy(run) for _, run in runs.groupby("replicate")]


def _final_accuracy(run: pd.DataFrame) -> float:
    last = run[run["test_accuracy"].notna()].tail(LAST_TESTS)
    return float(100 * last.loc[last["lr"] <= STILL_FALLING * last["lr"].iloc[-1], "test_accuracy"].mean())


def beside_the_report(figure: Mapping[str, Any], ours: pd.DataFrame) -> pd.DataFrame:
    """Every row of the report's table with ours (NaN where not run) and their difference in standard errors (Welch).

    The report's rows are means of four runs; the standard error is sqrt(s1^2/n1 + s2^2/n2). One run alone has no
    spread: the report's for that row stands in for it.
    """
    both = reference.table(figure["name"]).merge(ours, on="row", how="left", suffixes=("_report", ""))
    std = both["accuracy_std"].where(both["replicates"] > 1, both["accuracy_std_report"])
    error = (both["accuracy_std_report"] ** 2 / REPORT_RUNS + std**2 / both["replicates"]) ** 0.5
    both["standard_errors"] = (both["accuracy_percent"] - both["accuracy_percent_report"]) / error
    logs = figure.get("logs") or {}
    both["author_log"] = [_log_accuracy(logs.get(row)) for row in both["row"]]
    return both


def _log_accuracy(name: str | None) -> float:
    """The author's own run of a row in percent: the mean of the last tests in his log; NaN where none is kept."""
    if name is None:
        return math.nan
    return _final_accuracy(reference.log(name))


def cells(both: pd.DataFrame) -> pd.DataFrame:
    """The table as text: the report's settings, its accuracy, ours, the difference, the author's log."""

    def ours(mean: float, std: float, runs: float, diverged: float, without: str = "not run") -> str:
        if math.isnan(mean):
            return without
        if diverged == runs:
            return "diverged"
        return (
            f"{mean:.2f}"
            + ("" if math.isnan(std) else f" ± {std:.2f}")
            + (f", {diverged:.0f} of {runs:.0f} diverged" if diverged else "")
        )

    def printed(mean: float, std: float) -> str:
        """Both with one digit after the point, or the two that some spreads have: 81.0 ± 0.2, 99.25 ± 0.03."""
        digits = max(1, len(f"{std:g}".partition(".")[2]))
        return f"{mean:.{digits}f} ± {std:.{digits}f}"

    shown = pd.DataFrame({"row": both["row"]})
    for name in ("architecture", "dataset", "lr", "lr_policy", "momentum", "weight_decay", "tbs", "epochs"):
        if name in both:
            shown[name.replace("_", " ")] = both[name].fillna("").astype(str)
    shown["report %"] = [printed(m, s) for m, s in both[["accuracy_percent_report", "accuracy_std_report"]].to_numpy()]
    columns = ["accuracy_percent", "accuracy_std", "replicates", "diverged"]
    shown["ours %"] = [ours(*row) for row in both[columns].to_numpy()]
    shown["runs"] = ["" if math.isnan(n) else f"{n:.0f}" for n in both["replicates"]]
    gone = both["diverged"] == both["replicates"]  # how far chance lies from the report says nothing
    difference = (both["accuracy_percent"] - both["accuracy_percent_report"]).mask(gone)
    shown["difference"] = ["" if math.isnan(d) else f"{d:+z.2f}" for d in difference]
    shown["in s.e."] = ["" if math.isnan(e) else f"{e:+z.1f}" for e in both["standard_errors"].mask(gone)]
    if "described_percent" in both and both["described_percent"].notna().any():
        again = [f"described_{name.removeprefix('accuracy_')}" for name in columns]
        shown["as described"] = [ours(m, s, n, d, "") for m, s, n, d in both[again].to_numpy()]
    shown["author's log"] = ["" if math.isnan(a) else f"{a:.2f}" for a in both["author_log"]]
    return shown


def markdown(text: pd.DataFrame) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(text.columns) + " |", "|" + " --- |" * len(text.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in text.to_numpy()]
    return "\n".join(lines) + "\n"
