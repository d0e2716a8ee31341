"""Caffe's example cifar10_quick as its files have it, in plain PyTorch: a second opinion on the suite's own.

    python tests/caffe_by_hand.py FOLDER [--seed 0]

FOLDER has cifar10-train.npz and cifar10-test.npz (README, Data). Prints seed, iteration, test loss and test accuracy
every 500 of 5,000 iterations. Written from BVLC/caffe's own files (examples/cifar10/cifar10_quick_*, caffe.proto,
sgd_solver.cpp, pooling_layer.cpp, convert_cifar_data.cpp, compute_image_mean.cpp) without a look at this suite, of
which it imports nothing; results/caffe_by_hand.csv has four runs of it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BATCH, RATES, DROP, MOMENTUM, DECAY = 100, (0.001, 0.0001), 4000, 0.9, 0.004
FILLERS = {
    "conv1": (1e-4, (32, 3, 5, 5)),
    "conv2": (0.01, (32, 32, 5, 5)),
    "conv3": (0.01, (64, 32, 5, 5)),
    "ip1": (0.1, (64, 1024)),
    "ip2": (0.1, (10, 64)),
}
"""Of every layer the standard deviation of its weights, and their shape; biases begin at 0."""


def weights(seed: int) -> dict[str, Tensor]:
    """The network's weights and biases as its fillers draw them."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer, (std, shape) in FILLERS.items():
        found[f"{layer}.w"] = std * torch.randn(*shape, generator=generator)
        found[f"{layer}.b"] = torch.zeros(shape[0])
    return found


def network(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits [N, 10] of images [N, 3, 32, 32] without their mean. Caffe rounds the size of what it pools up."""
    x = F.relu(F.max_pool2d(F.conv2d(x, p["conv1.w"], p["conv1.b"], padding=2), 3, 2, ceil_mode=True))
    x = F.avg_pool2d(F.relu(F.conv2d(x, p["conv2.w"], p["conv2.b"], padding=2)), 3, 2, ceil_mode=True)
    x = F.avg_pool2d(F.relu(F.conv2d(x, p["conv3.w"], p["conv3.b"], padding=2)), 3, 2, ceil_mode=True)
    return F.linear(F.linear(x.flatten(1), p["ip1.w"], p["ip1.b"]), p["ip2.w"], p["ip2.b"])


def update(p: dict[str, Tensor], velocities: dict[str, Tensor], rate: float) -> None:
    """V = mu V + rate (gradient + decay w), w = w - V; a bias has twice the rate, and is decayed as weights are."""
    with torch.no_grad():
        for name, w in p.items():
            assert w.grad is not None
            w.grad.add_(w, alpha=DECAY)
            velocities[name].mul_(MOMENTUM).add_(w.grad, alpha=rate * (2 if name.endswith(".b") else 1))
            w -= velocities[name]
            w.grad = None


def tested(p: dict[str, Tensor], images: Tensor, labels: Tensor, mean: Tensor) -> tuple[float, float]:
    """Loss and accuracy, each the mean over batches of 100."""
    losses, right = [], []
    with torch.no_grad():
        for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            logits = network(p, x.float() - mean)
            losses.append(F.cross_entropy(logits, y).item())
            right.append((logits.argmax(1) == y).float().mean().item())
    return sum(losses) / len(losses), sum(right) / len(right)


def trained(
    p: dict[str, Tensor],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    iterations: int = 5000,
    interval: int = 500,
    drop: int = DROP,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[int, float, float]]:
    """Iteration, test loss and test accuracy of a run from the weights p, which it changes.

    train, test: images uint8 [N, 3, 32, 32] in the order in which they are read, again and again, and labels int64 [N].
    """
    images, labels = train
    mean = (images.to(torch.int64).sum(0) / len(images)).float()
    for w in p.values():
        w.requires_grad_()
    velocities = {name: torch.zeros_like(w, requires_grad=False) for name, w in p.items()}
    for t in range(iterations):
        at = t * BATCH % len(images)
        loss = F.cross_entropy(network(p, images[at : at + BATCH].float() - mean), labels[at : at + BATCH])
        torch.autograd.backward(loss)
        update(p, velocities, RATES[t >= drop])
        if t % 100 == 0:
            say(f"iteration {t}, training loss {loss.item():.4f}")
        if (t + 1) % interval == 0 or t + 1 == iterations:
            yield t + 1, *tested(p, *test, mean)


def read(file: Path) -> tuple[Tensor, Tensor]:
    """Images and labels of a set, both in the file's order. Raises SystemExit where it is no such set."""
    try:
        with np.load(file) as data:
            images, labels = data["images"], data["labels"]
        good = images.dtype == np.uint8 and images.shape == (len(labels), 32, 32, 3) and labels.dtype == np.int64
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise SystemExit(
            f"{file} cannot be read ({error}); expected are images and labels, see README, Data."
        ) from None
    if not good:
        raise SystemExit(f"{file}: expected are images uint8 [N, 32, 32, 3] and labels int64 [N], see README, Data.")
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    sets = (read(words.folder / f"cifar10-{name}.npz") for name in ("train", "test"))
    say = partial(print, file=sys.stderr)
    for iteration, loss, accuracy in trained(weights(words.seed), *sets, iterations=words.iterations, say=say):
        print(f"{words.seed},{iteration},{loss:.6f},{accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
