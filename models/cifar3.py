"""The report's "3-layer" network, which is Caffe's example cifar10_full."""

from collections import OrderedDict

import torch.nn as nn

from models.caffe import AveragePool, Blobs, Convolution, InnerProduct, MaxPool, WithinChannelLRN, pooled


def cifar3(*, classes: int, channels: int, size: int, width: int = 32, border: str = "caffe") -> nn.Sequential:
    """Images [N, channels, size, size] to logits [N, classes]; 32 x 32 images leave 64 x 4 x 4 features.

    width: channels of conv1 and conv2; conv3 has twice as many. size must be at least 8, else ValueError.
    Source: lnsmith54/hyperParam1 Cifar/architectures/cifar3 and cifar100 (the same with 100 classes); layer by layer
    BVLC/caffe examples/cifar10/cifar10_full_train_test.prototxt.
    The first stage pools before its ReLU. A weight decay of 4e-3 means 1.0 on the weights of ip1.
    """
    side = pooled(pooled(pooled(size, 3, 2), 3, 2), 3, 2)
    return nn.Sequential(
        OrderedDict(
            conv1=Convolution(channels, width, 5, pad=2, blobs=Blobs(1e-4, lr=(1, 2))),
            pool1=MaxPool(3, 2),
            relu1=nn.ReLU(inplace=True),
            norm1=WithinChannelLRN(3, alpha=5e-5),
            conv2=Convolution(width, width, 5, pad=2, blobs=Blobs(0.01, lr=(1, 2))),
            relu2=nn.ReLU(inplace=True),
            pool2=AveragePool(3, 2, border=border),
            norm2=WithinChannelLRN(3, alpha=5e-5),
            conv3=Convolution(width, 2 * width, 5, pad=2, blobs=Blobs(0.01)),
            relu3=nn.ReLU(inplace=True),
            pool3=AveragePool(3, 2, border=border),
            ip1=InnerProduct(2 * width * side * side, classes, blobs=Blobs(0.01, lr=(1, 2), decay=(250, 0))),
        )
    )
