"""A figure through a real Slurm on this machine (tests/slurm/setup.sh): jobs cancelled, warned, left and come back to.

Installs Debian's slurm-wlm where it is missing.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import FIGURE_9, finish, wait_for

from experiments.compose import ROOT

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[cluster]' brings the launcher")

SETUP = Path(__file__).with_name("setup.sh")
WORDS = ["run", *FIGURE_9, "iterations=3000", "test_interval=50"]
SLURM = ["cluster=slurm", "cluster.gpus=null", "cluster.cpus=1", "cluster.memory_gb=null", "cluster.minutes=30"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm():
    """The environment of a machine with Slurm."""
    done = subprocess.run([SETUP], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    yield os.environ | {"SLURM_CONF": done.stdout.strip().partition("=")[2], "OMP_NUM_THREADS": "1"}
    subprocess.run([SETUP, "stop"], check=True)


def start(results: Path, *words: str, env=None) -> subprocess.Popen:
    command = [sys.executable, "-m", "reproduce", *WORDS, f"results={results}", f"figures={results}/figures", *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )


def summaries(results: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (results / "summary").iterdir() if path.suffix != ".lock"}
    assert found
    return found


def test_jobs_cancelled_warned_and_left_end_like_an_undisturbed_run(slurm, tmp_path):
    def queue() -> dict[str, str]:
        asked = ["squeue", "--noheader", "--array", "--format=%i %T"]
        said = subprocess.run(asked, env=slurm, capture_output=True, text=True, check=True).stdout
        return dict(line.split() for line in said.splitlines())

    def tell(*words: str) -> None:
        subprocess.run(words, env=slurm, check=True)

    results, words = tmp_path / "slurm", [*SLURM, "cluster.poll_seconds=1"]
    first = start(results, *words, env=slurm)
    wait_for(lambda: len(list(results.glob("runs/*/checkpoint"))) == 4)
    cancelled, warned, preempted, _ = sorted(name for name, state in queue().items() if state == "RUNNING")
    tell("scancel", cancelled)
    tell("scancel", "--signal=USR2", warned)  # its time is nearly up
    tell("scontrol", "requeue", preempted)
    code, said = finish(first)
    assert code == 2, said
    assert "4 jobs submitted" in said
    assert "1 job ended before the run was finished" in said
    assert f"job {cancelled}, cancelled, " in said
    (folder,) = (results / "cluster").glob("*/*")
    jobs = folder / ".submitit"

    def log(job: str) -> str:
        return "".join(path.read_text() for path in sorted((jobs / job).glob("*_log.*")))

    assert "Stopping: writing a checkpoint" in log(cancelled)
    for job in (warned, preempted):
        went_on = re.search(r"Stopping: writing a checkpoint.*goes on from iteration ", log(job), re.DOTALL)
        assert went_on, log(job)
    assert "Caught signal SIGUSR2" in log(warned)  # "Requeued job" may be lost: asking for it ends who asks
    assert len(list(results.glob("runs/*/summary.json"))) == 3

    second = start(results, *words, env=slurm)
    wait_for(lambda: any(path != folder for path in (results / "cluster").glob("*/*")))
    wait_for(lambda: list(queue().values()) == ["RUNNING"], pause=0.1)
    (left,) = queue()
    tell("scontrol", "suspend", left)  # or it might be done before we come back to it
    second.send_signal(signal.SIGINT)
    code, said = finish(second)
    assert code == 130, said
    assert "The same command comes back to them" in said
    assert "Traceback" not in said
    assert queue() == {left: "SUSPENDED"}, "the job is still there without us"

    third = start(results, *words, env=slurm)
    assert third.stdout is not None
    before = ""
    while "1 job in the queue since before" not in before:
        before += (line := third.stdout.readline())
        assert line, before
    tell("scontrol", "resume", left)
    code, said = finish(third)
    assert code == 0, before + said
    assert "submitted" not in before + said

    undisturbed = tmp_path / "undisturbed"
    code, said = finish(start(undisturbed, "cluster=local"))
    assert code == 0, said
    assert summaries(results) == summaries(undisturbed)


def test_what_sbatch_refuses_is_said(slurm, tmp_path):
    code, said = finish(start(tmp_path, *SLURM, "cluster.partition=nowhere", env=slurm))
    assert code == 2, said
    assert "could not be submitted" in said
    assert "invalid partition specified: nowhere" in said.replace("\n", " ")
    assert "Traceback" not in said
