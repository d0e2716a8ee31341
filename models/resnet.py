"""resnet-56 and wide resnet-32 as the report ran them: blocks without a ReLU after the sum."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch.nn as nn
from torch import Tensor

from models.caffe import BatchNorm, Blobs, Convolution, GlobalAveragePool, InnerProduct

Norm = Callable[[int], BatchNorm]


class Block(nn.Module):
    """conv, BN, ReLU, conv, BN plus the shortcut; the first convolution of a block reads the raw sum.

    With stride 2 the shortcut is a 2x2 convolution of stride 2 with its own BN.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            Convolution(inputs, outputs, 3, stride=stride, pad=1),
            norm(outputs),
            nn.ReLU(inplace=True),
            Convolution(outputs, outputs, 3, pad=1),
            norm(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(Convolution(inputs, outputs, 2, stride=stride), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.shortcut(x)


def resnet56(
    *,
    classes: int,
    channels: int,
    size: int,
    gpus: int,
    depth: int = 8,
    width: int = 16,
    bn_fraction: float = 0.9,
) -> nn.Sequential:
    """The report's "resnet-56" (54 weighted layers on the main path): [N, channels, size, size] to [N, classes].

    depth: blocks of stride 1 in each of the three groups. width: channels of the first group; they double twice.
    size must divide by 4, else ValueError.
    Source: lnsmith54/hyperParam1 Cifar/architectures/gResnet56 and c100Resnet56.
    """
    widths = (width, 2 * width, 4 * width)
    norm = partial(BatchNorm, gpus=gpus, fraction=bn_fraction)
    return _residual(widths, (depth, depth, depth), width, norm, classes=classes, channels=channels, size=size)


def wide32(
    *,
    classes: int,
    channels: int,
    size: int,
    gpus: int,
    depth: int = 5,
    width: int = 16,
    bn_fraction: float = 0.9,
) -> nn.Sequential:
    """The report's wide resnet-32, with 1, 4 and 16 times 16 channels: [N, channels, size, size] to [N, classes].

    depth: blocks in each of the three groups. width: channels of the first group; they quadruple twice.
    size must divide by 4, else ValueError.
    Source: lnsmith54/hyperParam1 Cifar/architectures/wide32cifar.
    """
    widths = (width, 4 * width, 16 * width)
    norm = partial(BatchNorm, gpus=gpus, fraction=bn_fraction)
    return _residual(widths, (depth, depth - 1, depth - 1), width, norm, classes=classes, channels=channels, size=size)


def _residual(
    widths: Sequence[int], identities: Sequence[int], stem: int, norm: Norm, *, classes: int, channels: int, size: int
) -> nn.Sequential:
    """Stem, one group a width, global average, classifier. Groups after the first begin with a block of stride 2."""
    if size % 4:
        raise ValueError(f"the network halves the image twice: a size of {size} does not divide by 4")
    groups: list[nn.Sequential] = []
    inputs = stem
    for width, count in zip(widths, identities, strict=True):
        first = [Block(inputs, width, 2, norm)] if groups else []
        groups.append(nn.Sequential(*first, *[Block(width, width, 1, norm) for _ in range(count)]))
        inputs = width
    return nn.Sequential(
        OrderedDict(
            first=nn.Sequential(Convolution(channels, stem, 3, pad=1), norm(stem), nn.ReLU(inplace=True)),
            group0=groups[0],
            group1=groups[1],
            group2=groups[2],
            pool=GlobalAveragePool(),
            fc=InnerProduct(inputs, classes, blobs=Blobs(lr=(1, 2), decay=(1, 0))),
        )
    )
