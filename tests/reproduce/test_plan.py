"""What a plan says before anything is trained: what is missing, on which device, how long it will take."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from experiments.crew import orders
from experiments.data import known
from experiments.errors import UserError
from experiments.estimate import Expected, Speed
from experiments.session import Session, composed
from experiments.store import Job
from reproduce import command, costs
from reproduce import plan as plans


def test_the_plan_trains_nothing(session, console, tmp_path):
    plans.Plan(session).say(console)
    said = console.export_text()
    assert "about" in said
    assert "0 done, 4 missing" in said
    assert not (tmp_path / "results" / "runs").exists()


@pytest.fixture
def two_cores(monkeypatch):
    """A machine of two cores on which nothing runs; a list whose first value is its load."""
    load = [0.0]
    monkeypatch.setattr("os.getloadavg", lambda: (load[0], 0.0, 0.0))
    monkeypatch.setattr("experiments.device.cores", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    yield load
    torch.set_num_threads(1)


def planned(words: list[str]) -> list[str]:
    console = Console(record=True, width=200, force_terminal=False)
    plans.Plan(Session(composed(words), say=lambda _: None)).say(console)
    return [line.strip() for line in console.export_text().splitlines()]


def test_the_plan_names_the_threads_that_each_process_will_have(words, two_cores, monkeypatch):
    free = [w for w in words if w != "threads=1"]
    measured_with = []

    def expected(runs, device, step_as):
        measured_with.append(torch.get_num_threads())
        return Expected([100.0 / len(runs)] * len(runs), 0.0, "measured here a moment ago")

    monkeypatch.setattr("experiments.estimate.expected_seconds", expected)
    for more, threads, device, time in (
        ([], 2, ", 2 threads", "about 2 min for"),
        (["jobs=2"], 1, ", 1 thread in each of 2 processes", "between 50 s and 2 min for"),
        (["jobs=2", "threads=2"], 2, ", 2 threads in each of 2 processes", "about 2 min for"),  # each takes both
        (["jobs=9"], 1, ", 1 thread in each of 4 processes", "between 50 s and 2 min for"),  # two cores: no faster
        (["jobs=2", "curve=wd_1e-3"], 2, ", 2 threads", "about 2 min for"),
        (["gpus=2"], 1, ", 1 thread in each of 2 processes", "between 50 s and 2 min for"),
    ):
        said = planned([*free, *more])
        assert measured_with.pop() == threads, more
        assert any(line.startswith("device ") and line.endswith(device) for line in said), said
        assert any(line.startswith(f"time      {time}") for line in said), said
        session = Session(composed([*free, *more]), say=lambda _: None)
        ordered = orders(session, [job for _, _, job in session.jobs()])
        assert {rank["config"]["threads"] for worker in ordered for rank in worker} == {threads}, more


def test_curves_that_settings_by_hand_make_one_run_are_named(words):
    said = planned([*words, "solver.weight_decay=1e-3"])
    alike = "curves wd_1e-3, wd_3.2e-3, wd_1e-2, wd_1.8e-3 are one run"
    assert any(alike in line for line in said), said
    assert not any("one run" in line for line in planned([*words, "lr.base=0.004"]))
    assert any("1 run, some of them shared" in line for line in said)


def test_bf16_is_named_where_the_benchmark_says_that_it_pays(words, monkeypatch):
    expected = lambda runs, *_: Expected([1000.0] * len(runs), 0.0, "measured")  # noqa: E731
    monkeypatch.setattr("experiments.estimate.expected_seconds", expected)
    monkeypatch.setattr("experiments.device.emulates_bf16", lambda _: False)
    for rate, named in ((1e-3, True), (1e9, False)):
        speed = lambda *_, rate=rate: Speed(rate, 0.0, 1, source="by a benchmark")  # noqa: E731
        monkeypatch.setattr("experiments.estimate.benchmarked", speed)
        found = [line for line in planned(words) if "(ARGS=precision=bf16), by a benchmark" in line]
        assert bool(found) == named
        other = ["figure=fig10", *words[1:]]  # it names fp32
        assert not any("precision=bf16" in line for line in planned(other))
    monkeypatch.setattr("experiments.estimate.benchmarked", lambda *_: None)
    assert not any("precision=bf16" in line for line in planned(words))


def test_bf16_without_instructions_for_it_is_named(words, monkeypatch):
    expected = lambda runs, *_: Expected([1000.0] * len(runs), 0.0, "measured")  # noqa: E731
    monkeypatch.setattr("experiments.estimate.expected_seconds", expected)
    for supported in (False, True):
        monkeypatch.setattr("experiments.device.emulates_bf16", lambda _, supported=supported: not supported)
        for precision in ("fp32", "bf16"):
            named = any("no instructions for bf16" in line for line in planned([*words, f"precision={precision}"]))
            assert named == (precision == "bf16" and not supported)


def test_gpus_that_do_not_divide_are_refused_of_finished_runs_too(words):
    command.run(Console(quiet=True), Session(composed(words), say=lambda _: None))
    with pytest.raises(UserError, match="gpus=3: .* do not spread evenly"):
        planned([*words, "gpus=3"])


def test_an_iterations_cost_is_that_of_its_own_run(tmp_path, monkeypatch):
    """Figure 2's networks have 1 to 128 channels: what the bar adds up is seconds, not iterations."""
    words = ["figure=fig02", "scale=smoke", "device=cpu", f"results={tmp_path}"]
    plan = plans.Plan(Session(composed(words), say=lambda _: None))
    seconds = [float(n) for n in range(len(plan.missing))]
    monkeypatch.setattr("experiments.estimate.expected_seconds", lambda *_: Expected(seconds, 9.0, ""))
    costs = plan.costs()
    for number, job in enumerate(plan.missing):
        assert costs[job.run.hash] * job.run.settings.iterations == pytest.approx(number)


def test_a_loaded_machine_is_named_where_fewer_threads_would_help(words, two_cores):
    free = [w for w in words if w != "threads=1"]
    advice = "on 2 cores: the time may be longer, several times if all are busy; ARGS=threads=1 suffers less"
    for load, more, speaks in (
        (5.8, [], True),
        (0.6, [], False),
        (5.8, ["threads=1"], False),
        (5.8, ["threads=2"], False),
        (5.8, ["jobs=2"], False),
        (5.8, ["gpus=2"], False),
    ):
        two_cores[0] = load
        said = planned([*free, *more])
        assert (f"the load of this machine is {load} {advice}" in said) == speaks, (load, more, said)


def test_the_plan_counts_only_what_is_left(words, two_cores, console):
    session = Session(composed(words), say=lambda _: None)
    half, _, _, last = (job for _, _, job in session.jobs())
    half.run.folder.mkdir(parents=True)
    half.run.save_checkpoint({"iteration": 30})
    said = "\n".join(planned(words))
    batch = last.run.settings.batch.total
    assert f"for {(3 * 40 + 10) * batch:,} training images that are left, " in said
    plan = plans.Plan(session)
    assert [done for _, done in plan.left] == [30, 0, 0, 0]
    costs.cost_table(console, ["fig09"], [*words[1:], "jobs=2"])
    said = console.export_text()
    assert "1 thread in each of 2 processes" in said
    assert "2 share the cores: between 1/2 of it and all of it" in said


def test_a_run_that_is_past_an_unwritten_snapshot_has_the_way_there_to_do_again(session):
    _, _, job = session.jobs()[0]
    job.run.folder.mkdir(parents=True)
    job.run.save_checkpoint({"iteration": 30})
    assert Job("a", job.run, (35,)).iterations_done() == 30
    assert Job("a", job.run, (20,)).iterations_done() == 30 - 20


def test_of_what_nobody_began_nothing_is_left(session, words):
    assert "training images that are left" not in "\n".join(planned(words))
    _, _, job = session.jobs()[0]
    job.run.folder.mkdir(parents=True)
    job.run.save_checkpoint({"iteration": 1})
    assert "training images that are left" in "\n".join(planned(words))


def test_figures_that_cannot_be_planned_do_not_keep_the_others_from_it(words, console, monkeypatch):
    monkeypatch.setattr(costs, "speed_of", lambda *_: Speed(1e-4, 1e-5, 1000))
    assert costs.cost_table(console, ["fig09", "no_such_figure"], words[1:]) == 2
    said = console.export_text()
    assert "no_such_figure cannot be planned: There is no figure 'no_such_figure'" in said
    assert "fig09" in said and "together" in said
    assert "without data" not in said
    with pytest.raises(UserError, match="There is no figure"):
        costs.cost_table(console, ["no_such_figure"], words[1:])


def test_disk_is_for_the_checkpoints_of_the_runs_in_hand(words, console, monkeypatch):
    """Three of 8 bytes a parameter each, and a few lines of every run."""
    monkeypatch.setattr(costs, "speed_of", lambda *_: Speed(1e-4, 1e-5, 10 * 2**20))

    def disk(*more: str) -> list[str]:
        assert costs.cost_table(console, ["fig09", "fig10"], [*words[1:], *more]) == 0
        return re.findall(r"(\S+) MiB", console.export_text())

    assert disk() == ["240", "240", "240"]
    assert disk("jobs=2") == ["480", "480", "480"]
    assert disk("gpus=2") == ["240", "240", "240"], "one of them writes"
    monkeypatch.setattr(Job, "done", lambda _: True)
    assert disk() == ["0", "0", "0"]


def test_more_jobs_than_runs_are_said(words, two_cores):
    assert "jobs=9 is more than the 4 runs to train" in "\n".join(planned([*words, "jobs=9"]))
    assert not any("is more than" in line for line in planned([*words, "jobs=4"]))


def test_more_images_than_there_are_are_refused_by_the_plan(tmp_path, monkeypatch, console):
    monkeypatch.setitem(known.FACTS, "cifar10", replace(known.FACTS["cifar10"], train=50, test=20))
    for split, n in {"train": 50, "test": 20}.items():
        images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / f"cifar10-{split}.npz", images=images, labels=np.arange(n) % 10)
    few = ["dataset.test_images=20", "batch.per_gpu=1", f"data.dir={tmp_path}", f"results={tmp_path}/results"]
    words = ["figure=fig09", "scale=quick", "device=cpu", "iterations=4", "test_interval=2", *few]
    plans.Plan(Session(composed([*words, "dataset.train_images=50"]), say=lambda _: None)).say(console)
    with pytest.raises(
        UserError, match="50 training and 20 test images; the settings say .*, dataset.train_images=60 and"
    ):
        plans.Plan(Session(composed([*words, "dataset.train_images=60"]), say=lambda _: None)).say(console)


def test_figures_without_data_are_named_where_several_are_planned(console, monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "speed_of", lambda *_: Speed(1e-4, 1e-5, 1000))
    own = ["scale=quick", "device=cpu", f"data.dir={tmp_path}", f"results={tmp_path}/results", "data.download=false"]
    assert costs.cost_table(console, ["fig09", "fig16"], own) == 0
    assert "so that nothing counts as done: fig09, fig16" in console.export_text()


def test_what_lies_before_a_snapshot_is_behind_a_run():
    settings = SimpleNamespace(iterations=24, start=SimpleNamespace(iteration=12))
    job = SimpleNamespace(
        run=SimpleNamespace(settings=settings), done=lambda: False, iterations_done=lambda: 0, ends=lambda: 24
    )
    assert plans.behind(job) == 12
    job.ends = lambda: 15  # a finished run that is trained again up to a state
    assert plans.behind(job) == 24 - (15 - 12)
