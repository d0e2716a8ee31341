"""What the user sees while runs train: bars on a terminal, a line now and then in a log."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from experiments.progress import Progress as Position
from experiments.words import duration

LOG_WIDTH = 160
"""Columns of tables where there is no terminal and COLUMNS says nothing; rich would cut them at 80."""

LOG_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


def console(stderr: bool = False) -> Console:
    """Where a command prints."""
    stream = sys.stderr if stderr else sys.stdout
    known = "COLUMNS" in os.environ or (stream is not None and stream.isatty())
    return Console(stderr=stderr, width=None if known else LOG_WIDTH)


def say(console: Console, text: str | Text) -> None:
    """Print a line as it is: rich neither reads brackets in it as markup nor breaks or colours it."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def figures_of(metrics: dict[str, Any] | None) -> str:
    """The newest test of a run in a few words, short enough for a bar on 80 columns."""
    if not metrics or metrics.get("test_loss") is None:
        return "no test yet"
    return f"loss {metrics['test_loss']:.4f}, accuracy {metrics['test_accuracy']:.4f}"


class Display(AbstractContextManager["Display"]):
    """One bar for the whole and one for every run in hand; runs are named by their hash.

    lengths: iterations of every run. costs: what an iteration of each costs, in any unit: a figure's runs may differ by
    a hundred times, so that the time left does not follow from iterations. None: all cost the same.
    """

    def __init__(self, console: Console, title: str, lengths: Mapping[str, int], costs: Mapping[str, float] | None):
        self.console, self.title, self.costs = console, title, costs
        self.total = sum(self._work(run, length) for run, length in lengths.items())
        self.done, self.skipped = 0.0, 0.0
        self.current: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.seen: set[str] = set()
        self.began = self.logged = time.monotonic()
        self.bars: Progress | None = None
        self.whole, self.runs = TaskID(0), dict[str, TaskID]()
        if console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=14),
                TaskProgressColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}"),
                console=console,
                refresh_per_second=5,
            )
            self.whole = self.bars.add_task(title, total=self.total, figures="")

    def _work(self, run: str, iterations: int) -> float:
        return iterations * (1.0 if self.costs is None else self.costs[run])

    def _behind(self) -> float:
        return self.done + sum(self._work(run, iterations) for run, iterations in self.current.items())

    def __enter__(self) -> "Display":
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bars:
            self.bars.stop()

    def start(self, run: str, name: str, iterations: int) -> None:
        """A run begins (or goes on: the first update says where)."""
        self.names[run] = name
        if self.bars:
            self.runs[run] = self.bars.add_task("  " + name, total=iterations, figures="")

    def update(self, run: str, at: Position) -> None:
        """The newest of a run; the first update tells what it had behind it, which took no time now."""
        if run not in self.seen:
            if not self.seen:  # what came before, data and processes, says nothing of the rest
                self.began = self.logged = time.monotonic()
            self.seen.add(run)
            self.skipped += self._work(run, at.iteration)
        self.current[run] = at.iteration
        done = self._behind()
        if self.bars:
            text = f"{figures_of(at.metrics)}, lr {at.lr:.3g}"
            self.bars.update(self.runs[run], completed=at.iteration, figures=text)
            self.bars.update(self.whole, completed=done)
        elif time.monotonic() - self.logged >= LOG_EVERY and done > self.skipped:
            self.logged = time.monotonic()
            left = (self.logged - self.began) * (self.total - done) / (done - self.skipped)
            self.say(
                f"  {self.names[run]}: iteration {at.iteration}/{at.iterations}, {figures_of(at.metrics)}, "
                f"lr {at.lr:.3g}; {self.title}: about {duration(left)} left"
            )

    def drop(self, run: str) -> None:
        """Nobody trains the run at the moment: its bar goes."""
        self.current.pop(run, None)
        if self.bars and run in self.runs:
            self.bars.remove_task(self.runs.pop(run))

    def finish(self, run: str, iterations: int) -> None:
        """The run is over; its bar goes, its iterations count."""
        self.drop(run)
        self.done += self._work(run, iterations)
        if self.bars:
            self.bars.update(self.whole, completed=self._behind())

    def say(self, text: str) -> None:
        """A sentence above the bars."""
        say(self.console, text)
