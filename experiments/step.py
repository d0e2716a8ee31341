"""How an iteration runs on its device: call by call, as CUDA graphs, or compiled.

    eager    one kernel after the other, as PyTorch's users know it; the reference
    graph    the kernels of eager, recorded once a run and replayed: no Python and no launches in between (CUDA only)
    compile  torch.compile fuses normalisation, ReLU, sums and casts into few passes over memory; recorded on CUDA too
    auto     the quickest of them for a run of this length, compiling included: by this device's benchmark where there
             is one (`experiments.speeds`), else by `PAYS`; on a CPU always eager

This is a choice of how, not of what: numbers agree to rounding, and it is not part of a run's hash. Only the dropout
masks of a compiled densenet-40 or inception-resnet-v2 are other draws, from the same distribution.

Two graphs make an iteration, not one: the batch with its forward and backward pass, and the update. Between them the
gradients lie where anyone may look, so that their norm is taken at the rows of metrics.csv only and real GPUs can
average them. It costs a second replay, some 10 microseconds. A graph belongs to its run: recording takes as long as a
few iterations. A compiled network takes a minute and serves every later run of its shape, with new weights in place.

On a CPU nothing is compiled unless asked for. With inductor (1 thread of a busy AMD EPYC, torch 2.14) resnet-56 at
batch 128 makes 107 images/s instead of 86 in fp32 and 117 instead of 126 in bf16 after compiling for 160 to 240 s; the
3-layer network at batch 512 makes 509 instead of 607 and 529 instead of 665, after 75 to 95 s. On another AMD EPYC, not
busy, resnet-56 makes 219 instead of 159 in bf16 (2 threads, figure 6's TBS=128, a test among 45 seconds of training):
for hours of a deep network it may be worth asking.
"""

import gc
import os
import shutil
import sysconfig
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

import models
from experiments.device import STEPS, check_step
from experiments.errors import UserError
from experiments.settings import Settings, nearest
from experiments.speeds import quickest

BACKEND = "inductor"
HEADERS = [Path(sysconfig.get_path("include", *scheme)) / "Python.h" for scheme in ((), ("posix_prefix",))]
"""Where Python's header files may lie: some of Debian's Pythons name /usr/local first, where they are not."""
WARM = 3
"""Passes before a recording: libraries choose their algorithms and allocate their workspaces."""

PAYS = {
    "cifar3": 30e6,
    "resnet56": 5e6,
    "resnet56-v1": 5e6,
    "wide32": 3e6,
    "densenet40": 2e6,
    "resnet50": 1e6,
    "inception-resnet-v2": 1e6,
}
"""Training images from which a run on CUDA is compiled where no benchmark of the device says better.

Guesses from the memory traffic that fusing saves and one to four minutes of compiling, then doubled, so that a run does
not spend more time on compiling than it saves. Networks that are not named are never compiled.
"""


@dataclass(frozen=True)
class How:
    """compiled: the network goes through torch.compile; captured: CUDA graphs."""

    compiled: bool = False
    captured: bool = False

    def __str__(self) -> str:
        return "compile" if self.compiled else "graph" if self.captured else "eager"

    def simpler(self) -> "How | None":
        """What is left where this does not work: of compile graph (CUDA only), of graph eager, of eager nothing."""
        if self.compiled:
            return How(captured=self.captured)
        return How() if self.captured else None


def choose(wish: str, settings: Settings, device: torch.device) -> How:
    """What "auto", "eager", "graph" or "compile" means for a run. Raises UserError where it cannot be had."""
    if wish not in STEPS:
        raise UserError(f"step={wish} is not known: {nearest(wish, STEPS)}")
    check_step(wish, device)
    cuda = device.type == "cuda"
    if wish == "compile" and not compiler():
        raise UserError(
            "step=compile needs a C and a C++ compiler (gcc and g++, clang and clang++, or those that CC and CXX name) "
            f"and Python's header files (python3-dev; {HEADERS[-1]} is looked for); install what is missing."
        )
    if wish == "auto":  # a failed recording keeps its memory: one a process is enough
        wish = _best(settings, device) if cuda and not _failed else "eager"
    return How(wish == "compile", cuda and wish != "eager")


def compiler() -> str | None:
    """The C++ compiler that torch.compile would call, None where it or what it needs is missing."""

    def found(named: str, *others: str) -> str | None:
        return next(filter(None, map(shutil.which, (os.environ.get(named) or others[0], *others))), None)

    # inductor and Triton compile extension modules, which include the header; Triton's are in C
    if not any(header.is_file() for header in HEADERS) or not found("CC", "gcc", "clang"):
        return None
    return found("CXX", "g++", "clang++", "c++")


def _best(settings: Settings, device: torch.device) -> str:
    """Graph or compile: by the run's whole length, so that a run that goes on is not run in another way."""
    if not compiler():
        return "graph"
    if (measured := quickest(settings, device, ("graph", "compile"))) is not None:
        return measured
    images = settings.iterations * settings.batch.total
    return "compile" if images >= PAYS.get(settings.model.name, float("inf")) else "graph"


# Networks: one that is compiled is kept for the next run.


def parameters_of(settings: Settings) -> int:
    """How many values the run's network learns, counted without drawing them. Raises UserError."""
    return sum(p.numel() for p in build(settings, weights=False).parameters())


def build(settings: Settings, gpus: int | None = None, weights: bool = True) -> nn.Module:
    """The run's network with its first weights, on the CPU, for so many of its virtual GPUs (all). Raises UserError.

    weights: as in `models.build`.
    """
    d, m = settings.dataset, settings.model
    try:
        return models.build(
            m.name,
            classes=d.classes,
            channels=d.channels,
            size=d.size,
            gpus=gpus or settings.batch.gpus,
            init=m.init,
            seed=settings.seed,
            depth=m.depth,
            width=m.width,
            weights=weights,
            bn_fraction=m.bn_fraction,
            border=m.border,
            test_statistics=m.test_statistics,
        )
    except ValueError as error:
        raise UserError(f"The network cannot be built: {error}.") from None


@dataclass
class _Kept:
    """The compiled network of the last run, what it is good for, and who trains it."""

    shape: str
    net: nn.Module
    forward: Callable[[Tensor], Tensor]
    owner: weakref.ref


_kept: _Kept | None = None


def network(
    settings: Settings, device: torch.device, how: How, owner: object, gpus: int
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A run's network on its device with its first weights, and what to call for a training pass.

    The last compiled one is given out again, with new weights in place, once its owner is no more. Raises UserError.
    """
    global _kept
    if not how.compiled:
        net = build(settings, gpus).to(device)
        return net, net
    d, m = settings.dataset, asdict(settings.model) | {"init": ""}
    shape = repr((m, d.classes, d.channels, d.size, settings.batch, gpus, settings.precision, device, BACKEND))
    gc.collect()  # owners that hold themselves
    if _kept is not None and _kept.shape == shape and _kept.owner() is None:
        models.select_gpu(_kept.net, None)
        models.reset(_kept.net, init=settings.model.init, seed=settings.seed)
        for parameter in _kept.net.parameters():
            parameter.grad = None
        _kept.owner = weakref.ref(owner)
        return _kept.net, _kept.forward
    if _kept is not None:
        _kept = None
        torch.compiler.reset()  # else it gives up compiling after a handful of shapes
    net = build(settings, gpus).to(device)
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # PyTorch 2.11 advises them; fp32 is fp32
    forward = torch.compile(net, backend=BACKEND, dynamic=False, fullgraph=True)
    _kept = _Kept(shape, net, forward, weakref.ref(owner))
    return net, forward


# CUDA graphs.

_recorded: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
_failed: list[torch.cuda.CUDAGraph] = []
"""Kept to the end of the process: PyTorch 2.11's allocator may go on asking a graph whose capture has failed."""


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where a device's graphs warm up and are recorded: one stream for all, because libraries' workspaces and nodes of
    the backward pass remember theirs."""
    return torch.cuda.Stream(device)


class Recorded:
    """A function whose work on a CUDA device is recorded at the first call and replayed from then on.

    Its results are the same tensors at every call, overwritten by the next. What warming up changes is put back:
    `state` (called for each of the two), and the random generators.

    Graphs of a process share the memory of their intermediate results, so one step must be over before another
    trainer's begins. Six trainers that a benchmark runs in turn need the activations of one.

    function: takes nothing from the host but tensors of fixed address and never waits for the device.
    state: the tensors that it changes and reads; warm: how often it runs before.
    generators: of random numbers other than the device's own.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        state: Callable[[], Iterable[Tensor]],
        device: torch.device,
        warm: int = WARM,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self.function: Callable[[], Any] | None = function
        self.state, self.device, self.warm = state, device, warm
        self.generators = generators
        self.graph: torch.cuda.CUDAGraph | None = None
        self.results: Any = None

    def prepare(self) -> torch.cuda.CUDAGraph:
        """Record it, unless that is done. Nothing that can be seen from outside changes."""
        if self.graph is None:
            # Let go of it, also where memory runs out: it may hold whoever holds this.
            function, self.function = self.function, None
            assert function is not None, "its recording has failed"
            self.graph = self._record(function)
        return self.graph

    def __call__(self) -> Any:
        self.prepare().replay()
        return self.results

    def _record(self, function: Callable[[], Any]) -> torch.cuda.CUDAGraph:
        put_back = remember(self.state(), self.device, self.generators)
        stream = _stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(self.warm):
                function()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        put_back()
        # A graph keeps the address of its matrix products' workspace. Made while recording, that lies in the graphs'
        # pool; the warm-up's would be freed with the first graph of this stream that is deleted (PyTorch 2.12 on).
        torch._C._cuda_clearCublasWorkspaces()
        graph = torch.cuda.CUDAGraph()
        if torch.__version__ < "2.14":  # which finds them by itself, and warns of being told
            for generator in self.generators:
                graph.register_generator_state(generator)
        pool = next((other.pool() for other in _recorded), None)
        # thread_local: other threads, like the one that pins decoded images, may go on allocating. The outer stream
        # is the one to come back to where a capture fails: torch.cuda.graph then does not leave its own.
        try:
            with (
                torch.cuda.device(self.device),
                torch.cuda.stream(torch.cuda.current_stream(self.device)),
                torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
            ):
                self.results = function()
        except torch.OutOfMemoryError:  # its memory is wanted back
            raise
        except BaseException as error:
            _failed.append(graph)
            _recorded.clear()  # their pool may still count as being recorded to: the next graph gets one of its own
            if isinstance(error.__context__, torch.OutOfMemoryError):  # ending the capture failed on top of it
                raise error.__context__ from None
            raise
        torch._C._cuda_clearCublasWorkspaces()  # the pool's is for graphs, which share it
        _recorded.add(graph)
        return graph


def remember(
    tensors: Iterable[Tensor], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Callable[[], None]:
    """What gives tensors, in place, and random generators the values back that they have now."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    states = [(generator, generator.get_state()) for generator in generators]
    host = torch.get_rng_state()
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @torch.no_grad()
    def put_back() -> None:
        for tensor, value in kept:
            tensor.copy_(value)
        for generator, state in states:
            generator.set_state(state)
        torch.set_rng_state(host)
        if own is not None:
            torch.cuda.set_rng_state(own, device)

    return put_back


class InPlace:
    """Batches that a CUDA graph can read although they come from elsewhere: copied into tensors of fixed address."""

    def __init__(self, batches: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.images, self.labels = torch.empty(0), torch.empty(0)

    def point(self, t: int) -> None:
        """Let `batch` be batch t."""
        images, labels = self.batches(t)
        if not len(self.labels):
            self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
        self.images.copy_(images)
        self.labels.copy_(labels)

    def batch(self) -> tuple[Tensor, Tensor]:
        return self.images, self.labels
