"""Training the runs of a plan in a way that may be interrupted and shared: here, one after the other, or by workers."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from experiments import device as devices
from experiments.console import Display
from experiments.data import ImageFolders, ImageSet
from experiments.errors import UserError
from experiments.progress import Progress, Stopped
from experiments.session import Session
from experiments.settings import Settings
from experiments.store import Job
from experiments.words import duration

if TYPE_CHECKING:  # torch is for the process that trains
    import torch

    from experiments.distributed import Share

INTERRUPTED, REQUEUE = 130, 75
"""Exit codes: after Ctrl-C, and after SIGTERM (a scheduler's warning: run the same command again)."""


class Watcher(Protocol):
    """Who follows runs, named by their hash, while they train: a `Display`, or the process that shows one."""

    def start(self, run: str, name: str, iterations: int) -> None: ...
    def update(self, run: str, at: Progress) -> None: ...
    def finish(self, run: str, iterations: int) -> None: ...
    def say(self, text: str) -> None: ...


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """A function that is 0 until Ctrl-C or SIGTERM came, then the exit code. A second Ctrl-C ends at once."""
    code = 0

    def handle(number: int, _: Any) -> None:
        nonlocal code
        code = INTERRUPTED if number == signal.SIGINT else REQUEUE
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Ctrl-C ends the reader of a pipe (tee) as well, where rich raises SystemExit: the checkpoint matters more.
        with suppress(OSError, SystemExit):
            say("Stopping: writing a checkpoint. The same command goes on from here.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def carry_out(session: Session, jobs: Sequence[Job], console: Console, costs: Mapping[str, float] | None = None) -> int:
    """Train what is not done of a session's jobs, as its words jobs= and gpus= say. Returns the exit code.

    costs: see `experiments.console.Display`.
    """
    if session.config.jobs == session.config.gpus == 1:
        title, seconds = session.figure["name"], session.config.checkpoint_seconds
        return execute(
            jobs, session.data_sets.load, session.device, console, title, seconds, session.config.step, costs
        )
    from experiments.crew import Foreman

    return Foreman(session, jobs, console, costs).work()


def execute(
    jobs: Sequence[Job],
    data_for: Callable[[Settings], ImageSet | ImageFolders],
    device: "torch.device",
    console: Console,
    title: str,
    checkpoint_seconds: float,
    how: str = "auto",
    costs: Mapping[str, float] | None = None,
) -> int:
    """Train in this process. Returns 0, or the exit code after an interruption (with a checkpoint written).

    data_for: the data of a run. Jobs that another process is training are left to it and waited for at the end; should
    it die, they are taken over from its checkpoint. how: one of `experiments.device.STEPS`.
    costs: see `experiments.console.Display`.
    """
    waiting = [job for job in jobs if not job.done()]
    lengths = {job.run.hash: job.ends() for job in waiting}
    with (
        Display(console, title, lengths, costs) as display,
        stop_on_signals(display.say) as stopped,
    ):
        train_here = partial(train_job, data_for, device, display, lambda: bool(stopped()), checkpoint_seconds, how)
        patience = 0.0
        while waiting:
            for job in list(waiting):
                if stopped():
                    return stopped()
                if waits_for_parent(job, waiting):
                    continue
                with job.run.claim(timeout=patience) as mine:
                    if mine and not job.done():
                        try:
                            train_here(job)
                        except Stopped:
                            return stopped()
                    elif job.done():
                        display.finish(job.run.hash, lengths[job.run.hash])
                    else:
                        if not patience:
                            display.say(f"  {job.name} is being trained by {job.run.owner()}; it is left to that one.")
                        continue
                waiting.remove(job)
            patience = 2.0
    return 0


def waits_for_parent(job: Job, waiting: Sequence[Job]) -> bool:
    """Whether the snapshot this run starts from is still to be written, here or by another process."""
    start = job.run.settings.start
    parents = [other for other in waiting if other.run.hash == start.run]
    return bool(parents) and not parents[0].run.snapshot(start.iteration).is_file()


def train_job(
    data_for: Callable[[Settings], ImageSet | ImageFolders],
    device: "torch.device",
    watcher: Watcher,
    stop: Callable[[], bool],
    checkpoint_seconds: float,
    how: str,
    job: Job,
    share: "Share | None" = None,
) -> None:
    """Train one run, whose claim the caller holds, or a share of it. Raises Stopped."""
    import torch

    from experiments.distributed import ALONE
    from experiments.training import train

    settings, share = job.run.settings, share or ALONE
    data = data_for(settings)
    seen: dict[str, Any] = {"data": data.title, "data_source": data.source, "data_fingerprint": data.fingerprint}
    environment = devices.environment(device) | seen
    if share.ranks > 1:  # which adds up in another order
        environment |= {"processes": share.ranks, "device": f"{environment['device']}, {share.ranks} processes"}
    again, length = job.run.done(), job.ends()
    watcher.start(job.run.hash, job.name, length)
    if again:
        watcher.say(
            f"  {job.name} is finished, but not the states that other runs start from: it is trained up to them."
        )
    if share.leads and (done := job.run.iterations_done()):
        environment = job.run.went_on(environment)
        if done <= length:  # else it is trained for the sake of an earlier state only, as `train` says
            watcher.say(f"  {job.name} goes on from iteration {done:,} of {length:,}.")
    try:
        summary = train(
            job.run,
            data,
            device,
            environment=environment,
            progress=partial(watcher.update, job.run.hash),
            say=watcher.say,
            stop=stop,
            checkpoint_seconds=checkpoint_seconds,
            snapshots=job.snapshots,
            whole=job.whole,
            share=share,
            how=how,
        )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{job.name}: {settings.batch.total} images a step do not fit into the memory of {device} "
            f"({str(error).partition('. ')[0]}). Spread them over more devices (gpus=N), take a smaller batch "
            "(batch.per_gpu=N, which is another experiment), or free the device; the same command then goes on."
        ) from None
    finally:
        watcher.finish(job.run.hash, length)
    if again:
        return
    if not summary:
        watcher.say(f"  {job.name} has come to iteration {length:,}, where other runs start from it.")
        return
    gone = summary["diverged_at"]
    end = f"diverged by {gone:,}" if gone is not None else f"{summary['images_per_second']:,.0f} images/s"
    came = f"iterations {at:,} to {length:,}" if (at := settings.start.iteration) else f"{length:,} iterations"
    watcher.say(
        f"  {job.name}: {came} in {duration(summary['seconds'])} ({end}), "
        f"test loss {summary['final_test_loss']:.4f}, accuracy {summary['final_test_accuracy']:.4f}  [{job.run.hash}]"
    )
