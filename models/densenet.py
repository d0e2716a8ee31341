"""DenseNet-40-12 as the report ran it: no bottleneck, no compression, dropout."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn as nn
from torch import Tensor

from models.caffe import AveragePool, BatchNorm, Blobs, Convolution, Dropout, GlobalAveragePool, InnerProduct

Norm = Callable[[int], BatchNorm]

DROPOUT = 0.2


class DenseLayer(nn.Module):
    """BN, ReLU, 3x3 conv, dropout; the new channels come before the old ones."""

    def __init__(self, inputs: int, growth: int, norm: Norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            norm(inputs), nn.ReLU(inplace=True), Convolution(inputs, growth, 3, pad=1, bias=False), Dropout(DROPOUT)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch(x), x], 1)


def densenet40(
    *,
    classes: int,
    channels: int,
    size: int,
    gpus: int,
    depth: int = 12,
    width: int = 12,
    bn_fraction: float = 0.999,
) -> nn.Sequential:
    """Images [N, channels, size, size] to logits [N, classes].

    depth: layers in each of the three dense blocks. width: growth, the channels that a layer adds.
    size must divide by 4, else ValueError.
    Source: lnsmith54/hyperParam1 Cifar/architectures/genDensenet40.
    """
    if size % 4:
        raise ValueError(f"the network halves the image twice: a size of {size} does not divide by 4")
    norm = partial(BatchNorm, gpus=gpus, fraction=bn_fraction)

    def dense(inputs: int) -> nn.Sequential:
        return nn.Sequential(*[DenseLayer(inputs + i * width, width, norm) for i in range(depth)])

    def transition(width: int) -> nn.Sequential:
        conv = Convolution(width, width, 1, bias=False)
        return nn.Sequential(norm(width), nn.ReLU(inplace=True), conv, Dropout(DROPOUT), AveragePool(2, 2))

    first, second, third, last = (16 + i * depth * width for i in range(4))
    return nn.Sequential(
        OrderedDict(
            pre_conv=Convolution(channels, first, 3, pad=1, bias=False),
            block0=dense(first),
            transition0=transition(second),
            block1=dense(second),
            transition1=transition(third),
            block2=dense(third),
            end=nn.Sequential(norm(last), nn.ReLU(inplace=True)),
            pool=GlobalAveragePool(),
            post_fc=InnerProduct(last, classes, blobs=Blobs("xavier", lr=(1, 2))),
        )
    )
