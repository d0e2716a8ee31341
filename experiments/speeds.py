"""Speeds that `experiments.benchmark` measured on this device with this torch, for estimates and choices."""

import csv
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

import models
from experiments import device as devices
from experiments.compose import ROOT
from experiments.settings import Settings

FOLDER = ROOT / "results" / "bench"


class Row(NamedTuple):
    """What is wanted of a row of the benchmark. start: seconds until the first step was done.

    way: eager, graph or compile, or another variant's name.
    """

    network: str
    batch: int
    precision: str
    way: str
    rate: float
    start: float


def file_stem(device_name: str, instructions: str | None) -> str:
    """How the benchmark's files of a device are called.

    instructions: see `experiments.device`. Processors of one name ("AMD EPYC" on a virtual machine) differ in them, and
    then several times in speed: bf16 beats fp32 on the one and takes ten times as long on the other.
    """
    return re.sub(r"[^a-z0-9]+", "-", f"{device_name} {instructions or ''}".lower()).strip("-")


def benchmark_of(device: torch.device) -> Path | None:
    """The committed or one's own benchmark of this very device and torch, None where there is none, or half of it."""
    name, instructions = devices.name(device), devices.instructions(device)
    path = FOLDER / f"{file_stem(name, instructions)}.json"
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):  # a hint, without which speeds are measured
        return None
    now = {"device": name, "instructions": instructions, "torch": torch.__version__}
    same = isinstance(facts, dict) and all(facts.get(what) == value for what, value in now.items())
    return path.with_suffix(".csv") if same else None


@cache
def _rows(path: Path) -> tuple[Row, ...]:
    """Of a benchmark's table; none where it is lost or damaged."""
    try:
        with open(path, newline="") as file:
            return tuple(map(_row, csv.DictReader(file)))
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return ()


def _row(said: dict[str, str]) -> Row:
    return Row(
        said["network"],
        int(said["batch"]),
        said["precision"],
        (said["note"] or "eager") if said["variant"] == "trainer" else said["variant"],
        float(said["images_per_second"]),
        float(said.get("start_seconds") or 0),
    )


def rows_for(settings: Settings, device: torch.device) -> list[Row]:
    """The rows of the settings' network and precision, at the batch size that is nearest by ratio."""
    path, d, m = benchmark_of(device), settings.dataset, settings.model
    if path is None or m.depth or m.width or models.REPORTED[m.name][1:] != (d.channels, d.size):
        return []
    rows = [row for row in _rows(path) if (row.network, row.precision) == (m.name, settings.precision)]
    total = settings.batch.total
    nearest = min((max(row.batch, total) / min(row.batch, total) for row in rows), default=0)
    return [row for row in rows if max(row.batch, total) / min(row.batch, total) == nearest]


def quickest(settings: Settings, device: torch.device, among: tuple[str, ...]) -> str | None:
    """The way of `experiments.step` that ends the run first, its start included; None where one was not measured."""
    rows = {row.way: row for row in rows_for(settings, device)}
    if not all(way in rows for way in among):
        return None
    images = settings.iterations * settings.batch.total
    return min(among, key=lambda way: rows[way].start + images / rows[way].rate)
