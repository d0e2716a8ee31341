"""Inception-ResNet-v2 for ImageNet, the author's variant."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from models.caffe import (
    BatchNorm,
    Blobs,
    Convolution,
    Dropout,
    GlobalAveragePool,
    InnerProduct,
    MaxPool,
    SameAveragePool,
    pooled,
)

Norm = Callable[[int], BatchNorm]

XAVIER = Blobs("xavier")
UP = Blobs("xavier", bias=0.2, lr=(1, 2), decay=(1, 0))


def unit(
    norm: Norm, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, *, same: bool = True
) -> nn.Sequential:
    """Convolution without bias, BN, ReLU. same: pad so that stride 1 keeps the size; otherwise no padding."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    pad = (rows // 2, columns // 2) if same else 0
    conv = Convolution(inputs, outputs, (rows, columns), stride=stride, pad=pad, bias=False, blobs=XAVIER)
    return nn.Sequential(conv, norm(outputs), nn.ReLU(inplace=True))


class Branches(nn.Module):
    """The branches' outputs side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Residual(nn.Module):
    """x + scale up(branches(x)), then ReLU except in the last block; up is a 1x1 convolution with a bias, no BN."""

    def __init__(self, channels: int, merged: int, scale: float, branches: Branches, *, relu: bool = True) -> None:
        super().__init__()
        self.branches = branches
        self.up = Convolution(merged, channels, 1, blobs=UP)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.up(self.branches(x))
        return F.relu(x) if self.relu else x


def inception_resnet_v2(
    *, classes: int, channels: int, size: int, gpus: int, depth: int = 10, bn_fraction: float = 0.9
) -> nn.Sequential:
    """Images [N, channels, size, size] to logits [N, classes].

    depth: residual blocks A and C; there are twice as many blocks B.
    size: 75, 230 and 299 are some that fit; ValueError names the condition for others.
    The first BN has use_global_stats true in the file: it stays at its empty statistics, a constant gain of 31.6.
    Source: lnsmith54/hyperParam1 Imagenet/architectures/inception-resnet-v2.
    """
    side = pooled(pooled((size - 3) // 2 - 1, 3, 2) - 2, 3, 2)
    if side % 4 != 3 or side < 7:
        raise ValueError(
            f"a size of {size} leaves {side} x {side} maps after the stem, which must be 7, 11, 15, 19, ... a side: "
            "try 75, 230 or 299"
        )
    norm = partial(BatchNorm, gpus=gpus, fraction=bn_fraction, eps=1e-3)
    u = partial(unit, norm)
    frozen = partial(norm, frozen=True)

    stem = nn.Sequential(
        unit(frozen, channels, 32, 3, 2, same=False),
        u(32, 32, 3, same=False),
        u(32, 64, 3),
        MaxPool(3, 2),
        u(64, 80, 1),
        u(80, 192, 3, same=False),
        MaxPool(3, 2),
        Branches(
            u(192, 96, 1),
            nn.Sequential(u(192, 48, 1), u(48, 64, 5)),
            nn.Sequential(u(192, 64, 1), u(64, 96, 3), u(96, 96, 3)),
            nn.Sequential(SameAveragePool(3), u(192, 64, 1)),
        ),
    )

    def block_a() -> Residual:
        second = nn.Sequential(u(320, 32, 1), u(32, 32, 3))
        third = nn.Sequential(u(320, 32, 1), u(32, 48, 3), u(48, 64, 3))
        return Residual(320, 128, 0.17, Branches(u(320, 32, 1), second, third))

    def block_b() -> Residual:
        second = nn.Sequential(u(1088, 128, 1), u(128, 160, (1, 7)), u(160, 192, (7, 1)))
        return Residual(1088, 384, 0.1, Branches(u(1088, 192, 1), second))

    def block_c(scale: float, *, relu: bool = True) -> Residual:
        second = nn.Sequential(u(2080, 192, 1), u(192, 224, (1, 3)), u(224, 256, (3, 1)))
        return Residual(2080, 448, scale, Branches(u(2080, 192, 1), second), relu=relu)

    reduction_a = Branches(
        u(320, 384, 3, 2, same=False),
        nn.Sequential(u(320, 256, 1), u(256, 256, 3), u(256, 384, 3, 2, same=False)),
        MaxPool(3, 2),
    )
    reduction_b = Branches(
        nn.Sequential(u(1088, 256, 1), u(256, 384, 3, 2, same=False)),
        nn.Sequential(u(1088, 256, 1), u(256, 288, 3, 2, same=False)),
        nn.Sequential(u(1088, 256, 1), u(256, 288, 3), u(288, 320, 3, 2, same=False)),
        MaxPool(3, 2),
    )
    return nn.Sequential(
        OrderedDict(
            stem=stem,
            blocks_a=nn.Sequential(*[block_a() for _ in range(depth)]),
            reduction_a=reduction_a,
            blocks_b=nn.Sequential(*[block_b() for _ in range(2 * depth)]),
            reduction_b=reduction_b,
            blocks_c=nn.Sequential(*[block_c(0.2) for _ in range(depth - 1)], block_c(1.0, relu=False)),
            conv6=u(2080, 1536, 1),
            pool=GlobalAveragePool(),
            drop=Dropout(0.2),
            classifier=InnerProduct(1536, classes, blobs=Blobs("xavier", lr=(1, 2), decay=(1, 0))),
        )
    )
