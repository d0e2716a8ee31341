"""Runs as processes: killed at any moment, started twice at once, interrupted, swept by Hydra."""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import FIGURE_9, begin, checkpointed, finish, wait_for

from experiments.compose import ROOT

LONG = ["iterations=900", "test_interval=50"]
SHORT = ["iterations=40", "test_interval=10"]


def start(results: Path, *words: str, module: str = "experiments.train") -> subprocess.Popen:
    command = [sys.executable, "-m", module, *FIGURE_9, f"results={results}", *words]  # -m in any place
    return begin(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def the_run(results: Path) -> Path:
    (run,) = (results / "runs").iterdir()
    return run


INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(os.environ["INTERRUPTED_IMPORT"]):
            sys.meta_path.remove(self)
            print("importing", name, file=sys.stderr)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
"""Python runs a module called sitecustomize before all others."""


@pytest.mark.parametrize("package", ["omegaconf.", "rich.", "torch."])
@pytest.mark.parametrize(
    "words",
    [
        ["experiments.train", "figure=fig09", "curve=wd_1e-3", "scale=smoke"],
        ["experiments.benchmark", "networks=lenet", "minutes=1"],
        ["reproduce", "plan", "figure=fig09", "scale=smoke"],
    ],
    ids=lambda words: words[0],
)
def test_ctrl_c_while_it_still_imports_leaves_no_traceback(words, package, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    command = [sys.executable, "-m", *words, f"results={tmp_path}"]
    env = os.environ | {"PYTHONPATH": str(tmp_path), "INTERRUPTED_IMPORT": package}
    process = begin(command, env=env, stderr=subprocess.PIPE)
    errors = process.communicate(timeout=60)[1]
    first, *others = errors.splitlines()
    assert first.startswith(f"importing {package}")
    assert (process.returncode, others) == (130, ["Interrupted."])


@pytest.mark.parametrize("package", ["rich.", "torch."])
def test_ctrl_c_that_ends_the_reader_of_its_words_as_well_is_told_by_the_exit_code(package, tmp_path):
    """As in `make plan-fig9 2>&1 | tee log`; with code 0 a shell's && would go on."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.replace('print("importing", name, file=sys.stderr)', ""))
    command = [sys.executable, "-m", "reproduce", "plan", "figure=fig09", "scale=smoke", f"results={tmp_path}"]
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONPATH": str(tmp_path), "INTERRUPTED_IMPORT": package}
    process = begin(command, env=env, stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    assert process.wait(timeout=60) == 130


def test_ctrl_c_that_ends_the_reader_of_a_runs_words_as_well_leaves_a_checkpoint(tmp_path):
    words = [word for word in FIGURE_9 if not word.startswith("checkpoint_seconds")]
    words += ["curve=wd_1e-3", f"results={tmp_path}", "iterations=100000", "test_interval=50", "checkpoint_seconds=5"]
    command = [sys.executable, "-m", "experiments.train", *words]
    run = begin(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.stdout is not None
    wait_for(lambda: checkpointed(tmp_path))
    (the_run(tmp_path) / "checkpoint").unlink()  # the next one is that of the signal
    run.stdout.close()
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == 130
    assert checkpointed(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    code, said = finish(start(results, "curve=wd_1e-3", *LONG))
    assert code == 0, said
    return (the_run(results) / "metrics.csv").read_bytes()


def test_a_killed_run_goes_on_and_writes_the_same_bytes(tmp_path, undisturbed):
    victim = start(tmp_path, "curve=wd_1e-3", *LONG)
    wait_for(lambda: checkpointed(tmp_path))
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert not (the_run(tmp_path) / "summary.json").exists()
    code, said = finish(start(tmp_path, "curve=wd_1e-3", *LONG))
    assert code == 0, said
    assert re.search(r"goes on from iteration [\d,]+ of 900\.", said), said
    assert (the_run(tmp_path) / "metrics.csv").read_bytes() == undisturbed
    assert not list(the_run(tmp_path).glob(".*")), "half-written files were left"


@pytest.mark.slow
def test_killed_again_and_again_at_random_moments(tmp_path, undisturbed):
    moments, kills = random.Random(0), 0
    for _ in range(12):
        victim = start(tmp_path, "curve=wd_1e-3", *LONG)
        time.sleep(moments.uniform(0.0, 6.0))
        if victim.poll() is None:
            victim.send_signal(signal.SIGKILL)
            kills += 1
        victim.communicate()
    assert kills > 0
    code, said = finish(start(tmp_path, "curve=wd_1e-3", *LONG))
    assert code == 0, said
    assert (the_run(tmp_path) / "metrics.csv").read_bytes() == undisturbed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(tmp_path, number, code):
    process = start(tmp_path, "curve=wd_1e-3", "iterations=1000000", "test_interval=100")
    wait_for(lambda: checkpointed(tmp_path))
    process.send_signal(number)
    ended, said = finish(process)
    assert ended == code, said
    assert "goes on from here" in said
    assert "Traceback" not in said
    assert (the_run(tmp_path) / "checkpoint").is_file()


def test_two_at_once_share_the_work_and_train_nothing_twice(tmp_path):
    words = [*SHORT, f"figures={tmp_path}/figures"]
    both = [start(tmp_path / "results", *words, module="reproduce") for _ in range(2)]
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    trained = sum(said.count("40 iterations in") for _, said in ends)
    assert trained == 4, ends
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 4
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_hydra_sweeps_curves(tmp_path):
    code, said = finish(start(tmp_path, "-m", "curve=wd_1e-3,wd_1e-2", *SHORT))
    assert code == 0, said
    assert len(list((tmp_path / "sweeps").glob("*/multirun.yaml"))) == 1, "beside the runs"
    assert len(list((tmp_path / "runs").glob("*/summary.json"))) == 2


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = finish(start(tmp_path, "curve=wd_1e-3", *SHORT))
    before = os.stat(the_run(tmp_path) / "metrics.csv").st_mtime_ns
    code, said = finish(start(tmp_path, "curve=wd_1e-3", *SHORT))
    assert (first[0], code) == (0, 0)
    assert "done before" in said
    assert re.search(r"changed by hand: .*\biterations=40, test_interval=10", said)
    metrics = the_run(tmp_path) / "metrics.csv"
    assert os.stat(metrics).st_mtime_ns == before
    metrics.write_bytes(metrics.read_bytes()[:-9])
    code, said = finish(start(tmp_path, "curve=wd_1e-3", *SHORT))
    assert code == 2 and "done before" not in said and f"{metrics} is damaged or changed" in said


@pytest.mark.parametrize(
    "words", [["experiments.train", "curve=wd_1e-3"], ["reproduce", "jobs=2"]], ids=["one process", "two workers"]
)
def test_no_traceback_for_a_full_disk(tmp_path, words):
    """A limit on file sizes stands for a full disk: writing a checkpoint fails in the middle."""
    module, *own = words
    command = f"ulimit -f 100; exec {shlex.quote(sys.executable)} -m {module} " + " ".join(
        [*FIGURE_9, f"results={tmp_path}", f"figures={tmp_path}/figures", *own, *LONG]
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: Cannot write") == done.stderr.count("Cannot write") == 1
    assert "Traceback" not in done.stdout + done.stderr
