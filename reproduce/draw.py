"""Our curves over the report's, in the report's axes, with what they are written on them."""

import io
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from experiments.curves import DESCRIBED, quantities
from experiments.divergence import DIVERGED_FROM
from experiments.files import write_atomically
from experiments.words import changes, panel_number, spoken
from reproduce import readings, reference, tables
from reproduce.axes import COLOURS, limits, literal, mapped, plain_log_ticks, spread
from reproduce.claims.numbers import short
from reproduce.own_panels import draw_capacity, draw_own_panel
from reproduce.panels import as_drawn, over_their_axes, panel_curves
from reproduce.series import Curve, counts, labels, one_run, over_others_rates, pick
from reproduce.summary import Summary, fewest, replicates

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.transforms import Bbox

DASH_DOT: Any = "-."
"""Of momentum as described."""

DASHES: tuple[Any, ...] = ((0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (10, 2)), (0, (10, 2, 2, 2)), (0, (10, 2, 2, 2, 2, 2)))
"""Of a curve's other readings: dash-dotted with two dots, and where it has more, in long dashes."""

CROWDED = 4
"""So many other readings of other names are drawn beside their panel, not into it."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "reproducible",
}


def draw(figure: Mapping[str, Any], summary: Summary, folder: Path, name: str | None = None) -> list[Path]:
    """Write NAME.png and .pdf from a summary (by default the figure's name, or a hand-changed one's); their paths."""
    facts = summary.facts
    name = name or facts["figure"] + (f"-{facts['variant']}" if facts["variant"] != facts["scale"] else "")
    if figure.get("kind") == "table":
        return draw_table(figure, summary, folder, name)
    with plt.rc_context(STYLE):
        return save(_panels(figure, summary, columns=2, width=6.4), folder, name)


def draw_narrow(figure: Mapping[str, Any], summary: Summary) -> bytes:
    """The same drawing for a telephone, as a PNG of few colours: panels below each other, letters that can be read."""
    buffer, small = io.BytesIO(), io.BytesIO()
    with plt.rc_context(STYLE):
        drawing = _panels(figure, summary, columns=1, width=4.4)
        drawing.savefig(buffer, format="png", dpi=170)
        plt.close(drawing)
    Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def _panels(figure: Mapping[str, Any], summary: Summary, columns: int, width: float) -> Any:
    """A figure's panels in at most so many columns, each so many inches wide, with head and foot."""
    facts = summary.facts
    rows = over_their_axes(figure, summary.rows, facts)
    panels = panel_curves(figure, rows, facts["divide"], facts["parameters"])
    others = {panel: _others(figure, rows, panel, facts["divide"]) for panel in panels}
    named = {panel: {other[2].label for other in others[panel] if _has_a_name(*other)} for panel in panels}
    crowded = [panel for panel in panels if len(named[panel]) >= CROWDED]
    places = [*((panel, False) for panel in panels), *((panel, True) for panel in crowded)]
    columns = min(columns, len(places))
    lines = math.ceil(len(places) / columns)
    alone = 1.6 if len(places) == 1 and width > 5 else 0.0
    drawing, axes = plt.subplots(lines, columns, figsize=(width * columns + alone, 4.5 * lines + 1.2), squeeze=False)
    for ax in axes.flat[len(places) :]:
        ax.set_visible(False)
    for ax, (panel, apart) in zip(axes.flat, places, strict=False):
        what, curves = figure["panels"][panel], panels[panel]
        if what["x"] == "parameters":
            ran = set(summary.rows["curve"])
            draw_capacity(ax, curves, [text for name, text in labels(figure, panel).items() if name not in ran])
        elif not reference.known(panel):
            shown = labels(figure, panel)
            draw_own_panel(ax, panel, what, curves, facts, {name: shown.get(name, "") for name in figure["curves"]})
        else:
            drawn = as_drawn(panel, curves, facts["divide"])
            draw_panel(ax, panel, what, drawn, facts, others[panel] if apart or panel not in crowded else (), apart)
        if any(title.startswith("shapes") for title in facts["data"]):
            words = {"ha": "center", "va": "center", "rotation": 18, "fontsize": 4.5 * width, "zorder": 0}
            ax.text(0.5, 0.5, "made images", color="0.9", transform=ax.transAxes, **words)
        fit = int(13 * width - 9)
        ax.set_title(textwrap.fill(ax.get_title(loc="left"), fit), fontsize=9, loc="left")
        ax.set_xlabel(textwrap.fill(ax.get_xlabel(), fit))
        if width < 5 and ax.get_xscale() == "linear":
            ax.locator_params(axis="x", nbins=5)
        if not (called := ax.get_legend_handles_labels()[1]):
            continue  # none of its curves has been run
        longest = max(len(line) for label in called for line in str(label).splitlines())
        beside = max(1, min(3, fit // (longest + 5)))  # a legend wider than its panel would narrow all of them
        below = 4.5 + 1.5 * ax.get_xlabel().count("\n")  # letters' heights: under ticks and the axis's name
        at = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": below}
        ax.legend(fontsize=8, ncol=beside, frameon=False, **at)
    more = one_run(figure, summary.rows) if facts["overrides"] else ""
    bars = all(figure["panels"][panel]["x"] == "parameters" for panel in panels)
    if any(c.diverged for curves in panels.values() for series in curves.values() for c in series.values()):
        more = f"Diverged: at Caffe's largest loss, {DIVERGED_FROM:g}, to the end.  {more}".rstrip()
    more = "  ".join(filter(None, [more, *over_others_rates(figure, summary.rows)]))
    _head_and_foot(drawing, facts, list(panels), figure, more, bars)
    return drawing


Other = tuple[str, str, Curve]
"""The label of the curve that another reading stands for, its quantity, and the reading's own curve."""


def _others(figure: Mapping[str, Any], rows: Any, panel: str, divide: float) -> list[Other]:
    drawn_otherwise = figure["panels"][panel]["x"] == "parameters" or not reference.known(panel)
    return [] if drawn_otherwise else readings.on_panel(figure, rows, panel, divide)


def _has_a_name(main: str, _: str, curve: Curve) -> bool:
    """Whether another reading has a line of the legend to itself; momentum as described has one for all of them."""
    return curve.label != f"{main}, {DESCRIBED}"


def save(drawing: Any, folder: Path, name: str) -> list[Path]:
    """Write a drawing as PNG and PDF and close it; the same numbers give the same bytes (no date, no version)."""
    paths = []
    for suffix, nothing in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
        buffer = io.BytesIO()
        drawing.savefig(buffer, format=suffix, dpi=130, metadata=nothing)
        paths.append(folder / f"{name}.{suffix}")
        write_atomically(paths[-1], buffer.getvalue())
    plt.close(drawing)
    return paths


def draw_panel(
    ax: Any,
    panel: str,
    what: Mapping[str, str],
    curves: Mapping[str, Mapping[str, Curve]],
    facts: Mapping[str, Any],
    others: Sequence[Other] = (),
    apart: bool = False,
) -> None:
    """One panel: solid lines with bands are ours, thin ones our single runs, dashed ones the report's samples.

    Pale dash-dotted lines are momentum as described, with two dots or in long dashes other readings
    (`reproduce.readings`), dotted ones the author's own logs of the panel's runs, all in the colour of the curve each
    stands for. Panels 6a, 8b and 15b have the report's zoom box. apart: of ours the other readings only.
    """
    frame = reference.axes(panel)
    palette = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(frame.series)}
    lines = _lines(panel, curves, palette)
    ours = [(own, quantity) for quantity, series in curves.items() for own in series]
    colours = {of: line[1] for of, line in zip(ours, lines, strict=True)}
    if apart:
        lines = []
    _curves(ax, panel, lines, fewest(facts))
    has_log = _authors_logs(ax, panel, what, palette)
    _marks(ax, panel, lines)
    so_far: Counter[tuple[str, str]] = Counter()
    several = len({quantity for _, quantity, _ in others}) > 1
    for main, quantity, curve in others:
        colour, dashes, label = colours.get((main, quantity), palette.get(main, "0.3")), DASH_DOT, None
        if _has_a_name(main, quantity, curve):
            dashes = DASHES[so_far[main, quantity] % len(DASHES)]
            label = f"{short(quantity)}: " * several + curve.label
            label = label if apart else f"read otherwise: {label}"
            so_far[main, quantity] += 1
        ax.plot(curve.x, curve.mean, linestyle=dashes, color=colour, linewidth=1.2, alpha=0.6, zorder=2, label=label)
    ax.set_xscale(frame.xscale)
    ax.set_yscale(frame.yscale, **({"nonpositive": "mask"} if frame.yscale == "log" else {}))
    ax.set_xlim(*frame.xlim)
    lowest = min((float(np.nanmin(y)) for _, y in reference.load(panel).values()), default=np.inf)
    shown = [curve for _, _, curve in others] if apart else [curve for curve, _, _ in lines]
    ax.set_ylim(*limits(frame.ylim, shown, frame.yscale == "log", lowest))
    if frame.yscale == "log":
        plain_log_ticks(ax)
        if text := _unseen([curve.mean for curve in shown], ax.get_ylim()[0]):
            ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            ax.text(0.01, 0.01, text, color="0.35", transform=ax.transAxes, bbox=ground)
    ax.set_xlabel(frame.xlabel + mapped(what, facts))
    ax.set_ylabel(frame.ylabel)
    of_it = ", read otherwise" if apart else ""
    ax.set_title(f"{panel_number(panel)}{of_it}   report: {frame.title.rstrip(';')}", loc="left")
    if not all(_has_a_name(*other) for other in others):
        ax.plot([], [], linestyle=DASH_DOT, color="0.3", linewidth=1.2, alpha=0.6, label=f"with {DESCRIBED}")
    ax.plot([], [], "--", color="0.3", linewidth=0.9, label="the report's curves")
    if has_log:
        ax.plot([], [], ":", color="0.3", linewidth=0.9, label="the author's logs")
    missing = [] if apart else [label for label in frame.series if label not in {name for _, _, name in lines}]
    for label in missing if len(missing) <= 4 else ():  # which of the report's curves it is, ours cannot tell
        ax.plot([], [], "--", color=palette[label], linewidth=0.9, label=textwrap.fill(f"not run: {label}", 40))
    if len(missing) > 4:
        ax.plot([], [], " ", label=f"not run: {len(missing)} of {len(frame.series)}")
    if zoom := reference.inset(panel):
        _zoom_box(ax, panel, zoom, lines)


def _unseen(means: Sequence[np.ndarray], bottom: float) -> str:
    """Where a logarithmic axis from `bottom` on cannot show values below 0: how many of ours lie there and under it."""
    below = sum(int((mean <= 0).sum()) for mean in means)
    under = sum(int(((mean > 0) & (mean < bottom)).sum()) for mean in means)
    if not below:
        return ""
    more = f", {under} more below this axis" if under else ""
    return f"{below} of our values {'is' if below == 1 else 'are'} 0 or below{more}"


Line = tuple[Curve, str, str]
"""Our curve, its colour, and the legend label of the report's series that it reproduces (else its own)."""


def _lines(panel: str, curves: Mapping[str, Mapping[str, Curve]], colour: dict[str, str]) -> list[Line]:
    legends, lines = reference.curves(panel), []
    for quantity, series in curves.items():
        theirs = legends.get(quantity, {})
        for own, curve in series.items():
            same = pick(theirs, None if len(series) == len(theirs) == 1 else own)
            label = same.label if same else own
            lines.append((curve, colour.setdefault(label, COLOURS[len(colour) % len(COLOURS)]), label))
    return lines


def _curves(ax: Any, panel: str, lines: list[Line], alike: int = 1) -> None:
    """The report's samples and our means with their spread, in the report's colours; alike: see `series.counts`."""
    order = reference.axes(panel).series
    gone = reference.exits(panel)
    for label, (x, y) in reference.load(panel).items():
        colour = COLOURS[order.index(label) % len(COLOURS)]
        if label in gone:  # goes on to where it leaves the report's panel, and if that is its end, out of ours too
            at, top = gone[label]
            beyond = at[-1:] if at[-1] > x[-1] else at[:0]
            x, y = np.concatenate([x, at, beyond]), np.concatenate([y, top, np.full_like(beyond, DIVERGED_FROM)])
            order_in_x = np.argsort(x, kind="stable")
            x, y = x[order_in_x], y[order_in_x]
        ax.plot(x, y, "--", color=colour, linewidth=0.9, alpha=0.9, zorder=2)
    for curve, colour, label in lines:
        point = "." if len(curve.x) == 1 else ""  # no line goes through a single test
        name = literal(label) + counts(curve, alike)
        ax.plot(curve.x, curve.mean, color=colour, linewidth=1.7, marker=point, zorder=3, label=name)
        spread(ax, curve, colour)


def _authors_logs(ax: Any, panel: str, what: Mapping[str, Any], palette: Mapping[str, str]) -> bool:
    """The author's logs in the colours of the curves they are, if the panel shows what they hold. Returns whether."""
    shown = False
    for name, of in reference.logs_for(panel).items():
        log = reference.log(name)
        for quantity in (q for q in quantities(what) if q in log.columns):
            kept = log[log[quantity].notna() & (log[quantity] < DIVERGED_FROM)]
            ax.plot(kept[what["x"]], kept[quantity], ":", color=palette[str(of)], linewidth=0.9, alpha=0.8, zorder=1)
            shown = True
    return shown


def _marks(ax: Any, panel: str, lines: list[Line]) -> None:
    """What the report wrote into a panel: final values (with ours) and the box around a detail."""
    for label, value in reference.FINAL_VALUES.get(panel, {}).items():
        x, y = reference.load(panel)[label]
        ours = "".join(f"\nours {100 * c.mean[-1]:.1f} %" for c, _, name in lines if name == label and len(c.mean))
        right = x[-1] < reference.axes(panel).xlim[1] / 2
        ax.annotate(
            f"report {value}{ours}",
            (x[-1], y[-1]),
            (28 if right else -28, 0 if right else -52),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "square", "facecolor": "white", "edgecolor": "0.4", "linewidth": 0.7},
            arrowprops={"arrowstyle": "->", "color": "0.4"},
            zorder=4,
        )
    if box := reference.BOXES.get(panel):
        left, bottom, right, top = box
        size = right - left, top - bottom
        ax.add_patch(
            plt.Rectangle((left, bottom), *size, fill=False, edgecolor="0.2", zorder=4, label="the report's box")
        )


def _zoom_box(ax: Any, panel: str, zoom: Mapping[str, reference.Points], lines: list[Line]) -> None:
    """The report's inset: the same curves in the window that its samples span, below what it would cover.

    Not where none of ours comes into that window: it would show the report alone, and take the room of ours.
    """
    xs, ys = (np.concatenate([points[i] for points in zoom.values()]) for i in (0, 1))
    within, low, high = np.linspace(xs.min(), xs.max(), 500), ys.min(), ys.max() + 0.05 * (ys.max() - ys.min())
    drawn = [np.interp(within, c.x, c.mean, left=np.nan, right=np.nan) for c, _, _ in lines]
    if not any(((y >= low) & (y <= high)).any() for y in drawn):
        return
    left, bottom, width, height = 0.42, 0.12, 0.55, 0.38
    (x0, x1), (bottom_y, top_y) = ax.get_xlim(), ax.get_ylim()
    covered = [c.mean[c.x >= x0 + (left - 0.06) * (x1 - x0)] for c, _, _ in lines]
    if (ours := np.concatenate(covered)).size:
        needed = bottom + height + 0.04
        ax.set_ylim(min(bottom_y, (np.nanmin(ours) - needed * top_y) / (1 - needed)), top_y)
        ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top_y])
    box = ax.inset_axes((left, bottom, width, height))
    _curves(box, panel, lines)
    box.set_xlim(xs.min(), xs.max())
    box.set_ylim(low, high)
    box.tick_params(labelsize=7)
    ax.indicate_inset_zoom(box, edgecolor="0.5")


def origin(facts: Mapping[str, Any]) -> str:
    """Scale, data, replicates, precision and device of a summary, in one line."""
    return "   ".join(
        [
            f"scale {facts['scale']} ({facts['scale_title']})",
            ", ".join(facts["data"]),
            f"total batch {', '.join(map(str, facts['total_batch']))}",
            replicates(facts),
            ", ".join(facts["precision"]),
            " and ".join(facts["device"]),
        ]
    )


def _head_and_foot(
    drawing: Any,
    facts: Mapping[str, Any],
    panels: list[str],
    figure: Mapping[str, Any],
    more: str = "",
    bars: bool = False,
) -> None:
    notes = []
    if panels:
        spread_is = "bars" if bars else "thin: each of them, band"
        solid = f"the mean of our runs, {spread_is}: one standard deviation"
        notes = [f"Solid: {solid if facts['replicates'] > 1 else 'our runs, one a curve'}."]
    elif facts["scale"] != "paper":
        notes = ["Batches and epochs in the table are the report's, ours were smaller and fewer."]
    if facts["one_momentum"]:
        notes.append("Momentum kept the first value of its range, as in the author's runs it probably did.")
    notes += [*([more] if more else []), *(figure.get("foot") or [])]
    scale = f"Scale {facts['scale']}{', unchanged,' if facts['overrides'] else ''}"
    notes += [f"{scale} cannot show {text}." for text in facts["cannot_show"]]
    if facts["overrides"]:
        notes.append(f"Changed by hand: {', '.join(changes(facts['overrides']))}.")
    said = {panel: reference.note(panel, facts["divide"]) for panel in panels}
    for note in filter(None, dict.fromkeys(said.values())):
        of = [panel_number(panel) for panel in panels if said[panel] == note]
        notes.append(f"{note[0].upper()}{note[1:]}." if len(of) == len(panels) else f"{', '.join(of)}: {note}.")
    width, height = drawing.get_size_inches()
    foot = textwrap.fill("  ".join(notes), int(16.5 * width))
    head = textwrap.fill(origin(facts), int(15 * width), break_long_words=False)
    title = textwrap.fill(literal(f"{spoken(facts['figure'])}. {facts['title']}"), int(9.5 * width))
    under = 0.22 + 0.2 * len(title.splitlines())  # inches from the top to where the title ends
    drawing.text(0.01, 1 - 0.1 / height, title, fontsize=12, va="top")  # suptitle would have room of its own kept free
    drawing.text(0.01, 1 - under / height, head, fontsize=8, color="0.25", va="top")
    drawing.text(0.01, 0.1 / height, foot, fontsize=7.5, color="0.25", va="bottom")
    below, above = 0.15 + 0.16 * len(foot.splitlines()), under + 0.03 + 0.15 * len(head.splitlines())
    drawing.tight_layout(rect=(0, below / height, 1, 1 - above / height))


def draw_table(figure: Mapping[str, Any], summary: Summary, folder: Path, name: str) -> list[Path]:
    """Write NAME.png, .pdf, .csv and .md: the report's rows and ours; returns their paths."""
    facts = summary.facts
    both = tables.beside_the_report(figure, tables.table_rows(figure, summary.rows))
    text = tables.cells(both)
    with plt.rc_context(STYLE):
        letters = [max(len(str(name)), *(len(str(cell)) for cell in text[name])) + 2 for name in text]
        drawing, ax = plt.subplots(figsize=(0.075 * sum(letters) + 0.2, 0.22 * (len(text) + 1) + 1.2))
        ax.axis("off")
        drawn = ax.table(
            text.to_numpy().tolist(),
            colLabels=list(text.columns),
            colWidths=[n / sum(letters) for n in letters],
            cellLoc="center",
            edges="horizontal",
            bbox=Bbox.unit(),
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(8)
        for (line, _), cell in drawn.get_celld().items():
            cell.set_edgecolor("0.8")
            cell.set_text_props(weight="bold" if line == 0 else "normal")
        applied = "As described: it rose or fell. " if "as described" in text else ""
        _head_and_foot(drawing, facts, [], figure, applied + tables.shared_runs(both))
        paths = save(drawing, folder, name)
    for suffix, content in (("csv", both.to_csv(index=False, lineterminator="\n")), ("md", tables.markdown(text))):
        paths.append(folder / f"{name}.{suffix}")
        write_atomically(paths[-1], content)
    return paths
