"""The suite's cifar10_quick against a program written from Caffe's files alone (tests/caffe_by_hand.py)."""

from dataclasses import replace

import caffe_by_hand
import numpy as np
import pandas as pd
import pytest
import torch
from data_files import write_npz

from experiments.compose import ROOT
from experiments.data import known
from experiments.session import Session, composed
from experiments.trainer import Trainer

NEAR = {20: 1e-5, 40: 1e-3, 60: 1e-2}
"""Relative differences allowed after so many iterations. They grow with every step, and differ between processors: up
to 1e-6, 1e-4 and 1e-3 were seen."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """1,000 training and 200 test images whose classes differ in colour."""
    monkeypatch.setitem(known.FACTS, "cifar10", replace(known.FACTS["cifar10"], train=1000, test=200))
    draw = np.random.default_rng(0)
    colours = draw.integers(116, 140, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)

    def images(count):
        labels = draw.integers(0, 10, count)
        return (colours[labels] + draw.integers(-40, 41, (count, 32, 32, 3))).astype(np.uint8), labels

    write_npz(tmp_path, "cifar10", {"train": images(1000), "test": images(200)})
    return tmp_path


def test_from_the_same_weights_the_trainer_goes_the_same_way(folder):
    words = ["figure=caffe", "scale=paper", "iterations=60", "lr.stepvalues=[40]", "test_interval=20", "device=cpu"]
    words += ["dataset.train_images=1000", "dataset.test_images=200"]
    session = Session(composed([*words, f"data.dir={folder}", "data.download=false", "threads=1"]))
    settings = session.settings("quick", 0)
    trainer = Trainer(settings, session.data_sets.load(settings), torch.device("cpu"), "eager")
    weights = caffe_by_hand.weights(0)
    for name, theirs in weights.items():
        layer, blob = name.split(".")
        mine = trainer.net.get_parameter(f"{layer}.{ {'w': 'weight', 'b': 'bias'}[blob] }")
        with torch.no_grad():
            mine.copy_(theirs.reshape(mine.shape))
    sets = (caffe_by_hand.read(folder / f"cifar10-{name}.npz") for name in ("train", "test"))
    expected = list(caffe_by_hand.trained(weights, *sets, iterations=60, interval=20, drop=40))
    ours = []
    for t in range(60):
        trainer.step(t)
        trainer.update()
        if (t + 1) % 20 == 0:
            ours.append((t + 1, *trainer.test()))
    losses = [loss for _, loss, _ in expected]
    assert 2.3 > losses[0] > losses[1] > losses[2] < 1, "or little has been compared"
    for (at, loss, accuracy), (then, their_loss, their_accuracy) in zip(ours, expected, strict=True):
        assert at == then
        assert loss == pytest.approx(their_loss, rel=NEAR[at])
        assert accuracy == pytest.approx(their_accuracy, abs=0.006)


def test_its_committed_runs_end_where_ours_do():
    """Four runs each on CIFAR-10 (JPEG): the means differ by less than two standard errors at the end, and mostly."""
    theirs = pd.read_csv(ROOT / "results" / "caffe_by_hand.csv")
    ours = pd.read_csv(ROOT / "results" / "summary" / "caffe-paper.csv")
    ours = ours[(ours["curve"] == "quick") & ours["test_loss"].notna()]
    quantities = ["test_loss", "test_accuracy"]
    mine, others = (runs.groupby("iteration")[quantities].agg(["mean", "sem", "count"]) for runs in (ours, theirs))
    assert list(mine.index) == list(others.index) == [*range(500, 5001, 500)]
    for quantity in quantities:
        a, b = mine[quantity], others[quantity]
        assert (a["count"] == 4).all() and (b["count"] == 4).all()
        apart = (a["mean"] - b["mean"]).abs() / np.hypot(a["sem"], b["sem"])
        assert apart.loc[5000] < 2 and apart.median() < 2
