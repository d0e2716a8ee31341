"""A process that trains runs for the command that started it: one of jobs=N, or one rank of gpus=N.

It reads lines from stdin: first the order, a JSON object, then {"train": hash} as often as there is work, and at last
{"end": true}; {"stop": true} asks for a checkpoint and the end. It answers with JSON lines on stdout, each with "event"
and "time". Where stdin ends, the command is gone, and so is this process at once.
"""

import signal

if __name__ == "__main__":  # before anything slow: Ctrl-C and a scheduler's SIGTERM are the command's to answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError
from experiments.progress import Progress, Stopped

if TYPE_CHECKING:  # what takes long to import comes once the process listens
    import torch

    from experiments.distributed import Share
    from experiments.session import Session
    from experiments.store import Job

EVENTS_A_SECOND = 5
BUSY, TRAIN, STOP = range(3)
"""What rank 0 tells the others about a run that all were asked to train."""


class Commands:
    """What the parent wrote, in order; `stop` turns true as soon as it asks, in the middle of a run too."""

    def __init__(self) -> None:
        self.stop, self._queue = False, queue.SimpleQueue[dict[str, Any]]()
        self.get = self._queue.get
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = b""
        while found := os.read(0, 1 << 16):  # not sys.stdin, whose lock a sleeping thread would keep at the exit
            *lines, rest = (rest + found).split(b"\n")
            for line in lines:
                command = json.loads(line)
                self.stop = self.stop or "stop" in command
                self._queue.put(command)
        os._exit(1)


class Reporter:
    """Events for the parent: what a `Display` would be told, of one run at a time."""

    def __init__(self, send: Callable[..., None]):
        self.send, self.last = send, 0.0

    def start(self, run: str, name: str, iterations: int) -> None:
        self.last = 0.0
        self.send("started", run=run, name=name, iterations=iterations)

    def update(self, run: str, at: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= 1 / EVENTS_A_SECOND:
            self.last = now
            self.send("progress", run=run, at=vars(at))

    def finish(self, run: str, iterations: int) -> None:
        """The end of a run is the worker's to tell, when its claim is given back."""

    def say(self, text: str) -> None:
        self.send("say", text=text)


def event_sender() -> Callable[..., None]:
    """send(event, **what) writes a line to the real stdout; whatever else prints there goes to stderr from now on."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(event: str, **what: Any) -> None:
        out.write(json.dumps({"event": event, "time": time.time(), **what}) + "\n")

    return send


def work(commands: Commands, send: Callable[..., None]) -> None:
    """Train what the parent asks for until it says that this was all."""
    order = commands.get()
    from omegaconf import OmegaConf

    from experiments import distributed
    from experiments.session import Session
    from experiments.settings import from_dict
    from experiments.store import Job, Run

    rank, ranks = order["rank"], order["ranks"]
    watcher = Reporter(send if rank == 0 else lambda *_, **__: None)
    session = Session(OmegaConf.create(order["config"]), watcher.say)
    device = session.device  # on CUDA the current one from here on
    jobs = {}
    for one in order["runs"]:
        run = Run(session.results, from_dict(one["settings"]))
        jobs[run.hash] = Job(one["name"], run, tuple(one["snapshots"]), one["whole"])
    share = distributed.join(rank, ranks, device, Path(order["meeting"]))
    while "train" in (command := commands.get()):
        job = jobs[command["train"]]
        try:
            _train(job, session, device, share, commands, watcher, send)
        except Stopped:
            break
    distributed.leave(share)


def _train(
    job: "Job",
    session: "Session",
    device: "torch.device",
    share: "Share",
    commands: Commands,
    watcher: Reporter,
    send: Callable[..., None],
) -> None:
    from experiments.distributed import Agreement
    from experiments.execute import train_job

    stop = Agreement(share, lambda: commands.stop) if share.ranks > 1 else lambda: commands.stop

    def train() -> None:
        train_job(
            session.data_sets.load,
            device,
            watcher,
            stop,
            session.config.checkpoint_seconds,
            session.config.step,
            job,
            share,
        )

    if not share.leads:
        (answer,) = share.told(0)
        if answer == STOP:
            raise Stopped
        if answer == TRAIN:
            train()
        return
    with job.run.claim() as mine:
        owner = None if mine else job.run.owner()
        wanted = mine and not job.done()
        (answer,) = share.told(STOP if commands.stop else TRAIN if wanted else BUSY)
        if answer == STOP:
            raise Stopped
        if answer == TRAIN:
            train()
    if mine or job.done():
        send("finished", run=job.run.hash)
    else:
        send("busy", run=job.run.hash, owner=owner)


def main() -> int:
    """Returns the exit code: 0, or 1 after an event "failed" with the traceback."""
    send = event_sender()
    try:
        work(Commands(), send)
    except Exception as error:  # whatever it is, it is the command's to show: a worker has no terminal
        from experiments import device as devices

        said = error if isinstance(error, UserError) else devices.failure(error)
        sentence = "" if said is None else str(said)
        send("failed", sentence=sentence, traceback=traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
