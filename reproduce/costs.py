"""What figures together would cost: one table, a line a figure."""

from collections.abc import Sequence

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
from experiments.words import counted, duration
from reproduce import cluster
from reproduce.plan import UNKNOWN_SPEED, behind, device_words, load_of, sharing

STATE, CHECKPOINTS = 8, 3
"""Bytes a parameter of a saved state, weights and velocities in fp32; how many a run in hand has at most at a time."""
ROW = 200
"""Bytes of a test in metrics.csv and what else a run leaves, about."""


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
    speeds: dict[str, Speed] = {}
    seen: set[str] = set()
    sums, most_at_work = [0, 0, 0, 0, 0.0, 0.0], 0.0
    say(console, f"  Looking at {counted(len(figures), 'figure')}: this may take some minutes.")
    planned, broken = _planned(figures, overrides)
    without_data = []
    for session, runs, data in planned:
        if not data:
            without_data.append(session.figure["name"])
        row, at_work = [0, 0, 0, 0, 0.0, 0.0], 0.0
        processes, threads = spread(session, session.config.jobs)
        if here := session.config.cluster.name == "local":
            devices.configure(session.device, threads)
        for settings, done, snapshots in runs:
            if settings.hash() in seen:
                continue
            seen.add(settings.hash())
            if (shape := same_speed(settings)) not in speeds:
                most = 32 if settings.dataset.size < 100 else 2
                if not here:
                    speeds[shape] = Speed(0.0, 0.0, parameters_of(settings), source=UNKNOWN_SPEED)
                else:
                    speeds[shape] = speed_of(settings, session.device, most, session.config.step)
                    rate = f"{1 / speeds[shape].image:,.0f} images/s, {speeds[shape].source}"
                    say(console, f"  {_shape(settings)}: {rate}")
            images = settings.iterations * settings.batch.total
            seconds = speeds[shape].seconds(settings, done)
            state = STATE * speeds[shape].parameters / 2**20
            stays = snapshots * state + ROW * (settings.iterations // settings.test_interval) / 2**20
            if missing := int(done < settings.iterations):
                at_work = max(at_work, CHECKPOINTS * state * processes / session.config.gpus)
            new = (1, missing, settings.iterations, images, seconds, stays)
            row = [a + b for a, b in zip(row, new, strict=True)]
        sums = [a + b for a, b in zip(sums, row, strict=True)]
        most_at_work = max(most_at_work, at_work)
        table.add_row(session.figure["name"], *_cells(row, at_work, here))
    table.add_section()
    table.add_row("together", *_cells(sums, most_at_work, here))
    console.print(table)
    say(console, f"  scale {session.scale} ({session.scale_why}), on {device_words(session, processes)}")
    if not here:
        say(console, f"  expected: {UNKNOWN_SPEED}")
    elif processes > 1:
        say(
            console,
            f"  expected is the time of one such process; {sharing(session, processes)}: "
            f"between 1/{processes} of it and all of it",
        )
    measured = any(speed.source.startswith("measured") for speed in speeds.values())
    if measured and (load := load_of(session, threads)):
        say(console, f"  {load}: what was measured just now may be too slow")
    if without_data and len(figures) > 1:
        line = f"  without data here, so that nothing counts as done: {', '.join(without_data)}"
        say(console, line)
    for why, names in broken.items():
        line = f"  {', '.join(names)} cannot be planned: {why}"
        say(console, line)
    return 2 if broken else 0


def _planned(
    figures: Sequence[str], overrides: Sequence[str]
) -> tuple[list[tuple[Session, list[tuple[Settings, int, int]], bool]], dict[str, list[str]]]:
    """Sessions, their runs, and whether their data are here; of the other figures why there is none and which they are.

    Raises UserError where there is none at all.
    """
    planned, broken = [], dict[str, list[str]]()
    for figure in figures:
        try:
            session = Session(composed([f"figure={figure}", *overrides]), say=lambda _: None)
            if session.config.cluster.name != "local":
                cluster.prepare(session)
            planned.append((session, *_all_settings(session)))
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
    return f"{m.name}{of} ({d.size} pixels, {d.classes} classes, {settings.precision})"


def _all_settings(session: Session) -> tuple[list[tuple[Settings, int, int]], bool]:
    """Settings of every run, the iterations behind it, and how many of its states other runs start from.

    And whether the data are here: if not, both are 0.
    """
    try:
        return [(job.run.settings, behind(job), len(job.snapshots)) for _, _, job in session.jobs()], True
    except DataMissing:
        return [(session.settings(c, r), 0, 0) for r in session.replicates() for c in session.curves()], False


def _cells(row: Sequence[float], at_work: float, timed: bool) -> list[str]:
    counts = [*(f"{n:,}" for n in row[:3]), f"{row[3] / 1e6:,.1f}" if row[3] > 1e6 else f"{row[3] / 1e6:.3g}"]
    return [*counts, duration(row[4]) if timed else "-", f"{row[5] + at_work:,.0f} MiB"]
