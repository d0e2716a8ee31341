"""The judge on runs that have diverged or sit at chance: they are no evidence for what the report concludes."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reproduce import reference
from reproduce.claims import CLAIMS, judge
from reproduce.claims.comparisons import FAILED, HELD, INCONCLUSIVE, about, at_least, at_most, less, not_above
from reproduce.claims.numbers import CLASSES, LOST, Number, PanelData, alive, final, mean_over, ratio, slope
from reproduce.series import DIVERGED_LOSS, Curve

CHANCE = math.log(10)
CURVES = [id for id in CLAIMS if id[0] == "F" and id not in ("F02.1", "F05.2")]
"""Without panel 2, a sketch in the report, and without the claim that a run cannot be trained."""
TABLES = [id for id in CLAIMS if id[0] == "T"]


def killed(panel: str, only: str | None = None, since: float = 0.5, loss: float | None = None):
    """The report's own panel, but from a part of each series on (or of one) the network answers always the same.

    loss: of the dead, by default that of equal odds.
    """
    classes = CLASSES.get(panel, 10)
    value = {"accuracy": 1 / classes, "loss": loss or math.log(classes), "error": 0.0}

    def kill(quantity: str, c: Curve) -> Curve:
        dead = np.arange(len(c.x)) >= since * len(c.x)
        return replace(c, mean=np.where(dead, value[quantity.rpartition("_")[2]], c.mean))

    return {
        quantity: {label: kill(quantity, c) if only in (None, label) else c for label, c in series.items()}
        for quantity, series in reference.curves(panel).items()
    }


def verdict(id: str, panel) -> str:
    return judge([id], {CLAIMS[id].panel: panel}, "paper")[0].status


@pytest.mark.parametrize("loss", [None, DIVERGED_LOSS])
@pytest.mark.parametrize("id", CURVES)
def test_nothing_holds_where_all_runs_are_dead_from_the_start(id, loss):
    assert verdict(id, killed(CLAIMS[id].panel, since=0.0, loss=loss)) != HELD


@pytest.mark.parametrize("id", TABLES)
def test_nothing_holds_where_all_rows_are_at_chance(id):
    table = reference.table(CLAIMS[id].panel)
    percent = np.where(table["dataset"] == "cifar100", 1.0, 10.0)
    assert verdict(id, table.assign(replicates=4, accuracy_percent=percent)) != HELD


@pytest.mark.parametrize("loss", [None, DIVERGED_LOSS])
@pytest.mark.parametrize(
    ("id", "label"),
    [
        ("F01.3", None),  # its generalisation error is then 0, the smallest there is
        ("F03.1", "LR=0.0055"),  # the loss of a dead run is flat, too
        ("F04.1", "WD=1e-4"),  # and high
        ("F04.4", "CLR=0.05-1, WD=1e-7, CM=0.95-0.85"),
        ("F04.4", "LR=0.1, WD=1e-4, Mom=0.9"),
        ("F07.6", None),
        ("F11.1", "WD=1e-4"),
        ("F15.2", None),
    ],
)
def test_a_run_that_dies_half_way_neither_overfits_nor_is_as_good(id, label, loss):
    assert verdict(id, reference.curves(CLAIMS[id].panel)) == HELD
    assert verdict(id, killed(CLAIMS[id].panel, label, loss=loss)) != HELD


@pytest.mark.parametrize("id", ["F05.2", "F09.1", "F12.1", "F12.2", "F13.1"])
def test_what_a_large_weight_decay_kills_is_the_worse_for_it(id):
    """That a run cannot be trained is a result: a live curve lies below a dead one."""
    dead = {"F05.2": "Weight decay=0.001", "F09.1": "WD=1e-2", "F12.1": "WD=1e-2"}.get(id, "WD=1e-3")
    assert verdict(id, killed(CLAIMS[id].panel, dead)) == HELD


@pytest.mark.parametrize(
    ("dead", "status"),
    [
        (("WD=1e-3", "WD=3e-4"), HELD),  # the largest is to be the worst, or to diverge
        (("WD=3e-4",), FAILED),
        (("WD=1e-3", "WD=3e-4", "WD=1e-4"), INCONCLUSIVE),
    ],
)
def test_of_the_largest_weight_decay_it_is_enough_that_it_diverges(dead, status):
    curves = {name: dict(series) for name, series in reference.curves("fig12b").items()}
    for label in dead:
        curves["test_loss"][label] = killed("fig12b", label, since=0.1)["test_loss"][label]
    if "WD=1e-3" not in dead:  # the report's own leaves the panel
        other = curves["test_loss"]["WD=1e-4"]
        curves["test_loss"]["WD=1e-3"] = replace(other, mean=other.mean * 1.1)
    assert verdict("F12.2", curves) == status


@pytest.mark.parametrize(("dead", "tests", "status"), [(4, 9, HELD), (1, 9, INCONCLUSIVE), (4, 1, FAILED)])
def test_it_is_enough_where_all_of_its_runs_have_died_by_the_end(dead, tests, status):
    """Of four runs that else lie below WD=3e-4's one proves nothing, and one test that is so high may be a spike."""
    curves = {name: dict(series) for name, series in reference.curves("fig12b").items()}
    middle = curves["test_loss"]["WD=3e-4"]
    runs = np.stack([0.3 * middle.mean + 0.001 * i for i in range(4)])
    runs[:dead, np.flatnonzero(middle.x <= 0.8)[-tests:]] = 3.0
    large = replace(middle, mean=runs.mean(0), std=runs.std(0, ddof=1), runs=runs, replicates=4)
    curves["test_loss"]["WD=1e-3"] = large
    (found,) = judge(["F12.2"], {"fig12b": curves}, "paper")
    assert (found.status, found.numbers["runs that have died(WD=1e-3) by 0.8"]) == (status, dead * (tests > 1))
    del curves["test_loss"]["WD=1e-3"]
    (found,) = judge(["F12.2"], {"fig12b": curves}, "paper")
    assert found.reason.count("no test loss of WD=1e-3") == 1


def test_a_table_row_that_died_makes_no_other_as_good():
    """T2.2: 150 epochs of 1cycle (row 14) are no worse than 400 of step (row 10)."""
    table = reference.table("table2").assign(replicates=4).set_index("row")
    table.loc[10, "accuracy_percent"] = 10.0
    assert verdict("T2.2", table.reset_index()) == INCONCLUSIVE


def panel(loss, quantity="test_loss", name="fig09a") -> PanelData:
    loss = np.asarray(loss, dtype=float)
    return PanelData(name, {quantity: {"s": Curve("s", np.arange(len(loss)) + 1.0, loss, np.zeros_like(loss), 1)}})


@pytest.mark.parametrize(
    ("name", "quantity", "level", "lost"),
    [
        ("fig09a", "test_loss", 2.29, False),
        ("fig09a", "test_loss", CHANCE, True),
        ("fig09a", "test_loss", 22.0, True),
        ("fig15a", "test_loss", CHANCE, False),  # of a hundred classes that is half the way down
        ("fig15a", "test_loss", math.log(100), True),
        ("fig16a", "test_accuracy", 0.01, False),
        ("fig16a", "test_accuracy", 0.001, True),
        ("fig09b", "test_accuracy", 0.1, True),
        ("fig14a", "test_accuracy", 0.1135, True),  # MNIST's most frequent digit
        ("fig09b", "test_accuracy", 0.15, False),
        ("fig01b", "generalization_error", 0.0, True),
        ("fig01b", "generalization_error", 0.01, False),
    ],
)
def test_lost_is_what_chance_would_do(name, quantity, level, lost):
    p = panel([level] * 20, quantity, name)
    assert final(p, "s", quantity).lost is lost
    assert mean_over(p, "s", 5, 15, quantity).lost is lost


def test_two_dead_runs_are_not_compared():
    a, b = Number("a", 2.3026, lost=True), Number("b", 2.3027, lost=True)
    for found in (less(a, b), not_above(a, b), about(a, b, tolerance=0.1)):
        assert found.status == INCONCLUSIVE
        assert LOST in found.text
    assert less(Number("c", 0.5), b).status == HELD
    assert not_above(Number("c", 0.5), b).status == INCONCLUSIVE, "as good as a dead run is nothing"


def test_doubt_undoes_what_holds_and_nothing_else():
    dead, low = Number("end", DIVERGED_LOSS, lost=True), Number("lowest", 0.7)
    rise = ratio(dead, low, "rise")
    assert at_least(rise, 1.3).status == INCONCLUSIVE
    assert "end is of a run that has diverged" in at_least(rise, 1.3).text
    assert at_most(rise, 1.3).status == "failed"
    assert at_least(ratio(low, Number("b", 0.5), "rise"), 1.3).status == HELD
    flat = slope(panel([0.5, 0.4] + [DIVERGED_LOSS] * 18), "s", 5, 15)
    assert at_most(flat, 0.0).status != HELD
    assert less(Number("falls", -1.0), flat).status == INCONCLUSIVE
    assert alive(low) == low


def test_a_ratio_to_nothing_is_missing():
    assert ratio(Number("a", 1.0), Number("b", 0.0), "r").missing == "b is 0"
    none = ratio(Number("a", 0.0, std=0.1), Number("b", 2.0, std=0.2), "r")
    assert (none.value, none.std) == (0.0, pytest.approx(0.05))
    assert not pd.isna(none.std)
