"""What README says of the results, from made summaries."""

import pytest
from made_summaries import made

from experiments.compose import load
from experiments.errors import UserError
from reproduce import finals, readme, summary
from reproduce.claims import CLAIMS
from reproduce.entries import entries
from reproduce.sections import panels_of


def verdict(claim, status, reason="Because."):
    return {"claim": claim, "status": status, "reason": reason, "scale": "paper", "numbers": {}}


def row(number, ours, runs=""):
    report = {"accuracy_percent_report": 81.25, "accuracy_std_report": 0.5}
    errors = None if ours is None else (ours - 81.25) / 2
    return {
        "row": number,
        "accuracy_percent": ours,
        "accuracy_std": None,
        **report,
        "runs": runs,
        "standard_errors": errors,
    }


def test_the_status_counts_each_figure_at_its_best_scale_and_no_made_images(tmp_path):
    held, failed = verdict("F10.2", "held"), verdict("F10.3", "failed", "a > b (single runs).")
    alone = verdict("F10.1", "held", "a < b (single runs); b < c (single runs).")
    made(tmp_path, "fig10", "paper", replicates=4, fewest_replicates=2, claims=[alone, held, failed])
    made(tmp_path, "fig10", "quick", replicates=1, claims=[failed, failed])
    made(tmp_path, "fig09", "quick", replicates=1, claims=[verdict("F09.1", "inconclusive")])
    made(tmp_path, "fig05", "smoke", replicates=1, claims=[verdict("F05.1", "held")])
    made(tmp_path, "table1", "paper", data=["CIFAR-10"], replicates=1, table=[row(1, 78.5), row(2, 72.0), row(3, None)])
    made(tmp_path, "fig06", "quick", replicates=1)
    said = dict(line.strip("| ").split(" | ") for line in readme.status(tmp_path).splitlines()[2:])
    assert said == {
        "at the report's scale": "figure 10 (2 to 4 replicates); table 1 (2 of 3 rows)",
        "shortened (`quick`)": "figures 6, 9 (1 replicate)",
        "made images only (`smoke`): it runs, no more": "figure 5",
        f"the report's {len(CLAIMS)} claims": "2 held (1 of them wholly or partly on single runs, whose spread "
        "is not known), 1 failed, 0 inconclusive at the report's scale, 1 inconclusive at scale quick, "
        f"{len(CLAIMS) - 4} not judged yet",
        "the tables' rows": "1 of the 2 run lie within 2 standard errors of the report's",
    }
    assert readme.status(tmp_path / "empty").count(" | nothing |") == 3


def test_figures_of_ones_own_stay_out_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "names", lambda _: ["fig09", "caffe", "mine"])
    assert readme._shown() == ["fig09", "caffe"]
    monkeypatch.setattr(readme, "load", lambda _, figure: {"assumptions": [f"{figure} is assumed."]})
    page = "".join(
        f"<!-- begin {part} -->\n<!-- end {part} -->\n"
        for part in ("status", "assumptions", "gallery", "results", "claims")
    )
    said = readme.rendered(page, tmp_path)
    assert "fig09 is assumed." in said and "caffe is assumed." in said and "mine is assumed." not in said


def test_half_a_summary_is_said_and_not_passed_over(tmp_path):
    """Else README would quietly speak of the next scale."""
    made(tmp_path, "fig10", "quick", replicates=1)
    made(tmp_path, "fig10", "paper", replicates=4)
    summary.place(tmp_path, "fig10", "paper").with_suffix(".csv").unlink()
    with pytest.raises(UserError, match="half of what was written"):
        readme.status(tmp_path)


def test_a_tables_rows_are_shares_and_a_diverged_run_says_so(tmp_path):
    made(tmp_path, "table1", "paper", data=["CIFAR-10"], replicates=1, table=[row(1, 78.5), row(2, None)])
    lines = readme.results_table(tmp_path).splitlines()
    assert [line.split(" | ")[-5:] for line in lines[2:]] == [["row 1", "-", "-", "0.7850", "0.8125 ± 0.0050 |"]]
    made(
        tmp_path,
        "table1",
        "paper",
        data=[""],
        replicates=1,
        table=[row(1, 78.5, "a b"), row(2, 78.0, "c"), row(5, 78.5, "a b")],
    )
    names = [line.split(" | ")[2] for line in readme.results_table(tmp_path).splitlines()[2:]]
    assert names == ["row 1, row 5's runs", "row 2", "row 5, row 1's runs"]
    assert finals.final(87.3365) == "diverged"
    assert finals.final(None) == "-"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("a < b (single runs); b < c (single runs).", "a < b; b < c (single runs)."),
        ("a < b (single runs); b < c (d = 0.1).", "a < b (single runs); b < c (d = 0.1)."),
        ("row 4 is missing; row 4 is missing; row 8 is missing.", "row 4 is missing; row 8 is missing."),
    ],
)
def test_a_claims_reason_says_nothing_twice(tmp_path, reason, shown):
    made(tmp_path, "fig10", "paper", replicates=1, claims=[verdict("F10.2", "held", reason)])
    (line,) = readme.claims_table(tmp_path).splitlines()[2:]
    assert line == f"| F10.2 | {CLAIMS['F10.2'].says} | held | paper | {shown} |"


def test_a_lost_marker_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="has no '<!-- begin status -->'"):
        readme.rendered("# Title\n", tmp_path)


def test_a_figure_that_was_run_in_part_says_so():
    """Where only the first of figure 12's panels was run, neither README nor the score counts both."""
    entry = next(e for e in entries() if e.name == "fig12")
    curves = [c for c, what in load("figure", "fig12")["curves"].items() if "instead_of" not in what]
    facts = {
        "finals": [{"curve": curve} for curve in curves if not curve.startswith("res")],
        "agreement": {panel: {} for panel in entry.panels},
        "replicates": 1,
        "fewest_replicates": 1,
    }
    assert readme._size("fig12", facts) == "3 of 6 curves, 1 replicate"
    assert panels_of(entry, facts) == ["fig12a"]
    whole = facts | {"finals": [{"curve": curve} for curve in curves]}
    assert readme._size("fig12", whole) == "1 replicate"
    assert panels_of(entry, whole) == ["fig12a", "fig12b"]


def test_finals_are_of_the_stretch_that_both_curves_have():
    """Means of the same tests; the last one of ours where the report's curve has diverged or shows nothing."""
    numbers = {"final": 0.8145, "final_std": 0.01, "report_final": 1.95, "report_leaves_at": None}
    figure = {
        "curves": {"a": {"label": "A"}, "b": {"label": "B"}, "c": {"label": "C"}},
        "panels": {"p": {"x": "lr", "y": "test_loss"}},
    }
    series = {
        "A": numbers | {"label": "A", "quantity": "test_loss"},
        "B": numbers | {"label": "B", "quantity": "test_loss", "report_leaves_at": 0.01},
    }
    last = {"test_loss": 0.85, "test_loss_std": None, "test_accuracy": 0.7, "test_accuracy_std": 0.02}
    facts = {
        "agreement": {"p": {"series": series}},
        "finals": [{"curve": curve, "label": curve.upper()} | last for curve in "abc"],
    }
    accuracy = ("0.7000 ± 0.0200", "-")
    shown = {
        "A": [("0.8145 ± 0.0100", "1.9500"), accuracy],
        "B": [("0.8500", "diverged"), accuracy],
        "C": [("0.8500", "-"), accuracy],
    }
    assert finals.beside(figure, facts) == shown
    facts["finals"][2]["label"] = "A"
    assert list(finals.beside(figure, facts)) == ["A (a)", "B", "A (c)"]
    facts["finals"][0]["test_loss"] = 76.0
    assert finals.beside(figure, facts)["A (a)"][0] == ("0.8145 ± 0.0100, last test 76.0000", "1.9500")
