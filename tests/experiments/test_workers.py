"""Runs trained by processes of their own: the same bytes, and what happens when one of them, or the command, dies."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_runs import FIGURE_9, begin, checkpointed, wait_for

from experiments import worker
from experiments.compose import ROOT
from experiments.console import Display
from experiments.crew import Foreman, orders
from experiments.errors import UserError
from experiments.execute import execute, train_job
from experiments.progress import Stopped
from experiments.session import Session, composed

SHORT = ["iterations=40", "test_interval=10"]
LONG = ["iterations=1000000", "test_interval=50", "curve=wd_1e-3"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def opened(results: Path, *words: str) -> tuple[Session, list]:
    session = Session(composed([*FIGURE_9, f"results={results}", *words]), say=lambda _: None)
    return session, [job for _, _, job in session.jobs()]


def in_processes(results: Path, *words: str) -> tuple[int, str]:
    """Exit code and what was said."""
    session, jobs = opened(results, *words)
    said = io.StringIO()
    return Foreman(session, jobs, Console(file=said, width=200)).work(), said.getvalue()


def in_this_process(results: Path, *words: str) -> None:
    session, jobs = opened(results, *words)
    console = Console(file=io.StringIO())
    assert execute(jobs, session.data_sets.load, session.device, console, "alone", 20.0) == 0


def tables(results: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (results / "runs").glob("*/metrics.csv")}


def children(parent: int) -> list[int]:
    """Worker processes, oldest first: rank 0 before rank 1."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if (
                int(fields[1]) == parent
                and fields[0] != "Z"
                and b"experiments.worker" in (folder / "cmdline").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command(results: Path, *words: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "reproduce", *FIGURE_9, f"results={results}", *words]
    return begin(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_two_jobs_at_a_time_write_the_bytes_of_one(tmp_path):
    in_this_process(tmp_path / "alone", *SHORT)
    code, said = in_processes(tmp_path / "two", *SHORT, "jobs=2")
    assert code == 0, said
    assert said.count("40 iterations in") == 4
    assert len(tables(tmp_path / "alone")) == 4
    assert tables(tmp_path / "two") == tables(tmp_path / "alone")
    code, said = in_processes(tmp_path / "two", *SHORT, "jobs=2")
    assert (code, said) == (0, ""), "nothing is left to train, and no process is started for it"


@pytest.mark.slow
@needs_proc
def test_a_run_whose_worker_dies_is_taken_over_and_given_up_the_second_time(tmp_path):
    """One of two runs loses its workers until none takes it over; the other one finishes."""
    session, jobs = opened(tmp_path, "iterations=1500", "test_interval=50", "jobs=2")
    jobs, killed = jobs[:2], []

    def kill_its_workers() -> None:
        written, checkpoint = 0, jobs[0].run.folder / "checkpoint"
        for _ in range(2):
            wait_for(lambda before=written: checkpoint.exists() and checkpoint.stat().st_mtime_ns > before)
            (pid,) = (p for p in children(os.getpid()) if f"process {p} on" in jobs[0].run.owner())
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            written = checkpoint.stat().st_mtime_ns

    killer = threading.Thread(target=kill_its_workers, daemon=True)
    killer.start()
    said = io.StringIO()
    code = Foreman(session, jobs, Console(file=said, width=200)).work()
    killer.join(timeout=1)
    told = said.getvalue()
    assert len(killed) == 2, told
    assert code == 1, told
    assert told.count("was ended by SIGKILL") == 2
    assert told.count(f"{jobs[0].name} is taken over") == 1
    assert f"{jobs[0].name} goes on from iteration " in told
    assert f"{jobs[0].name} failed. The same command goes on from its checkpoint." in told
    assert jobs[1].done() and not jobs[0].done()
    assert children(os.getpid()) == []


@pytest.mark.slow
def test_an_error_is_shown_with_the_workers_own_traceback(tmp_path):
    _, jobs = opened(tmp_path, *SHORT, "curve=wd_1e-3")
    jobs[0].run.folder.mkdir(parents=True)
    jobs[0].run.save_checkpoint({"iteration": 10})  # whole and the run's, but no state to go on from
    code, said = in_processes(tmp_path, *SHORT, "curve=wd_1e-3", "jobs=2")
    assert code == 1
    assert said.count("Traceback") == said.count("KeyError: 'rows'") == 2, said


@pytest.mark.slow
def test_what_the_user_can_put_right_is_one_sentence_of_the_command(tmp_path):
    _, jobs = opened(tmp_path, *SHORT, "curve=wd_1e-3")
    (jobs[0].run.folder / "settings.yaml").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Cannot write .*settings\.yaml"):
        in_processes(tmp_path, *SHORT, "curve=wd_1e-3", "jobs=2")


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_rank_takes_its_run_down_and_the_run_goes_on(tmp_path, number):
    words = ["iterations=600", "test_interval=20", "curve=wd_1e-3", "gpus=2"]
    said: list = []
    session, jobs = opened(tmp_path, *words)
    killed: list[int] = []

    def kill_rank_1() -> None:
        wait_for(lambda: checkpointed(tmp_path))
        killed.extend(children(os.getpid()))
        os.kill(killed[1], number)
        said.append(time.monotonic())

    threading.Thread(target=kill_rank_1, daemon=True).start()
    told = io.StringIO()
    code = Foreman(session, jobs, Console(file=told, width=200)).work()
    assert time.monotonic() - said[0] < 10
    assert code == 1
    assert f"rank 1 died while training {jobs[0].name}" in told.getvalue(), told.getvalue()
    assert f"was ended by {number.name}" in told.getvalue()
    assert len(killed) == 2 and not any(alive(pid) for pid in killed)
    before = jobs[0].run.iterations_done()
    assert 0 < before < 600
    code, more = in_processes(tmp_path, *words)
    assert code == 0, more
    assert "goes on from iteration " in more
    assert jobs[0].run.environment()["processes"] == 2


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("words", [["gpus=2"], ["jobs=2"]], ids=["gpus", "jobs"])
def test_workers_end_with_a_command_that_is_killed(tmp_path, words):
    process = command(tmp_path, *LONG, *words)
    wait_for(lambda: checkpointed(tmp_path))
    workers = children(process.pid)
    assert len(workers) == (2 if words == ["gpus=2"] else 1)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(alive(pid) for pid in workers), seconds=5)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("words", "number", "code"),
    [(["gpus=2"], signal.SIGTERM, 75), (["jobs=2"], signal.SIGINT, 130)],
    ids=["gpus-term", "jobs-int"],
)
def test_a_signal_to_all_processes_writes_a_checkpoint(tmp_path, words, number, code):
    """A terminal sends Ctrl-C, and a scheduler SIGTERM, to the command and its workers alike."""
    process = command(tmp_path, *LONG, *words)
    wait_for(lambda: checkpointed(tmp_path))
    workers = children(process.pid)
    ((run,),) = [list((tmp_path / "runs").iterdir())]
    before = (run / "checkpoint").stat().st_mtime_ns
    for pid in (*workers, process.pid):
        os.kill(pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "goes on from here" in said and "Traceback" not in said
    assert (run / "checkpoint").stat().st_mtime_ns > before
    assert not any(alive(pid) for pid in workers)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["gpus=3"], "gpus=3: .* has 4 virtual GPUs .* Choose gpus=1, 2 or 4"),
        (["gpus=8"], "Choose gpus=1, 2 or 4"),
        (["gpus=0"], "gpus=0: a whole number from 1 up"),
        (["jobs=many"], "jobs=many: a whole number"),
        (["jobs=2", "gpus=2"], "jobs=2 and gpus=2: either"),
    ],
)
def test_what_cannot_be_spread_is_refused_before_anything_starts(tmp_path, words, reason):
    with pytest.raises(UserError, match=reason):
        in_processes(tmp_path, *SHORT, *words)
    assert not (tmp_path / "runs").exists()


def test_runs_at_a_time_go_round_the_cuda_devices(tmp_path, monkeypatch):
    session, jobs = opened(tmp_path, "jobs=3")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for device, wanted in (("cuda", ["cuda:0", "cuda:1", "cuda:0"]), ("cuda:1", ["cuda:1"] * 3)):
        session.device = torch.device(device)
        assert [order["config"]["device"] for (order,) in orders(session, jobs)] == wanted


def test_the_ranks_of_a_run_go_to_different_cuda_devices(tmp_path, monkeypatch):
    session, jobs = opened(tmp_path, "gpus=2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    session.device = torch.device("cuda")
    (ranks,) = orders(session, jobs)
    assert [(order["rank"], order["ranks"], order["config"]["device"]) for order in ranks] == [
        (0, 2, "cuda:0"),
        (1, 2, "cuda:1"),
    ]


def test_the_parent_needs_no_torch_of_its_own():
    modules = "import sys, experiments.crew, experiments.execute; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", modules], cwd=ROOT, check=False).returncode == 0


def test_a_run_that_changes_hands_is_recorded_with_both(tmp_path, monkeypatch):
    session, (job,) = opened(tmp_path, *SHORT, "curve=wd_1e-3")
    names = iter("ABBA")
    monkeypatch.setattr("experiments.device.name", lambda _: next(names))
    display = Display(Console(file=io.StringIO()), "", {job.run.hash: 40}, None)

    def go_on(iterations: int) -> dict:
        looks = iter([False] * (iterations - 1) + [True])
        with job.run.claim(), contextlib.suppress(Stopped):
            train_job(session.data_sets.load, session.device, display, looks.__next__, 20.0, "auto", job)
        return job.run.environment()

    first = go_on(10)
    assert first["device"] == "A" and "later" not in first
    both = first | {"later": [first | {"device": "B"}]}
    assert go_on(10) == go_on(10) == go_on(100) == both
    assert job.done()


def test_want_of_the_devices_memory_is_a_sentence(tmp_path, monkeypatch):
    session, (job,) = opened(tmp_path, *SHORT, "curve=wd_1e-3")

    def train(*_, **__):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 8.00 GiB. GPU 0 has a total capacity of ..."
        )

    monkeypatch.setattr("experiments.training.train", train)
    display = Display(Console(file=io.StringIO()), "", {job.run.hash: 40}, None)
    with (
        job.run.claim(),
        pytest.raises(UserError, match=r"WD=1e-3: 16 images .* of cpu \(CUDA out of memory\)\. Spread"),
    ):
        train_job(session.data_sets.load, session.device, display, lambda: False, 20.0, "auto", job)


def test_a_failed_device_is_a_sentence_from_a_worker_too(monkeypatch):
    sent = []

    def work(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(worker, "event_sender", lambda: lambda event, **rest: sent.append((event, rest)))
    monkeypatch.setattr(worker, "Commands", lambda: None)
    monkeypatch.setattr(worker, "work", work)
    assert worker.main() == 1
    ((event, rest),) = sent
    assert event == "failed" and "illegal memory access" in rest["traceback"]
    assert rest["sentence"].startswith("The GPU failed (CUDA error: an illegal memory access was encountered):")


def test_neither_word_is_part_of_a_run(tmp_path):
    hashes = {opened(tmp_path, *SHORT, *words)[1][0].run.hash for words in ([], ["jobs=2"], ["gpus=2"])}
    assert len(hashes) == 1
