"""How an iteration runs: compiled and recorded steps are the eager step, reused networks are new ones, nobody waits."""

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from small_runs import CPU
from steps import (
    QUICK,
    SHALLOW,
    assert_close,
    assert_equal,
    assert_gradients_close,
    gradients,
    needs_compiler,
    nothing_kept,
    shallow,
    trained,
)
from torch.utils._python_dispatch import TorchDispatchMode

import models
from experiments import step
from experiments.benchmark import settings_of
from experiments.errors import UserError
from experiments.estimate import random_images
from experiments.progress import Stopped
from experiments.settings import Batch, Settings
from experiments.step import How, InPlace, Recorded, choose, remember
from experiments.store import Run
from experiments.trainer import Trainer
from experiments.training import train
from models.caffe import AveragePool


@pytest.fixture
def unfused(monkeypatch):
    """torch.compile without inductor: all but the C++, in a second."""
    monkeypatch.setattr(step, "BACKEND", "aot_eager")
    monkeypatch.setattr(step, "compiler", lambda: "none is called")
    nothing_kept(monkeypatch)


@pytest.mark.parametrize(
    "name", [name if name in ("cifar3", "resnet56") else pytest.param(name, marks=pytest.mark.slow) for name in SHALLOW]
)
def test_a_compiled_step_is_the_eager_step(name, unfused):
    settings = shallow(name)
    eager = trained(settings, "eager", drop=False)  # compiled networks draw what they drop from another generator
    once = trained(settings, "eager", steps=1, drop=False)
    assert any(not torch.equal(value, once[key]) for key, value in eager.items())
    # resnet-50's shallow form multiplies rounding a thousandfold; in float64 its gradients agree to 1e-11.
    assert_close(eager, trained(settings, "compile", drop=False), rtol=1e-2 if name == "resnet50" else 1e-3)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar3", "resnet56"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inductors_step_has_eagers_gradients(name, precision, monkeypatch):
    nothing_kept(monkeypatch)
    settings = shallow(name, precision=precision)
    assert_gradients_close(gradients(settings, "eager"), gradients(settings, "compile"), precision)


@needs_compiler
def test_inductor_divides_the_gradient_of_an_overhanging_window_as_the_window_was():
    """By itself it does not (pytorch issue 198119): 25 % of the gradient's norm here."""
    generator = torch.Generator().manual_seed(0)
    pool, x = AveragePool(3, 2), torch.randn(2, 3, 8, 8, generator=generator).requires_grad_()
    upon = torch.randn(2, 3, 4, 4, generator=generator)
    (grad,) = torch.autograd.grad(torch.compile(pool)(x), x, upon)
    torch.testing.assert_close(grad, torch.autograd.grad(pool(x), x, upon)[0])


def test_a_sweep_compiles_once_and_its_second_run_is_as_if_alone(tmp_path, unfused, monkeypatch):
    compiled, original = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compiled.append(1) or original(*a, **k))
    first = replace(shallow("resnet56"), iterations=8, test_interval=4)
    second = replace(first, seed=5, model=replace(first.model, init="xavier"), solver=replace(first.solver, type="sgd"))
    data = random_images(first, 32, 8)

    def metrics(folder: str, settings: Settings) -> bytes:
        run = Run(tmp_path / folder, settings)
        with run.claim():
            train(run, data, CPU, how="compile")
        return (run.folder / "metrics.csv").read_bytes()

    metrics("sweep", first)
    after_another = metrics("sweep", second)
    assert len(compiled) == 1
    monkeypatch.setattr(step, "_kept", None)
    assert metrics("alone", second) == after_another
    assert len(compiled) == 2


def test_a_network_that_is_still_trained_is_not_given_out_again(unfused):
    settings = shallow("cifar3")
    data = random_images(settings, 32, 8)
    first = Trainer(settings, data, CPU, "compile")
    second = Trainer(settings, data, CPU, "compile")
    assert first.net is not second.net
    kept = second.net
    del first, second
    gc.collect()
    assert Trainer(settings, data, CPU, "compile").net is kept
    other = replace(settings, batch=Batch(2, 4))
    assert Trainer(other, data, CPU, "compile").net is not kept


def test_a_compiled_run_that_was_stopped_writes_the_same_bytes(tmp_path, unfused):
    settings = replace(shallow("densenet40"), iterations=8, test_interval=4)
    data = random_images(settings, 32, 8)
    whole, stopped = Run(tmp_path / "whole", settings), Run(tmp_path / "stopped", settings)
    with whole.claim():
        train(whole, data, CPU, how="compile")
    seen: list[int] = []
    with stopped.claim():
        with pytest.raises(Stopped):
            train(
                stopped,
                data,
                CPU,
                how="compile",
                progress=lambda p: seen.append(p.iteration),
                stop=lambda: seen[-1] >= 5,
            )
        train(stopped, data, CPU, how="compile")
    assert (stopped.folder / "metrics.csv").read_bytes() == (whole.folder / "metrics.csv").read_bytes()


@pytest.mark.parametrize("name", ["cifar3", "resnet56", "densenet40"])
def test_what_warming_up_changes_is_put_back(name):
    """What a recording runs before it: passes and an update; after it the run is the run without."""
    settings = shallow(name)
    data = random_images(settings, 32, 8)

    def one_step(trainer: Trainer) -> None:
        trainer.step(0)
        trainer.update()

    plain = Trainer(settings, data, CPU)
    one_step(plain)
    warmed = Trainer(settings, data, CPU)
    optimizer = warmed.optimizer
    state = [*warmed.net.buffers(), *optimizer.weights, *optimizer.velocity, optimizer.iteration]
    addresses = [tensor.data_ptr() for tensor in state]
    put_back = remember(state, CPU)
    one_step(warmed)
    drawn = torch.rand(3)
    put_back()
    one_step(warmed)
    assert [tensor.data_ptr() for tensor in state] == addresses
    assert_equal(warmed.net.state_dict(), plain.net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(optimizer.velocity, plain.optimizer.velocity, strict=True))
    assert torch.equal(torch.rand(3), drawn), "random numbers go on as if nobody had warmed up"


def test_a_recording_that_fails_leaves_no_memory_behind(monkeypatch):
    """A trainer holds its recordings and they what they record: a circle, which only the first call opens."""

    def fail(*_):
        raise torch.OutOfMemoryError

    settings = shallow("cifar3")
    trainer = Trainer(settings, random_images(settings, 32, 8), CPU)
    trainer._record()
    monkeypatch.setattr(Recorded, "_record", fail)
    gone = weakref.ref(trainer)
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            trainer.step(0)
        del trainer
        assert gone() is None
    finally:
        gc.enable()


class Closing:
    """torch.cuda.graph where not even the end of a capture succeeds."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        raise RuntimeError("the capture cannot be ended")


@pytest.mark.parametrize("first", [torch.OutOfMemoryError, ValueError])
def test_want_of_memory_is_said_though_a_capture_cannot_be_ended(first, monkeypatch):
    """And whatever it was, the next graph gets a pool of its own: the others' may still count as recorded to."""
    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: Closing())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Mock)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    monkeypatch.setattr(step, "_stream", lambda _: stream)
    monkeypatch.setattr(step, "_recorded", {Mock()})
    monkeypatch.setattr(step, "_failed", [])

    def function():
        raise first("in the capture")

    with pytest.raises(first if first is torch.OutOfMemoryError else RuntimeError):
        Recorded(function, lambda: [], torch.device("cpu"), warm=0).prepare()
    assert not step._recorded and len(step._failed) == 1


def test_batches_from_elsewhere_keep_their_address():
    made = InPlace(lambda t: (torch.full((2, 3, 4, 4), float(t)), torch.full((2,), t)))
    made.point(3)
    images, labels = made.batch()
    made.point(7)
    assert made.batch()[0] is images
    assert (images.mean().item(), labels.tolist()) == (7, [7, 7])


# Which.


def test_impossible_wishes_are_one_sentence(tiny, monkeypatch):
    with pytest.raises(UserError, match="step=graf is not known: did you mean 'graph'"):
        choose("graf", tiny, CPU)
    with pytest.raises(UserError, match="step=graph needs a CUDA device"):
        choose("graph", tiny, CPU)
    monkeypatch.setattr(step.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"step=compile needs a C and a C\+\+ compiler"):
        choose("compile", tiny, CPU)
    assert choose("auto", tiny, torch.device("cuda")) == How(captured=True), "no compiler, no compiling"


def test_a_compiler_without_pythons_headers_is_none(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(step.shutil, "which", lambda name: f"/usr/bin/{name}")
    header = tmp_path / "Python.h"
    monkeypatch.setattr(step, "HEADERS", [tmp_path / "elsewhere" / "Python.h", header])
    long = replace(tiny, iterations=10**9)
    with pytest.raises(UserError, match=f"step=compile needs .*{tmp_path}/Python.h"):
        choose("compile", long, CPU)
    assert choose("auto", long, torch.device("cuda")) == How(captured=True)
    header.touch()
    assert choose("compile", long, CPU) == How(compiled=True)
    monkeypatch.setattr(step.shutil, "which", lambda name: None if name in ("gcc", "clang") else f"/usr/bin/{name}")
    monkeypatch.setenv("CC", "cc-of-my-own")
    assert choose("compile", long, CPU) == How(compiled=True)
    monkeypatch.delenv("CC")
    with pytest.raises(UserError, match="step=compile needs a C and a C"):
        choose("compile", long, CPU)


def test_a_cpu_is_eager_unless_told(tiny, monkeypatch):
    monkeypatch.setattr(step, "compiler", lambda: "g++")
    assert choose("auto", tiny, CPU) == How()
    assert choose("compile", tiny, CPU) == How(compiled=True)


def test_long_runs_are_compiled_on_cuda_and_short_ones_recorded(monkeypatch):
    monkeypatch.setattr(step, "quickest", lambda *_: None)
    monkeypatch.setattr(step, "compiler", lambda: "g++")
    cuda = torch.device("cuda")
    s = replace(settings_of("resnet56", 512, "bf16"), iterations=1000)
    assert choose("auto", s, cuda) == How(captured=True)
    assert choose("auto", replace(s, iterations=100_000), cuda) == How(compiled=True, captured=True)
    lenet = replace(settings_of("lenet", 512, "bf16"), iterations=10**6)
    assert choose("auto", lenet, cuda) == How(captured=True)
    assert set(step.PAYS) < set(models.NAMES)


def test_a_process_whose_recording_has_failed_records_no_more(monkeypatch):
    """Each failure keeps its memory to the end of the process; what is asked for by name is tried nevertheless."""
    monkeypatch.setattr(step, "quickest", lambda *_: None)
    monkeypatch.setattr(step, "_failed", [Mock()])
    cuda, s = torch.device("cuda"), settings_of("resnet56", 512, "bf16")
    assert choose("auto", s, cuda) == How()
    assert choose("graph", s, cuda) == How(captured=True)


# Nobody waits for the device.


class NobodyReads(TorchDispatchMode):
    """Fails where a tensor's value goes to Python, or its shape follows from values."""

    READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "item")

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        assert func.overloadpacket.__name__ not in self.READS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", QUICK)
def test_nothing_reads_the_device_between_two_rows(name, monkeypatch):
    settings = shallow(name)
    trainer = Trainer(settings, random_images(settings, 32, 8), CPU)
    for method in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(
            torch.Tensor, method, lambda *_, m=method: pytest.fail(f"Tensor.{m} inside a step waits for the device")
        )
    with NobodyReads() as watch:
        for t in range(12):  # three epochs of 32, each in an order of its own
            trainer.step(t)
            trainer.update()
    monkeypatch.undo()
    assert watch.calls > 100
    with pytest.raises(AssertionError, match="waits for the device"), NobodyReads():
        torch.ones(1).item()
