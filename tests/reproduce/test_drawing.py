"""What a drawing adds to its curves, and where it leaves something out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.compose import ROOT, load
from reproduce import draw, reference
from reproduce import summary as summaries
from reproduce.series import over_others_rates


@pytest.fixture
def foot(monkeypatch):
    """What is written on a figure's drawing."""
    texts: list[str] = []
    monkeypatch.setattr(draw.plt.Figure, "text", lambda self, x, y, s, **_: texts.append(s))
    return lambda: " ".join(" ".join(texts).split())


def committed(name: str, scale: str) -> summaries.Summary:
    return summaries.read(ROOT / "results", name, scale)


@pytest.mark.parametrize(
    ("means", "said"),
    [
        ([[1.0, 0.2], [0.3, 0.05]], ""),  # under the axis, as any curve may be
        ([[1.0, 0.2], [0.3, 0.0]], "1 of our values is 0 or below"),
        ([[1.0, -0.2], [-0.3, 0.05]], "2 of our values are 0 or below, 1 more below this axis"),
    ],
)
def test_what_a_logarithmic_axis_cannot_show_is_counted(means, said):
    assert draw._unseen([np.array(mean) for mean in means], 0.1) == said


@pytest.mark.parametrize(("height", "boxes"), [(0.5, 0), (0.915, 1)])
def test_the_reports_inset_is_drawn_where_ours_come_into_it(height, boxes):
    """At half of the accuracy none does: the box would show the report alone, and press ours together."""
    summary = committed("fig08", "quick")
    rows = summary.rows.assign(test_accuracy=height)
    drawing = draw._panels(load("figure", "fig08"), replace(summary, rows=rows), columns=2, width=6.4)
    panel = next(ax for ax in drawing.axes if ax.get_title(loc="left").startswith("8b"))
    assert len(panel.child_axes) == boxes
    draw.plt.close("all")


def test_the_foot_has_what_the_figures_file_says_and_what_diverged_means(foot):
    figure, summary = load("figure", "fig14"), committed("fig14", "paper")
    draw.plt.close(draw._panels({**figure, "foot": ["Ours were run so."]}, summary, columns=2, width=6.4))
    assert "Ours were run so." in foot() and foot().count("Diverged: at Caffe's largest loss, 87.3, to the end.") == 1


def test_without_a_diverged_run_the_foot_does_not_explain_it(foot):
    draw.plt.close(draw._panels(load("figure", "fig03"), committed("fig03", "paper"), columns=2, width=6.4))
    assert "Solid" in foot() and "Diverged" not in foot()


def test_averages_of_averages_are_told_in_words():
    said = reference.note("fig01a")
    assert said is not None and "means of 3 neighbouring tests, 7 of those averaged again" in said


def test_the_foot_says_over_whose_learning_rates_a_curve_is_drawn(foot):
    figure, summary = load("figure", "fig12"), committed("fig12", "paper")
    draw.plt.close(draw._panels(figure, summary, columns=2, width=6.4))
    run = figure["curves"]["wd_1e-3_range"]["label"]
    said = f"12a: over the learning rates of {run}: WD=1e-2, WD=3e-3, WD=1e-3."
    assert foot().count(said) == foot().count("over the learning rates of") == 1
    rows = summary.rows[summary.rows["curve"].str.endswith("_range")]
    draw.plt.close(draw._panels(figure, replace(summary, rows=rows), columns=2, width=6.4))
    assert foot().count("over the learning rates of") == 1, "none of the range tests is"


def test_it_names_what_the_panel_shows_as_the_panel_calls_it():
    """A panel of one's own shows no readings; over momentum it is that which another curve's schedule has."""
    curves = {
        "a": {"label": "A"},
        "b": {"label": "B", "x_of": "a"},
        "c": {"label": "C", "instead_of": "a", "x_of": "b"},
    }
    ran = pd.DataFrame({"curve": list(curves)})

    def said(panel, **what):
        return over_others_rates({"curves": curves, "panels": {panel: {"x": "lr"} | what}}, ran)

    assert said("fig12a") == ["12a: over the learning rates of A: B.", "12a: over the learning rates of B: C."]
    assert said("mine", labels={"b": "small"}) == ["mine: over the learning rates of A: small."]
    assert said("mine", x="momentum") == ["mine: over the momentum of A: B."] and said("mine", x="iteration") == []
    assert said("fig12a", curves=["b"]) == ["12a: over the learning rates of A: B."]
