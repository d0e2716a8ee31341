"""Runs as Slurm jobs, as far as no Slurm is needed (tests/slurm has the real one)."""

import io
import json
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from experiments.compose import CONF, ROOT, names, register
from experiments.errors import UserError
from experiments.execute import REQUEUE, stop_on_signals
from experiments.session import Session, composed
from experiments.train import check_place, checkpoint_before_requeue
from reproduce import cluster, command, costs

SMOKE = ["figure=fig09", "scale=smoke", "cluster=slurm"]


def session(*words: str) -> Session:
    return Session(composed([*SMOKE, *words]), say=lambda _: None)


@pytest.fixture
def login_node(monkeypatch):
    """A machine with Slurm's commands and the launcher, without a GPU."""
    real, launcher = cluster.importlib.metadata.distribution, "hydra-submitit-launcher"
    monkeypatch.setattr(cluster.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(cluster.importlib.metadata, "distribution", lambda n: None if n == launcher else real(n))


@given(st.sets(st.tuples(st.sampled_from("abcd"), st.integers(0, 3))))
def test_products_hold_every_missing_run_once(missing):
    found = [(c, r) for curves, replicates in cluster.products(sorted(missing)) for c in curves for r in replicates]
    assert sorted(found) == sorted(missing)


def test_the_usual_case_is_one_array():
    missing = [(curve, replicate) for replicate in range(4) for curve in "abc"]
    assert cluster.products(missing) == [(["a", "b", "c"], [0, 1, 2, 3])]


def test_no_figure_has_more_runs_than_an_array_takes():
    for figure in names("figure"):
        paper = Session(composed([f"figure={figure}", "scale=paper"]), say=lambda _: None)
        assert len(paper.figure["curves"]) * paper.how["replicates"] <= 1000


def test_jobs_on_gpus_are_planned_where_there_is_none(login_node, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = Session(composed(["figure=fig09", "cluster=slurm"]), say=lambda _: None)
    cluster.prepare(asked)
    assert asked.scale == "paper"
    assert asked.settings("wd_1e-3", 0).precision == "bf16"
    on_cpus = session("device=cpu")
    cluster.prepare(on_cpus)
    assert on_cpus.config.cluster.gpus is None
    assert on_cpus.settings("wd_1e-3", 0).precision == "fp32"


@pytest.mark.parametrize("figure", ["fig07", "fig09"])
@pytest.mark.parametrize("here", [True, False])
def test_jobs_train_in_the_precision_that_was_planned(login_node, monkeypatch, tmp_path, figure, here):
    """A job's GPU may have bf16 where the login node's has not, or the other way round; figure 7 has both."""
    words = [f"figure={figure}", "cluster=slurm", "scale=smoke", f"results={tmp_path}"]
    monkeypatch.setattr("experiments.device.has_bf16", lambda _: here)
    planned = Session(composed(words), say=lambda _: None)
    cluster.prepare(planned)
    jobs = {(curve, replicate): job for curve, replicate, job in planned.jobs()}
    arrays = cluster.arrays(jobs)
    assert len(arrays) == (2 if figure == "fig07" and here else 1)
    monkeypatch.setattr("experiments.device.has_bf16", lambda _: not here)
    trained = set()
    for precision, curves, replicates in arrays:
        shared = [w for w in cluster.words_for(planned, words, precision, curves, replicates) if "curve=" not in w]
        for curve in curves:
            job = Session(composed([*shared, f"curve={curve}"]), say=lambda _: None)
            job.device = planned.device
            trained |= {one.run.hash for _, _, one in job.jobs()}
    assert trained == {job.run.hash for job in jobs.values()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster.gpus=4"], "a run trains on one GPU"),
        (["cluster.gpus=true"], "a run trains on one GPU"),
        (["device=cuda", "cluster.gpus=null"], "needs cluster.gpus=1"),
        (["cluster.minutes=soon"], "cluster.minutes=soon: a whole number from 1 up is expected"),
        (["cluster.minutes=0"], "cluster.minutes=0: a whole number from 1 up"),
        (["cluster.minutes=null"], "cluster.minutes=null: a whole number from 1 up is"),
        (["cluster.cpus=1.5"], "cluster.cpus=1.5: a whole number"),
        (["cluster.memory_gb=-1"], r"cluster.memory_gb=-1: a whole number from 1 up, or null \(the cluster's own"),
        (["cluster.poll_seconds=0"], "cluster.poll_seconds=0: a whole number from 1 up"),
        (["cluster.requeues=true"], "cluster.requeues=True: a whole number from 0 up"),
        (["cluster.parallel=0"], "cluster.parallel=0: a whole number from 1 up"),
        (["cluster.warning_seconds=70000"], "a whole number from 0 to 65,535 is expected"),
        (["cluster.minutes=2", "cluster.warning_seconds=120"], "no less than cluster.minutes=2"),
    ],
)
def test_resources_that_no_run_can_use_are_refused(login_node, words, said):
    with pytest.raises(UserError, match=said):
        cluster.prepare(session(*words))


def test_what_is_missing_is_named(monkeypatch):
    def absent(_: str):
        raise cluster.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(cluster.importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install -e '\.\[cluster\]'"):
        cluster.prepare(session())
    monkeypatch.setattr(cluster.importlib.metadata, "distribution", lambda _: None)
    monkeypatch.setattr(cluster.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="Slurm's sbatch"):
        cluster.prepare(session())


def test_a_misspelt_option_is_refused():
    with pytest.raises(UserError, match=r"no option 'cluster.partion': did you mean 'cluster.partition'.*There are: "):
        composed([*SMOKE, "cluster.partion=gpu"])
    with pytest.raises(UserError, match=r"no option 'cluster.name': .*cluster.minutes"):
        composed(["figure=fig09", "cluster.name=slurm"])
    with pytest.raises(UserError, match="no cluster 'slurn'"):
        composed(["figure=fig09", "cluster=slurn"])


@pytest.mark.parametrize("words", [[], ["cluster=local"], ["cluster=slurm", "cluster=local"]])
def test_an_option_of_the_cluster_needs_the_cluster(words):
    with pytest.raises(UserError, match=r"cluster.minutes belongs to CLUSTER=slurm \(cluster=slurm\): add that"):
        composed(["figure=fig09", *words, "cluster.minutes=30"])
    assert composed([*SMOKE, "cluster.minutes=30"]).cluster.minutes == 30


@pytest.mark.parametrize("complaint", ["\nsqueue: error: no controller.\nand more\n", ""])
def test_a_silent_queue_is_said_with_what_to_do(monkeypatch, complaint):
    answer = subprocess.CompletedProcess([], 1, stdout="", stderr=complaint)
    monkeypatch.setattr(cluster.subprocess, "run", lambda *_, **__: answer)
    first = "squeue: error: no controller" if complaint else "it says nothing"
    with pytest.raises(UserError) as refusal:
        cluster.queue()
    assert str(refusal.value).startswith(
        f"squeue does not answer: {first}. Is the Slurm controller up (scontrol ping)?"
    )
    assert "the same command comes back to them" in str(refusal.value)


def test_the_plan_says_that_the_time_is_not_known_here(login_node, capsys, tmp_path):
    words = ["scale=smoke", "cluster=slurm", f"results={tmp_path}"]
    console = Console(width=200)
    assert command.several(console, "plan", ["fig09"], words) == 0
    said = capsys.readouterr().out
    assert "time      not known here" in said and "256,000 training images" in said
    assert "images/s" not in said
    assert costs.cost_table(console, ["fig09"], words) == 0
    table = capsys.readouterr().out
    assert "expected: not known here" in table and "Slurm, one GPU a job" in table and "images/s" not in table


BASIC, SLURM = "basic_launcher.BasicLauncher", "hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


def hydra_said(mode: RunMode, launcher: str, figure: str = "fig09"):
    return OmegaConf.create(
        {"mode": mode, "launcher": {"_target_": launcher}, "runtime": {"choices": {"figure": figure}}}
    )


@pytest.mark.parametrize(
    ("words", "mode", "launcher", "said"),
    [
        (["cluster=slurm"], RunMode.RUN, BASIC, "make fig9 CLUSTER=slurm submits"),
        (["cluster=slurm"], RunMode.RUN, SLURM, r"train -m cluster=slurm hydra/launcher=slurm figure=fig09 curve=A,B"),
        (["cluster=slurm"], RunMode.MULTIRUN, BASIC, "would train here, not in a job"),
        (["jobs=2"], RunMode.RUN, BASIC, "jobs=2: .* one run at a time; make fig9 JOBS=2"),
        (["jobs=2"], RunMode.MULTIRUN, BASIC, "make fig9 JOBS=2"),
    ],
)
def test_one_run_by_hand_takes_no_word_that_would_do_nothing(words, mode, launcher, said):
    with pytest.raises(UserError, match=said):
        check_place(composed(["figure=fig09", *words]), hydra_said(mode, launcher))


def test_jobs_and_runs_by_hand_go_on():
    check_place(composed(["figure=fig09", "cluster=slurm"]), hydra_said(RunMode.MULTIRUN, SLURM))
    for mode in RunMode:
        check_place(composed(["figure=fig09", "gpus=2"]), hydra_said(mode, BASIC))


def test_a_figure_of_ones_own_has_a_make_target_like_the_others():
    with pytest.raises(UserError, match="make mine JOBS=3 trains 3"):
        check_place(composed(["figure=fig09", "jobs=3"]), hydra_said(RunMode.RUN, BASIC, "mine"))


def test_the_command_trains_nothing_on_the_login_node(tmp_path):
    words = [*SMOKE, "device=cpu", "threads=1", "curve=wd_1e-3", f"results={tmp_path}"]
    line = [sys.executable, "-m", "experiments.train", *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cluster=slurm alone would train here")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def submission(results: Path, time: str, runs: list[str], ids: list[str]) -> None:
    folder = results / "cluster" / "fig09-smoke" / time
    folder.mkdir(parents=True)
    for one in ids:
        (folder / ".submitit" / one).mkdir(parents=True)
        (folder / ".submitit" / one / f"{one}_submitted.pkl").touch()
    (folder / "runs.json").write_text(json.dumps(runs))


def test_the_newest_job_of_a_run_is_found_again(tmp_path):
    submission(tmp_path, "2026-01-01", ["a", "b", "c"], ["17_0", "17_1", "17_2"])
    submission(tmp_path, "2026-01-02", ["b"], ["18"])
    submission(tmp_path, "2026-01-03", ["a", "c"], [])  # sbatch refused it
    assert {run: one for run, (one, _) in cluster.known(tmp_path).items()} == {"a": "17_0", "b": "18", "c": "17_2"}


@pytest.mark.parametrize("content", ['["a", "b', "5", "null", '{"a": 1}', '[["a"]]'])
def test_a_damaged_submission_is_one_sentence(tmp_path, content):
    submission(tmp_path, "2026-01-01", ["a"], ["17"])
    path = tmp_path / "cluster" / "fig09-smoke" / "2026-01-01" / "runs.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path} is damaged.* delete the folder {path.parent}"):
        cluster.known(tmp_path)


def test_a_run_that_two_rows_share_is_one_job(tmp_path, monkeypatch):
    words = ["figure=table1", "scale=smoke", "cluster=slurm", "device=cpu", f"results={tmp_path}"]
    asked = Session(composed(words), say=lambda _: None)
    submitted = []
    monkeypatch.setattr(cluster, "queue", dict)
    monkeypatch.setattr(cluster, "submit", lambda session, words, hashes: submitted.extend(hashes))
    monkeypatch.setattr(cluster, "watch", lambda session, jobs: iter([]))
    runs = asked.jobs()
    with suppress(UserError):  # nothing was trained
        cluster.execute(Console(file=io.StringIO()), asked, words, runs)
    hashes = [job.run.hash for _, _, job in runs]
    assert sorted(submitted) == sorted(set(hashes)) and len(submitted) == len(hashes) - 8


def test_jobs_are_watched_until_each_is_done_or_gone(tmp_path, monkeypatch):
    asked = session("device=cpu", f"results={tmp_path}", "cluster.poll_seconds=0", "dataset.size=8")
    jobs = [job for _, _, job in asked.jobs()]
    a, b, c, d = (job.run for job in jobs)
    submission(tmp_path, "2026-01-01", [run.hash for run in (a, b, c, d)], ["5_0", "5_1", "5_2", "5_3"])
    looks = [
        {"5_0": "RUNNING", "5_1": "RUNNING", "5_2": "PENDING PartitionTimeLimit", "5_3": "PENDING Resources"},
        {"5_1": "RUNNING", "5_2": "RUNNING", "5_3": "PENDING", "9": "RUNNING"},
        {"5_2": "PENDING"},  # queued again
        {"5_2": "RUNNING"},
        {"5_2": "RUNNING"},
        {"5_2": "RUNNING"},
        {},
    ]
    ends = {1: [a], 4: [d], 6: [c]}  # d's end shows late on the shared folder

    def queue(**_):
        at = 7 - len(looks)
        for run in ends.get(at, []):
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / "summary.json").touch()
        return looks.pop(0)

    monkeypatch.setattr(cluster, "queue", queue)
    seen = [
        (done, running, queued, [job.run for job in ended], reasons)
        for done, running, queued, ended, reasons in cluster.watch(asked, jobs)
    ]
    assert seen == [
        (0, 2, 2, [], {"PartitionTimeLimit"}),
        (1, 2, 1, [], set()),
        (1, 2, 1, [], set()),
        (1, 3, 0, [], set()),
        (2, 1, 0, [b], set()),
        (2, 1, 0, [b], set()),
        (3, 0, 0, [b], set()),
    ]


def test_the_launcher_calls_its_jobs_after_the_figures_file(tmp_path):
    """A figure's file need not say its own name, which is known before it is read."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[cluster]' brings it")
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "figure" / "mine.yaml").write_text("title: Mine\n")
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        words = ["figure=mine", "cluster=slurm", "hydra/launcher=slurm"]
        assert compose("config", overrides=words, return_hydra_config=True).hydra.launcher.name == "mine"


def test_the_launcher_gets_the_options():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[cluster]' brings it")
    register()
    GlobalHydra.instance().clear()
    words = [*SMOKE, "hydra/launcher=slurm", "cluster.partition=gpu", "cluster.minutes=90", "cluster.memory_gb=null"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        launcher = compose("config", overrides=words, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    wanted = {"partition": "gpu", "timeout_min": 90, "mem_gb": None, "gpus_per_node": 1, "signal_delay_s": 120}
    assert {key: launcher[key] for key in wanted} == wanted
    assert launcher.additional_parameters == {"requeue": True}


@pytest.fixture
def submitit_handles():
    """The numbers of the warnings that reached submitit's own handler."""
    reached: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: reached.append(number))
    yield reached
    signal.signal(signal.SIGUSR2, before)


def test_a_warning_writes_a_checkpoint_before_submitit_hears_of_it(submitit_handles):
    with checkpoint_before_requeue() as hand_on:
        with stop_on_signals(lambda _: None) as stopped:
            signal.raise_signal(signal.SIGUSR2)
            assert stopped() == REQUEUE
            assert submitit_handles == []
        hand_on()
    assert submitit_handles == [signal.SIGUSR2]


def test_a_warning_while_nothing_trains_goes_straight_to_submitit(submitit_handles, monkeypatch):
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # submitit ignores SIGTERM
    try:
        with checkpoint_before_requeue():
            signal.raise_signal(signal.SIGUSR2)
            assert submitit_handles == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_warning_nothing_is_handed_on(submitit_handles):
    with checkpoint_before_requeue() as hand_on:
        hand_on()
    assert submitit_handles == []
