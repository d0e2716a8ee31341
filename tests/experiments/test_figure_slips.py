"""Whatever stands where something else belongs in a figure's file costs a sentence, never a traceback."""

import copy
import random

import pytest

from experiments import compose
from experiments.compose import SCALES, load, scale_of, settings_for
from experiments.curves import with_readings
from experiments.errors import UserError
from experiments.figures import check_figure
from experiments.settings import from_dict

GONE = object()
ODD = (GONE, None, True, -1, 0, 1.5, float("inf"), 10**400, "x", "", "???", [], [1], {}, {"a": 1}, {1: None})
ASKED = 80
"""Slips of each figure, of up to 1,000: a few seconds."""


def places(value, path=()):
    """The paths of all keys and list entries below a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from places(one, (*path, key))


def with_slip(figure, path, odd):
    figure = copy.deepcopy(figure)
    inside = figure
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = odd
    if odd is GONE:
        del inside[path[-1]]
    return figure


@pytest.fixture
def typed_once(monkeypatch):
    """Most slips leave most curves' settings as they are."""
    known = {}

    def remembered(values):
        if (words := repr(values)) not in known:
            known[words] = from_dict(values)
        return known[words]

    monkeypatch.setattr(compose, "from_dict", remembered)


def composes(figure):
    """Whether it is trained as it is; False where a sentence refuses it."""
    try:
        check_figure(figure, "mine")
        figure = with_readings(figure | {"name": "mine"})
        for curve in figure["curves"]:
            for scale in SCALES:
                settings_for(figure, curve, scale_of(figure, scale, curve)["replicates"] - 1, scale)
    except UserError as error:
        assert str(error)
        return False
    return True


def everything():
    """Figure 9 with settings of every kind, in every place that may have them."""
    figure = load("figure", "fig09")
    lr = {"policy": "multistep", "base": 0.1, "gamma": 0.5, "stepvalues": [4000], "drops": [5000], "drop_gamma": 0.5}
    figure["base"] |= {"lr": lr, "epochs": 100, "schedule_length": 20000, "precision": "fp32"}
    cycle = {"policy": "cyclical", "base": 0.95, "peak": 0.85, "stepsize_epochs": 10}
    rise = dict.fromkeys(lr) | {"policy": "1cycle", "base": 0.1, "peak": 1.0, "stepsize": 3000}
    changes = {"batch": {"per_gpu": 64}, "momentum": cycle, "lr": rise}
    figure["curves"]["wd_1e-2"] |= {"set": changes, "scales": {"smoke": {"batch": {"per_gpu": 32}}}, "x_scale": 2}
    figure["scales"]["smoke"] |= {"title": "x", "replicates": 2, "batch_offsets": [1, 0], "inits": ["msra", "xavier"]}
    figure["panels"]["own"] = {"title": "x", "x": "iteration", "y": "test_loss", "published": {"wd_1e-3": [[1, 2.0]]}}
    return figure | {"assumptions": ["x"], "logs": {1: "x"}}


ROWS = ("row_01", "row_05", "row_06", "row_11", "row_06_constant", "row_05_cudnn", "row_05_reshuffled")
"""Those of table 1 whose files differ in kind."""
FIGURES = {name: lambda name=name: load("figure", name) for name in ("fig09", "fig12", "table1")}


@pytest.mark.parametrize("name", [*FIGURES, "everything"])
def test_odd_values_anywhere_cost_a_sentence(name, typed_once):
    figure = copy.deepcopy(FIGURES.get(name, everything)())
    for curve in list(figure["curves"]):
        if curve.endswith("_described") or (name == "table1" and curve not in ROWS):
            del figure["curves"][curve]
    assert composes(figure)
    kinds = {(path[0], *path[2:]) if path[0] in ("curves", "panels") else path: path for path in places(figure)}
    slips = [(path, odd) for path in kinds.values() for odd in ODD]
    for path, odd in random.Random(0).sample(slips, ASKED):
        try:
            composes(with_slip(figure, path, odd))
        except Exception as error:
            raise AssertionError(f"{name}: {'.'.join(map(str, path))}: {odd!r}") from error


def refused(**base):
    """What is said of figure 9 with other settings, at any scale."""
    figure = copy.deepcopy(load("figure", "fig09"))
    for key, value in base.items():
        figure["base"][key] = figure["base"].get(key, {}) | value if isinstance(value, dict) else value
    with pytest.raises(UserError) as caught:
        check_figure(figure, "fig09")
        settings_for(figure, "wd_1e-3", 0, "smoke")
    return str(caught.value)


def test_a_row_of_a_table_has_no_axis_of_another():
    table = load("figure", "table1")
    table["curves"]["row_02"]["x_of"] = "row_01"
    with pytest.raises(UserError, match="curve row_02 has x_of, but a table has no axis to draw it over: leave it out"):
        check_figure(table, "table1")


WHOLE = "a whole number, without point or exponent,"


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"epochs": "ten"}, f"base has epochs: 'ten'; {WHOLE} or null is expected"),
        ({"epochs": 1.5}, f"base has epochs: 1.5; {WHOLE} or null is expected"),
        ({"epochs": -1}, "curve wd_1e-3: epochs is -1; it must be a whole number of at least 0."),
        (
            {"epochs": 9, "batch": {"per_gpu": 0}},
            "curve wd_1e-3: per_gpu is 0; it must be a whole number of at least 1.",
        ),
        ({"batch": {"per_gpu": "big"}}, f"base has batch.per_gpu: 'big'; {WHOLE} is expected"),
        ({"batch": {"pergpu": 128}}, "base cannot have 'batch.pergpu': did you mean 'batch.per_gpu'"),
        ({"lr": {"stepsize": "7k"}}, f"base has lr.stepsize: '7k'; {WHOLE} or null is expected"),
        ({"lr": {"stepsize_epochs": 2.5}}, f"base has lr.stepsize_epochs: 2.5; {WHOLE} or null is expected"),
        ({"momentum": {"stepsize_epochs": "two"}}, f"base has momentum.stepsize_epochs: 'two'; {WHOLE} or null is"),
        ({"lr": {"stepvalues": 8000}}, "lr.stepvalues: 8000; a list of whole numbers or null is expected, as  stepv"),
        ({"iterations": "16k"}, f"base has iterations: '16k'; {WHOLE} is expected"),
        ({"iterations": None}, f"base has iterations: null; {WHOLE} is expected"),
        ({"iterations": -5}, "curve wd_1e-3: iterations=-5: a whole number from 1 up is expected"),
        ({"test_interval": 2.5}, f"base has test_interval: 2.5; {WHOLE} is expected"),
        ({"solver": {"weight_decay": True}}, "base has solver.weight_decay: true; a number is expected"),
    ],
)
def test_a_setting_is_of_its_type(base, said):
    assert refused(**base).startswith("conf/figure/fig09.yaml") and said in refused(**base)


def test_epochs_that_are_null_leave_the_iterations():
    """So a curve may give its length in iterations where the figure's base has epochs."""
    figure = copy.deepcopy(load("figure", "fig09"))
    figure["base"] |= {"epochs": None, "iterations": 12345}
    check_figure(figure, "mine")
    assert settings_for(figure, "wd_1e-3", 0, "paper").iterations == 12345


def test_a_figure_without_test_interval_has_the_settings_default_at_every_scale():
    figure = copy.deepcopy(load("figure", "fig09"))
    del figure["base"]["test_interval"]
    figure["scales"]["quick"]["tests"] = None
    check_figure(figure, "mine")
    assert [settings_for(figure, "wd_1e-3", 0, scale).test_interval for scale in ("paper", "quick")] == [200, 20]


@pytest.mark.parametrize("name", ["", "..", "two words", "a,b", "a=b", "a/b", "-a", "Null", "a" * 81])
def test_a_curve_has_a_name_that_a_command_line_and_a_folder_can_have(name):
    with pytest.raises(UserError, match=f"a curve is called .*{name[:3]}.*; curve=NAME takes letters, digits"):
        check_figure(with_slip(load("figure", "fig09"), ("curves", name), {"label": "x"}), "mine")


@pytest.mark.parametrize("name", ["wd_1e-3", "1.5", "größe", "a+b", "nan", "true", "x" * 80])
def test_a_curve_may_be_called(name):
    check_figure(with_slip(load("figure", "fig09"), ("curves", name), {"label": "x"}), "mine")


def test_numbers_that_are_no_numbers_are_told_from_other_types():
    large = refused(iterations=10**400)
    assert large.endswith(f"base has iterations: 1{79 * '0'}...; a number that 64 bits can hold is expected.")
    assert "...; a number that 64 bits can hold is expected" in refused(lr={"stepvalues": [10**400]})
    panel = {"x": "iteration", "y": "test_loss", "published": {"wd_1e-3": [[1, float("nan")]]}}
    with pytest.raises(UserError, match=r"\[\[1, nan\]\]}; a list of \[x, y\] is expected, of finite numbers"):
        check_figure(with_slip(load("figure", "fig09"), ("panels", "mine"), panel), "mine")


def test_a_batch_that_a_scale_divides_is_found_in_the_file():
    figure = with_slip(load("figure", "fig09"), ("base", "batch", "per_gpu"), 10**17)
    with pytest.raises(UserError, match="batch.per_gpu=.* is expected. Scale quick divides the file's by 4."):
        settings_for(figure, "wd_1e-3", 0, "quick")
