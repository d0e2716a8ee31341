"""Images per second of the trainer, of its bare step, and of a plain PyTorch loop, measured by turns.

    python -m experiments.benchmark [device=auto] [NAME=VALUE ...]

  networks    default: cifar3 and every network that a figure trains
  batches     total batch sizes, over 4 virtual GPUs; default 128,512
  precisions  default fp32,bf16
  repeats     rounds in which each of the three has its turn; default 5
  seconds     length of a turn; default 1.0
  minutes     what does not fit into this time is left out, and named; default 9
  threads     CPU threads; default: as many as there are cores
  out         folder of the results; default results/bench

bare     forward, backward and the suite's update on one batch that already lies on the device: no data, no metrics.
         On a CPU in pieces (all images at once, one virtual GPU at a time, 32 images), whichever is fastest.
trainer  what experiments.trainer.train does between two tests.
plain    what a user writes today: `experiments.plain_loop`, with or without worker processes, whichever is faster.

Numerics are alike: fp32 without TF32, bf16 through autocast, cuDNN free to choose its algorithms. Images are random
pixels of the size that the report trained on. Ratios are medians over rounds, with their extremes. Memory is the peak
of CUDA allocations, or on a CPU the peak resident memory, libraries included, of a process that only runs the trainer.
"""

import io
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
import torchvision
from rich import box
from rich.console import Console
from rich.table import Table

import models
from experiments import cli
from experiments import device as devices
from experiments.compose import ROOT, load, names, settings_for
from experiments.errors import UserError
from experiments.estimate import random_images
from experiments.measure import MOST_STEPS, VARIANTS, BareStep, Measured, machine, measure, rate
from experiments.settings import Batch, Dataset, LearningRate, Model, Momentum, Settings, Solver, nearest
from experiments.store import write_atomically
from experiments.words import counted, duration

GPUS = 4
POOL = 50_000 * 32 * 32 * 3
"""Bytes of random pixels at most: CIFAR-10's."""

Row = dict[str, Any]
COLOURS = {"bare": "#999999", "trainer": "#0072BD", "plain": "#D95319"}


@dataclass
class Options:
    """A command line, checked. Empty `networks`: those of the figures."""

    device: str = "auto"
    networks: tuple[str, ...] = ()
    batches: tuple[int, ...] = (128, 512)
    precisions: tuple[str, ...] = ("fp32", "bf16")
    repeats: int = 5
    seconds: float = 1.0
    minutes: float = 9.0
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
            raise UserError(f"There is no option '{name}': {nearest(name, asdict(options))}")
        if name in ("networks", "precisions"):
            choices = models.NAMES if name == "networks" else ("fp32", "bf16")
            for one in value.split(","):
                if one not in choices:
                    raise UserError(f"{name}={one} is not known: {nearest(one, choices)}")
            setattr(options, name, tuple(value.split(",")))
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
    """Each network that a figure trains with the settings of its first curve there."""
    found: dict[str, Settings] = {}
    for name in names("figure"):
        figure = load("figure", name)
        for curve in figure["curves"]:
            settings = settings_for(figure, curve, 0, "paper")
            if settings.model.depth is None and settings.model.width is None:
                found.setdefault(settings.model.name, settings)
    return found


def settings_of(network: str, batch: int, precision: str) -> Settings:
    """What is measured: the images as a figure has them, and a schedule without surprises."""
    classes, channels, size = models.REPORTED[network]
    unused = Dataset(classes=classes, channels=channels, size=size, mirror=network not in ("cifar3", "lenet"))
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


def rows_of(settings: Settings, measured: Measured) -> list[Row]:
    """An item's rows of the CSV, one a variant. trainer_ratio: the trainer's speed over the row's, round by round."""
    rows = []
    for name in VARIANTS:
        rates, peak = measured.rates[name], measured.peaks[name]
        ratios = [mine / other for mine, other in zip(measured.rates["trainer"], rates, strict=True)]
        rows.append(
            {
                "network": settings.model.name,
                "batch": settings.batch.total,
                "precision": settings.precision,
                "variant": name,
                "images_per_second": round(median(rates), 1),
                "min": round(min(rates), 1),
                "max": round(max(rates), 1),
                "trainer_ratio": round(median(ratios), 3),
                "trainer_ratio_min": round(min(ratios), 3),
                "trainer_ratio_max": round(max(ratios), 3),
                "peak_memory_mib": None if peak is None else round(peak),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "note": measured.notes[name],
            }
        )
    return rows


TOO_LARGE = "does not fit into the memory of the GPU"


def expected(network: str, precision: str, options: Options, device: torch.device) -> list[tuple[float, Settings]]:
    """Seconds that each batch size will take, from a few bare steps. Raises torch.OutOfMemoryError."""
    probe = 128 if device.type == "cuda" else 16
    small = settings_of(network, probe, precision)
    bare = BareStep(small, random_images(small, probe, 1), device)
    image = 1 / rate(bare, probe, 0.2, device)
    turns = 3 * options.repeats + 5  # five for the choices
    return [
        (
            8 + turns * (max(options.seconds, image * batch) + image * batch + 0.2),
            settings_of(network, batch, precision),
        )
        for batch in options.batches
    ]


def plan(options: Options, device: torch.device) -> tuple[list[Settings], float, list[str]]:
    """What fits into the time, its seconds, and a line for each item left out.

    Every network's cheapest item comes before any second one. The time that planning takes counts as well.
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
        of_network.sort(key=lambda item: item[0])
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


def by_item(rows: Sequence[Row]) -> list[dict[str, Row]]:
    """The rows of each item by variant."""
    n = len(VARIANTS)
    return [{row["variant"]: row for row in rows[i : i + n]} for i in range(0, len(rows), n)]


def spread(row: Row) -> str:
    """How many times as fast the trainer is, with the extremes: "0.98 (0.95-1.01)"."""
    return f"{row['trainer_ratio']:.2f} ({row['trainer_ratio_min']:.2f}-{row['trainer_ratio_max']:.2f})"


def table(rows: Sequence[Row]) -> Table:
    """Three lines an item, one a variant."""
    shown = Table("network", "variant", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("images/s", "trainer is times", "MiB"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("with")
    for of in by_item(rows):
        for name, row in of.items():
            item = {"bare": row["network"], "trainer": f"batch {row['batch']}", "plain": row["precision"]}
            ratio = "" if name == "trainer" else spread(row)
            memory = "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:,}"
            end = name == VARIANTS[-1]
            shown.add_row(
                item[name], name, f"{row['images_per_second']:,.0f}", ratio, memory, row["note"], end_section=end
            )
    return shown


def draw(rows: Sequence[Row], facts: Row) -> bytes:
    """The bar chart as PNG: speeds on the left, how many times as fast the trainer is on the right."""
    from matplotlib.figure import Figure

    items = by_item(rows)
    figure = Figure(figsize=(11, 1.8 + 0.8 * len(items)), layout="constrained")
    speeds, ratios = figure.subplots(1, 2, sharey=True)

    def bar(axes, y: float, name: str, label: str, values: Sequence[float], text: str) -> None:
        middle, low, high = values
        whiskers = [[middle - low], [high - middle]]
        known = axes.get_legend_handles_labels()[1]
        axes.barh(y, middle, 0.25, xerr=whiskers, color=COLOURS[name], label=None if label in known else label)
        axes.annotate(text, (high, y), (5, 0), textcoords="offset points", va="center", size=8)

    for i, of in enumerate(items):
        for k, (name, row) in enumerate(of.items()):
            y, speed = i + 0.27 * (k - 1), row["images_per_second"]
            bar(speeds, y, name, name, (speed, row["min"], row["max"]), f"{speed:,.0f}")
            if name != "trainer":
                values = row["trainer_ratio"], row["trainer_ratio_min"], row["trainer_ratio_max"]
                bar(ratios, y, name, f"trainer / {name}", values, f"{values[0]:.2f}")
    names = [f"{r['network']}\nbatch {r['batch']}, {r['precision']}" for r in (of["trainer"] for of in items)]
    speeds.set_yticks(range(len(items)), names)
    speeds.invert_yaxis()
    middles = [row["images_per_second"] for row in rows]
    speeds.set(
        xscale="log" if max(middles) > 20 * min(middles) else "linear",
        xlabel="images per second: median, least and most",
    )
    ratios.axvline(1, color="black", linewidth=0.8)
    ratios.set(xlabel="trainer is times as fast: median, least and most")
    for axes in (speeds, ratios):
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    rounds = counted(facts["repeats"], "round")
    figure.suptitle(f"{facts['device']}, torch {facts['torch']}, {rounds} of {facts['seconds']:g} s", size=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})  # reruns differ in numbers only
    return buffer.getvalue()


def write(folder: Path, rows: Sequence[Row], facts: Row) -> list[Path]:
    """The files <device>.csv, .json and .png; returns their paths. Raises UserError where they cannot be written."""
    frame = pd.DataFrame(list(rows)).astype({"peak_memory_mib": "Int64"})
    slug = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    contents: dict[str, bytes | str] = {
        "csv": frame.to_csv(index=False, lineterminator="\n"),
        "json": json.dumps(dict(facts), indent=1) + "\n",
        "png": draw(rows, facts),
    }
    paths = [folder / f"{slug}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content)
    return paths


def benchmark(options: Options, console: Console) -> list[Path]:
    """Measure what the options ask for, print it and write it. Returns the paths of the results."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    device = devices.choose(options.device)
    devices.configure(device, options.threads)
    say(f"Benchmark on {devices.name(device)}, torch {torch.__version__}")
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
    for number, settings in enumerate(items, 1):
        try:
            measured = measure(settings, device, options.repeats, options.seconds)
        except torch.OutOfMemoryError:
            left_out.append(f"{title(settings)}: {TOO_LARGE}")
            say(f"  [{number}/{len(items)}] left out: {left_out[-1]}")
            continue
        of = {row["variant"]: row for row in rows_of(settings, measured)}
        rows += of.values()
        say(
            f"  [{number}/{len(items)}] {title(settings)}: {of['trainer']['images_per_second']:,.0f} images/s, "
            f"{of['bare']['trainer_ratio']:.2f} of the bare step ({of['bare']['note']}), "
            f"{of['plain']['trainer_ratio']:.2f} times the plain loop ({of['plain']['note']})"
        )
    if not rows:
        raise UserError(f"Each of the items {TOO_LARGE}: try smaller batches or other networks.")
    facts = devices.environment(device) | {
        "processor": devices.cpu_name(),
        "cores": devices.cores(),
        "threads": torch.get_num_threads(),
        "torchvision": torchvision.__version__,
        **able,
        "gpus": GPUS,
        "repeats": options.repeats,
        "seconds": options.seconds,
        "left_out": left_out,
    }
    paths = write(ROOT / options.out, rows, facts)
    console.print(table(rows))
    for path in paths:
        say(f"  {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return paths


def main() -> int:
    """The command line above. Returns the exit code."""
    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(__doc__)
        return 0
    benchmark(parse(words), Console())
    return 0


if __name__ == "__main__":
    cli.run(main)
