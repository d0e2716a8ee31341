"""A CUDA device that is only pretended: tensors with shapes and devices, and no values.

PyTorch refuses to mix devices among them, and to hand a value to the host, which on a real device would wait. So what
can be wrong on a GPU alone is found on machines without one; but for the backward pass, CUDA graphs and the kernels
themselves, which tests/experiments/test_step_cuda.py runs where there is a GPU.
"""

from dataclasses import replace

import pytest
import torch
from steps import QUICK, SLOW, shallow
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import models
from experiments import batches, step, trainer
from experiments.estimate import random_images
from experiments.step import How
from experiments.streams import _finish, _windows
from experiments.trainer import Trainer

CUDA = torch.device("cuda:0")


def moved(net: torch.nn.Module) -> torch.nn.Module:
    """The network with its tensors on the pretended device (module.to() cannot swap them there)."""
    for layer in net.modules():
        for name, p in layer._parameters.items():
            if p is not None:
                there = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device=CUDA)
                layer._parameters[name] = torch.nn.Parameter(there, requires_grad=p.requires_grad)
        for name, b in layer._buffers.items():
            if b is not None:
                layer._buffers[name] = torch.empty_strided(b.shape, b.stride(), dtype=b.dtype, device=CUDA)
    return net


@pytest.fixture
def pretended(monkeypatch):
    """A function that makes a trainer there. While a test has it, all new tensors are without values."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # needs a driver
    monkeypatch.setattr(models, "dropout_generators", lambda *_: [])  # so does a generator: the default one, then
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    with FakeTensorMode(allow_non_fake_inputs=True):

        def make(settings) -> Trainer:
            with torch.utils._python_dispatch._disable_current_modes():
                net = step.build(settings)
            monkeypatch.setattr(trainer, "network", lambda *_: (moved(net), net))
            return Trainer(settings, random_images(settings, 32, 64), CUDA, How())

        yield make


def settings_of(name: str, precision: str = "fp32"):
    settings = shallow(name, precision=precision)
    return replace(settings, dataset=replace(settings.dataset, test_images=40))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_batches_forward_pass_and_update_stay_on_the_device(name, precision, pretended):
    made = pretended(settings_of(name, precision))
    for t in (0, 1, 7):
        images, labels = made.batches(t)
        made.seed_dropout(t)
        made.net.train()
        with made.autocast:
            logits = made.forward(images)
        made.follow()
        for w in made.optimizer.weights:
            w.grad = torch.zeros_like(w)
        made.update()
        assert {x.device for x in (images, labels, logits, made.optimizer.iteration)} == {CUDA}
        assert logits.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert {x.device for x in (*made.optimizer.velocity, *made.net.buffers())} == {CUDA}


@pytest.mark.parametrize("tests", ["full", "author"])
@pytest.mark.parametrize("name", ["cifar3", "resnet56", "resnet50"])
def test_a_test_waits_once_at_its_end(name, tests, pretended, monkeypatch):
    monkeypatch.setitem(batches.AUTHOR_TESTS, name, (30, batches.AUTHOR_TESTS[name][1]))  # he took thousands
    settings = settings_of(name)
    settings = replace(settings, dataset=replace(settings.dataset, tests=tests))
    made, passed = pretended(settings), []
    made.tests.piece = 10
    forward = made.net.forward
    monkeypatch.setattr(made.net, "forward", lambda x: passed.append(len(x)) or forward(x))
    with pytest.raises(DataDependentOutputException):
        made.test(3)
    assert sum(passed) == made.tests.count and max(passed) == 10


def test_metrics_wait_once_at_their_end(pretended, monkeypatch):
    made = pretended(settings_of("cifar3"))
    images, labels = made.batches(0)
    logits = made.forward(images).detach()
    for w in made.optimizer.weights:
        w.grad = torch.zeros_like(w)
    stacked = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda *words: stacked.append(1) or stack(*words))
    with pytest.raises(DataDependentOutputException):
        made.train_metrics(logits, logits[:, 0], labels)
    assert stacked, "it waits for its last line"


def test_a_dead_network_is_dead_there_too(pretended):
    made = pretended(settings_of("cifar3"))
    with pytest.raises(DataDependentOutputException):
        made.has_died()
    made.dead = True
    logits, losses, labels = made.step(0)
    made.update()
    assert {x.device for x in (logits, losses, labels, *(w.grad for w in made.optimizer.weights))} == {CUDA}
    with pytest.raises(DataDependentOutputException):
        made.test(0)


def test_crops_of_decoded_images_are_finished_there(pretended):
    mean = torch.zeros((1, 3, 12, 12), device=CUDA)
    found = torch.zeros((5, 8, 8, 3), dtype=torch.uint8), torch.zeros((5, 4), dtype=torch.int64)
    images, labels = _finish(found, _windows(mean, 8), CUDA)
    assert images.shape == (5, 3, 8, 8) and images.device == labels.device == CUDA


def test_what_it_would_find(pretended):
    """Otherwise these tests could not fail."""
    made = pretended(settings_of("cifar3"))
    images, labels = made.batches(0)
    with pytest.raises(DataDependentOutputException):
        labels[0].item()
    with pytest.raises((RuntimeError, ValueError), match="device"):
        images + torch.zeros((8, 3, 8, 8))
