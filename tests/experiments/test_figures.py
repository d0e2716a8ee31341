"""Slips in a figure's file are one sentence that names the file and the place, before anything is trained."""

import copy

import pytest

from experiments import compose
from experiments.compose import load, names, settings_for
from experiments.curves import with_readings
from experiments.errors import UserError
from experiments.figures import check_figure
from experiments.session import Session, composed


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
        "starts from 'wd', which is no other curve of it",
    ),
    "from itself": (
        lambda f: f["curves"].update(mine={"label": "x", "from": {"curve": "mine", "iteration": 1}}),
        "starts from 'mine', which is no other curve of it",
    ),
    "from a name": (
        lambda f: f["curves"].update(mine={"label": "x", "from": "wd_1e-3"}),
        "curve mine has from: 'wd_1e-3'; expected is  from: {curve: NAME, iteration: 1800}",
    ),
    "from no iteration": (
        lambda f: f["curves"].update(mine={"label": "x", "from": {"curve": "wd_1e-3"}}),
        "curve mine has from: {'curve': 'wd_1e-3'}; expected is",
    ),
    "a curve called 1": (
        lambda f: f["curves"].update({1: {"label": "x"}}),
        "a curve is called 1; a text is expected",
    ),
    "words for offsets": (
        lambda f: f["scales"]["smoke"].update(batch_offsets=["a"]),
        "scale smoke has batch_offsets: ['a']; a list of whole numbers is expected",
    ),
    "weights there are not": (
        lambda f: f["scales"]["smoke"].update(inits=["foo"]),
        "scale smoke in inits cannot have 'foo'",
    ),
    "a list of labels": (
        lambda f: f["panels"]["fig09a"].update(labels=["A"]),
        "panel fig09a has labels: ['A']; a group of names and texts is expected",
    ),
    "a label for no curve": (
        lambda f: f["panels"]["fig09a"].update(labels={"wd_1e-33": "A"}),
        "panel fig09a in its labels cannot have 'wd_1e-33': did you mean 'wd_1e-3'",
    ),
    "an axis of nothing": (
        lambda f: f["panels"]["fig09a"].update(x_scale=0),
        "panel fig09a has x_scale: 0; a number above 0 is expected",
    ),
    "published for no curve": (
        lambda f: f["panels"]["fig09a"].update(published={"wd_1e-33": [[1, 2]]}),
        "panel fig09a has published points of 'wd_1e-33': did you mean 'wd_1e-3'",
    ),
    "one number published": (
        lambda f: f["panels"]["fig09a"].update(published={"wd_1e-3": [1, 2]}),
        "panel fig09a has published: {wd_1e-3: [1, 2]}; a list of [x, y] is expected",
    ),
    "published percent": (
        lambda f: f["panels"]["fig09a"].update(y="test_accuracy", published={"wd_1e-3": [[1, 75.3]]}),
        "panel fig09a has a published test_accuracy of 75.3; a share from 0 to 1, not percent, is expected",
    ),
    "a published loss below 0": (
        lambda f: f["panels"]["fig09a"].update(published={"wd_1e-3": [[1, -2]]}),
        "panel fig09a has a published test_loss of -2; a loss above 0 is expected",
    ),
    "a panel's title that is a number": (
        lambda f: f["panels"]["fig09a"].update(title=9),
        "panel fig09a has title: 9; a text is expected",
    ),
    "a title for a panel of the report": (
        lambda f: f["panels"]["fig09a"].update(title="Mine", published={"wd_1e-3": [[1, 2]]}),
        "is the report's, whose own title and curves are drawn there: leave out published and title, or give the",
    ),
    "another quantity over the report's": (
        lambda f: f["panels"]["fig09a"].update(y="test_accuracy"),
        "panel fig09a is drawn over the report's, which has y: test_loss, not test_accuracy; for other axes",
    ),
    "another axis over the report's": (
        lambda f: f["panels"]["fig09a"].update(x="lr"),
        "panel fig09a is drawn over the report's, which has x: iteration, not lr",
    ),
    "a panel almost called as the report's": (
        lambda f: f["panels"].update(fig9a=f["panels"].pop("fig09a")),
        "panel fig9a: the report has no panel of that name (they are called as fig09a)",
    ),
    "a panel of no curves": (
        lambda f: f["panels"]["fig09a"].update(curves=[]),
        "panel fig09a has curves: []; name some, or leave it out for all",
    ),
    "nothing published": (
        lambda f: f["panels"]["fig09a"].update(published={"wd_1e-3": []}),
        "panel fig09a has published: {wd_1e-3: []}; a list of [x, y] is expected",
    ),
    "infinity published": (
        lambda f: f["panels"]["fig09a"].update(published={"wd_1e-3": [[1, float("inf")]]}),
        "panel fig09a has published: {wd_1e-3: [[1, inf]]}; a list of [x, y] is expected",
    ),
    "a published list": (
        lambda f: f["panels"]["fig09a"].update(published=[[1, 2]]),
        "panel fig09a has published: [[1, 2]]; curves with points are expected",
    ),
    "published for two quantities": (
        lambda f: f["panels"]["fig09a"].update(y=["test_loss", "train_loss"], published={"wd_1e-3": [[1, 2]]}),
        "panel fig09a has published points: it needs a single y",
    ),
    "published in a panel of the report's": (
        lambda f: f["panels"]["fig09a"].update(published={"wd_1e-3": [[1, 2]]}),
        "panel fig09a is the report's, whose own title and curves are drawn there",
    ),
    "no kind": (lambda f: f.update(kind="tabel"), "kind is 'tabel'; a figure of curves has none"),
    "from one that starts from another": (
        lambda f: f["curves"].update(
            one={"label": "x", "from": {"curve": "wd_1e-3", "iteration": 1}},
            two={"label": "y", "from": {"curve": "one", "iteration": 1}},
        ),
        "curve two starts from 'one', which starts from another curve itself",
    ),
    "a number for a label": (
        lambda f: f["curves"]["wd_1e-3"].update(label=0.95),
        "curve wd_1e-3 has label: 0.95; a text is expected",
    ),
    "one label for two": (
        lambda f: f["curves"]["wd_1e-3"].update(label="WD=1e-2"),
        "panel fig09a has two curves called 'WD=1e-2'",
    ),
    "curve's scale": (
        lambda f: f["curves"]["wd_1e-3"].update(scales={"smok": {}}),
        "curve wd_1e-3 at its scales cannot have 'smok': did you mean 'smoke'",
    ),
    "offset without a list": (
        lambda f: f["scales"]["smoke"].update(batch_offsets=3),
        "scale smoke has batch_offsets: 3; a list of whole numbers is expected",
    ),
    "scale's settings": (
        lambda f: f["scales"]["smoke"].update(settings="x"),
        "scale smoke has settings: 'x'; a group of settings or null is expected",
    ),
    "reads nothing": (
        lambda f: f["curves"].update(mine={"label": "x", "instead_of": "wd"}),
        "has instead_of: 'wd', which is no curve of it",
    ),
    "reads a reading": (
        lambda f: f["curves"].update(
            one={"label": "x", "instead_of": "wd_1e-3"}, two={"label": "y", "instead_of": "one"}
        ),
        "stands instead of 'one', itself another reading",
    ),
    "like only": (
        lambda f: f["curves"].update(mine={"label": "x", "like": "wd_1e-3"}),
        "that is for another reading; add  instead_of:",
    ),
    "a kept name": (
        lambda f: f["curves"].update({"wd_1e-3_described": {"label": "x"}}),
        "has a name that is kept for its curve with momentum as described",
    ),
    "a name for settings": (
        lambda f: f["base"].update(solver="nesterov"),
        "base has solver: 'nesterov'; a group of settings is expected, as  solver: {type: nesterov, weight_decay: ",
    ),
    "a number for settings": (
        lambda f: f["curves"]["wd_1e-3"].update(set={"momentum": 0.9}),
        "curve wd_1e-3 has momentum: 0.9; a group of settings is expected, as  momentum: {base: 0.9}",
    ),
    "a seed": (lambda f: f["base"].update(seed=7), "base has a seed, but a replicate's number is its seed"),
    "an initialisation": (
        lambda f: f["curves"]["wd_1e-3"]["set"].update(model={"init": "xavier"}),
        "curve wd_1e-3 has model: init, but a scale says how each replicate's weights begin",
    ),
    "a number for a curve": (lambda f: f["curves"].update(mine=3), "curve mine is 3; README's example"),
    "a list for a title": (lambda f: f.update(title=[1]), "a figure has title: [1]; a text is expected"),
    "no x": (lambda f: f["panels"]["fig09a"].pop("x"), "panel fig09a has no x; add one of iteration, lr"),
    "modle": (lambda f: renamed(f["base"], "model", "modle"), "base cannot have 'modle': did you mean 'model'"),
    "an empty data set": (
        lambda f: f["base"].update(dataset=None),
        "base has dataset: null; a text or a group of settings is expected, as  dataset: cifar10",
    ),
    "a list of settings": (
        lambda f: f["curves"]["wd_1e-3"].update(set=["momentum"]),
        "curve wd_1e-3 has set: ['momentum']; a group of settings or null is expected, as  set: {iterations: 9}",
    ),
    "reads a list": (
        lambda f: f["curves"].update(mine={"label": "x", "instead_of": ["wd_1e-3"]}),
        "curve mine has instead_of: ['wd_1e-3']; a text is expected",
    ),
    "like itself": (
        lambda f: f["curves"].update(mine={"label": "x", "instead_of": "wd_1e-3", "like": "mine"}),
        "is like 'mine', which has to stand before it",
    ),
    "scale's name": (lambda f: f["scales"].update(smok={}), "scales cannot have 'smok': did you mean 'smoke'"),
    "scale's key": (
        lambda f: f["scales"]["smoke"].update(divid=3),
        "scale smoke cannot have 'divid': did you mean 'divide'",
    ),
    "divided by nothing": (
        lambda f: f["scales"]["smoke"].update(divide=0),
        "scale smoke has divide: 0; a whole number from 1 up is expected",
    ),
    "a blank number": (
        lambda f: f["scales"]["smoke"].update(divide=None),
        "scale smoke has divide: null; a whole number, without point or exponent, is expected",
    ),
    "true for scales": (
        lambda f: f.update(scales=True),
        "a figure has scales: true; a group of settings or null is expected",
    ),
    "a number for a scale": (
        lambda f: f["scales"].update(quick=1),
        "scales has quick: 1; a group of settings or null is expected",
    ),
    "a blank network at a scale": (
        lambda f: f["scales"]["smoke"]["settings"].update(model=None),
        "scale smoke has model: null; a text or a group of settings is expected, as  model: cifar3",
    ),
    "a misspelt setting of a curve at a scale": (
        lambda f: f["curves"]["wd_1e-3"].update(scales={"smoke": {"model": {"widht": 8}}}),
        "curve wd_1e-3 at scale smoke cannot have 'model.widht': did you mean 'model.width'",
    ),
    "a number for how": (
        lambda f: f["curves"]["wd_1e-3"].update(scales={"smoke": {"how": 12}}),
        "curve wd_1e-3 at scale smoke has how: 12; a group of settings is expected",
    ),
    "a text for claims": (
        lambda f: f.update(claims="F09.1"),
        "a figure has claims: 'F09.1'; a list of texts or null is expected, as  claims: [F09.1, F09.2], or",
    ),
    "a panel called 1": (
        lambda f: f["panels"].update({1: {"x": "iteration", "y": "test_loss"}}),
        "a panel is called 1; a text is expected",
    ),
    "true for a panel's curves": (
        lambda f: f["panels"]["fig09a"].update(curves=True),
        "panel fig09a has curves: true; a list of texts is expected",
    ),
    "from a curve that is none itself": (
        lambda f: f["curves"].update(mine={"label": "x", "from": {"curve": "no", "iteration": 1}}, no=3),
        "curve no is 3; README's example",
    ),
    "the environment": (
        lambda f: f["curves"]["wd_1e-3"].update(label="${oc.env:PATH}"),
        "'${oc.env:PATH}': write what it stands for",
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


def test_a_file_may_not_have_a_name_that_means_another():
    with pytest.raises(UserError, match=r"conf/figure/fig1.yaml: fig1 means the report's fig01"):
        check_figure(load("figure", "fig09"), "fig1")


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff\xfe", b"- a\n- list\n", b"a: [1\n", b"a: &a [*a]\n", b"a: " + b"[" * 3000),
        *(b"curves: {null: 1}\n", b"a: 1" + b"0" * 5000),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content, tmp_path, monkeypatch):
    monkeypatch.setattr(compose, "CONF", tmp_path)
    (tmp_path / "figure").mkdir()
    (tmp_path / "figure" / "mine.yaml").write_bytes(content)
    with pytest.raises(
        UserError, match=r"^conf/figure/mine.yaml (cannot be read|is no file of names)|: a name in curves is null"
    ):
        load("figure", "mine")


@pytest.mark.parametrize(("at", "said"), [(20000, 2000), (5, 0)])
def test_a_start_outside_the_run_is_said_in_the_files_words(at, said):
    session = Session(composed(["figure=fig12", "scale=smoke", "device=cpu"]), say=lambda _: None)
    session.figure["curves"]["wd_3e-3"]["from"]["iteration"] = at
    message = (
        f"fig12, wd_3e-3: it starts from iteration {at} of wd_1e-3_range, at scale smoke {said} of 800: from 1 to 799"
    )
    with pytest.raises(UserError, match=message):
        session.run("wd_3e-3", 0)


def test_every_replicate_has_a_batch_and_weights():
    figure = copy.deepcopy(load("figure", "fig09"))
    figure["scales"]["smoke"]["replicates"] = 4
    with pytest.raises(UserError, match="fig09.yaml: scale smoke has 4 replicates and batch_offsets for 1"):
        settings_for(figure, "wd_1e-3", 0, "smoke")


@pytest.mark.parametrize("name", ["fig01", "fig03", "fig05", "fig07", "fig09"])
def test_a_seed_by_hand_leaves_replicates_that_differ(name):
    """Figures 1 and 5 have replicates that differ in nothing but the seed."""
    figure = load("figure", name)
    curve = next(iter(figure["curves"]))
    runs = [settings_for(figure, curve, replicate, "paper", {"seed": 5}) for replicate in range(4)]
    assert [run.seed for run in runs] == [5, 6, 7, 8]
    assert len({run.hash() for run in runs}) == 4


def test_a_scale_leaves_something_to_train_and_a_test_of_it():
    figure = copy.deepcopy(load("figure", "fig09"))
    figure["base"]["iterations"] = 300
    figure["base"]["lr"] = {"policy": "constant", "base": 0.01}
    figure["scales"]["smoke"]["divide"] = 10
    run = settings_for(figure, "wd_1e-3", 0, "smoke")
    assert (run.iterations, run.test_interval) == (30, 1), "fewer iterations than the scale's tests"
    figure["scales"]["smoke"]["divide"] = 301
    with pytest.raises(UserError, match="curve wd_1e-3: scale smoke divides 300 iterations by 301, which leaves noth"):
        settings_for(figure, "wd_1e-3", 0, "smoke")


def test_what_the_file_says_wrong_is_found_in_the_file():
    figure = copy.deepcopy(load("figure", "fig09"))
    figure["curves"]["wd_1e-3"]["set"]["momentum"] = {"base": "high"}
    with pytest.raises(UserError, match=r"^conf/figure/fig09\.yaml, curve wd_1e-3: momentum\.base=high: a number"):
        settings_for(figure, "wd_1e-3", 0, "smoke")
    figure = load("figure", "fig09")
    with pytest.raises(UserError, match=r"^iterations=100000000000: a whole number from 1 to 100,000,000 is expected"):
        settings_for(figure, "wd_1e-3", 0, "smoke", {"iterations": 10**11})


def test_another_reading_says_only_what_differs():
    """It starts from the curve that it stands for, or from the reading it is like, and keeps that curve's scales."""
    figure = copy.deepcopy(load("figure", "fig09"))
    figure["curves"]["wd_1e-3"]["scales"] = {"smoke": {"model": {"width": 3}}}
    figure["curves"]["fast"] = {"label": "x", "instead_of": "wd_1e-3", "set": {"lr": {"base": 0.5}}}
    faster = {"label": "y", "instead_of": "wd_1e-3", "like": "fast", "set": {"momentum": {"base": 0.5}}}
    figure["curves"]["faster"] = faster
    check_figure(figure, "mine")
    figure = with_readings(figure)
    for curve, lr, momentum in (("wd_1e-3", 0.005, 0.95), ("fast", 0.5, 0.95), ("faster", 0.5, 0.5)):
        run = settings_for(figure, curve, 0, "smoke")
        assert (run.solver.weight_decay, run.model.width) == (1e-3, 3)
        assert (run.lr.base, run.momentum.base) == (lr, momentum)


def test_a_schedule_of_momentum_that_is_recorded_only_is_trained_as_constant_and_has_a_reading():
    figure = copy.deepcopy(load("figure", "fig09"))
    constant = settings_for(figure, "wd_1e-3", 0, "smoke")
    figure["base"]["solver"] = {"type": "nesterov_unmodified"}
    assert settings_for(figure, "wd_1e-3", 0, "smoke") == constant, "constant momentum is recorded and applied"
    assert "wd_1e-3_described" not in with_readings(figure)["curves"]
    figure["base"]["momentum"] |= {"policy": "linear", "peak": 0.8}
    figure = with_readings(figure)
    assert settings_for(figure, "wd_1e-3", 0, "smoke") == constant
    described = settings_for(figure, "wd_1e-3_described", 0, "smoke")
    assert described.solver.type == "nesterov" and described.momentum_array()[-1] == 0.8
    asked = settings_for(figure, "wd_1e-3", 0, "smoke", {"solver": {"type": "nesterov"}})
    assert asked == described, "what ARGS=solver.type=nesterov runs"
    figure["panels"] = {"own": {"x": "momentum", "y": "test_loss"}}
    figure["panels"]["own"]["curves"] = ["wd_1e-3"]
    kept = settings_for(figure, "wd_1e-3", 0, "smoke")
    assert settings_for(figure, "wd_1e-2", 0, "smoke").momentum.policy == "constant", "it is not on that panel"
    assert kept.momentum_array()[-1] == 0.8 and kept.solver.type == "nesterov_unmodified", "an axis needs the record"


@pytest.mark.parametrize("part", ["dataset", "model", "batch", "lr"])
def test_a_part_that_is_nowhere_is_named(part):
    figure = copy.deepcopy(load("figure", "fig09"))
    del figure["base"][part]
    with pytest.raises(
        UserError, match=f"fig09.yaml, curve wd_1e-3: the settings have no {part}; add  {part}: .* to the figure's"
    ):
        settings_for(figure, "wd_1e-3", 0, "smoke")


def test_a_figure_says_how_long_its_runs_are():
    figure = copy.deepcopy(load("figure", "fig09"))
    del figure["base"]["iterations"]
    with pytest.raises(UserError, match="fig09.yaml, curve wd_1e-3: nothing says how long a run is: give iterations"):
        settings_for(figure, "wd_1e-3", 0, "smoke")
