"""Images per second of the trainer, of its bare step, and of a plain PyTorch loop, measured in turn.

    python -m experiments.benchmark [device=auto] [NAME=VALUE ...]

  networks    default: cifar3 and every network that a figure of the report trains
  batches     total batch sizes, over 4 virtual GPUs; default 128,512
  precisions  default fp32,bf16
  repeats     rounds in which each variant has its turn; default 5
  seconds     length of a turn; default 1.0
  minutes     what does not fit into this time is left out, and named; default 9
  variants    default all: bare,trainer,plain,graph,eager,no_channels_last,no_foreach,no_resident_data,no_kept_memory,
              no_pieces, as far as the device has them; the trainer must be among them
  threads     CPU threads; default: as many as there are cores
  out         folder of the results; default results/bench

bare     forward, backward and the suite's update on one batch that already lies on the device: no data, no metrics.
         On a CPU in pieces (all images at once, one virtual GPU at a time, 32 images), whichever is fastest.
         On CUDA as the trainer: compiled, and one CUDA graph.
trainer  what experiments.training.train does between two tests; on CUDA compiled (where there is a C++ compiler) and
         recorded as CUDA graphs.
plain    what a user writes today: `experiments.plain_loop`, with or without worker processes, whichever is faster.
graph    CUDA: the trainer, not compiled. eager: nor recorded.
no ...   the trainer (CUDA: graph) without channels_last memory, without lists of parameters in the update (foreach),
         without data on the device (a DataLoader's workers prepare batches), on a CPU without keeping freed memory and
         without passing the virtual GPUs one after the other (pieces).

The bound is what the memory's bandwidth, as measured by copying, allows: `experiments.traffic` says what it assumes.
`make plan` and step=auto read the file of the device they run on. What it has of this torch and these threads and is
not measured now stays in it; on Ctrl-C the items that were finished are kept.

Numerics are alike: fp32 without TF32, bf16 through autocast, cuDNN free to choose its algorithms. Images are random
pixels of the size that the report trained on. Ratios are medians over rounds, with their extremes. Memory is the peak
of CUDA allocations, or on a CPU the peak resident memory, libraries included, of a process that only runs the trainer.
"""

import signal

if __name__ == "__main__":  # the other imports take seconds
    from experiments import interrupts

    interrupts.leave_at_once()

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.console import Console

import models
from experiments import cli
from experiments import device as devices
from experiments.benchmark_results import Row, earlier, item, rows_of, table, with_earlier, write
from experiments.compose import ROOT, load, names, settings_for
from experiments.console import console as console_of
from experiments.console import say as console_say
from experiments.errors import UserError
from experiments.estimate import random_images
from experiments.files import check_writable
from experiments.measure import MOST_STEPS, SuiteTrainer, machine, measure, rate, variants
from experiments.settings import PRECISIONS, Batch, Dataset, LearningRate, Model, Momentum, Settings, Solver, nearest
from experiments.speeds import file_stem
from experiments.step import How, compiler
from experiments.words import counted, duration, of_the_report

GPUS = 4
POOL = 50_000 * 32 * 32 * 3
"""Bytes of random pixels at most: CIFAR-10's."""


@dataclass
class Options:
    """A command line, checked. Empty `networks`: those of the figures."""

    device: str = "auto"
    networks: tuple[str, ...] = ()
    batches: tuple[int, ...] = (128, 512)
    precisions: tuple[str, ...] = PRECISIONS
    repeats: int = 5
    seconds: float = 1.0
    minutes: float = 9.0
    variants: tuple[str, ...] = ()
    threads: int | None = None
    out: str = "results/bench"


def parse(words: Sequence[str]) -> Options:
    """Options from NAME=VALUE words; of a name given twice the last counts. Raises UserError."""
    options = Options()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"'{word}' is not understood: options are given as NAME=VALUE, for example seconds=0.5.")
        if name not in asdict(options):
            if name.lower() in asdict(options):
                raise UserError(f"{name}= is what make calls it: here it is {name.lower()}={value}.")
            raise UserError(f"There is no option '{name}': {nearest(name, asdict(options))}")
        if name in ("networks", "precisions"):
            choices = models.NAMES if name == "networks" else PRECISIONS
            for one in value.split(","):
                if one not in choices:
                    raise UserError(f"{name}={one} is not known: {nearest(one, choices)}")
            setattr(options, name, tuple(value.split(",")))
        elif name == "variants":
            options.variants = tuple(BLANKS.sub(" ", one) for one in value.split(","))
            if "trainer" not in options.variants:
                raise UserError(f"variants={value}: the trainer must be among them, the others are compared with it.")
        elif name in ("device", "out"):
            setattr(options, name, value)
        elif name == "batches":
            options.batches = tuple(_number(name, one, int) for one in value.split(","))
            if odd := [b for b in options.batches if b % GPUS]:
                raise UserError(
                    f"batches={odd[0]}: a total batch must divide over {GPUS} virtual GPUs, like 128 or 512."
                )
        else:
            setattr(options, name, _number(name, value, int if name in ("repeats", "threads") else float))
    return options


def _number(name: str, value: str, kind: Callable[[str], Any]) -> Any:
    try:
        if 0 < (number := kind(value)) < float("inf"):
            return number
    except ValueError:
        pass
    raise UserError(f"{name}={value}: a {'whole ' if kind is int else ''}number above 0 is expected.")


@cache
def reported() -> dict[str, Settings]:
    """Each network that a figure of the report trains with the settings of its first curve there."""
    found: dict[str, Settings] = {}
    for name in filter(of_the_report, names("figure")):
        figure = load("figure", name)
        for curve in figure["curves"]:
            settings = settings_for(figure, curve, 0, "paper")
            if settings.model.depth is None and settings.model.width is None:
                found.setdefault(settings.model.name, settings)
    return found


def settings_of(network: str, batch: int, precision: str) -> Settings:
    """What is measured: the images as a figure has them, and a schedule without surprises."""
    classes, channels, size = models.REPORTED[network]
    plain = network in ("cifar3", "cifar10-quick", "lenet")
    unused = Dataset(classes=classes, channels=channels, size=size, mirror=not plain)
    images = reported()[network].dataset if network in reported() else unused
    count = max(batch, min(images.train_images, POOL // (images.size**2 * images.channels)))
    return Settings(
        dataset=replace(images, name="random", train_images=count, test_images=1, order="fixed", fingerprint=""),
        model=Model(network),
        batch=Batch(batch // GPUS, GPUS),
        lr=LearningRate("constant", 1e-4),
        momentum=Momentum(base=0.9),
        solver=Solver(weight_decay=1e-4),
        iterations=MOST_STEPS,
        test_interval=MOST_STEPS,
        precision=precision,
    )


def title(settings: Settings) -> str:
    """An item's name, for example "cifar3, batch 128, fp32"."""
    return f"{settings.model.name}, batch {settings.batch.total}, {settings.precision}"


BLANKS = re.compile("(?<=^no)_|_(?=data$|memory$)")
TOO_LARGE = "does not fit into the memory of the GPU"
COMPILING, EACH = 15.0, 0.4
"""Seconds of compiling for a network, and more for each tensor of its parameters: guesses for the plan."""


def expected(network: str, precision: str, options: Options, device: torch.device) -> list[tuple[float, Settings]]:
    """Seconds that each batch size will take, from a few bare steps. Raises torch.OutOfMemoryError."""
    cuda = device.type == "cuda"
    probe = 128 if cuda else 16
    small = settings_of(network, probe, precision)
    suite = SuiteTrainer(small, random_images(small, probe, 1), device, How(captured=cuda))
    image = 1 / rate(suite, probe, 0.2, device)
    compiling = COMPILING + EACH * len(suite.trainer.optimizer.weights) if cuda and compiler() else 0
    found = []
    for batch in options.batches:
        settings = settings_of(network, batch, precision)
        turns = len(chosen(options, settings, device)) * (options.repeats + 1) + 4
        turn = max(options.seconds, image * batch) + image * batch + 0.2
        found.append((8 + compiling + turns * turn, settings))
    return found


def chosen(options: Options, settings: Settings, device: torch.device) -> tuple[str, ...]:
    """The variants of an item. Raises UserError for names that there are not."""
    there = variants(settings, device)
    every = variants(settings_of("cifar3", 512, "fp32"), device)
    for one in options.variants:
        if one not in every:
            raise UserError(f"variants={one} is not known: {nearest(one, every)}")
    return tuple(one for one in there if not options.variants or one in options.variants)


def plan(options: Options, device: torch.device) -> tuple[list[Settings], float, list[str]]:
    """What fits into the time, its seconds, and a line for each item left out.

    Every network's cheapest item (on CUDA: that of the largest batch in bf16) comes before any second one. The time
    that planning takes counts as well.
    """
    began = time.perf_counter()
    networks = options.networks or tuple(n for n in models.NAMES if n == "cifar3" or n in reported())
    costs: list[tuple[int, float, Settings]] = []
    left_out = []
    for network in networks:
        of_network = []
        for precision in options.precisions:
            try:
                of_network += expected(network, precision, options, device)
            except torch.OutOfMemoryError:
                left_out.append(f"{network}, {precision}: {TOO_LARGE}")
        # On CUDA, where every item has to be compiled, first what GPUs are for.
        of_network.sort(
            key=lambda item: (
                (item[1].precision != "bf16", -item[1].batch.total) if device.type == "cuda" else (0, item[0])
            )
        )
        costs += [(rank, seconds, settings) for rank, (seconds, settings) in enumerate(of_network)]
    kept, total = [], 0.0
    time_left = 60 * options.minutes - (time.perf_counter() - began)
    for _, seconds, settings in sorted(costs, key=lambda item: item[:2]):
        if total + seconds <= time_left:
            total += seconds
            kept.append(settings)
        else:
            left_out.append(f"{title(settings)}: about {duration(seconds)}, a larger minutes=N includes it")
    kept.sort(key=lambda s: (networks.index(s.model.name), s.batch.total, options.precisions.index(s.precision)))
    return kept, total, left_out


def benchmark(options: Options, console: Console) -> list[Path]:
    """Measure what the options ask for, print it and write it. Returns the paths of the results."""

    say = partial(console_say, console)
    device = devices.choose(options.device)
    devices.configure(device, options.threads)
    say(f"Benchmark on {devices.name(device)}, torch {torch.__version__}")
    check_writable(ROOT / options.out, "out")
    stem = file_stem(devices.name(device), devices.instructions(device))
    earlier(ROOT / options.out, stem, torch.get_num_threads())  # not after minutes
    able = machine(device)
    matmul = able["matmul_gflop_per_s"]
    say(
        f"  copies {able['copy_gb_per_s']:,.1f} GB/s, multiplies {matmul['fp32']:,.0f} GFLOP/s in fp32, "
        f"{matmul['bf16']:,.0f} in bf16"
    )
    items, seconds, left_out = plan(options, device)
    for line in left_out:
        say(f"  left out: {line}")
    if not items:
        raise UserError("All is left out: raise minutes, lower repeats or seconds, or try smaller batches or networks.")
    say(f"  {counted(len(items), 'item')}, {counted(options.repeats, 'round')} each: about {duration(seconds)}")
    rows: list[Row] = []
    try:
        for number, settings in enumerate(items, 1):
            try:
                names = chosen(options, settings, device)
                measured = measure(settings, device, options.repeats, options.seconds, names)
            except torch.OutOfMemoryError:
                left_out.append(f"{title(settings)}: {TOO_LARGE}")
                say(f"  [{number}/{len(items)}] left out: {left_out[-1]}")
                continue
            now = rows_of(settings, measured, able["copy_gb_per_s"], options.seconds)
            rows += now
            _write(options, rows, device, able, left_out, drawn=False)  # whatever kills the process next
            say(f"  [{number}/{len(items)}] {title(settings)}: {_said(now)}")
            for variant in measured.too_large:
                left_out.append(f"{title(settings)}, {variant}: {TOO_LARGE} beside the trainer")
                say(f"    left out: {left_out[-1]}")
        if not rows:
            raise UserError(f"Each of the items {TOO_LARGE}: try smaller batches or other networks.")
    except BaseException as error:  # whatever a driver or a compiler throws, what was measured is kept
        done = {item(row) for row in rows}
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped by an error"
        left_out += [f"{title(s)}: {why}" for s in items if (s.model.name, s.batch.total, s.precision) not in done]
        if rows:
            _write(options, rows, device, able, left_out)
        if rows or why == "interrupted":
            say(f"  {why}: {counted(len(done), 'finished item')} kept")
        raise
    console.print(table(rows))
    paths = _write(options, rows, device, able, left_out)
    for path in paths:
        say(f"  {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return paths


def _said(rows: Sequence[Row]) -> str:
    """An item's rows in a line: the trainer's speed, and against what."""
    of = {row["variant"]: row for row in rows}
    said = [f"{of['trainer']['images_per_second']:,.0f} images/s"]
    if "bare" in of:
        said.append(f"{of['bare']['trainer_ratio']:.2f} of the bare step ({of['bare']['note']})")
    if "plain" in of:
        said.append(f"{of['plain']['trainer_ratio']:.2f} times the plain loop ({of['plain']['note']})")
    said.append(f"{of['trainer']['images_per_second'] / of['trainer']['bound']:.0%} of the bound")
    return ", ".join(said)


def _write(
    options: Options, rows: Sequence[Row], device: torch.device, able: Row, left_out: list[str], drawn: bool = True
) -> list[Path]:
    facts = devices.environment(device) | {
        "processor": devices.cpu_name(),
        "cores": devices.cores(),
        "threads": torch.get_num_threads(),
        "torchvision": torchvision.__version__,
        **able,
        "gpus": GPUS,
        "left_out": left_out,
    }
    folder = ROOT / options.out
    stem = file_stem(facts["device"], facts["instructions"])
    before = earlier(folder, stem, facts["threads"])  # anew: another benchmark may have ended since
    return write(folder, with_earlier(rows, before), facts, drawn)


def main() -> int:
    """The command line above. Returns the exit code."""
    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(__doc__)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    benchmark(parse(words), console_of())
    return 0


if __name__ == "__main__":
    cli.run(main)
