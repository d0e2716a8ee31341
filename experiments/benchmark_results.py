"""What the benchmark found, as rows, table, chart and files."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from rich import box
from rich.table import Table

import models
from experiments.errors import UserError
from experiments.files import write_atomically
from experiments.measure import CONTESTANTS, Measured
from experiments.settings import Settings
from experiments.speeds import file_stem

Row = dict[str, Any]
COLOURS = {"bare": "#999999", "trainer": "#0072BD", "plain": "#D95319"}
OFF = "#77AC30"
COLUMNS = (
    *("network", "batch", "precision", "variant", "images_per_second", "min", "max"),
    *("trainer_ratio", "trainer_ratio_min", "trainer_ratio_max", "bound", "start_seconds", "peak_memory_mib"),
    *("torch", "threads", "rounds", "turn_seconds", "note"),
)


def rows_of(settings: Settings, measured: Measured, copy_gb_per_s: float, turn: float) -> list[Row]:
    """An item's rows of the CSV, one a variant; `turn` is the length of one in seconds.

    trainer_ratio: the trainer's speed over the row's, round by round. bound: images per second that copying bandwidth
    allows (`experiments.traffic`). start_seconds: until the first step was done.
    """
    rows = []
    for name, rates in measured.rates.items():
        peak = measured.peaks[name]
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
                "bound": round(1e9 * copy_gb_per_s / measured.traffic, 1),
                "start_seconds": round(measured.starts[name], 1),
                "peak_memory_mib": None if peak is None else round(peak),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "rounds": len(rates),
                "turn_seconds": turn,
                "note": measured.notes[name],
            }
        )
    return rows


def item(row: Row) -> tuple[str, int, str]:
    """What a row measures: network, total batch, precision."""
    return row["network"], row["batch"], row["precision"]


def by_item(rows: Sequence[Row]) -> list[dict[str, Row]]:
    """The rows of each item by variant."""
    items: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        items.setdefault(item(row), {})[row["variant"]] = row
    return list(items.values())


def spread(row: Row) -> str:
    """How many times as fast the trainer is, with the extremes: "0.98 (0.95-1.01)"."""
    return f"{row['trainer_ratio']:.2f} ({row['trainer_ratio_min']:.2f}-{row['trainer_ratio_max']:.2f})"


def table(rows: Sequence[Row]) -> Table:
    """A line a variant, with its share of the bound; an item's last line says what that is."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("network", "variant"):
        shown.add_column(column, no_wrap=True)
    for column in ("images/s", "bound", "trainer is times", "MiB"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("with", no_wrap=True, overflow="ellipsis")
    for of in by_item(rows):
        first = next(iter(of.values()))
        heads = [first["network"], f"batch {first['batch']}", first["precision"]]
        for name, row in of.items():
            ratio = "" if name == "trainer" else spread(row)
            memory = "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:,}"
            speed, share = f"{row['images_per_second']:,.0f}", f"{row['images_per_second'] / row['bound']:.0%}"
            shown.add_row(heads.pop(0) if heads else "", name, speed, share, ratio, memory, row["note"])
        shown.add_row("", "bound", f"{first['bound']:,.0f}", "", "", "", "memory traffic alone", end_section=True)
    return shown


def draw(rows: Sequence[Row], facts: Row) -> bytes:
    """The bar chart as PNG: speeds on the left, how many times as fast the trainer is on the right."""
    from matplotlib.figure import Figure

    items = by_item(rows)
    figure = Figure(figsize=(11, 1.8 + 0.27 * (len(rows) + len(items))), layout="constrained")
    speeds, ratios = figure.subplots(1, 2, sharey=True)

    def bar(axes: Any, y: float, name: str, values: Sequence[float], text: str) -> None:
        middle, low, high = values
        whiskers = [[middle - low], [high - middle]]
        label, colour = (name if name in CONTESTANTS else "trainer without"), COLOURS.get(name, OFF)
        known = axes.get_legend_handles_labels()[1]
        axes.barh(y, middle, 0.8, xerr=whiskers, color=colour, label=None if label in known else label)
        axes.annotate(text, (high, y), (5, 0), textcoords="offset points", va="center", size=8)

    places, names, y = [], [], 0.0
    for of in items:
        r = of["trainer"]
        for k, (name, row) in enumerate(of.items()):
            speed = row["images_per_second"]
            bar(speeds, y, name, (speed, row["min"], row["max"]), f"{speed:,.0f}")
            if name != "trainer":
                values = row["trainer_ratio"], row["trainer_ratio_min"], row["trainer_ratio_max"]
                bar(ratios, y, name, values, f"{values[0]:.2f}")
            places.append(y)
            head = f"{r['network']}, batch {r['batch']}, {r['precision']}:  " if k == 0 else ""
            names.append(head + (name if name in CONTESTANTS or name.startswith("no ") else f"as {name}"))
            y += 1
        y += 1
    speeds.set_yticks(places, names)
    speeds.set_ylim(y - 0.4, -1)
    middles = [row["images_per_second"] for row in rows]
    speeds.set(
        xscale="log" if max(middles) > 20 * min(middles) else "linear",
        xlabel="images per second: median, least and most",
    )
    ratios.axvline(1, color="black", linewidth=0.8)
    ratios.set(xlabel="trainer is times as fast as that: median, least and most")
    for axes in (speeds, ratios):
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    speeds.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
    with_what = f" with {facts['instructions']}" if facts["instructions"] else ""
    figure.suptitle(f"{facts['device']}{with_what}, torch {facts['torch']}, {_turns(rows)}", size=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})  # reruns differ in numbers only
    return buffer.getvalue()


def _turns(rows: Sequence[Row]) -> str:
    """How the rows were measured: "3 rounds of 1 s", or of several kinds "3 to 5 rounds of 0.5 to 1 s"."""

    def both(values: set) -> str:
        low, high = f"{min(values):g}", f"{max(values):g}"
        return high if low == high else f"{low} to {high}"

    rounds = {row["rounds"] for row in rows}
    return f"{both(rounds)} round{'' if rounds == {1} else 's'} of {both({row['turn_seconds'] for row in rows})} s"


def earlier(folder: Path, stem: str, threads: int) -> list[Row]:
    """The rows of a device's file in the folder (`speeds.file_stem`) that this torch measured with these threads.

    Raises UserError for a file that is not a benchmark's.
    """
    path = folder / f"{stem}.csv"
    if not path.is_file():
        return []
    try:
        frame = pd.read_csv(path, dtype={"peak_memory_mib": "Int64"})[list(COLUMNS)].astype(object)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a benchmark's file as this version writes it: move it away, or give another out=FOLDER."
        ) from error
    frame = frame.where(frame.notna(), None)
    rows = [{column: row[column] for column in COLUMNS} for row in frame.to_dict("records")]
    return [row for row in rows if (row["torch"], row["threads"]) == (torch.__version__, threads)]


def with_earlier(rows: Sequence[Row], before: Sequence[Row]) -> list[Row]:
    """The rows, and those from before that none of them replaces: each keeps the ratio that was measured with it."""
    new = {(item(row), row["variant"]) for row in rows}
    both = [*rows, *(row for row in before if (item(row), row["variant"]) not in new)]
    return sorted(both, key=lambda row: (models.NAMES.index(row["network"]), row["batch"], row["precision"] != "fp32"))


def write(folder: Path, rows: Sequence[Row], facts: Row, drawn: bool = True) -> list[Path]:
    """The files STEM.csv, .json and, if drawn, .png (`speeds.file_stem`); their paths.

    Raises UserError where that fails.
    """
    frame = pd.DataFrame(list(rows)).astype({"peak_memory_mib": "Int64"})
    slug = file_stem(facts["device"], facts["instructions"])
    contents: dict[str, bytes | str] = {
        "csv": frame.to_csv(index=False, lineterminator="\n"),
        "json": json.dumps(dict(facts), indent=1) + "\n",
    }
    if drawn:
        contents["png"] = draw(rows, facts)
    paths = [folder / f"{slug}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content)
    return paths
