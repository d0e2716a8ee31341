"""Streams: Caffe's crops, flips and mean, from any number of workers, after any interruption."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import CPU

import models
from experiments import batches, streams
from experiments.data import folders
from experiments.errors import UserError
from experiments.optimizer import CaffeSGD
from experiments.order import Order
from experiments.progress import Stopped
from experiments.store import Run
from experiments.streams import StreamBatches, StreamTests
from experiments.training import train

SIDE, SIZE = 32, 24


@pytest.fixture
def make(tiny, jpegs):
    """Settings (2 GPUs x 3 of 20 images) and data; keywords change dataset, model="..." the network."""
    root = jpegs()

    def settings_and_source(workers=0, side=SIDE, model="resnet50", seed=0, **dataset):
        facts = {"name": "imagenet", "classes": 3, "size": SIZE, "train_images": 20, "test_images": 20, "mirror": True}
        d = replace(tiny.dataset, **(facts | dataset))
        settings = replace(tiny, dataset=d, model=replace(tiny.model, name=model), seed=seed)
        return settings, folders.load(root, side=side, workers=workers)

    return settings_and_source


@pytest.fixture
def grid(monkeypatch):
    """Instead of images: records whose every pixel is (row, column, 0)."""

    def coordinates(path, side):
        y, x = np.mgrid[:side, :side]
        return np.stack([y, x, np.zeros_like(y)], axis=-1).astype(np.uint8)

    monkeypatch.setattr(streams, "decode", coordinates)


def caffe_transform(record, mean, y, x, flip):
    """The loop of Caffe's DataTransformer in float64: crop and mean by place in the record, then the flip."""
    out = np.empty((3, SIZE, SIZE))
    for c in range(3):
        for h in range(SIZE):
            for w in range(SIZE):
                value = float(record[y + h, x + w, c]) - float(mean[y + h, x + w, c])
                out[c, h, SIZE - 1 - w if flip else w] = value
    return out


@pytest.mark.parametrize("order", ["fixed", "reshuffled"])
def test_batches_are_caffes(make, order):
    settings, source = make(order=order)
    batches, expected_order = StreamBatches(settings, source, CPU), Order(settings, 20)
    flipped = 0
    for t in (0, 1, 3, 6):  # 3 and 6 straddle borders of epochs
        images, labels = batches(t)
        assert images.shape == (6, 3, SIZE, SIZE) and images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        records, epochs = expected_order.batch(t)
        assert labels.dtype == torch.int64 and labels.tolist() == source.train.labels[records].tolist()
        for row, (record, epoch) in enumerate(zip(records, epochs, strict=True)):
            drawn = np.random.default_rng((0, 4, int(epoch), int(record)))
            (y, x), flip = drawn.integers(SIDE - SIZE + 1, size=2), drawn.integers(2)
            flipped += flip
            raw = folders.decode(source.train.path(record), SIDE)
            np.testing.assert_allclose(images[row], caffe_transform(raw, source.mean, y, x, flip), atol=1e-4)
    assert 0 < flipped < 24


def test_any_number_of_workers_and_any_start_read_the_same(make):
    settings, source = make(order="reshuffled")
    forward = StreamBatches(settings, source, CPU)
    wanted = [forward(t) for t in range(10)]
    for workers in (1, 2):
        stream = StreamBatches(settings, replace(source, workers=workers), CPU)
        for t in (0, 1, 2, 3, 6, 7, 8, 2, 3):  # goes on at 6 as after a checkpoint, and back
            assert all(torch.equal(a, b) for a, b in zip(stream(t), wanted[t], strict=True)), (workers, t)
    other, _ = make(order="reshuffled", seed=1)
    assert not torch.equal(StreamBatches(other, source, CPU)(0)[0], wanted[0][0])


def test_corners_are_uniform_flips_fair_and_new_every_epoch(make, grid):
    settings, source = make(subtract_mean=False)
    batches = StreamBatches(settings, source, CPU)
    seen = torch.cat([batches(t)[0] for t in range(800)])  # 4,800 crops at 9 x 9 places
    rows, columns = seen[:, 0], seen[:, 1]
    flips = columns[:, 0, 0] > columns[:, 0, -1]
    y, x = rows[:, 0, 0].long(), torch.minimum(columns[:, 0, 0], columns[:, 0, -1]).long()
    assert torch.equal(rows[:, -1, 0].long(), y + SIZE - 1)
    counts = torch.bincount(y * 9 + x, minlength=81).double()
    assert len(counts) == 81
    assert ((counts - 4800 / 81) ** 2 / (4800 / 81)).sum() < 124  # chi square, 80 degrees of freedom, 0.1 %
    assert abs(flips.double().mean() - 0.5) < 0.025
    assert abs(torch.corrcoef(torch.stack([y, x, flips]).double()) - torch.eye(3)).max() < 0.06
    epochs = torch.stack([y, x, flips.long()], 1)[: 6 * 10].view(3, 20, 3)  # row order is the same in epochs 0 and 3
    assert not torch.equal(epochs[0], epochs[1])


def test_without_mirror_nothing_is_flipped(make, grid):
    settings, source = make(mirror=False, subtract_mean=False)
    batches = StreamBatches(settings, source, CPU)
    seen = torch.cat([batches(t)[0] for t in range(20)])
    assert torch.all(seen[:, 1, 0, 0] < seen[:, 1, 0, -1])


@pytest.mark.parametrize(("size", "corner"), [(24, 4), (23, 4), (32, 0)])
def test_tests_see_the_centre_unflipped(make, size, corner):
    settings, source = make(size=size)
    images, labels = (torch.cat(part) for part in zip(*StreamTests(settings, source, CPU).test(0), strict=True))
    assert labels.tolist() == source.test.labels[:20].tolist()
    window = slice(corner, corner + size)
    for i, image in enumerate(images):
        raw = folders.decode(source.test.path(i), SIDE) - source.mean.astype(np.float64)
        np.testing.assert_allclose(image, raw[window, window].transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_full_tests_repeat_and_come_in_the_networks_pieces(make, workers):
    settings, source = make(workers)
    tests = StreamTests(settings, source, CPU)
    assert (tests.count, tests.piece) == (20, 10)  # resnet50's BatchNorm looks at the test batch
    first, second = list(tests.test(0)), list(tests.test(1))
    assert [len(labels) for _, labels in first] == [10, 10]
    assert all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in first)
    tests.piece = 7
    assert [len(labels) for _, labels in tests.test(0)] == [7, 7, 6]
    assert torch.equal(torch.cat([labels for _, labels in tests.test(0)]), torch.cat([labels for _, labels in first]))
    other = StreamTests(make(model="inception-resnet-v2")[0], source, CPU)
    assert [len(labels) for _, labels in other.test(0)] == [20]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_authors_tests_go_on_where_the_last_ended(make, monkeypatch, workers):
    settings, source = make(workers, tests="author")
    assert StreamTests(settings, source, CPU).count == 10_000
    other = make(tests="author", model="inception-resnet-v2")[0]
    assert StreamTests(other, source, CPU).count == 5_000
    monkeypatch.setitem(batches.AUTHOR_TESTS, "resnet50", (50, False))
    monkeypatch.setattr(streams, "LOAD", 20)
    tests, expected = StreamTests(settings, source, CPU), source.test.labels[:20]
    for number in (0, 1, 2, 7):
        pieces = [labels for _, labels in tests.test(number)]
        assert [len(labels) for labels in pieces] == [10] * 5
        cursor = np.arange(50 * number, 50 * (number + 1)) % 20
        assert torch.cat(pieces).tolist() == expected[cursor].tolist()


def test_tests_between_batches_and_dropouts_generator_are_left_alone(make):
    settings, source = make(workers=1)
    batches, tests = StreamBatches(settings, source, CPU), StreamTests(settings, source, CPU)
    plain = StreamBatches(settings, replace(source, workers=0), CPU)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for t in range(4):
        next(tests.test(t))  # not even to its end
        assert torch.equal(batches(t)[0], plain(t)[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_in_one_sentence(make, workers):
    settings, source = make(workers)
    for listing, read in (
        (source.train, lambda: [StreamBatches(settings, source, CPU)(t) for t in range(4)]),
        (source.test, lambda: list(StreamTests(settings, source, CPU).test(0))),
    ):
        path = listing.path(7)
        with open(path, "rb+") as file:
            file.truncate(os.path.getsize(path) // 2)
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"{path} cannot be read as PNG or JPEG (")
        assert str(caught.value).endswith("copy it again, or convert it.") and "\n" not in str(caught.value)


def broken_decoders(error):
    class Broken(torch.utils.data.Dataset):
        def __getitem__(self, item):
            raise error

    decoders = streams._Decoders(Broken(), 0, CPU)
    decoders.begin([0])
    return decoders


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\n ...\nRuntimeError: no shared memory\n"),
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)"),
        EOFError(),  # the worker ended while its answer was read
    ],
)
def test_workers_that_died_say_what_to_do(error):
    with pytest.raises(UserError, match=r"has ended \(.+\)\. .*/dev/shm.*data\.workers=N") as caught:
        broken_decoders(error).get()
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # PyTorch looks for workers every 5 s
def test_killed_workers_end_in_one_sentence(make):
    settings, source = make(workers=2)
    batches = StreamBatches(settings, source, CPU)
    before = set(multiprocessing.active_children())
    batches(0)
    for worker in set(multiprocessing.active_children()) - before:
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="A process that decodes images has ended"):
        for t in range(1, 50):
            batches(t)


def test_other_errors_of_ours_are_not_taken_for_the_users():
    said = "Caught RuntimeError in DataLoader worker process 0.\nexpected a tensor"
    with pytest.raises(RuntimeError, match="expected a tensor"):
        broken_decoders(RuntimeError(said)).get()


def test_workers_leave_signals_to_the_parent_and_end_with_it(make):
    settings, source = make(workers=2)
    batches, tests = StreamBatches(settings, source, CPU), StreamTests(settings, source, CPU)
    before = set(multiprocessing.active_children())
    batches(0)
    list(tests.test(0))
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 4
    sender = "import os, sys; [os.kill(int(worker), int(sys.argv[1])) for worker in sys.argv[2:]]"
    for number in (signal.SIGINT, signal.SIGTERM):  # from another process: the parent's own SIGTERM ends them
        words = [str(int(number)), *(str(worker.pid) for worker in workers)]
        subprocess.run([sys.executable, "-c", sender, *words], check=True)
    for t in range(1, 6):
        batches(t)
    list(tests.test(1))
    assert all(worker.is_alive() for worker in workers)
    del batches, tests
    gc.collect()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(worker.is_alive() for worker in workers):
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in workers)


def test_workers_run_only_a_few_batches_ahead(make):
    settings, source = make()
    drawn = []

    def items():
        for t in range(1000):
            drawn.append(t)
            yield t

    decoders = streams._Decoders(streams._Training(settings, source), 2, CPU)
    decoders.begin(items())
    for t in range(5):
        decoders.get()
        assert len(drawn) <= t + 1 + 2 * streams.AHEAD


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"classes": 1000}, ["3 classes", "1,000", "dataset.classes=3"]),
        ({"train_images": 1281167}, ["24 train images", "1,281,167", "dataset.train_images=24"]),
        ({"test_images": 30}, ["21 test images", "dataset.test_images=21"]),
        ({"size": 33}, ["dataset.size=33", "32 pixels"]),
        ({"channels": 1}, ["dataset.channels=1", "have 3"]),
        ({"test_images": 15}, ["dataset.test_images=15", "multiple of 10"]),
        ({"tests": "author", "model": "lenet"}, ["lenet", "resnet50", "dataset.tests=full"]),
    ],
)
def test_settings_and_folders_must_fit(make, wrong, words):
    settings, source = make(**wrong)
    with pytest.raises(UserError) as caught:
        StreamBatches(settings, source, CPU)
        StreamTests(settings, source, CPU)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_shallow_resnet50_learns_and_goes_on(make):
    settings, source = make(workers=1, size=64, side=72, train_images=24)

    def trained(first, last, state=None):
        net = models.build("resnet50", classes=3, channels=3, size=64, gpus=2, init="xavier", seed=0, depth=1, width=8)
        rates = torch.full((20,), 0.02)
        optimizer = CaffeSGD(
            models.multipliers(net), lr=rates, momentum=torch.full((20,), 0.9), weight_decay=1e-4, nesterov=True
        )
        if state:
            net.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        batches, losses = StreamBatches(settings, source, CPU), []
        for t in range(first, last):
            net.train()
            images, labels = batches(t)
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return net, optimizer, losses

    net, _, losses = trained(0, 16)
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    half, optimizer, _ = trained(0, 8)
    again, _, rest = trained(8, 16, (half.state_dict(), optimizer.state_dict()))
    assert rest == losses[8:]
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    net.eval()
    with torch.no_grad():
        right = sum((net(x).argmax(1) == y).sum().item() for x, y in StreamTests(settings, source, CPU).test(0))
    assert right >= 14  # of 20; 7 by chance


@pytest.mark.parametrize("stop", [6, 13])
def test_a_run_that_was_stopped_writes_the_same_bytes(make, tmp_path, stop):
    settings, source = make(model="cifar3", order="reshuffled")
    whole, stopped = Run(tmp_path / "whole", settings), Run(tmp_path / "stopped", settings)
    with whole.claim():
        train(whole, source, CPU)
    at = []
    with stopped.claim(), pytest.raises(Stopped):
        train(stopped, replace(source, workers=2), CPU, progress=at.append, stop=lambda: at[-1].iteration >= stop)
    with stopped.claim():
        train(stopped, replace(source, workers=1), CPU)
    assert (stopped.folder / "metrics.csv").read_bytes() == (whole.folder / "metrics.csv").read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_same_batches_come_without_waiting_for_it(make):
    settings, source = make(workers=2)
    wanted = StreamBatches(settings, replace(source, workers=0), CPU)
    stream = StreamBatches(settings, source, torch.device("cuda"))
    stream(0)  # starts the workers
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = [stream(t) for t in range(1, 4)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for t, (images, labels) in enumerate(found, start=1):
        assert torch.equal(images.cpu(), wanted(t)[0]) and torch.equal(labels.cpu(), wanted(t)[1])
