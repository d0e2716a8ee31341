"""What the rows of metrics.csv and a run's summary say, number by number."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import CPU

from experiments import batches
from experiments.divergence import LOSS_CEILING
from experiments.progress import Stopped
from experiments.store import Run
from experiments.trainer import Trainer
from experiments.training import train


def test_a_rows_rates_are_those_of_its_iteration(tmp_path, tiny, shapes):
    """They are the x axis of every range test."""
    settings = replace(
        tiny,
        lr=replace(tiny.lr, policy="range", base=0.001, peak=0.025),
        momentum=replace(tiny.momentum, policy="linear", base=0.95, peak=0.71),
    )
    run = Run(tmp_path, settings)
    with run.claim():
        train(run, shapes(settings), CPU)
    rows = run.metrics()
    np.testing.assert_allclose(rows["lr"], 0.001 + 0.001 * rows["iteration"])
    np.testing.assert_allclose(rows["momentum"], 0.95 - 0.01 * rows["iteration"])


def test_train_columns_are_of_virtual_gpu_0_only(tiny, shapes):
    made = Trainer(tiny, shapes(tiny), CPU)
    made.step(0)  # gradients, for their norm
    n = tiny.batch.per_gpu
    labels = torch.arange(2 * n)
    logits = torch.eye(10)[labels]
    logits[n:] = 1 - logits[n:]  # GPU 1 is always wrong
    found = made.train_metrics(logits, torch.arange(2.0 * n), labels)
    assert found["train_loss"] == pytest.approx((n - 1) / 2)
    assert found["train_accuracy"] == 1


def test_a_training_loss_is_capped_as_a_test_loss_is(tiny, shapes):
    made = Trainer(tiny, shapes(tiny), CPU)
    made.step(0)
    losses = torch.tensor([float("nan"), float("inf"), 500.0, 0.0, 0.0, 0.0])
    found = made.train_metrics(torch.zeros(6, 10), losses, torch.zeros(6, dtype=torch.int64))
    assert found["train_loss"] == pytest.approx(LOSS_CEILING)


def test_tests_are_numbered_from_0(tmp_path, tiny, shapes, monkeypatch):
    """The author's go on through the images from one to the next."""
    numbers, test = [], Trainer.test
    monkeypatch.setattr(Trainer, "test", lambda self, number=0: numbers.append(number) or test(self, number))
    run = Run(tmp_path, tiny)
    with run.claim():
        train(run, shapes(tiny), CPU)
    assert numbers == [0, 1, 2, 3]


def test_the_authors_test_is_the_mean_over_as_many_images_as_he_took(tiny, shapes, monkeypatch):
    monkeypatch.setitem(batches.AUTHOR_TESTS, "cifar3", (20, False))
    data = shapes(tiny)
    made = Trainer(replace(tiny, dataset=replace(tiny.dataset, tests="author")), data, CPU)
    index = np.arange(20, 40) % 30
    images = torch.from_numpy(data.test.images[index]).permute(0, 3, 1, 2).float() - made.batches.mean
    with torch.no_grad():
        logits = made.net.eval()(images)
    labels = torch.from_numpy(data.test.labels[index])
    loss, accuracy = made.test(1)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_tests_are_in_the_runs_precision_with_the_statistics_that_training_left(tiny, shapes):
    model = replace(tiny.model, name="densenet40", depth=1, width=4)
    settings = replace(tiny, model=model, precision="bf16", lr=replace(tiny.lr, base=0.01))
    made = Trainer(settings, shapes(settings), CPU)
    before = {name: b.clone() for name, b in made.net.named_buffers() if "sum" in name}
    for t in range(3):
        made.step(t)
        made.update()
    assert before and all(not torch.equal(b, before[name]) for name, b in made.net.named_buffers() if name in before)
    seen = []
    for layer in made.net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, y: seen.append((y.dtype, layer.training)))
    made.test()
    assert set(seen) == {(torch.bfloat16, False)}


def test_the_time_of_a_run_in_parts_is_that_of_all_parts(tmp_path, tiny, shapes):
    run, at = Run(tmp_path, tiny), []
    with run.claim(), pytest.raises(Stopped):
        train(run, shapes(tiny), CPU, progress=lambda p: at.append(p.iteration), stop=lambda: at[-1] >= 5)
    with run.claim():
        saved, _ = run.load_checkpoint()
        run.save_checkpoint(saved | {"seconds": 1000.0})
        summary = train(run, shapes(tiny), CPU)
    assert summary["seconds"] > 1000
    assert summary["images_per_second"] == pytest.approx(24 * tiny.batch.total / summary["seconds"], abs=0.1)
