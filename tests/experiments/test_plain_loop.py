"""The plain loop: the suite's mathematics in ordinary PyTorch."""

import math
import multiprocessing
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import CPU
from steps import measured_settings as small

from experiments import plain_loop
from experiments.errors import UserError
from experiments.estimate import random_images
from experiments.measure import BareStep
from experiments.plain_loop import PILImages, PlainLoop, plain_network
from experiments.settings import Settings


def data_of(settings: Settings):
    return random_images(settings, settings.dataset.train_images, settings.dataset.test_images)


@pytest.mark.parametrize("size", [8, 13, 28, 32])
def test_plain_cifar3_has_the_loss_and_gradients_of_the_suites(size):
    settings = small(size=size)
    trainer = BareStep(settings, data_of(settings), CPU).trainer
    plain, made_of = plain_network(settings)
    assert made_of == "plain modules"
    assert not any(type(layer).__module__.startswith("models") for layer in plain.modules())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the report's own weights start so small that any network would give ln 10
        for p in trainer.net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(max(p[0].numel(), 8)))
    plain.load_state_dict(trainer.net.state_dict())
    images, labels = trainer.batches(0)
    logits, losses = trainer.forward_backward(images, labels)
    loss = F.cross_entropy(plain(images.contiguous()), labels)
    loss.backward()
    assert logits.std() > 1
    assert loss.item() == pytest.approx(losses.mean().item(), rel=1e-4)
    for mine, theirs in zip(trainer.net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5 * float(theirs.grad.abs().max()))


def test_the_first_loss_of_the_plain_network_is_the_suites_with_its_initial_weights():
    settings = small(size=32)
    trainer = BareStep(settings, data_of(settings), CPU).trainer
    plain, _ = plain_network(settings)
    plain.load_state_dict(trainer.net.state_dict())
    images, labels = trainer.batches(0)
    _, losses = trainer.forward_backward(images, labels)
    assert F.cross_entropy(plain(images), labels).item() == pytest.approx(losses.mean().item(), rel=1e-4)


@pytest.mark.parametrize("network", ["resnet56", "wide32", "resnet56-v1"])
def test_plain_networks_with_batchnorm_equal_the_suites_on_one_gpu(network):
    settings = small(network, gpus=1, per_gpu=8, depth=1, width=4)
    trainer = BareStep(settings, data_of(settings), CPU).trainer
    plain, made_of = plain_network(settings)
    assert made_of == "suite's network, nn.BatchNorm2d"
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in plain.modules())
    images, labels = trainer.batches(0)
    _, losses = trainer.forward_backward(images, labels)
    plain.train()
    assert F.cross_entropy(plain(images), labels).item() == pytest.approx(losses.mean().item(), rel=1e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_plain_loop_trains_and_leaves_no_worker(workers):
    settings = replace(small(), precision="bf16")
    loop = PlainLoop(settings, data_of(settings), CPU)
    loop.choice = workers
    assert loop.warm == 1 + 2 * workers
    before = [p.detach().clone() for p in loop.model.parameters()]
    steps = loop.steps()
    for _ in range(6):  # into a second epoch of 32 images
        next(steps)
    assert len(multiprocessing.active_children()) == workers
    steps.close()
    assert multiprocessing.active_children() == []
    for p, q in zip(before, loop.model.parameters(), strict=True):
        assert not torch.equal(p, q)
        assert q.is_contiguous()


def test_workers_that_could_not_hand_over_their_batches_are_refused(monkeypatch):
    loop = PlainLoop(small(), data_of(small()), CPU)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 100 * "x")
    next(loop.steps())
    loop.choice = 2
    with pytest.raises(UserError, match=r"TMPDIR=/tmp, or leave the loop out \(variants=trainer,bare\)"):
        next(loop.steps())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_through_pil_unchanged(channels):
    settings = replace(small(), dataset=replace(small().dataset, channels=channels, mirror=False))
    data = data_of(settings)
    dataset = PlainLoop(settings, data, CPU).dataset
    assert isinstance(dataset, PILImages)
    image, label = dataset[5]
    expected = (data.train.images[5].transpose(2, 0, 1) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-5)
    assert label == data.train.labels[5]


def test_images_are_mirrored_where_the_figure_mirrors_them():
    settings = replace(small(), dataset=replace(small().dataset, mirror=True))
    dataset = PlainLoop(settings, data_of(settings), CPU).dataset
    torch.manual_seed(0)
    first, *others = (dataset[0][0] for _ in range(20))
    flipped = [torch.equal(first.flip(2), other) for other in others]
    assert 0 < sum(flipped) < len(flipped)
    assert all(torch.equal(first, other) for other, is_flipped in zip(others, flipped, strict=True) if not is_flipped)


@pytest.mark.parametrize("said", ["DataLoader worker (pid 5) is killed by signal: Bus error.", "something else"])
def test_too_little_shared_memory_is_said_with_what_to_do(said, monkeypatch):
    """A container has 64 MB of it, less than the batches that a dozen workers hold."""

    def killed(*_, **__):
        raise RuntimeError(said)
        yield

    settings = small()
    loop = PlainLoop(settings, data_of(settings), CPU)
    monkeypatch.setattr(plain_loop, "DataLoader", killed)
    expected = (UserError, "--shm-size") if "worker" in said else (RuntimeError, "something else")
    with pytest.raises(expected[0], match=expected[1]):
        next(loop.steps())
