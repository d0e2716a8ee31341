"""Agreement with the report: numbers checked on the report's own curves, changed by known amounts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduce import compare, reference
from reproduce.series import DIVERGED_LOSS, Curve


def ours(x, mean, std=0.0, replicates=1, label="a", runs=None) -> Curve:
    x, mean = np.asarray(x, dtype=float), np.asarray(mean, dtype=float)
    return Curve(label, x, mean, np.broadcast_to(np.asarray(std, dtype=float), mean.shape), replicates, runs=runs)


X = np.arange(200.0, 4001, 200)
REPORT = (X, np.exp(-X / 2000) + 0.1)


@given(st.floats(0.2, 5))
def test_log_ratio_of_a_scaled_curve(factor):
    value = compare.mean_log_ratio(ours(X, REPORT[1] * factor), REPORT)
    assert value == pytest.approx(abs(np.log(factor)), abs=1e-9)


def test_interpolation_is_in_the_logarithm():
    """Between two samples an exponential is met exactly, whatever our own tests' places."""
    report = (X, np.exp(-X / 2000))
    x = np.linspace(250, 3900, 23)
    assert compare.mean_log_ratio(ours(x, np.exp(-x / 2000)), report) == pytest.approx(0, abs=1e-12)


def test_only_the_common_range_counts():
    x = np.arange(100.0, 8001, 100)
    mean = np.where(x > 4000, 50.0, np.interp(x, X, REPORT[1]))
    inside = compare.mean_log_ratio(ours(x, mean), REPORT)
    assert inside < 0.01
    assert compare.finals(ours(x, mean), REPORT)["x"] == 4000
    assert compare.finals(ours(x, mean), REPORT)["final"] < 1


def test_being_above_here_and_below_there_is_being_apart():
    sign = np.where(np.arange(len(X)) % 2, 1.0, -1.0)
    assert compare.mean_log_ratio(ours(X, REPORT[1] * np.exp(0.1 * sign)), REPORT) == pytest.approx(0.1)
    assert compare.mean_difference(ours(X, REPORT[1] + 0.02 * sign), REPORT) == pytest.approx(0.02)


def test_the_spread_of_finals_is_that_of_the_runs_means_over_the_last_tests():
    """Of 60 samples the last three; noise from test to test averages out of each run's own mean."""
    x, runs = np.arange(1.0, 61), np.ones((2, 60))
    runs[:, -3:] = [[1.0, 2.0, 3.0], [3.0, 2.0, 2.5]]
    curve = ours(x, runs.mean(axis=0), runs.std(axis=0, ddof=1), 2, runs=runs)
    assert compare.finals(curve, (x, np.ones(60)))["final_std"] == pytest.approx(np.std([2.0, 2.5], ddof=1))


def test_the_spread_of_a_curve_without_its_runs_is_the_root_mean_square():
    x, std = np.arange(1.0, 61), np.zeros(60)
    std[-3:] = [0.0, 0.3, 0.6]
    found = compare.finals(ours(x, np.ones(60), std, 4), (x, np.ones(60)))
    assert found["final_std"] == pytest.approx(np.sqrt((0.3**2 + 0.6**2) / 3))


def test_one_common_test_is_no_range():
    assert compare.common_range(ours([3900, 4100, 4300], np.ones(3)), REPORT) is None


def test_no_common_range():
    far = ours(X + 10_000, REPORT[1])
    assert compare.common_range(far, REPORT) is None
    assert compare.mean_log_ratio(far, REPORT) is None
    assert compare.mean_difference(far, REPORT) is None
    assert compare.median_offset(far, REPORT) is None
    assert compare.finals(far, REPORT)["ratio"] is None


def test_the_offset_of_a_curve_that_other_data_move():
    x = np.linspace(250, 3900, 23)
    moved = np.interp(x, *REPORT) + 0.05
    assert compare.median_offset(ours(x, moved), REPORT) == pytest.approx(0.05)
    gone = np.where(x > 2500, np.nan, moved)
    assert compare.median_offset(ours(x, gone), REPORT) == pytest.approx(0.05)
    assert compare.median_offset(ours(x, np.where(x > 1500, np.nan, moved)), REPORT) > 80


def test_too_few_samples_to_compare():
    nothing = ours([], [])
    assert compare.common_range(nothing, REPORT) is None
    assert compare.agreement("fig09a", {"test_loss": {"WD=1e-3": nothing}})["series"]["WD=1e-3"]["final"] is None
    between = ours(np.linspace(201, 399, 9), np.ones(9))
    assert compare.finals(between, REPORT)["final"] is None  # no sample of the report's lies in between


def test_finals():
    """20 samples: the last one is the last 5 %."""
    same = compare.finals(ours(X, REPORT[1] * 1.1, std=0.01, replicates=4), REPORT)
    last = REPORT[1][-1]
    assert same["report_final"] == pytest.approx(last)
    assert same["ratio"] == pytest.approx(1.1)
    assert same["difference"] == pytest.approx(0.1 * last)
    assert same["in_std"] == pytest.approx(10 * last)
    assert compare.finals(ours(X, REPORT[1]), REPORT)["in_std"] is None


def test_the_spread_of_finals_is_that_of_each_runs_own():
    """Of 20 samples the last one is the last 5 %: the runs end 1, 2 and 6 above the report there."""
    runs = np.stack([REPORT[1] + above for above in (1.0, 2.0, 6.0)])
    curve = Curve("ours", X, runs.mean(axis=0), runs.std(axis=0, ddof=1), 3, runs=runs)
    found = compare.finals(curve, REPORT)
    assert found["final_std"] == pytest.approx(np.sqrt(7))
    assert found["difference"] == pytest.approx(3)
    assert found["in_std"] == pytest.approx(3 / np.sqrt(7))


def test_finals_cover_the_same_stretch_at_different_densities():
    dense = (np.arange(1.0, 101), np.arange(1.0, 101))
    sparse = ours(np.arange(10.0, 101, 10), np.arange(10.0, 101, 10))
    found = compare.finals(sparse, dense)
    assert found["final"] == 100
    assert found["report_final"] == np.arange(96.0, 101).mean()
    reverse = compare.finals(ours(*dense), (sparse.x, sparse.mean))
    assert reverse["final"] == np.arange(96.0, 101).mean()
    assert reverse["report_final"] == 100


def test_a_diverged_curve_is_compared_at_caffes_number():
    mean = np.where(X > 2000, np.nan, REPORT[1])
    value = compare.mean_log_ratio(ours(X, mean), REPORT)
    expected = np.mean(np.where(X > 2000, np.log(DIVERGED_LOSS / REPORT[1]), 0))
    assert value == pytest.approx(expected)
    assert compare.finals(ours(X, mean), REPORT)["final"] is None


@pytest.mark.parametrize("panel", [p for p in reference.panels() if p != "fig02"])
def test_the_report_agrees_with_itself(panel):
    curves = {
        q: {k: ours(*reference.load(panel)[k], label=k) for k in series}
        for q, series in reference.curves(panel).items()
    }
    found = compare.agreement(panel, curves)
    json.dumps(found, allow_nan=False)
    assert list(found["series"]) == [k for s in curves.values() for k in s]
    assert not found["not_run"]
    assert not found["not_in_report"]
    assert found["note"] == reference.note(panel)
    for numbers in found["series"].values():
        error = numbers["mean_log_ratio"] if numbers["mean_difference"] is None else numbers["mean_difference"]
        assert error == pytest.approx(0, abs=1e-12)
        assert numbers["ratio"] == pytest.approx(1)
    if not reference.exits(panel):  # without the stretch beyond the top edge the order of ours is another
        assert all(rho is None or rho == pytest.approx(1) for rho in found["order"].values())


def test_order_reversed_and_left_panels():
    curves = reference.curves("fig09a")["test_loss"]
    reverse = {k: replace(c, mean=1 / c.mean) for k, c in curves.items()}
    assert compare.agreement("fig09a", {"test_loss": reverse})["order"] == {"test_loss": pytest.approx(-1)}
    found = compare.agreement("fig11b", reference.curves("fig11b"))
    assert found["order"]["test_loss"] == pytest.approx(1)
    assert found["series"]["WD=3.2e-4"]["report_leaves_at"] == pytest.approx(0.8252, abs=1e-4)
    assert found["series"]["WD=1e-6"]["report_leaves_at"] is None


def test_our_curve_beyond_the_panel_does_not_change_the_order():
    """Panel 11b shows learning rates up to 1.14; the runs go on to 2."""
    curves = {
        k: Curve(
            k, np.append(c.x, 2.0), np.append(c.mean, 100.0 if k == "WD=1e-6" else 0.01), np.zeros(len(c.x) + 1), 1
        )
        for k, c in reference.curves("fig11b")["test_loss"].items()
    }
    assert compare.agreement("fig11b", {"test_loss": curves})["order"]["test_loss"] == pytest.approx(1)


def test_labels_that_only_one_side_has():
    curve = reference.curves("fig09a")["test_loss"]["WD=1e-3"]
    found = compare.agreement("fig09a", {"test_loss": {"WD=1e-3": curve, "WD=5": replace(curve, label="WD=5")}})
    assert found["not_in_report"] == ["WD=5"]
    assert found["not_run"] == ["WD=3.2e-3", "WD=1e-2", "WD=1.8e-3"]
    assert found["order"] == {"test_loss": None}
    single = compare.agreement("fig07b", {"test_loss": {"range test": reference.curves("fig07b")["test_loss"]["Loss"]}})
    assert list(single["series"]) == ["Loss"]
    assert single["not_run"] == ["Accuracy"]
    assert compare.agreement("fig02", {"test_error": {"x": curve}})["not_in_report"] == ["x"]
