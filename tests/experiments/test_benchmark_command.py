"""The benchmark's command line, run as users do."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_runs import BENCHMARK, begin
from steps import shallow

from experiments.compose import ROOT
from experiments.errors import UserError
from experiments.measure import CONTESTANTS, peak_in_child
from experiments.settings import Model


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "experiments.benchmark", *words]


@pytest.mark.slow
def test_the_command_end_to_end(tmp_path):
    done = subprocess.run(
        command(*BENCHMARK, f"out={tmp_path}"), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[2/2] cifar3, batch 8, bf16:" in done.stdout
    (table,) = tmp_path.glob("*.csv")
    frame = pd.read_csv(table)
    assert frame["variant"].tolist() == list(CONTESTANTS) * 2
    assert frame["precision"].tolist() == ["fp32"] * 3 + ["bf16"] * 3
    assert (frame["images_per_second"] > 0).all()
    assert (frame["min"] <= frame["images_per_second"]).all()
    speeds = frame.pivot(index="precision", columns="variant", values="images_per_second")
    ratios = frame.pivot(index="precision", columns="variant", values="trainer_ratio")
    for name in CONTESTANTS:  # of a single round
        np.testing.assert_allclose(ratios[name], speeds["trainer"] / speeds[name], rtol=2e-2)
    facts = json.loads(table.with_suffix(".json").read_text())
    assert facts["copy_gb_per_s"] > 0
    assert set(facts["matmul_gflop_per_s"]) == {"fp32", "bf16"}
    assert table.with_suffix(".png").stat().st_size > 10_000
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_writes_nothing(tmp_path):
    endless = command(*BENCHMARK, "repeats=1000", "minutes=1e6", f"out={tmp_path}")
    process = begin(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    while "rounds each" not in process.stdout.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "Interrupted."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bad_options_exit_with_2(tmp_path):
    done = subprocess.run(command("repeat=2"), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no option 'repeat': did you mean 'repeats'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_memory_of_a_child_is_its_own():
    ballast = np.ones(2**28)  # 2 GiB, which getrusage would hand down
    assert 50 < peak_in_child(shallow("cifar3", test_interval=10)) < 1900
    assert ballast[-1] == 1


@pytest.mark.slow
def test_a_child_that_fails_is_one_sentence():
    broken = replace(shallow("cifar3", test_interval=10), model=Model("cifar3", width=-1))
    with pytest.raises(UserError, match="Training cifar3 with batch 8 in a process of its own"):
        peak_in_child(broken)
