"""The words of the claims, each against a case worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduce.claims.comparisons import (
    FAILED,
    HELD,
    INCONCLUSIVE,
    NOT_JUDGED,
    about,
    any_of,
    at_least,
    at_most,
    chain,
    each_below,
    falls,
    less,
    not_above,
    pooled,
    within,
)
from reproduce.claims.numbers import (
    Number,
    PanelData,
    argmax,
    argmin,
    at,
    diverges,
    final,
    maximum,
    mean_over,
    minimum,
    own_minimum,
    ratio,
    slope,
    spearman,
)
from reproduce.claims.verdict import on_single_runs
from reproduce.series import Curve


def panel(mean, x=None, std=0.0, replicates=1, ends=None, quantity="test_loss", name="figX") -> PanelData:
    mean = np.asarray(mean, dtype=float)
    x = np.arange(1.0, len(mean) + 1) if x is None else np.asarray(x, dtype=float)
    std = np.broadcast_to(np.asarray(std, dtype=float), mean.shape)
    return PanelData(
        name, {quantity: {"s": Curve("s", x, mean, std, replicates)}}, {quantity: {"s": ends}} if ends else {}
    )


def number(value, std=0.0, replicates=4, name="n") -> Number:
    return Number(name, value, std, replicates)


V = [5.0, 4.0, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_reading_numbers():
    p = panel(V, std=0.1, replicates=4)
    assert final(p, "s").value == 6
    assert final(p, "s").std == pytest.approx(0.1)
    assert final(p, "s").replicates == 4
    assert (minimum(p, "s").value, argmin(p, "s").value) == (1, 5)
    assert (maximum(p, "s").value, argmax(p, "s").value) == (6, 10)
    assert (minimum(p, "s", (7, 9)).value, argmin(p, "s", (7, 9)).value) == (3, 7)
    assert at(p, "s", 5.5).value == 1.5
    assert mean_over(p, "s", 2, 4).value == 3
    assert final(panel(range(40)), "s").value == 38.5


def test_noise_is_the_standard_deviation_over_replicates_of_the_quantity_itself():
    """Noise of single tests, which a mean over many of them has not: each replicate is read by itself."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 200)
    runs = np.exp(-x) + 0.1 * rng.standard_normal((4, 200)) + np.array([0.0, 0.01, 0.02, 0.03])[:, None]
    curve = Curve("s", x, runs.mean(0), runs.std(0, ddof=1), replicates=4, runs=runs)
    p = PanelData("figX", {"test_loss": {"s": curve}})

    def over_replicates(read) -> float:
        return np.std([read(run) for run in runs], ddof=1)

    part = (x >= 0.4) & (x <= 1.0)
    for found, exact in (
        (final(p, "s"), over_replicates(lambda run: run[-10:].mean())),
        (mean_over(p, "s", 0.4, 1.0), over_replicates(lambda run: run[part].mean())),
        (minimum(p, "s"), over_replicates(lambda run: run[curve.mean.argmin()])),
        (own_minimum(p, "s"), over_replicates(np.min)),
        (maximum(p, "s", (0.4, 1.0)), over_replicates(lambda run: run[part][curve.mean[part].argmax()])),
        (at(p, "s", x[50]), over_replicates(lambda run: run[50])),
        (slope(p, "s", 0.4, 1.0), over_replicates(lambda run: np.polyfit(x[part], np.log(run[part]), 1)[0])),
    ):
        assert found.std == pytest.approx(exact, rel=1e-9), found.name
    assert mean_over(p, "s", 0.4, 1.0).std < 0.3 * np.sqrt(np.mean(curve.std[part] ** 2))


def test_the_extremes_of_several_runs_compare_with_those_of_one():
    """Runs of one kind, differing in their noise only: one alone goes about as low as four do, their mean does not."""
    rng = np.random.default_rng(0)
    x, runs = np.linspace(0, 1, 200), 1 + 0.1 * rng.standard_normal((4, 200))
    four = Curve("four", x, runs.mean(0), runs.std(0, ddof=1), replicates=4, runs=runs)
    p = PanelData("figX", {"test_loss": {"four": four}})
    assert own_minimum(p, "four").value == pytest.approx(np.mean([run.min() for run in runs]))
    assert own_minimum(p, "four").value < runs.mean(0).min() - 0.1


def test_extremes_within_one_curve_are_those_of_its_mean():
    """As claims are written. Each run's own would make a rise of the noise alone: here by more than a half."""
    rng = np.random.default_rng(0)
    x, runs = np.linspace(0, 1, 200), 1 + 0.1 * rng.standard_normal((4, 200))
    flat = Curve("flat", x, runs.mean(0), runs.std(0, ddof=1), replicates=4, runs=runs)
    p = PanelData("figX", {"test_loss": {"flat": flat}})
    assert minimum(p, "flat").value == runs.mean(0).min()
    assert maximum(p, "flat", (0.5, 1)).value == runs.mean(0)[x >= 0.5].max()
    assert np.mean(runs.max(axis=1) / runs.min(axis=1)) > 1.5 > ratio(maximum(p, "flat"), minimum(p, "flat"), "r").value


def test_the_minimums_place_is_as_uncertain_as_the_curve_is_flat():
    assert argmin(panel(V, std=0.5, replicates=4), "s").std == 0
    assert argmin(panel(V, std=1.0, replicates=4), "s").std == 1
    assert argmin(panel(V, std=2.5, replicates=4), "s").std == 2


def test_diverges_is_the_first_lasting_crossing_after_the_minimum():
    run = [3.0, 1.0, 1.0, 1.2, 1.6, 1.1, 1.7, 1.8, 1.9, 2.5] + [3.0] * 10
    assert diverges(panel(run), "s").value == 7  # 5 is left again within the next tenth of the run
    assert diverges(panel(run, name="fig11b"), "s").value == 10  # twice its lowest there
    assert diverges(panel(run[:9], name="fig11b"), "s").value == math.inf
    assert diverges(panel(run[:7]), "s").value == 7  # stays above "to its end"
    assert diverges(panel([3.0, 2.0, 1.5, 1.2, 1.0]), "s").value == math.inf  # before the minimum does not count


def test_an_extreme_looked_for_in_part_of_a_curve_says_so():
    p = panel([3.0, 1.0, 2.0, 0.5, 4.0])
    assert (minimum(p, "s").name, minimum(p, "s", (1, 3)).name) == ("minimum(s)", "minimum over 1-3(s)")
    assert (argmax(p, "s", (2, 4)).name, argmax(p, "s", (2, 4)).value) == ("maximum's place over 2-4(s)", 3)


def test_noise_of_diverges():
    run = np.array([3.0] + [1.0] * 9 + [1.4] * 5 + [2.0] * 5)
    spread = np.array([0.0] * 10 + [0.2] * 5 + [0.0] * 5)
    found = diverges(panel(run, std=spread, replicates=4), "s")
    assert found.value == 16
    assert found.std == 5
    never = diverges(panel(run[:15], std=spread[:15], replicates=4), "s")
    assert never.value == math.inf == never.std
    assert less(found, never).status == INCONCLUSIVE


def stepping(*places: float) -> Curve:
    """Runs over 0, 1, ... 39 that are 1, lowest at 2, and 4 from their place on (infinity: never)."""
    x = np.arange(40.0)
    runs = np.stack([np.where(x >= place, 4.0, 1.0) - 0.1 * (x == 2) for place in places])
    std = runs.std(0, ddof=1) if len(runs) > 1 else np.zeros(40)
    return Curve("s", x, runs.mean(0), std, len(runs), runs=runs if len(runs) > 1 else None)


def where_it_diverges(*places: float) -> Number:
    return diverges(PanelData("figX", {"test_loss": {"s": stepping(*places)}}), "s")


def test_the_noise_of_a_place_is_that_of_each_replicates_own():
    assert where_it_diverges(10, 14, 20).std == pytest.approx(np.std([10, 14, 20], ddof=1))
    assert where_it_diverges(10, 14, math.inf).std == pytest.approx(np.std([10, 14, 40], ddof=1), rel=1e-5)
    apart = np.array([[3.0, 1, 2, 2, 2], [3, 2, 2, 1, 2], [3, 2, 1, 2, 2]])
    runs = Curve("s", np.arange(5.0), apart.mean(0), apart.std(0, ddof=1), 3, runs=apart)
    assert argmin(PanelData("figX", {"test_loss": {"s": runs}}), "s").std == pytest.approx(1)


def test_a_mean_that_never_diverges_over_some_that_do_tells_nothing():
    never = where_it_diverges(math.inf, math.inf)
    some = where_it_diverges(*[math.inf] * 9, 20)
    assert (never.value, never.std) == (math.inf, 0) and (some.value, some.std) == (math.inf, math.inf)
    assert less(where_it_diverges(10, 11), never).status == HELD
    assert where_it_diverges(*[math.inf] * 9, 39).std == 0, "its last test alone is up"
    assert less(where_it_diverges(10, 11), some).status == INCONCLUSIVE


def test_a_mean_that_diverges_where_none_of_its_runs_does_tells_nothing():
    """Each is down again, by turns, before a tenth of the run is over."""
    x = np.arange(40.0)
    runs = np.stack([np.where((x >= 10) & (x < 30) & (x % 4 != turn), 3.0, 1.0) for turn in range(4)])
    curve = Curve("s", x, runs.mean(0), runs.std(0, ddof=1), 4, runs=runs)
    found = diverges(PanelData("figX", {"test_loss": {"s": curve}}), "s")
    assert (found.value, found.std) == (10, math.inf)


@pytest.mark.parametrize(("later", "status"), [(11, INCONCLUSIVE), (12, HELD)])
def test_places_are_told_apart_by_more_than_one_test(later, status):
    found = less(where_it_diverges(10), where_it_diverges(later))
    assert found.status == status and found.text.endswith("(single runs, places known to 1)")
    assert on_single_runs(found.text)
    assert less(where_it_diverges(10, 10), where_it_diverges(later, later)).status == status


def test_slope_of_an_exponential():
    x = np.linspace(0, 10, 30)
    found = slope(panel(np.exp(-0.3 * x), x), "s", 2, 8)
    assert found.value == pytest.approx(-0.3)
    assert found.std == 0


def test_the_noise_of_a_slope_is_that_of_a_sum_of_independent_tests():
    """Two tests: the slope is (log b - log a) / dx, and d log a = da / a."""
    noisy = panel([9.0, 4.0, 2.0, 9.0], std=[0.0, 0.4, 0.1, 0.0], replicates=4)
    found = slope(noisy, "s", 2, 3)
    assert found.value == pytest.approx(math.log(2 / 4))
    assert found.std == pytest.approx(math.hypot(0.4 / 4, 0.1 / 2))


def test_spearman():
    assert spearman(panel([1, 2, 3, 5, 4]), "s").value == pytest.approx(0.9)
    assert spearman(panel([1, 2, 3, 5, 4], std=10, replicates=4), "s").std == 2
    assert spearman(panel([1.0] * 5), "s").missing


def test_ratio():
    found = ratio(number(2.0, 0.2), number(1.0, 0.1), "r")
    assert found.value == 2
    assert found.std == pytest.approx(2 * math.hypot(0.1, 0.1))
    assert ratio(number(1.0), Number("gone", missing="not run"), "r").missing == "not run"


def test_a_range_not_covered_is_missing():
    p = panel(V, ends=(1.0, 20.0))
    for found in (final(p, "s"), minimum(p, "s"), argmin(p, "s"), diverges(p, "s"), at(p, "s", 3), spearman(p, "s")):
        assert "needs 1 to 20" in found.missing
    assert not mean_over(p, "s", 2, 8).missing
    assert "needs 5 to 30" in mean_over(p, "s", 5, 30).missing
    assert not final(panel(V, ends=(1.0, 10.9)), "s").missing  # within a tenth


def test_a_loss_that_is_no_number_is_87_and_an_accuracy_is_missing():
    assert final(panel([1.0, 1.0, 1.0, np.nan]), "s").value == 87.3365
    found = final(panel([0.1, 0.2, 0.3, np.nan], quantity="test_accuracy"), "s", "test_accuracy")
    assert "not a number" in found.missing


finite = st.floats(-1e3, 1e3)


@given(finite, finite, st.floats(0, 100), st.floats(0, 100))
def test_less_is_antisymmetric(a, b, s, t):
    one, other = less(number(a, s), number(b, t)).status, less(number(b, t), number(a, s)).status
    assert {one, other} in ({HELD, FAILED}, {INCONCLUSIVE})
    assert (one == HELD) == (b - a > pooled(number(a, s), number(b, t)))


def test_less_at_the_limits():
    d = pooled(number(0, 0.3), number(0, 0.4))
    assert d == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert less(number(1.0, 1.0), number(2.0, 1.0)).status == INCONCLUSIVE
    assert less(number(1.0, 0.99), number(2.0, 0.99)).status == HELD
    assert less(number(2.0, 0.99), number(1.0, 0.99)).status == FAILED
    assert less(number(1.0), number(math.inf)).status == HELD
    assert less(number(math.inf), number(1.0)).status == FAILED
    assert less(number(math.inf), number(math.inf)).status == INCONCLUSIVE
    assert less(number(1.0), Number("gone", missing="not run")).status == NOT_JUDGED


def test_pooled_leaves_single_runs_out():
    assert pooled(number(0, 0.4), number(0, 0.0, replicates=1)) == pytest.approx(0.4)
    assert pooled(number(0, 0.0, 1), number(0, 0.0, 1)) == 0
    assert pooled(number(0, 1.0, 3), number(0, 2.0, 5)) == pytest.approx(math.sqrt((2 * 1 + 4 * 4) / 6))


def test_single_runs_are_said_to_be():
    assert "single runs" in less(number(1, 0, 1), number(2, 0, 1)).text
    assert "d = 0.1" in less(number(1, 0.1), number(2, 0.1)).text


def test_about():
    assert about(number(1, 0.06), number(1.1, 0.06)).status == HELD
    assert about(number(1, 0.04), number(1.1, 0.04)).status == FAILED
    assert about(number(1, 0), number(1, 0)).status == INCONCLUSIVE  # no replicates, no stated tolerance
    assert about(number(1, 0), number(1.1, 0), tolerance=0.2).status == HELD
    assert about(number(1, 0.3), number(1.1, 0.3), tolerance=0.2).status == INCONCLUSIVE
    assert about(number(1, 0.1), number(1.3, 0.1), tolerance=0.2).status == FAILED
    assert about(number(1, 0.2), number(1.3, 0.2), tolerance=0.2).status == INCONCLUSIVE


def test_limits():
    assert within(number(5), 4, 6).status == HELD
    assert within(number(4), 4, 6).status == HELD
    assert within(number(7), 4, 6).status == FAILED
    assert within(number(math.inf), 4, 6).status == FAILED
    assert within(number(5.5, 0.6), 4, 6).status == INCONCLUSIVE == within(number(6.5, 0.6), 4, 6).status
    assert at_most(number(1), 2).status == HELD
    assert at_least(number(1), 2).status == FAILED
    assert not_above(number(1.1, 0.2), number(1.0, 0.2)).status == HELD
    assert not_above(number(1.3, 0.2), number(1.0, 0.2)).status == FAILED


def test_combinations():
    assert [f.status for f in chain(number(1), number(2), number(1.5))] == [HELD, FAILED]
    pairs = each_below([number(1, name="a"), number(2, name="b")], [number(3, name="c"), number(4, 5, name="d")])
    assert pairs.status == INCONCLUSIVE
    assert "d = 4" in pairs.text
    assert each_below([number(1), number(2, name="b")], [number(1.5, name="c")]).text.startswith("b = 2 > c = 1.5")
    held, failed, gone = (
        less(number(1), number(2)),
        less(number(2), number(1)),
        less(Number("g", missing="x"), number(1)),
    )
    assert any_of([failed, held, gone]).status == HELD
    assert any_of([failed, failed]).status == FAILED
    assert any_of([failed, gone]).status == NOT_JUDGED


def test_falls():
    assert falls(panel([3, 2, 2, 1]), "s", "test_loss").status == HELD
    rising = falls(panel([3, 2, 2.5, 1]), "s", "test_loss")
    assert rising.status == FAILED
    assert rising.numbers == {"largest step up of loss": 0.5}
    assert falls(panel([3, 2, 2.5, 1], std=0.6, replicates=4), "s", "test_loss").status == HELD
    assert falls(panel([0.3, np.nan, 0.1, 0], quantity="test_error"), "s", "test_error").status == NOT_JUDGED
