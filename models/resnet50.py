"""ResNet-50 for ImageNet, the author's variant."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from models.caffe import AveragePool, BatchNorm, Blobs, Convolution, InnerProduct, MaxPool, pooled

Norm = Callable[[int], BatchNorm]

PLAIN = Blobs("xavier", lr=(1, 2), decay=(1, 0))
WIDENING = Blobs("xavier", bias=0.2, lr=(1, 2), decay=(1, 0))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, each with a bias and BN; the stride sits in the first 1x1. ReLU after the sum."""

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        outputs = 4 * width
        self.branch1: nn.Module = nn.Identity()
        if inputs != outputs:
            self.branch1 = nn.Sequential(Convolution(inputs, outputs, 1, stride=stride, blobs=WIDENING), norm(outputs))
        self.branch2 = nn.Sequential(
            Convolution(inputs, width, 1, stride=stride, blobs=PLAIN),
            norm(width),
            nn.ReLU(inplace=True),
            Convolution(width, width, 3, pad=1, blobs=PLAIN),
            norm(width),
            nn.ReLU(inplace=True),
            Convolution(width, outputs, 1, blobs=WIDENING),
            norm(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch1(x) + self.branch2(x))


def resnet50(
    *,
    classes: int,
    channels: int,
    size: int,
    gpus: int,
    depth: int | None = None,
    width: int = 64,
    bn_fraction: float = 0.999,
    test_statistics: str = "batch",
) -> nn.Sequential:
    """Images [N, channels, size, size] to logits [N, classes].

    The last pooling is 7x7 with stride 1, not global: crops of 230 leave 2048 x 2 x 2 inputs for the classifier
    (31,727,592 parameters), crops of 224 leave 2048 x 1 x 1 (25,583,592). Smaller images are pooled to 1 x 1.
    depth: blocks in each of the four stages (the report's network has 3, 4, 6, 3). width: of the first bottleneck.
    test_statistics: the file says use_global_stats false for both phases, so tests take the test batch's statistics.
    Source: lnsmith54/hyperParam1 Imagenet/architectures/resnet50.
    """
    norm = partial(BatchNorm, gpus=gpus, fraction=bn_fraction, test_statistics=test_statistics)
    side = pooled((size - 1) // 2 + 1, 3, 2)
    for _ in range(3):
        side = (side - 1) // 2 + 1
    window = min(side, 7)
    left = side - window + 1

    def stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [Bottleneck(4 * width, width, 1, norm) for _ in range((depth or blocks) - 1)]
        return nn.Sequential(Bottleneck(inputs, width, stride, norm), *rest)

    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(
                Convolution(channels, width, 7, stride=2, pad=3, blobs=PLAIN), norm(width), nn.ReLU(inplace=True)
            ),
            pool1=MaxPool(3, 2),
            res2=stage(width, width, 3, 1),
            res3=stage(4 * width, 2 * width, 4, 2),
            res4=stage(8 * width, 4 * width, 6, 2),
            res5=stage(16 * width, 8 * width, 3, 2),
            pool5=AveragePool(window, 1),
            classifier=InnerProduct(32 * width * left * left, classes, blobs=PLAIN),
        )
    )
