"""What is shown while runs train, one or several at a time."""

import io

import pytest
from rich.console import Console

from experiments import console
from experiments.console import Display
from experiments.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when told to."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_log_tells_the_time_left_of_all_runs_together(clock):
    out = io.StringIO()
    with Display(Console(file=out, width=200), "fig09", {"a": 200, "b": 200}, None) as display:
        display.start("a", "WD=1", 200)
        display.start("b", "WD=2", 200)
        clock[0] = 60.0  # processes start: no measure of the rest
        display.update("a", Progress(100, 200, 0.1, None))  # goes on from a checkpoint
        display.update("b", Progress(0, 200, 0.1, None))
        clock[0] = 80.0
        display.update("a", Progress(120, 200, 0.1, {"test_loss": 1.5, "test_accuracy": 0.25}))
        # 20 iterations in 20 s, 280 to go
        assert (
            "WD=1: iteration 120/200, loss 1.5000, accuracy 0.2500, lr 0.1; fig09: about 5 min left" in out.getvalue()
        )
        clock[0] = 100.0
        display.update("b", Progress(20, 200, 0.1, None))
    # 40 iterations in 40 s, 260 to go
    assert out.getvalue().count("left") == 2
    assert "WD=2: iteration 20/200, no test yet, lr 0.1; fig09: about 4 min left" in out.getvalue()


def test_the_time_left_follows_what_iterations_cost(clock):
    out = io.StringIO()
    with Display(Console(file=out, width=200), "fig02", {"narrow": 100, "wide": 100}, {"narrow": 0.1, "wide": 3}) as it:
        it.start("narrow", "1 channel", 100)
        it.update("narrow", Progress(0, 100, 0.1, None))
        clock[0] = 12.0
        it.update("narrow", Progress(60, 100, 0.1, None))  # 6 of 310, as 12 s
        assert "fig02: about 10 min left" in out.getvalue()
        it.finish("narrow", 100)
        it.start("wide", "128 channels", 100)
        clock[0] = 120.0
        it.update("wide", Progress(0, 100, 0.1, None))
        clock[0] = 140.0
        it.update("wide", Progress(10, 100, 0.1, None))  # 40 of 310, as 140 s
        assert out.getvalue().splitlines()[-1].endswith("fig02: about 16 min left")


def test_no_time_is_told_before_anything_is_done(clock):
    out = io.StringIO()
    with Display(Console(file=out, width=200), "fig09", {"a": 200}, None) as display:
        display.start("a", "WD=1", 200)
        display.update("a", Progress(0, 200, 0.1, None))
        clock[0] = 60.0
        display.update("a", Progress(0, 200, 0.1, None))
    assert "left" not in out.getvalue()


def test_bars_of_runs_come_and_go(clock):
    out = Console(file=io.StringIO(), width=100, force_terminal=True)
    with Display(out, "fig09", {"a": 200, "b": 200}, None) as display:

        def shown() -> list[tuple[str, float]]:
            assert display.bars
            return [(task.description.strip(), task.completed) for task in display.bars.tasks]

        display.start("a", "WD=1", 200)
        display.start("b", "WD=2", 200)
        display.update("a", Progress(50, 200, 0.1, None))
        display.update("b", Progress(30, 200, 0.1, None))
        assert shown() == [("fig09", 80), ("WD=1", 50), ("WD=2", 30)]
        display.drop("b")  # its process died
        display.update("a", Progress(60, 200, 0.1, None))
        assert shown() == [("fig09", 60), ("WD=1", 60)]
        display.finish("a", 200)
        assert shown() == [("fig09", 200)]
        display.start("b", "WD=2", 200)
        display.update("b", Progress(25, 200, 0.1, None))
        assert shown() == [("fig09", 225), ("WD=2", 25)]
        display.finish("b", 200)
        assert shown() == [("fig09", 400)]


@pytest.mark.parametrize(("columns", "width"), [(None, console.LOG_WIDTH), ("77", 77)])
def test_a_log_is_wide_enough_for_tables(monkeypatch, columns, width):
    monkeypatch.setattr(console.sys, "stdout", io.StringIO())
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    assert console.console().width == width
