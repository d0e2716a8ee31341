"""Batches: the author's record order, virtual GPUs, flips that depend on nothing but the settings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from author_logs import INDEX, LOGS
from small_runs import CPU

from experiments.batches import AUTHOR_TESTS, Batches, TestSet, statistics_batch
from experiments.batches import test_number as number_of
from experiments.divergence import LOSS_CEILING
from experiments.trainer import sample_losses


@pytest.fixture
def make(tiny, shapes):
    def batches(**dataset):
        settings = replace(tiny, dataset=replace(tiny.dataset, **dataset))
        return Batches(settings, shapes(settings), CPU)

    return batches


def test_records_come_in_file_order_and_gpu_g_takes_every_nth(make):
    b = make()  # 2 GPUs x 3 images, 50 records
    assert b.indices(0).tolist() == [0, 2, 4, 1, 3, 5]
    assert b.indices(1).tolist() == [6, 8, 10, 7, 9, 11]
    # 50 is no multiple of 6: batch 8 straddles the border of the epochs, and the next epoch starts shifted
    assert sorted(b.indices(8).tolist()) == [0, 1, 2, 3, 48, 49]
    assert sorted(b.indices(9).tolist()) == [4, 5, 6, 7, 8, 9]


def test_every_record_once_an_epoch_when_reshuffled(make):
    b = make(order="reshuffled")
    seen = torch.cat([b.indices(t) for t in range(25)]).tolist()  # 3 epochs of 50
    # in record order within a batch the GPUs are interleaved; as sets it does not matter
    epochs = [set(), set(), set()]
    for t in range(25):
        order = b.indices(t).view(2, 3).T.flatten().tolist()
        for i, record in enumerate(order):
            epochs[(t * 6 + i) // 50].add(record)
    assert len(seen) == 150
    assert all(epoch == set(range(50)) for epoch in epochs)
    assert b.indices(0).tolist() != b.indices(25).tolist()


def test_a_batch_follows_from_its_number_alone(make):
    forward, jumping = make(order="reshuffled", mirror=True), make(order="reshuffled", mirror=True)
    wanted = {t: forward(t)[0] for t in range(300)}
    for t in (299, 3, 270, 0):
        assert torch.equal(jumping(t)[0], wanted[t])


def test_mean_image_is_subtracted_on_the_0_255_scale(make, tiny, shapes):
    data = shapes(tiny)
    images, labels = make()(0)
    mean = data.train.images.astype(np.float64).mean(axis=0)
    records = [0, 2, 4, 1, 3, 5]
    expected = (data.train.images[records] - mean).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-4)
    assert labels.tolist() == data.train.labels[records].tolist()
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_flips_are_fair_and_mirror_image_and_mean(make):
    plain, mirrored = make(), make(mirror=True)
    share = torch.stack([mirrored.flips(t) for t in range(600)]).float().mean()
    assert abs(share - 0.5) < 0.03
    flips = mirrored.flips(0).flatten()
    a, b = plain(0)[0], mirrored(0)[0]  # the mean is mirrored with the image, as in Caffe's data_transformer.cpp
    for i, flip in enumerate(flips):
        torch.testing.assert_close(b[i], a[i].flip(2) if flip else a[i])


def test_a_full_test_is_every_image_once(tiny, shapes):
    data = shapes(tiny)
    tests = TestSet(tiny, data, torch.zeros(1, 3, 1, 1))
    tests.piece = 7
    images, labels = (torch.cat(parts) for parts in zip(*tests.test(3), strict=True))
    assert torch.equal(images, torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float())
    assert torch.equal(labels, torch.from_numpy(data.test.labels))


@pytest.mark.parametrize(
    ("name", "statistics", "together"),
    [("resnet56-v1", None, None), ("resnet56-v1", "batch", 6), ("resnet50", None, 10), ("resnet50", "running", None)],
)
def test_a_test_batch_that_normalises_itself_is_as_large_as_the_authors(tiny, shapes, name, statistics, together):
    """6 images per GPU in training, 125 in figure 1: so many in a test, too; his resnet-50 was tested by tens."""
    model = replace(tiny.model, name=name, test_statistics=statistics)
    settings = replace(tiny, model=model, batch=replace(tiny.batch, per_gpu=6))
    assert statistics_batch(settings) == together
    sizes = {len(labels) for _, labels in TestSet(settings, shapes(tiny), torch.zeros(1, 3, 1, 1)).test(0)}
    assert sizes == {together or 30}


NETWORKS = {
    "cifar3": "cifar100 (3-layer)",
    "resnet56": "gResnet56",
    "wide32": "wide32cifar",
    "densenet40": "genDensenet40",
    "resnet56-v1": "Resnet56Cifar (super-convergence)",
    "resnet50": "resnet50",
    "inception-resnet-v2": "inception-resnet-v2",
}
"""Ours, and what results/paper/logs/index.csv calls them."""


@pytest.mark.parametrize("ours", AUTHOR_TESTS)
def test_the_authors_tests_are_those_of_his_logs(ours, tiny):
    """As many images, and a first test at iteration 0, which no row of ours has, where the logs begin with one."""
    logs = INDEX[INDEX["architecture"] == NETWORKS[ours]]
    assert set(logs["test_images_per_test"]) == {AUTHOR_TESTS[ours][0]}
    there = [path for name in logs.index if (path := LOGS / f"{name}.csv").is_file()]
    first = {bool(pd.read_csv(path, nrows=1)["test_loss"].notna().all()) for path in there}
    settings = replace(tiny, model=replace(tiny.model, name=ours), test_interval=5)
    assert first == {bool(number_of(settings, 5))}
    assert number_of(settings, 10) == number_of(settings, 5) + 1


def test_the_authors_test_goes_on_where_the_last_ended(tiny, shapes):
    settings = replace(tiny, dataset=replace(tiny.dataset, tests="author"), model=replace(tiny.model, name="resnet56"))
    data = shapes(settings)
    tests = TestSet(settings, data, torch.zeros(1, 3, 1, 1))
    assert (tests.count, tests.mirror) == (6400, True)
    tests.count = 20  # of 30
    labels = [torch.cat([label for _, label in tests.test(k)]) for k in range(3)]
    expected = torch.from_numpy(data.test.labels)
    assert torch.equal(labels[1], torch.cat([expected[20:], expected[:10]]))
    assert torch.equal(labels[2], expected[10:])
    flipped = torch.cat([image for image, _ in tests.test(0)])
    plain = torch.from_numpy(data.test.images[:20]).permute(0, 3, 1, 2).float()
    same = [torch.equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, plain, strict=True)]
    assert all(s or m for s, m in zip(same, mirrored, strict=True))
    assert 3 < sum(same) < 17


def test_losses_are_caffes():
    logits = torch.tensor([[0.0, 0.0], [1000.0, 0.0], [float("nan"), 0.0], [float("inf"), 0.0]])
    losses = sample_losses(logits, torch.tensor([0, 1, 0, 0]))
    assert losses.tolist() == pytest.approx([np.log(2), LOSS_CEILING, LOSS_CEILING, LOSS_CEILING])
    assert pytest.approx(-np.log(np.finfo(np.float32).tiny)) == LOSS_CEILING
