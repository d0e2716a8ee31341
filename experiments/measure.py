"""Images per second of several ways to train one network, taken in turn so that a noisy machine hits all alike."""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F

import models
from experiments import device as devices
from experiments.compose import ROOT
from experiments.data import ImageSet
from experiments.device import clock
from experiments.errors import UserError
from experiments.estimate import random_images
from experiments.settings import Settings, from_dict
from experiments.step import How, Recorded, build, compiler
from experiments.traffic import least_traffic
from experiments.trainer import Trainer, passes_in_pieces
from models.caffe import BatchNorm

CONTESTANTS = ("bare", "trainer", "plain")
MOST_STEPS = 100_000
"""In one turn; the schedule of what is measured must be as long."""


class Variant(Protocol):
    """One of the ways; `choice` is one of `choices`, settled before the rounds."""

    choices: tuple[int, ...]
    choice: int

    @property
    def warm(self) -> int: ...
    @property
    def note(self) -> str: ...
    def steps(self) -> Iterator[None]: ...


class BareStep:
    """A network trained on one batch over and over. `choice`: images in a piece of a pass.

    trainer: whose network to use, which saves compiling another; by default one of its own.
    """

    warm = 1

    def __init__(
        self, settings: Settings, data: ImageSet, device: torch.device, trainer: Trainer | None = None
    ) -> None:
        cuda = device.type == "cuda"
        how = How(captured=cuda, compiled=cuda and bool(compiler()))
        self.trainer = trainer or Trainer(settings, data, device, how)
        self.images, self.labels = self.trainer.batches(0)
        total, per_gpu = settings.batch.total, settings.batch.per_gpu
        normalised = any(isinstance(layer, BatchNorm) for layer in self.trainer.net.modules())
        pieces = {total, per_gpu} | (set() if normalised or total % 32 else {32})
        self.choices = (total,) if device.type == "cuda" else tuple(sorted(pieces, reverse=True))
        self.choice = total
        self.recorded: Recorded | None = None
        if cuda:
            optimizer = self.trainer.optimizer
            state = [*self.trainer.net.buffers(), *optimizer.weights, *optimizer.velocity, optimizer.iteration]
            self.recorded = Recorded(self._step, lambda: state, device, generators=self.trainer.dropout)

    @property
    def note(self) -> str:
        return f"{self.choice} images at once" + (f", {self.trainer.how}" if self.recorded else "")

    def _step(self) -> None:
        self.trainer.optimizer.zero_grad()
        self.trainer.forward_backward(self.images, self.labels)
        self.trainer.optimizer.step()

    def steps(self) -> Iterator[None]:
        """A step at every next()."""
        net, optimizer = self.trainer.net.train(), self.trainer.optimizer
        optimizer.iteration.zero_()
        while self.recorded is not None:
            self.recorded()
            yield
        pieces = list(zip(self.images.split(self.choice), self.labels.split(self.choice), strict=True))
        for _ in range(MOST_STEPS):
            optimizer.zero_grad()
            for number, (images, labels) in enumerate(pieces):
                models.select_gpu(net, None if len(pieces) == 1 else number)
                with self.trainer.autocast:
                    logits = net(images)
                (F.cross_entropy(logits.float(), labels) / len(pieces)).backward()
            self.trainer.follow()
            optimizer.step()
            yield


class SuiteTrainer:
    """The trainer as `experiments.training.train` drives it, without tests. without: what is switched off."""

    warm, choice, note = 1, 0, ""
    choices: tuple[int, ...] = (0,)

    def __init__(
        self, settings: Settings, data: ImageSet, device: torch.device, how: str | How = "eager", without: str = ""
    ) -> None:
        self.trainer = Trainer(settings, data, device, how)
        self.note = str(self.trainer.how)
        if without == "channels_last":
            self.trainer.net.to(memory_format=torch.contiguous_format)
            for velocity in self.trainer.optimizer.velocity:
                velocity.data = velocity.contiguous()
            made = self.trainer.batches
            self.trainer.feed(lambda t: tuple(part.contiguous() for part in made(t)))  # type: ignore[arg-type,return-value]
        elif without == "pieces":
            self.trainer.one_gpu_at_a_time = False
        elif without == "foreach":
            self.trainer.optimizer.one_by_one()
        elif without == "resident data":
            self.trainer.feed(_Loaded(settings, data, device))

    def steps(self) -> Iterator[None]:
        """A step at every next(), from iteration 0."""
        self.trainer.optimizer.iteration.zero_()
        for t in range(MOST_STEPS):
            self.trainer.step(t)
            self.trainer.update()
            yield


class InChild:
    """The trainer on the CPU in a process that hands freed memory back: one that keeps it cannot do so again."""

    warm, choice, note = 1, 0, "eager"
    choices: tuple[int, ...] = (0,)

    def __init__(self, settings: Settings) -> None:
        deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is its parent's to answer
        command = [sys.executable, "-c", f"{deaf}; from experiments.measure import _follow; _follow()"]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._say(json.dumps([asdict(settings), torch.get_num_threads()]))

    def _say(self, line: str) -> None:
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):  # who reads its answer next learns that it has ended
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()

    def steps(self) -> Iterator[None]:
        """A step of the child's at every next()."""
        assert self.child.stdout is not None
        while True:
            self._say("step")
            if not self.child.stdout.readline():
                raise UserError(f"The process that measures a trainer has ended with code {self.child.wait()}.")
            yield

    def __del__(self) -> None:
        self.child.communicate()  # it ends with its input


def _follow() -> None:
    values, threads = json.loads(sys.stdin.readline())
    torch.set_num_threads(threads)
    settings = from_dict(values)
    data = random_images(settings, settings.dataset.train_images, 1)
    trainer = Trainer(settings, data, torch.device("cpu"), "eager")
    for _ in sys.stdin:
        trainer.optimizer.iteration.zero_()
        trainer.step(0)
        trainer.update()
        print(flush=True)


class _Loaded:
    """Batches that a DataLoader's worker processes prepare, as the plain loop's."""

    def __init__(self, settings: Settings, data: ImageSet, device: torch.device) -> None:
        from experiments.plain_loop import PlainLoop

        self.loop = PlainLoop(settings, data, device)
        self.loop.choice = max(self.loop.choices)
        self.batches = self.loop.batches()

    def __call__(self, _: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = next(self.batches)
        return images.contiguous(memory_format=torch.channels_last), labels


def variants(settings: Settings, device: torch.device) -> tuple[str, ...]:
    """All that can be measured on a device: the contestants, then the trainer with one thing switched off in turn.

    On CUDA the trainer is compiled and recorded; "graph" is not compiled and "eager" neither, and of "graph" the others
    are switched off, for compiling each would take minutes.
    """
    off = ["no channels_last", "no foreach", "no resident data"]
    if device.type == "cuda":
        return (*CONTESTANTS, *(["graph"] if compiler() else []), "eager", *off)
    off += ["no kept memory"] if devices.keep_memory() else []
    return (*CONTESTANTS, *off, *(["no pieces"] if passes_in_pieces(settings, settings.batch.gpus) else []))


def builder(
    name: str, settings: Settings, data: ImageSet, device: torch.device, trainer: Trainer | None = None
) -> Callable[[], Variant]:
    """What makes a variant of a name that `variants` gives. trainer: that of the variant "trainer", for "bare"."""
    from experiments.plain_loop import PlainLoop  # torchvision is not to count in peak_in_child

    if name == "bare":
        return lambda: BareStep(settings, random_images(settings, settings.batch.total, 1), device, trainer)
    if name == "plain":
        return lambda: PlainLoop(settings, data, device)
    if name == "no kept memory":
        return lambda: InChild(settings)
    cuda = device.type == "cuda"
    how = How(captured=cuda and name != "eager", compiled=cuda and name == "trainer" and bool(compiler()))
    return lambda: SuiteTrainer(settings, data, device, how, name.removeprefix("no ") if name[:3] == "no " else "")


def rate(variant: Variant, batch: int, seconds: float, device: torch.device) -> float:
    """Images per second over one turn of about `seconds`, after the warm steps (`seconds` of them at most)."""
    steps = variant.steps()
    next(steps)
    began = clock(device)
    for _ in range(variant.warm - 1):
        if clock(device) - began < seconds:
            next(steps)
    began, done = clock(device), 0
    pace = devices.Pace(device)  # else the turn would end only once the device has done what the host queued in it
    while done == 0 or (done < MOST_STEPS - variant.warm and time.perf_counter() - began < seconds):
        next(steps)
        done += 1
        pace.step()
    images_per_second = done * batch / (clock(device) - began)
    steps.close()  # type: ignore[attr-defined]  # generators all
    return images_per_second


def peak_of(build: Callable[[], Variant], device: torch.device) -> tuple[Variant, float | None]:
    """What build() makes, and on CUDA the MiB that it and two of its steps allocate at most."""
    if device.type != "cuda":
        variant = build()
        steps = variant.steps()
        next(steps)
        steps.close()  # type: ignore[attr-defined]
        return variant, None
    gc.collect()  # what ran out of memory may hold itself
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    variant = build()
    steps = variant.steps()
    next(steps), next(steps)
    torch.cuda.synchronize(device)
    return variant, (torch.cuda.max_memory_allocated(device) - before) / 2**20


def peak_in_child(settings: Settings) -> float:
    """Peak resident memory, in MiB, of a fresh process that trains three iterations on the CPU."""
    given = json.dumps([asdict(settings), torch.get_num_threads()])
    command = [sys.executable, "-c", "from experiments.measure import _child; _child()"]
    child = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, check=False)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise UserError(
            f"Training {settings.model.name} with batch {settings.batch.total} in a process of its own, to measure its "
            f"memory, ended with code {child.returncode} ({last}): try smaller batches or other networks."
        )
    return float(child.stdout)


def _child() -> None:
    values, threads = json.load(sys.stdin)
    settings, device = from_dict(values), torch.device("cpu")
    devices.configure(device, threads)
    steps = SuiteTrainer(settings, random_images(settings, settings.dataset.train_images, 1), device).steps()
    for _ in range(3):
        next(steps)
    # Not getrusage where there is a choice: on Linux a child's ru_maxrss starts at that of its parent.
    status = Path("/proc/self/status")
    if status.exists():
        kib = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        import resource

        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    print(kib / 1024)


@dataclass(frozen=True)
class Measured:
    """By variant: images per second of each round, peak memory in MiB where it was taken, what to say of it, and the
    seconds until its first step was done, compiling included. traffic: `least_traffic`, bytes per image. too_large: the
    variants for which no memory was left beside the trainer."""

    rates: dict[str, list[float]]
    peaks: dict[str, float | None]
    notes: dict[str, str]
    starts: dict[str, float]
    traffic: int
    too_large: tuple[str, ...] = ()


def measure(
    settings: Settings, device: torch.device, repeats: int, seconds: float, names: Sequence[str] = ()
) -> Measured:
    """Variants on the same random pixels, `repeats` turns of about `seconds` each. names: all of them where empty.

    They share a GPU's memory, where a variant that is not recorded needs the activations a second time: one that finds
    too little is left out. Raises UserError where the process that measures memory fails, torch.OutOfMemoryError where
    the trainer itself does not fit.
    """
    assert settings.iterations >= MOST_STEPS, (
        "a turn may be as long as this, and a schedule on a GPU has no end to spare"
    )
    data = random_images(settings, settings.dataset.train_images, 1)
    names = names or variants(settings, device)
    made: dict[str, Variant] = {}
    peaks: dict[str, float | None] = {}
    starts: dict[str, float] = {}
    too_large: list[str] = []

    @contextmanager
    def if_it_fits(name: str) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            if name == "trainer":
                raise
            too_large.append(name)
            made.pop(name, None)

    if device.type == "cuda":  # cuDNN looks for its algorithms, for which else the first variant's start would pay
        with suppress(torch.OutOfMemoryError):
            peak_of(builder("eager", settings, data, device), device)
    for name in sorted(names, key=lambda name: name == "bare"):  # the last, to use the compiled network of the trainer
        suite = made.get("trainer") if device.type == "cuda" else None
        trainer = suite.trainer if isinstance(suite, SuiteTrainer) else None
        began = clock(device)
        with if_it_fits(name):
            made[name], peaks[name] = peak_of(builder(name, settings, data, device, trainer), device)
            starts[name] = clock(device) - began
            if name == "bare" and trainer is not None:
                peaks[name] = None
    if device.type == "cpu" and "trainer" in made:
        peaks["trainer"] = peak_in_child(settings)

    def turn(variant: Variant, choice: int) -> float:
        variant.choice = choice
        return rate(variant, settings.batch.total, seconds, device)

    for name in (name for name in names if name in made):
        variant = made[name]
        if len(variant.choices) > 1:
            with if_it_fits(name):
                speeds = {choice: turn(variant, choice) for choice in variant.choices}
                variant.choice = max(speeds, key=lambda choice: speeds[choice])
    rates: dict[str, list[float]] = {name: [] for name in names if name in made}
    for _ in range(repeats):
        for name in [name for name in rates if name in made]:
            with if_it_fits(name):
                rates[name].append(turn(made[name], made[name].choice))
    rates = {name: measured for name, measured in rates.items() if name in made}
    d = settings.dataset
    traffic = least_traffic(build(settings), (d.channels, d.size, d.size), 2 if settings.precision == "bf16" else 4)
    notes = {name: made[name].note for name in rates}
    return Measured(rates, peaks, notes, starts, traffic, tuple(too_large))


def machine(device: torch.device) -> dict[str, Any]:
    """What the device can do at best: GB/s of copying (read and written bytes count), GFLOP/s of multiplying."""

    def best(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(7):
            began = clock(device)
            work()
            times.append(clock(device) - began)
        return min(times)

    large = device.type == "cuda"
    source = torch.ones(2**28 if large else 2**25, device=device)
    target = torch.empty_like(source)
    n = 8192 if large else 1024
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(n, n, device=device, dtype=dtype)  # equal numbers take less power, and a GPU's clock rises
        rates[name] = round(2e-9 * n**3 / best(lambda a=a: a @ a), 1)  # type: ignore[misc]
    copied = 2e-9 * source.numel() * source.element_size() / best(lambda: target.copy_(source))
    return {"copy_gb_per_s": round(copied, 1), "matmul_gflop_per_s": rates}
