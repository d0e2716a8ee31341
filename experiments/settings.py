"""What a run is: a validated tree of settings and the hash that names its folder.

A run is a pure function of these settings. How it is run (which device, how many processes, where the
data lie) is not part of them, except the precision, which changes the numbers, and the fingerprint of
the data, because other pixels are another experiment.
"""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from experiments.errors import UserError
from experiments.schedules import (
    MOMENTUM_POLICIES,
    POLICIES,
    Schedule,
    learning_rate,
    momentum_schedule,
)

FORMAT = 1
"""Raised whenever the same settings would train to other numbers than before."""

LATER = (("model", "test_statistics"),)
"""Settings that older runs know nothing of. Where they are null they do not count, so that those keep their names."""

MOST = 10**8
"""Of what a run counts, iterations or images: more is a slip, and its schedules would not fit into memory."""
WIDEST = 4096
"""Of a network: more channels are a slip, and their weights would not fit into memory."""
PRECISIONS = ("fp32", "bf16")
INITS = ("msra", "xavier")
SOLVERS = ("nesterov", "nesterov_unmodified", "sgd")


@dataclass
class Dataset:
    """The images a run sees.

    name: "cifar10", "cifar100", "mnist", "imagenet" or "shapes". classes, channels, size (pixels a side), train_images
    and test_images say what it holds; fewer images than the set has take the first so many. mirror: random horizontal
    flips in training. order: "fixed" reads the records in the same order every epoch, as the author's LMDB did;
    "reshuffled" draws a new order per epoch. tests: "full" measures every test image as it is; "author" as the author's
    solver did: a fixed number of images from where the last test ended, flipped at random where his data layer flips
    (`experiments.batches.AUTHOR_TESTS`); he went through ImageNet's 50,000, of which the figures take fewer
    (test_images=50000 as well). subtract_mean: of the training set, pixel by pixel. seed and label_noise shape the made
    set "shapes" only.
    fingerprint: of all the set's pixels and labels, filled in when the data are found.
    """

    name: str = "???"
    classes: int = 10
    channels: int = 3
    size: int = 32
    train_images: int = 50000
    test_images: int = 10000
    mirror: bool = False
    subtract_mean: bool = True
    tests: str = "full"
    order: str = "fixed"
    seed: int = 0
    label_noise: float = 0.0
    fingerprint: str = ""


@dataclass
class Model:
    """A network of `models`: its name, its filler ("msra" or "xavier"), and what else its builder takes.

    Null is the report's network. depth, width: smaller variants. bn_fraction: of BatchNorm's running averages.
    border: average pooling's rule at the border, "caffe" or "cudnn". test_statistics: what BatchNorm normalises tests
    with, "running" averages or the test "batch" itself, as many images as his tests took at once
    (`experiments.batches.statistics_batch`).
    """

    name: str = "???"
    init: str = "msra"
    depth: int | None = None
    width: int | None = None
    bn_fraction: float | None = None
    border: str | None = None
    test_statistics: str | None = None


@dataclass
class Batch:
    """Total batch size = per_gpu x gpus. The GPUs are virtual: BatchNorm statistics belong to one of them."""

    per_gpu: int = 128
    gpus: int = 4

    @property
    def total(self) -> int:
        return self.per_gpu * self.gpus


@dataclass
class LearningRate:
    """A policy of `experiments.schedules` and its parameters; those the policy does not take stay null."""

    policy: str = "???"
    base: float = 0.0
    peak: float | None = None
    stepsize: int | None = None
    gamma: float | None = None
    power: float | None = None
    stepvalues: list[int] | None = None
    drops: list[int] | None = None
    drop_gamma: float | None = None


@dataclass
class Momentum:
    """A momentum policy of `experiments.schedules`: "constant" at base, "linear" from base to peak over the run,
    "cyclical" from base to peak in `stepsize` iterations and back."""

    policy: str = "constant"
    base: float = 0.9
    peak: float | None = None
    stepsize: int | None = None


@dataclass
class Solver:
    """Caffe's update: "nesterov" or "sgd", with L2 weight decay before the per-parameter multipliers.

    "nesterov_unmodified" is Nesterov's as Caffe 1.0 has it (BVLC/caffe nesterov_solver.cpp), which knows one momentum:
    a schedule changes what is recorded, the update takes momentum.base throughout. Runs of the figures that have it are
    trained, and named, as runs of constant momentum (`experiments.compose`), unless the record is a panel's axis.
    """

    type: str = "nesterov"
    weight_decay: float = 0.0


@dataclass
class Start:
    """Where a run begins: at iteration 0 with fresh weights, or from another run's snapshot.

    run: the parent's hash, "" for none; iteration: how many updates the snapshot has behind it. Weights, velocities
    and running statistics are the parent's, the schedule is the run's own from that iteration on (figure 12).
    """

    run: str = ""
    iteration: int = 0


@dataclass
class Settings:
    """Everything that a run's numbers depend on.

    iterations: length of the run; schedule_length: that of its schedules, where the run is the beginning of a longer
    one; test_interval: iterations between two tests, which are also the rows of
    metrics.csv; seed: of weights, flips and dropout (a replicate's number; what a command line gives is replicate 0's,
    and the others count on from there); precision: of the forward and backward pass.
    """

    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    batch: Batch = field(default_factory=Batch)
    lr: LearningRate = field(default_factory=LearningRate)
    momentum: Momentum = field(default_factory=Momentum)
    solver: Solver = field(default_factory=Solver)
    start: Start = field(default_factory=Start)
    iterations: int = 0
    schedule_length: int | None = None
    test_interval: int = 200
    seed: int = 0
    precision: str = "fp32"
    format: int = FORMAT

    def hash(self) -> str:
        """Twelve hexadecimal characters that name the run."""
        values = asdict(self)
        for group, name in LATER:
            if values[group][name] is None:
                del values[group][name]
        text = json.dumps(values, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def lr_array(self) -> Schedule:
        """Learning rate at t = 0 .. iterations: float64 [iterations + 1].

        The last value belongs to the row after the last update; no step uses it. A range test reaches its peak there.
        """
        given = {k: v for k, v in asdict(self.lr).items() if v is not None and k != "policy"}
        rates = learning_rate(self.lr.policy, iterations=self.schedule_length or self.iterations, **given)
        if self.schedule_length is not None and self.schedule_length > self.iterations:
            return rates[: self.iterations + 1]
        if self.lr.policy != "range" or self.lr.peak is None:
            return np.append(rates, rates[-1])
        return np.append(rates, self.lr.peak * (self.lr.drop_gamma or 1) ** len(self.lr.drops or ()))

    def momentum_array(self) -> Schedule:
        """Momentum at t = 0 .. iterations: float64 [iterations + 1], the last value as in `lr_array`."""
        m = self.momentum
        given = {"base": m.base, "peak": m.peak, "stepsize": m.stepsize}
        given = {k: v for k, v in given.items() if v is not None}
        values = momentum_schedule(m.policy, iterations=self.schedule_length or self.iterations, **given)
        if self.schedule_length is not None and self.schedule_length > self.iterations:
            return values[: self.iterations + 1]
        return np.append(values, m.peak if m.policy == "linear" and m.peak is not None else values[-1])


def nearest(word: object, choices: Iterable[str]) -> str:
    """The end of an error message: what may have been meant (a file may have a number for a name), what there is."""
    choices = sorted(choices)
    close = difflib.get_close_matches(str(word), choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    if close and len(choices) > 20:
        return hint
    return f"{hint} There are: {', '.join(choices)}." if close else f"there are: {', '.join(choices)}."


def paths(cls: type = Settings, prefix: str = "") -> list[str]:
    """Dotted names of all settings, for example "solver.weight_decay"."""
    found = []
    for f in fields(cls):
        found += paths(f.type, f"{prefix}{f.name}.") if is_dataclass(f.type) else [f"{prefix}{f.name}"]  # type: ignore[arg-type]
    return found


@cache
def _schema() -> Any:
    """Made once: a list of all figures composes hundreds of settings, and merging leaves this as it is."""
    return OmegaConf.structured(Settings)


EXPECTED = {"Integer": "a whole number, without point or exponent,", "Float": "a number", "Boolean": "true or false"}
"""What a setting's type is called when something else was given for it."""


def _too_large(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _too_large(value, f"{prefix}{name}.")
        elif type(value) is int and abs(value) >= 2**63:
            yield prefix + name


def from_dict(values: Mapping[str, Any]) -> Settings:
    """Typed and validated settings from nested plain values.

    Raises UserError that names the setting, what was given and what is allowed.
    """
    try:
        merged = OmegaConf.merge(_schema(), dict(values))
        settings = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        key = str(error.full_key)
        raise UserError(
            f"There is no setting '{key}': {nearest(key, {*paths()} - {*paths(Start, 'start.')})}"
        ) from None
    except OmegaConfBaseException as error:
        said = str(error.msg).splitlines()[0]
        if told := re.fullmatch(r"Value '(.*)' of type '.*' could not be converted to (\w+)", said):
            raise UserError(f"{error.full_key}={told[1]}: {EXPECTED.get(told[2], told[2])} is expected.") from None
        if said.endswith("is not a ListConfig, list or tuple."):
            raise UserError(f"{error.full_key}: a list of whole numbers is expected, as [5000,8000].") from None
        raise UserError(f"The setting '{error.full_key}' cannot be used: {said.rstrip('.')}.") from None
    except OverflowError:  # OmegaConf's, which does not say of what
        raise UserError(f"{', '.join(_too_large(values))}: a number that 64 bits can hold is expected.") from None
    assert isinstance(settings, Settings)
    validate(settings)
    return settings


def validate(s: Settings) -> None:
    """Refuse what cannot be trained, before anything starts. Raises UserError."""

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(message)

    def choice(name: str, value: str, choices: Iterable[str]) -> None:
        need(value in choices, f"{name}={value} is not known: {nearest(value, choices)}")

    choice("lr.policy", s.lr.policy, POLICIES)
    choice("momentum.policy", s.momentum.policy, MOMENTUM_POLICIES)
    choice("solver.type", s.solver.type, SOLVERS)
    choice("model.init", s.model.init, INITS)
    choice("dataset.order", s.dataset.order, ("fixed", "reshuffled"))
    choice("dataset.tests", s.dataset.tests, ("full", "author"))
    choice("precision", s.precision, PRECISIONS)
    if (fraction := s.model.bn_fraction) is not None:
        need(0 <= fraction <= 1, f"model.bn_fraction={fraction}: a number from 0 to 1 is expected.")  # nor NaN
    if (width := s.model.width) is not None:
        need(1 <= width <= WIDEST, f"model.width={width}: a whole number from 1 to {WIDEST:,} is expected.")
    if s.model.test_statistics is not None:
        choice("model.test_statistics", s.model.test_statistics, ("running", "batch"))
    for name, value in (
        ("iterations", s.iterations),
        ("test_interval", s.test_interval),
        ("batch.per_gpu", s.batch.per_gpu),
        ("batch.gpus", s.batch.gpus),
        ("dataset.train_images", s.dataset.train_images),
        ("dataset.test_images", s.dataset.test_images),
    ):
        need(1 <= value <= MOST, f"{name}={value}: a whole number from 1 to {MOST:,} is expected.")
    need(0 <= s.seed < 2**63, f"seed={s.seed}: a whole number from 0 to 2^63 - 1 is expected.")
    need(
        s.test_interval <= s.iterations,
        f"test_interval={s.test_interval} is longer than the run of {s.iterations} iterations: nothing would be "
        "measured. Shorten it or lengthen the run.",
    )
    need(
        s.batch.total <= s.dataset.train_images,
        f"The total batch of {s.batch.total} images ({s.batch.per_gpu} per GPU x {s.batch.gpus} GPUs) is larger than "
        f"the training set of {s.dataset.train_images}: lower batch.per_gpu or batch.gpus.",
    )
    need(
        0 <= s.start.iteration < s.iterations,
        f"start.iteration={s.start.iteration}: a whole number from 0 to {s.iterations - 1} is expected.",
    )
    need(
        bool(s.start.run) == bool(s.start.iteration),
        f"start.run={s.start.run or '(none)'} and start.iteration={s.start.iteration}: a run from a snapshot has both, "
        "which a figure's  from: {curve: NAME, iteration: N}  fills in; any other has neither.",
    )
    need(
        s.iterations // s.test_interval > s.start.iteration // s.test_interval,
        f"test_interval={s.test_interval}: no test is due from the snapshot after iteration {s.start.iteration} to the "
        f"end at {s.iterations}: nothing would be measured. Shorten it or lengthen the run.",
    )
    wd = s.solver.weight_decay
    need(math.isfinite(wd) and wd >= 0, f"solver.weight_decay={wd}: a number from 0 up is expected.")
    need(
        s.schedule_length is None or s.iterations <= s.schedule_length <= MOST,
        f"schedule_length={s.schedule_length}: a whole number from iterations={s.iterations} to {MOST:,} is expected.",
    )
    for what, arrays in (("learning rate", s.lr_array), ("momentum", s.momentum_array)):
        try:
            arrays()
        except ValueError as error:
            raise UserError(f"The {what} schedule cannot run: {error}.") from None
