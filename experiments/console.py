"""What the user sees while runs train: bars on a terminal, a line now and then in a log."""

import time
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from experiments.trainer import Progress as Position
from experiments.words import duration

LOG_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


def figures_of(metrics: dict[str, Any] | None) -> str:
    """The newest test of a run in a few words, short enough for a bar on 80 columns."""
    if not metrics or metrics.get("test_loss") is None:
        return "no test yet"
    return f"loss {metrics['test_loss']:.4f}, accuracy {metrics['test_accuracy']:.4f}"


class Display(AbstractContextManager["Display"]):
    """One bar for the whole (in iterations of all runs) and one for the run in hand."""

    def __init__(self, console: Console, title: str, iterations: int):
        self.console, self.title, self.iterations = console, title, iterations
        self.done, self.current, self.skipped, self.name = 0, 0, 0, ""
        self.began = self.logged = time.monotonic()
        self.bars: Progress | None = None
        self.whole = self.run = TaskID(0)
        if console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=14),
                TaskProgressColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}"),
                console=console,
                refresh_per_second=5,
            )
            self.whole = self.bars.add_task(title, total=iterations, figures="")

    def __enter__(self) -> "Display":
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bars:
            self.bars.stop()

    def start(self, name: str, iterations: int) -> None:
        """A run begins (or goes on: the first update says where)."""
        self.name, self.current = name, -1
        if self.bars:
            self.run = self.bars.add_task("  " + name, total=iterations, figures="")

    def update(self, at: Position) -> None:
        """One iteration more; the first of a run tells what it had behind it, which took no time now."""
        if self.current < 0:
            self.skipped += at.iteration
        self.current = at.iteration
        if self.bars:
            text = f"{figures_of(at.metrics)}, lr {at.lr:.3g}"
            self.bars.update(self.run, completed=at.iteration, figures=text)
            self.bars.update(self.whole, completed=self.done + at.iteration)
        elif time.monotonic() - self.logged >= LOG_EVERY:
            self.logged = time.monotonic()
            done = self.done + self.current
            left = (self.logged - self.began) * (self.iterations - done) / max(done - self.skipped, 1)
            self.say(
                f"  {self.name}: iteration {at.iteration}/{at.iterations}, {figures_of(at.metrics)}, "
                f"lr {at.lr:.3g}; {self.title}: about {duration(left)} left"
            )

    def finish(self, iterations: int) -> None:
        """The run in hand is over; its bar goes, its iterations count."""
        self.done += iterations
        if self.bars:
            self.bars.remove_task(self.run)
            self.bars.update(self.whole, completed=self.done)

    def say(self, text: str) -> None:
        """A sentence above the bars."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)
