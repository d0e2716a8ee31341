"""What a figure is drawn from: results/summary/<figure>-<scale>.csv and .json, small enough to be committed.

The CSV holds every row of every run (columns curve, replicate, hash, then those of metrics.csv). The JSON says what
was run on what, how it agrees with the report, and the verdicts on its claims. With these two a clone redraws the
figure without training. They hold no times, so the same runs give the same bytes.
"""

import hashlib
import io
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.compose import ROOT, SCALES
from experiments.curves import one_momentum, own_curves
from experiments.errors import UserError, unreadable
from experiments.files import write_atomically
from experiments.session import Session
from experiments.store import COLUMNS, Job
from experiments.words import counted, target
from reproduce import compare, readings, reference
from reproduce.claims import Verdict, judge
from reproduce.panels import as_drawn, over_their_axes, panel_curves
from reproduce.tables import beside_the_report, table_rows

KEYS = ("curve", "replicate", "hash")
ENDS = (".csv", ".json")
AGAIN = 0.5
"""Seconds after which a summary that looks damaged is read again: it may just be written, its CSV before its JSON."""
FACTS = (
    *("scale", "variant", "divide", "replicates", "fewest_replicates", "data", "precision", "parameters"),
    *("one_momentum", "finals", "agreement", "claims", "claims_described", "readings", "rows_sha256"),
)


@dataclass(frozen=True)
class Summary:
    """The rows of all runs and the facts about them."""

    rows: pd.DataFrame
    facts: dict[str, Any]


class Damaged(UserError):
    """A summary that is not as it was written; it may be replaced, where one that cannot be read may not.

    what: in words, without what to do about it.
    """

    def __init__(self, what: str, cure: str):
        self.what = what
        super().__init__(f"{what}: {cure}.")


def place(results: Path, figure: str, scale: str, end: str = "") -> Path:
    """Where the file of a summary with this suffix lies.

    The suffix is given here and never put there by `Path.with_suffix`, which takes the ".01" of a figure called wd_0.01
    for one.
    """
    return results / "summary" / f"{figure}-{scale}{end}"


def exists(results: Path, figure: str, scale: str) -> bool:
    """Whether both files are there."""
    return all(place(results, figure, scale, end).is_file() for end in ENDS)


def begun(results: Path, figure: str, scale: str) -> bool:
    """Whether one of both files is there; half a summary counts, so that its loss is said."""
    return any(place(results, figure, scale, end).is_file() for end in ENDS)


def set_aside(results: Path, figure: str, scale: str) -> list[Path]:
    """Give the files of a damaged summary names of their own, under which nothing overwrites them; their new paths."""
    aside = []
    for end in ENDS:
        path = place(results, figure, scale, end)
        if path.is_file():
            names = (path.with_name(f"{path.name}.damaged{i or ''}") for i in itertools.count())
            aside.append(path.rename(next(name for name in names if not name.exists())))
    return aside


def nearest_scale(results: Path, figure: str) -> str | None:
    """The scale nearest to the report's of which there is a file."""
    return next((scale for scale in SCALES if begun(results, figure, scale)), None)


def read(results: Path, figure: str, scale: str) -> Summary:
    """A summary from disk. Raises UserError where there is none or it cannot be read, `Damaged` where it is damaged."""
    try:
        return _read(results, figure, scale)
    except Damaged:
        time.sleep(AGAIN)
        return _read(results, figure, scale)


def _read(results: Path, figure: str, scale: str) -> Summary:
    base, csv, facts_file = (place(results, figure, scale, end) for end in ("", *ENDS))
    if not exists(results, figure, scale):
        if begun(results, figure, scale):
            raise Damaged(f"{_absent(base)} missing, half of what was written", _cure(base, figure, scale))
        same = ["settings"] * ("-" in scale) + ["results="] * (results != ROOT / "results")
        raise UserError(
            f"{figure} has no results at scale {scale}: {_absent(base)} missing. "
            f"Run make {target(figure)} SCALE={scale.partition('-')[0]} first"
            + (f", with the same {' and '.join(same)} in ARGS." if same else ".")
        )
    try:
        content, said = csv.read_bytes(), facts_file.read_bytes()
    except OSError as error:
        raise unreadable(Path(error.filename or base), error) from None
    try:
        # A curve may be called null or nan.
        rows = pd.read_csv(
            io.BytesIO(content), dtype={"curve": str, "hash": str}, keep_default_na=False, na_values=[""]
        )
        facts = json.loads(said)
        if not isinstance(facts, dict):
            raise ValueError(f"{said.decode():.20} is no object")
    except ValueError as error:
        raise Damaged(f"{base}.json or .csv cannot be read ({error})", _cure(base, figure, scale)) from None
    missing = [c for c in (*KEYS, *COLUMNS) if c not in rows] + [f for f in FACTS if f not in facts]
    if not missing and _digest(content) != facts["rows_sha256"]:
        raise Damaged(
            f"{base}.csv is not what was written with its .json (one of them cut off, changed or of another time)",
            _cure(base, figure, scale),
        )
    if not missing and facts.get("facts_sha256") not in (None, _facts_digest(facts)):  # older ones have none
        raise Damaged(f"{base}.json is not what was written (changed or merged)", _cure(base, figure, scale))
    if missing or rows.empty:
        raise Damaged(f"{base}.csv or .json lacks {', '.join(missing) or 'rows'}", _cure(base, figure, scale))
    return Summary(rows, facts)


def _facts_digest(facts: Mapping[str, Any]) -> str:
    """Of everything that a summary's JSON says, however it is laid out."""
    said = {name: value for name, value in facts.items() if name != "facts_sha256"}
    return _digest(json.dumps(said, sort_keys=True).encode())


def _cure(base: Path, figure: str, scale: str) -> str:
    """What to do about a damaged summary: a committed one need not be trained again."""
    same = ", with the same settings in ARGS" if "-" in scale else ""
    again = f"run make {target(figure)} SCALE={scale.partition('-')[0]} again{same}"
    back = bring_back(base, scale)
    return f"bring both back ({back}), or {again}" if back else again


def bring_back(base: Path, scale: str) -> str | None:
    """The command for a summary's files as they were committed, None where they may not have been."""
    if base.parent != ROOT / "results" / "summary" or "-" in scale:
        return None
    return f"git checkout -- results/summary/{base.name}.*"


def _absent(base: Path) -> str:
    gone = [end for end in ENDS if not base.with_name(base.name + end).is_file()]
    return f"{base}{' and '.join(gone)} {'are' if len(gone) > 1 else 'is'}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def verdicts(session: Session, judged: Any, moved: bool = True) -> list[dict[str, Any]]:
    """The figure's claims judged; those its file calls out of this scale's reach stay unjudged, with its reason.

    moved: see `claims.judge`.
    """
    claims, scale = session.figure.get("claims") or [], session.scale
    beyond = {c: why for c, why in (session.how.get("cannot_judge") or {}).items() if c in claims}
    lead = "At this scale, unchanged: " if session.changed else ""  # the reason speaks of the scale's own runs
    whole = ((session.figure.get("scales") or {}).get("quick") or {}).get("cannot_judge") or ()
    inside = [v.as_dict() for v in judge([c for c in claims if c not in beyond], judged, scale, moved, whole)]
    outside = [
        Verdict(c, "not judged", lead + (f"{why}." if lead else f"{why[:1].upper()}{why[1:]}."), scale).as_dict()
        for c, why in beyond.items()
    ]
    return sorted(inside + outside, key=lambda v: claims.index(v["claim"]))


def collect(
    session: Session, jobs: Sequence[tuple[str, int, Job]], others: Sequence[tuple[str, int, Job]] = ()
) -> Summary:
    """Read the finished runs (curve, replicate, job), compare with the report, judge, write both files.

    others: the finished runs of other readings (`reproduce.readings`).
    """
    figure = session.figure
    tables = []
    for curve, replicate, job in [*jobs, *others]:
        table = job.run.metrics()
        table.insert(0, "hash", job.run.hash)
        table.insert(0, "replicate", replicate)
        table.insert(0, "curve", curve)
        tables.append(table)
    rows = pd.concat(tables, ignore_index=True)
    facts = _facts(session, jobs)
    facts |= beside_it(session, rows, facts)
    csv, facts_file = (place(session.results, figure["name"], session.variant, end) for end in ENDS)
    content = rows.to_csv(index=False, lineterminator="\n").encode()
    facts["rows_sha256"] = _digest(content)
    write_atomically(csv, content)
    plain = _plain(facts)
    plain["facts_sha256"] = _facts_digest(plain)
    write_atomically(facts_file, json.dumps(plain, indent=1, allow_nan=False) + "\n")
    return Summary(rows, plain)


def beside_it(session: Session, rows: pd.DataFrame, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says of its rows beside the report: agreement, table, claims both ways, finals, other readings.

    facts: those of how they were run, of which it takes what was not cycled and how large the networks are.
    """
    figure, found = session.figure, dict[str, Any]()
    whole, rows = rows, over_their_axes(figure, rows, facts)

    def judged(of: pd.DataFrame) -> Mapping[str, Any]:
        if figure.get("kind") == "table":
            return {figure["name"]: table_rows(figure, of)}
        curves = panel_curves(figure, of, session.divide, facts["parameters"])
        return {panel: as_drawn(panel, shown, session.divide) for panel, shown in curves.items()}

    ours = judged(rows)
    found["agreement"] = {}
    if figure.get("kind") == "table":
        found["table"] = beside_the_report(figure, ours[figure["name"]]).to_dict("records")
    else:
        found["agreement"] = {
            panel: compare.agreement(panel, curves, session.divide)
            for panel, curves in ours.items()
            if reference.known(panel)
        }
    found["claims"] = verdicts(session, ours, moved=not facts["one_momentum"])
    described = readings.as_described(figure, rows)
    again = [] if described is None else verdicts(session, judged(described))
    found["claims_described"] = [
        otherwise
        for claim, otherwise in zip(found["claims"], again, strict=False)
        if otherwise["status"] != "not judged" and otherwise["numbers"] != claim["numbers"]
    ]
    found["finals"] = finals(figure, whole)
    found["readings"] = readings.compared(figure, rows, session.divide)
    return found


def _facts(session: Session, jobs: Sequence[tuple[str, int, Job]]) -> dict[str, Any]:
    figure, how = session.figure, session.how
    firsts = [job.run.environment() for _, _, job in jobs]
    environments = [one for first in firsts for one in (first, *first.get("later", []))]
    first, runs_of = jobs[0][2].run.settings, Counter(curve for curve, _, _ in jobs)

    def each(values: Iterable[Any]) -> list[Any]:
        return sorted({v for v in values if v is not None})

    return {
        "figure": figure["name"],
        "title": figure["title"],
        "scale": session.scale,
        "variant": session.variant,
        "scale_title": how["title"],
        "divide": session.divide,
        "replicates": max(runs_of.values()),
        "fewest_replicates": min(runs_of.values()),
        "data": each(e["data"] for e in environments),
        "data_source": each(e["data_source"] for e in environments),
        "data_fingerprint": first.dataset.fingerprint,
        "precision": each(job.run.settings.precision for _, _, job in jobs),
        "device": each(e["device"] for e in environments),
        "torch": each(e["torch"] for e in environments),
        "iterations": each(job.run.settings.iterations for _, _, job in jobs),
        "total_batch": each(job.run.settings.batch.total for _, _, job in jobs),
        "parameters": {curve: job.run.summary()["parameters"] for curve, _, job in jobs},
        "overrides": session.changed,
        "cannot_show": how.get("cannot_show", []),
        "one_momentum": any(one_momentum(figure, curve, session.overrides) for curve, _, _ in jobs),
        "diverged": {
            f"{curve}, replicate {replicate}": at
            for curve, replicate, job in jobs
            if (at := job.run.summary()["diverged_at"]) is not None
        },
    }


def replicates(facts: Mapping[str, Any], noun: str = "replicate") -> str:
    """ "4 replicates", or "1 to 4 replicates" where some curves were run more often than others."""
    most, least = facts["replicates"], fewest(facts)
    return ("" if least == most else f"{least} to ") + counted(most, noun)


def fewest(facts: Mapping[str, Any]) -> int:
    """How many replicates the curves have that have fewest."""
    return facts["fewest_replicates"]


def finals(figure: Mapping[str, Any], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Last test of each curve, mean and standard deviation over replicates, in the order of the report's legend."""
    found = []
    for curve in own_curves(figure["curves"]):
        what = figure["curves"][curve]
        last = rows[rows["curve"] == curve].groupby("replicate").tail(1)
        if len(last):
            found.append(
                {
                    "curve": curve,
                    "label": what["label"],
                    "replicates": len(last),
                    "test_loss": last["test_loss"].mean(),
                    "test_loss_std": last["test_loss"].std(),
                    "test_accuracy": last["test_accuracy"].mean(),
                    "test_accuracy_std": last["test_accuracy"].std(),
                }
            )
    return found


def _plain(value: Any) -> Any:
    """Of 12 digits, as processors differ in the last ones of a mean; null for NaN and infinity, which JSON has not."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None
    return value
