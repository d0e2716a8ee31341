"""Momentum that a run records and does not apply, and what that means for the words of a figure and of the user."""

import copy
from dataclasses import asdict

import pytest

from experiments.compose import load, settings_for
from experiments.curves import described, one_momentum
from experiments.errors import UserError
from experiments.session import Session, composed


def test_an_axis_of_momentum_needs_the_record_of_readings_too():
    figure = load("figure", "fig07")
    figure["curves"]["slow"] = {"label": "x", "instead_of": "cm_0.7-1", "set": {"lr": {"base": 0.001}}}
    slow = settings_for(figure, "slow", 0, "smoke")
    assert slow.solver.type == "nesterov_unmodified" and slow.momentum.policy == "linear"


def session(*words):
    return Session(composed(["figure=fig14", "scale=smoke", "device=cpu", *words]), say=lambda _: None)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["momentum.peak=0.7"], {"peak": 0.7}),
        (["momentum.base=0.9", "momentum.peak=0.8"], {"base": 0.9, "peak": 0.8}),
        (["momentum.policy=cyclical", "momentum.stepsize=9"], {"policy": "cyclical", "stepsize": 9}),
    ],
)
def test_a_schedule_that_nothing_would_apply_is_refused(words, changed):
    with pytest.raises(UserError, match=rf"{words[-1]} would change nothing: .* Add solver.type=nesterov"):
        session(words[-1])
    applied = session(*words, "solver.type=nesterov").settings("wd_1e-4", 0)
    assert applied.solver.type == "nesterov"
    unchanged = session("solver.type=nesterov").settings("wd_1e-4", 0).momentum
    assert asdict(applied.momentum) == asdict(unchanged) | changed


def test_a_curve_that_applies_its_schedule_takes_another():
    taken = session("momentum.peak=0.7", "curve=wd_1e-4_described").settings("wd_1e-4_described", 0)
    assert (taken.solver.type, taken.momentum.peak) == ("nesterov", 0.7)


def test_a_misspelt_policy_is_not_called_without_effect():
    with pytest.raises(UserError, match="did you mean 'cyclical'"):
        session("momentum.policy=cyclicl").settings("wd_1e-4", 0)


def test_a_schedule_speaks_of_the_settings_by_their_names():
    with pytest.raises(UserError, match=r"'constant' does not take peak; its parameters are base\."):
        session("momentum.peak=0.7", "solver.type=nesterov").settings("mom_0.9", 0)


def test_the_users_words_take_the_described_readings_away():
    """They would be what the user runs, or would not be what they are called."""
    assert described("wd_1e-4") in session().figure["curves"]
    for words in (["solver.type=nesterov"], ["solver.type=sgd"], ["solver.type=nesterov_unmodified"]):
        assert described("wd_1e-4") not in session(*words).figure["curves"]
    constant = session("momentum.policy=constant", "momentum.peak=null")
    assert described("wd_1e-4") not in constant.figure["curves"]
    for asked, expected in ((session(), True), (session("solver.type=nesterov"), False), (constant, False)):
        assert one_momentum(asked.figure, "wd_1e-4", asked.overrides) == expected
    assert not one_momentum(session().figure, "mom_0.9", {})
    unmodified = {"solver": {"type": "nesterov_unmodified"}}
    assert one_momentum(session().figure, "wd_1e-4", unmodified), "said by file and by user alike"


@pytest.mark.parametrize("scale", ["paper", "smoke"])
@pytest.mark.parametrize("change", [{"lr": {"stepsize": 0}}, {"lr": {"stepsize": -7}}, {"batch": {"per_gpu": 0}}])
def test_a_scale_makes_nothing_possible_that_is_not(scale, change):
    """Divided and rounded up to 1, a step size of 0 would train for one iteration at the peak."""
    figure = copy.deepcopy(load("figure", "fig07"))
    with pytest.raises(UserError, match=r"stepsize is (0|-7); it must|total batch|batch\.per_gpu=-?\d: a whole number"):
        for part, values in change.items():
            figure["curves"]["cycle"]["set"].setdefault(part, {}).update(values)
        settings_for(figure, "cycle", 0, scale)


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_what_there_is_not_is_named_with_its_file(key):
    figure = copy.deepcopy(load("figure", "fig09"))
    figure["base"][key] = "cifar33"
    with pytest.raises(UserError, match=rf"fig09.yaml, curve wd_1e-3: There is no {key} 'cifar33'"):
        settings_for(figure, "wd_1e-3", 0, "smoke")


@pytest.mark.parametrize("word", ["momentum.peek=0.5", "momentum.base=many"])
def test_words_are_checked_although_only_the_first_momentum_is_trained(word):
    figure = load("figure", "fig14")
    key, value = word.removeprefix("momentum.").split("=")
    figure["base"]["momentum"][key] = value
    with pytest.raises(UserError, match=f"momentum.{key}"):
        settings_for(figure, "wd_1e-4", 0, "smoke")
