"""The schedules against the author's logs, and by their properties."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from author_logs import HALF_SPACING, INDEX, LOGS, half_digit
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from experiments import schedules
from experiments.schedules import learning_rate, momentum_schedule

LOGGED = sorted(path.stem for path in LOGS.glob("*.csv") if path.stem != "index")

seeded = settings(derandomize=True, deadline=None)
rates = st.floats(1e-5, 10)
momenta = st.floats(0, 1)


def settings_of(name: str) -> Any:
    """The row of a logged run in the index."""
    return INDEX.loc[name].copy()


def logged_lr(run: Any, iterations: int) -> np.ndarray:
    given_to: dict[str, Any] = {
        "1cycle": {"base": run.base_lr, "peak": run.max_lr, "stepsize": run.stepsize},
        "triangular": {"base": run.base_lr, "peak": run.max_lr, "stepsize": run.stepsize},
        "multistep": {"base": run.base_lr, "gamma": run.gamma, "stepvalues": run.stepvalues},
        "step": {"base": run.base_lr, "gamma": run.gamma, "stepsize": run.stepsize},
    }[run.lr_policy]
    if "stepsize" in given_to:
        given_to["stepsize"] = int(run.stepsize)
    if "stepvalues" in given_to:
        given_to["stepvalues"] = [int(value) for value in run.stepvalues.split()]
    return learning_rate(run.lr_policy, iterations=iterations, **given_to)


def logged_momentum(run: Any, iterations: int) -> np.ndarray:
    if pd.isna(run.cyclical_momentum):
        return momentum_schedule("constant", base=run.momentum, iterations=iterations)
    cm0, stepsize = run.cyclical_momentum.split(" @ ")
    return momentum_schedule(
        "cyclical", base=run.momentum, peak=float(cm0), stepsize=int(stepsize), iterations=iterations
    )


class TestLogs:
    """Every (iteration, lr, momentum) that the author's solver printed."""

    @pytest.mark.parametrize("name", LOGGED)
    def test_every_row(self, name: str) -> None:
        run, log = settings_of(name), pd.read_csv(LOGS / f"{name}.csv")
        ran = log[log.lr.notna()]  # the row of the test after the last update has none
        assert len(log) - len(ran) <= 1

        lr = logged_lr(run, int(run.max_iter))[ran.iteration]
        largest = run.base_lr if np.isnan(run.max_lr) else run.max_lr
        assert np.all(np.abs(lr - ran.lr) <= half_digit(ran.lr.to_numpy()) + HALF_SPACING * largest)

        if name.startswith("hp_"):  # lnsmith54/super-convergence's solver printed no momentum
            assert ran.momentum.notna().all()
            momentum = logged_momentum(run, int(run.max_iter))[ran.iteration]
            # Six digits below 1, and float32's half spacing; six digits are 0.5e-6 and dominate.
            assert np.all(np.abs(momentum - ran.momentum) <= 0.5e-6 + HALF_SPACING)

    def test_they_are_all_there(self) -> None:
        policies = INDEX.loc[LOGGED].lr_policy
        assert len(LOGGED) == 53
        assert set(policies) == {"1cycle", "triangular", "multistep", "step"}
        assert sum(name.startswith("hp_") for name in LOGGED) == 15

    def test_tolerance_tells_a_wrong_stepsize(self) -> None:
        """One iteration more in the stepsize must fail, else the comparison would prove little."""
        name = "hp_c100resnet56_1cycle_tbs1036_ep145"
        run, log = settings_of(name), pd.read_csv(LOGS / f"{name}.csv")
        run["stepsize"] += 1
        lr = logged_lr(run, int(run.max_iter))[log.iteration]
        assert np.any(np.abs(lr - log.lr) > half_digit(log.lr.to_numpy()) + HALF_SPACING * run.max_lr)

    def test_second_momentum_cycle_is_in_the_logs(self) -> None:
        """Digits from the log of CIFAR-100 resnet-56, where 2S = 6834."""
        momentum = schedules.cyclical_momentum(0.95, 0.85, 3417, 7080)
        assert_allclose(momentum[[6800, 6900, 7000]], [0.949005, 0.949034, 0.947571], atol=0.5e-6)

    def test_script_stepvalues_are_those_of_the_400_epoch_densenet(self) -> None:
        run = settings_of("hp_densenet40_multistep_ep400")
        assert " ".join(map(str, schedules.script_stepvalues(int(run.max_iter)))) == run.stepvalues


class TestOneCycle:
    @seeded
    @given(base=rates, peak=rates, stepsize=st.integers(1, 400), after=st.integers(0, 400))
    def test_corners(self, base: float, peak: float, stepsize: int, after: int) -> None:
        iterations = 2 * stepsize + 1 + after
        lr = schedules.one_cycle(base, peak, stepsize, iterations)
        assert lr.dtype == np.float64
        assert len(lr) == iterations
        assert lr[0] == base
        assert_allclose(lr[stepsize], peak, atol=1e-15 * max(base, peak))
        assert_array_equal(lr[2 * stepsize :], base / 1000)
        rounding = 1e-15 * max(base, peak)
        assert lr.min() >= min(base / 1000, peak / stepsize) - rounding
        assert lr.max() <= max(base, peak) + rounding

    @seeded
    @given(base=rates, ratio=st.floats(1, 100), stepsize=st.integers(1, 400))
    def test_no_jumps_but_the_last(self, base: float, ratio: float, stepsize: int) -> None:
        """No step exceeds peak / S; the down ramp aims at 0, so its end meets base / 1000 within the same bound."""
        peak = base * ratio
        lr = schedules.one_cycle(base, peak, stepsize, 2 * stepsize + 1)
        assert np.abs(np.diff(lr)).max() <= max(peak / stepsize, base) * (1 + 1e-12)
        assert np.all(np.diff(lr[: stepsize + 1]) >= 0)
        assert np.all(np.diff(lr[stepsize:-1]) <= 0)

    @seeded
    @given(
        base=rates,
        peak=rates,
        stepsize=st.integers(1, 50),
        after=st.integers(0, 50),
        factor=st.integers(2, 9),
        policy=st.sampled_from(["1cycle", "triangular"]),
    )
    def test_a_scaled_run_samples_the_same_curve(
        self, base: float, peak: float, stepsize: int, after: int, factor: int, policy: str
    ) -> None:
        iterations = 2 * stepsize + after
        short = learning_rate(policy, base=base, peak=peak, stepsize=stepsize, iterations=iterations)
        long = learning_rate(policy, base=base, peak=peak, stepsize=factor * stepsize, iterations=factor * iterations)
        assert_allclose(long[::factor], short, rtol=1e-9, atol=1e-12 * max(base, peak))

    def test_against_a_scalar_loop(self) -> None:
        base, peak, stepsize, iterations = 0.1, 1.2, 17, 60
        expected = []
        for t in range(iterations):
            if t <= stepsize:
                expected.append(base + (peak - base) * t / stepsize)
            elif t < 2 * stepsize:
                expected.append(peak * (2 * stepsize - t) / stepsize)
            else:
                expected.append(base / 1000)
        assert_allclose(schedules.one_cycle(base, peak, stepsize, iterations), expected, rtol=1e-14)


class TestTriangularAndRange:
    @seeded
    @given(base=rates, peak=rates, stepsize=st.integers(1, 100), cycles=st.integers(1, 4))
    def test_period_and_symmetry(self, base: float, peak: float, stepsize: int, cycles: int) -> None:
        lr = schedules.triangular(base, peak, stepsize, 2 * stepsize * cycles + 1)
        first = lr[: 2 * stepsize + 1]
        assert_array_equal(first, first[::-1])
        assert_array_equal(lr[2 * stepsize :], lr[: len(lr) - 2 * stepsize])
        assert_allclose([lr[0], lr[stepsize]], [base, peak], rtol=1e-9)

    @seeded
    @given(base=st.floats(0, 10), peak=st.floats(0, 10), iterations=st.integers(1, 500))
    def test_range_test_is_linear(self, base: float, peak: float, iterations: int) -> None:
        lr = schedules.range_test(base, peak, iterations)
        assert lr[0] == base
        increment = (peak - base) / iterations
        assert_allclose(np.diff(lr), increment, atol=1e-13)
        assert_allclose(lr[-1] + increment, peak, atol=1e-13)

    @seeded
    @given(base=rates, peak=rates, iterations=st.integers(1, 300))
    def test_range_test_is_either_cycle_cut_at_its_peak(self, base: float, peak: float, iterations: int) -> None:
        lr = schedules.range_test(base, peak, iterations)
        assert_allclose(schedules.one_cycle(base, peak, iterations, iterations), lr, rtol=1e-12)
        assert_allclose(schedules.triangular(base, peak, iterations, iterations), lr, rtol=1e-12)


class TestDrops:
    @seeded
    @given(st.lists(st.integers(0, 99), max_size=8), st.floats(0.1, 1))
    def test_against_caffes_loop(self, stepvalues: list[int], gamma: float) -> None:
        """Caffe advances its step by at most one per iteration, in list order (sgd_solver.cpp, "multistep")."""
        expected, n = [], 0
        for t in range(100):
            if n < len(stepvalues) and t >= stepvalues[n]:
                n += 1
            expected.append(0.35 * gamma**n)
        assert_allclose(schedules.multistep(0.35, stepvalues, gamma, 100), expected, rtol=1e-12)

    @seeded
    @given(st.integers(20, 100_000))
    def test_script_ends_after_five_drops(self, iterations: int) -> None:
        lr = learning_rate("script_multistep", base=0.1, iterations=iterations)
        stepvalues = schedules.script_stepvalues(iterations)
        assert_allclose(lr[-1], 0.1 * 0.316**5)
        assert len(np.unique(lr)) == 6
        assert_array_equal(np.flatnonzero(np.diff(lr)) + 1, [*stepvalues[:4], stepvalues[3] + 1])

    @pytest.mark.parametrize("iterations", range(1, 20))
    def test_script_in_tiny_runs(self, iterations: int) -> None:
        lr = learning_rate("script_multistep", base=0.1, iterations=iterations)
        assert len(lr) == iterations
        assert np.all(np.diff(lr, append=0.1 * 0.316**5) <= 1e-15)

    def test_on_top_of_a_cycle(self) -> None:
        """Figure 7d: both curves have the drops."""
        values = [10_000, 15_000, 17_500, 19_000]
        cycle = schedules.triangular(0.001, 0.007, 10_000, 20_000)
        lr = learning_rate(
            "triangular", base=0.001, peak=0.007, stepsize=10_000, iterations=20_000, drops=values, drop_gamma=0.316
        )
        for n, (start, end) in enumerate(zip([0, *values], [*values, 20_000], strict=True)):
            assert_allclose(lr[start:end], cycle[start:end] * 0.316**n, rtol=1e-12)


class TestOtherPolicies:
    def test_scalar_loops(self) -> None:
        t = range(500)
        assert_allclose(schedules.step(0.1, 0.94, 20, 500), [0.1 * 0.94 ** (i // 20) for i in t])
        assert_allclose(schedules.inv(0.01, 1e-4, 0.75, 500), [0.01 * (1 + 1e-4 * i) ** -0.75 for i in t])
        assert_array_equal(schedules.constant(0.1, 500), [0.1] * 500)


class TestMomentum:
    @seeded
    @given(a=momenta, b=momenta, stepsize=st.integers(1, 200))
    def test_each_later_cycle_is_half_as_wide(self, a: float, b: float, stepsize: int) -> None:
        m = schedules.cyclical_momentum(a, b, stepsize, 6 * stepsize + 1)
        corners = m[::stepsize] - a
        assert_allclose(corners, np.array([0, 1, 0, 0.5, 0, 0.25, 0]) * (b - a), atol=1e-12)
        assert_allclose(np.clip(m, min(a, b), max(a, b)), m, atol=1e-12)

    @seeded
    @given(a=momenta, b=momenta, iterations=st.integers(1, 300))
    def test_linear_is_half_a_cycle(self, a: float, b: float, iterations: int) -> None:
        t = np.arange(iterations)
        linear = momentum_schedule("linear", base=a, peak=b, iterations=iterations)
        assert_allclose(linear, a + (b - a) * t / iterations, atol=1e-12)

    @seeded
    @given(m=momenta, stepsize=st.integers(1, 300))
    def test_equal_ends_are_constant(self, m: float, stepsize: int) -> None:
        assert_array_equal(schedules.cyclical_momentum(m, m, stepsize, 200), schedules.constant_momentum(m, 200))

    def test_many_cycles_fade_to_the_constant(self) -> None:
        m = schedules.cyclical_momentum(0.95, 0.85, 1, 5000)
        assert m[-1] == 0.95

    def test_inceptions_typo(self) -> None:
        """A momentum stepsize beyond the run is what the author's inception-resnet-v2 had: 0.95 to 0.93."""
        assert_allclose(schedules.cyclical_momentum(0.95, 0.85, 1_080_000, 220_000).min(), 0.929630, atol=1e-6)


class TestIterations:
    @pytest.mark.parametrize(
        ("epochs", "stepsize", "per_gpu", "expected"),
        [
            (95, 41, 128, (9277, 4003)),
            (145, 70, 256, (7080, 3417)),
            (50, 22, 128, (4882, 2148)),
            (100, 45, 128, (9765, 4394)),
            (400, 0, 128, (39062, 0)),
        ],
    )
    def test_the_logged_runs(self, epochs: int, stepsize: int, per_gpu: int, expected: tuple[int, int]) -> None:
        found = tuple(schedules.iterations_from_epochs(e, 50_000, per_gpu, 4) for e in (epochs, stepsize))
        assert found == expected

    def test_mnist(self) -> None:
        assert schedules.iterations_from_epochs(50, 60_000, 128, 4) == 5859


class TestErrors:
    @pytest.mark.parametrize(
        ("given_to", "says"),
        [
            ({"policy": "1cylce"}, "did you mean 1cycle?.*valid names are 1cycle, triangular"),
            ({"policy": "zzz"}, "'zzz': valid names"),
            ({"policy": "1cycle", "base": 0.1}, "lacks peak, stepsize"),
            ({"policy": "constant", "base": 0.1, "peak": 1.0}, "does not take peak; its parameters are base"),
            ({"policy": "constant", "power": 1.0}, "lacks base and does not take power"),
            ({"policy": "constant", "base": 0.1, "drops": [5]}, "drops and drop_gamma belong together"),
            ({"policy": "1cycle", "base": 0.1, "peak": 1.0, "stepsize": 0}, "stepsize is 0; it must be a whole"),
            ({"policy": "1cycle", "base": 0.1, "peak": 1.0, "stepsize": 2.5}, "stepsize is 2.5"),
            ({"policy": "1cycle", "base": 0.1, "peak": 1.0, "stepsize": 101}, "101 is longer than the run of 100"),
            ({"policy": "triangular", "base": 0.1, "peak": 1.0, "stepsize": 101}, "longer than the run"),
            ({"policy": "range", "base": -0.1, "peak": 1.0}, "base is -0.1; it must be a finite number and not neg"),
            ({"policy": "range", "base": 0.1, "peak": float("nan")}, "peak is nan"),
            ({"policy": "constant", "base": "0.1"}, "base is '0.1'"),
            ({"policy": "multistep", "base": 0.1, "stepvalues": [50, 100], "gamma": 0.1}, "stepvalue 100 lies beyond"),
            ({"policy": "multistep", "base": 0.1, "stepvalues": [-1], "gamma": 0.1}, "stepvalue is -1"),
        ],
    )
    def test_learning_rate_says_what_is_wrong(self, given_to: dict, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            learning_rate(iterations=100, **given_to)

    @pytest.mark.parametrize("iterations", [0, -5, 10.0, "10", True])
    def test_iterations_are_whole(self, iterations: object) -> None:
        with pytest.raises(ValueError, match=r"iterations is .*; it must be a whole number of at least 1"):
            learning_rate("constant", base=0.1, iterations=iterations)  # type: ignore[arg-type]

    def test_momentum_beyond_one(self) -> None:
        with pytest.raises(ValueError, match=r"peak is 1\.1; it must lie between 0 and 1"):
            momentum_schedule("cyclical", base=0.9, peak=1.1, stepsize=5, iterations=10)
        with pytest.raises(ValueError, match="unknown momentum policy 'cyclic': did you mean cyclical"):
            momentum_schedule("cyclic", iterations=10)
