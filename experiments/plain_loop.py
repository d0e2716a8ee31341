"""The loop that a PyTorch user writes today, as a yardstick for the suite's trainer.

Ordinary modules in the default memory format, torchvision's transforms over PIL images (what its CIFAR10 yields), a
DataLoader with worker processes, torch.optim.SGD, autocast for bf16.
"""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from experiments import device as devices
from experiments.data import ImageSet
from experiments.errors import UserError
from experiments.settings import Settings
from experiments.step import build
from models.caffe import BatchNorm, pooled

PREFETCH = 2
"""Batches that a DataLoader's worker makes ahead: PyTorch's default."""
MOST_WORKERS = 16
"""A user would hardly start more; on a node of 200 cores their first batches alone would last longer than a turn."""


class LRN(nn.Module):
    """Normalisation within a channel over 3 x 3 windows, as its formula reads: x (1 + alpha mean(x^2))^-0.75."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + 5e-5 * F.avg_pool2d(x * x, 3, stride=1, padding=1)) ** 0.75


def cifar3(*, classes: int, channels: int, size: int, width: int = 32) -> nn.Sequential:
    """`models.cifar3` in ordinary modules with PyTorch's own initial weights; a state of the one fits the other."""
    side = pooled(pooled(pooled(size, 3, 2), 3, 2), 3, 2)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, 5, padding=2),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            relu1=nn.ReLU(inplace=True),
            norm1=LRN(),
            conv2=nn.Conv2d(width, width, 5, padding=2),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.AvgPool2d(3, 2, ceil_mode=True),
            norm2=LRN(),
            conv3=nn.Conv2d(width, 2 * width, 5, padding=2),
            relu3=nn.ReLU(inplace=True),
            pool3=nn.AvgPool2d(3, 2, ceil_mode=True),
            flatten=nn.Flatten(),
            ip1=nn.Linear(2 * width * side * side, classes),
        )
    )


def plain_network(settings: Settings) -> tuple[nn.Module, str]:
    """The run's network as a user would have it, and what it is made of, in words.

    No network of torchvision equals one of the report's. All but cifar3 are therefore the suite's own in the default
    memory format, with nn.BatchNorm2d over the whole batch, which is faster than statistics per virtual GPU.
    """
    d, m = settings.dataset, settings.model
    if m.name == "cifar3":
        width = 32 if m.width is None else m.width
        return cifar3(classes=d.classes, channels=d.channels, size=d.size, width=width), "plain modules"
    network = build(settings, 1).to(memory_format=torch.contiguous_format)
    normalised = False
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, BatchNorm) and not layer.frozen:
                setattr(parent, name, nn.BatchNorm2d(len(layer.weight), eps=layer.eps, momentum=1 - layer.fraction))
                normalised = True
    return network, "suite's network, nn.BatchNorm2d" if normalised else "suite's network"


class PILImages(Dataset):
    """Arrays as torchvision.datasets.CIFAR10 serves them: a PIL image through a transform, and a label."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.images[index]
        return self.transform(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])), self.labels[index]


class PlainLoop:
    """Training in the ordinary way. `choice` is the number of DataLoader workers, one of `choices`."""

    def __init__(self, settings: Settings, data: ImageSet, device: torch.device) -> None:
        self.batch, self.seed, self.device = settings.batch.total, settings.seed, device
        self.bf16 = settings.precision == "bf16"
        network, self.made_of = plain_network(settings)
        self.model = network.to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.lr.base,
            momentum=settings.momentum.base,
            weight_decay=settings.solver.weight_decay,
            nesterov=True,
        )
        channels = settings.dataset.channels
        transform = transforms.Compose(
            [
                *([transforms.RandomHorizontalFlip()] if settings.dataset.mirror else []),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * channels, [0.25] * channels),
            ]
        )
        self.dataset = PILImages(data.train.images, data.train.labels, transform)
        self.choices: tuple[int, ...] = (0, min(devices.cores(), MOST_WORKERS))
        self.choice = 0

    @property
    def warm(self) -> int:
        """Steps before the time counts: none of the batches made while the workers started may be left."""
        return 1 + PREFETCH * self.choice

    @property
    def note(self) -> str:
        """What the table says of it."""
        return f"{self.made_of}; {self.choice} workers"

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels on the device, epoch after epoch; closing it ends the workers."""
        if self.choice:
            devices.check_sockets("leave the loop out (variants=trainer,bare)")
        loader = DataLoader(
            self.dataset,
            batch_size=self.batch,
            shuffle=True,
            drop_last=True,
            num_workers=self.choice,
            pin_memory=self.device.type == "cuda",
            persistent_workers=self.choice > 0,
            generator=torch.Generator().manual_seed(self.seed),
        )
        while True:
            try:
                for images, labels in loader:
                    yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise UserError(
                    f"One of the plain loop's {self.choice} workers has ended. As a rule memory has run out, as a "
                    "whole or in /dev/shm: give more (in a container: --shm-size=8g), or leave the loop out "
                    "(variants=trainer,bare)."
                ) from error

    def steps(self) -> Iterator[None]:
        """A step at every next(), epoch after epoch; closing it ends the workers."""
        self.model.train()
        for step, (images, labels) in enumerate(self.batches(), 1):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                loss = F.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            if step % 100 == 0:
                loss.item()
            yield
