"""One short run of every network through the trainer, from a figure's own smoke settings."""

from dataclasses import replace

import pytest
import torch

import models
from experiments.compose import load, names, settings_for
from experiments.store import Run
from experiments.training import train


def smoke_settings():
    """The first curve of any figure, at scale smoke, for each network."""
    found = {}
    for figure in names("figure"):
        spec = load("figure", figure)
        for curve in spec["curves"]:
            settings = settings_for(spec, curve, 0, "smoke")
            found.setdefault(settings.model.name, settings)
    return found


SMOKE = smoke_settings()


def test_every_network_is_in_a_figure():
    assert set(SMOKE) == set(models.NAMES)


@pytest.mark.parametrize("network", sorted(SMOKE))
def test_a_short_run(network, tmp_path, shapes):
    whole = SMOKE[network]
    dataset = replace(whole.dataset, train_images=40, test_images=20)
    batch = replace(whole.batch, per_gpu=2)
    lr = replace(
        whole.lr, policy="constant", peak=None, stepsize=None, gamma=None, stepvalues=None, power=None, base=0.001
    )
    momentum = replace(whole.momentum, policy="constant", peak=None, stepsize=None)
    settings = replace(whole, dataset=dataset, batch=batch, lr=lr, momentum=momentum, iterations=2, test_interval=1)
    settings = replace(settings, schedule_length=None)
    run = Run(tmp_path, settings)
    with run.claim():
        train(run, shapes(settings), torch.device("cpu"))
    rows = run.metrics()
    assert rows["iteration"].tolist() == [0, 1, 2]
    assert rows["train_loss"].iloc[:2].between(0.1, 20).all()
    assert rows["grad_norm"].iloc[0] > 0
    assert rows["test_accuracy"].iloc[-1] >= 0
