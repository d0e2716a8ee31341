"""A run that others start from, where only those were asked for: trained as far as they need, and no further."""

import io
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from small_runs import CPU, TINY, begin, wait_for

from experiments.compose import load, names
from experiments.curves import with_readings
from experiments.errors import DataMissing, UserError
from experiments.execute import carry_out
from experiments.figures import check_figure
from experiments.progress import Stopped
from experiments.session import Session, composed
from experiments.store import Job, Run, load_snapshot
from experiments.training import train
from reproduce import cluster, collect, command, costs, restore
from reproduce.plan import Plan, behind, state

LONG = [*TINY, "figure=fig12", "iterations=240", "test_interval=40"]
NAME, AT = "WD=1e-3, a range test to the end", 200
"""What the curves of panel 12a start from, and where at scale smoke."""


def opened(results, *words):
    return Session(composed([*LONG, f"results={results}", *words]), say=lambda _: None)


def trained(session, console=None):
    jobs = [job for _, _, job in session.jobs()]
    console = console or Console(file=io.StringIO(), width=200)
    assert carry_out(session, jobs, console) == 0
    return console.file.getvalue()


def written(session):
    return {curve: (job.run.folder / "metrics.csv").read_bytes() for curve, _, job in session.jobs() if job.run.done()}


@pytest.mark.parametrize("words", [[], ["jobs=2"], pytest.param(["gpus=2"], marks=pytest.mark.slow)], ids=str)
def test_a_curve_alone_trains_its_parent_up_to_where_it_starts(tmp_path, words):
    """And the figure trains the rest of it later, to the bytes of a parent that was trained in one go."""
    child = opened(tmp_path / "parts", "curve=wd_3e-3", *words)
    (parent, own) = (job for _, _, job in child.jobs())
    assert (parent.whole, own.whole, parent.ends()) == (False, True, AT)
    assert (behind(parent), behind(own)) == (240 - AT, AT)
    said = trained(child)
    assert f"{NAME} has come to iteration {AT}, where other runs start from it." in said
    assert f"WD=3e-3: iterations {AT} to 240 in " in said and "240 iterations in" not in said
    assert own.run.done() and not parent.run.done() and parent.run.iterations_done() == AT
    assert parent.done() and parent.run.snapshot(AT).is_file() and Plan(child).missing == []
    panel = ["wd_1e-3_range", "wd_3e-3"]
    for results in ("parts", "whole"):
        for curve in panel:
            said = trained(opened(tmp_path / results, f"curve={curve}", *words))
            if results == "parts" and curve == "wd_1e-3_range":
                assert f"{NAME} goes on from iteration {AT} of 240." in said
    parts, whole = (
        {c: b for name in panel for c, b in written(opened(tmp_path / r, f"curve={name}")).items()}
        for r in ("parts", "whole")
    )
    assert parts == whole and set(whole) == set(panel)


@pytest.mark.slow
def test_two_processes_of_one_run_make_a_lost_state_anew(tmp_path):
    """All of them take the same way round, up to the state and then on from the checkpoint."""
    words = ["curve=wd_1e-3_range", "gpus=2", "iterations=300", "checkpoint_seconds=0"]
    (_, _, job) = opened(tmp_path, *words).jobs()[0]
    trained(opened(tmp_path, *words))
    state, rows = job.run.snapshot(AT).read_bytes(), (job.run.folder / "metrics.csv").read_bytes()
    shutil.rmtree(job.run.folder)
    given = {word.partition("=")[0]: word for word in [*LONG, *words, f"results={tmp_path}"]}  # each once
    process = begin([sys.executable, "-m", "reproduce", *given.values()], stdout=subprocess.DEVNULL)
    wait_for(lambda: job.run.snapshot(AT).is_file() and job.run.iterations_done() > AT)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and AT < job.run.iterations_done() < 300
    job.run.snapshot(AT).unlink()
    said = trained(opened(tmp_path, *words))
    assert f"trained once more up to iteration {AT}" in said
    assert job.run.snapshot(AT).read_bytes() == state and (job.run.folder / "metrics.csv").read_bytes() == rows


def test_a_reading_may_start_by_itself_where_its_curve_does_not(tmp_path):
    """Figure 12a's range test, which its restarts go on from; completed twice, a figure is as completed once."""
    for name in names("figure"):
        assert with_readings(load("figure", name)) == load("figure", name)
    for words in ([], ["solver.weight_decay=0.5"], ["readings=true"]):
        session = opened(tmp_path, *words)
        assert session.run("wd_1e-3_range", 0).settings.start.run == ""
        assert session.run("wd_1e-3", 0).settings.start.run == session.run("wd_1e-3_range", 0).hash


def test_a_reading_that_would_start_from_itself_is_refused():
    """As one that its own curve starts from, where nothing says that it does not start as that curve does."""
    figure = load("figure", "fig12")
    del figure["curves"]["wd_1e-3_range"]["from"]
    with pytest.raises(
        UserError,
        match="curve wd_1e-2 starts from 'wd_1e-3_range', a reading, which would .* from itself: add  from: null",
    ):
        check_figure(figure, "fig12")
    figure["curves"]["wd_1e-3_range"]["from"] = {"curve": "res_wd_1e-3", "iteration": 9}
    with pytest.raises(
        UserError, match="starts from '(res_wd_1e-3|wd_1e-3_range)', which starts from another curve itself"
    ):
        check_figure(figure, "fig12")


def test_it_can_be_stopped_before_it_comes_there(tmp_path, tiny, shapes):
    settings, at = replace(tiny, test_interval=6), []
    whole, run = (Run(tmp_path / name, settings) for name in ("whole", "parts"))
    with whole.claim():
        train(whole, shapes(settings), CPU, snapshots=(12,))
    with run.claim():
        with pytest.raises(Stopped):
            train(
                run, shapes(settings), CPU, snapshots=(12,), whole=False, progress=at.append, stop=lambda: len(at) > 7
            )
        assert train(run, shapes(settings), CPU, snapshots=(12,), whole=False, progress=at.append) == {}
    assert [p.iteration for p in at] == list(range(12)) and not run.done()
    assert run.snapshot(12).read_bytes() == whole.snapshot(12).read_bytes()
    with run.claim():
        train(run, shapes(settings), CPU, snapshots=(12,))
    assert (run.folder / "metrics.csv").read_bytes() == (whole.folder / "metrics.csv").read_bytes()


def test_one_that_is_finished_is_trained_again_up_to_there(tmp_path, tiny, shapes):
    run = Run(tmp_path, tiny)
    with run.claim():
        train(run, shapes(tiny), CPU)
        job = Job("a", run, (12,), whole=False)
        assert not job.done() and job.ends() == 12
        summary = run.summary()
        assert train(run, shapes(tiny), CPU, snapshots=(12,), whole=False) == summary
    assert job.done() and run.done()


def test_what_a_finished_run_had_begun_for_a_later_state_goes_with_an_earlier_one(tmp_path, tiny, shapes):
    """A checkpoint of a finished run is of use only until the states that it was written for are there."""
    run, at = Run(tmp_path, tiny), []
    with run.claim():
        train(run, shapes(tiny), CPU)
        with pytest.raises(Stopped):
            train(run, shapes(tiny), CPU, snapshots=(12,), progress=at.append, stop=lambda: len(at) > 7)
        assert run.iterations_done() == 8
        train(run, shapes(tiny), CPU, snapshots=(6,))
    assert run.snapshot(6).is_file() and not run.started() and run.done()


@pytest.mark.parametrize("whole", [True, False])
def test_one_that_is_past_a_lost_state_makes_it_anew_and_keeps_what_it_has(tmp_path, tiny, shapes, whole):
    """Whether it is wanted itself or not: up to the state nothing is written but that, then it goes on as before."""
    settings, said = replace(tiny, test_interval=6), list[str]()
    straight, run = (Run(tmp_path / name, settings) for name in ("straight", "lost"))
    with straight.claim():
        train(straight, shapes(settings), CPU, snapshots=(6, 12))

    def go(after, whole):
        at = []
        with run.claim():
            try:
                stop = lambda: len(at) == after  # noqa: E731
                args = {"snapshots": (6, 12), "whole": whole, "progress": at.append, "say": said.append, "stop": stop}
                train(run, shapes(settings), CPU, checkpoint_seconds=0, **args)
            except Stopped:
                pass
        return [p.iteration for p in at]

    go(15, True)
    run.snapshot(6).unlink()
    kept, job = (run.folder / "checkpoint").read_bytes(), Job("a", run, (6, 12), whole)
    assert run.iterations_done() == 15 and behind(job) == settings.iterations - (settings.iterations - 15) * whole - 6
    assert go(3, whole) == [0, 1, 2] and (run.folder / "checkpoint").read_bytes() == kept
    rest = [*range(15, settings.iterations + 1)] if whole else []
    assert go(-1, whole) == [*range(6), *rest] and "trained once more up to iteration 6" in said[0]
    assert job.done() and run.done() == whole
    if not whole:
        assert (run.folder / "checkpoint").read_bytes() == kept and go(-1, True)[0] == 15
    for name in ("snapshot-6", "snapshot-12", "metrics.csv"):
        assert (run.folder / name).read_bytes() == (straight.folder / name).read_bytes()


def test_a_plan_says_what_is_only_begun(tmp_path):
    plan, console = Plan(opened(tmp_path, "curve=wd_3e-3")), Console(file=io.StringIO(), width=400)
    plan.say(console)
    said = " ".join(console.file.getvalue().split())
    assert "240 iterations of 16 images; 0 done, 2 missing, 1 of them only up to where others start" in said
    assert f"{240 * 16:,} training images" in said


def test_a_table_of_costs_counts_of_a_start_what_is_trained_of_it(tmp_path, monkeypatch):
    """With the data or without, until what starts from it has been run; a state and the checkpoints stay on disk."""
    asked, there = costs._all_runs(opened(tmp_path, "curve=wd_3e-3"))
    assert there and [(a.ends, a.done, a.states) for a in asked] == [(AT, 0, 1 + costs.CHECKPOINT), (240, AT, 0)]

    def lost(*_):
        raise DataMissing("not here")

    session = opened(tmp_path, "curve=wd_3e-3")
    monkeypatch.setattr(session, "jobs", lost)
    assert ([a.ends for a in costs._all_runs(session)[0]], costs._all_runs(session)[1]) == ([AT, 240], False)
    (_, own) = (job.run for _, _, job in opened(tmp_path, "curve=wd_3e-3").jobs())
    own.folder.mkdir(parents=True)
    (own.folder / "summary.json").touch()
    assert [job.run.hash for _, _, job in opened(tmp_path, "curve=wd_3e-3").jobs()] == [own.hash]


def test_restoring_says_that_a_reading_has_no_state_here_for_what_is_missing(tmp_path):
    alone, said = opened(tmp_path, "curve=wd_1e-3_range"), list[str]()
    trained(alone)
    (parent,) = (job.run for _, _, job in alone.jobs())
    restore._say_what_is_next(opened(tmp_path), said.append)
    assert "no state" not in " ".join(said)
    parent.snapshot(AT).unlink()
    restore._say_what_is_next(opened(tmp_path), said.append)
    assert f"{NAME} has no state here that the missing runs could start from" in " ".join(said)


def test_what_is_only_begun_on_purpose_is_not_said_to_be_missing(tmp_path):
    """The list counts what was asked for, and nobody is told that a start of 200 iterations lacks the rest."""
    session, console = opened(tmp_path, "curve=wd_3e-3"), Console(file=io.StringIO(), width=400)
    assert state(session) == "-"
    assert command.run(console, session) == 0
    (own,) = (job.run for _, _, job in session.jobs() if job.whole)
    said = console.file.getvalue()
    assert said.count("metrics.csv") == 1 and str(own.folder / "metrics.csv") in said
    assert state(session) == "1 of 1 runs" and collect._begun(session) == ""
    assert (
        collect._begun(opened(tmp_path, "curve=wd_1e-3_range")) == f"wd_1e-3_range replicate 0 ({AT} of 240 iterations)"
    )


def test_no_job_of_a_cluster_is_for_a_start_alone(tmp_path, monkeypatch):
    """The job of the curve trains what it starts from; two jobs of one run would wait for each other."""
    submitted = []
    monkeypatch.setattr(cluster, "queue", lambda *_, **__: {})
    monkeypatch.setattr(cluster, "submit", lambda session, words, hashes: submitted.append((words, hashes)))
    monkeypatch.setattr(cluster, "watch", lambda *_: iter(()))
    session = opened(tmp_path, "curve=wd_3e-3", "cluster=slurm")
    runs = session.jobs()
    assert cluster.execute(Console(file=io.StringIO()), session, LONG, runs) == 0
    assert [hashes for _, hashes in submitted] == [[runs[1][2].run.hash]]


def test_a_run_that_is_wanted_both_ways_is_wanted_whole(tmp_path):
    plan = Plan(opened(tmp_path, "curve=wd_3e-3"))
    (parent, own) = (job for _, _, job in plan.session.jobs())
    whole = replace(parent, whole=True, snapshots=())  # by another curve's name, which nothing starts from
    for jobs in ([parent, whole, own], [whole, parent, own]):
        plan = Plan(plan.session)
        plan.__dict__["runs"] = [("a", 0, job) for job in jobs]
        assert [(j.run.hash, j.whole) for j in plan.distinct] == [(parent.run.hash, True), (own.run.hash, True)]
        assert plan.distinct[0].snapshots == parent.snapshots == (AT,)


def test_two_curves_that_are_one_run_keep_what_others_start_from(tmp_path):
    """With a schedule by hand the range tests of 8,000 and of 4,000 iterations are one, with a state for each's."""
    plan = Plan(opened(tmp_path, "readings=true"))
    runs = plan.session.jobs()
    plan.__dict__["runs"] = runs
    both = {job.run.hash for curve, _, job in runs if curve in ("wd_1e-3_range", "wd_1e-3_short")}
    assert len(both) == 1 and [j.snapshots for j in plan.distinct if j.run.hash in both] == [(100, AT)]


@pytest.mark.parametrize(("other", "said"), [({"model": "resnet56"}, "resnet56"), ({"model": {"width": 8}}, "width 8")])
def test_a_start_from_another_network_is_refused_before_anything_is_trained(other, said):
    session = Session(composed(["figure=fig12", "scale=smoke", "device=cpu"]), say=lambda _: None)
    session.figure["curves"]["wd_3e-3"]["set"] |= other
    with pytest.raises(
        UserError, match=f"wd_3e-3: it trains .*{said}.* for 10 classes.* cannot start from wd_1e-3_range"
    ):
        session.jobs()


@pytest.mark.parametrize(("content", "said"), [(None, "missing: run the same"), (b"x", "delete it and run the same")])
def test_a_state_that_is_not_there_is_said_with_what_brings_it_back(tmp_path, content, said):
    folder = tmp_path / "runs" / "0123456789ab"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "snapshot-9").write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_snapshot(tmp_path, "0123456789ab", 9)


def test_one_network_by_other_words_is_one_network():
    """cifar3 is 32 channels wide unless a figure says otherwise, and averages over any size of image like a resnet."""
    session = Session(composed(["figure=fig12", "scale=smoke", "device=cpu"]), say=lambda _: None)
    session.figure["curves"]["wd_3e-3"]["set"] |= {"model": {"width": 32}}
    assert "wd_3e-3" in {curve for curve, _, _ in session.jobs()}


def test_a_reading_that_cannot_be_trained_keeps_nothing_from_being_collected(tmp_path):
    """It is refused where it is asked for."""
    session = opened(tmp_path)
    reading = next(c for c in session.readings() if session.figure["curves"][c].get("from"))
    session.figure["curves"][reading]["set"] = {"model": {"width": 8}}
    assert session.finished_readings() == []
    with pytest.raises(UserError, match=f"{reading}: it trains .* cannot start from"):
        session.jobs([reading])


def test_curves_of_two_panels_that_are_called_alike_are_told_apart():
    session = Session(composed(["figure=fig12", "scale=smoke", "device=cpu"]), say=lambda _: None)
    names = [job.name for _, _, job in session.jobs()]
    assert {"WD=1e-3 (wd_1e-3)", "WD=1e-3 (res_wd_1e-3)", "WD=3e-3"} <= set(names) and len(set(names)) == len(names)
