"""What a summary says of a scale and of settings that were changed by hand."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.session import Session, composed
from reproduce import command, panels, reference
from reproduce import summary as summaries


def test_a_claim_beyond_the_scale_is_not_judged_and_each_has_one_verdict():
    curves = {panel: reference.curves(panel) for panel in ("fig09a", "fig09b")}
    short = SimpleNamespace(
        figure={"claims": ["F09.1", "F09.2"]},
        how={"cannot_judge": {"F09.1": "four epochs are too short"}},
        scale="quick",
        changed={},
    )
    first, second = summaries.verdicts(short, curves)
    assert (first["claim"], first["status"], first["reason"]) == ("F09.1", "not judged", "Four epochs are too short.")
    assert (second["claim"], second["status"]) == ("F09.2", "held")
    short.changed = {"iterations": 800}  # two epochs, say: the reason speaks of the scale's own runs
    assert summaries.verdicts(short, curves)[0]["reason"] == "At this scale, unchanged: four epochs are too short."


def test_iterations_by_hand_move_the_places_of_a_schedule_that_is_laid_over_the_whole_run():
    def divide(*overrides):
        return Session(composed([*overrides, "device=cpu"])).divide

    assert divide("figure=fig09", "scale=smoke") == 16
    assert divide("figure=fig09", "scale=smoke", "iterations=400") == 40  # script_multistep: drops at 1/2, 3/4, ...
    assert divide("figure=fig09", "scale=paper", "iterations=6400") == 2.5
    assert divide("figure=fig03", "scale=smoke", "iterations=900") == 60  # multistep: drops where they were


def test_finals_have_the_spread_of_their_own_quantity():
    rows = pd.DataFrame({"curve": "a", "replicate": [0, 1], "test_loss": [1.0, 3.0], "test_accuracy": [0.5, 0.7]})
    (found,) = summaries.finals({"curves": {"a": {"label": "A"}}}, rows)
    assert found["test_loss_std"] == pytest.approx(math.sqrt(2))
    assert found["test_accuracy_std"] == pytest.approx(math.sqrt(0.02))


def test_finals_are_those_of_the_run_where_it_outlasts_the_axis_that_it_is_drawn_over():
    """`x_of` a shorter curve: the panel ends with that, the run's last test does not."""
    session = Session(composed(["figure=fig12", "scale=paper", "device=cpu"]))
    rows = pd.DataFrame({"iteration": [4000, 8000, 9000], "test_loss": [1.0, 0.9, 0.5], "test_accuracy": 0.5})
    rows = rows.assign(curve="wd_3e-3", replicate=0, lr=0.005, momentum=0.9, train_loss=1.0, hash="a")
    facts = {"scale": "paper", "divide": 1, "overrides": {}, "parameters": {}, "one_momentum": []}
    said = summaries.beside_it(session, rows, facts)
    assert [(one["curve"], one["test_loss"]) for one in said["finals"]] == [("wd_3e-3", 0.5)]
    (numbers,) = said["agreement"]["fig12a"]["series"].values()
    assert numbers["final"] == 0.9


def test_capacity_is_the_mean_of_replicates_with_their_sample_deviation():
    runs = [pd.DataFrame({"train_accuracy": [a] * 5, "test_accuracy": [a] * 5}) for a in (0.5, 0.7)]
    (curve,) = panels.capacity_curves({"a": runs}, {"a": 10})["test_error"].values()
    assert (curve.mean[0], curve.std[0]) == pytest.approx((0.4, math.sqrt(0.02)))


def test_what_is_compared_and_judged_is_averaged_as_the_reports(session, console, monkeypatch):
    seen = list[str]()
    monkeypatch.setattr(summaries, "as_drawn", lambda panel, curves, divide: seen.append(panel) or curves)
    assert command.run(console, session) == 0
    assert set(seen) == {"fig09a", "fig09b"}
