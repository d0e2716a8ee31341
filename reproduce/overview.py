"""The report page before and after its sections: the score, how to read it, remarks, assumptions, contradictions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from experiments.compose import CONF, SCALES
from experiments.curves import DESCRIBED
from reproduce import readme, reference
from reproduce.claims import CLAIMS, on_the_report
from reproduce.claims.comparisons import JUDGED
from reproduce.entries import TABLES
from reproduce.markup import (
    Badge,
    Bar,
    Bullets,
    Chips,
    Code,
    Commands,
    Heading,
    Link,
    Paragraph,
    Strong,
    Tiles,
)
from reproduce.sections import AT_QUICK, Section, at_scale
from reproduce.tables import WITHIN, within

STATUSES = (*JUDGED, *(f"{status}{AT_QUICK}" for status in JUDGED), "not judged", "not run")
COMMANDS = """\
make fig9 SCALE=smoke      # tiny, no data, no GPU
make fig9 SCALE=quick      # minutes: CIFAR-10, a shortened schedule
make fig9 SCALE=paper      # the report's schedule and four replicates
make plan-fig9             # only say what that would do and how long it would take
python -m reproduce figure=fig09 scale=quick curve=wd_1e-3     # one curve"""


def panels_drawn(sections: Sequence[Section]) -> dict[str, int]:
    """Panels of the report that have results, each counted at the best scale it was run at."""
    best: dict[str, str] = {}
    for section in sections:
        for result in section.results:  # the best scale first
            for panel in result.panels:
                best.setdefault(panel, result.scale)
    counts = Counter(best.values())
    return {scale: counts[scale] for scale in SCALES}


def claims_by_status(sections: Sequence[Section]) -> dict[str, int]:
    """How many of the claims stand how, each at the best scale its figure was run at."""
    counts = Counter(section.status(claim) for section in sections for claim in section.entry.claims)
    return {status: counts[status] for status in STATUSES}


def held_alone(sections: Sequence[Section]) -> int:
    """Of the claims that held at the report's scale, those that rest on single runs."""
    best = [s.results[0] for s in sections if s.results and s.results[0].scale == SCALES[0]]
    return sum(status == "held" and result.alone[claim] for result in best for claim, status in result.statuses.items())


def described_by_status(sections: Sequence[Section]) -> dict[str, int]:
    """Verdicts on claims with momentum as described, where that was run as well, at the best scale."""
    best = [s.results[0] for s in sections if s.results]
    counts = Counter(at_scale(status, result.scale) for result in best for status in result.described.values())
    return {status: counts[status] for status in STATUSES if counts[status]}


def table_rows(sections: Sequence[Section]) -> tuple[int, int, int]:
    """Rows of tables 1 and 2 within `WITHIN` standard errors, rows run at the report's scale, and all rows."""
    errors = [
        e
        for s in sections
        if s.entry.name in TABLES and s.results and s.results[0].scale == "paper"
        for e in s.results[0].standard_errors.values()
    ]
    return *within(errors), sum(len(reference.table(name)) for name in TABLES)


def score(sections: Sequence[Section]) -> list[Any]:
    """The scoreboard: tiles, the claims as a bar, and one chip a claim that leads to its figure."""
    drawn, status, rows = panels_drawn(sections), claims_by_status(sections), table_rows(sections)
    panels = len(reference.panels())
    unjudged, alone = status["not judged"] + status["not run"], held_alone(sections)
    shortened = ", ".join(f"{n} {word}" for word in JUDGED if (n := status[f"{word}{AT_QUICK}"]))
    tiles = (
        (
            str(drawn["paper"]),
            str(panels),
            "panels at the report's scale, at least in part",
            f"{drawn['quick']} more shortened (quick), {drawn['smoke']} on made images only (smoke), "
            f"{panels - sum(drawn.values())} not run",
        ),
        (
            str(status["held"]),
            str(len(CLAIMS)),
            "claims held at the report's scale"
            + (f", {alone} of them wholly or partly on single runs" if alone else ""),
            f"{status['failed']} failed, {status['inconclusive']} inconclusive there; "
            + (f"{shortened} at scale quick (shortened runs); " if shortened else "")
            + f"{unjudged} not judged"
            + (f" ({status['not run']} of them not run)" if status["not run"] else ""),
        ),
        (
            str(rows[0]) if rows[1] else "–",
            str(rows[2]),
            f"table rows within {WITHIN} standard errors",
            f"of {rows[1]} run at scale paper" if rows[1] else "none was run at scale paper yet",
        ),
    )
    chips = [
        (claim, section.status(claim), f"#{section.entry.name}", CLAIMS[claim].says)
        for section in sections
        for claim in section.entry.claims
    ]
    described = ", ".join(f"{n} {word}" for word, n in described_by_status(sections).items())
    also = Paragraph(f"With {DESCRIBED}, where that was run as well: {described}.", "quiet")
    shown = {word: n for word, n in status.items() if n or AT_QUICK not in word}
    return [Tiles(tiles), Bar(shown), Chips(chips, STATUSES), *([also] if described else [])]


def top(sections: Sequence[Section]) -> list[Any]:
    """The score and how to read the page."""
    return [
        Heading("Score", "score"),
        *score(sections),
        Heading("How to read this page", "how-to-read", short="How to read it"),
        Paragraph(
            "Each section is a figure or table of the report. In a drawing, solid lines are ours (the mean of the "
            "replicates, in a band of one standard deviation, with each run as a thin line) and dashed lines are the "
            "report's, digitised; pale dash-dotted lines are momentum as described, with two dots or in long dashes "
            "any other reading of a setting (four or more of a panel are drawn beside it). A filled dot in the "
            "contents marks what was run on the report's data sets, not only on made images."
        ),
        Bullets(
            (
                (
                    Strong("Scale"),
                    " says how much was run: ",
                    Code("paper"),
                    " is the report's data and schedule, four replicates unless stated otherwise; ",
                    Code("quick"),
                    " is the same data, shortened; ",
                    Code("smoke"),
                    " is tiny runs on made images. Only paper can agree in height; the others show orders and shapes, "
                    "and each says what it cannot show.",
                ),
                (
                    "A claim is ",
                    Badge("held"),
                    " or ",
                    Badge("failed"),
                    " where its sides differ by more than one standard deviation of our replicates, ",
                    Badge("inconclusive"),
                    " where they differ by less, and ",
                    Badge("not judged"),
                    " where the scale is too small for it, momentum did not cycle, or what it compares has not been "
                    "run. Single runs have no spread: any difference decides there, but for rows of a table, which "
                    "take the spread that the report prints. In a verdict, d is that standard deviation, pooled over "
                    "both sides; between two places, as where curves diverge, no less than the distance between tests. "
                    "This is a low bar: of two settings that do not differ at all, four runs of each lie more than d "
                    "apart one time in five, two of each two times in five. ",
                    control(),
                ),
                (
                    "In the tables of agreement, ",
                    Strong("apart"),
                    " is the mean of |log(ours / report)| for a loss (0.05: 5 % apart on average) and the mean "
                    "difference for an accuracy; ",
                    Strong("offset"),
                    " is the median of ours - report over the tests (other data, as re-encoded images, move a whole "
                    "curve); ",
                    Strong("ours"),
                    " and ",
                    Strong("report"),
                    " are means of the last 5 % of the tests up to where the shorter of the two curves ends (the "
                    "report's ends where it leaves its panel), ",
                    Strong("ratio"),
                    " is ours / report, and ",
                    Strong("in s.d."),
                    " is their difference in standard deviations of our replicates. A diverged run counts as a loss of "
                    "87.3 from there on. A dash is a number that does not exist.",
                ),
                (
                    "In the notes a run goes ",
                    Strong("astray"),
                    " from where its loss stays above one and a half times its lowest for a tenth of the run or to "
                    "its end (which claims call to diverge), and ",
                    Strong("dies"),
                    " where it stays at chance. In legends it has diverged where it stays at Caffe's largest loss, "
                    "87.3.",
                ),
            )
        ),
    ]


def control() -> str:
    """What the same code says of the report's own curves and tables."""
    own = {claim: on_the_report(claim) for claim in CLAIMS}
    known = [status for status in own.values() if status is not None]
    other = [f"{claim} ({status})" for claim, status in own.items() if status not in (None, "held")]
    return (
        f"Of the {len(known)} claims that can be judged on the report's own curves and tables this code calls "
        f"{known.count('held')} held" + (f", the other{'s' * (len(other) > 1)} {', '.join(other)}." if other else ".")
    )


def _conf(name: str) -> Any:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))


def remarks(sections: Sequence[Section]) -> list[Any]:
    """The report's advice in our words, with what our verdicts say about it."""
    known = _conf("remarks")
    home = {claim: section for section in sections for claim in section.entry.claims}
    items = []
    for remark in known["remarks"]:
        tally = Counter(home[claim].status(claim) for claim in remark["claims"])
        counted = ", ".join(f"{tally[status]} {status}" for status in STATUSES if tally[status])
        words: list[Any] = [Strong(f"{remark['title']}."), f" {remark['says']} ({counted}: "]
        for i, claim in enumerate(remark["claims"]):
            words += [", "] * bool(i) + [Link(claim, f"#{home[claim].entry.name}")]
        items.append([*words, ")"])
    return [
        Heading("The report's remarks, and our verdicts on them", "remarks", short="Remarks"),
        Bullets(items, ordered=True),
        Heading("Its checklist", "checklist", level=3),
        Bullets(known["checklist"], ordered=True),
    ]


def around(sections: Sequence[Section]) -> list[Any]:
    """What follows the sections."""
    return [
        *remarks(sections),
        Heading("Assumptions", "assumptions"),
        Paragraph("What none of the author's files or logs settles, and how it was decided."),
        Bullets(readme.assumptions([s.entry.name for s in sections if s.entry.figure]), ordered=True),
        Heading("Where the report and its author's files disagree", "contradictions", short="Contradictions"),
        Paragraph(
            (
                "This suite runs what the files say, unless an assumption above says otherwise. The logs lie in ",
                Code("results/paper/logs"),
                "; jobs and scripts are in the author's repositories lnsmith54/hyperParam1 and "
                "lnsmith54/super-convergence.",
            )
        ),
        Bullets(_conf("contradictions")),
        Heading("How to reproduce", "reproduce"),
        Paragraph(
            (
                "In the project's folder, with Python and GNU make; the first command installs the rest. Interrupted, "
                "the same command goes on where it stopped. Every number on this page is in ",
                Code("results/summary"),
                "; ",
                Code("make report"),
                " writes it again.",
            )
        ),
        Commands(COMMANDS),
    ]
