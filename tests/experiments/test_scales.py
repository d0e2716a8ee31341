"""What a shortened run keeps of the report's: the places of a schedule in it."""

import pytest

from experiments.compose import load, settings_for


@pytest.mark.parametrize("scale", ["quick", "smoke"])
@pytest.mark.parametrize("figure", ["fig06", "fig07", "fig08", "fig15"])
def test_momentum_and_learning_rate_stay_in_step(figure, scale):
    what = load("figure", figure)
    stepped = 0
    for curve in what["curves"]:
        whole, short = (settings_for(what, curve, 0, s) for s in ("paper", scale))
        for part in ("momentum", "lr"):
            if (step := getattr(whole, part).stepsize) is not None:
                now = getattr(short, part).stepsize
                assert now / short.iterations == pytest.approx(step / whole.iterations, rel=0.02), (curve, part)
                stepped += 1
    assert stepped


@pytest.mark.parametrize("scale", ["quick", "smoke"])
def test_the_beginning_of_a_longer_schedule_stays_as_large_a_part_of_it(scale):
    figure = load("figure", "fig04b")
    for curve in figure["curves"]:
        whole, short = (settings_for(figure, curve, 0, s) for s in ("paper", scale))
        if whole.schedule_length is not None:
            part = whole.schedule_length / whole.iterations
            assert short.schedule_length / short.iterations == pytest.approx(part, rel=0.02), curve
