"""How long runs will take, measured on this machine from a few warm steps on random pixels."""

import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.batches import images_per_test
from experiments.compose import ROOT
from experiments.data import ImageSet, Split
from experiments.device import Pace, clock
from experiments.errors import UserError
from experiments.settings import Settings
from experiments.speeds import benchmark_of, quickest, rows_for
from experiments.step import How, parameters_of
from experiments.trainer import Trainer
from experiments.training import first_step

if TYPE_CHECKING:  # torch is for what computes
    import torch

WARM_STEPS, TIMED_SECONDS, MOST_STEPS = 2, 0.7, 50
LONG_STEP = 2.0
"""Seconds of a step on a CPU that is timed without warming up: what the first one costs more is little beside that."""
FORWARD = 1 / 3
"""A test image's share of a training image's time, where it is not measured: the backward pass takes twice as long."""


@dataclass(frozen=True)
class Speed:
    """Seconds per training image and per test image; the network's learnable values; seconds before the first step,
    once for all runs of a kind.

    source: where this is from, in words.
    """

    image: float
    test_image: float
    parameters: int
    start: float = 0.0
    source: str = "measured here a moment ago"

    def seconds(self, settings: Settings, done: int = 0) -> float:
        """Of the rest of a run that has `done` iterations behind it."""
        left = settings.iterations - done
        tests, (images, _) = left // settings.test_interval, images_per_test(settings)
        return left * settings.batch.total * self.image + tests * images * self.test_image


def random_images(settings: Settings, train: int, test: int) -> ImageSet:
    """Pixels without meaning, in the shape that the settings say."""
    d, rng = settings.dataset, np.random.default_rng(0)

    def split(n: int) -> Split:
        images = rng.integers(0, 256, (n, d.size, d.size, d.channels), dtype=np.uint8)
        return Split(images, rng.integers(0, d.classes, n))

    return ImageSet(split(train), split(test), d.name, "random pixels", d.classes, False, "", "")


def measure(settings: Settings, device: "torch.device", most_images: int | None = None, step_as: str = "auto") -> Speed:
    """The speed of a run with these settings on this device; takes a few seconds, or as long as one step.

    most_images: measure with at most so many images per virtual GPU, for networks whose steps take long. step_as: one
    of `experiments.device.STEPS`; nothing is compiled, which takes minutes, and what cannot be recorded is not.
    """

    per_gpu = min(settings.batch.per_gpu, most_images or settings.batch.per_gpu)
    batch = replace(settings.batch, per_gpu=per_gpu)
    tests = min(500, 4 * batch.total) if most_images else 500
    images = random_images(settings, batch.total, tests)
    dataset = replace(settings.dataset, train_images=batch.total, test_images=tests, tests="full")
    settings = replace(settings, batch=batch, dataset=dataset)

    def begun(how: How) -> Trainer:
        return Trainer(settings, images, device, how)

    trainer = begun(How(captured=device.type == "cuda" and step_as != "eager"))

    def step() -> None:
        trainer.optimizer.iteration.zero_()  # the run may be shorter than the measurement
        trainer.step(0)
        trainer.update()

    parameters = sum(p.numel() for p in trainer.net.parameters())
    began = clock(device)
    trainer, _ = first_step(trainer, begun, 0, say=lambda _: None)
    trainer.update()
    if device.type == "cpu" and (seconds := clock(device) - began) > LONG_STEP:
        image = seconds / batch.total
        return Speed(image, image * FORWARD, parameters)
    for _ in range(WARM_STEPS - 1):
        step()
    began, steps, pace = clock(device), 0, Pace(device)
    while steps < MOST_STEPS and time.perf_counter() - began < TIMED_SECONDS:
        step()
        pace.step()  # as training does: waiting for each step would cost small networks a good part of it
        steps += 1
    image = (clock(device) - began) / steps / batch.total
    if image * FORWARD * tests > TIMED_SECONDS:
        return Speed(image, image * FORWARD, parameters)
    trainer.test()
    began = clock(device)
    trainer.test()
    return Speed(image, (clock(device) - began) / tests, parameters)


def same_speed(settings: Settings) -> str:
    """What two runs must share to take as long per image, but for the batch."""
    d, m = settings.dataset, settings.model
    return repr((m.name, m.depth, m.width, d.size, d.channels, d.classes, d.mirror, settings.precision))


def benchmarked(settings: Settings, device: "torch.device", step_as: str = "auto") -> Speed | None:
    """The speed of a run by this device's benchmark (`experiments.speeds`), None where that does not have it.

    A test image is taken to cost a `FORWARD` of a training image. step_as: one of `experiments.device.STEPS`.
    """
    rows = {row.way: row for row in rows_for(settings, device)}
    way = step_as
    if step_as == "auto":
        way = quickest(settings, device, ("graph", "compile")) or ("graph" if device.type == "cuda" else "eager")
    if way not in rows:
        return None
    row, path = rows[way], benchmark_of(device)
    assert path is not None
    return Speed(1 / row.rate, FORWARD / row.rate, parameters_of(settings), row.start, f"by {path.relative_to(ROOT)}")


def speed_of(
    settings: Settings, device: "torch.device", most_images: int | None = None, step_as: str = "auto"
) -> Speed:
    """By the benchmark, else measured now (`measure`), with fewer images where no more fit into the device's memory:
    several devices may train what one cannot. Raises UserError where nothing fits."""
    if found := benchmarked(settings, device, step_as):
        return found
    import torch

    most = most_images
    while True:
        try:
            return measure(settings, device, most, step_as)
        except torch.OutOfMemoryError as error:
            if most == 1:
                raise UserError(
                    f"Not one image at a time fits into the memory of {device} ({str(error).partition('. ')[0]}): free "
                    "it, or choose another with device=cuda:N."
                ) from None
        most = max(1, (most or settings.batch.per_gpu) // 2)
        gc.collect()  # what failed, and its tensors
        torch.cuda.empty_cache()


class Expected(NamedTuple):
    """Seconds of every run, those before first steps, and where this is from, in words."""

    runs: list[float]
    start: float
    source: str


def expected_seconds(runs: Iterable[tuple[Settings, int]], device: "torch.device", step_as: str = "auto") -> Expected:
    """Time for runs, given as settings and iterations already done, one after the other."""
    speeds: dict[str, Speed] = {}
    each, start = list[float](), 0.0
    for settings, done in runs:
        key = same_speed(settings) + repr(settings.batch.total // 64)
        if key not in speeds:
            speeds[key] = speed_of(settings, device, step_as=step_as)
            start += speeds[key].start
        each.append(speeds[key].seconds(settings, done))
    return Expected(each, start, " and ".join(sorted({speed.source for speed in speeds.values()})))
