"""Steps on a CUDA device: recorded and compiled ones are the eager step, and nobody waits for the device."""

import gc
import itertools
from dataclasses import replace

import pytest
import torch
from steps import (
    QUICK,
    SLOW,
    assert_close,
    assert_gradients_close,
    gradients,
    needs_compiler,
    nothing_kept,
    shallow,
    trained,
)

from experiments import device as devices
from experiments import distributed
from experiments.distributed import Share
from experiments.estimate import random_images
from experiments.measure import MOST_STEPS, measure
from experiments.optimizer import CaffeSGD
from experiments.progress import Stopped
from experiments.store import Run
from experiments.trainer import Trainer
from experiments.training import train
from models.caffe import Convolution, Dropout

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
def test_a_recorded_step_takes_batches_that_come_from_elsewhere(cuda):
    """As decoded images do: copied to where the recording reads, the same as those that the device makes."""
    settings = shallow("cifar3")
    data, ends = random_images(settings, 32, 8), []
    for fed in (False, True):
        trainer = Trainer(settings, data, cuda, "graph")
        if fed:
            made = Trainer(settings, data, cuda, "eager").batches
            trainer.feed(lambda t, made=made: made(t))
        for t in range(6):
            _, losses, _ = trainer.step(t)
            trainer.update()
        ends.append({k: v.cpu() for k, v in trainer.net.state_dict().items()} | {"losses": losses.cpu()})
    assert_close(*ends, rtol=1e-2)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cifar3", "resnet56"])
def test_a_trainer_is_measured_there(name, cuda):
    """Its bare step takes the gradients of a network whose recordings stay alive."""
    settings = replace(shallow(name), iterations=MOST_STEPS, test_interval=MOST_STEPS)
    measured = measure(settings, cuda, 1, 0.05, ("trainer", "bare", "graph", "eager"))
    assert all(rate > 0 for rates in measured.rates.values() for rate in rates)


@GPU
@pytest.mark.gpu
def test_a_graph_outlives_another_of_its_stream(cuda):
    """From PyTorch 2.12 on the first graph that is deleted takes the workspaces of its stream's matrix products."""
    settings = shallow("cifar3")
    data = random_images(settings, 32, 8)
    first, second = (Trainer(settings, data, cuda, "graph") for _ in range(2))
    for trainer in (first, second):
        trainer.step(0)
        trainer.update()
    del first, trainer
    gc.collect()
    torch.cuda.empty_cache()
    fill = torch.full((2**26,), torch.nan, device=cuda)  # what was given back belongs to someone else now
    for t in range(1, 6):
        _, losses, _ = second.step(t)
        second.update()
    assert fill.isnan().all()
    found = {key: value.cpu() for key, value in second.net.state_dict().items()} | {"losses": losses.cpu()}
    assert_close(trained(settings, "eager", cuda, 6), found, rtol=1e-2)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("how", ["eager", "graph", pytest.param("compile", marks=[pytest.mark.slow, needs_compiler])])
@pytest.mark.parametrize("name", ["cifar3", "lenet", "resnet56", "resnet56-v1"])
def test_gradients_are_those_on_the_cpu(name, how, cuda, monkeypatch):
    """cuDNN may choose Winograd's or Fourier's algorithm. Where convolutions and their gradients are off by 1e-5 of
    their spread, a value that passes a ReLU or not changes resnet56-v1's gradients by 2 %. In float64:
    tests/models/test_networks.py."""
    nothing_kept(monkeypatch)
    settings = shallow(name)
    assert_gradients_close(gradients(settings, "eager"), gradients(settings, how, cuda), "fp32", fp32=5e-2)


@GPU
@pytest.mark.gpu
@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", ["cifar3", "resnet56", "densenet40"])
def test_a_compiled_and_replayed_step_is_the_eager_step(name, cuda, monkeypatch):
    nothing_kept(monkeypatch)
    settings = shallow(name)
    eager, replayed = trained(settings, "eager", cuda, 6), trained(settings, "compile", cuda, 6)
    if name != "densenet40":
        assert_close(eager, replayed, rtol=1e-2)
    assert all(value.isfinite().all() for value in replayed.values())


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("how", ["graph", pytest.param("compile", marks=[pytest.mark.slow, needs_compiler])])
@pytest.mark.parametrize("name", ["cifar3", "densenet40"])
def test_a_recorded_run_that_was_stopped_goes_on_the_same(tmp_path, name, how, cuda, monkeypatch):
    """To rounding: cuDNN may choose other algorithms, and some add up in any order."""
    nothing_kept(monkeypatch)
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
def test_recorded_steps_average_their_gradients_over_nccl(tmp_path, cuda, monkeypatch):
    """The first of two ranks, in a group of its own: all that it sums is its own part, which two ranks would halve."""
    alone = torch.distributed.init_process_group
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *a, **k: alone(*a, **(k | {"world_size": 1})))
    settings, first = shallow("resnet56"), torch.device("cuda:0")
    data = random_images(settings, 32, 8)
    share = distributed.join(0, 2, first, tmp_path / "meeting")
    try:
        plain, trainer = (Trainer(settings, data, first, how, share) for how in ("eager", "graph"))
        assert share == Share(0, 2, share.host) and share.host is not None
        plain.forward_backward(*plain.batches(0))
        trainer.step(0)
        # One floor for all: the biases that BatchNorm cancels have gradients of nothing but rounding.
        floor = 1e-5 * max(weight.grad.abs().max().item() for weight in plain.optimizer.weights)
        for mine, theirs in zip(plain.optimizer.weights, trainer.optimizer.weights, strict=True):
            torch.testing.assert_close(theirs.grad, mine.grad / 2, rtol=1e-4, atol=floor)
        for t in range(20):  # the update is recorded while NCCL's own thread asks how its sums are getting on
            trainer.step(t)
            trainer.update()
        loss, _ = trainer.test()
        assert 0 < loss < 50 and share.told(7, 8) == [7, 8]
    finally:
        distributed.leave(share)
    assert not torch.distributed.is_initialized()


def assert_drawn_one_by_one(mask):
    """A mask [N, C, H, W], as it lies in channels_last, is like itself at no distance up to half of it."""
    flat = mask.permute(0, 2, 3, 1).flatten() - mask.mean()
    n = len(flat)
    spectrum = torch.fft.rfft(flat, 2 * n)  # so far apart that the end does not meet the beginning
    likeness = torch.fft.irfft(spectrum.abs().square(), 2 * n)[: n // 2] / flat.square().sum()
    distance = likeness[1:].abs().argmax().item() + 1
    assert likeness[distance].abs() < 7 * n**-0.5, f"dropped alike {distance} places apart: {likeness[distance]:.3f}"


@pytest.mark.parametrize("block", [128, 256, 512, 1024, 2048])
def test_masks_that_repeat_numbers_are_told(block):
    """As pytorch issue 198333 has them: a block of an NHWC kernel draws its numbers from its least NCHW offset on."""
    n, c, h, w = shape = (64, 12, 32, 32)
    torch.manual_seed(0)
    drawn = torch.rand(n * c * h * w + block)
    assert_drawn_one_by_one((drawn[: n * c * h * w].view(shape) < 0.2).float())
    offsets = torch.arange(n * c * h * w).view(shape).permute(0, 2, 3, 1).reshape(-1, block)
    repeated = drawn[offsets.amin(1, keepdim=True) + torch.arange(block)].view(n, h, w, c).permute(0, 3, 1, 2)
    with pytest.raises(AssertionError, match="dropped alike"):
        assert_drawn_one_by_one((repeated < 0.2).float())


@GPU
@pytest.mark.gpu
@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_compiled_network_drops_is_drawn_one_by_one(precision, cuda):
    """Since torch 2.13 inductor makes four numbers at a time, which go wrong in some layouts (pytorch issue 198333):
    neighbours share a mask. In densenet-40's form: a convolution, dropout, and the old channels beside the new."""
    torch.manual_seed(0)
    p, growth, shape = 0.2, 12, (64, 16, 32, 32)
    conv = Convolution(16, growth, 3, pad=1, bias=False).to(cuda, memory_format=torch.channels_last)
    drop = Dropout(p)
    x = torch.randn(shape, device=cuda).contiguous(memory_format=torch.channels_last)

    @torch.compile(fullgraph=True, dynamic=False)
    def forward(x):
        y = conv(x)
        return torch.cat([drop(y), x], 1), y

    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
        dropped, y = forward(x)
    assert (y != 0).all(), "else a zero does not mean dropped"
    gone = (dropped[:, :growth] == 0).float()
    n = gone.numel()
    assert abs(gone.mean().item() - p) < 6 * (p * (1 - p) / n) ** 0.5 + 2e-4  # bfloat16's 0.2 is 0.2002
    assert_drawn_one_by_one(gone)


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
    assert taken[-1] <= taken[1]


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


@GPU
@pytest.mark.gpu
def test_a_captured_update_follows_the_schedule_without_syncs(cuda):
    iterations = 20
    lr, momentum = torch.linspace(0, 0.1, iterations), torch.linspace(0.9, 0.1, iterations)

    def build() -> tuple[torch.nn.Parameter, torch.Tensor, CaffeSGD]:
        generator = torch.Generator().manual_seed(62)
        w = torch.nn.Parameter(torch.randn(5, 3, generator=generator).to(cuda))
        x = torch.randn(8, 5, generator=generator).to(cuda)
        return w, x, CaffeSGD([(w, 1.0, 1.0)], lr.to(cuda), momentum.to(cuda), 1e-3)

    def iteration(w: torch.nn.Parameter, x: torch.Tensor, optimizer: CaffeSGD) -> None:
        optimizer.zero_grad()
        (x @ w).square().mean().backward()
        optimizer.step()

    eager, replayed = build(), build()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(iterations):
            iteration(*eager)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    start = replayed[0].detach().clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        iteration(*replayed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        iteration(*replayed)
    with torch.no_grad():
        replayed[0].copy_(start)
    fresh = build()[2].state_dict()
    replayed[2].load_state_dict(fresh)
    for _ in range(iterations):
        graph.replay()
    assert replayed[2].iteration.item() == iterations
    torch.testing.assert_close(replayed[0], eager[0])
