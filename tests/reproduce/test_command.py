"""The command line of `reproduce`, and what it keeps."""

import hashlib
import json
import re
import runpy
import shutil
import sys

import pandas as pd
import pytest
from rich.console import Console
from small_runs import FIGURE_9, SUMMARY

from experiments.compose import ROOT
from experiments.errors import UserError
from experiments.session import Session, composed
from experiments.words import target
from reproduce import collect, command
from reproduce import summary as summaries
from reproduce.plan import Plan
from reproduce.restore import restore

FIGURE_14 = ["figure=fig14", *(w for w in FIGURE_9[1:] if "size" not in w), "dataset.size=16"]
FIGURE_14 += ["iterations=4", "test_interval=2"]
"""A tiny figure that has other readings."""


def test_half_a_summary_is_said_and_not_passed_over_for_a_lesser_scale(tmp_path):
    for scale, ends in (("paper", (".csv",)), ("smoke", (".csv", ".json"))):
        for end in ends:
            target = tmp_path / "results" / "summary" / f"fig10-{scale}{end}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / "results" / "summary" / target.name).read_bytes())
    words = ["device=cpu", f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    with pytest.raises(
        UserError, match="fig10-paper.json is missing, half of what was written: .*make fig10 SCALE=paper"
    ):
        command.several(Console(quiet=True), "draw", ["fig10"], words)


def test_collecting_downloads_nothing(tmp_path):
    words = ["scale=quick", "device=cpu", f"data.dir={tmp_path}", f"results={tmp_path}/results"]
    with pytest.raises(UserError, match="fig09: its data are not here, .*DATA_DIR="):
        command.several(Console(quiet=True), "collect", ["fig09"], words)


@pytest.mark.parametrize(
    "word", ["curve=wd_1e-3,wd_1e-2", "replicate=0,1", "seed=1,2", "scale=quick,smoke", "lr.peak=0.1,0.2"]
)
def test_several_curves_are_asked_for_elsewhere(word):
    with pytest.raises(UserError, match=f"{word}: one at a time here; several with  python -m experiments.train -m"):
        command.split_words(["figure=fig09", word])
    if word.partition("=")[0] not in ("seed", "lr.peak"):  # settings of a run have types of their own
        key, _, values = word.partition("=")
        with pytest.raises(UserError, match=f"several with  python -m experiments.train -m .*{word}"):
            command.split_words(["figure=fig09", f"{key}=[{values}]"])


def test_a_run_under_another_curves_name_is_not_lost(tmp_path):
    """A figure's curve may become one of its other readings: what is still there by its hash may be collected anew."""
    words = [*FIGURE_9, "iterations=4", "test_interval=2", f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    session = Session(composed(words), say=lambda _: None)
    command.run(Console(quiet=True), session)
    path = summaries.place(session.results, "fig09", session.variant)
    renamed = [(f"{c}_old" if c == "wd_1e-2" else c, r, job) for c, r, job in session.jobs()]
    own, others = (
        [job for job in renamed if job[0] != "wd_1e-2_old"],
        [job for job in renamed if job[0] == "wd_1e-2_old"],
    )
    with pytest.raises(UserError, match="and 1 of them is not among the 3 runs"):
        collect._keep_what_is_more(session, own, [])
    collect._keep_what_is_more(session, own, others)
    assert path.with_suffix(".csv").is_file()


def test_other_readings_are_not_lost_either(tmp_path):
    words = [*FIGURE_14, f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    session = Session(composed([*words, "readings=true"]), say=lambda _: None)
    assert command.run(Console(quiet=True), session) == 0
    path = summaries.place(session.results, "fig14", session.variant).with_suffix(".csv")
    before = path.read_bytes()
    readings = session.finished_readings()
    for _, _, job in readings:
        shutil.rmtree(job.run.folder)
    said = []
    assert command.run(Console(quiet=True), Session(composed(words), say=said.append)) == 0
    assert path.read_bytes() == before
    assert said == [f"  {len(readings)} runs of other readings kept from {path.name}"]


def test_readings_of_other_settings_are_said_to_go(tmp_path):
    words = [*FIGURE_14, f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    said = []
    session = Session(composed([*words, "readings=true"]), say=said.append)
    assert command.run(Console(quiet=True), session) == 0
    path = summaries.place(session.results, "fig14", session.variant).with_suffix(".csv")
    reading = session.readings()[0]
    rows = pd.read_csv(path, dtype=str)
    rows.loc[rows["curve"] == reading, "hash"] = "0123456789ab"  # as if trained with other settings
    facts = path.with_suffix(".json")
    changed = json.loads(facts.read_text())
    path.write_text(rows.to_csv(index=False, lineterminator="\n"))
    changed["rows_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    facts.write_text(json.dumps(changed | {"facts_sha256": None}))
    for _, _, job in session.finished_readings():
        shutil.rmtree(job.run.folder)
    assert command.run(Console(quiet=True), Session(composed(words), say=said.append)) == 0
    assert said[-1] == f"  Other readings of before ({reading}) had other settings and are left out"


def test_readings_are_brought_back_only_where_there_is_something_to_collect_them_with(tmp_path):
    """A refused collect leaves no folders of runs behind."""
    words = [*FIGURE_14, f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    assert command.run(Console(quiet=True), Session(composed([*words, "readings=true"]), say=lambda _: None)) == 0
    (first, *others) = (job.run.folder for _, _, job in Session(composed(words), say=lambda _: None).jobs())
    for folder in set(first.parent.iterdir()) - {first}:
        shutil.rmtree(folder)
    with pytest.raises(UserError, match=f"{len(others)} of them are not among the 1 run finished here"):
        command.several(Console(quiet=True), "collect", ["fig14"], words[1:])
    assert [folder.name for folder in first.parent.iterdir()] == [first.name]


@pytest.mark.parametrize("damage", ["no facts", "changed", "cut"])
def test_a_damaged_summary_is_kept_aside_and_never_thrown_away(tmp_path, damage):
    """Of one of its runs it may be the only record."""
    words = [*FIGURE_9, "iterations=4", "test_interval=2", f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    said = []
    session = Session(composed(words), say=said.append)
    assert command.run(Console(quiet=True), session) == 0
    path = summaries.place(session.results, "fig09", session.variant).with_suffix(".csv")
    rows = path.read_text()
    if damage == "no facts":
        path.with_suffix(".json").unlink()
    else:
        path.write_text(rows.replace("0.", "1.", 1) if damage == "changed" else rows[:-200])
    left = path.read_text()
    shutil.rmtree(session.jobs()[0][2].run.folder)
    told = Session(composed(words), say=said.append)
    assert collect.collect(Console(quiet=True), told, [job for job in told.jobs() if job[2].run.done()]) == 0
    (line,) = (line for line in said if "It is kept as" in line)
    assert line.endswith("what is written now has the 3 runs finished here.")
    assert "again" not in line and "git checkout" not in line, "it is being made again, and was never committed"
    assert path.with_name(f"{path.name}.damaged").read_text() == left
    assert len(pd.read_csv(path)["hash"].unique()) == 3


def test_only_the_reports_figures_have_parts_in_files_of_their_own(monkeypatch):
    monkeypatch.setattr(command, "names", lambda group: ["fig03", "fig03b", "sweep", "sweeps"])
    assert command._figures("fig03") == ["fig03", "fig03b"]
    assert command._figures("sweep") == ["sweep"]


def test_what_make_calls_a_figure():
    assert [target(name) for name in ("fig03b", "fig10", "table1", "myfig01")] == [
        "fig3b",
        "fig10",
        "table1",
        "myfig01",
    ]


def test_a_drawing_of_less_lies_beside_that_of_more(tmp_path):
    """Trying a figure at a small scale takes nothing from what was trained for hours."""
    said = []
    for words in (["figure=table2", "scale=paper"], ["figure=table2", "scale=smoke"]):
        console = Console(record=True, width=200)
        session = Session(composed([*words, f"figures={tmp_path}", "threads=1"]), say=lambda _: None)
        assert command.draw(console, session) == 0
        said.append(console.export_text())
        if words[1] == "scale=paper":
            before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {f"table2.{suffix}" for suffix in ("png", "pdf", "csv", "md")}
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(after) - set(before) == {name.replace("table2", "table2-smoke") for name in before}
    assert {name: after[name] for name in before} == before
    assert "table2.png is of scale paper, which is nearer" in said[1] and "nearer" not in said[0]


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv"])
def test_a_damaged_run_is_said_before_the_others_are_trained(tmp_path, name):
    words = [*FIGURE_9, f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    plan = Plan(Session(composed(words), say=lambda _: None))
    run = plan.distinct[0].run
    run.begin({"device": "a CPU"})
    run.finish([{"iteration": 2, "test_loss": 1.5}], SUMMARY)
    plan.say(Console(quiet=True))
    path = run.folder / name
    whole = path.read_text()
    for damaged in (whole[:-5], "", "{}"[: 2 * (name == "summary.json")]):
        path.write_text(damaged)
        with pytest.raises(UserError, match=f"{run.hash}/{name} is damaged or changed: delete the folder"):
            plan.say(Console(quiet=True))


def test_all_damaged_runs_are_said_at_once(tmp_path):
    plan = Plan(Session(composed([*FIGURE_9, f"results={tmp_path}/results"]), say=lambda _: None))
    runs = [job.run for job in plan.distinct[:3]]
    for run in runs:
        run.begin({"device": "a CPU"})
        run.finish([{"iteration": 2, "test_loss": 1.5}], SUMMARY)
    for run in runs[:2]:
        (run.folder / "metrics.csv").write_text("")
    for look in (
        lambda: plan.say(Console(quiet=True)),
        lambda: command.collect(Console(quiet=True), plan.session, plan.runs),
    ):
        with pytest.raises(UserError) as error:
            look()
        assert re.findall(r"(\w+)/metrics.csv is damaged", str(error.value)) == [run.hash for run in runs[:2]]


def test_what_a_run_was_is_written_again_where_it_is_lost(tmp_path):
    words = [*FIGURE_9, "iterations=4", "test_interval=2", f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    session = Session(composed(words), say=lambda _: None)
    command.run(Console(quiet=True), session)
    paths = [job.run.folder / "settings.yaml" for _, _, job in session.jobs()]
    before = [path.read_bytes() for path in paths]
    paths[0].write_text("junk")
    paths[1].unlink()
    command.run(Console(quiet=True), session)
    assert [path.read_bytes() for path in paths] == before


def test_what_is_refused_leaves_no_folder(tmp_path):
    words = ["figure=fig09", "scale=smoke", "device=cpu", "iterations=10", f"results={tmp_path}/results"]
    with pytest.raises(UserError, match="nothing would be measured"):
        command.run(Console(quiet=True), Session(composed(words), say=lambda _: None))
    assert not list(tmp_path.iterdir())


def test_committed_results_that_are_to_be_replaced_are_named(tmp_path):
    """The runs of other readings that a clone does not have would leave the summary without a word."""

    plain = ["figure=fig09", "scale=smoke", "device=cpu", "threads=1"]

    def said(words=plain):
        console = Console(record=True, width=400)
        Plan(Session(composed([*words, f"results={tmp_path}/results"]), say=lambda _: None)).say(console)
        return " ".join(console.export_text().split())

    summaries = tmp_path / "results" / "summary"
    summaries.mkdir(parents=True)
    for name in ("fig09-smoke.csv", "fig09-smoke.json", "runs.csv"):
        shutil.copy(ROOT / "results" / "summary" / name, summaries / name)
    assert "takes their place" not in said(FIGURE_9), "changed settings have a summary of their own"
    here = f"results={tmp_path}/results"
    assert (
        "results/summary has the numbers of 4 runs of these, which are trained again here (make restore-fig9 "
        f"SCALE=smoke ARGS={here} brings them back instead)"
    ) in said()
    more = [*plain, "replicates=2"]
    again = "results/summary has the numbers of 4 runs of these, which are trained again here (make restore-fig9 SCALE"
    assert again in said(more) and "8 missing" in said(more)
    assert "results/summary has" not in said([*more, "seed=7"])
    with pytest.raises(UserError, match="leave replicates= out to bring back what there is of scale smoke"):
        restore(Console(quiet=True), Session(composed([*more, here]), say=lambda _: None))
    asked = said([*plain, "precision=fp32"])
    args = f'ARGS="precision=fp32 {here}"'
    assert f"(make restore-fig9 SCALE=smoke {args} brings them back" in asked, "what was asked for, too"
    jobs = Session(composed([*plain, f"results={tmp_path}/results"]), say=lambda _: None).jobs()
    for _, _, job in jobs[:3]:
        job.run.begin({"device": "a CPU"})
        job.run.finish([{"iteration": 2, "test_loss": 1.5}], SUMMARY)
    assert "results/summary has the numbers of 1 run of these" in said()
    path, all_four = summaries / "runs.csv", (summaries / "runs.csv").read_text()
    for _, _, job in jobs[:3]:
        path.write_text(path.read_text().replace(job.run.hash, job.run.hash[::-1]))
    takes = "that are not in results/runs: what is trained now takes their place"
    keeps = f"(make restore-fig9 SCALE=smoke ARGS={here} first keeps them)"
    assert f"results/summary has 4 runs of this figure and scale {takes} {keeps}" in said()
    part = said([*plain, f"curve={jobs[3][0]}"])
    assert "this trains a part of the figure: results/summary and the drawing stay as they are" in part
    assert f"To collect it with the 4 runs that they hold, make restore-fig9 SCALE=smoke ARGS={here} first" in part
    assert "takes their place" not in part
    path.write_text(path.read_text().replace(jobs[3][2].run.hash, "0123456789ab").replace("fp32", "bf16"))
    args = f'ARGS="precision=bf16 {here}"'
    same = f"(make restore-fig9 SCALE=smoke {args} first keeps them, and the same ARGS goes on with them)"
    assert f"{takes} {same}" in said()
    path.write_text(all_four)
    path.write_text(path.read_text().replace(jobs[3][2].run.hash, "0123456789ab").replace("fp32", "bf16"))
    shutil.copytree(jobs[0][2].run.folder, tmp_path / "results" / "runs" / "0123456789ab")
    assert (
        "results/summary has 1 run of this figure and scale with other settings than these: what is trained now takes "
        "their place (ARGS=precision=bf16 goes on with them)"
    ) in said()


def test_a_setting_has_one_value():
    with pytest.raises(UserError, match="scale is given twice, as smoke and as paper: leave one of them out"):
        command.split_words(["plan", "figure=fig09", "scale=smoke", "device=auto", "scale=paper"])
    make = [
        "figure=fig09",
        "scale=auto",
        "device=auto",
        "jobs=1",
        "cluster=local",
    ]
    with pytest.raises(UserError, match="seed is given twice, as 1 and as 2"):
        command.split_words([*make, "seed=1", "seed=2"])
    assert command.split_words([*make, "scale=paper", "jobs=2", "iterations=10", "iterations=10"])[0] == "run"
    assert command.split_words(["figure=fig09", "figure=fig10"])[1] == ["fig09", "fig10"]
    assert command.split_words(["figure=fig09", "lr.stepvalues=[3,5]"])[2] == ["lr.stepvalues=[3,5]"]


def test_a_misspelt_figure_is_refused_before_those_beside_it():
    """They would be measured, or trained, first."""
    with pytest.raises(UserError, match="There is no figure 'fig91': did you mean "):
        command.split_words(["plan", "figure=fig9,fig91"])


def test_a_page_of_no_results_takes_the_place_of_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce", "report", f"results={tmp_path}/typo", f"figures={tmp_path}/figures"])
    with pytest.raises(UserError, match="typo has no results, as its folder summary is missing: correct results="):
        command.main()
    assert not (tmp_path / "figures").exists()


def test_a_drawing_of_other_results_takes_the_place_of_none_that_is_nearer_to_the_report(tmp_path, monkeypatch):
    """results= alone leaves the figures where the committed ones lie."""
    for place in ("elsewhere", "results"):
        (tmp_path / place / "summary").mkdir(parents=True)
    for scale, place in (("smoke", "elsewhere"), ("paper", "results")):
        for path in (ROOT / "results" / "summary").glob(f"fig09-{scale}.*"):
            shutil.copy(path, tmp_path / place / "summary")
    monkeypatch.setattr(collect, "ROOT", tmp_path)
    for figures, drawn in ((tmp_path / "figures", "fig09-smoke.png"), (tmp_path / "mine", "fig09.png")):
        words = ["figure=fig09", "scale=smoke", "device=cpu", f"results={tmp_path}/elsewhere", f"figures={figures}"]
        assert collect.draw(Console(quiet=True), Session(composed(words), say=lambda _: None)) == 0
        assert [path.name for path in figures.glob("*.png")] == [drawn]


@pytest.mark.parametrize("action", ["list", "report", "readme"])
@pytest.mark.parametrize("word", ["curve=wd_1e-3", "replicate=1", "scale=paper"])
def test_what_shows_everything_takes_no_part_of_it(action, word):
    with pytest.raises(UserError, match=f"{action} shows all that there is .*: leave {word} out"):
        command.split_words([action, word])


@pytest.mark.parametrize("action", ["draw", "collect"])
def test_a_part_of_a_figure_is_neither_drawn_nor_collected(action, tmp_path):
    words = ["scale=paper", "device=cpu", "curve=wd_1e-3", f"results={tmp_path}", f"figures={tmp_path}/figures"]
    with pytest.raises(UserError, match=f"{action} takes all that is finished: leave curve= and replicate= out"):
        command.several(Console(quiet=True), action, ["fig10"], words)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("words", [["iterations"], ["batch.per_gpu", "=", "3"], ["data.dir"], ["curve"]])
def test_a_setting_without_its_value_is_called_one(words):
    with pytest.raises(UserError, match=rf"'{words[0]}' is a setting: {words[0]}=VALUE, without blanks"):
        command.split_words(["figure=fig09", *words])


def test_what_the_last_figure_cannot_be_is_said_before_the_first_is_trained(tmp_path):
    words = [*FIGURE_9[1:], "curve=wd_1e-3", f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    with pytest.raises(UserError, match="table1 has no curve 'wd_1e-3'"):
        command.several(Console(quiet=True), "run", ["fig09", "table1"], words)
    assert not (tmp_path / "results").exists()


def test_an_interruption_of_the_imports_is_answered(monkeypatch, capsys):
    class Interrupts:
        def find_spec(self, name, *_):
            if name == "reproduce.command":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "reproduce.command")
    monkeypatch.delattr("reproduce.command")
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("reproduce", run_name="__main__")
    assert end.value.code == 130 and capsys.readouterr().err == "Interrupted.\n"
