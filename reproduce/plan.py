"""What a figure needs, what of it is there, and how long the rest will take."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from experiments import device as devices
from experiments.compose import settings_for
from experiments.console import say
from experiments.crew import check, spread
from experiments.curves import ONE_MOMENTUM, described, one_momentum
from experiments.errors import DataMissing, UserError
from experiments.session import Session
from experiments.settings import Settings, nearest
from experiments.store import Job
from experiments.words import changes, counted, duration, target
from reproduce import ledger, summary
from reproduce.claims import CLAIMS

if TYPE_CHECKING:  # torch is for what measures
    from experiments.estimate import Expected

MANY_DAYS = 3 * 86400.0
WORTH = 1.3
"""How many times as fast bf16 has to be on a CPU to be named."""
UNKNOWN_SPEED = "not known here: the speed is that of the jobs' device, which this machine cannot measure"


@dataclass
class Plan:
    """The runs of a figure at a scale: (curve, replicate, job) in the order in which they are trained."""

    session: Session

    @cached_property
    def runs(self) -> list[tuple[str, int, Job]]:
        """Composed and checked before anything starts. Raises UserError."""
        figure = self.session.figure
        claims, file = figure.get("claims") or [], f"conf/figure/{figure['name']}.yaml"
        for claim in claims:
            if claim not in CLAIMS:
                raise UserError(f"{file}: the report has no claim '{claim}': {nearest(claim, CLAIMS)}")
            if CLAIMS[claim].panel not in (figure["name"], *(figure.get("panels") or ())):
                raise UserError(f"{file}: claim {claim} is about {CLAIMS[claim].panel}, which is no panel of it.")
        return self.session.jobs()

    @cached_property
    def distinct(self) -> list[Job]:
        """Each run once, with the states that any curve wants of it: two curves may be one run (table 1, by hand)."""
        found: dict[str, Job] = {}
        for _, _, job in self.runs:
            before = found.get(job.run.hash, job)
            states = tuple(sorted({*before.snapshots, *job.snapshots}))
            found[job.run.hash] = replace(before if before.whole else job, snapshots=states)
        return list(found.values())

    @cached_property
    def missing(self) -> list[Job]:
        return [job for job in self.distinct if not job.done()]

    @cached_property
    def left(self) -> list[tuple[Settings, int]]:
        """Settings of the missing runs, and the iterations that each has behind it."""
        return [(job.run.settings, behind(job)) for job in self.missing]

    @cached_property
    def expected(self) -> "Expected":
        """Expected time for what is left, by one process with the threads that it will have."""
        from experiments.estimate import expected_seconds

        return expected_seconds(self.left, self.session.device, self.session.config.step)

    def costs(self) -> dict[str, float]:
        """Expected seconds an iteration of every missing run, by its hash."""
        each = zip(self.missing, self.left, self.expected.runs, strict=True)
        # 1: of a run that was killed between its last step and its summary nothing is left
        return {job.run.hash: seconds / max(1, s.iterations - done) for job, (s, done), seconds in each}

    def say(self, console: Console) -> None:
        """Scale and why, data, device, runs and expected time, before anything starts. Raises UserError."""
        s = self.session
        check_finished(self.distinct)
        check(s, self.distinct)
        if "dataset" in s.overrides:  # may ask for more images than there are
            for settings, _ in self.left[:1]:
                s.data_sets.load(settings)
        titles = sorted({s.data_sets.fingerprint(job.run.settings)[1] for _, _, job in self.runs})
        lengths = sorted({job.run.settings.iterations for _, _, job in self.runs})
        batches = sorted({job.run.settings.batch.total for _, _, job in self.runs})
        processes, threads = spread(s, len(self.missing))
        here = s.config.cluster.name == "local"
        if here:
            devices.configure(s.device, threads)

        def line(name: str, text: str) -> None:
            say(console, f"  {name:<10}{text}")

        say(console, Text.assemble((s.figure["name"], "bold"), f"  {s.figure['title']}"))
        line("scale", f"{s.scale} ({s.scale_why}): {s.how['title']}")
        if s.changed:
            line(
                "changed", f"by hand: {', '.join(changes(s.changed))}; the drawing says so, and gets a name of its own"
            )
        line("data", ", ".join(titles))
        line("device", device_words(s, processes))
        line("precision", ", ".join(sorted({job.run.settings.precision for _, _, job in self.runs})))
        unlike, starts = counted(len(self.distinct), "run"), sum(not job.whole for job in self.missing)
        line(
            "runs",
            f"{counted(len({curve for curve, _, _ in self.runs}), 'curve')} x "
            f"{counted(len(s.replicates()), 'replicate')}"
            f"{'' if len(self.distinct) == len(self.runs) else f' ({unlike}, some of them shared)'}, "
            f"{_one_of(lengths)} iterations of {_one_of(batches)} images; "
            f"{len(self.distinct) - len(self.missing)} done, {len(self.missing)} missing"
            + (f", {starts} of them only up to where others start" if starts else ""),
        )
        if alike := self._alike():
            line("note", f"with what was changed by hand, curves {', '.join(alike)} are one run")
        if self.missing:
            times = self._time(processes, threads) if here else [f"{UNKNOWN_SPEED} ({self._images()})"]
            for name, text in zip(["time", *[""] * len(times)], times, strict=False):
                line(name, text)
        if any(one_momentum(s.figure, curve, s.overrides) for curve, _, _ in self.runs):
            also = f"; curves {described('NAME')} do so here" if s.config.readings else ""
            line("momentum", ONE_MOMENTUM + also)
        if self.missing and (replaced := _replaced(s, {job.run.hash for job in self.distinct})):
            line("note", replaced)
        for text in s.how.get("cannot_show", []):
            line("note", f"this scale{', unchanged,' if s.changed else ''} cannot show: {text}")

    def _time(self, processes: int, threads: int) -> list[str]:
        s, seconds = self.session, sum(self.expected.runs) + self.expected.start
        several = processes > 1
        at_once = min(processes, max(1, devices.cores() // threads)) if s.device.type == "cpu" else processes
        least, most = duration(seconds / at_once), duration(seconds)
        span = "about" if least == most else f"between {least} and"
        said = [f"{span} {most} for {self._images()}, {self.expected.source}"]
        if least != most:
            said.append(f"the longer time is that of one such process alone; {sharing(s, processes)}")
        if s.config.jobs > len(self.missing):
            said.append(f"jobs={s.config.jobs} is more than the {counted(len(self.missing), 'run')} to train")
        if quicker := self._in_bf16(seconds):
            said.append(quicker)
        if any(of.precision == "bf16" for of, _ in self.left) and devices.emulates_bf16(s.device):
            said.append("this processor has no instructions for bf16: fp32 is faster, with AVX2 about ten times")
        if seconds > MANY_DAYS:
            said.append("that is days: use DEVICE=cuda on a GPU, or SCALE=quick for a first look")
        if not several and threads > 1 and s.config.threads is None and (load := load_of(s, threads)):
            said.append(f"{load}: the time may be longer, several times if all are busy; ARGS=threads=1 suffers less")
        return said

    def _in_bf16(self, seconds: float) -> str | None:
        """What bf16 would take on a CPU whose benchmark says that it pays, in words."""
        from experiments.estimate import benchmarked

        device = self.session.device
        if device.type != "cpu" or self.session.precisions or devices.emulates_bf16(device):
            return None
        left = [(replace(s, precision="bf16"), done) for s, done in self.left if s.precision == "fp32"]
        if len(left) < len(self.left):
            return None
        total, source = 0.0, ""
        for settings, done in left:
            if (speed := benchmarked(settings, device, self.session.config.step)) is None:
                return None
            total, source = total + speed.seconds(settings, done), speed.source
        if seconds < WORTH * total or seconds < 600:
            return None
        return f"in bf16 about {duration(total)} (ARGS=precision=bf16), {source}"

    def _alike(self) -> list[str]:
        """Curves that settings by hand make one run, because they say for all of them what tells these apart."""
        s = self.session
        if not s.changed or s.config.curve is not None:
            return []
        now: dict[str, list[str]] = {}
        for curve, replicate, job in self.runs:
            if replicate == self.runs[0][1]:
                now.setdefault(job.run.hash, []).append(curve)
        before = {curve: settings_for(s.figure, curve, 0, s.scale).hash() for curve in s.curves()}
        return next(
            (same for same in now.values() if len({before[curve] for curve in same if curve in before}) > 1), []
        )

    def _images(self) -> str:
        images = sum((settings.iterations - done) * settings.batch.total for settings, done in self.left)
        begun = any(job.iterations_done() > job.run.settings.start.iteration for job in self.missing)
        return f"{images:,} training images" + (" that are left" if begun else "")


def check_finished(jobs: Sequence[Job]) -> None:
    """Say what is damaged of all finished runs before anything else is done. Raises UserError."""
    damaged = []
    for job in jobs:
        if job.run.done():
            try:
                job.run.metrics()
                job.run.environment()
            except UserError as error:
                damaged.append(str(error))
    if damaged:
        raise UserError("\n".join(dict.fromkeys(damaged)))


def _replaced(session: Session, wanted: set[str]) -> str | None:
    """What becomes of the committed results at this scale, None where their runs are here and among those of now.

    wanted: the runs of now; where none of them is among the committed ones, settings have changed.
    """
    name, scale = session.figure["name"], session.scale
    of_other_settings = bool(set(session.changed) - {"replicates"})
    if of_other_settings or not summary.exists(session.results, name, scale):
        return None
    lines = ledger.read(session.results)
    lines = lines[(lines["figure"] == name) & (lines["scale"] == scale)]
    lines = lines[~lines["curve"].isin(session.readings())]  # which stay
    gone = [run for run in lines["hash"].unique() if not (session.results / "runs" / run / "summary.json").is_file()]
    part = session.config.curve is not None or session.config.replicate is not None
    others = lines[~lines["hash"].isin(wanted)]
    trained, now = set(others["precision"]), session.settings(session.curves()[0], 0).precision
    other = f"precision={min(trained)}" if trained and now not in trained else None
    if session.changed and (again := [run for run in gone if run in wanted]):
        gone, part = again, False
    elif session.changed:  # a figure of its own, which has none of these runs
        return None
    if not gone and not part and len(others):
        return (
            f"results/summary has {counted(others['hash'].nunique(), 'run')} of this figure and scale with other "
            "settings than these: what is trained now takes their place"
            + (f" (ARGS={other} goes on with them)" if other else "")
        )
    if not gone:
        return None
    folder = str(session.config.results)
    said = [f"precision={now}"] if "precision" in session.overrides else []

    def restoring(*words: str) -> str:
        words = (*words, f"results={folder}") if folder != "results" else words
        args = f' ARGS="{" ".join(words)}"' if len(words) > 1 else f" ARGS={words[0]}" if words else ""
        return f"make restore-{target(name)} SCALE={scale}{args}"

    restore = restoring(*said)
    if part:
        return (
            "this trains a part of the figure: results/summary and the drawing stay as they are. To collect it with "
            f"the {counted(len(gone), 'run')} that they hold, {restore} first"
        )
    if set(gone) <= wanted:
        return (
            f"results/summary has the numbers of {counted(len(gone), 'run')} of these, which are trained again here "
            f"({restore} brings them back instead)"
        )
    keeps = ""
    if other and wanted.isdisjoint(lines["hash"]):
        keeps = f" ({restoring(other)} first keeps them, and the same ARGS goes on with them)"
    elif wanted & set(lines["hash"]):
        keeps = f" ({restore} first keeps them)"
    return (
        f"results/summary has {counted(len(gone), 'run')} of this figure and scale that are not in results/runs: what "
        f"is trained now takes their place{keeps}"
    )


def _one_of(numbers: Sequence[int]) -> str:
    """ "400 or 600"; of more than three the first and the last, "154 to 813"."""
    shown = numbers if len(numbers) <= 3 else (numbers[0], numbers[-1])
    return (" to " if len(numbers) > 3 else " or ").join(f"{n:,}" for n in shown)


def behind(job: Job) -> int:
    """The iterations of a run that need not be trained."""
    settings = job.run.settings
    if job.done():
        return settings.iterations
    return settings.iterations - job.ends() + max(job.iterations_done(), settings.start.iteration)


def load_of(session: Session, threads: int) -> str | None:
    """The load of this machine, where so many threads more are too many for all its cores, None elsewhere."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if session.device.type != "cpu" or load + threads <= cores + max(0.7, cores / 8):
        return None
    return f"the load of this machine is {load:.1f} on {counted(cores, 'core')}"


def device_words(session: Session, processes: int) -> str:
    """The device, and on a CPU how many processes have that many threads."""
    several = processes > 1 and session.device.type == "cpu" and session.config.cluster.name == "local"
    return session.device_name + (f" in each of {processes} processes" if several else "")


def sharing(session: Session, processes: int) -> str:
    """What several processes share, so that they are less than so many times faster."""
    if session.config.gpus > 1:
        return f"{processes} share the work of each run"
    return f"{processes} share the {'cores' if session.device.type == 'cpu' else 'GPUs there are'}"


def state(session: Session) -> str:
    """One cell of the list: what is there of a figure at the session's scale (runs a curve, if it is drawn)."""
    name = session.figure["name"]
    if summary.begun(session.results, name, session.variant):
        facts = summary.read(session.results, name, session.variant).facts
        judged = Counter(c["status"] for c in facts["claims"] if c["status"] != "not judged")
        described = Counter(f"{c['status']} as described" for c in facts["claims_described"])
        there, all_curves = len(facts["finals"]), session.own_curves()
        size = summary.replicates(facts, "run")
        if there < len(all_curves):
            size = f"{there} of {len(all_curves)} {'rows' if session.figure.get('kind') == 'table' else 'curves'}"
        return ", ".join([size, *(f"{n} {status}" for status, n in (*judged.items(), *described.items()))])
    try:
        runs = [job.run for _, _, job in session.jobs() if job.whole]
    except DataMissing:
        return "no data"
    done = sum(run.done() for run in runs)
    return f"{done} of {len(runs)} runs" if done else "-"
