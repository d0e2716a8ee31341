"""Training the runs of a plan, one after the other, in a way that may be interrupted and shared."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import Console

from experiments import device as devices
from experiments.console import Display
from experiments.data import ImageFolders, ImageSet
from experiments.settings import Settings
from experiments.store import Job
from experiments.trainer import Stopped, train
from experiments.words import duration

INTERRUPTED, REQUEUE = 130, 75
"""Exit codes: after Ctrl-C, and after SIGTERM (a scheduler's warning: run the same command again)."""


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """A function that is 0 until Ctrl-C or SIGTERM came, then the exit code. A second Ctrl-C ends at once."""
    code = 0

    def handle(number: int, _: Any) -> None:
        nonlocal code
        code = INTERRUPTED if number == signal.SIGINT else REQUEUE
        say("Stopping: writing a checkpoint. The same command goes on from here.")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def execute(
    jobs: Sequence[Job],
    data_for: Callable[[Settings], ImageSet | ImageFolders],
    device,
    console: Console,
    title: str,
    checkpoint_seconds: float,
    how: str = "auto",
) -> int:
    """Train what is not done. Returns 0, or the exit code after an interruption (with a checkpoint written).

    data_for: the data of a run. Jobs that another process is training are left to it and waited for at the end; should
    it die, they are taken over from its checkpoint. how: one of `experiments.device.STEPS`.
    """
    waiting = [job for job in jobs if not job.done()]
    with (
        Display(console, title, sum(job.run.settings.iterations for job in waiting)) as display,
        stop_on_signals(display.say) as stopped,
    ):
        train_job = partial(_train, data_for, device, display, stopped, checkpoint_seconds, how)
        patience = 0.0
        while waiting:
            for job in list(waiting):
                if stopped():
                    return stopped()
                if _waits_for_parent(job, waiting):
                    continue
                with job.run.claim(timeout=patience) as mine:
                    if mine and not job.done():
                        try:
                            train_job(job)
                        except Stopped:
                            return stopped()
                    elif job.done():
                        display.finish(job.run.settings.iterations)
                    else:
                        if not patience:
                            display.say(f"  {job.name} is being trained by {job.run.owner()}; it is left to that one.")
                        continue
                waiting.remove(job)
            patience = 2.0
    return 0


def _waits_for_parent(job: Job, waiting: Sequence[Job]) -> bool:
    """Whether the snapshot this run starts from is still to be written, here or by another process."""
    start = job.run.settings.start
    parents = [other for other in waiting if other.run.hash == start.run]
    return bool(parents) and not parents[0].run.snapshot(start.iteration).is_file()


def _train(
    data_for: Callable[[Settings], ImageSet | ImageFolders],
    device,
    display: Display,
    stopped: Callable[[], int],
    checkpoint_seconds: float,
    how: str,
    job: Job,
) -> None:
    settings = job.run.settings
    data = data_for(settings)
    seen = {"data": data.title, "data_source": data.source, "data_fingerprint": data.fingerprint}
    display.start(job.name, settings.iterations)
    if job.run.started():
        display.say(f"  {job.name} goes on from its checkpoint.")
    try:
        summary = train(
            job.run,
            data,
            device,
            environment=devices.environment(device) | seen,
            progress=display.update,
            say=display.say,
            stop=lambda: bool(stopped()),
            checkpoint_seconds=checkpoint_seconds,
            snapshots=job.snapshots,
            how=how,
        )
    finally:
        display.finish(settings.iterations)
    display.say(
        f"  {job.name}: {settings.iterations:,} iterations in {duration(summary['seconds'])} "
        f"({summary['images_per_second']:,.0f} images/s), test loss {summary['final_test_loss']:.4f}, "
        f"accuracy {summary['final_test_accuracy']:.4f}  [{job.run.hash}]"
    )
