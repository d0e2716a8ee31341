"""One loop for every network, figure and table: a run from its newest checkpoint to its end.

Order within an iteration t, as in the author's solver: test (if due), forward and backward, display, update with
lr[t] and momentum[t]. Rows of metrics.csv are taken where tests are due; their train columns are one batch of
virtual GPU 0 before that iteration's update.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from experiments import device as devices
from experiments.batches import test_number
from experiments.data import ImageFolders, ImageSet
from experiments.distributed import ALONE, Share
from experiments.divergence import DIVERGED_FROM, divergence
from experiments.errors import UserError
from experiments.progress import Progress, Stopped
from experiments.step import How
from experiments.store import Run, load_snapshot
from experiments.trainer import Trainer


def first_step(
    trainer: Trainer, begun: Callable[[How], Trainer], t: int, say: Callable[[str], None]
) -> tuple[Trainer, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """A run's first step, in a simpler way where the one chosen for it fails here: the trainer that did it, and what
    its `step` gives. begun: makes another trainer in the same state. Want of memory is an error in any way."""
    while True:
        try:
            passed = trainer.step(t)
            trainer.prepare()
            return trainer, passed
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a compiler, its driver or a library throws
            if (simpler := trainer.how.simpler()) is None:
                raise
            said = " ".join(str(error).split("\n")[:2])  # the first alone may be no more than "raised:"
            say(
                f"step={trainer.how} fails here ({type(error).__name__}: {said}): the run goes on with step={simpler}, "
                f"which is slower and trains the same. step={simpler} leaves the attempt out, step={trainer.how} shows "
                "the whole error."
            )
        trainer = begun(simpler)


@dataclass
class Course:
    """Where a run is, and how it came there.

    iteration: where this command takes it up; rows: its metrics so far; seconds: what it took before; died_at: the
    iteration whose test found every weight NaN; saved: the checkpoint it goes on from.
    """

    iteration: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    died_at: int | None = None
    saved: dict[str, Any] | None = None

    @classmethod
    def of(cls, run: Run, say: Callable[[str], None]) -> "Course":
        """From the run's newest whole checkpoint, or from its start where there is none."""
        saved, remarks = run.load_checkpoint()
        for remark in remarks:
            say(remark)
        if saved is None:
            return cls(run.settings.start.iteration)
        died_at = saved.get("died_at")  # older checkpoints do not know
        return cls(saved["iteration"], saved["rows"], saved["seconds"], died_at, saved)


class Checkpoints:
    """A run's checkpoints, one every so many seconds, 0 for one after every iteration."""

    def __init__(self, run: Run, course: Course, device: torch.device, every: float):
        self.run, self.course, self.device, self.every = run, course, device, every
        self.began = self.last = time.monotonic()
        self.cost = 0.0

    def seconds(self) -> float:
        """What the run has taken so far, in all commands. Waits for the device, which is behind."""
        devices.clock(self.device)
        return self.course.seconds + time.monotonic() - self.began

    def save(self, trainer: Trainer, iteration: int) -> None:
        course = self.course
        where = {"rows": course.rows, "iteration": iteration, "seconds": self.seconds(), "died_at": course.died_at}
        self.run.save_checkpoint(trainer.state() | where)

    def save_if_due(self, trainer: Trainer, iteration: int) -> None:
        # Where the state is large or the disk slow, no more than a twentieth of the time goes into it.
        pause = self.every and max(self.every, 20 * self.cost)
        if time.monotonic() - self.last >= pause:
            asked = time.monotonic()
            self.save(trainer, iteration)
            self.last = time.monotonic()
            self.cost = self.last - asked


def row_of(trainer: Trainer, course: Course, t: int, needed_until: int) -> dict[str, Any] | None:
    """The row of metrics.csv that iteration t begins, with its test; None where none is due.

    A trainer whose test finds every weight NaN is dead from then on, but not before iteration `needed_until`, up to
    which its states are wanted.
    """
    settings = trainer.settings
    if t % settings.test_interval:
        return None
    row: dict[str, Any] = {"iteration": t, "lr": float(trainer.lr[t]), "momentum": float(trainer.momentum[t])}
    if t > settings.start.iteration:
        row["test_loss"], row["test_accuracy"] = trainer.test(test_number(settings, t))
        at_ceiling = row["test_loss"] >= DIVERGED_FROM
        if at_ceiling and not trainer.dead and needed_until <= t and trainer.has_died():
            trainer.dead, course.died_at = True, t
    return row


def train(
    run: Run,
    data: ImageSet | ImageFolders,
    device: torch.device,
    *,
    environment: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 20.0,
    snapshots: Collection[int] = (),
    whole: bool = True,
    share: Share = ALONE,
    how: str = "auto",
) -> dict[str, Any]:
    """Train a run to its end, from its newest whole checkpoint if it has one, and leave it finished in the store.

    The caller holds the run's claim. progress is called after every iteration, say with sentences for the user; where
    stop() turns true, a checkpoint is written and Stopped raised. snapshots: numbers of updates after which the state
    is kept for other runs. whole: False ends at the last of those that are lacking, with a checkpoint to go on from.
    how: one of `experiments.device.STEPS`. share: this process's part; all ranks call with the same arguments, and with
    a stop that answers all alike at the same iteration; only rank 0 writes. Returns the summary, whose numbers are rank
    0's, and nothing where the run did not come to its end. A finished run that lacks snapshots is trained up to the
    last of them, and nothing else of it changes; an unfinished one that is past them keeps its checkpoint meanwhile.
    Where a test finds every weight NaN, the iterations that follow are not computed: their rows are known, and are
    written as if they were.
    """
    course = Course.of(run, say)
    lacking = [i for i in snapshots if not run.snapshot(i).is_file()]
    again = bool(lacking) and run.done()
    part = bool(lacking) and not whole and not again
    total = max(lacking) if again or part else run.settings.iterations
    if share.leads and not again:
        run.begin(environment or {})
    share.meet(course.iteration)
    loop = Loop(run, data, device, progress, say, stop, checkpoint_seconds, snapshots, share, how)
    if passed := [i for i in lacking if i < course.iteration]:
        # Deleted by somebody: no reason to lose what has been trained beyond.
        say(
            f"Run {run.hash} is trained once more up to iteration {max(passed):,}, whose state is missing; its "
            f"checkpoint, of iteration {course.iteration:,}, is kept."
        )
        loop.go(Course(run.settings.start.iteration), max(passed), keep=True)
    if course.iteration <= total:
        trainer, seconds = loop.go(course, total, to_the_end=not part)
    if part:
        return {}
    if again:
        if share.leads:
            run.drop_checkpoints()
        return run.summary()
    summary = summary_of(run, trainer, course, seconds)
    if (diverged := summary["diverged_at"]) is not None:
        died = course.died_at
        unseen = "" if died is None else f" From {died} on every weight is NaN, and nothing more was computed."
        say(f"Run {run.hash} has diverged by iteration {diverged}: that is its result.{unseen}")
    if share.leads:
        run.finish(course.rows, summary)
    return summary


@dataclass
class Loop:
    """Iterations of a run, as `train` is asked for them."""

    run: Run
    data: ImageSet | ImageFolders
    device: torch.device
    progress: Callable[[Progress], None]
    say: Callable[[str], None]
    stop: Callable[[], bool]
    checkpoint_seconds: float
    snapshots: Collection[int]
    share: Share
    how: str

    def _begun(self, course: Course, how: str | How) -> Trainer:
        settings = self.run.settings
        trainer = Trainer(settings, self.data, self.device, how, self.share)
        if course.saved is not None:
            trainer.load_state(course.saved)
            trainer.dead = course.died_at is not None
        elif settings.start.run:
            trainer.load_state(load_snapshot(self.run.folder.parents[1], settings.start.run, course.iteration))
        return trainer

    def go(self, course: Course, total: int, *, to_the_end: bool = False, keep: bool = False) -> tuple[Trainer, float]:
        """Train from where `course` is to iteration `total`: the trainer, and the seconds that the run has taken.

        to_the_end: with the test of the last iteration, and without a checkpoint there, which else is written to go on
        from. keep: the checkpoint that there is stays as it is.
        """
        run, share, leads = self.run, self.share, self.share.leads
        writes = leads and not keep
        trainer = self._begun(course, self.how)
        checkpoints = Checkpoints(run, course, self.device, self.checkpoint_seconds)
        pace = devices.Pace(self.device)
        for t in range(course.iteration, total + 1):
            if leads and t in self.snapshots and not run.snapshot(t).is_file():
                run.save_snapshot(t, trainer.state())
            if t == total and not to_the_end:
                if writes:
                    checkpoints.save(trainer, t)
                break
            row = row_of(trainer, course, t, max(self.snapshots, default=0))
            if t < total and (row is not None or not trainer.dead):
                if t == course.iteration and self.how == "auto" and share.ranks == 1:
                    trainer, passed = first_step(trainer, partial(self._begun, course), t, self.say)
                else:
                    passed = trainer.step(t)
                if row is not None and leads:
                    row |= trainer.train_metrics(*passed)
                trainer.update()
                pace.step()
            if row is not None:
                course.rows.append(row)
            self.progress(Progress(t, total, float(trainer.lr[t]), course.rows[-1] if course.rows else None))
            if t == total:
                break
            if self.stop():
                if writes:
                    checkpoints.save(trainer, t + 1)
                raise Stopped
            if writes:
                checkpoints.save_if_due(trainer, t + 1)
        return trainer, checkpoints.seconds()


def summary_of(run: Run, trainer: Trainer, course: Course, seconds: float) -> dict[str, Any]:
    """The summary of a run at its end, which took so many seconds."""
    settings, last = run.settings, course.rows[-1]
    computed = (settings.iterations if course.died_at is None else course.died_at) - settings.start.iteration
    return {
        "hash": run.hash,
        "iterations": settings.iterations,
        "parameters": sum(p.numel() for p in trainer.net.parameters()),
        "final_test_loss": last.get("test_loss"),
        "final_test_accuracy": last.get("test_accuracy"),
        "diverged_at": divergence(course.rows),
        "seconds": round(seconds, 3),
        "images_per_second": round(computed * settings.batch.total / seconds, 1),
    }
