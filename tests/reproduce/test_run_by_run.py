"""The table of single runs on the report page: the numbers whose means the claims and tables give."""

import statistics

import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments.compose import ROOT, load
from reproduce import draw, ledger, run_by_run
from reproduce.axes import spread
from reproduce.entries import entries
from reproduce.markup import Fold, Table, markdown
from reproduce.sections import section
from reproduce.series import average
from reproduce.summary import Summary, read


def cells(figure: dict, summary: Summary) -> list[dict[str, str]]:
    """The rows of the folded table, by column."""
    (fold,) = run_by_run.fold(figure, summary)
    table = next(block for block in fold.blocks if isinstance(block, Table))
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def committed(figure: str) -> tuple[dict, Summary]:
    return load("figure", figure) | {"name": figure}, read(ROOT / "results", figure, "paper")


@pytest.mark.parametrize(("name", "claim"), [("fig07", "F07.1"), ("fig10", "F10.2")])
def test_the_runs_lowest_losses_have_the_mean_that_the_claim_was_judged_by(name, claim):
    figure, summary = committed(name)
    judged = next(c for c in summary.facts["claims"] if c["claim"] == claim)["numbers"]
    rows = cells(figure, summary)
    for number, value in judged.items():
        label = number.removeprefix("minimum(").removesuffix(")")
        runs = [float(row["lowest loss"]) for row in rows if row["series"] == label]
        assert len(runs) == summary.rows[summary.rows["curve"].isin(_curves(figure, label))]["replicate"].nunique()
        assert statistics.fmean(runs) == pytest.approx(value, abs=1e-4)


def _curves(figure: dict, label: str) -> list[str]:
    return [name for name, what in figure["curves"].items() if what["label"] == label]


def test_final_values_are_those_beside_the_report():
    """Of curves that are compared with the report to their end."""
    figure, summary = committed("fig09")
    rows = cells(figure, summary)
    for panel, column in (("fig09a", "final loss"), ("fig09b", "final accuracy")):
        for series, numbers in summary.facts["agreement"][panel]["series"].items():
            runs = [float(row[column]) for row in rows if row["series"] == series]
            assert statistics.fmean(runs) == pytest.approx(numbers["final"], abs=1e-4)


def test_a_tables_runs_are_those_that_its_rows_are_means_of():
    figure, summary = committed("table2")
    rows = {row["row"]: row for row in cells(figure, summary)}
    for record in summary.facts["table"]:
        if record["replicates"] and not pd.isna(record["replicates"]):
            runs = [float(value) for value in rows[f"row {record['row']}"]["accuracies"].split(", ")]
            assert len(runs) == record["replicates"]
            assert statistics.fmean(runs) == pytest.approx(record["accuracy_percent"], abs=0.01)


OWN = {
    "name": "mine",
    "curves": {"a": {"label": "A"}, "b": {"label": "B"}, "again": {"label": "A again", "instead_of": "a"}},
    "panels": {"mine_accuracy": {"x": "iteration", "y": "test_accuracy", "curves": ["a"]}},
}


def run(curve: str, replicate: int, losses: list[float]) -> pd.DataFrame:
    iteration = [100 * (i + 1) for i in range(len(losses))]
    return pd.DataFrame(
        {"curve": curve, "replicate": replicate, "iteration": iteration, "test_loss": losses, "test_accuracy": 0.5}
    )


def test_a_run_that_died_is_told_from_one_that_lived():
    lives, dies, nans = (
        [2.0, 1.0, 0.8, 0.7, 0.6, 0.5],
        [2.0, 1.0, 2.3, 2.3, 2.3, 2.3],
        [2.0, 1.0, 1.0, 40.0, 87.4, 87.4],
    )
    rows = pd.concat(
        [run("a", 0, lives), run("a", 2, dies), run("a", 3, nans), run("again", 0, lives), run("gone", 0, lives)]
    )
    found = cells(OWN, Summary(rows, {"divide": 10}))
    assert [(row["series"], row["replicate"]) for row in found] == [
        ("A", "0"),
        ("A", "2"),
        ("A", "3"),
        ("A again", "0"),
    ]
    assert found[0] == {
        **{"panel": "mine_accuracy", "series": "A", "replicate": "0", "lowest loss": "0.5000", "at": "6,000"},
        **{"above 1.5 x lowest from": "never", "final loss": "0.5000", "final accuracy": "0.5000"},
    }
    assert (found[1]["at"], found[1]["above 1.5 x lowest from"], found[1]["final loss"]) == ("2,000", "3,000", "2.3000")
    assert (found[2]["at"], found[2]["above 1.5 x lowest from"], found[2]["final loss"]) == (
        "2,000",
        "4,000",
        "diverged",
    )


def test_a_curve_in_no_panel_is_read_over_its_iterations():
    found = cells(OWN, Summary(run("b", 0, [2.0, 1.0, 0.9, 0.8]), {"divide": 1}))
    assert (found[0]["panel"], found[0]["at"]) == ("–", "400")


def test_divergence_is_what_the_claims_of_a_panel_call_so():
    """Figure 11b's claim asks for twice the lowest loss, the others for one and a half times."""
    figure, summary = load("figure", "fig11") | {"name": "fig11"}, read(ROOT / "results", "fig11", "quick")
    claim = next(c for c in summary.facts["claims"] if c["claim"] == "F11.3")["numbers"]
    found = {row["series"]: row for row in cells(figure, summary) if row["panel"] == "11b"}
    for series, row in found.items():
        assert row["above 1.5 (11a) or 2 (11b) x lowest from"] == f"{claim[f'diverges({series})']:.4g}"
    assert len(found) == 4


@pytest.mark.parametrize(
    ("figure", "series", "says"),
    [
        # the reading's own place on the axis, not that of the curve it stands for
        ("fig14", "Momentum=0.9, LR as printed", ("14a", "0.01981")),
        ("fig07", "CM=0.7-1, momentum as described", ("7b", "0.952")),
        ("fig02", "16 channels", ("–", "2,200")),
    ],
)
def test_where_a_run_is_read_off(figure, series, says):
    row = next(row for row in cells(*committed(figure)) if row["series"] == series)
    assert (row["panel"], row["at"]) == says


def test_a_series_is_called_as_its_panel_calls_it():
    figure, summary = load("figure", "fig05") | {"name": "fig05"}, read(ROOT / "results", "fig05", "quick")
    assert {row["series"] for row in cells(figure, summary) if row["panel"] == "5a"} == {"LR=0.35", "CLR=0.1-3"}


def test_a_loss_is_read_where_the_loss_is_drawn():
    panels = {"accuracy": {"x": "iteration", "y": "test_accuracy"}, "loss": {"x": "iteration", "y": "test_loss"}}
    found = cells(OWN | {"panels": panels}, Summary(run("a", 0, [2.0, 1.0, 0.9, 0.8]), {"divide": 1}))
    assert found[0]["panel"] == "loss"


@pytest.mark.parametrize("rates", [[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 2.0, 1.0]])
def test_an_axis_that_does_not_rise_is_no_place(rates):
    rows = run("a", 0, [2.0, 1.0, 0.9, 0.8]).assign(lr=rates)
    found = cells(OWN | {"panels": {"own": {"x": "lr", "y": "test_loss"}}}, Summary(rows, {"divide": 1}))
    assert (found[0]["panel"], found[0]["lowest loss"], found[0]["at"]) == ("own", "0.8000", "400")


def test_a_single_high_test_is_no_divergence():
    found = cells(OWN, Summary(run("a", 0, [2.0, 1.0, 0.9, 72.87]), {"divide": 1}))
    assert found[0]["final loss"] == "72.8700"


def test_the_report_page_has_the_table_and_drawings_have_the_runs(tmp_path):
    entry = next(entry for entry in entries() if entry.name == "fig09")
    found = section(entry, ROOT / "results", tmp_path, ledger.times(tmp_path))
    assert [any(isinstance(b, Fold) and b.title == run_by_run.TITLE for b in r.blocks) for r in found.results] == [
        scale == "paper" for scale in (r.scale for r in found.results)
    ]


@pytest.mark.parametrize("figure", ["fig09", "caffe"])
def test_drawn_panels_have_a_thin_line_for_every_run(figure, monkeypatch, tmp_path):
    drawn = list[int]()
    kept = draw.save

    def save(drawing, *where):
        drawn.extend(sum(line.get_linewidth() == 0.6 for line in ax.lines) for ax in drawing.axes)
        return kept(drawing, *where)

    monkeypatch.setattr(draw, "save", save)
    own, summary = committed(figure)
    draw.draw(own, summary, tmp_path)
    assert drawn == ([4, 4] if figure == "fig09" else [4, 4, 0, 0])


def test_nothing_is_said_where_there_is_nothing():
    assert run_by_run.fold(OWN, Summary(run("gone", 0, [2.0, 1.0]), {"divide": 1})) == []


def test_too_few_tests_are_a_dash():
    (fold,) = run_by_run.fold(OWN, Summary(run("b", 0, [2.0, 1.0]), {"divide": 1}))
    assert "| – | B | 0 | – | – | – | – | – |" in markdown(fold)


@pytest.mark.parametrize(("replicates", "lines", "bands"), [(1, 0, 0), (3, 3, 1)])
def test_a_drawing_has_a_thin_line_for_every_run_of_several(replicates, lines, bands):
    ax = Figure().subplots()
    losses = [[2.0, 1.0, 0.5], [2.0, 1.1, 2.3], [2.0, 0.9, 0.4]][:replicates]
    curve = average([run("a", i, loss) for i, loss in enumerate(losses)], "test_loss")
    spread(ax, curve, "#0072BD")
    assert (len(ax.lines), len(ax.collections)) == (lines, bands)
    for line, loss in zip(ax.lines, losses, strict=False):
        assert list(line.get_xdata()) == [100, 200, 300]
        assert list(line.get_ydata()) == loss
