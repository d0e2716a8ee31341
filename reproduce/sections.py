"""The report page's sections: every figure and table of the report with what our results say about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.compose import SCALES
from experiments.curves import DESCRIBED, momentum_is_recorded_only
from experiments.errors import UserError
from experiments.words import changes, counted, duration, panel_number
from reproduce import readings, reference, run_by_run, tables
from reproduce import summary as summaries
from reproduce.claims import CLAIMS, on_the_report
from reproduce.claims.comparisons import JUDGED
from reproduce.claims.verdict import on_single_runs
from reproduce.draw import draw, draw_narrow
from reproduce.entries import Entry
from reproduce.markup import (
    Badge,
    Below,
    Bullets,
    Code,
    Facts,
    Fold,
    Heading,
    Link,
    Paragraph,
    Picture,
    Strong,
    Table,
    Words,
)
from reproduce.series import labels

AT_QUICK = " at quick"
"""What the score adds to verdicts on shortened runs: it counts them apart."""

GUESSING = 7.0
"""Above the loss of a guess among ImageNet's 1,000 classes, 6.9: of diverged runs, a mean with tests at the ceiling."""


@dataclass
class Result:
    """What one scale's results say about an entry, ready to be shown and counted.

    alone: whether a claim was judged on single runs. described: verdicts on the same curves with momentum as described,
    where they were run so.
    """

    scale: str
    blocks: list[Any]
    statuses: dict[str, str]
    alone: dict[str, bool]
    described: dict[str, str]
    panels: list[str]
    standard_errors: dict[int, float | None]


@dataclass
class Section:
    """An entry with its results, the best scale first, and what is wrong with those that could not be shown."""

    entry: Entry
    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def status(self, claim: str) -> str:
        """The verdict at the best scale, with the scale where that is quick; "not run" where there is none."""
        if not self.results:
            return "not run"
        best = self.results[0]
        return at_scale(best.statuses.get(claim, "not run"), best.scale)


def at_scale(status: str, scale: str) -> str:
    """A status as the score counts it: a verdict on shortened runs says so."""
    return f"{status}{AT_QUICK}" if status in JUDGED and scale == "quick" else status


def number(value: float | None, form: str = ".4f") -> str:
    """A number as text; a dash for None and NaN."""
    return "–" if value is None or pd.isna(value) else format(value, form)


def timing(summary: summaries.Summary, runs: pd.DataFrame) -> str:
    """How long the runs of a summary took together and how fast they were; a dash where nobody wrote it down."""
    hashes = set(summary.rows["hash"])
    mine = runs[runs["hash"].isin(hashes) & runs["wall_seconds"].notna()]
    if mine.empty:
        return "–"
    text = f"{duration(mine['wall_seconds'].sum())} in {counted(len(mine), 'run')}"
    if len(mine) < len(hashes):
        text = f"{text} of {len(hashes)}"
    speed = mine["images_per_second"].dropna()
    return text + (f", {speed.median():,.0f} images/s (median)" if len(speed) else "")


def fact_sheet(entry: Entry, summary: summaries.Summary, runs: pd.DataFrame) -> Facts:
    """What was run on what."""
    f = summary.facts

    def each(name: str) -> str:
        return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in f[name]) or "–"

    made = all(str(source).startswith("ShapesSpec") for source in f["data_source"])  # its settings are below
    whole = "the report's" if entry.panels else "those of scale paper"
    # A table's rows may be divided by numbers of their own.
    divided = "" if f["divide"] == 1 or f["figure"].startswith("table") else f" ({whole} / {f['divide']:g})"
    pairs: list[tuple[str, Words]] = [
        ("Scale", (Badge(f["scale"]), f" {f['scale_title']}")),
        ("Data", each("data") + ("" if made else f" ({each('data_source')})")),
        (
            "Replicates",
            "1 a curve: no spread is known" if f["replicates"] == 1 else f"{summaries.replicates(f)} a curve",
        ),
        ("Iterations", each("iterations") + divided),
        ("Total batch", each("total_batch")),
        ("Precision", each("precision")),
        ("Device", each("device")),
        ("PyTorch", each("torch")),
        ("Time", timing(summary, runs)),
    ]
    if f["diverged"]:
        pairs.append(("Diverged", "; ".join(f"{run} at {at:,}" for run, at in f["diverged"].items())))
    return Facts(pairs)


def verdicts(
    entry: Entry, statuses: Mapping[str, str], reasons: Mapping[str, str], described: Sequence[Mapping[str, Any]] = ()
) -> list[Any]:
    """The entry's claims: the verdict, what the report says in our words, and why.

    described: verdicts on the same curves with momentum as described, where they differ.
    """
    if not entry.panels:
        return [Paragraph("A figure of one's own: the report has none like it.", "quiet")]
    if not entry.claims:
        return [Paragraph("The report concludes nothing from it that could be judged by its curves.", "quiet")]
    items = []
    for id in entry.claims:
        why = [Below(reasons[id])] if id in reasons else []
        why += [
            Below(f"With {DESCRIBED}: {claim['status']}. {claim['reason']}")
            for claim in described
            if claim["claim"] == id
        ]
        if statuses.get(id) in JUDGED and (own := on_the_report(id)) not in (None, "held"):
            why.append(Below(f"The report's own numbers, judged by the same code: {own}."))
        items.append((Badge(statuses.get(id, "not run")), " ", Strong(id), f" {CLAIMS[id].says}", *why))
    return [Bullets(items, kind="claims")]


AGREEMENT = ("panel", "quantity", "series", "apart", "offset", "ours", "report", "ratio", "in s.d.", "notes")


def agreement(facts: Mapping[str, Any]) -> list[Any]:
    """The agreement with the report's curves: a table of every series, and the order of the series panel by panel."""
    panels = facts["agreement"].items()
    rows = [_series(panel, label, n) for panel, found in panels for label, n in found["series"].items()]
    below = [(Strong(panel_number(panel)), f" {'; '.join(says)}.") for panel, found in panels if (says := _said(found))]
    table = [Table(AGREEMENT, rows, frozenset(range(3, 9)))] if rows else []
    return [*table, *([Bullets(below)] if below else [])]


def _series(panel: str, label: str, n: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table of agreement."""
    apart = n["mean_log_ratio"], n["mean_difference"]
    gone = n["quantity"].endswith("loss") and n["diverged"] > 0 and (n["final"] or 0) > GUESSING
    about_0 = (n["ratio"] or 0) < 0  # a generalisation error may be
    notes = [f"{n['diverged']} of {n['replicates']} diverged"] if n["diverged"] else []
    if n["report_leaves_at"] is not None:
        notes.append(f"the report's leaves the panel at {n['report_leaves_at']:.4g}")
    return (
        panel_number(panel),
        n["quantity"].replace("_", " "),
        label,
        number(apart[0], ".3f") if apart[0] is not None else number(apart[1], ".4f"),
        number(n.get("median_offset"), "+z.3f"),
        "diverged" if gone else number(n["final"]),
        number(n["report_final"]),
        number(None if gone or about_0 else n["ratio"], ".3f"),
        number(None if gone else n["in_std"], "+z.1f"),
        "; ".join(notes),
    )


def _said(found: Mapping[str, Any]) -> list[str]:
    """What there is to say of a panel's agreement as a whole."""
    orders = [f"{q.replace('_', ' ')} {rho:+.2f}" for q, rho in found["order"].items() if rho is not None]
    says = [f"rank correlation of the final values: {', '.join(orders)}"] if orders else []
    for title, key in (("not in the report", "not_in_report"), ("in the report, not run here", "not_run")):
        says += [f"{title}: {', '.join(found[key])}"] if found[key] else []
    return [*says, *([found["note"]] if found["note"] else [])]


def other_readings(facts: Mapping[str, Any]) -> list[Any]:
    """Where the sources contradict each other: how far what either says lies from the report."""
    if not (records := facts["readings"]):
        return []
    heading = Paragraph(Strong("Read otherwise, where the report and the author's files contradict each other:"))
    return [heading, Bullets([readings.sentence(r, facts["scale"]) for r in records])]


def numbers(facts: Mapping[str, Any]) -> list[Any]:
    """What the verdicts were judged by, folded."""
    rows = [(c["claim"], name, number(value, ".5g")) for c in facts["claims"] for name, value in c["numbers"].items()]
    table = Table(("claim", "number", "value"), rows, frozenset({2}))
    return [Fold("The numbers behind the verdicts", [table])] if rows else []


def beside(entry: Entry, summary: summaries.Summary) -> Table:
    """A table of the report with our column in it."""
    assert entry.figure is not None
    both = tables.beside_the_report(entry.figure, tables.table_rows(entry.figure, summary.rows))
    text = tables.cells(both)
    numeric = frozenset(range(list(text.columns).index("report %"), len(text.columns)))
    return Table(list(text.columns), [[str(c) or "–" for c in row] for row in text.to_numpy()], numeric)


def picture(entry: Entry, summary: summaries.Summary, figures: Path) -> Picture:
    """Draw the figure into `figures`."""
    assert entry.figure is not None
    path = next(p for p in draw(entry.figure, summary, figures) if p.suffix == ".png")
    f = summary.facts
    theirs = entry.figure.get("kind") == "table" or any(map(reference.known, entry.figure["panels"]))
    over = ", over the report's curves" if theirs else ""
    alt = f"{entry.label}. {f['title']}: ours, at scale {f['scale']} on {', '.join(f['data'])}{over}"
    return Picture(path.read_bytes(), path.name, alt, draw_narrow(entry.figure, summary))


def result(entry: Entry, scale: str, places: tuple[Path, Path], runs: pd.DataFrame, best: bool) -> Result:
    """One scale's results of an entry; the drawing where it is the best one. Raises UserError for a bad summary."""
    summary = summaries.read(places[0], entry.name, scale)
    f = summary.facts
    statuses = {c["claim"]: c["status"] for c in f["claims"]}
    reasons = {c["claim"]: c["reason"] for c in f["claims"]}
    blocks: list[Any] = [fact_sheet(entry, summary, runs)]
    if entry.figure and entry.figure.get("kind") == "table":
        blocks.append(beside(entry, summary))
    elif best:
        blocks.append(picture(entry, summary, places[1]))
    blocks += [Paragraph(text, "quiet") for text in (entry.figure or {}).get("foot") or []]
    blocks += [Paragraph((Strong(f"Scale {scale} cannot show"), f" {text}."), "warning") for text in f["cannot_show"]]
    blocks += verdicts(entry, statuses, reasons, f["claims_described"]) + agreement(f) + other_readings(f) + numbers(f)
    if best and scale != "smoke" and entry.figure:
        blocks += run_by_run.fold(entry.figure, summary)
    errors = {r["row"]: r["standard_errors"] for r in reversed(f.get("table", []))}  # a row's first reading counts
    described = {c["claim"]: c["status"] for c in f["claims_described"]}
    alone = {c["claim"]: on_single_runs(c["reason"]) for c in f["claims"]}
    return Result(scale, blocks, statuses, alone, described, panels_of(entry, f), errors)


def panels_of(entry: Entry, facts: Mapping[str, Any]) -> list[str]:
    """The report's panels that show at least one curve of what was run."""
    ran = {row["curve"] for row in facts["finals"]}
    return [
        p for p in facts["agreement"] if p in entry.panels and entry.figure and ran & labels(entry.figure, p).keys()
    ]


def section(entry: Entry, results: Path, figures: Path, runs: pd.DataFrame) -> Section:
    """Everything about one entry. A bad summary is told, not raised: it must not take the other figures down.

    A scale farther from the report's does not stand in for a bad one: its drawing would take the other's place.
    """
    made = Section(entry)
    for scale in SCALES:
        if entry.figure is None or not summaries.begun(results, entry.name, scale):
            continue
        try:
            made.results.append(result(entry, scale, (results, figures), runs, best=not made.results))
        except UserError as error:
            made.problems.append(str(error).replace(str(results), "results"))
        except Exception as error:  # whatever is wrong with one summary: the page names it and goes on
            made.problems.append(
                f"The results at scale {scale} cannot be shown ({type(error).__name__}: {error}): "
                f"run {entry.target} SCALE={scale} again."
            )
        if not made.results:
            break
    return made


def settings(figure: Mapping[str, Any]) -> list[Any]:
    """What each curve changes, and what all of them start from, folded."""
    rows = []
    for curve, what in figure["curves"].items():
        differs: list[Words] = [Code(" ".join(changes(what["set"])))] if what.get("set") else ["–"]
        if start := what.get("from"):
            differs.append(f" from {start['curve']} at iteration {start['iteration']:,} on")
        if of := what.get("x_of"):
            differs.append(f", drawn over the learning rates of {of}")
        if "instead_of" in what:
            like = f", like {what['like']}" if what.get("like", what["instead_of"]) != what["instead_of"] else ""
            differs.append(f" (another reading of {what['instead_of']}{like}, only where asked for)")
        elif momentum_is_recorded_only(figure, curve):
            differs.append(" (momentum at its first value throughout)")
        rows.append((what["label"], Code(curve), differs))
    table = Table(("series", "curve=", "what differs"), rows)
    base = Fold("Settings that all curves share", [Paragraph(Code(" ".join(changes(figure["base"]))))])
    return [Fold(f"Settings: {len(rows)} curves and what differs between them", [table]), base][len(rows) == 1 :]


def also(section: Section) -> list[Paragraph]:
    """Links to the other scales' results."""
    words: list[Words] = ["Also run at scale "]
    for other in section.results[1:]:
        words += [Link(other.scale, f"#{section.entry.name}-{other.scale}"), ", "]
    return [Paragraph([*words[:-1], "."], "quiet")] if len(words) > 1 else []


def blocks(section: Section, note: str | None) -> list[Any]:
    """A section from its heading to its folded parts. note: of its lines all but the first are folded."""
    entry = section.entry
    title = f"{entry.label}. {entry.title}" if entry.title else entry.label
    real = section.results and section.results[0].scale != "smoke"  # else on made images only
    found: list[Any] = [Heading(title, entry.name, short=entry.label, state="done" if real else "todo")]
    if note:
        lead, *rest = note.split("\n")
        found.append(Paragraph((Strong("What we make of it."), " ", lead), "note"))
        found += [Fold("What that is taken from", [Paragraph(text) for text in rest])] if rest else []
    found += [Paragraph(problem, "warning") for problem in section.problems]
    if section.results:
        sheet, *rest = section.results[0].blocks
        found += [sheet, *also(section), *rest]
    else:
        found += [] if section.problems else [Paragraph((Badge("not run"), " Not run yet: ", Code(entry.target)))]
        found += verdicts(entry, {}, {})
    for other in section.results[1:]:
        again = Paragraph(
            ("Its drawing: ", Code(f"make draw-{entry.target.removeprefix('make ')} SCALE={other.scale}"))
        )
        found.append(Fold(f"The same at scale {other.scale}", [*other.blocks, again], f"{entry.name}-{other.scale}"))
    if entry.figure:
        found += settings(entry.figure)
        if assumed := entry.figure.get("assumptions"):
            found.append(Fold(f"Assumed: {counted(len(assumed), 'decision')} of ours", [Bullets(assumed)]))
    return found
