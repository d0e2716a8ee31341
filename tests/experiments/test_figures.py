"""Slips in a figure's file are one sentence that names the file and the place, before anything is trained."""

import copy

import pytest

from experiments.compose import load, names, settings_for
from experiments.errors import UserError
from experiments.figures import check_figure


@pytest.mark.parametrize("name", names("figure"))
def test_every_figure_of_the_report_passes(name):
    check_figure(load("figure", name), name)


def renamed(figure, old, new):
    figure[new] = figure.pop(old)


SLIPS = {
    "curvs": (lambda f: renamed(f, "curves", "curvs"), "cannot have 'curvs': did you mean 'curves'"),
    "panel": (lambda f: renamed(f, "panels", "panel"), "did you mean 'panels'"),
    "no panels": (lambda f: f.pop("panels"), "panels is missing"),
    "no title": (lambda f: f.pop("title"), "title is missing"),
    "empty curve": (lambda f: f["curves"].update(mine=None), "curve mine is missing or empty"),
    "no label": (lambda f: f["curves"].update(mine={"set": {}}), "curve mine has no label"),
    "from nowhere": (
        lambda f: f["curves"].update(mine={"label": "x", "from": {"curve": "wd", "iteration": 1}}),
        "starts from 'wd', which is no curve of it",
    ),
    "axis": (lambda f: f["panels"]["fig09a"].update(y="tst_loss"), "did you mean 'test_loss'"),
    "panel's curve": (lambda f: f["panels"]["fig09a"].update(curves=["wd_1e-33"]), "did you mean 'wd_1e-3'"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named(slip):
    figure = copy.deepcopy(load("figure", "fig09"))
    change, message = SLIPS[slip]
    change(figure)
    with pytest.raises(UserError, match=r"^conf/figure/mine\.yaml: ") as caught:
        check_figure(figure, "mine")
    assert message in str(caught.value)


@pytest.mark.parametrize("change", [{"iterations": "many"}, {"iterations": None}, {"test_interval": 2.5}])
def test_lengths_are_whole_numbers(change):
    figure = copy.deepcopy(load("figure", "fig09"))
    figure["base"] |= change
    with pytest.raises(UserError, match="fig09, wd_1e-3: whole numbers of iterations are expected"):
        settings_for(figure, "wd_1e-3", 0, "smoke")
