"""Other readings of a setting: compared with the report as what they stand for, and kept out of everything else."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from small_runs import TINY

from experiments.compose import ROOT, load, names, scale_of, settings_for
from experiments.curves import momentum_is_recorded_only, records_momentum
from experiments.errors import UserError
from experiments.figures import check_figure
from experiments.session import Session, composed
from experiments.settings import Start
from reproduce import command, compare, draw, readings, reference, run_by_run
from reproduce import summary as summaries
from reproduce.claims import judge
from reproduce.panels import over_their_axes, panel_curves
from reproduce.series import Curve
from reproduce.tables import beside_the_report, cells, table_rows

LARGER = [*TINY, "dataset.size=16"]


def collected(tmp_path, *words):
    words = ["figure=fig14", *LARGER, f"results={tmp_path}/results", f"figures={tmp_path}/figures", *words]
    console = Console(record=True, width=400, force_terminal=False)
    session = Session(composed(words), say=lambda _: None)
    assert command.run(console, session) == 0
    return summaries.read(session.results, "fig14", session.variant), console.export_text()


def test_they_are_compared_and_change_nothing_else(tmp_path):
    """Whatever a summary says without them it says with them, and each stands beside the curve it could replace."""
    before, said = collected(tmp_path)
    assert before.facts["readings"] == [] and "other reading" not in said
    after, said = collected(tmp_path, "readings=true")
    found = after.facts["readings"]
    for facts in (before.facts, after.facts):
        del facts["rows_sha256"], facts["facts_sha256"], facts["readings"]
    assert json.dumps(after.facts) == json.dumps(before.facts)
    own, others = readings.split(load("figure", "fig14"), after.rows)
    assert set(own["curve"]) == set(before.rows["curve"])
    otherwise = [name for name, curve in load("figure", "fig14")["curves"].items() if "instead_of" in curve]
    assert list(others["curve"].unique()) == [r["curve"] for r in found] == otherwise
    assert otherwise[:2] == ["mom_0.9_printed", "cm_0.95-0.8_printed"]
    assert all(r["where"] == f"14{'b' if r['curve'].startswith('wd') else 'a'}, test loss" for r in found)
    assert all(r["otherwise"] != r["as_run"] for r in found)
    assert all(readings.sentence(r, "smoke") in said for r in found)
    drawn = readings.on_panel(load("figure", "fig14"), after.rows, "fig14a", 1)
    assert [main for main, _, _ in drawn] == ["Momentum=0.9", *["Momentum=0.95 - 0.8"] * 3]
    assert all(curve.x[-1] == pytest.approx(0.02, rel=0.1) for _, _, curve in drawn), "on the axis as it is printed"
    drawn = readings.on_panel(load("figure", "fig14"), after.rows, "fig14b", 1)
    assert [main for main, _, _ in drawn] == ["WD=1e-4", "WD=5e-4", "WD=1e-3", "WD=3e-3"]


def test_a_reading_that_settings_by_hand_make_the_curve_itself_is_none(tmp_path):
    """Figure 1's other reading is model.test_statistics=running: said for all curves, nothing is left to compare."""
    words = ["figure=fig01", *LARGER, "batch.per_gpu=2", "model.depth=1", "model.test_statistics=running"]
    words += [f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    session = Session(composed(words), say=lambda _: None)
    assert command.run(Console(record=True, width=400, force_terminal=False), session) == 0
    assert summaries.read(session.results, "fig01", session.variant).facts["readings"] == []


def row_of(curve, accuracies, hash="a", loss=0.5):
    rows = {"iteration": range(len(accuracies)), "test_accuracy": accuracies, "test_loss": loss, "lr": 0.1}
    return pd.DataFrame(rows).assign(curve=curve, replicate=0, hash=hash)


def test_claims_are_judged_with_momentum_as_described_too():
    """Rows 1 and 5 are one run where momentum is recorded only, which shows nothing of cyclical momentum."""
    table = load("figure", "table1")
    same = [("row_01", 0.80, "a"), ("row_05", 0.80, "a"), ("row_06", 0.79, "b"), ("row_10", 0.79, "b")]
    rows = pd.concat([row_of(curve, [last] * 3, hash) for curve, last, hash in same])
    assert readings.as_described(table, rows) is None
    (own,) = judge(["T1.3"], {"table1": table_rows(table, rows)}, "paper")
    assert own.status == "not judged" and "row 1 is row 5's run" in own.reason
    rows = pd.concat([rows, row_of("row_01_described", [0.70] * 3, "c")])
    described = readings.as_described(table, rows)
    assert set(described["curve"]) == {"row_01", "row_05", "row_10"}, "row 6 was not run as described"
    found = table_rows(table, described).set_index("row")["accuracy_percent"]
    assert (found[1], found[5]) == (pytest.approx(70), pytest.approx(80))
    (order,) = judge(["T1.2"], {"table1": table_rows(table, rows)}, "paper")
    assert "row 6 is row 10's run" in order.reason, "what is one run is not compared with itself"
    (otherwise,) = judge(["T1.3"], {"table1": table_rows(table, described)}, "paper")
    assert otherwise.status == "failed" and otherwise.numbers["row 1"] == pytest.approx(70)
    shown = cells(beside_the_report(table, table_rows(table, rows))).set_index("row")["as described"]
    assert shown[1] == "70.00" and shown[5] == ""


def test_readings_are_averaged_as_the_reports_curve_is():
    x, y = reference.load("fig09a")["WD=1e-3"]
    noisy = y * np.exp(0.1 * (-1.0) ** np.arange(len(x)))
    run = pd.DataFrame({"iteration": x, "place": x, "test_loss": noisy, "train_loss": noisy, "test_accuracy": 0.5})
    found = readings._distance("fig09a", "test_loss", "WD=1e-3", [run], (0, math.inf), 1)
    curve = Curve("a", x, noisy, np.zeros_like(x), 1)
    assert found == pytest.approx(compare.mean_log_ratio(reference.as_drawn("fig09a", curve, 1), (x, y)))
    assert found < 0.5 * compare.mean_log_ratio(curve, (x, y))


def test_a_summary_has_both_verdicts(tmp_path, monkeypatch):
    """At every scale that can judge: here quick, on made images; they differ only where other runs were judged."""
    words = ["scale=quick", "dataset.name=shapes", "iterations=20", "test_interval=2", "readings=true"]
    after, said = collected(tmp_path, *words)
    own = {claim["claim"]: claim for claim in after.facts["claims"]}
    otherwise = {claim["claim"]: claim for claim in after.facts["claims_described"]}
    assert own["F14.1"]["reason"].startswith("Momentum does not rise or fall")
    assert set(own) == {"F14.1", "F14.2"} >= set(otherwise) and otherwise
    for claim, found in otherwise.items():
        assert found["numbers"] != own[claim]["numbers"]
        assert f"at scale quick, momentum as described: {found['reason']}" in said
    assert after.facts["one_momentum"] and "momentum  stays at its first value" in said
    seen = []
    monkeypatch.setattr(draw, "_head_and_foot", lambda drawing, *_: seen.append(drawing.axes))
    panels = draw._panels(load("figure", "fig14"), after, columns=2, width=6.4)
    legends = [[t.get_text() for t in ax.get_legend().get_texts()] for ax in panels.axes]
    assert [sum("with momentum as described" in t for t in legend) for legend in legends] == [1, 1]
    assert not any(t.endswith("4, momentum as described") for t in legends[1]), "one entry for all of them"
    draw.plt.close(panels)


def test_a_reading_has_the_colour_of_the_curve_it_stands_for():
    """Panel 7d shows accuracy and loss of each of its curves: four colours, of which two are read otherwise."""
    figure = load("figure", "fig07")
    summary = summaries.read(ROOT / "results", "fig07", "quick")
    panels = draw._panels(figure, summary, columns=2, width=6.4)
    for ax, readings_drawn in zip(panels.axes[1::2], (2, 2), strict=True):  # 7b and 7d
        colours = {style: [] for style in ("-", "-.")}
        for line in ax.get_lines():
            if len(line.get_xdata()) and line.get_linestyle() in colours:
                colours[line.get_linestyle()].append(line.get_color())
        assert len(set(colours["-."])) == readings_drawn and set(colours["-."]) <= set(colours["-"])
    draw.plt.close(panels)


def test_many_readings_are_drawn_beside_their_panel():
    """12a has six: behind its own curves the panel could not be read; with fewer they are drawn into it."""
    figure, summary = load("figure", "fig12"), summaries.read(ROOT / "results", "fig12", "paper")
    few = replace(summary, rows=summary.rows[~summary.rows["curve"].str.endswith("_short")])
    four = replace(summary, rows=summary.rows[~summary.rows["curve"].isin(["wd_1e-2_short", "wd_3e-3_short"])])
    sets = {"six": summary, "four": four, "few": few}
    drawings = {name: draw._panels(figure, of, columns=2, width=6.4) for name, of in sets.items()}
    shown = {name: [ax for ax in of.axes if ax.get_visible()] for name, of in drawings.items()}
    titles = {name: [ax.get_title(loc="left").split()[0] for ax in axes] for name, axes in shown.items()}
    assert titles == {"six": ["12a", "12b", "12a,"], "four": ["12a", "12b", "12a,"], "few": ["12a", "12b"]}
    first, _, apart = shown["six"]
    assert sum("range test" in text for text in _legend(apart)) == 6 and not any(
        "range test" in t for t in _legend(first)
    )
    lines = [line for line in apart.get_lines() if "range test" in str(line.get_label())]
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 6, "told apart"
    assert {line.get_color() for line in lines} == {line.get_color() for line in first.get_lines() if _is_ours(line)}
    assert sum("read otherwise: " in text for text in _legend(shown["few"][0])) == 3
    for drawing in drawings.values():
        draw.plt.close(drawing)


def _legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _is_ours(line):
    return line.get_linestyle() == "-" and line.get_linewidth() == 1.7


def test_an_axis_says_of_which_lines_it_holds():
    """7b's momentum was recorded, not applied; 14a's rates are a tenth of ours, but not of those run as printed."""
    panels = draw._panels(load("figure", "fig07"), summaries.read(ROOT / "results", "fig07", "paper"), 2, 6.4)
    assert panels.axes[1].get_xlabel() == "Momentum (recorded; solid: not applied)"
    draw.plt.close(panels)
    panels = draw._panels(load("figure", "fig14"), summaries.read(ROOT / "results", "fig14", "paper"), 2, 6.4)
    assert [ax.get_xlabel() for ax in panels.axes] == ["Learning rate (ours x 0.1)", "Learning rate"]
    printed = [t.get_text() for t in panels.axes[0].get_legend().get_texts() if "as printed" in t.get_text()]
    assert len(printed) == 2 and all(text.endswith("(x 1)") for text in printed)
    draw.plt.close(panels)


def test_the_foot_says_that_momentum_did_not_change(tmp_path, monkeypatch):
    summary = summaries.read(ROOT / "results", "fig14", "paper")
    texts = []
    monkeypatch.setattr(draw.plt.Figure, "text", lambda self, x, y, s, **_: texts.append(s))
    for facts in (summary.facts, {**summary.facts, "one_momentum": False}):
        draw.plt.close(draw._panels(load("figure", "fig14"), replace(summary, facts=facts), columns=2, width=6.4))
    said = ["Momentum kept the first value of its range" in text for text in texts]
    assert sum(said[: len(said) // 2]) == 1 and not any(said[len(said) // 2 :])


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "summary").glob("*.json")), ids=lambda p: p.stem)
def test_what_is_committed_was_trained_as_its_figure_says(path):
    """A schedule of momentum that is recorded only was not applied, and one that is applied is called so."""
    name, _, scale = path.stem.rpartition("-")
    figure, summary = load("figure", name), summaries.read(ROOT / "results", name, scale)
    for curve, rows in summary.rows.groupby("curve"):
        alone = momentum_is_recorded_only(figure, curve)
        if alone and not records_momentum(figure, curve):
            assert rows["momentum"].nunique() == 1, f"{curve} is a run whose momentum changes"
        if curve.endswith("_described"):
            assert rows["momentum"].nunique() > 1, f"{curve} is a run whose momentum stays"
    assert not summary.facts.get("one_momentum") or any(
        momentum_is_recorded_only(figure, c) for c in summary.rows["curve"].unique()
    )


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "summary").glob("*.json")), ids=lambda p: p.stem)
def test_what_is_committed_is_under_the_name_of_what_it_is(path):
    """A run's hash is that of the settings that its figure's file has for the curve today."""
    name, _, scale = path.stem.rpartition("-")
    figure, summary = load("figure", name), summaries.read(ROOT / "results", name, scale)
    facts, runs = summary.facts, summary.rows.drop_duplicates(["curve", "replicate"])

    def hashes(curve, replicate):
        """Of the run in every precision that the figure was run in."""
        found, start = set(), figure["curves"][curve].get("from")
        for precision in facts["precision"]:
            one = settings_for(figure, curve, replicate, scale, precision=precision, replicates=4)
            one = replace(one, dataset=replace(one.dataset, fingerprint=facts["data_fingerprint"]))
            parents = hashes(start["curve"], replicate) if start else [""]
            at = start["iteration"] // scale_of(figure, scale)["divide"] if start else 0
            found |= {replace(one, start=Start(parent, at)).hash() for parent in parents}
        return found

    def data(curve):
        of = settings_for(figure, curve, 0, scale).dataset
        return of.name, of.channels, of.size

    for curve, replicate, own in zip(runs["curve"], runs["replicate"], runs["hash"], strict=True):
        if data(curve) != data(runs["curve"].iloc[0]):
            continue  # the summary has the fingerprint of the first run's data only
        assert own in hashes(curve, replicate), f"{curve}, replicate {replicate}, is another run"


def test_both_are_compared_up_to_where_one_diverges():
    """A run on the report's curve until it diverges lies on it; the other is compared over that stretch only."""
    x, y = reference.load("fig14a")["Momentum=0.9"]
    good = pd.DataFrame({"lr": x, "test_loss": y, "test_accuracy": 0.5, "iteration": range(len(x))})
    cut = len(x) // 2
    on_it = good.assign(test_loss=[*y[:cut], *[87.3365] * (len(x) - cut)], curve="mom_0.9_printed")
    twice = good.assign(lr=10 * x, test_loss=[*(2 * y[:cut]), *(50 * y[cut:])], curve="mom_0.9")
    rows = pd.concat([on_it, twice]).assign(replicate=0)
    (found,) = readings.compared(load("figure", "fig14"), rows, 1)
    assert found["replicates"] == 1 and found["until"] == pytest.approx(x[cut - 1])
    assert found["otherwise"] == pytest.approx(0, abs=1e-9) and found["as_run"] == pytest.approx(math.log(2))


def held(**changes):
    """Figure 12a's WD=3e-3, held at LR 0.005 and on the report's curve, and a range test with twice its losses."""
    x, y = reference.load("fig12a")["WD=3e-3"]
    shared = {"iteration": np.rint((x - 0.001) / 0.009 * 8000), "replicate": 0, "test_accuracy": 0.5, "momentum": 0.95}
    own = {"curve": "wd_3e-3", "lr": 0.005, "test_loss": y}
    other = {"curve": "wd_3e-3_range", "lr": x, "test_loss": 2 * y}
    rows = pd.concat([pd.DataFrame(shared | own), pd.DataFrame(shared | other)], ignore_index=True)
    return rows, {"scale": "paper", "divide": 1, "overrides": {}, "parameters": {}} | changes, x


def test_a_constant_rate_lies_on_the_axis_of_the_range_that_it_is_drawn_over():
    """`x_of`: at each iteration the learning rate of another curve's schedule; what was run is not changed."""
    rows, facts, x = held()
    before, figure = rows.copy(), load("figure", "fig12")
    placed = over_their_axes(figure, rows, facts)
    pd.testing.assert_frame_equal(rows, before)
    pd.testing.assert_frame_equal(placed.drop(columns="lr"), rows.drop(columns="lr"))
    drawn = panel_curves(figure, placed, 1, {})["fig12a"]["test_loss"]["WD=3e-3"]
    assert drawn.x == pytest.approx(x)
    (found,) = readings.compared(figure, placed, 1)
    assert (found["curve"], found["where"]) == ("wd_3e-3_range", "12a, test loss") and "since" not in found
    assert found["as_run"] == pytest.approx(0, abs=1e-6) and found["otherwise"] == pytest.approx(math.log(2))
    (fold,) = run_by_run.fold(figure, summaries.Summary(rows, facts))
    _, table = fold.blocks
    lowest = x[np.argmin(reference.load("fig12a")["WD=3e-3"][1])]
    assert [row[4] for row in table.rows] == [f"{lowest:.4g}"] * 2


def test_that_range_is_the_scales_and_as_changed_by_hand():
    rows, facts, _ = held(scale="quick", overrides={"lr": {"peak": 0.02}, "replicates": 2})
    rows = rows.assign(iteration=rows["iteration"] / 4)
    figure = load("figure", "fig12")
    for said, peak in ((facts, 0.02), (facts | {"overrides": {}}, 0.01)):
        placed = over_their_axes(figure, rows, said)
        own = placed[placed["curve"] == "wd_3e-3"]
        assert own["lr"].to_numpy() == pytest.approx(0.001 + (peak - 0.001) * own["iteration"].to_numpy() / 2000)
    beyond = rows.assign(iteration=rows["iteration"] + 100)
    placed = over_their_axes(figure, beyond, facts)
    assert placed[placed["curve"] == "wd_3e-3"]["iteration"].max() == 2000, "its schedule ends there"


def test_both_are_compared_from_where_the_later_one_begins():
    """A curve from a snapshot on is not what a reading without one is set against before that."""
    x, y = reference.load("fig12a")["WD=1e-3"]
    other = pd.DataFrame({"curve": "wd_1e-3_range", "lr": x, "test_loss": [*(9 * y[:4]), *(2 * y[4:])]})
    own = pd.DataFrame({"curve": "wd_1e-3", "lr": x, "test_loss": [*[np.nan] * 4, *y[4:]]})[3:]
    rows = pd.concat([own, other]).rename_axis("iteration").reset_index()
    rows = rows.assign(replicate=0, test_accuracy=rows["test_loss"] * 0 + 0.5, momentum=0.95)
    (found,) = readings.compared(load("figure", "fig12"), rows, 1)
    assert found["since"] == pytest.approx(x[4]) and found["otherwise"] == pytest.approx(math.log(2))
    assert f"both from {x[4]:.3g} on: what was run is closer" in readings.sentence(found, "paper")


def test_a_tables_row_is_compared_by_its_accuracy():
    """Row 8 prints 80.2: 75 % lies 5.2 points from it, the mean of 78 and 80 % 1.2."""
    assert reference.table("table1").set_index("row")["accuracy_percent"][8] == 80.2
    runs = [
        ("row_08", 0, 0.75),
        ("row_08_constant", 0, 0.78),
        ("row_08_constant", 1, 0.80),
        ("row_09_constant", 0, 0.5),
    ]
    rows = pd.concat(
        pd.DataFrame({"curve": curve, "replicate": replicate, "test_accuracy": [0.1, *[last] * 3], "lr": 0.1})
        for curve, replicate, last in runs
    )
    eight, nine = readings.compared(load("figure", "table1"), rows, 1)
    assert (eight["as_run"], eight["otherwise"]) == (pytest.approx(5.2), pytest.approx(1.2))
    assert (eight["where"], eight["instead_of"], eight["replicates"]) == ("row 8", "row 8", 2)
    assert nine["as_run"] is None and nine["otherwise"] == pytest.approx(31.0)


def test_where_one_side_has_more_runs_they_are_compared_run_for_run():
    """The mean of two runs that scatter about the report's row lies on it; neither of them does."""
    printed = reference.table("table1").set_index("row")["accuracy_percent"].astype(float)[8] / 100
    runs = [("row_08", 0, printed + 0.02), ("row_08", 1, printed - 0.02), ("row_08_constant", 0, printed + 0.01)]
    rows = pd.concat(
        pd.DataFrame({"curve": curve, "replicate": replicate, "test_accuracy": [0.1, *[last] * 3], "lr": 0.1})
        for curve, replicate, last in runs
    )
    (found,) = readings.compared(load("figure", "table1"), rows, 1)
    assert (found["each"], found["as_run"], found["otherwise"]) == (True, pytest.approx(2), pytest.approx(1))
    assert "row 8 as run 2, single runs compared: the other" in readings.sentence(found, "paper")
    (found,) = readings.compared(load("figure", "table1"), rows[rows["replicate"] == 0], 1)
    assert (found["each"], found["as_run"]) == (False, pytest.approx(2))


@pytest.mark.parametrize(("second", "each", "as_run"), [(0.4, True, 0.3), (None, False, 2)])
def test_where_a_run_has_no_distance_the_means_are_compared(second, each, as_run, monkeypatch):
    """As a generalisation error about 0 has none: else the run that lies worst would be left out."""
    distances = {"first": 0.2, "second": second, "other": 0.25}
    monkeypatch.setattr(readings, "_distance", lambda *words: distances[words[3][0]] if len(words[3]) == 1 else 2)
    placed = {"as_run": ["first", "second"], "otherwise": ["other"]}
    found = readings._apart("fig01b", "generalization_error", "LR=0-0.4", placed, (0, math.inf), 1, True)
    assert found == {"each": each, "as_run": pytest.approx(as_run), "otherwise": 0.25}


def record(otherwise, as_run):
    where = {"label": "row 6, without drops", "instead_of": "row 6", "where": "row 6", "until": None, "each": False}
    if as_run == "nothing":
        return record(otherwise, None) | {"ran": True}
    return where | {"unit": "points of accuracy", "otherwise": otherwise, "as_run": as_run}


@pytest.mark.parametrize(
    ("otherwise", "as_run", "ends"),
    [
        (0.25, 0.5, "row 6 as run 0.5: the other reading is closer."),
        (0.5, 0.25, "row 6 as run 0.25: what was run is closer."),
        (0.25, 0.2501, "row 6 as run 0.25: neither is closer."),
        (0.5, None, "row 6 itself was not run."),
        (0.5, "nothing", "row 6 itself has nothing to be compared with."),
        (None, 0.5, "nothing in it can be compared with the report."),
    ],
)
def test_the_sentence_says_which_is_closer(otherwise, as_run, ends):
    assert readings.sentence(record(otherwise, as_run), "paper").endswith(ends)
    if "closer" in ends:
        made = readings.sentence(record(otherwise, as_run), "smoke")
        assert "closer" not in made and made.endswith("on made images, which says nothing of either.")


def test_every_reading_stands_for_a_curve_that_is_none():
    found = 0
    for name in names("figure"):
        curves = load("figure", name)["curves"]
        for what in curves.values():
            if "instead_of" in what:
                found += 1
                assert "instead_of" not in curves[what["instead_of"]]
                assert what.get("row") == curves[what["instead_of"]].get("row")
    assert found >= 10


@pytest.mark.parametrize(
    ("curve", "words", "said"),
    [
        ("mom_0.9_printed", {"instead_of": "mom_0.99"}, "has instead_of: 'mom_0.99', which is no curve of it"),
        ("mom_0.9_printed", {"x_of": "mom_0.99"}, "has x_of: 'mom_0.99', which is no curve of it"),
        ("mom_0.9", {"x_of": "mom_0.9"}, "has x_of: 'mom_0.9', itself: another curve is expected"),
    ],
)
def test_a_curve_that_is_not_there_is_refused(curve, words, said):
    figure = load("figure", "fig14")
    figure["curves"][curve] |= words
    with pytest.raises(UserError, match=f"curve {curve}.* {said}"):
        check_figure(figure, "fig14")
