"""What no count of parameters and no shape tells: strides, scales, places, layer by layer as in the author's files."""

import torch
import torch.nn as nn

import models
from models.caffe import AveragePool, BatchNorm, WithinChannelLRN
from models.densenet import DenseLayer
from models.inception import Residual
from models.resnet50 import Bottleneck
from models.resnet_v1 import Block


def built(name: str, size: int, **options: int) -> nn.Module:
    return models.build(name, classes=10, channels=3, size=size, gpus=1, init="msra", seed=0, **options)


def test_resnet_50_strides_in_the_first_convolution_of_a_block():
    blocks = [m for m in built("resnet50", 64, width=4).modules() if isinstance(m, Bottleneck)]
    strides = [[c.stride[0] for c in b.branch2 if isinstance(c, nn.Conv2d)] for b in blocks]
    assert strides == [[2 if i in (3, 7, 13) else 1, 1, 1] for i in range(16)]


def test_inceptions_sums_are_scaled():
    net = built("inception-resnet-v2", 75, depth=2)
    blocks = [m for m in net.modules() if isinstance(m, Residual)]
    assert [b.scale for b in blocks] == [0.17] * 2 + [0.1] * 4 + [0.2, 1.0]
    assert [b.relu for b in blocks] == [True] * 7 + [False]
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.2]


def test_normalisation_and_pooling_of_the_three_layer_network_and_of_figure_1s():
    lrn = [m for m in built("cifar3", 32).modules() if isinstance(m, WithinChannelLRN)]
    assert [(m.size, m.alpha) for m in lrn] == [(3, 5e-5)] * 2
    pools = [m for m in built("resnet56-v1", 32, depth=1).modules() if isinstance(m, AveragePool)]
    assert [(m.kernel, m.stride) for m in pools] == [(3, 2)] * 2


def test_new_channels_come_before_the_old_in_densenet_and_zeros_after_them_in_figure_1s():
    x = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    assert torch.equal(DenseLayer(4, 3, BatchNorm)(x.clone())[:, 3:], x)
    wider = Block(4, 2, BatchNorm, "caffe").eval()(x)
    assert wider.shape[1] == 8 and (wider[:, 4:] == 0).all() and (wider[:, :4] != 0).any()
