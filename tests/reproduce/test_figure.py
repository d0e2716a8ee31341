"""A figure end to end: plan, train, collect, judge, draw; in-process and small."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from experiments.cli import run as run_command
from experiments.compose import ROOT
from experiments.compose import load as load_file
from experiments.errors import UserError
from experiments.session import Session, composed
from reproduce import command, reference
from reproduce import plan as plans
from reproduce import summary as summaries
from reproduce.draw import draw
from reproduce.panels import capacity_curves, panel_curves


def test_from_settings_to_drawing(session, console, tmp_path, words):
    assert command.run(console, session) == 0
    said = console.export_text()
    assert "4 missing" in said
    for label in ("WD=1e-3", "WD=3.2e-3", "WD=1e-2", "WD=1.8e-3", "F09.1", "F09.2"):
        assert label in said
    drawn = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert len(drawn) == 2
    assert {Path(name).suffix for name in drawn} == {".png", ".pdf"}

    again = Console(record=True, width=200, force_terminal=False)
    png = next((tmp_path / "figures").glob("*.png"))
    before = png.read_bytes()
    assert command.run(again, Session(composed(words), say=lambda _: None)) == 0
    assert "4 done, 0 missing" in again.export_text()
    assert png.read_bytes() == before, "the same numbers must draw the same bytes"


def test_the_summary_alone_redraws_the_figure(session, console, tmp_path):
    command.run(console, session)
    png = next((tmp_path / "figures").glob("*.png"))
    before = png.read_bytes()
    for run in (tmp_path / "results" / "runs").iterdir():
        (run / "metrics.csv").unlink()
    png.unlink()
    assert command.draw(console, session) == 0
    assert png.read_bytes() == before


def test_the_summary_says_what_was_run(session, console):
    command.run(console, session)
    summary = summaries.read(session.results, "fig09", session.variant)
    facts = summary.facts
    assert facts["data"] == ["shapes (made on the fly)"]
    assert facts["precision"] == ["fp32"]
    assert facts["replicates"] == 1
    assert facts["overrides"]["iterations"] == 40
    assert [c["claim"] for c in facts["claims"]] == ["F09.1", "F09.2"]
    agreement = facts["agreement"]["fig09a"]["series"]["WD=1e-3"]
    assert agreement["mean_log_ratio"] > 0
    rows = summary.rows
    assert len(rows) == 4 * 11
    assert "NaN" not in summaries.place(session.results, "fig09", session.variant, ".json").read_text()
    mine = rows[rows["curve"] == "wd_1e-2"].iloc[-1]
    final = next(f for f in facts["finals"] if f["curve"] == "wd_1e-2")
    assert final["test_loss"] == pytest.approx(mine["test_loss"])


def test_curves_that_were_run_more_often_than_others_are_said(session, console):
    command.run(console, session)
    runs = session.jobs()
    curve, _, job = runs[0]
    facts = summaries.collect(session, [*runs, (curve, 1, job)]).facts
    assert summaries.replicates(facts) == "1 to 2 replicates"


def test_every_device_that_a_run_was_trained_on_is_named(session, console):
    command.run(console, session)
    _, _, job = (runs := session.jobs())[1]
    path = job.run.folder / "environment.json"
    first = json.loads(path.read_text())
    path.write_text(json.dumps(first | {"later": [first | {"device": "another"}]}))
    facts = summaries.collect(session, runs).facts
    assert facts["device"] == sorted([first["device"], "another"])
    assert facts["torch"] == [first["torch"]]


def test_hand_changed_runs_do_not_overwrite_the_scales_own_results(session):
    assert session.variant != "smoke"
    plain = Session(composed(["figure=fig09", "scale=smoke", "device=cpu"]), say=lambda _: None)
    assert plain.variant == "smoke"


def test_hand_changed_drawings_of_two_scales_lie_beside_each_other(session, console, tmp_path):
    assert command.run(console, session) == 0
    assert session.variant.startswith("smoke-")
    summary = summaries.read(session.results, "fig09", session.variant)
    other = summaries.Summary(
        summary.rows, summary.facts | {"scale": "quick", "variant": f"quick{session.variant[5:]}"}
    )
    drawn = [draw(session.figure, one, tmp_path)[0].name for one in (summary, other)]
    assert drawn == [f"fig09-{session.variant}.png", f"fig09-quick{session.variant[5:]}.png"]


@pytest.mark.parametrize(("figure", "marked"), [("fig09", False), ("fig10", True), ("fig07", True)])
def test_a_precision_is_a_change_only_where_the_figure_names_one(figure, marked):
    """Figure 9 leaves it to the device; all of figure 10, and three panels of figure 7, must run in fp32."""
    chosen = Session(composed([f"figure={figure}", "scale=smoke", "device=cpu", "precision=bf16"]), say=lambda _: None)
    assert all(chosen.settings(curve, 0).precision == "bf16" for curve in chosen.curves())
    assert (chosen.variant != "smoke") == marked
    as_named = Session(composed([f"figure={figure}", "scale=smoke", "device=cpu", "precision=fp32"]))
    assert as_named.variant == "smoke"


def test_drawing_takes_the_best_scale_there_is(tmp_path, console):
    for scale, folder in (("auto", tmp_path), ("paper", tmp_path / "paper")):  # of which the results are committed
        words = ["device=cpu", f"scale={scale}", f"figures={folder}"]
        assert command.several(console, "draw", ["fig10"], words) == 0
    assert (tmp_path / "fig10.png").read_bytes() == (tmp_path / "paper" / "fig10.png").read_bytes()


def test_drawing_says_what_precision_it_cannot_change(tmp_path, console):
    words = ["device=cpu", "scale=paper", "precision=fp32", f"figures={tmp_path}"]
    assert command.several(console, "draw", ["fig09"], words) == 0
    assert "precision=fp32 changes nothing here: these results are of runs in bf16" in console.export_text()


@pytest.mark.parametrize("claims", [["F99.1"], ["F09.1", "F12.1"]])
def test_claims_that_are_none_are_refused_in_words(session, claims):
    session.figure["claims"] = claims
    with pytest.raises(UserError, match=r"fig09.yaml: .*claim"):
        _ = plans.Plan(session).runs


def test_another_number_of_replicates_is_a_figure_of_its_own_that_shares_runs(session, console, words):
    more = Session(composed([*words, "replicates=2"]), say=lambda _: None)
    assert command.run(console, more) == 0
    facts = summaries.read(more.results, "fig09", more.variant).facts
    assert (facts["replicates"], facts["fewest_replicates"], facts["overrides"]["replicates"]) == (2, 2, 2)
    assert {f["test_loss_std"] > 0 for f in facts["finals"]} == {True}
    again = Console(record=True, width=200, force_terminal=False)
    plans.Plan(session).say(again)
    assert "4 done, 0 missing" in again.export_text() and session.variant != more.variant
    assert Session(composed([*words, "replicates=1"]), say=lambda _: None).variant == session.variant

    most = Session(composed([*words, "replicates=3"]), say=lambda _: None)
    fewer = Console(record=True, width=200, force_terminal=False)
    assert command.collect(fewer, most, [job for job in most.jobs() if job[2].run.done()]) == 0
    assert "not run, and not in it: 4 replicates of wd_1e-3, " in fewer.export_text()


def test_a_reading_that_is_another_curves_run_is_trained_once():
    words = ["figure=table1", "scale=smoke", "device=cpu", "readings=true"]
    plan = plans.Plan(Session(composed(words), say=lambda _: None))
    hashes = [job.run.hash for job in plan.distinct]
    assert len(set(hashes)) == len(hashes)
    # Rows 1, 2, 6, 7, 11, 12, 16 and 17, whose momentum is recorded only, two readings of 6 and 7, one of 16 and 17.
    assert len(plan.runs) - len(hashes) == 8 + 4 + 2
    assert {job.run.hash for _, _, job in plan.runs} == set(hashes)


def test_one_curve_trains_without_drawing(words, tmp_path, console):
    one = Session(composed([*words, "curve=wd_1e-3"]), say=lambda _: None)
    assert command.run(console, one) == 0
    assert not (tmp_path / "figures").exists()
    assert "drawn from all curves" in console.export_text()


def test_only_iterations_are_mapped_and_a_panel_may_call_a_curve_by_another_name():
    columns = {"iteration": [100, 200], "lr": [0.1, 0.2], "test_loss": [2.0, 1.0], "test_accuracy": [0.2, 0.5]}

    def panels(figure: str) -> dict:
        figure = load_file("figure", figure)
        runs = [pd.DataFrame(columns).assign(curve=curve, replicate=0) for curve in figure["curves"]]
        return panel_curves(figure, pd.concat(runs), 10, {})

    assert panels("fig04")["fig04a"]["test_loss"]["WD=1e-4"].x.tolist() == [0.1, 0.2]
    fifth = panels("fig05")
    assert set(fifth["fig05a"]["test_accuracy"]) == {"LR=0.35", "CLR=0.1-3"}
    assert fifth["fig05b"]["test_accuracy"]["Weight decay=0.0001"].x.tolist() == [1000, 2000]


def test_errors_over_capacity_are_means_of_the_last_fifth_of_the_tests():
    """Of ten rows two; the last has no training batch, so its training errors are those of the two before."""
    train, test = [0.1] * 8 + [0.5, None], [0.2] * 8 + [0.4, 0.6]
    narrow = pd.DataFrame({"train_accuracy": train, "test_accuracy": test})
    wide = pd.DataFrame({"train_accuracy": [1.0] * 10, "test_accuracy": [0.75] * 10})
    found = capacity_curves({"wide": [wide] * 2, "narrow": [narrow] * 2}, {"narrow": 10, "wide": 1000})
    (errors,) = found["test_error"].values()
    assert errors.x.tolist() == [10, 1000]
    assert errors.mean.tolist() == pytest.approx([0.5, 0.25])
    (errors,) = found["train_error"].values()
    assert errors.mean.tolist() == pytest.approx([1 - (0.1 + 0.5) / 2, 0.0])
    assert errors.replicates == 2


def test_x_is_mapped_to_the_reports_iterations(session, console):
    command.run(console, session)
    summary = summaries.read(session.results, "fig09", session.variant)
    panels = panel_curves(session.figure, summary.rows, 400, {})
    curve = panels["fig09a"]["test_loss"]["WD=1e-3"]
    assert curve.x[0] == 4 * 400
    assert curve.x[-1] == reference.axes("fig09a").xlim[1] == 16000


@pytest.mark.parametrize(
    ("line", "words_said"),
    [
        (["figure=fig99"], ["fig99", "fig09"]),
        (["figur=fig09"], ["no setting 'figur'", "'figure'"]),
        ([], ["Which figure?"]),
        (["figure=fig09", "rum"], ["'rum'", "'run'"]),
        (["figure=fig09", "scale=smok"], ["smok", "'smoke'"]),
        (["figure=fig09", "curve=wd_1e3"], ["wd_1e3", "'wd_1e-3'"]),
        (["figure=fig09", "scale=smoke", "iteration=7"], ["'iteration'", "'iterations'"]),
        (["figure=fig09", "scale=smoke", "test_interval=9000"], ["nothing would be measured"]),
        (["figure=fig09", "device=cuda:9"], ["cuda:9"]),
        (["figure=fig09", "data.download=maybe"], ["data.download=maybe: true or false"]),
        (["figure=fig09", "data.root=/x"], ["'data.root'", "'data.dir'"]),
        (["figure=fig09", "data=/x"], ["'data' is a group of settings", "data.dir="]),
        (["figure=fig09", "device=gpu"], ["device=gpu", "'cpu'"]),
        (["figure=fig09", "scale=quick", "data.dir=/nonexistent", "data.download=false"], ["DATA_DIR", "SCALE=smoke"]),
        (
            ["figure=fig09", "scale=smoke", "results=/proc/nowhere"],
            ["/proc/nowhere/summary cannot", "results=DIR"],
        ),
    ],
)
def test_bad_command_lines_end_with_one_sentence_and_code_2(line, words_said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce", *line])
    with pytest.raises(SystemExit) as end:
        run_command(command.main)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    for word in words_said:
        assert word in said


def test_the_command_itself_prints_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "reproduce", "draw", "figure=fig9", "scale=smoke", "device=cpu", "results=/nonexistent"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "make fig9 SCALE=smoke" in done.stderr


def test_damaged_summary_is_one_sentence(session, console):
    command.run(console, session)
    base = summaries.place(session.results, "fig09", session.variant)
    base.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        command.draw(console, session)
    base.with_suffix(".json").write_text(json.dumps({}))
    pd.DataFrame({"curve": []}).to_csv(base.with_suffix(".csv"))
    with pytest.raises(UserError, match="lacks"):
        command.draw(console, session)


def test_list_shows_every_figure(console, tmp_path):
    assert command.list_figures(console, [f"results={tmp_path}/none", "threads=1"]) == 0
    said = console.export_text()
    assert "fig09" in said
    assert "Weight decay search" in said


def test_rows_that_were_cut_off_are_not_drawn(session, console):
    command.run(console, session)
    path = summaries.place(session.results, "fig09", session.variant).with_suffix(".csv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is not what was written with its \.json .*run make fig9 SCALE=smoke again"):
        command.draw(console, session)


def test_fewer_runs_do_not_replace_the_summary_of_more(session, console, words):
    command.run(console, session)
    assert "not in it" not in console.export_text()
    runs = session.jobs()
    base = summaries.place(session.results, "fig09", session.variant)
    before = base.with_suffix(".csv").read_bytes(), base.with_suffix(".json").read_bytes()
    with pytest.raises(
        UserError,
        match=r"holds 4 runs, and 3 of them are not among the 1 run finished here.*make restore-fig9 SCALE=smoke",
    ):
        command.collect(console, session, runs[:1])
    assert before == (base.with_suffix(".csv").read_bytes(), base.with_suffix(".json").read_bytes())
    base.with_suffix(".json").write_text("{")  # nothing is lost by replacing what is damaged
    assert command.collect(console, session, runs[:1]) == 0
    others = ", ".join(curve for curve, _, _ in runs[1:])
    assert f"not run, and not in it: {others}" in console.export_text()


def test_interrupted_runs_are_named_where_finished_ones_are_collected(session, console, words):
    first, second, *_ = session.jobs()
    second[2].run.folder.mkdir(parents=True)
    second[2].run.save_checkpoint({"iteration": 30})
    begun = f"{second[0]} replicate 0 (30 of 40 iterations)"
    with pytest.raises(UserError, match=f"no finished run.* Begun: {re.escape(begun)}"):
        command.several(console, "collect", ["fig09"], words[1:])
    command.run(console, Session(composed([*words, f"curve={first[0]}"]), say=lambda _: None))
    console.export_text()
    assert command.several(console, "collect", ["fig09"], words[1:]) == 0
    assert f"begun, and not in it: {begun}" in console.export_text()


def test_where_a_part_was_trained_its_precision_is_part_of_the_next_command(console, monkeypatch, tmp_path):
    """A figure may leave the precision to the device: named, it is no change by hand, but other runs."""
    monkeypatch.setattr(command, "carry_out", lambda *_: 0)
    monkeypatch.setattr(plans.Plan, "say", lambda *_: None)
    monkeypatch.setattr(plans.Plan, "costs", lambda _: {})
    words = ["figure=fig09", "scale=smoke", "device=cpu", "curve=wd_1e-3", f"results={tmp_path}"]
    named = ["precision=fp32"], " with the same settings and the same results= in ARGS"
    for more, then in (([], " with the same results= in ARGS"), named):
        assert command.run(console, Session(composed([*words, *more]), say=lambda _: None)) == 0
        assert f"make collect-fig9 SCALE=smoke{then}\n" in console.export_text()


def test_a_plan_without_data_downloads_nothing_and_counts_nothing_as_done(tmp_path, console):
    words = ["figure=fig09", "scale=quick", "device=cpu", f"data.dir={tmp_path}", f"results={tmp_path}/results"]
    assert command.several(console, "plan", ["fig09"], words[1:]) == 0
    said = console.export_text()
    assert "fig09" in said and "0.819" in said and f"The data are not in {tmp_path}" in said
    assert not list(tmp_path.glob("*cifar*")) and not list(tmp_path.glob(".*"))


def test_a_file_that_cannot_be_read_does_not_hide_the_others(console, tmp_path, monkeypatch):
    real = command.composed

    def composed_but_one(words):
        if "figure=fig03" in words:
            raise UserError("a slip in line 2")
        return real(words)

    monkeypatch.setattr(command, "composed", composed_but_one)
    monkeypatch.setattr(command, "names", lambda group: ["fig03", "fig09"])
    assert command.list_figures(console, [f"results={tmp_path}", "threads=1"]) == 2
    said = console.export_text()
    assert "fig03 cannot be read: a slip in line 2" in said and "Weight decay search" in said


def test_a_setting_that_is_wrong_for_all_figures_is_said_instead_of_the_list(console, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="results names .*file, but .* is no folder"):
        command.list_figures(console, [f"results={tmp_path}/file", "threads=1"])
    assert not console.export_text()
