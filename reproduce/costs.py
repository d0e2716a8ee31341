"""What figures together would cost: one table, a line a figure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from rich.console import Console
from rich.table import Table

from experiments import device as devices
from experiments.console import say
from experiments.crew import spread
from experiments.errors import DataMissing, UserError
from experiments.estimate import Speed, same_speed, speed_of
from experiments.session import Session, composed
from experiments.settings import Settings
from experiments.step import parameters_of
from experiments.store import Job
from experiments.words import counted, duration
from reproduce import cluster
from reproduce.plan import UNKNOWN_SPEED, behind, device_words, load_of, sharing

STATE, CHECKPOINTS, CHECKPOINT = 8, 3, 2
"""Bytes a parameter of a saved state, weights and velocities in fp32; how many a run in hand has at most at a time, and
how many one keeps that is not trained to its end."""
ROW = 200
"""Bytes of a test in metrics.csv and what else a run leaves, about."""


@dataclass
class Asked:
    """A run of a figure. ends: where its training stops, before its end where it is only what others start from;
    done: the iterations behind it; states: how many of its states stay, for others or to go on from."""

    settings: Settings
    ends: int
    done: int = 0
    states: int = 0

    @classmethod
    def by(cls, job: Job) -> "Asked":
        settings = job.run.settings
        left, ends = settings.iterations - behind(job), settings.iterations if job.whole else max(job.snapshots)
        return cls(settings, ends, ends - left, len(job.snapshots) + (0 if job.whole else CHECKPOINT))


@dataclass
class Cost:
    """Of some runs: how many, how many of them are missing, what is computed in all and in how many seconds of one
    process. stays: MiB of disk for good; at_work: for the checkpoints of those in hand."""

    runs: int = 0
    missing: int = 0
    iterations: int = 0
    images: int = 0
    seconds: float = 0.0
    stays: float = 0.0
    at_work: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Cost(**sums | {"at_work": max(self.at_work, other.at_work)})  # never at the same time

    def cells(self, timed: bool) -> list[str]:
        """What the table says of it. timed: whether the seconds are known."""
        counts = [f"{n:,}" for n in (self.runs, self.missing, self.iterations)]
        millions = self.images / 1e6
        counts.append(f"{millions:,.1f}" if millions > 1 else f"{millions:.3g}")
        return [*counts, duration(self.seconds) if timed else "-", f"{self.stays + self.at_work:,.0f} MiB"]


class Costs:
    """What runs cost on this machine. A run that was asked for before costs nothing, and the speed of a network is
    looked up or measured once."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.seen: set[str] = set()
        self.speeds: dict[str, Speed] = {}

    def of(self, session: Session, runs: Sequence[Asked]) -> Cost:
        processes, threads = spread(session, session.config.jobs)
        if _here(session):
            devices.configure(session.device, threads)
        cost = Cost()
        for run in runs:
            if run.settings.hash() not in self.seen:
                self.seen.add(run.settings.hash())
                cost += self._of_run(session, run, processes)
        return cost

    def _of_run(self, session: Session, run: Asked, processes: int) -> Cost:
        settings, speed = run.settings, self._speed(session, run.settings)
        state = STATE * speed.parameters / 2**20
        missing = run.done < run.ends
        return Cost(
            1,
            int(missing),
            run.ends,
            run.ends * settings.batch.total,
            speed.seconds(settings, settings.iterations - (run.ends - run.done)),
            stays=run.states * state + ROW * (run.ends // settings.test_interval) / 2**20,
            at_work=CHECKPOINTS * state * processes / session.config.gpus if missing else 0.0,
        )

    def _speed(self, session: Session, settings: Settings) -> Speed:
        if (shape := same_speed(settings)) not in self.speeds:
            if not _here(session):
                self.speeds[shape] = Speed(0.0, 0.0, parameters_of(settings), source=UNKNOWN_SPEED)
            else:
                most = 32 if settings.dataset.size < 100 else 2
                self.speeds[shape] = speed_of(settings, session.device, most, session.config.step)
                rate = f"{1 / self.speeds[shape].image:,.0f} images/s, {self.speeds[shape].source}"
                self.say(f"  {_shape(settings)}: {rate}")
        return self.speeds[shape]


def cost_table(console: Console, figures: Sequence[str], overrides: Sequence[str]) -> int:
    """What figures together need at a scale: runs, iterations, images, expected time on this device, disk.

    A run that two figures share counts for the first. Disk is what stays and, while runs are trained, the checkpoints
    of those in hand, which go with their end. Speeds are the benchmark's of this device, or measured with at most 32
    images per virtual GPU; that of a cluster's jobs is not known. Figures that cannot be planned, as for their files,
    are named below. Returns the exit code. Raises UserError where that is all of them.
    """
    table = Table("figure")
    for name in ("runs", "missing", "iterations", "10^6 images", "expected", "disk"):
        table.add_column(name, justify="right", no_wrap=True)

    def line(text: str) -> None:
        say(console, text)

    line(f"  Looking at {counted(len(figures), 'figure')}: this may take some minutes.")
    planned, broken = _planned(figures, overrides)
    costs, together = Costs(line), Cost()
    for session, runs, _ in planned:
        cost = costs.of(session, runs)
        together += cost
        table.add_row(session.figure["name"], *cost.cells(_here(session)))
    table.add_section()
    table.add_row("together", *together.cells(_here(session)))
    console.print(table)
    processes, threads = spread(session, session.config.jobs)  # how to run is the same for all
    line(f"  scale {session.scale} ({session.scale_why}), on {device_words(session, processes)}")
    if not _here(session):
        line(f"  expected: {UNKNOWN_SPEED}")
    elif processes > 1:
        line(
            f"  expected is the time of one such process; {sharing(session, processes)}: "
            f"between 1/{processes} of it and all of it"
        )
    measured = any(speed.source.startswith("measured") for speed in costs.speeds.values())
    if measured and (load := load_of(session, threads)):
        line(f"  {load}: what was measured just now may be too slow")
    without_data = [session.figure["name"] for session, _, data in planned if not data]
    if without_data and len(figures) > 1:
        line(f"  without data here, so that nothing counts as done: {', '.join(without_data)}")
    for why, names in broken.items():
        line(f"  {', '.join(names)} cannot be planned: {why}")
    return 2 if broken else 0


def _here(session: Session) -> bool:
    """Whether the runs are trained on this machine, by this command."""
    return bool(session.config.cluster.name == "local")


def _planned(
    figures: Sequence[str], overrides: Sequence[str]
) -> tuple[list[tuple[Session, list[Asked], bool]], dict[str, list[str]]]:
    """Sessions, their runs, and whether their data are here; of the other figures why there is none and which they are.

    Raises UserError where there is none at all.
    """
    planned, broken = [], dict[str, list[str]]()
    for figure in figures:
        try:
            session = Session(composed([f"figure={figure}", *overrides]), say=lambda _: None)
            if session.config.cluster.name != "local":
                cluster.prepare(session)
            planned.append((session, *_all_runs(session)))
        except UserError as error:
            broken.setdefault(str(error), []).append(figure)
    if not planned:
        raise UserError("\n".join(broken))
    return planned, broken


def _shape(settings: Settings) -> str:
    """ "cifar3 of width 2 (32 pixels, 10 classes, fp32)": what tells the lines of the cost table's speeds apart."""
    m, d = settings.model, settings.dataset
    less = [f"depth {m.depth}"] if m.depth else []
    less += [f"width {m.width}"] if m.width else []
    of = f" of {' and '.join(less)}" if less else ""
    flips = "flips, " if d.mirror else ""
    return f"{m.name}{of} ({d.size} pixels, {d.classes} classes, {flips}{settings.precision})"


def _all_runs(session: Session) -> tuple[list[Asked], bool]:
    """Every run, and whether the data are here: if not, nothing of any counts as done."""
    try:
        return [Asked.by(job) for _, _, job in session.jobs()], True
    except DataMissing:
        wanted, starts = session.curves(), session.starts()
        found = []
        for replicate in session.replicates():
            for curve in [*starts, *wanted]:
                settings = session.settings(curve, replicate)
                found.append(Asked(settings, starts.get(curve, settings.iterations)))
        return found, False
