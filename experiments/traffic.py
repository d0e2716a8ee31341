"""The memory traffic that a training step cannot do without, and the images per second that it leaves possible."""

import torch
import torch.nn as nn
from torch import Tensor

from models.caffe import BatchNorm


def least_traffic(net: nn.Module, image: tuple[int, int, int], element: int) -> int:
    """Bytes per image that forward and backward pass read and write at least, from the shapes of the network's layers.

    image: (channels, height, width); element: bytes of an activation, 2 in bf16. The network is left as it was.

    Assumed: convolutions, inner products and poolings are kernels of their own; each kernel reads and writes every
    tensor that it needs once, and no cache outlives a kernel. With i and o the input and output of a layer in bytes:

        convolution, inner product   3 i + 3 o   forward reads i, writes o; the input's gradient reads o, writes i; the
                                                 weights' gradient reads i and o. The first layer needs no gradient of
                                                 its input: 2 i + 2 o
        BatchNorm in training        8 o         forward reads for the statistics, reads and writes to normalise;
                                                 backward reads output gradient and input for the sums, reads both
                                                 again and writes the input's gradient
        pooling, LRN                 2 i + 2 o   forward reads i, writes o; backward reads o, writes i

    Free, because a compiler can fuse them with their neighbours: ReLU, dropout, scaling, casts, sums and joints of
    branches, the loss. Free, because they are shared by the images of a batch: weights and their update. So it is less
    than any step without hand-written fused convolutions can do; one with them could leave out BatchNorm's share.
    """
    found = 0
    first = True

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found, first
        i, o = inputs[0].numel(), output.numel()
        if isinstance(layer, nn.Conv2d | nn.Linear):
            found += 2 * (i + o) if first else 3 * (i + o)
            first = False
        elif isinstance(layer, BatchNorm):
            found += 0 if layer.frozen else 8 * o
        elif "pool" in type(layer).__name__.lower() or "lrn" in type(layer).__name__.lower():
            found += 2 * (i + o)

    leaves = [layer for layer in net.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(count) for layer in leaves]
    training = net.training
    device = next(net.parameters()).device
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, *image, device=device))
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return found * element
