"""Averaging of replicates: alignment, divergence, axes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.divergence import diverged_at
from experiments.errors import UserError
from reproduce import reference
from reproduce.series import (
    DIVERGED_LOSS,
    Curve,
    average,
    counts,
    last_part,
    moving_mean,
    one_run,
    pick,
    rank_correlation,
)


def run(losses, accuracies=None, train=None, start=200) -> pd.DataFrame:
    n = len(losses)
    return pd.DataFrame(
        {
            "iteration": start + 200 * np.arange(n),
            "lr": np.linspace(0.1, 1.0, n),
            "momentum": np.linspace(0.95, 0.85, n),
            "train_loss": np.linspace(2, 0.5, n) if train is None else train,
            "test_loss": losses,
            "test_accuracy": np.full(n, 0.5) if accuracies is None else accuracies,
        }
    )


def test_87_is_minus_log_of_the_smallest_normal_float():
    assert pytest.approx(-np.log(np.finfo(np.float32).tiny), abs=1e-4) == DIVERGED_LOSS


@given(st.lists(st.lists(st.floats(0.01, 80), min_size=4, max_size=4), min_size=1, max_size=4))
def test_moving_mean_of_three_against_a_loop(rows):
    curve = average([run(r) for r in rows], "test_loss")
    moved = moving_mean(curve, 3)
    runs = np.array([[np.mean(r[max(0, i - 1) : i + 2]) for i in range(4)] for r in rows])
    np.testing.assert_allclose(moved.mean, runs.mean(axis=0))
    np.testing.assert_allclose(moved.std, runs.std(axis=0, ddof=1) if len(rows) > 1 else 0, atol=1e-9)
    assert moved.x is curve.x and moved.diverged == curve.diverged
    np.testing.assert_allclose(moving_mean(curve, 1).mean, curve.mean)
    with pytest.raises(ValueError, match="odd number of tests, got 2"):
        moving_mean(curve, 2)


@given(st.lists(st.lists(st.floats(0.01, 80), min_size=5, max_size=5), min_size=2, max_size=4))
def test_mean_and_sample_std_against_a_loop(rows):
    curve = average([run(r) for r in rows], "test_loss")
    for i in range(5):
        column = [r[i] for r in rows]
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / (len(column) - 1)
        assert curve.mean[i] == pytest.approx(mean)
        assert curve.std[i] == pytest.approx(variance**0.5, abs=1e-9)
    assert curve.replicates == len(rows)
    assert curve.diverged == 0


def test_a_single_run_has_no_spread():
    curve = average([run([2.0, 1.0, 0.5])], "test_loss", label="WD=1e-3")
    assert curve.std.tolist() == [0, 0, 0]
    assert curve.replicates == 1
    assert curve.label == "WD=1e-3"


def test_x_is_the_named_column_scaled():
    runs = [run([2.0, 1.0, 0.5])]
    assert average(runs, "test_loss", x_scale=10).x.tolist() == [2000, 4000, 6000]
    np.testing.assert_allclose(average(runs, "test_loss", "lr").x, [0.1, 0.55, 1.0])
    np.testing.assert_allclose(average(runs, "test_accuracy", "momentum").x, [0.95, 0.9, 0.85])


def test_a_shorter_run_shortens_the_curve():
    curve = average([run([2.0, 1.0, 0.5]), run([4.0, 3.0])], "test_loss")
    assert curve.mean.tolist() == [3.0, 2.0]
    assert curve.x.tolist() == [200, 400]


@pytest.mark.parametrize("gone", [np.nan, np.inf, 87.3365, 87.33])
def test_a_diverged_replicate_counts_as_caffes_number_from_there_on(gone):
    curve = average([run([1.0] * 4)] * 3 + [run([1.0, gone, gone, gone])], "test_loss")
    np.testing.assert_allclose(curve.mean, [1.0, *[(3 + DIVERGED_LOSS) / 4] * 3])
    assert curve.diverged == 1
    assert curve.mean[-1] == pytest.approx(22.6, abs=0.1)  # where panels 11b, 14a and 14b point: about 22


def test_a_run_that_stopped_on_divergence_stays_diverged():
    curve = average([run([1.0] * 4), run([1.0, np.nan], [0.4, 0.1])], "test_loss")
    np.testing.assert_allclose(curve.mean[1:], (1 + DIVERGED_LOSS) / 2)
    accuracy = average([run([1.0] * 4), run([1.0, np.nan], [0.4, 0.1])], "test_accuracy")
    np.testing.assert_allclose(accuracy.mean[1:], 0.3)
    assert len(curve.x) == 4
    assert curve.diverged == accuracy.diverged == 1


@pytest.mark.parametrize(
    ("replicates", "diverged", "at", "alike", "said"),
    [
        (1, 0, np.nan, 1, ""),
        (4, 0, np.nan, 4, ""),
        (2, 0, np.nan, 1, " (2 runs)"),
        (1, 0, np.nan, 2, " (1 run)"),
        (4, 1, 0.01234, 4, " (1 of 4 diverged at 0.0123)"),
        (4, 2, 12400, 1, " (2 of 4 diverged, the first at 12,400)"),
    ],
)
def test_a_legend_says_what_sets_a_curve_apart_from_the_figures_head(replicates, diverged, at, alike, said):
    x = np.arange(2.0)
    assert counts(Curve("a", x, x, x, replicates, diverged, diverges=at), alike) == said


def test_all_replicates_diverged_at_different_tests():
    curve = average([run([1.0, np.nan]), run([1.0, 2.0, 3.0, np.inf])], "test_loss")
    np.testing.assert_allclose(curve.mean[-1], DIVERGED_LOSS)
    assert curve.diverged == 2
    assert len(curve.x) == 4


def test_divergence_after_the_common_part_is_not_counted():
    curve = average([run([1.0, 1.0]), run([1.0, 1.0, np.nan])], "test_loss")
    assert curve.diverged == 0
    assert len(curve.x) == 2


def test_a_loss_that_comes_down_again_has_not_diverged():
    start = run([87.3366, np.inf, 2.0, 1.0])
    assert diverged_at(start["test_loss"]) is None
    curve = average([start], "test_loss")
    np.testing.assert_allclose(curve.mean, [87.3366, DIVERGED_LOSS, 2.0, 1.0])
    assert curve.diverged == 0
    assert diverged_at([1.0, np.nan, 1.0, np.inf, 87.3365, None]) == 3


def test_the_authors_runs_start_at_87_and_have_not_diverged():
    log = reference.log("sc_clr3SS5kFig1a")
    curve = average([log], "test_loss", label="CLR=0.1-3")
    assert curve.mean[0] == pytest.approx(DIVERGED_LOSS, abs=1e-3)
    assert curve.mean[-1] < 0.4
    assert curve.diverged == 0


def test_a_training_loss_may_be_infinite_or_missing():
    kept = average([run([1.0] * 3, train=[1.0, np.inf, np.nan])], "train_loss")
    np.testing.assert_allclose(kept.mean, [1.0, DIVERGED_LOSS])
    assert kept.x.tolist() == [200, 400]
    gone = average([run([1.0, np.nan, np.nan], train=[1.0, np.nan, np.nan])], "train_loss")
    np.testing.assert_allclose(gone.mean, [1.0, DIVERGED_LOSS, DIVERGED_LOSS])


def test_what_no_living_replicate_recorded_is_left_out_although_a_diverged_one_has_its_number():
    lacking = [1.0, 0.8, np.nan]  # no batch is trained on after the last test
    replicates = [run([1.0, 0.9, 0.8], train=lacking)] * 3 + [run([1.0, np.nan, np.nan], train=lacking)]
    for quantity in ("train_loss", "generalization_error"):
        curve = average(replicates, quantity)
        assert curve.x.tolist() == [200, 400]
        assert np.isfinite(curve.mean).all() and np.isfinite(curve.std).all()


def test_where_the_first_replicate_diverges_is_kept():
    replicates = [run([1.0] * 5), run([1.0] * 3 + [np.nan] * 2), run([1.0] * 4 + [np.inf])]
    curve = average(replicates, "test_loss", x_scale=2)
    assert (curve.diverged, curve.diverges) == (2, 1600)
    assert moving_mean(curve, 3).diverges == 1600, "the mean of three tests shows it a test early"
    assert np.isnan(average(replicates[:1], "test_loss").diverges)


def test_rows_without_a_test_are_skipped():
    author = run([np.nan, 2.0, 1.0], [np.nan, 0.2, 0.3], start=0)
    curve = average([author], "test_loss")
    assert curve.x.tolist() == [200, 400]
    assert curve.diverged == 0


def test_generalisation_error():
    curve = average([run([2.0, 2.0, np.nan], train=[1.5, 1.0, 0.5])], "generalization_error")
    np.testing.assert_allclose(curve.mean, [0.5, 1.0, 0.0])


def test_errors_name_the_cause():
    with pytest.raises(UserError, match="train at least one"):
        average([], "test_loss")
    with pytest.raises(UserError, match="different iterations"):
        average([run([1.0, 2.0]), run([1.0, 2.0], start=100)], "test_loss")
    with pytest.raises(UserError, match="top5"):
        average([run([1.0, 2.0])], "top5")
    with pytest.raises(ValueError, match="one length"):
        Curve("a", np.zeros(3), np.zeros(2), np.zeros(3), 1)
    with pytest.raises(ValueError, match=r"runs must be \[2, 3\]"):
        Curve("a", np.zeros(3), np.zeros(3), np.zeros(3), 2, runs=np.zeros((3, 2)))


def test_the_replicates_own_curves_are_kept():
    curve = average([run([2.0, 1.0, 0.5]), run([3.0, np.nan])], "test_loss")
    np.testing.assert_array_equal(curve.runs, [[2.0, 1.0, 0.5], [3.0, DIVERGED_LOSS, DIVERGED_LOSS]])
    np.testing.assert_allclose(curve.runs.mean(axis=0), curve.mean)
    assert average([run([2.0, 1.0, 0.5])], "test_loss").runs is None


def test_pick():
    series = {"Loss; A; B": 1, "Loss; C": 2}
    assert pick(series, "Loss; C") == 2
    assert pick(series, "C") == 2
    assert pick(series, "A; B") == 1
    assert pick(series, "A") is None
    assert pick(series, None) is None
    assert pick({"x": 3}, None) == 3
    assert pick({"a; b": 1, "b": 2}, "b") == 2


@pytest.mark.parametrize(("samples", "length"), [(1, 1), (10, 1), (30, 2), (80, 4), (100, 5)])
def test_last_part(samples, length):
    assert len(range(samples)[last_part(samples)]) == length


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=8, unique=True))
def test_rank_correlation_without_ties_is_the_textbook_formula(values):
    a, n = np.arange(len(values)), len(values)
    ranks = np.argsort(np.argsort(values))
    expected = 1 - 6 * np.sum((a - ranks) ** 2) / (n * (n * n - 1))
    assert rank_correlation(a, np.array(values)) == pytest.approx(expected)


def test_rank_correlation_with_ties_and_without_an_order():
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(0.9486833)
    assert np.isnan(rank_correlation(np.array([1, 1]), np.array([1, 2])))


def test_a_band_stays_above_zero_where_one_replicate_has_diverged():
    runs = np.array([[0.1, 0.05, -0.2], [0.2, 87.3, 0.4]])
    curve = Curve("one", np.arange(3.0), runs.mean(0), runs.std(0, ddof=1), 2, runs=runs)
    low, high = curve.band()
    assert low[0] == pytest.approx(0.15 - runs.std(0, ddof=1)[0]) and low[1] == 0.05
    assert low[2] < 0 and low[2] == pytest.approx(0.1 - runs.std(0, ddof=1)[2]), "an error may be below zero"
    assert np.array_equal(high, curve.mean + curve.std)


def test_curves_that_are_one_run_are_named_with_all_their_replicates():
    figure = {"curves": {name: {"label": f"WD {name}"} for name in "abcd"}}
    rows = pd.DataFrame({"curve": list("aabbccd"), "hash": ["1", "2", "2", "1", "1", "3", "4"]})
    assert one_run(figure, rows) == "WD a, WD b are one run."
    assert one_run(figure, rows[rows["curve"] != "b"]) == ""
