"""The benchmark: the same step in every piece, turns counted right, files that can be compared."""

from dataclasses import replace

import pytest
import torch
from small_runs import CPU
from steps import measured_settings as small

import models
from experiments import benchmark, measure
from experiments.benchmark import Options, chosen, parse, plan, settings_of
from experiments.errors import UserError
from experiments.estimate import random_images
from experiments.measure import CONTESTANTS, BareStep, SuiteTrainer, rate, variants
from experiments.settings import Batch, validate
from experiments.store import Run
from experiments.training import train


@pytest.mark.parametrize("network", ["cifar3", "resnet56"])
def test_a_bare_step_in_any_pieces_is_the_trainers_first_step(network):
    settings = small(network) if network == "cifar3" else small(network, depth=1, width=4)
    settings = replace(settings, dataset=replace(settings.dataset, mirror=False), lr=replace(settings.lr, base=0.05))
    data = random_images(settings, 32, 1)
    suite = SuiteTrainer(settings, data, CPU)
    start = [p.clone() for p in suite.trainer.net.parameters()]
    next(suite.steps())
    bare = BareStep(settings, data, CPU)
    assert bare.choices == (8, 2)
    for choice in bare.choices:
        bare = BareStep(settings, data, CPU)
        bare.choice = choice
        next(bare.steps())
        for before, mine, theirs in zip(
            start, bare.trainer.net.parameters(), suite.trainer.net.parameters(), strict=True
        ):
            torch.testing.assert_close(mine - before, theirs - before, rtol=1e-3, atol=1e-6)
    moved = [(p - q).abs().max().item() for p, q in zip(start, suite.trainer.net.parameters(), strict=True)]
    assert max(moved) > 1e-4


def test_pieces_of_32_are_tried_only_where_nothing_is_normalised_over_the_batch():
    wide = {"per_gpu": 16}
    assert BareStep(small(**wide), random_images(small(**wide), 64, 1), CPU).choices == (64, 32, 16)
    deep = small("resnet56", depth=1, width=4, **wide)
    assert BareStep(deep, random_images(deep, 64, 1), CPU).choices == (64, 16)


def test_the_trainers_turn_is_what_train_does(tmp_path, tiny, shapes):
    run = Run(tmp_path, tiny)
    with run.claim():
        summary = train(run, shapes(tiny), CPU)
    suite = SuiteTrainer(tiny, shapes(tiny), CPU)
    steps = suite.steps()
    for _ in range(tiny.iterations):
        next(steps)
    assert suite.trainer.test()[0] == pytest.approx(summary["final_test_loss"], rel=1e-6)


class Clocked:
    """A variant whose step takes a second of a clock of its own, and whose first takes ten."""

    choices, choice, note, warm = (0,), 0, "", 4

    def __init__(self, monkeypatch):
        self.now, self.made, self.closed = 0.0, 0, False
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)

    def steps(self):
        try:
            while True:
                self.now += 1.0 if self.made else 10.0
                self.made += 1
                yield
        finally:
            self.closed = True


@pytest.mark.parametrize(("seconds", "steps"), [(5.0, 4 + 5), (0.5, 2 + 1), (2.0, 3 + 2)])
def test_a_turn_counts_no_warm_step_and_ends_in_time(monkeypatch, seconds, steps):
    variant = Clocked(monkeypatch)
    assert rate(variant, 32, seconds, CPU) == 32.0
    assert variant.made == steps
    assert variant.closed


def test_turns_are_taken_by_turns_and_choices_settled_before(monkeypatch):
    settings, turns = small(), []

    def one(variant, batch, seconds, device):
        turns.append((type(variant).__name__, variant.choice))
        return 100.0 - variant.choice

    monkeypatch.setattr(measure, "rate", one)
    monkeypatch.setattr(measure, "peak_in_child", lambda _: 321.4)
    found = measure.measure(settings, CPU, repeats=3, seconds=0.05, names=CONTESTANTS)
    names = ["BareStep", "SuiteTrainer", "PlainLoop"]
    assert [name for name, _ in turns[-9:]] == names * 3
    assert turns[-9:] == [("BareStep", 2), ("SuiteTrainer", 0), ("PlainLoop", 0)] * 3
    assert len(turns) == 9 + 2 + 2
    assert found.rates == {"bare": [98.0] * 3, "trainer": [100.0] * 3, "plain": [100.0] * 3}
    assert found.peaks == {"bare": None, "trainer": 321.4, "plain": None}
    assert found.notes == {"bare": "2 images at once", "trainer": "eager", "plain": "plain modules; 0 workers"}
    assert found.starts.keys() == found.rates.keys()


def test_a_tiny_measurement_end_to_end(monkeypatch):
    monkeypatch.setattr(measure, "peak_in_child", lambda _: 1.0)
    settings = small()
    found = measure.measure(settings, CPU, repeats=2, seconds=0.05)
    assert tuple(found.rates) == variants(settings, CPU)
    assert {"no channels_last", "no foreach", "no resident data"} < set(found.rates)
    assert all(len(rates) == 2 for rates in found.rates.values())
    assert min(min(rates) for rates in found.rates.values()) > 0


# What is measured, and what fits.


@pytest.mark.parametrize("network", models.NAMES)
def test_every_network_can_be_measured(network):
    settings = settings_of(network, 128, "bf16")
    validate(settings)
    d = settings.dataset
    assert settings.batch == Batch(32, 4)
    assert (d.classes, d.channels, d.size) == models.REPORTED[network]
    assert d.mirror == (network not in ("cifar3", "cifar10-quick", "lenet"))
    assert d.train_images * d.size**2 * d.channels <= benchmark.POOL


@pytest.fixture
def speeds(monkeypatch):
    """A machine on which resnet56 takes 16 s an image in bf16 and a quarter of that in fp32, cifar3 no time."""

    def one(variant, batch, seconds, device):
        settings = variant.trainer.settings
        assert batch == settings.batch.total
        return {"cifar3": 1e9, "resnet56": 1 / 16}[settings.model.name] * (4 if settings.precision == "fp32" else 1)

    monkeypatch.setattr(benchmark, "rate", one)
    return Options(
        networks=("cifar3", "resnet56"), batches=(8, 16), precisions=("bf16", "fp32"), repeats=1, variants=CONTESTANTS
    )


def test_all_is_measured_where_time_allows(speeds):
    items, seconds, left_out = plan(replace(speeds, minutes=1e6), CPU)
    assert [(s.model.name, s.batch.total, s.precision) for s in items] == [
        (network, batch, precision)
        for network in ("cifar3", "resnet56")
        for batch in (8, 16)
        for precision in ("bf16", "fp32")
    ]
    assert left_out == []
    passes = 16 * (8 + 16) + 4 * (8 + 16)  # seconds a step, summed over resnet56's items
    assert seconds == pytest.approx(8 * 8 + 4 * 10 * 1.2 + 10 * (2 * passes + 4 * 0.2))


def test_every_networks_cheapest_item_comes_first_where_time_is_short(speeds):
    cifar3, resnet56 = 8 + 10 * 1.2, 8 + 10 * (2 * 4 * 8 + 0.2)
    items, seconds, left_out = plan(replace(speeds, minutes=(resnet56 + 2.5 * cifar3) / 60), CPU)
    assert [(s.model.name, s.batch.total, s.precision) for s in items] == [
        ("cifar3", 8, "fp32"),
        ("cifar3", 16, "fp32"),
        ("resnet56", 8, "fp32"),
    ]
    assert seconds == pytest.approx(resnet56 + 2 * cifar3)
    assert len(left_out) == 5
    assert "resnet56, batch 16, bf16: about 86 min, a larger minutes=N includes it" in left_out


def test_by_default_the_networks_of_the_figures_are_measured(monkeypatch):
    monkeypatch.setattr(benchmark, "rate", lambda *_: 1e9)
    in_a_figure = {"lenet": settings_of("lenet", 8, "fp32")}
    monkeypatch.setattr(benchmark, "reported", lambda: in_a_figure)
    items, _, _ = plan(Options(batches=(8,), precisions=("fp32",)), CPU)
    assert [s.model.name for s in items] == ["cifar3", "lenet"]


def test_figure_9_trains_cifar3():
    assert benchmark.reported()["cifar3"].dataset.name == "cifar10"


def test_what_is_switched_off_can_be_chosen():
    options = parse(["variants=trainer,no_channels_last,no_kept_memory,no_pieces"])
    assert options.variants == ("trainer", "no channels_last", "no kept memory", "no pieces")
    assert chosen(options, settings_of("cifar3", 512, "fp32"), CPU)[-1] == "no pieces"
    assert "no pieces" not in chosen(options, settings_of("cifar3", 128, "fp32"), CPU), "128 images are one piece"
    with pytest.raises(UserError, match="variants=no tea is not known"):
        chosen(Options(variants=("trainer", "no tea")), settings_of("cifar3", 128, "fp32"), CPU)
    with pytest.raises(UserError, match="the trainer must be among them"):
        parse(["variants=bare"])


def test_a_child_that_keeps_no_memory_steps_when_told():
    child = measure.builder("no kept memory", small(), random_images(small(), 32, 1), CPU)()
    steps = child.steps()
    next(steps), next(steps)
    child.child.kill()
    child.child.wait()
    with pytest.raises(UserError, match="has ended with code -9"):
        next(steps)


@pytest.mark.parametrize("name", ["no channels_last", "no foreach", "no resident data", "no pieces"])
def test_what_is_switched_off_changes_no_number(name):
    """But for rounding; and the order of the data that come from a DataLoader."""
    settings = small("resnet56", depth=1, width=4)
    settings = replace(settings, lr=replace(settings.lr, base=0.05))
    data = random_images(settings, 32, 1)
    suite = SuiteTrainer(settings, data, CPU)
    other = measure.builder(name, settings, data, CPU)()
    for variant in (suite, other):
        steps = variant.steps()
        next(steps), next(steps)
        steps.close()
    start = SuiteTrainer(settings, data, CPU).trainer.net.parameters()
    pairs = zip(start, suite.trainer.net.parameters(), other.trainer.net.parameters(), strict=True)
    for before, mine, theirs in pairs:
        assert not torch.equal(before, theirs)
        if name != "no resident data":
            torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_variant_without_memory_leaves_the_others_measured(monkeypatch, turns):
    """turns: how many of "bare" go well; in the first it chooses its pieces."""
    usual, settings = measure.rate, small()
    done = []

    def full(variant, *rest):
        if isinstance(variant, BareStep):
            done.append(variant)
            if len(done) > turns:
                raise torch.OutOfMemoryError
        return usual(variant, *rest)

    monkeypatch.setattr(measure, "rate", full)
    monkeypatch.setattr(measure, "peak_in_child", lambda _: 1.0)
    found = measure.measure(settings, CPU, 2, 0.001, ["bare", "trainer", "no foreach"])
    assert list(found.rates) == list(found.notes) == ["trainer", "no foreach"]
    assert [len(rates) for rates in found.rates.values()] == [2, 2]
    assert found.too_large == ("bare",)


def test_a_variant_that_cannot_be_built_leaves_the_others_measured(monkeypatch):
    usual = measure.builder

    def full(name, *rest):
        def build():
            raise torch.OutOfMemoryError

        return build if name == wanting else usual(name, *rest)

    monkeypatch.setattr(measure, "builder", full)
    monkeypatch.setattr(measure, "peak_in_child", lambda _: 1.0)
    wanting = "no foreach"
    found = measure.measure(small(), CPU, 1, 0.001, ["trainer", "no foreach"])
    assert (list(found.rates), found.too_large) == (["trainer"], ("no foreach",))
    wanting = "trainer"
    with pytest.raises(torch.OutOfMemoryError):
        measure.measure(small(), CPU, 1, 0.001, ["trainer", "no foreach"])
