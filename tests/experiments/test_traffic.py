"""The least traffic, counted by hand for small networks."""

import pytest
import torch
from torch import nn

import models
from experiments.traffic import least_traffic
from models.caffe import AveragePool, BatchNorm, Convolution, InnerProduct, WithinChannelLRN


def test_a_small_network_by_hand():
    net = nn.Sequential(
        Convolution(1, 2, 3, pad=1),  # the first: 1 x 4 x 4 = 16 in, 2 x 4 x 4 = 32 out: 2 (16 + 32) = 96
        BatchNorm(2, gpus=2),  # 8 x 32 = 256
        nn.ReLU(inplace=True),
        WithinChannelLRN(3),  # 2 (32 + 32) = 128
        AveragePool(2, 2),  # 2 (32 + 8) = 80
        nn.Dropout(0.5),
        Convolution(2, 4, 1),  # 8 in, 16 out: 3 x 24 = 72
        BatchNorm(4, frozen=True),
        InnerProduct(16, 10),  # 3 (16 + 10) = 78
    ).train()
    assert least_traffic(net, (1, 4, 4), 2) == 2 * (96 + 256 + 128 + 80 + 72 + 78)
    assert least_traffic(net, (1, 4, 4), 4) == 2 * least_traffic(net, (1, 4, 4), 2)


def test_the_network_is_left_as_it_was():
    net = models.build("resnet56", classes=10, channels=3, size=8, gpus=4, init="msra", seed=0, depth=1).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    least_traffic(net, (3, 8, 8), 2)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(layer._forward_hooks for layer in net.modules())


def test_resnet56():
    """Feature maps of 16, 8 and 4 thousand values: 14 passes over 17, 18 and 18 of them, and the four that differ."""
    net = models.build("resnet56", classes=10, channels=3, size=32, gpus=4, init="msra", seed=0)
    values = least_traffic(net, (3, 32, 32), 1)
    assert values == pytest.approx(14 * 1024 * (17 * 16 + 18 * 8 + 18 * 4), rel=0.05)
