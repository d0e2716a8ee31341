"""Runs whose weights are all NaN: what follows is written without being computed, as if it had been."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from ranks import spread, train_share
from small_runs import CPU
from steps import QUICK, shallow

from experiments import batches
from experiments.divergence import LOSS_CEILING
from experiments.estimate import random_images
from experiments.progress import Stopped
from experiments.store import Run, load_snapshot
from experiments.trainer import Trainer
from experiments.training import train


def diverging(name: str, **changes):
    settings = shallow(name, **changes)
    return replace(settings, lr=replace(settings.lr, base=1e30), iterations=24, test_interval=3)


def run_of(folder, settings, **options) -> Run:
    run = Run(folder, settings)
    with run.claim():
        train(run, random_images(settings, 32, 64), CPU, **options)
    return run


@pytest.fixture
def computed(monkeypatch):
    """A function that trains with every iteration computed."""

    def make(folder, settings) -> Run:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "has_died", lambda self: False)
            return run_of(folder, settings)

    return make


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """One item for every batch that passes a network."""
    passes: list[int] = []
    forward_backward = Trainer.forward_backward
    monkeypatch.setattr(
        Trainer, "forward_backward", lambda self, *batch: passes.append(1) or forward_backward(self, *batch)
    )
    return passes


def of_run(run: Run) -> bytes:
    return (run.folder / "metrics.csv").read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", QUICK)
def test_rows_are_those_of_computed_iterations(name, precision, tmp_path, computed, passes):
    settings = diverging(name, precision=precision)
    quick, died_at = run_of(tmp_path / "quick", settings), len(passes)
    whole = computed(tmp_path / "whole", settings)
    assert 0 < died_at < 24 == len(passes) - died_at, "or both were computed"
    assert of_run(quick) == of_run(whole)
    found, expected = quick.summary(), whole.summary()
    for key in ("iterations", "final_test_loss", "final_test_accuracy", "diverged_at"):
        assert found[key] == expected[key]
    assert found["final_test_loss"] == pytest.approx(LOSS_CEILING)


@pytest.mark.parametrize("tests", ["full", "author"])
def test_accuracy_is_the_share_of_the_first_class(tests, tmp_path, computed, monkeypatch):
    """It changes from test to test where tests go on in the data where the last one ended."""
    monkeypatch.setitem(batches.AUTHOR_TESTS, "cifar3", (5, True))
    settings = diverging("cifar3")
    settings = replace(settings, dataset=replace(settings.dataset, tests=tests, test_images=64))
    quick = run_of(tmp_path / "quick", settings)
    assert of_run(quick) == of_run(computed(tmp_path / "whole", settings))
    accuracies = quick.metrics()["test_accuracy"].dropna()
    assert (accuracies.nunique() > 1) == (tests == "author")


def test_a_dead_network_is_not_run(tmp_path, passes):
    said: list[str] = []
    run = run_of(tmp_path, diverging("cifar3"), say=said.append)
    died_at = len(passes)
    assert 0 < died_at < 24 and died_at % 3 == 0
    assert f"From {died_at} on every weight is NaN" in said[-1]
    rate, seconds = (run.summary()[key] for key in ("images_per_second", "seconds"))
    assert rate * seconds == pytest.approx(died_at * run.settings.batch.total, rel=0.2), "what was not computed"


@pytest.mark.parametrize("stops", [[2], [9], [10, 20]])
def test_a_stopped_one_goes_on_the_same(stops, tmp_path, computed, passes):
    settings = diverging("cifar3")
    for stop in stops:
        seen: list[int] = []
        with pytest.raises(Stopped):
            run_of(
                tmp_path / "stopped",
                settings,
                progress=lambda p, seen=seen: seen.append(p.iteration),
                stop=lambda seen=seen, stop=stop: seen[-1] >= stop,
            )
    stopped, in_parts = run_of(tmp_path / "stopped", settings), len(passes)
    whole = run_of(tmp_path / "undisturbed", settings)
    assert len(passes) == 2 * in_parts
    assert of_run(stopped) == of_run(whole) == of_run(computed(tmp_path / "computed", settings))


def test_it_is_computed_as_long_as_a_snapshot_is_wanted(tmp_path, passes):
    settings = diverging("cifar3")
    run = run_of(tmp_path, settings, snapshots=(20,))
    assert len(passes) == 21
    kept = load_snapshot(tmp_path, run.hash, 20)
    assert kept["optimizer"]["iteration"] == 20


def test_a_ceiling_without_nan_is_no_death(tmp_path, monkeypatch, passes):
    """A network may still recover from it."""
    monkeypatch.setattr(Trainer, "test", lambda self, number=0: (LOSS_CEILING, 0.1))
    settings = replace(shallow("cifar3"), iterations=24, test_interval=3)
    run_of(tmp_path, settings)
    assert len(passes) == 24


def test_one_weight_that_is_a_number_is_no_death():
    settings = shallow("cifar3")
    trainer = Trainer(settings, random_images(settings, 32, 8), CPU)
    with torch.no_grad():
        for w in trainer.optimizer.weights:
            w.fill_(torch.nan)
    assert trainer.has_died()
    with torch.no_grad():
        trainer.optimizer.weights[0][0, 0, 0, 0] = 0.0
    assert not trainer.has_died()


def test_two_processes_know_it_together(tmp_path):
    settings = diverging("cifar3")
    data = random_images(settings, 32, 8)
    alone = run_of(tmp_path / "alone", settings)
    spread(2, tmp_path, train_share, tmp_path / "two", settings, data)
    two = Run(tmp_path / "two", settings)
    mine, other = (run.metrics().drop(columns="grad_norm") for run in (two, alone))
    pd.testing.assert_frame_equal(mine, other, rtol=1e-5)
    for run in (two, alone):  # neither was computed to its end
        images = run.summary()["images_per_second"] * run.summary()["seconds"]
        assert images < 0.9 * settings.iterations * settings.batch.total
