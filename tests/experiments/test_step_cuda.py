"""Steps on a CUDA device: recorded and compiled ones are the eager step, and nobody waits for the device."""

import itertools
from dataclasses import replace

import pytest
import torch
from steps import QUICK, SLOW, assert_close, assert_gradients_close, gradients, shallow, trained

from experiments import device as devices
from experiments import step
from experiments.estimate import random_images
from experiments.store import Run
from experiments.trainer import Stopped, Trainer, train

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def cuda(numerics):
    device = torch.device("cuda")
    devices.configure(device, None)
    return device


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_a_replayed_step_is_the_eager_step(name, precision, cuda):
    """With the same dropout: seeds that are set between replays say what is drawn, as they do without a graph."""
    settings = shallow(name, precision=precision)
    eager, replayed = trained(settings, "eager", cuda, 6), trained(settings, "graph", cuda, 6)
    assert all(value.isfinite().all() for value in replayed.values())
    assert_close(eager, replayed, rtol=1e-2 if precision == "fp32" else 0.3)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("how", ["eager", "graph", pytest.param("compile", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["cifar3", "lenet", "resnet56", "resnet56-v1"])
def test_gradients_are_those_on_the_cpu(name, how, cuda, monkeypatch):
    monkeypatch.setattr(step, "_kept", None)
    settings = shallow(name)
    assert_gradients_close(gradients(settings, "eager"), gradients(settings, how, cuda), "fp32")


@GPU
@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar3", "resnet56", "densenet40"])
def test_a_compiled_and_replayed_step_is_the_eager_step(name, cuda, monkeypatch):
    monkeypatch.setattr(step, "_kept", None)
    settings = shallow(name)
    eager, replayed = trained(settings, "eager", cuda, 6), trained(settings, "compile", cuda, 6)
    if name != "densenet40":
        assert_close(eager, replayed, rtol=1e-2)
    assert all(value.isfinite().all() for value in replayed.values())


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("how", ["graph", pytest.param("compile", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["cifar3", "densenet40"])
def test_a_recorded_run_that_was_stopped_goes_on_the_same(tmp_path, name, how, cuda, monkeypatch):
    """To rounding: cuDNN may choose other algorithms, and some add up in any order."""
    monkeypatch.setattr(step, "_kept", None)
    settings = replace(shallow(name), iterations=12, test_interval=4)
    data = random_images(settings, 32, 8)
    whole, stopped = Run(tmp_path / "whole", settings), Run(tmp_path / "stopped", settings)
    with whole.claim():
        train(whole, data, cuda, how=how)
    seen: list[int] = []
    with stopped.claim():
        with pytest.raises(Stopped):
            train(stopped, data, cuda, how=how, progress=lambda p: seen.append(p.iteration), stop=lambda: seen[-1] >= 5)
        train(stopped, data, cuda, how=how)
    for column in ("test_loss", "train_loss", "grad_norm"):
        a, b = (run.metrics()[column].dropna().to_numpy() for run in (whole, stopped))
        assert b == pytest.approx(a, rel=2e-3), column


@GPU
@pytest.mark.gpu
def test_dropout_draws_anew_at_every_replay(cuda):
    """A learning rate of 0 and the same images: only dropout makes losses differ."""
    s = shallow("densenet40")
    s = replace(s, dataset=replace(s.dataset, train_images=8, order="fixed", mirror=False), lr=replace(s.lr, base=0.0))
    trainer = Trainer(s, random_images(s, 8, 8), cuda, "graph")
    losses = []
    for t in range(4):
        losses.append(trainer.step(t)[1].clone())
        trainer.update()
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(losses))


@GPU
@pytest.mark.gpu
def test_trainers_that_take_turns_are_as_if_alone(cuda):
    """Their graphs share memory, and each is recorded when the others have been."""
    settings = [shallow(name, precision=p) for name in ("densenet40", "resnet56") for p in ("bf16", "fp32")]

    def trainer(s):
        return Trainer(s, random_images(s, 32, 8), cuda, "graph")

    def turn(trainer, steps):
        for t in steps:
            losses = trainer.step(t)[1].clone()
            trainer.update()
        return {key: value.clone() for key, value in trainer.net.state_dict().items()} | {"losses": losses}

    alone = []
    for s in settings:
        one = trainer(s)
        turn(one, range(3))
        alone.append(turn(one, range(3, 6)))
        del one
    together = [trainer(s) for s in settings]
    for one in together:
        turn(one, range(3))
    for s, one, expected in zip(settings, together, alone, strict=True):
        loose = 1e-2 if s.precision == "fp32" else 0.3
        expected = {key: value.cpu() for key, value in expected.items()}
        assert_close(expected, {key: value.cpu() for key, value in turn(one, range(3, 6)).items()}, rtol=loose)


@GPU
@pytest.mark.gpu
def test_recording_again_and_again_takes_no_more_memory(cuda):
    """As in a sweep. What libraries keep for a stream is kept once."""
    settings, taken = shallow("resnet56"), []
    for _ in range(4):
        trainer = Trainer(settings, random_images(settings, 32, 8), cuda, "graph")
        trainer.step(0)
        trainer.update()
        del trainer
        torch.cuda.empty_cache()
        taken.append(torch.cuda.memory_reserved())
    assert taken[-1] == taken[1]


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("how", ["eager", "graph"])
def test_no_step_waits_for_the_gpu(how, cuda):
    settings = shallow("resnet56")
    trainer = Trainer(settings, random_images(settings, 32, 8), cuda, how)
    trainer.step(0)
    trainer.update()
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for t in range(1, 12):
            trainer.step(t)
            trainer.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.optimizer.iteration.item() == 12
