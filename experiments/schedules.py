"""Learning rate and momentum schedules as arrays: the value at every iteration, known before the run starts.

Every policy is a pure function that returns float64 values for t = 0 .. iterations-1. Those of the report are what its
author's solver ran: they agree with every line of his published logs (tests/experiments/test_schedules.py).

In all of them t is the iteration, ``base`` the value at t = 0, ``peak`` that in the middle of a cycle (the largest
learning rate, often the smallest momentum) and ``stepsize`` half a cycle, in iterations. Impossible values raise
ValueError. A schedule says what a *whole* run does: to run only the beginning of a run, build the whole schedule and
cut it.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

Schedule = NDArray[np.float64]


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


def constant_momentum(base: float, iterations: int) -> Schedule:
    """``base`` at every iteration."""
    return np.full(len(_iterations(iterations)), _fraction("base", base))


def linear_momentum(base: float, peak: float, iterations: int) -> Schedule:
    """From ``base``, heading for ``peak`` at t = ``iterations``: the momentum of range tests."""
    return cyclical_momentum(base, peak, stepsize=iterations, iterations=iterations)


def cyclical_momentum(base: float, peak: float, stepsize: int, iterations: int) -> Schedule:
    """Cyclical momentum: ``base`` to ``peak`` in ``stepsize`` iterations and back, each later cycle half as wide.

    So while 1cycle's learning rate rests at ``base`` / 1000, momentum makes a second cycle of half the amplitude.
    ``stepsize`` may exceed the run: the author's inception-resnet-v2 runs had 1,080,000 for 220,000 iterations,
    a typo for 108,000. Report section 4.3; "cyclical_momentum" in lnsmith54/hyperParam1's solver files, which call
    ``base`` momentum and ``peak`` cm0.
    """
    t = _iterations(iterations)
    base, peak = _fraction("base", base), _fraction("peak", peak)
    stepsize = _whole("stepsize", stepsize, at_least=1)
    return base + (peak - base) * _triangle(t, stepsize) * 0.5 ** (t // (2 * stepsize))


POLICIES: Mapping[str, Callable[..., Schedule]] = {
    "1cycle": one_cycle,
    "triangular": triangular,
    "range": range_test,
    "multistep": multistep,
    "script_multistep": script_multistep,
    "step": step,
    "inv": inv,
    "constant": constant,
}

MOMENTUM_POLICIES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant_momentum,
    "linear": linear_momentum,
    "cyclical": cyclical_momentum,
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
            f"shorten it, lr.{name}=N, or give the length of the run that this one is the beginning of, "
            "schedule_length=N"
        )
    return stepsize


def _rate(name: str, value: float) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value!r}; it must be a finite number and not negative")
    return float(value)


def _fraction(name: str, value: float) -> float:
    if _rate(name, value) > 1:
        raise ValueError(f"{name} is {value!r}; it must lie between 0 and 1")
    return float(value)
