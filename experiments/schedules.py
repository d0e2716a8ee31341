"""Learning rate and momentum schedules as arrays: the value at every iteration, known before the run starts.

Every policy is a pure function that returns float64 values for t = 0 .. iterations-1. Those of the report are what its
author's solver ran: they agree with every line of his published logs (tests/experiments/test_schedules.py).

In all of them t is the iteration, ``base`` the learning rate at t = 0, ``peak`` the largest one and ``stepsize`` half
a cycle, in iterations. Impossible values raise ValueError. A schedule says what a *whole* run does: to run only the
beginning of a run, build the whole schedule and cut it.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Schedule = NDArray[np.float64]
Anneal = Literal["cos", "linear"]


def one_cycle(base: float, peak: float, stepsize: int, iterations: int) -> Schedule:
    """1cycle as the author ran it: up for S = ``stepsize`` iterations, down for S, then ``base`` / 1000 to the end.

    The way down aims at 0 and not at ``base``: peak * (2S - t) / S for S < t < 2S. Report section 2; the logs of
    lnsmith54/hyperParam1 show it, the changed Caffe solver behind them is unpublished.
    """
    t = _iterations(iterations)
    base, peak, stepsize = _rate("base", base), _rate("peak", peak), _within("stepsize", stepsize, iterations)
    up = base + (peak - base) * t / stepsize
    down = peak * (2 * stepsize - t) / stepsize
    return np.where(t <= stepsize, up, np.where(t < 2 * stepsize, down, base / 1000))


def triangular(base: float, peak: float, stepsize: int, iterations: int) -> Schedule:
    """Cyclical learning rate: ``base`` to ``peak`` and back in 2 ``stepsize`` iterations, over and over.

    Figures 5 and 7d; solver files of lnsmith54/super-convergence.
    """
    t = _iterations(iterations)
    base, peak, stepsize = _rate("base", base), _rate("peak", peak), _within("stepsize", stepsize, iterations)
    return base + (peak - base) * _triangle(t, stepsize)


def range_test(base: float, peak: float, iterations: int) -> Schedule:
    """Learning rate range test: linear from ``base``, heading for ``peak`` at t = ``iterations``.

    The up ramp alone of either cycle, which is how the author ran it (stepsize = max_iter). The last value falls one
    increment short of ``peak``. Report section 4.1.
    """
    t = _iterations(iterations)
    base, peak = _rate("base", base), _rate("peak", peak)
    return base + (peak - base) * t / iterations


def multistep(base: float, stepvalues: Sequence[int], gamma: float, iterations: int) -> Schedule:
    """``base``, times ``gamma`` at each of ``stepvalues`` in list order (see `with_drops`)."""
    return with_drops(constant(base, iterations), stepvalues, gamma)


def with_drops(lr: Schedule, stepvalues: Sequence[int], gamma: float) -> Schedule:
    """A schedule, times ``gamma`` from each of ``stepvalues`` on.

    As Caffe's multistep takes them: in *list* order and at most one per iteration, so a value that lies before its
    predecessor acts one iteration after it. Figure 7d has drops on top of a cycle.
    """
    gamma = _rate("gamma", gamma)
    act_at: list[int] = []
    for stepvalue in stepvalues:
        stepvalue = _whole("stepvalue", stepvalue, at_least=0)
        if stepvalue >= len(lr):
            raise ValueError(
                f"stepvalue {stepvalue} lies beyond the run of {len(lr)} iterations and would never act: "
                "scale the stepvalues with the run (lr.stepvalues=[...] or lr.drops=[...]), or drop it"
            )
        act_at.append(max(stepvalue, act_at[-1] + 1) if act_at else stepvalue)
    n = np.searchsorted(act_at, np.arange(len(lr)), side="right")
    return lr * gamma**n


def script_stepvalues(iterations: int) -> list[int]:
    """The five stepvalues that lnsmith54/hyperParam1 Cifar/x4.sh writes for a run, integer division throughout.

    About 1/2, 3/4, 7/8, 15/16 and 29/32 of the run. The last lies *before* the fourth, as the script adds it to the
    third (a slip, which every published run has): the two drops come together, at 15/16.
    """
    iterations = _whole("iterations", iterations, at_least=1)
    first = iterations // 2
    second = first + first // 2
    third = second + first // 4
    fourth = third + first // 8
    fifth = third + first // 16
    return [first, second, third, fourth, fifth]


def script_multistep(base: float, iterations: int, gamma: float = 0.316) -> Schedule:
    """The report's "step" on CIFAR: multistep at `script_stepvalues`, which scale with the run."""
    return multistep(base, script_stepvalues(iterations), gamma, iterations)


def step(base: float, gamma: float, stepsize: int, iterations: int) -> Schedule:
    """``base`` * ``gamma`` ** floor(t / ``stepsize``): the report's standard ImageNet runs (0.1, 0.94, 20000)."""
    t = _iterations(iterations)
    base, gamma, stepsize = _rate("base", base), _rate("gamma", gamma), _whole("stepsize", stepsize, at_least=1)
    return base * gamma ** (t // stepsize)


def inv(base: float, gamma: float, power: float, iterations: int) -> Schedule:
    """``base`` * (1 + ``gamma`` t) ** -``power``: Caffe's LeNet example (0.01, 1e-4, 0.75), table 2 row 15."""
    t = _iterations(iterations)
    base, gamma, power = _rate("base", base), _rate("gamma", gamma), _rate("power", power)
    return base * (1 + gamma * t) ** -power


def constant(base: float, iterations: int) -> Schedule:
    """``base`` at every iteration."""
    return np.full(len(_iterations(iterations)), _rate("base", base))


def torch_one_cycle(
    base: float,
    peak: float,
    iterations: int,
    pct_start: float = 0.3,
    final_div_factor: float = 1e4,
    anneal: Anneal = "cos",
    three_phase: bool = False,
) -> Schedule:
    """What ``torch.optim.lr_scheduler.OneCycleLR`` makes of 1cycle, with its defaults.

    Its ``div_factor`` is ``peak`` / ``base``. Up in the first ``pct_start`` of the run, then down to
    ``base`` / ``final_div_factor``; with ``three_phase`` down to ``base`` first, in as many iterations as up.
    """
    base, peak = _rate("base", base), _rate("peak", peak)
    last = base / _positive("final_div_factor", final_div_factor)
    return _torch_phases(base, peak, last, iterations, pct_start, anneal, three_phase)


def fastai_one_cycle(
    base: float, peak: float, iterations: int, pct_start: float = 0.25, div_final: float = 1e5
) -> Schedule:
    """What fastai 2's ``fit_one_cycle`` makes of 1cycle, with its defaults (fastai/callback/schedule.py).

    Its ``div`` (25 by default) is ``peak`` / ``base``. Cosine from ``base`` to ``peak`` in the first ``pct_start`` of
    the run, cosine to ``peak`` / ``div_final`` in the rest, which it would reach at t = ``iterations``.
    """
    base, peak = _rate("base", base), _rate("peak", peak)
    return _fastai_phases(base, peak, peak / _positive("div_final", div_final), iterations, pct_start)


def constant_momentum(momentum: float, iterations: int) -> Schedule:
    """``momentum`` at every iteration."""
    return np.full(len(_iterations(iterations)), _fraction("momentum", momentum))


def linear_momentum(momentum: float, cm0: float, iterations: int) -> Schedule:
    """From ``momentum``, heading for ``cm0`` at t = ``iterations``: the momentum of range tests."""
    return cyclical_momentum(momentum, cm0, stepsize=iterations, iterations=iterations)


def cyclical_momentum(momentum: float, cm0: float, stepsize: int, iterations: int) -> Schedule:
    """Cyclical momentum: ``momentum`` to ``cm0`` in ``stepsize`` iterations and back, each later cycle half as wide.

    So while 1cycle's learning rate rests at ``base`` / 1000, momentum makes a second cycle of half the amplitude.
    ``stepsize`` may exceed the run: the author's inception-resnet-v2 runs had 1,080,000 for 220,000 iterations,
    a typo for 108,000. Report section 4.3; "cyclical_momentum" in lnsmith54/hyperParam1's solver files.
    """
    t = _iterations(iterations)
    momentum, cm0 = _fraction("momentum", momentum), _fraction("cm0", cm0)
    stepsize = _whole("stepsize", stepsize, at_least=1)
    return momentum + (cm0 - momentum) * _triangle(t, stepsize) * 0.5 ** (t // (2 * stepsize))


def torch_one_cycle_momentum(
    momentum: float,
    cm0: float,
    iterations: int,
    pct_start: float = 0.3,
    anneal: Anneal = "cos",
    three_phase: bool = False,
) -> Schedule:
    """The momentum that goes with `torch_one_cycle`: its ``max_momentum`` is ``momentum``, its other one ``cm0``."""
    momentum, cm0 = _fraction("momentum", momentum), _fraction("cm0", cm0)
    return _torch_phases(momentum, cm0, momentum, iterations, pct_start, anneal, three_phase)


def fastai_one_cycle_momentum(momentum: float, cm0: float, iterations: int, pct_start: float = 0.25) -> Schedule:
    """The momentum that goes with `fastai_one_cycle`: its ``moms`` are ``momentum``, ``cm0``, ``momentum``."""
    momentum, cm0 = _fraction("momentum", momentum), _fraction("cm0", cm0)
    return _fastai_phases(momentum, cm0, momentum, iterations, pct_start)


POLICIES: Mapping[str, Callable[..., Schedule]] = {
    "1cycle": one_cycle,
    "triangular": triangular,
    "range": range_test,
    "multistep": multistep,
    "script_multistep": script_multistep,
    "step": step,
    "inv": inv,
    "constant": constant,
    "torch_1cycle": torch_one_cycle,
    "fastai_1cycle": fastai_one_cycle,
}

MOMENTUM_POLICIES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant_momentum,
    "linear": linear_momentum,
    "cyclical": cyclical_momentum,
    "torch_1cycle": torch_one_cycle_momentum,
    "fastai_1cycle": fastai_one_cycle_momentum,
}


def learning_rate(
    policy: str,
    *,
    iterations: int,
    drops: Sequence[int] | None = None,
    drop_gamma: float | None = None,
    **parameters: object,
) -> Schedule:
    """The learning rate at every iteration under a policy of `POLICIES` and the parameters of its function.

    Any policy may come with ``drops``, stepvalues at which the result is multiplied by ``drop_gamma`` as well
    (see `with_drops`). Raises ValueError, saying what would be right, for an unknown policy, for missing or
    superfluous parameters and for impossible values.
    """
    if (drops is None) != (drop_gamma is None):
        raise ValueError("drops and drop_gamma belong together: give both or neither")
    lr = _dispatch(POLICIES, "learning rate policy", policy, iterations, parameters)
    return lr if drops is None or drop_gamma is None else with_drops(lr, drops, drop_gamma)


def momentum_schedule(policy: str, *, iterations: int, **parameters: object) -> Schedule:
    """The momentum at every iteration under a policy of `MOMENTUM_POLICIES`; otherwise as `learning_rate`."""
    return _dispatch(MOMENTUM_POLICIES, "momentum policy", policy, iterations, parameters)


def iterations_from_epochs(epochs: int, images: int, per_gpu: int, gpus: int) -> int:
    """How many iterations so many epochs are, rounded down as in lnsmith54/hyperParam1 Cifar/x4.sh.

    ``images`` is the size of the training set, ``per_gpu`` * ``gpus`` the total batch size. Serves stepsizes as well.
    """
    epochs, images = _whole("epochs", epochs, at_least=0), _whole("images", images, at_least=1)
    return epochs * images // (_whole("gpus", gpus, at_least=1) * _whole("per_gpu", per_gpu, at_least=1))


def _triangle(t: Schedule, stepsize: int) -> Schedule:
    """0 at multiples of 2 ``stepsize``, 1 midway, linear between."""
    return 1 - np.abs(t % (2 * stepsize) - stepsize) / stepsize


def _anneal(start: float, end: float, fraction: Schedule, how: Anneal) -> Schedule:
    """From ``start`` at fraction 0 to ``end`` at 1."""
    if how not in ("cos", "linear"):
        raise ValueError(f"anneal is {how!r}; it must be 'cos' or 'linear'")
    return end + (start - end) * ((1 + np.cos(np.pi * fraction)) / 2 if how == "cos" else 1 - fraction)


def _torch_phases(
    first: float, middle: float, last: float, iterations: int, pct_start: float, anneal: Anneal, three_phase: bool
) -> Schedule:
    """OneCycleLR's shape: phases end where it ends them, at fractional iterations."""
    t = _iterations(iterations)
    pct_start = _fraction("pct_start", pct_start)
    top = pct_start * iterations - 1
    bottom = 2 * pct_start * iterations - 2 if three_phase else top
    if top <= 0 or bottom >= iterations - 1:
        raise ValueError(
            f"pct_start {pct_start} leaves no iteration for the way up or the way down in a run of {iterations}: "
            f"it must exceed 1 / iterations and stay below {'about 0.5' if three_phase else '1'}"
        )
    values = _anneal(first, middle, t / top, anneal)
    if three_phase:
        values = np.where(t > top, _anneal(middle, first, (t - top) / (bottom - top), anneal), values)
    start_of_last = first if three_phase else middle
    fraction = (t - bottom) / (iterations - 1 - bottom)
    return np.where(t > bottom, _anneal(start_of_last, last, fraction, anneal), values)


def _fastai_phases(first: float, middle: float, last: float, iterations: int, pct_start: float) -> Schedule:
    """fit_one_cycle's shape: cosine up to ``pct_start`` of the run, cosine down over the rest."""
    position = _iterations(iterations) / iterations
    if not 0 < _fraction("pct_start", pct_start) < 1:
        raise ValueError(f"pct_start is {pct_start}; it must lie between 0 and 1, ends excluded")
    up = _anneal(first, middle, position / pct_start, "cos")
    down = _anneal(middle, last, (position - pct_start) / (1 - pct_start), "cos")
    return np.where(position < pct_start, up, down)


def _dispatch(
    policies: Mapping[str, Callable[..., Schedule]],
    kind: str,
    policy: str,
    iterations: int,
    parameters: Mapping[str, object],
) -> Schedule:
    if policy not in policies:
        near = difflib.get_close_matches(str(policy), policies, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown {kind} {policy!r}: {hint}valid names are {', '.join(policies)}")
    signature = inspect.signature(policies[policy]).parameters
    takes = [name for name in signature if name != "iterations"]
    superfluous = [name for name in parameters if name not in takes]
    missing = [name for name in takes if signature[name].default is inspect.Parameter.empty and name not in parameters]
    if superfluous or missing:
        wrong = [f"lacks {', '.join(missing)}"] * bool(missing)
        wrong += [f"does not take {', '.join(superfluous)}"] * bool(superfluous)
        raise ValueError(f"{kind} {policy!r} {' and '.join(wrong)}; its parameters are {', '.join(takes)}")
    return policies[policy](**parameters, iterations=iterations)


def _iterations(iterations: int) -> Schedule:
    """0 .. iterations-1."""
    return np.arange(_whole("iterations", iterations, at_least=1), dtype=np.float64)


def _whole(name: str, value: int, *, at_least: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {at_least}")
    return int(value)


def _within(name: str, stepsize: int, iterations: int) -> int:
    stepsize = _whole(name, stepsize, at_least=1)
    if stepsize > iterations:
        raise ValueError(
            f"{name} {stepsize} is longer than the run of {iterations} iterations, which would never reach its peak: "
            "shorten it, or build the schedule of the whole run and cut it"
        )
    return stepsize


def _rate(name: str, value: float) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value!r}; it must be a finite number and not negative")
    return float(value)


def _positive(name: str, value: float) -> float:
    if _rate(name, value) == 0:
        raise ValueError(f"{name} is 0; it must be positive")
    return float(value)


def _fraction(name: str, value: float) -> float:
    if _rate(name, value) > 1:
        raise ValueError(f"{name} is {value!r}; it must lie between 0 and 1")
    return float(value)
