"""The parts of README that follow from the configuration and the results, written between markers.

<!-- begin NAME -->
... written by this module, do not edit ...
<!-- end NAME -->
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.compose import CONF, ROOT, SCALES, load, names
from experiments.curves import DESCRIBED, own_curves
from experiments.errors import UserError
from experiments.files import write_atomically
from experiments.words import of_the_report, spoken
from reproduce import summary as summaries
from reproduce import tables
from reproduce.claims import CLAIMS
from reproduce.claims.comparisons import JUDGED, SINGLE
from reproduce.claims.verdict import on_single_runs
from reproduce.finals import beside, final


def assumptions(figures: Iterable[str]) -> list[str]:
    """Every assumption: the general ones, then those of each of `figures`."""
    general = OmegaConf.to_container(OmegaConf.load(CONF / "assumptions.yaml"))
    assert isinstance(general, list)
    return [
        *map(str, general),
        *(a for figure in figures for a in load("figure", figure).get("assumptions", [])),
    ]


def best_scale(results: Path, figure: str) -> str | None:
    """The scale nearest to the report's at which a figure has results on the report's data; None where it has none.

    Half a summary counts: reading it says so.
    """
    return next((scale for scale in SCALES[:-1] if summaries.begun(results, figure, scale)), None)


def _shown() -> list[str]:
    """The figures that README shows: the report's and Caffe's examples, no user's own."""
    return [figure for figure in names("figure") if of_the_report(figure) or figure == "caffe"]


def gallery(results: Path) -> str:
    """The drawings of what was run on the report's data, two side by side, each a link to the drawing at full size."""
    cells = []
    for figure in _shown():
        if (scale := best_scale(results, figure)) is not None:
            facts = summaries.read(results, figure, scale).facts
            where = f"scale {scale}, {', '.join(facts['data'])}, {_size(figure, facts)}"
            drawing = f"figures/{figure}.png"
            name = spoken(figure)
            cells.append(f'[<img src="{drawing}" alt="{name}" width="420">]({drawing})<br>{name}: {where}')
    rows = zip_longest(cells[::2], cells[1::2], fillvalue="")
    return "\n".join(["|  |  |", "| --- | --- |", *(f"| {left} | {right} |" for left, right in rows)])


def status(results: Path) -> str:
    """A Markdown table of what has been run at which scale, and of how the claims and the tables' rows stand."""
    ran: dict[str, dict[str, list[str]]] = {scale: {} for scale in SCALES}
    errors = list[float | None]()
    alone = 0
    verdicts: dict[str, Counter[str]] = {"paper": Counter(), "quick": Counter()}
    described: Counter[str] = Counter()
    for figure in filter(of_the_report, names("figure")):
        if (scale := best_scale(results, figure)) is None:
            if summaries.begun(results, figure, SCALES[-1]):
                ran[SCALES[-1]].setdefault("", []).append(figure)
            continue
        facts = summaries.read(results, figure, scale).facts
        verdicts[scale].update(claim["status"] for claim in facts["claims"])
        if scale == "paper":  # a row's first reading counts
            alone += sum(claim["status"] == "held" and on_single_runs(claim["reason"]) for claim in facts["claims"])
            errors += {row["row"]: row["standard_errors"] for row in reversed(facts.get("table", ()))}.values()
            described.update(claim["status"] for claim in facts["claims_described"])
        ran[scale].setdefault(_size(figure, facts), []).append(figure)
    unjudged = len(CLAIMS) - sum(counts[word] for counts in verdicts.values() for word in JUDGED)
    judged = [f"{verdicts['paper'][word]} {word}" for word in JUDGED]
    if alone:
        judged[0] += f" ({alone} of them wholly or partly on single runs, whose spread is not known)"
    shortened = ", ".join(f"{n} {word}" for word in JUDGED if (n := verdicts["quick"][word]))
    near, rows = tables.within(errors)
    lines = {
        "at the report's scale": _together(ran["paper"]),
        "shortened (`quick`)": _together(ran["quick"]),
        "made images only (`smoke`): it runs, no more": _together(ran["smoke"]),
        f"the report's {len(CLAIMS)} claims": f"{', '.join(judged)} at the report's scale, "
        + (f"{shortened} at scale quick, " if shortened else "")
        + f"{unjudged} not judged yet",
    }
    if described:
        counts = ", ".join(f"{described[word]} {word}" for word in JUDGED if described[word])
        lines[f"with {DESCRIBED}"] = f"{counts}, where that was run as well"
    if rows:
        said = f"{near} of the {rows} run lie within {tables.WITHIN} standard errors of the report's"
        lines["the tables' rows"] = said
    return "\n".join(["| so far |  |", "| --- | --- |", *(f"| {what} | {how} |" for what, how in lines.items())])


def _together(by_size: Mapping[str, Sequence[str]]) -> str:
    """Figures by how much of them was run: "figures 3, 4 (1 replicate); table 1 (10 of 20 rows)"."""
    groups = []
    for size, figures in by_size.items():
        kind, *_ = spoken(figures[0]).lower().split()
        numbers = ", ".join(spoken(figure).split()[-1] for figure in figures)
        groups.append(f"{kind}{'s' * (len(figures) > 1)} {numbers}" + (f" ({size})" if size else ""))
    return "; ".join(groups) or "nothing"


def _size(figure: str, facts: Mapping[str, Any]) -> str:
    """How much of a figure or table was run: "4 replicates", "3 of 6 curves, 1 replicate", "5 of 20 rows"."""
    if "table" in facts:
        return f"{len(_rows(facts))} of {len(facts['table'])} rows"
    own = own_curves(load("figure", figure)["curves"])
    ran = len(facts["finals"])
    return ("" if ran == len(own) else f"{ran} of {len(own)} curves, ") + summaries.replicates(facts)


def results_table(results: Path) -> str:
    """A Markdown table: each series' final test loss and accuracy beside the report's, at the best scale there is."""
    lines = [
        "| figure | scale, data, replicates | series | test loss | report | accuracy | report |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for figure in _shown():
        if (scale := best_scale(results, figure)) is None:
            continue
        facts = summaries.read(results, figure, scale).facts
        where = [
            f"[{figure}](figures/{figure}.png)",
            f"{scale}, {', '.join(facts['data'])}, {summaries.replicates(facts)}",
        ]
        for series in _rows(facts) if "table" in facts else _series(load("figure", figure), facts):
            lines.append(f"| {' | '.join([*where, *series])} |")
            where = ["", ""]
    return "\n".join(lines)


def _series(figure: Mapping[str, Any], facts: Mapping[str, Any]) -> list[list[str]]:
    return [
        [name, *(cell for ours, report in pairs for cell in (ours, report))]
        for name, pairs in beside(figure, facts).items()
    ]


def _rows(facts: Mapping[str, Any]) -> list[list[str]]:
    """A table's rows that were run: the mean of a run's last three tests, as printed there, from percent."""

    def share(row: Mapping[str, Any], end: str) -> str:
        mean, std = row[f"accuracy_percent{end}"], row[f"accuracy_std{end}"]
        return final(mean / 100, None if std is None else std / 100)

    ran = [row for row in facts["table"] if row["accuracy_percent"] is not None]
    named = []
    for row in ran:
        same = [f"{r['row']}'s" for r in ran if r["runs"] == row["runs"] != "" and r["row"] != row["row"]]
        named.append(f"row {row['row']}" + (f", row {' and '.join(same)} runs" if same else ""))
    return [[name, "-", "-", share(row, ""), share(row, "_report")] for name, row in zip(named, ran, strict=True)]


def claims_table(results: Path) -> str:
    """A Markdown table of every verdict at the best scale there is."""
    lines = ["| claim | what the report says | verdict | scale | why |", "| --- | --- | --- | --- | --- |"]
    for figure in _shown():
        if (scale := best_scale(results, figure)) is not None:
            facts = summaries.read(results, figure, scale).facts
            otherwise = {claim["claim"]: claim for claim in facts["claims_described"]}
            for claim in facts["claims"]:
                cells = (claim["claim"], CLAIMS[claim["claim"]].says, *_verdict(claim))
                lines.append(f"| {' | '.join(cells)} |")
                if again := otherwise.get(claim["claim"]):
                    lines.append(f"| {' | '.join(('', f'*with {DESCRIBED}*', *_verdict(again)))} |")
    return "\n".join(lines)


def _verdict(claim: Mapping[str, Any]) -> tuple[str, str, str]:
    return claim["status"], claim["scale"], _once(claim["reason"])


def _once(reason: str) -> str:
    """A verdict's reason without what it says more than once."""
    parts = list(dict.fromkeys(reason.removesuffix(".").split("; ")))
    aside = parts[-1][parts[-1].rfind(" (") :]
    if aside.startswith(f" ({SINGLE}") and all(part.endswith(aside) for part in parts):
        parts = [*(part.removesuffix(aside) for part in parts[:-1]), parts[-1]]
    return "; ".join(parts) + "."


def rendered(text: str, results: Path) -> str:
    """README with its generated parts as they should be now. Raises UserError where a marker is missing."""
    parts = {
        "status": status(results),
        "assumptions": "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(assumptions(_shown()), 1)),
        "gallery": gallery(results),
        "results": results_table(results),
        "claims": claims_table(results),
    }
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise UserError(
                f"README.md has no '<!-- begin {name} -->' ... '<!-- end {name} -->': put the markers back."
            )
        text = pattern.sub(lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text)  # type: ignore[misc]
    return text


def write(results: Path) -> Path:
    """Bring README up to date with conf/ and results/summary."""
    path = ROOT / "README.md"
    write_atomically(path, rendered(path.read_text(encoding="utf-8"), results))
    return path
