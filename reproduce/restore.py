"""Bring the runs of a committed summary back into results/runs, so that a figure can be extended without them.

A run belongs to a summary's rows by its hash, whatever its curve is called by now. What comes back is a finished run:
its metrics.csv has the summary's own texts, so that collecting it again writes the summary's bytes; its time, device
and libraries are those of results/summary/runs.csv. States that other runs start from (snapshots) do not come back.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from experiments.console import say as console_say
from experiments.divergence import divergence
from experiments.errors import UserError
from experiments.files import check_writable
from experiments.session import Session
from experiments.store import COLUMNS, Job, Run
from experiments.words import counted, made_by
from reproduce import ledger, summary

Found = tuple[str, int, Job]


def kept_runs(path: Path) -> dict[str, tuple[str, str]]:
    """Of every run of a summary's CSV, by its hash: its curve's name then, and the text of its metrics.csv."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    found: dict[str, tuple[str, str]] = {}
    for (run, curve, _), group in rows.groupby(["hash", "curve", "replicate"], sort=False):
        metrics = group[list(COLUMNS)].to_csv(index=False, lineterminator="\n")
        found.setdefault(str(run), (str(curve), metrics))  # another reading may be the run of a second curve
    return found


def unlike(run: Run, kept: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a finished run came to other numbers than a summary has of it, if it has (`kept_runs`)."""
    if run.hash not in kept:
        return False
    return not pd.read_csv(io.StringIO(kept[run.hash][1]))[list(COLUMNS)].equals(run.metrics()[list(COLUMNS)])


def restore(console: Console, session: Session) -> int:
    """Restore what a figure's summary has of its runs, other readings included, and say so. Returns the exit code.

    Runs that are finished or being trained stay as they are. Raises UserError where there is no summary, where none
    of its runs is one of the figure's, and where something is damaged or cannot be written.
    """
    name = session.figure["name"]
    if session.config.curve is not None or session.config.replicate is not None:
        raise UserError("restore brings back all that is known of a figure: leave curve= and replicate= out.")
    if not summary.begun(session.results, name, session.variant):
        if set(session.changed) == {"replicates"} and summary.begun(session.results, name, session.scale):
            raise UserError(
                f"No results of {name} with replicates={session.config.replicates} are kept in results/summary: leave "
                f"replicates= out to bring back what there is of scale {session.scale}; what trains more takes it up."
            )
        raise UserError(
            f"There is nothing to restore: {session.results / 'summary'} has no results of {name} at scale "
            f"{session.variant}. make list shows what there is; in another folder (results=) are only its own."
        )
    facts = summary.read(session.results, name, session.variant).facts
    path = summary.place(session.results, name, session.variant, ".csv")
    kept, known = kept_runs(path), Known(session, facts, f"results/summary/{path.name}")
    check_writable(session.results / "runs", "results")
    runs = session.jobs(list(session.figure["curves"]))
    jobs = {job.run.hash: job for _, _, job in reversed(runs)}
    lost = [curve for run, (curve, _) in kept.items() if run not in jobs]
    if len(lost) == len(kept):
        raise UserError(
            f"None of the {counted(len(kept), 'run')} in {path} is one of {name}'s runs now: "
            f"{_why(session, runs, facts)}."
        )

    def say(text: str) -> None:
        console_say(console, f"  {text}")

    became = {run: _bring_back(jobs[run], kept, known, say) for run in kept if run in jobs}
    of = Counter(became.values())
    own = {job.run.hash for curve, _, job in runs if curve not in session.readings()}
    reading = sum(run in jobs and run not in own for run in kept)
    say(
        f"{name} at scale {session.scale}: {counted(of['restored'], 'run')} restored from {path.name}, "
        f"{of['there'] + of['unlike']} already there"
        + (f"; {reading} of them are other readings (ARGS=readings=true)." if reading else ".")
    )
    if of["unlike"]:
        folders = ", ".join(str(jobs[run].run.folder) for run, how in became.items() if how == "unlike")
        say(
            f"{counted(of['unlike'], 'run')} trained here came to other numbers, as on another kind of processor or "
            "with another number of threads, and collecting would put them in place of the committed ones. To keep "
            f"those: delete {folders}, and restore again."
        )
    if known.untimed:
        say(f"How long {counted(known.untimed, 'run')} took is not known: runs.csv beside the summary does not say.")
    left_out = set(session.figure["curves"]) - {curve for curve, _, _ in runs}  # and said, by session.jobs
    if gone := [curve for curve in lost if curve not in left_out]:
        say(
            f"{counted(len(gone), 'run')} of the summary ({_few(gone)}) match no curve of the figure as it is now: "
            f"{_why(session, runs, facts)}. They would have to be trained again."
        )
    _say_what_is_next(session, say)
    return 0


def bring_back_readings(session: Session) -> None:
    """Restore the other readings that a summary has and results/runs has not: whoever collects has not said that they
    are to go. A damaged summary has none."""
    name, names = session.figure["name"], session.readings()
    if not names or not summary.exists(session.results, name, session.variant):
        return
    path = summary.place(session.results, name, session.variant, ".csv")
    try:
        facts = summary.read(session.results, name, session.variant).facts
    except summary.Damaged:
        return
    kept = kept_runs(path)
    jobs = {job.run.hash: job for curve, _, job in session.jobs(names) if curve in names}
    gone = [run for run in kept if run in jobs and not jobs[run].run.done()]
    known = Known(session, facts, f"results/summary/{path.name}")
    became = Counter(_bring_back(jobs[run], kept, known, session.say) for run in gone)
    if became["restored"]:
        session.say(f"  {counted(became['restored'], 'run')} of other readings kept from {path.name}")


def _bring_back(job: Job, kept: Mapping[str, tuple[str, str]], known: "Known", say: Callable[[str], None]) -> str:
    """Restore a run that is not there. Returns "restored", "there", "unlike" (with other numbers) or "busy"."""
    if job.run.done():
        return "unlike" if unlike(job.run, kept) else "there"
    with job.run.claim() as mine:
        if not mine:
            say(f"{job.name} is being trained by {job.run.owner()}; it is left to that one.")
            return "busy"
        if job.run.done():
            return "there"
        metrics = kept[job.run.hash][1]
        job.run.restore(known.environment(job.run), metrics, known.summary(job.run, metrics))
    return "restored"


def _say_what_is_next(session: Session, say: Callable[[str], None]) -> None:
    now = [job for _, _, job in session.jobs(session.own_curves())]
    for job in now:
        if job.run.done() and not job.done():
            say(
                f"{job.name} has no state here that the missing runs could start from: they have it trained again up "
                "to there, and its numbers stay."
            )
    missing = len({job.run.hash for job in now if job.whole and not job.run.done()})
    command = made_by(session.figure["name"], f"SCALE={session.scale}")
    command += " with the same settings" if session.overrides else ""
    trains = f"{command} trains what is missing: {counted(missing, 'run')}."
    say(trains if missing else f"No run of the figure is missing: {command} compares and draws it.")


def _few(curves: Sequence[str]) -> str:
    """Up to three of them by name."""
    return ", ".join([*dict.fromkeys(curves)][:3]) + (", ..." if len(set(curves)) > 3 else "")


def _why(session: Session, runs: Sequence[Found], facts: Mapping[str, Any]) -> str:
    """What may have changed since a summary was made: its data, the precision of this device, or settings."""
    titles = {session.data_sets.fingerprint(job.run.settings)[1] for _, _, job in runs}
    if others := set(facts["data"]) - titles:
        return f"they were trained on {', '.join(sorted(others))}, and the data here are {', '.join(sorted(titles))}"
    if others := set(facts["precision"]) - {job.run.settings.precision for _, _, job in runs}:
        was = min(others)
        return f"they were trained in {was}, which this device does where it is told: add ARGS=precision={was}"
    return "their settings have changed since"


class Known:
    """What is known of a summary's runs: their lines of runs.csv, else what the facts say of all of them together."""

    def __init__(self, session: Session, facts: Mapping[str, Any], source: str):
        self.session, self.facts, self.source, self.untimed = session, facts, source, 0
        lines = ledger.read(session.results)
        own = (lines["figure"] == session.figure["name"]) & (lines["scale"] == session.scale)
        each = pd.concat([lines[own], lines[~own]]).drop_duplicates("hash").set_index("hash")
        self.lines: dict[str, dict[str, str]] = {str(run): line.to_dict() for run, line in each.iterrows()}
        self._forms: dict[str, str] = {}

    def environment(self, run: Run) -> dict[str, Any]:
        """environment.json; where a run went on with another device or library, "later" as `Run.went_on` writes it."""
        line = self.lines.get(run.hash)
        devices, torches = (
            line[name].split("; ") if line else [" or ".join(self.facts.get(name, ())) or "unknown"]
            for name in ("device", "torch")
        )
        rest = {
            "data": line["data"] if line else self.session.data_sets.fingerprint(run.settings)[1],
            "data_source": self._form_of_data(run),
            "data_fingerprint": run.settings.dataset.fingerprint,
            "restored_from": self.source,
        }
        first, *later = (
            {"device": devices[min(i, len(devices) - 1)], "torch": torches[min(i, len(torches) - 1)], **rest}
            for i in range(max(len(devices), len(torches)))
        )
        return first | ({"later": later} if later else {})

    def _form_of_data(self, run: Run) -> str:
        """Facts that name several do not say which run had which: then that of the same data here."""
        if len(listed := self.facts.get("data_source", ())) == 1:
            return str(listed[0])
        key = run.settings.dataset.fingerprint
        if key not in self._forms:
            self._forms[key] = self.session.data_sets.load(run.settings).source
        return self._forms[key]

    def summary(self, run: Run, metrics: str) -> dict[str, Any]:
        """summary.json as the trainer writes it; null for times that nobody wrote down."""
        line = self.lines.get(run.hash) or _line_of(run, metrics)
        diverged_at, seconds = _number(line["diverged_at"]), _number(line["wall_seconds"])
        self.untimed += seconds is None
        return {
            "hash": run.hash,
            "iterations": run.settings.iterations,
            "parameters": int(line["parameters"]),
            "final_test_loss": _number(line["final_test_loss"]),
            "final_test_accuracy": _number(line["final_test_accuracy"]),
            "diverged_at": None if diverged_at is None else int(diverged_at),
            "seconds": seconds,
            "images_per_second": _number(line["images_per_second"]),
        }


def _line_of(run: Run, metrics: str) -> dict[str, str]:
    """What a line of runs.csv would say of a run, from its rows and its network alone."""
    from experiments.step import parameters_of

    rows = list(csv.DictReader(io.StringIO(metrics)))
    diverged_at = divergence([{"iteration": int(r["iteration"]), "test_loss": _number(r["test_loss"])} for r in rows])
    return {
        "parameters": str(parameters_of(run.settings)),
        "final_test_loss": rows[-1]["test_loss"],
        "final_test_accuracy": rows[-1]["test_accuracy"],
        "diverged_at": "" if diverged_at is None else str(diverged_at),
        "wall_seconds": "",
        "images_per_second": "",
    }


def _number(text: str) -> float | None:
    return float(text) if text else None
