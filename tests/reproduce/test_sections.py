"""The report page's sections: what they say of diverged runs and of figures that the report does not have."""

import pytest

from experiments.compose import ROOT
from reproduce import ledger, sections
from reproduce.entries import Entry, entries
from reproduce.markup import Fold, markdown
from reproduce.overview import described_by_status, score
from reproduce.sections import Result, Section, agreement, blocks, fact_sheet, result
from reproduce.summary import read

RESULTS = ROOT / "results"


def series(**changes):
    numbers = {
        "quantity": "test_loss",
        "label": "WD=1e-3",
        "mean_log_ratio": 0.4,
        "mean_difference": None,
        "final": 1.25,
        "report_final": 1.0,
        "ratio": 1.25,
        "in_std": -0.01,
        "replicates": 4,
        "diverged": 0,
        "report_leaves_at": None,
    }
    found = {"series": {"WD=1e-3": numbers | changes}, "order": {}, "not_in_report": [], "not_run": [], "note": None}
    return {"agreement": {"fig14b": found}}


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, "1.2500 | 1.0000 | 1.250 | +0.0"),
        ({"final": 21.87, "ratio": 21.87, "diverged": 1}, "diverged | 1.0000 | – | –"),
        ({"final": 79.77, "ratio": 79.77, "diverged": 4}, "diverged | 1.0000 | – | –"),
        ({"final": 1.25, "diverged": 4}, "1.2500 | 1.0000 | 1.250 | +0.0"),  # compared up to where the report's ends
        ({"final": -0.01, "ratio": -0.01}, "-0.0100 | 1.0000 | – | +0.0"),  # a generalisation error, about 0
        ({"final": 21.87, "ratio": 21.87}, "21.8700 | 1.0000 | 21.870 | +0.0"),  # a loss, however large
    ],
)
def test_a_mean_with_the_ceiling_in_it_is_no_loss(changes, row):
    text = markdown(agreement(series(**changes))[0])
    assert row in text


@pytest.mark.parametrize(
    ("panels", "whole"), [(["fig09a"], "(the report's / 10)"), ([], "(those of scale paper / 10)")]
)
def test_a_figure_of_ones_own_is_not_called_the_reports(panels, whole, tmp_path):
    summary = read(RESULTS, "fig09", "quick")
    assert summary.facts["divide"] == 10
    entry = Entry("fig09" if panels else "mine", "Figure", panels, None)
    assert whole in markdown(fact_sheet(entry, summary, ledger.times(tmp_path)))
    said = markdown(sections.verdicts(entry, {}, {})[0])
    assert ("the report has none like it" in said) == (not panels)


def test_the_score_counts_verdicts_with_momentum_as_described():
    entry = Entry("fig07", "Figure 7", ["fig07a"], None)

    def result(scale: str, **described: str) -> Result:
        return Result(scale, [], {}, {}, described, [], {})

    run = [
        Section(entry, [result("paper", a="failed", b="held"), result("quick", a="held")]),
        Section(entry, [result("paper", c="failed")]),
        Section(entry),
    ]
    assert described_by_status(run) == {"held": 1, "failed": 2}
    assert markdown(score(run)[-1]).endswith("where that was run as well: 1 held, 2 failed.")
    assert "where that was run" not in markdown(score([Section(entry)])[-1])


def test_a_notes_first_line_is_shown_and_the_others_are_folded():
    section = Section(Entry("fig09", "Figure 9", ["fig09a"], None))
    _, lead, fold, *_ = blocks(section, "It holds.\nIn numbers: 0.568.\nAnd 0.617.")
    assert lead.words[-1] == "It holds." and lead.kind == "note"
    assert isinstance(fold, Fold) and [p.words for p in fold.blocks] == ["In numbers: 0.568.", "And 0.617."]
    assert not any(isinstance(block, Fold) for block in blocks(section, "It holds."))


def test_a_verdict_on_shortened_runs_says_so():
    entry = Entry("fig09", "Figure 9", ["fig09a"], None)
    statuses = {"F09.1": "held", "F09.2": "not judged"}
    for scale, said in (("paper", "held"), ("quick", "held at quick")):
        made = Section(entry, [Result(scale, [], statuses, {}, {}, [], {})])
        assert (made.status("F09.1"), made.status("F09.2")) == (said, "not judged")


def test_what_a_drawing_says_at_its_foot_stands_on_the_page(tmp_path):
    """Table 1's learning rates are not all the printed ones; and its claim does not hold on the report's own rows."""
    table = next(entry for entry in entries() if entry.name == "table1")
    text = "\n".join(map(markdown, result(table, "paper", (RESULTS, tmp_path), ledger.times(RESULTS), True).blocks))
    assert text.count("the report prints 0.0005") == 1
    assert text.count("The report's own numbers, judged by the same code: inconclusive.") == 1
