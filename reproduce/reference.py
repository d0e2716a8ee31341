"""The report's own numbers (arXiv 1803.09820v2): digitised curves, printed tables and the author's raw logs.

Everything is read from ``results/paper``. A panel is named as its file, for example ``fig09a``.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.errors import UserError
from reproduce.series import Curve, moving_mean

ROOT = Path(__file__).resolve().parents[1] / "results" / "paper"
INSET = " (inset)"
Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Correction:
    """How a panel's x axis relates to the true iteration or learning rate: truth = x * ``scale`` + ``shift``.

    ``axes``: the same for the printed limits of the axis.
    """

    scale: float
    shift: float
    note: str
    axes: float = 1.0


def _to_the_last_test(tests: int, interval: int, iterations: int, base: float) -> Correction:
    """A range test whose samples were spread evenly up to the largest learning rate, which its last test is short of.

    Panels of range tests spread n samples over (base, peak] in steps of (peak - base) / n. Where the run is no multiple
    of the test interval, the rate at test k is base + (peak - base) k interval / iterations.
    """
    scale, last = tests * interval / iterations, tests * interval
    note = (
        "report's samples moved left: drawn evenly up to the largest learning rate, but the last test is that of "
        f"iteration {last:,} of {iterations:,}"
    )
    return Correction(scale, base * (1 - scale), note)


_FROM_ONE = Correction(
    1.0, -0.001, "report's samples moved by -0.001: 1a counts tests from 1, 1b from 0, where the first was taken"
)
_SHIFTED = Correction(1.0, 200.0, "report's samples moved by +200: the one drawn at x is the test of iteration x + 200")
CORRECTIONS = {
    # Its 134 samples lie at 0.001 k, k = 1, 4, ..., 400; averaged over seven, 1b's fit best 200 iterations before.
    "fig01a": _FROM_ONE,
    # The runs took no test at iteration 0, yet the axes start there. Panel 6a against the author's log of TBS 512: mean
    # difference 0.010 with the shift, 0.018 without. The same shows at the left end of 3a: a loss of 1.37 at x = 0
    # belongs to a trained network, an untrained one has ln 10 = 2.30.
    **dict.fromkeys(
        ("fig03a", "fig06a", "fig06b", "fig07d", "fig08a", "fig08b", "fig09a", "fig09b", "fig11a"), _SHIFTED
    ),
    # The log of LR=0.1: detail correlates by 0.9 at x + 500, by 0.3 at most at other shifts. (From 100,000 iterations
    # on, where the log was resumed, at x; there the curve is so flat that it makes no difference.)
    "fig04b": Correction(
        1.0, 500.0, "report's samples moved by +500: the one drawn at x is the test of iteration x + 500"
    ),
    # Tested every 100 iterations, drawn every 200: 70 of 70 samples match the log of TBS 1024 in order; mean difference
    # 0.008 with both corrections, 0.015 without the shift.
    "fig15b": Correction(
        0.5, 100.0, "report's x axis is twice the true iterations and starts one test late: moved to x / 2 + 100", 0.5
    ),
    # Lengths from the author's job list; for 14, 50 epochs are what 58 tests every 100 iterations allow.
    "fig12b": _to_the_last_test(19, 200, 3906, 0.08),
    **dict.fromkeys(("fig13a", "fig13b", "fig13c", "fig13d"), _to_the_last_test(48, 200, 9765, 0.1)),
    "fig14a": _to_the_last_test(58, 100, 5859, 0.001),
    "fig14b": _to_the_last_test(58, 100, 5859, 0.01),
    "fig15a": _to_the_last_test(24, 200, 4882, 0.1),
}

SMOOTHED: dict[str, tuple[int, ...]] = {
    # 1b's samples averaged over seven: of one minus the other curve of 1a they leave 0.008, single ones 0.032.
    "fig01a": (3, 7),
    **dict.fromkeys(
        (
            # The 3-layer network, and resnet-56 in 8a. With both ends the mean of two tests, 3a, 4a, 7d, 8a and 10a
            # have lengths from which the tests themselves can be had back, and those look like tests from the first to
            # the last.
            *("fig03a", "fig04a", "fig07a", "fig07b", "fig07c", "fig07d"),
            *("fig08a", "fig09a", "fig09b", "fig10a", "fig10b"),
            # resnet-56 and ImageNet: the noise says so, the ends say nothing.
            *("fig01b", "fig03b", "fig05a", "fig05b"),
        ),
        (3,),
    ),
}
"""Panels whose samples are means of so many neighbouring tests, several widths one after the other.

The report does not say so; their noise does. A mean of three tests has no noise with a period of three. Relative to its
median over periods from two to ten tests, the power there is 0.01 to 0.19 in these panels, 0.6 to 2.2 in the others of
24 samples or more (14a has 0.16, but cannot be a mean of three: undone, its second curve would start with a negative
loss). 1a has a sample of every third test only; but its test loss less its training loss is what 1b draws, smoother."""

PANEL_OF_LOG: dict[str, dict[str, str]] = {
    # The author's logs with a panel's network and settings, after results/paper/logs/index.csv, and the curve each of
    # them belongs to. (3b draws other runs of these settings.) None for figure 1: index.csv names two
    # range tests of its network, but they go to LR 2 in the 80,000 iterations in which the panel goes to 0.4 (test loss
    # at LR 0.06: 0.72, panel: 1.54).
    "fig03b": {
        "hp_resnet50_step_wd1e-4": "Resnet-50",
        "hp_inresv2_step_wd1e-4_r1": "Inception-Resnet-v2",
        "hp_inresv2_step_wd1e-4_r2": "Inception-Resnet-v2",
    },
    "fig04b": {"hp_resnet50_step_wd1e-4": "LR=0.1, WD=1e-4, Mom=0.9"},
    "fig05a": {"sc_clr3SS5kFig1a": "CLR=0.1-3", "sc_lr35Fig1a": "LR=0.35"},
    "fig05b": {
        "sc_clr3SS5kWD-3Fig11": "Weight decay=0.001",
        "sc_clr3SS5kFig1a": "Weight decay=0.0001",
        "sc_clr3SS5kWD-5Fig11": "Weight decay=0.00001",
        "sc_clr3SS5kWD-6Fig11": "Weight decay=0.000001",
    },
    "fig06a": {"hp_resnet56_1cycle_tbs512_ep95": "TBS=512; CLR=0.08-0.8"},
    "fig06b": {"hp_resnet56_1cycle_tbs512_ep95": "TBS=512; CLR=0.08-0.8"},
    "fig15b": {"hp_c100resnet56_1cycle_tbs1036_ep145": "TBS=1024, CLR=0.1-1.2"},
    "fig16a": {
        "hp_resnet50_step_wd1e-4": "Original; LR=0.1, WD=1e-4",
        "hp_resnet50_1cycle_wd3e-6": "1cycle LR=0.1-1, WD=3e-6",
    },
    "fig16b": {
        "hp_inresv2_step_wd1e-4_r1": "Original; LR=0.1, WD=1e-4",
        "hp_inresv2_step_wd1e-4_r2": "Original; LR=0.1, WD=1e-4",
        "hp_inresv2_1cycle_wd3e-6_r1": "1cycle LR=0.1-1, WD=3e-6",
        "hp_inresv2_1cycle_wd1e-6_r1": "1cycle LR=0.1-1, WD=1e-6",
        "hp_inresv2_1cycle_wd1e-6_r2": "1cycle LR=0.1-1, WD=1e-6",
    },
}

FINAL_VALUES = {"fig05a": {"CLR=0.1-3": "92.4 %", "LR=0.35": "91.2 %"}}
"""Values that the report wrote beside the ends of curves."""

BOXES = {"fig01a": (0.004, 0.9, 0.041, 2.05)}
"""Boxes that the report drew around a detail, read off the panel: left, bottom, right, top in the axes' units."""


@dataclass(frozen=True)
class Axes:
    """A panel as printed: title, axis labels, scales (``linear`` or ``log``), limits and legend."""

    title: str
    xlabel: str
    ylabel: str
    xscale: str
    yscale: str
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    series: tuple[str, ...]


@cache
def _checksums() -> dict[str, str]:
    """SHA-256 of every file of numbers, by its path, as ``sha256sum`` writes them."""
    try:
        lines = (ROOT / "SHA256SUMS").read_text().splitlines()
        return {path: digest for digest, path in (line.split(maxsplit=1) for line in lines)}
    except (OSError, ValueError) as error:
        raise UserError(
            f"results/paper/SHA256SUMS is missing or damaged ({error}): bring it back with  "
            "git checkout -- results/paper"
        ) from None


def _read(name: str, **how: Any) -> pd.DataFrame:
    """One of the files, only as it was written: what is compared with must not be half a curve. Raises UserError."""
    path = ROOT / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != _checksums().get(name):
        raise UserError(
            f"results/paper/{name} is missing, damaged or changed: bring the report's numbers back with  "
            "git checkout -- results/paper"
        )
    return pd.read_csv(io.BytesIO(content), **how)


@cache
def _manifest() -> pd.DataFrame:
    return _read("curves/manifest.csv", index_col="panel")


def panels() -> list[str]:
    """Every panel of the report, in its order; ``fig02`` is a sketch without numbers."""
    return list(_manifest().index)


def known(panel: str) -> bool:
    """Whether the report has this panel; figures of one's own have others."""
    return panel in _manifest().index


def _row(panel: str) -> pd.Series:
    if panel not in _manifest().index:
        raise UserError(f"the report has no panel {panel!r}; it has {', '.join(panels())}")
    return _manifest().loc[[panel]].iloc[0]


def axes(panel: str, corrected: bool = True) -> Axes:
    """The printed axes. ``corrected`` halves panel 15b's limits as its samples are; other corrections leave them.

    Panel 2 is a sketch: its limits are NaN, its scales and series empty.
    """
    row = _row(panel)
    text = row.fillna("")
    scale = CORRECTIONS[panel].axes if corrected and panel in CORRECTIONS else 1.0
    legend = [label for label in text["series"].split(" | ") if label and not label.endswith(INSET)]
    return Axes(
        title=text["title"],
        xlabel=text["xlabel"],
        ylabel=text["ylabel"],
        xscale=text["xscale"],
        yscale=text["yscale"],
        xlim=(float(row["xmin"]) * scale, float(row["xmax"]) * scale),
        ylim=(float(row["ymin"]), float(row["ymax"])),
        series=tuple(legend),
    )


@cache
def _rows(panel: str) -> pd.DataFrame:
    """The digitised rows ``series, x, y`` and whether each is a crossing of the frame rather than a recorded sample.

    Samples lie on a grid (one every so many iterations); a crossing lies off it and on an edge of the axes.
    """
    frame = _row(panel)
    if (name := f"curves/{panel}.csv") not in _checksums():  # a sketch
        return pd.DataFrame({"series": pd.Series(dtype=str), "x": [], "y": [], "crossing": pd.Series(dtype=bool)})
    rows = _read(name)
    x, y = rows["x"], rows["y"]
    on_edge = np.isclose(x, frame["xmin"], rtol=2e-3) | np.isclose(x, frame["xmax"], rtol=2e-3)
    on_edge |= np.isclose(y, frame["ymin"], rtol=2e-3) | np.isclose(y, frame["ymax"], rtol=2e-3)
    steps = x.groupby(rows["series"]).transform(lambda s: (s - s.iloc[len(s) // 2]) / s.diff().median())
    return rows.assign(crossing=on_edge & ((steps - steps.round()).abs() > 1e-3))


def _points(panel: str, rows: pd.DataFrame, corrected: bool) -> dict[str, Points]:
    fix = CORRECTIONS[panel] if corrected and panel in CORRECTIONS else Correction(1.0, 0.0, "")
    return {
        str(label): (part["x"].to_numpy(dtype=float) * fix.scale + fix.shift, part["y"].to_numpy(dtype=float))
        for label, part in rows.groupby("series", sort=False)
    }


def load(panel: str, corrected: bool = True) -> dict[str, Points]:
    """The report's samples: legend label -> (x, y), both float64 [n], x ascending; insets and crossings left out.

    x is in true units (iteration, learning rate, momentum); ``corrected=False`` gives it as drawn.
    Empty for ``fig02``. Raises UserError for an unknown panel.
    """
    rows = _rows(panel)
    return _points(panel, rows[~rows["crossing"] & ~rows["series"].str.endswith(INSET)], corrected)


def inset(panel: str) -> dict[str, Points]:
    """The samples of the panel's zoom box by label (6a, 8b, 15b); empty where the panel has none."""
    rows = _rows(panel)
    rows = rows[~rows["crossing"] & rows["series"].str.endswith(INSET)]
    return _points(panel, rows.assign(series=rows["series"].str.removesuffix(INSET)), True)


def exits(panel: str) -> dict[str, Points]:
    """Where a curve passes through the top of its panel after its first sample: a divergence, mostly."""
    rows = _rows(panel)
    top = rows["crossing"] & np.isclose(rows["y"], _row(panel)["ymax"], rtol=2e-3) & rows["series"].duplicated()
    return _points(panel, rows[top & ~rows["series"].str.endswith(INSET)], True)


def note(panel: str, divide: float = 1) -> str | None:
    """For a drawing: how the panel's x was corrected and its samples averaged; None where neither was.

    divide: how much shorter than the report's our runs were, see `as_drawn`.
    """
    notes = [CORRECTIONS[panel].note] if panel in CORRECTIONS else []
    if widths := SMOOTHED.get(panel):
        alike = "and ours are averaged alike" if divide == 1 else "ours are single tests"
        again = "".join(f", {width} of those averaged again" for width in widths[1:])
        notes.append(f"report's samples are means of {widths[0]} neighbouring tests{again}, {alike}")
    return "; ".join(notes) or None


def as_drawn(panel: str, curve: Curve, divide: float) -> Curve:
    """Our curve averaged over neighbouring tests where the report's of this panel are (`SMOOTHED`).

    divide: how much shorter than the report's our runs were: with other tests than its own they are left as they are.
    """
    for width in SMOOTHED.get(panel, ()) if divide == 1 else ():
        curve = moving_mean(curve, width)
    return curve


def quantity(panel: str, label: str) -> str:
    """What a curve shows (``test_loss``, ``test_accuracy``, ``train_loss``, ``generalization_error``).

    Panels 1a, 7b and 7d say so in the legend, the others on the y axis.
    """
    for text in (label, _row(panel)["ylabel"]):
        words = text.lower()
        if "generalization" in words:
            return "generalization_error"
        if "accuracy" in words and "loss" not in words:
            return "test_accuracy"
        if "loss" in words and "accuracy" not in words:
            return "train_loss" if "train" in words else "test_loss"
    raise ValueError(f"cannot tell what {label!r} of {panel} shows")


def curves(panel: str) -> dict[str, dict[str, Curve]]:
    """The report's panel in the shape of ours: quantity -> label -> Curve, corrected x, no spread.

    A curve that leaves through the top keeps its crossings (they lie on the drawn line) and, if it does not come back,
    goes on along the edge to the end of the axis: a lower bound of what the panel hides. Without it a divergence
    would look like an early end.
    """
    result: dict[str, dict[str, Curve]] = {}
    out, end = exits(panel), axes(panel).xlim[1]
    for label, (x, y) in load(panel).items():
        if label in out:
            gone, top = out[label]
            spacing = np.median(np.diff(x))
            if gone[-1] > x[-1]:
                beyond = np.arange(gone[-1] + spacing, end + spacing / 2, spacing)
                gone, top = np.append(gone, beyond), np.append(top, np.full_like(beyond, top[-1]))
            x, y = np.append(x, gone), np.append(y, top)
            order = np.argsort(x, kind="stable")
            x, y = x[order], y[order]
        curve = Curve(label, x, y, np.zeros_like(y), replicates=1)
        result.setdefault(quantity(panel, label), {})[label] = curve
    return result


def table(name: str) -> pd.DataFrame:
    """``table1`` or ``table2`` as printed, one line a row, settings as text. Raises UserError for another name."""
    if name not in ("table1", "table2"):
        raise UserError(f"the report has no table {name!r}; it has table1 and table2")
    numbers = {"row", "epochs", "tbs", "accuracy_percent", "accuracy_std"}
    text = _read(f"tables/{name}.csv", dtype=str)
    return text.assign(**{name: pd.to_numeric(text[name]) for name in text if name in numbers})


def log(name: str) -> pd.DataFrame:
    """One of the author's training logs: a row per display; see ``results/paper/logs/index.csv`` for their settings.

    Training loss and accuracy are those of one batch. Raises UserError for an unknown name.
    """
    if (path := f"logs/{name}.csv") not in _checksums():
        known = [Path(p).stem for p in _checksums() if p.startswith("logs/") and p != "logs/index.csv"]
        raise UserError(f"there is no log {name!r}; there are {', '.join(known)}")
    return _read(path)


def logs_for(panel: str) -> dict[str, str]:
    """Names of the author's logs that are runs of this panel, and the curve each is; empty for most."""
    return dict(PANEL_OF_LOG.get(panel, {}))
