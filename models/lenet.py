"""Caffe's LeNet for MNIST."""

from collections import OrderedDict

import torch.nn as nn
from torch import Tensor

from models.caffe import Blobs, Convolution, InnerProduct, MaxPool, pooled

BLOBS = Blobs("xavier", lr=(1, 2))


class Scale(nn.Module):
    """Multiply the images by a constant, as `transform_param { scale }` of Caffe's data layer does."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def lenet(*, classes: int, channels: int, size: int, width: int = 20) -> nn.Sequential:
    """Images [N, channels, size, size] on the 0-255 scale, which the network itself multiplies by 1/256, to logits.

    width: channels of conv1; conv2 has 2.5 times, ip1 25 times as many. size must be at least 16, else ValueError.
    Source: BVLC/caffe examples/mnist/lenet_train_test.prototxt; the report's own file is not published.
    """
    if size < 16:
        raise ValueError(f"LeNet needs images of 16 x 16 or more, not {size} x {size}")
    side = pooled(pooled(size - 4, 2, 2) - 4, 2, 2)
    middle, hidden = 5 * width // 2, 25 * width
    return nn.Sequential(
        OrderedDict(
            data=Scale(1 / 256),
            conv1=Convolution(channels, width, 5, blobs=BLOBS),
            pool1=MaxPool(2, 2),
            conv2=Convolution(width, middle, 5, blobs=BLOBS),
            pool2=MaxPool(2, 2),
            ip1=InnerProduct(middle * side * side, hidden, blobs=BLOBS),
            relu1=nn.ReLU(inplace=True),
            ip2=InnerProduct(hidden, classes, blobs=BLOBS),
        )
    )
