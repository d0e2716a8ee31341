"""Speeds that are measured for a plan."""

from dataclasses import replace

import pytest
import torch
from small_runs import CPU
from steps import shallow

from experiments import estimate, step
from experiments.errors import UserError
from experiments.estimate import FORWARD, Speed, measure
from experiments.trainer import Trainer


@pytest.fixture
def calls(monkeypatch) -> dict[str, int]:
    """How often steps and tests are run."""
    found = {"step": 0, "test": 0}
    for name in found:
        real = getattr(Trainer, name)

        def counting(self, *words, name=name, real=real):
            found[name] += 1
            return real(self, *words)

        monkeypatch.setattr(Trainer, name, counting)
    monkeypatch.setattr(estimate, "TIMED_SECONDS", 0.05)
    return found


def test_steps_and_tests_are_timed_after_warming_up(calls, monkeypatch):
    monkeypatch.setattr(estimate, "LONG_STEP", 1e9)
    monkeypatch.setattr(estimate, "FORWARD", 0.0)  # on a busy machine the test would take too long to be run
    speed = measure(shallow("lenet"), CPU, most_images=2)
    assert calls["step"] > estimate.WARM_STEPS and calls["test"] == 2
    assert 0 < speed.test_image < 1 and 0 < speed.image < 1 and speed.parameters == 431_080


def test_a_plan_measures_what_can_be_run_here(calls, monkeypatch):
    """As the run will, in a simpler way where the better one fails on its first step; nothing better where told so."""
    tried = []

    def prepare(self):
        tried.append(str(self.how))
        if self.how.compiled:
            raise RuntimeError("no driver")

    monkeypatch.setattr(Trainer, "prepare", prepare)
    monkeypatch.setattr(step, "BACKEND", "eager")
    monkeypatch.setattr(estimate, "How", lambda captured: step.How(compiled=True))  # no graphs on a CPU
    assert measure(shallow("lenet"), CPU, most_images=2).image > 0
    assert tried == ["compile", "eager"]
    asked = []
    monkeypatch.setattr(estimate, "How", lambda captured: asked.append(captured) or step.How())
    cuda = type("Cuda", (), {"type": "cuda"})()
    for step_as in ("auto", "eager"):
        with pytest.raises(TypeError):
            measure(shallow("lenet"), cuda, step_as=step_as)  # no device to go on with
    assert asked == [True, False]


def test_a_step_that_takes_long_is_run_once_and_no_test(calls, monkeypatch):
    """A plan for networks with hundreds of images a step would take minutes."""
    monkeypatch.setattr(estimate, "LONG_STEP", 0.0)
    speed = measure(shallow("lenet"), CPU)
    assert calls == {"step": 1, "test": 0}
    assert speed.test_image == pytest.approx(FORWARD * speed.image) and speed.image > 0


def test_tests_that_would_take_long_are_not_run(calls, monkeypatch):
    monkeypatch.setattr(estimate, "LONG_STEP", 1e9)
    monkeypatch.setattr(estimate, "FORWARD", 1e9)
    measure(shallow("lenet"), CPU)
    assert calls["test"] == 0 and calls["step"] > 1


def test_the_rest_of_a_run_is_its_iterations_and_tests():
    settings = replace(shallow("lenet"), iterations=100, test_interval=10)
    settings = replace(settings, dataset=replace(settings.dataset, test_images=50))
    speed = Speed(image=0.5, test_image=0.25, parameters=0)
    assert speed.seconds(settings) == 100 * settings.batch.total * 0.5 + 10 * 50 * 0.25
    assert speed.seconds(settings, done=95) == 5 * settings.batch.total * 0.5


def test_the_authors_tests_take_their_own_number_of_images():
    settings = replace(shallow("cifar3"), iterations=100, test_interval=10)
    settings = replace(settings, dataset=replace(settings.dataset, test_images=50, tests="author"))
    assert Speed(image=0.0, test_image=0.25, parameters=0).seconds(settings) == 10 * 20_000 * 0.25


@pytest.mark.parametrize("room", [4, 1, 0])
def test_what_does_not_fit_is_measured_with_fewer_images(room, monkeypatch):
    asked = []

    def measured(settings, device, most_images, step_as):
        asked.append(most_images or settings.batch.per_gpu)
        if asked[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. And more.")
        return Speed(1.0, 1.0, 1)

    monkeypatch.setattr(estimate, "measure", measured)
    batch = replace(shallow("lenet").batch, per_gpu=19)
    if not room:
        with pytest.raises(UserError, match=r"Not one image at a time fits into .* \(CUDA out of memory\): free it"):
            estimate.speed_of(replace(shallow("lenet"), batch=batch), CPU)
    else:
        assert estimate.speed_of(replace(shallow("lenet"), batch=batch), CPU).image == 1.0
    assert asked == [n for n in (19, 9, 4, 2, 1) if n >= max(room, 1)]
