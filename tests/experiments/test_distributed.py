"""One run on 1, 2 and 4 processes: the same numbers, the same dropout, checkpoints that fit any of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ranks import spread, train_share
from small_runs import CPU

from experiments import distributed
from experiments.data import folders
from experiments.distributed import ALONE, Agreement, Share
from experiments.settings import Settings
from experiments.store import Run
from experiments.streams import StreamBatches, StreamTests
from experiments.trainer import Trainer

NETWORKS = {
    "cifar3": {"size": 8},
    "lenet": {"size": 28, "channels": 1},
    "resnet56": {"size": 8, "depth": 1, "width": 4},
    "resnet56-v1": {"size": 8, "depth": 1, "width": 4},
    "wide32": {"size": 8, "depth": 1, "width": 4},
    "densenet40": {"size": 8, "depth": 2, "width": 4},
}


def of_network(tiny: Settings, name: str) -> Settings:
    """20 iterations on 4 virtual GPUs x 3, slow enough that rounding does not grow."""
    facts = dict(NETWORKS[name])
    shape = {"size": facts.pop("size"), "channels": facts.pop("channels", 3)}
    return replace(
        tiny,
        model=replace(tiny.model, name=name, **facts),
        dataset=replace(tiny.dataset, mirror=True, order="reshuffled", **shape),
        batch=replace(tiny.batch, gpus=4),
        lr=replace(tiny.lr, policy="constant", base=1e-3, peak=None, stepsize=None),
        iterations=20,
        test_interval=5,
    )


def assert_same_numbers(ours: Run, theirs: Run, norms: float = 1e-3) -> None:
    mine, other = ours.metrics(), theirs.metrics()
    assert mine["iteration"].tolist() == other["iteration"].tolist()
    assert mine["test_loss"].notna().sum() == 4
    for column in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        difference = (mine[column] - other[column]).abs().max()
        assert difference < 1e-5, (column, difference)
    assert (mine["grad_norm"] / other["grad_norm"] - 1).abs().max() < norms


@pytest.mark.parametrize(
    ("network", "ranks"),
    [
        pytest.param(n, r, marks=() if r == 2 and n in ("cifar3", "densenet40") else pytest.mark.slow)
        for n in NETWORKS
        for r in (2, 4)
    ],
)
def test_several_processes_train_to_the_numbers_of_one(tmp_path, tiny, shapes, network, ranks):
    settings = of_network(tiny, network)
    data = shapes(settings)
    train_share(ALONE, tmp_path / "1", settings, data)
    reference = Run(tmp_path / "1", settings)
    assert reference.metrics()["train_loss"].iloc[0] != reference.metrics()["train_loss"].iloc[-2]
    spread(ranks, tmp_path, train_share, tmp_path / str(ranks), settings, data)
    assert_same_numbers(Run(tmp_path / str(ranks), settings), reference)


def weights_after(share: Share, settings: Settings, data, steps: int) -> list[list[float]]:
    trainer = Trainer(settings, data, CPU, share=share)
    for t in range(steps):
        trainer.step(t)
        trainer.optimizer.step()
    trainer.test()
    return [tensor.flatten().tolist() for tensor in trainer.net.state_dict().values()]


def test_all_ranks_hold_the_same_weights_to_the_bit(tmp_path, tiny, shapes):
    settings = of_network(tiny, "densenet40")
    first, second = spread(2, tmp_path, weights_after, settings, shapes(settings), 5)
    assert first == second, "weights, or running statistics after a test"


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, tiny, shapes):
    settings = of_network(tiny, "densenet40")
    data = shapes(settings)
    train_share(ALONE, tmp_path / "1", settings, data)
    there = tmp_path / "changing"
    ends = spread(2, tmp_path, train_share, there, settings, data, 3)
    assert 3 <= ends[0] < 20
    assert Run(there, settings).started()
    train_share(ALONE, there, settings, data, 9)
    assert Run(there, settings).iterations_done() > 9
    spread(4, tmp_path, train_share, there, settings, data)
    assert_same_numbers(Run(there, settings), Run(tmp_path / "1", settings))


def stopping_at(share: Share, wishes: int) -> int:
    """How many times the question was asked until the answer was yes."""
    asked = [0]
    agreement = Agreement(share, lambda: asked[0] >= wishes)
    while True:
        asked[0] += 1
        if agreement():
            return asked[0]
        assert asked[0] < 100_000


def test_ranks_stop_at_the_same_iteration(tmp_path):
    found = spread(2, tmp_path, stopping_at, 3000)
    assert found[0] == found[1] >= 3000


def rows_and_tests(share: Share, settings: Settings, source) -> tuple:
    batches, tests = StreamBatches(settings, source, CPU, share), StreamTests(settings, source, CPU, share)
    pieces = [labels.tolist() for _, labels in tests.test(0)]
    images, labels = batches(3)
    return images.double().sum((1, 2, 3)).tolist(), labels.tolist(), pieces


@pytest.fixture
def imagenet(tiny, jpegs):
    root = jpegs(train=8, val=40)

    def settings_and_source(name: str, **model):
        facts = {"name": "imagenet", "classes": 3, "size": 24, "train_images": 24, "test_images": 120, "mirror": True}
        settings = replace(
            of_network(tiny, "cifar3"),
            dataset=replace(tiny.dataset, **facts),
            model=replace(tiny.model, name=name, **model),
        )
        return settings, folders.load(root, side=32, workers=0)

    return settings_and_source


def test_ranks_read_their_part_of_image_folders_only(imagenet):
    settings, source = imagenet("resnet50")
    sums, labels, pieces = rows_and_tests(ALONE, settings, source)
    parts = [rows_and_tests(Share(rank, 2), settings, source) for rank in range(2)]
    assert sums == parts[0][0] + parts[1][0]
    assert labels == parts[0][1] + parts[1][1]
    assert sorted(map(str, pieces)) == sorted(map(str, parts[0][2] + parts[1][2]))
    assert parts[0][2] and parts[1][2]


@pytest.mark.parametrize("gaps", [False, True])
def test_a_mean_keeps_every_gradients_place_in_memory(gaps, monkeypatch):
    """Sent in the order of memory, or where one has gaps in that of their values: to two ranks with the same ones."""
    sent = []
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda flat: sent.append(flat.clone()) or flat.mul_(2).add_(6))
    given = [
        *(torch.arange(1.0, 4), torch.randn(3, 4), torch.randn(()), torch.randn(6, 4, 3, 3), torch.randn(5, 4, 1, 1)),
        *(torch.randn(s).to(memory_format=torch.channels_last) for s in ((6, 4, 3, 3), (5, 4, 1, 1), (4, 1, 3, 3))),
        *([torch.randn(4, 6)[:, ::2]] if gaps else []),
    ]
    before = [tensor.clone() for tensor in given]
    layouts = [(tensor.data_ptr(), tensor.stride()) for tensor in given]
    Share(rank=0, ranks=2).average([given[0], None, *given[1:]])
    for tensor, old in zip(given, before, strict=True):
        torch.testing.assert_close(tensor, old + 3)
    assert [(tensor.data_ptr(), tensor.stride()) for tensor in given] == layouts
    last = given[5].permute(0, 2, 3, 1) if not gaps else given[5]
    start = sum(tensor.numel() for tensor in given[:5])
    torch.testing.assert_close(sent[0][start : start + last.numel()] + 3, last.flatten())


def gradient(share: Share, settings: Settings, source) -> np.ndarray:
    """Of the first batch, in float64."""
    trainer = Trainer(settings, source, CPU, share=share)
    images, labels = trainer.batches(0)
    trainer.seed_dropout(0)
    trainer.net.double()
    trainer.forward_backward(images.double(), labels)
    share.average([w.grad for w in trainer.optimizer.weights])
    return torch.cat([w.grad.flatten() for w in trainer.optimizer.weights]).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("network", "size", "lr"), [("resnet50", 40, 1e-6), ("inception-resnet-v2", 75, 1e-10)])
def test_imagenets_networks_on_2_processes(tmp_path, imagenet, network, size, lr):
    """They amplify rounding as no other: hence tiny learning rates, and gradients in float64 beside them."""
    settings, _ = imagenet(network, depth=1)
    settings = replace(settings, dataset=replace(settings.dataset, size=size), lr=replace(settings.lr, base=lr))
    source = folders.load(tmp_path, side=size + 8, workers=0)
    alone = gradient(ALONE, settings, source)
    (together, _) = spread(2, tmp_path, gradient, settings, source)
    assert abs(together - alone).max() < 1e-12 * abs(alone).max()
    train_share(ALONE, tmp_path / "1", settings, source)
    spread(2, tmp_path, train_share, tmp_path / "2", settings, source)
    assert_same_numbers(Run(tmp_path / "2", settings), Run(tmp_path / "1", settings), norms=1e-2)
