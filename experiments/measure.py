"""Images per second of three ways to train one network, taken by turns so that a noisy machine hits all alike."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F

import models
from experiments import device as devices
from experiments.compose import ROOT
from experiments.data import ImageSet
from experiments.errors import UserError
from experiments.estimate import random_images
from experiments.settings import Settings, from_dict
from experiments.trainer import Trainer
from models.caffe import BatchNorm

VARIANTS = ("bare", "trainer", "plain")
MOST_STEPS = 100_000
"""In one turn; the schedule of what is measured must be as long."""


class Variant(Protocol):
    """One of the three contestants; `choice` is one of `choices`, settled before the rounds."""

    choices: tuple[int, ...]
    choice: int

    @property
    def warm(self) -> int: ...
    @property
    def note(self) -> str: ...
    def steps(self) -> Iterator[None]: ...


class BareStep:
    """A network trained on one batch over and over. `choice`: images in a piece of a pass."""

    warm = 1

    def __init__(self, settings: Settings, data: ImageSet, device: torch.device) -> None:
        self.trainer = Trainer(settings, data, device)
        self.images, self.labels = self.trainer.batches(0)
        total, per_gpu = settings.batch.total, settings.batch.per_gpu
        normalised = any(isinstance(layer, BatchNorm) for layer in self.trainer.net.modules())
        pieces = {total, per_gpu} | (set() if normalised or total % 32 else {32})
        self.choices = (total,) if device.type == "cuda" else tuple(sorted(pieces, reverse=True))
        self.choice = total

    @property
    def note(self) -> str:
        return f"{self.choice} images at once"

    def steps(self) -> Iterator[None]:
        """A step at every next()."""
        net, optimizer = self.trainer.net.train(), self.trainer.optimizer
        optimizer.iteration.zero_()
        pieces = list(zip(self.images.split(self.choice), self.labels.split(self.choice), strict=True))
        for _ in range(MOST_STEPS):
            optimizer.zero_grad()
            for number, (images, labels) in enumerate(pieces):
                models.select_gpu(net, None if len(pieces) == 1 else number)
                with self.trainer.autocast:
                    logits = net(images)
                (F.cross_entropy(logits.float(), labels) / len(pieces)).backward()
            optimizer.step()
            yield


class SuiteTrainer:
    """The trainer as `experiments.trainer.train` drives it, without tests."""

    warm, choice, note = 1, 0, ""
    choices: tuple[int, ...] = (0,)

    def __init__(self, settings: Settings, data: ImageSet, device: torch.device) -> None:
        self.trainer = Trainer(settings, data, device)

    def steps(self) -> Iterator[None]:
        """A step at every next(), from iteration 0."""
        self.trainer.optimizer.iteration.zero_()
        for t in range(MOST_STEPS):
            self.trainer.step(t)
            self.trainer.optimizer.step()
            yield


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rate(variant: Variant, batch: int, seconds: float, device: torch.device) -> float:
    """Images per second over one turn of about `seconds`, after the warm steps (`seconds` of them at most)."""
    steps = variant.steps()
    next(steps)
    began = clock(device)
    for _ in range(variant.warm - 1):
        if clock(device) - began < seconds:
            next(steps)
    began, done = clock(device), 0
    while done == 0 or (done < MOST_STEPS - variant.warm and time.perf_counter() - began < seconds):
        next(steps)
        done += 1
    images_per_second = done * batch / (clock(device) - began)
    steps.close()  # type: ignore[attr-defined]  # generators all
    return images_per_second


def peak_of(build: Callable[[], Variant], device: torch.device) -> tuple[Variant, float | None]:
    """What build() makes, and on CUDA the MiB that it and two of its steps allocate at most."""
    if device.type != "cuda":
        return build(), None
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
    """By variant: images per second of each round, peak memory in MiB where it was taken, and what to say of it."""

    rates: dict[str, list[float]]
    peaks: dict[str, float | None]
    notes: dict[str, str]


def measure(settings: Settings, device: torch.device, repeats: int, seconds: float) -> Measured:
    """All variants on the same random pixels, `repeats` turns of about `seconds` each.

    Raises UserError where the process that measures memory fails, torch.OutOfMemoryError on a GPU that is too small.
    """
    from experiments.plain_loop import PlainLoop  # torchvision is not to count in peak_in_child

    data = random_images(settings, settings.dataset.train_images, 1)
    one_batch = random_images(settings, settings.batch.total, 1)
    builders: dict[str, Callable[[], Variant]] = {
        "bare": lambda: BareStep(settings, one_batch, device),
        "trainer": lambda: SuiteTrainer(settings, data, device),
        "plain": lambda: PlainLoop(settings, data, device),
    }
    variants: dict[str, Variant] = {}
    peaks: dict[str, float | None] = {}
    for name in VARIANTS:
        variants[name], peaks[name] = peak_of(builders[name], device)
    if device.type == "cpu":
        peaks["trainer"] = peak_in_child(settings)

    def turn(variant: Variant, choice: int) -> float:
        variant.choice = choice
        return rate(variant, settings.batch.total, seconds, device)

    for variant in variants.values():
        if len(variant.choices) > 1:
            speeds = {choice: turn(variant, choice) for choice in variant.choices}
            variant.choice = max(speeds, key=lambda choice: speeds[choice])
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(repeats):
        for name, variant in variants.items():
            rates[name].append(turn(variant, variant.choice))
    return Measured(rates, peaks, {name: variant.note for name, variant in variants.items()})


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
        a = torch.ones(n, n, device=device, dtype=dtype)
        rates[name] = round(2e-9 * n**3 / best(lambda a=a: a @ a), 1)  # type: ignore[misc]
    copied = 2e-9 * source.numel() * source.element_size() / best(lambda: target.copy_(source))
    return {"copy_gb_per_s": round(copied, 1), "matmul_gflop_per_s": rates}
