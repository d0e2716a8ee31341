"""README's example of a figure of one's own is trained and drawn."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from small_runs import SMALL

from experiments import compose, session
from experiments.compose import ROOT
from experiments.errors import UserError
from experiments.figures import check_figure_name
from experiments.session import Session, composed
from experiments.train import check_sweep
from experiments.words import of_the_report, spoken
from reproduce import command, published
from reproduce.draw import plt
from reproduce.own_panels import draw_capacity, draw_own_panel
from reproduce.series import Curve
from reproduce.summary import Summary


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of conf/, to which a test adds its figures."""
    shutil.copytree(compose.CONF, tmp_path / "conf")
    for module in (compose, session):
        monkeypatch.setattr(module, "CONF", tmp_path / "conf")
    return tmp_path / "conf"


def test_readmes_example_runs(conf, tmp_path):
    example = re.search(r"```yaml\n(title: Two momenta.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    (conf / "figure" / "mine.yaml").write_text(example[1])
    small = ["dataset.size=8", "dataset.train_images=60", "dataset.test_images=20", "batch.per_gpu=2"]
    where = [f"results={tmp_path}/results", f"figures={tmp_path}/figures", "threads=1", "device=cpu"]
    words = ["figure=mine", "scale=smoke", *small, "iterations=20", "test_interval=5", "lr.stepsize=8", *where]
    console = Console(record=True, width=200)
    assert command.run(console, Session(composed(words), say=lambda _: None)) == 0
    assert compose.load("figure", "mine")["name"] == "mine"
    check_sweep(["-m", "figure=mine", "scale=smoke", "curve=low,high", "replicate=0"])
    with pytest.raises(UserError, match="leave curve= and replicate= out"):
        command.several(console, "collect", ["mine"], [*words[1:], "curve=low"])
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} == {".png", ".pdf"}
    assert "momentum 0.95" in console.export_text()


def test_a_figure_needs_no_claims_and_may_be_run_in_part(conf, tmp_path):
    """No `claims:`; a title with brackets; two panels, of which one shows what has not been run."""
    figure = compose.load("figure", "fig09") | {"title": "Ablation [no decay] of two"}
    del figure["claims"], figure["name"]
    figure["curves"] = {"nan": figure["curves"]["wd_1e-3"], "two": figure["curves"]["wd_1e-2"]}
    figure["curves"]["nan"]["label"] = "cost $5_{a $x"  # half a formula to matplotlib
    figure["panels"] = {
        "mine_a": {"x": "iteration", "y": "test_loss", "curves": ["nan"]},
        "mine_b": {"x": "iteration", "y": "test_loss", "curves": ["two"]},
    }
    (conf / "figure" / "mine.yaml").write_text(yaml.safe_dump(figure))
    words = [*SMALL, "figure=mine", "iterations=4", "test_interval=2", "threads=1"]
    words += [f"results={tmp_path}/results", f"figures={tmp_path}/figures"]
    console = Console(record=True, width=200)
    assert command.run(console, Session(composed([*words, "curve=nan"]), say=lambda _: None)) == 0
    assert command.several(console, "collect", ["mine"], words) == 0
    said = console.export_text()
    assert "Ablation [no decay] of two" in said
    assert "not run, and not in it: two" in said


def test_figures_with_a_dot_in_their_names_keep_their_own_results(conf, tmp_path, monkeypatch):
    """And a folder with brackets in its name is said as it is called: they are not rich's markup."""
    figure = compose.load("figure", "fig09")
    del figure["claims"], figure["name"]
    figure["panels"] = {"mine": {"x": "iteration", "y": "test_loss"}}
    monkeypatch.chdir(tmp_path)
    console, names = Console(record=True, width=200), ("wd_0.01", "wd_0.1")
    for name, decay in zip(names, (0.01, 0.1), strict=True):
        figure["curves"] = {"one": {"label": "one", "set": {"solver": {"weight_decay": decay}}}}
        (conf / "figure" / f"{name}.yaml").write_text(yaml.safe_dump(figure))
        words = [*SMALL, f"figure={name}", "iterations=4", "test_interval=2"]
        words += [f"results={tmp_path}/[b]", f"figures={tmp_path}/[/b]"]
        assert command.run(console, Session(composed(words), say=lambda _: None)) == 0
    kept = {p.name for p in (tmp_path / "[b]" / "summary").iterdir()}
    assert len({name.rpartition("-")[0] for name in kept}) == 2 and len(kept) == 4
    said = console.export_text()
    assert len(re.findall(r"^  \[/b\]/wd_0\.01-.*\.png$", said, re.MULTILINE)) == 1
    assert len(re.findall(r"^  \[/b\]/wd_0\.1-.*\.png$", said, re.MULTILINE)) == 1


def test_a_curve_that_differs_in_nothing_may_say_so(conf):
    figure = compose.load("figure", "fig09")
    del figure["claims"], figure["name"]
    figure["panels"] = {"mine": {"x": "iteration", "y": "test_loss"}}
    figure["curves"] = {"one": {"label": "one", "set": None}}
    (conf / "figure" / "mine.yaml").write_text(yaml.safe_dump(figure))
    asked = Session(composed([*SMALL, "figure=mine", "precision=bf16"]), say=lambda _: None)
    assert asked.precisions == set() and asked.changed.keys() == {"dataset", "batch"}


def test_a_curve_has_one_colour_in_all_panels():
    x = np.arange(3.0)
    curves = {name: Curve(name, x, 1 + x, 0 * x, 1) for name in ("one", "two", "three")}
    _, (left, right) = plt.subplots(1, 2)
    what, facts = {"x": "iteration"}, {"divide": 1, "replicates": 1, "fewest_replicates": 1}
    draw_own_panel(left, "a", what, {"test_loss": curves}, facts, {"a": "one", "b": "two", "c": "three"})
    third = {"test_loss": {"last": replace(curves["three"], label="last")}}
    draw_own_panel(right, "b", what, third, facts, {"a": "", "b": "", "c": "last"})
    assert right.get_lines()[0].get_color() == left.get_lines()[2].get_color()
    plt.close()


def test_what_others_published_is_drawn_in_the_colour_of_its_curve():
    """Points beyond our curves' range widen the axis."""
    x = np.arange(3.0)
    curves = {"two": Curve("two", x, 1 + x, 0 * x, 1)}
    _, ax = plt.subplots()
    what = {"title": "Cost of $1", "x": "iteration", "published": {"b": [[1, 9.0], [2, 0.25]]}}
    draw_own_panel(
        ax,
        "a",
        what,
        {"test_loss": curves},
        {"divide": 1, "replicates": 1, "fewest_replicates": 1},
        {"a": "", "b": "two"},
    )
    assert ax.get_title(loc="left") == r"Cost of \$1"
    ours, points, legend = ax.get_lines()
    assert points.get_color() == ours.get_color()
    assert points.get_xydata().tolist() == [[1, 9], [2, 0.25]]
    assert legend.get_label() == "published by others"
    assert ax.get_ylim()[0] < 0.25 and ax.get_ylim()[1] > 9
    plt.close()


def test_ours_are_said_beside_what_others_published():
    """At the last place where there are both, and at the report's scale only."""
    rows = pd.DataFrame(
        {"curve": ["a"] * 4, "iteration": [5, 10, 5, 10], "test_loss": [9.0, 1.0, 9.0, 3.0], "replicate": [0, 0, 1, 1]}
    )
    points = {"a": [[5, 7.0], [10, 0.5], [20, 0.1]]}
    figure = {
        "curves": {"a": {"label": "A"}, "b": {"label": "B"}},
        "panels": {
            "one": {"x": "iteration", "y": "test_loss", "published": points},
            "two": {"x": "lr", "y": "test_loss", "published": points},
            "three": {"x": "iteration", "y": "test_loss", "published": {"b": [[5, 7.0]]}},
        },
    }
    facts = {"scale": "paper", "overrides": {}}
    said = list(published.beside(figure, Summary(rows, facts)))
    assert said == ["A, test loss at iteration 10: 2.0000 ± 1.4142 (2 runs), published 0.5000 (1 run)"]
    for other in ({"scale": "quick"}, {"overrides": {"seed": 1}}):
        assert not list(published.beside(figure, Summary(rows, facts | other)))


def test_a_figure_of_ones_own_is_not_counted_as_the_reports_by_its_number():
    report = [name for name in compose.names("figure") if of_the_report(name)]
    assert len(report) == 20 and compose.names("figure")[: len(report)] == report
    assert [spoken(name) for name in ("fig03b", "fig16", "table2", "fig17", "fig00", "table3", "caffe")] == [
        *("Figure 3b", "Figure 16", "Table 2"),
        *("fig17", "fig00", "table3", "caffe"),
    ]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([0.5, 0.3, 0.4], {"\u2190 underfitting", "overfitting \u2192"}),
        ([0.5, 0.4, 0.3], set()),
        ([0.3, 0.4, 0.5], set()),
    ],
)
def test_the_sketchs_optimum_is_marked_only_where_both_its_sides_were_seen(errors, words):
    x = np.array([1e3, 1e4, 1e5])
    curves = {name: {"": Curve("", x, np.array(errors), 0 * x, 1)} for name in ("train_error", "test_error")}
    _, ax = plt.subplots()
    draw_capacity(ax, curves, ["64 channels", "128 channels"])
    assert {text.get_text() for text in ax.texts} == words
    assert ("optimal: lowest test error" in ax.get_legend_handles_labels()[1]) == bool(words)
    assert ax.get_legend_handles_labels()[1].count("not run: 64 channels, 128 channels") == 1
    plt.close("all")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("2024", "a figure's name begins with a letter"),
        ("0.01", "a figure's name begins with a letter"),
        ("null", "is no word for a value"),
        ("[x]", "a figure's name begins with a letter"),
        ("a=b", "a figure's name begins with a letter"),
        ("a b", "a figure's name begins with a letter"),
        ("fig09-smoke", "drawings of scale smoke may be called fig09-smoke.png"),
        ("fig9", "fig9 means the report's fig09"),
    ],
)
def test_a_name_that_means_something_else_is_refused(name, says):
    with pytest.raises(UserError, match=re.escape(f"conf/figure/{name}.yaml: ") + ".*" + re.escape(says)):
        check_figure_name(name)


def test_names_of_ones_own_may_have_dots_and_foreign_letters():
    for name in ("mine", "wd_0.01", "größe-2", "fig09_again"):
        check_figure_name(name)
