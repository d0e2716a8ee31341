"""Caffe's smaller example for CIFAR-10, which the report does not use: results of others on the images are known."""

from collections import OrderedDict

import torch.nn as nn

from models.caffe import AveragePool, Blobs, Convolution, InnerProduct, MaxPool, pooled

LR = (1, 2)


def cifar10_quick(*, classes: int, channels: int, size: int, width: int = 32, border: str = "caffe") -> nn.Sequential:
    """Images [N, channels, size, size] to logits [N, classes]; 32 x 32 images leave 64 x 4 x 4 features.

    width: channels of conv1 and conv2; conv3 and ip1 have twice as many. size must be at least 8, else ValueError.
    Source: BVLC/caffe examples/cifar10/cifar10_quick_train_test.prototxt. No normalisation, and no ReLU after ip1.
    """
    side = pooled(pooled(pooled(size, 3, 2), 3, 2), 3, 2)
    return nn.Sequential(
        OrderedDict(
            conv1=Convolution(channels, width, 5, pad=2, blobs=Blobs(1e-4, lr=LR)),
            pool1=MaxPool(3, 2),
            relu1=nn.ReLU(inplace=True),
            conv2=Convolution(width, width, 5, pad=2, blobs=Blobs(0.01, lr=LR)),
            relu2=nn.ReLU(inplace=True),
            pool2=AveragePool(3, 2, border=border),
            conv3=Convolution(width, 2 * width, 5, pad=2, blobs=Blobs(0.01, lr=LR)),
            relu3=nn.ReLU(inplace=True),
            pool3=AveragePool(3, 2, border=border),
            ip1=InnerProduct(2 * width * side * side, 2 * width, blobs=Blobs(0.1, lr=LR)),
            ip2=InnerProduct(2 * width, classes, blobs=Blobs(0.1, lr=LR)),
        )
    )
