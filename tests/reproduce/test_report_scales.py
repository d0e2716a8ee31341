"""The figures at scales quick and smoke: what they keep of the report, what they say of the rest."""

from dataclasses import asdict, replace

import pytest
from figure_files import FIGURES, nominal, spec

import models
from experiments.batches import AUTHOR_TESTS
from experiments.compose import names, scale_of
from reproduce.claims.numbers import FEWEST_TESTS

CURVES = [(figure, curve) for figure in FIGURES for curve in spec(figure)["curves"]]


@pytest.mark.parametrize(("figure", "curve"), CURVES)
def test_quick_keeps_the_reports_data_and_says_what_it_changes(figure: str, curve: str) -> None:
    paper, quick = nominal(figure, curve), nominal(figure, curve, "quick")
    said = " ".join(scale_of(spec(figure), "quick")["cannot_show"])
    assert quick.dataset.name == paper.dataset.name
    if paper.dataset.name == "imagenet":
        assert f"crops of {quick.dataset.size} pixels" in said
    else:
        kept = replace(quick.dataset, test_images=10000, train_images=paper.dataset.train_images)
        assert kept == paper.dataset
        assert quick.dataset.train_images == paper.dataset.train_images or f"{quick.dataset.train_images:,}" in said
    if (quick.model.depth, quick.model.width) != (paper.model.depth, paper.model.width):
        assert "layers" in said or "depth=1" in said


@pytest.mark.parametrize("scale", ["quick", "smoke"])
@pytest.mark.parametrize(("figure", "curve"), CURVES)
def test_short_runs_keep_the_rates_and_are_tested_often_enough(figure: str, curve: str, scale: str) -> None:
    paper, short = nominal(figure, curve), nominal(figure, curve, scale)
    assert short.lr.policy == paper.lr.policy
    assert (short.lr.base, short.lr.peak) == (paper.lr.base, paper.lr.peak)
    assert short.momentum.peak == paper.momentum.peak
    assert short.solver == paper.solver
    assert short.dataset.mirror == paper.dataset.mirror
    assert short.batch.gpus == paper.batch.gpus
    assert short.batch.per_gpu >= 2
    assert short.iterations // short.test_interval >= FEWEST_TESTS


@pytest.mark.parametrize("figure", [f for f in FIGURES if f != "fig09"])  # longer: the order of its curves shows
def test_smoke_is_made_images_and_few_of_them(figure: str) -> None:
    runs = {curve: nominal(figure, curve, "smoke") for curve in spec(figure)["curves"]}
    assert {run.dataset.name for run in runs.values()} == {"shapes"}
    own = [run for curve, run in runs.items() if "instead_of" not in spec(figure)["curves"][curve]]
    assert sum(run.iterations * run.batch.total for run in own) <= 300_000
    assert sum(run.iterations * run.batch.total for run in runs.values()) <= 600_000  # with readings=true


@pytest.mark.parametrize("scale", ["quick", "smoke"])
def test_the_small_networks_can_be_built(scale: str) -> None:
    wanted = {}
    for figure, curve in CURVES:
        run = nominal(figure, curve, scale)
        wanted[repr((run.model, run.dataset.size, run.dataset.classes, run.batch.gpus))] = run
    for run in wanted.values():
        d, m = run.dataset, asdict(run.model)
        network = models.build(
            m.pop("name"), classes=d.classes, channels=d.channels, size=d.size, gpus=run.batch.gpus, seed=0, **m
        )
        assert sum(p.numel() for p in network.parameters()) > 0


def test_cannot_judge_names_claims_of_its_figure() -> None:
    for figure in FIGURES:
        for scale in ("quick", "smoke"):
            beyond = scale_of(spec(figure), scale).get("cannot_judge", {})
            assert set(beyond) <= set(spec(figure)["claims"])
            assert all(isinstance(why, str) and not why.endswith(".") for why in beyond.values())


def test_assumptions_name_their_figure_and_end_as_sentences() -> None:
    for figure in FIGURES:
        for sentence in spec(figure)["assumptions"]:
            assert sentence.startswith(figure + ":")
            assert sentence.endswith(".")


def test_the_networks_are_known_by_one_name() -> None:
    used = {nominal(figure, curve).model.name for figure, curve in CURVES}
    assert used == set(models.NAMES) - {"cifar10-quick"}, "which is for comparing with Caffe only"
    assert set(models.NAMES) == set(names("model"))
    assert set(AUTHOR_TESTS) <= used
