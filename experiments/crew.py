"""The command's side of several processes: it starts them, hands out runs, shows what they report, sees them die."""

import contextlib
import itertools
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from experiments import device as devices
from experiments.compose import ROOT
from experiments.console import Display
from experiments.errors import UserError
from experiments.execute import stop_on_signals, waits_for_parent
from experiments.progress import Progress
from experiments.session import Session
from experiments.store import Job

TICK = 0.1
LAST_WORDS = 1.5
"""Seconds that the ranks of a run have to say why they end, once one of them has died."""
ASK_AGAIN = 2.0
"""Seconds until a run that a process of another command holds is tried again."""


def check(session: Session, jobs: Sequence[Job]) -> None:
    """Refuse what jobs= and gpus= cannot mean here, before anything starts. Raises UserError."""
    gpus, device = session.config.gpus, session.device
    if gpus == 1:
        return
    for job in jobs:
        hosted = job.run.settings.batch.gpus
        if hosted % gpus:
            even = [str(n) for n in range(1, hosted + 1) if hosted % n == 0]
            raise UserError(
                f"gpus={gpus}: {job.name} has {hosted} virtual GPUs (batch.gpus), which do not spread evenly over "
                f"{gpus} processes. Choose gpus={' or '.join([', '.join(even[:-1]), even[-1]] if even[1:] else even)}."
            )
    if device.type == "cuda":
        import torch

        if device.index is not None:
            raise UserError(f"device={device} names one GPU and gpus={gpus} asks for {gpus}: say device=cuda.")
        if gpus > torch.cuda.device_count():
            raise UserError(
                f"gpus={gpus}: this machine has {torch.cuda.device_count()} CUDA devices, and each process needs one "
                "of its own. Fewer gpus host the same virtual GPUs (batch.gpus) and train to the same numbers."
            )


def spread(session: Session, runs: int) -> tuple[int, int]:
    """How many processes train so many runs together, and the CPU threads of each."""
    config = session.config
    processes = max(1, min(config.jobs, runs)) * config.gpus
    return processes, config.threads or max(1, min(devices.default_threads(), devices.cores() // processes))


def orders(session: Session, jobs: Sequence[Job]) -> list[list[dict[str, Any]]]:
    """What the processes are to know: of every worker that trains a run at a time, the order of every rank."""
    config = session.config
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    processes, plain["threads"] = spread(session, len(jobs))
    if plain["data"]["workers"] is None:
        plain["data"] |= {"workers": max(1, min(devices.cores(), 16) // processes)}
    runs = [
        {"name": j.name, "settings": asdict(j.run.settings), "snapshots": list(j.snapshots), "whole": j.whole}
        for j in jobs
    ]

    def order(worker: int, rank: int) -> dict[str, Any]:
        device = str(session.device)
        if device == "cuda":
            import torch

            device = f"cuda:{(worker + rank) % torch.cuda.device_count()}"
        return {"config": plain | {"device": device}, "rank": rank, "ranks": config.gpus, "runs": runs}

    return [[order(worker, rank) for rank in range(config.gpus)] for worker in range(processes // config.gpus)]


class Process:
    """One worker process, its last words on stderr, and the events that it sends into a common queue."""

    def __init__(self, order: dict[str, Any], events: "queue.SimpleQueue[tuple[Process, dict[str, Any]]]"):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.rank: int = order["rank"]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.last_words: deque[str] = deque(maxlen=20)
        self.failure: dict[str, Any] | None = None
        self._threads = [
            threading.Thread(target=target, args=args, daemon=True)
            for target, args in ((self._read, (events,)), (self._listen, ()))
        ]
        for thread in self._threads:
            thread.start()
        self.tell(order)

    def _read(self, events: "queue.SimpleQueue[tuple[Process, dict[str, Any]]]") -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # a line that its end cut short
                events.put((self, json.loads(line)))

    def _listen(self) -> None:
        assert self.popen.stderr
        self.last_words.extend(line.rstrip("\n") for line in self.popen.stderr)

    def tell(self, command: dict[str, Any]) -> None:
        """Write a command; a process that is gone is noticed elsewhere."""
        assert self.popen.stdin
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.write(json.dumps(command) + "\n")
            self.popen.stdin.flush()

    @property
    def gone(self) -> bool:
        return self.popen.poll() is not None

    @property
    def silent(self) -> bool:
        """Whether it is gone and all it said has been read."""
        return self.gone and not any(thread.is_alive() for thread in self._threads)

    def why(self) -> str:
        """Of one that ended by itself: how, and its own last words."""
        who, code = f"process {self.popen.pid}", self.popen.returncode
        if self.failure:
            return self.failure["traceback"].rstrip()
        said = "\n".join(self.last_words)
        how = f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += " (the system does so when memory runs out)"
        return f"{who} {how}." + (f" Its last words:\n{said}" if said else "")


@dataclass
class Worker:
    """The processes that train one run at a time: one, or the ranks of gpus=N; `job` is what they are at."""

    number: int
    processes: list[Process]
    job: Job | None = None
    dying_since: float | None = None
    causes: list[Process] = field(default_factory=list)
    """Those that were gone or had failed before this side ended the rest."""

    def tell(self, **command: Any) -> None:
        for process in self.processes:
            process.tell(command)

    def kill(self) -> None:
        """End what is left, at once."""
        for process in self.processes:
            if not process.gone:
                process.popen.kill()
        for process in self.processes:
            process.popen.wait()

    def cause(self) -> Process:
        """The first to fail. One killed from outside says nothing itself, but the others fail for its sake."""

        def order(process: Process) -> float:
            if process.failure:
                return process.failure["time"]
            killed = (process.popen.returncode or 0) < 0 and process.popen.returncode != -signal.SIGABRT
            return 0.0 if killed else math.inf

        return min(self.causes, key=order)


class Foreman:
    """Trains the jobs of a session with the processes that it asks for. costs: see `experiments.console.Display`."""

    def __init__(
        self, session: Session, jobs: Sequence[Job], console: Console, costs: Mapping[str, float] | None = None
    ):
        check(session, jobs)
        if session.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()  # the workers can use what measuring for the plan took
        self.session, self.console, self.costs = session, console, costs
        self.waiting = [job for job in jobs if not job.done()]
        self.orders = orders(session, self.waiting)
        self.numbers = itertools.count()
        self.attempts = 1 if session.config.gpus > 1 else 2
        self.deaths: Counter[str] = Counter()
        self.failed: list[Job] = []
        self.not_before: dict[str, float] = {}
        self.left_alone: set[str] = set()
        self.workers: list[Worker] = []
        self.events: queue.SimpleQueue[tuple[Process, dict[str, Any]]] = queue.SimpleQueue()

    def work(self) -> int:
        """Train all. Returns 0, 1 where a run failed, or the code of an interruption. Raises UserError."""
        title = self.session.figure["name"]
        self.lengths = {job.run.hash: job.ends() for job in self.waiting}
        with (
            tempfile.TemporaryDirectory(prefix="ranks-") as self.folder,
            Display(self.console, title, self.lengths, self.costs) as self.display,
            stop_on_signals(self.display.say) as stopped,
        ):
            try:
                while self.waiting and not stopped():
                    self._hand_out()
                    self._listen()
                self._dismiss("stop" if stopped() else "end")
            finally:
                for worker in self.workers:
                    worker.kill()
        for job in self.failed:
            self.display.say(f"  {job.name} failed. The same command goes on from its checkpoint.")
        return stopped() or int(bool(self.failed))

    def _hand_out(self) -> None:
        """Give every idle worker a run; start a worker where there is more work than workers."""
        for number in range(len(self.orders)):
            worker = next((w for w in self.workers if w.number == number), None)
            if worker and worker.job:
                continue
            if (job := self._next()) is None:
                return
            if worker is None:
                worker = self._started(number)
            worker.job = job
            worker.tell(train=job.run.hash)

    def _next(self) -> Job | None:
        taken = {worker.job.run.hash for worker in self.workers if worker.job}
        now = time.monotonic()
        for job in self.waiting:
            name = job.run.hash
            if name not in taken and now >= self.not_before.get(name, 0) and not waits_for_parent(job, self.waiting):
                return job
        return None

    def _started(self, number: int) -> Worker:
        meeting = str(Path(self.folder) / f"meeting-{next(self.numbers)}")
        processes = [Process(order | {"meeting": meeting}, self.events) for order in self.orders[number]]
        self.workers.append(worker := Worker(number, processes))
        return worker

    def _listen(self) -> None:
        """Take in what the processes said, for a moment or until something was said; bury the dead."""
        with contextlib.suppress(queue.Empty):
            process, event = self.events.get(timeout=TICK)
            while True:
                self._hear(process, event)
                process, event = self.events.get_nowait()
        for worker in list(self.workers):
            gone = [p for p in worker.processes if p.gone or p.failure]
            if gone and worker.dying_since is None:
                worker.dying_since = time.monotonic()
            all_said = all(p.silent for p in worker.processes)
            if gone and worker.dying_since and (all_said or time.monotonic() - worker.dying_since > LAST_WORDS):
                worker.causes = gone
                if self.events.empty():
                    self._bury(worker)

    def _hear(self, process: Process, event: dict[str, Any]) -> None:
        worker = next((w for w in self.workers if process in w.processes), None)
        if worker is None:
            return
        kind, run = event["event"], event.get("run", "")
        if kind == "say":
            self.display.say(event["text"])
        elif kind == "started":
            self.display.start(run, event["name"], event["iterations"])
        elif kind == "progress":
            self.display.update(run, Progress(**event["at"]))
        elif kind == "failed":
            process.failure = event
        elif worker.job:  # finished, or busy: another process trains it
            if kind == "finished":
                self.display.finish(run, self.lengths[run])
                self.waiting.remove(worker.job)
            else:
                if run not in self.left_alone:
                    self.left_alone.add(run)
                    self.display.say(
                        f"  {worker.job.name} is being trained by {event['owner']}; it is left to that one."
                    )
                self.not_before[run] = time.monotonic() + ASK_AGAIN
            worker.job = None

    def _bury(self, worker: Worker) -> None:
        """Say why a worker died, and have its run taken over, once."""
        worker.kill()
        self.workers.remove(worker)
        cause, job = worker.cause(), worker.job
        if cause.failure and cause.failure["sentence"]:
            self._dismiss("stop")
            raise UserError(cause.failure["sentence"])
        who = f"rank {cause.rank}" if len(worker.processes) > 1 else f"worker {worker.number + 1}"
        doing = f" while training {job.name}" if job else ""
        self.display.say(f"  {who} died{doing}:\n{cause.why()}")
        if job is None:
            return
        self.display.drop(job.run.hash)
        self.deaths[job.run.hash] += 1
        if self.deaths[job.run.hash] < self.attempts:
            self.display.say(f"  {job.name} is taken over.")
            return
        lost = [job, *(j for j in self.waiting if j.run.settings.start.run == job.run.hash)]
        if self.attempts == 1:  # one run at a time: what ended this one is likely to end the next
            self.failed, self.waiting = lost[:1], []
            return
        self.failed += lost
        self.waiting = [j for j in self.waiting if j not in lost]

    def _dismiss(self, word: str) -> None:
        """Tell all workers that this was all, or to stop with a checkpoint, and wait until they have ended."""
        for worker in self.workers:
            worker.tell(**{word: True})
        while any(not p.silent for w in self.workers for p in w.processes) or not self.events.empty():
            with contextlib.suppress(queue.Empty):
                self._hear(*self.events.get(timeout=TICK))
            for worker in self.workers:
                if any(p.failure or (p.gone and p.popen.returncode) for p in worker.processes):
                    worker.dying_since = worker.dying_since or time.monotonic()
                    if time.monotonic() - worker.dying_since > LAST_WORDS:
                        worker.kill()
        for worker in self.workers:
            for p in worker.processes:
                if p.failure and p.failure["sentence"]:
                    self.display.say(f"  worker {worker.number + 1}: {p.failure['sentence']}")
                elif p.popen.returncode and (p.failure or not worker.dying_since):
                    self.display.say(f"  A worker failed at the end:\n{p.why()}")
                elif not p.popen.returncode:
                    for line in p.last_words:
                        self.display.say(f"  worker {worker.number + 1}: {line}")
