"""The ResNet-56 of figures 1 and 5, which come from the author's earlier report on super-convergence."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from models.caffe import AveragePool, BatchNorm, Blobs, Convolution, GlobalAveragePool, InnerProduct

Norm = Callable[[int], BatchNorm]

CONV = Blobs(lr=(1, 2), decay=(1, 0))


class Block(nn.Module):
    """conv, BN, ReLU, conv, BN plus the shortcut, then ReLU.

    With stride 2 the width stays: the shortcut is average pooling, and as many zero channels follow the ReLU.
    """

    def __init__(self, width: int, stride: int, norm: Norm, border: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            Convolution(width, width, 3, stride=stride, pad=1, blobs=CONV),
            norm(width),
            nn.ReLU(inplace=True),
            Convolution(width, width, 3, pad=1, blobs=CONV),
            norm(width),
        )
        self.shortcut = nn.Identity() if stride == 1 else AveragePool(3, stride, border=border)
        self.zeros = 0 if stride == 1 else width

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.branch(x) + self.shortcut(x))
        return F.pad(x, (0, 0, 0, 0, 0, self.zeros)) if self.zeros else x


def resnet56_v1(
    *,
    classes: int,
    channels: int,
    size: int,
    gpus: int,
    depth: int = 9,
    width: int = 16,
    bn_fraction: float = 0.999,
    test_statistics: str = "running",
    border: str = "caffe",
) -> nn.Sequential:
    """Images [N, channels, size, size] to logits [N, classes].

    depth: blocks in each of the three levels. width: channels of the first level; they double twice.
    bn_fraction: 0.999 in the author's multistep runs, 0.95 in the triangular and the range runs.
    test_statistics: "batch" for the author's runs range2SS80kRes56*, which test with the test batch's statistics.
    size must divide by 4, else ValueError.
    Source: lnsmith54/super-convergence architectures/Resnet56Cifar.
    """
    if size % 4:
        raise ValueError(f"the network halves the image twice: a size of {size} does not divide by 4")
    norm = partial(BatchNorm, gpus=gpus, fraction=bn_fraction, test_statistics=test_statistics)

    def level(inputs: int, outputs: int) -> nn.Sequential:
        blocks = [Block(inputs, 1 if inputs == outputs else 2, norm, border)]
        return nn.Sequential(*blocks, *[Block(outputs, 1, norm, border) for _ in range(depth - 1)])

    return nn.Sequential(
        OrderedDict(
            pre=nn.Sequential(Convolution(channels, width, 3, pad=1, blobs=CONV), norm(width), nn.ReLU(inplace=True)),
            level1=level(width, width),
            level2=level(width, 2 * width),
            level3=level(2 * width, 4 * width),
            pool=GlobalAveragePool(),
            fc=InnerProduct(4 * width, classes, blobs=Blobs("xavier", lr=(1, 2))),
        )
    )
