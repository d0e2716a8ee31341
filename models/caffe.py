"""Caffe's layers and fillers where they differ from PyTorch's (BVLC/caffe, tag 1.0)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

INITS = ("msra", "xavier")
BORDERS = ("caffe", "cudnn")


@dataclass(frozen=True)
class Blobs:
    """How the weight and the bias of a layer start, and their `lr_mult` and `decay_mult`.

    weight: "init" (the filler that the run chooses), "msra", "xavier", or a float: normal with that standard deviation.
    bias: the constant that the bias starts at.
    lr, decay: multipliers of (weight, bias). Caffe's default, a layer without a `param` entry, is 1 for all.
    """

    weight: str | float = "init"
    bias: float = 0.0
    lr: tuple[float, float] = (1.0, 1.0)
    decay: tuple[float, float] = (1.0, 1.0)


class Convolution(nn.Conv2d):
    """`nn.Conv2d` that knows its `Blobs`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        pad: int | tuple[int, int] = 0,
        bias: bool = True,
        blobs: Blobs | None = None,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, pad, bias=bias)
        self.blobs = blobs or Blobs()


class InnerProduct(nn.Linear):
    """`nn.Linear` over [N, C, H, W] flattened in the order C, H, W, that knows its `Blobs`."""

    def __init__(self, inputs: int, outputs: int, *, blobs: Blobs | None = None) -> None:
        super().__init__(inputs, outputs)
        self.blobs = blobs or Blobs()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


@torch.no_grad()
def fill(layer: Convolution | InnerProduct, *, init: str, generator: torch.Generator) -> None:
    """Set weight and bias in place by the formulas of BVLC/caffe include/caffe/filler.hpp.

    msra: normal, std sqrt(2 / fan_in). xavier: uniform in +-sqrt(3 / fan_in), which is not `nn.init.xavier_uniform_`.
    Draws come from a CPU generator, so that a seed means the same weights on every device.
    """
    kind = init if layer.blobs.weight == "init" else layer.blobs.weight
    shape, fan_in = layer.weight.shape, layer.weight[0].numel()
    if isinstance(kind, float):
        weight = torch.randn(shape, generator=generator) * kind
    elif kind == "msra":
        weight = torch.randn(shape, generator=generator) * math.sqrt(2 / fan_in)
    elif kind == "xavier":
        weight = (torch.rand(shape, generator=generator) * 2 - 1) * math.sqrt(3 / fan_in)
    else:
        raise ValueError(f"unknown filler {kind!r}: expected one of {', '.join(INITS)}")
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.fill_(layer.blobs.bias)


def pooled(size: int, kernel: int, stride: int) -> int:
    """Height or width after a pooling without padding, rounded up as Caffe does. ValueError if nothing is left."""
    out = math.ceil((size - kernel) / stride) + 1
    if out < 1:
        raise ValueError(f"an image side of {size} is too small to pool by {kernel} with stride {stride}")
    return out


class MaxPool(nn.MaxPool2d):
    """Max pooling whose output size is rounded up."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__(kernel, stride, ceil_mode=True)


class AveragePool(nn.Module):
    """Average pooling whose output size is rounded up; windows may hang over the bottom and right border.

    border "caffe": such a window is divided by its cells inside the image (BVLC/caffe pooling_layer.cpp).
    border "cudnn": always divided by kernel^2, which is what a Caffe built with cuDNN probably does. Which of the two
    the author's runs had is not known.
    """

    def __init__(self, kernel: int, stride: int, *, border: str = "caffe") -> None:
        super().__init__()
        if border not in BORDERS:
            raise ValueError(f"unknown border rule {border!r}: expected one of {', '.join(BORDERS)}")
        self.kernel, self.stride = kernel, stride
        self.divisor = kernel * kernel if border == "cudnn" else None

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and not self.divisor:
            return self._by_kernel(x)
        return F.avg_pool2d(x, self.kernel, self.stride, ceil_mode=True, divisor_override=self.divisor)

    def _by_kernel(self, x: Tensor) -> Tensor:
        """The same as sums over kernel^2, put right at the border.

        Inductor's backward pass (torch 2.11 to 2.14, pytorch issue 198119) divides a window that hangs over by
        kernel^2, not by its cells inside: for noise an error of 12 % of the gradient's norm at 32 pixels, 25 % at 8.
        With a fixed divisor it is right.
        """
        y = F.avg_pool2d(x, self.kernel, self.stride, ceil_mode=True, divisor_override=self.kernel**2)
        rows, columns = (
            (size - self.stride * torch.arange(out, device=x.device)).clamp(max=self.kernel)
            for size, out in zip(x.shape[-2:], y.shape[-2:], strict=True)
        )
        return (y * (self.kernel**2 / (rows[:, None] * columns))).to(x.dtype)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, divisor={self.divisor or 'cells inside'}"


class SameAveragePool(nn.AvgPool2d):
    """The mean over a `kernel` x `kernel` window around each pixel, of zeros beyond the border too: kernel^2 always.

    As Caffe's average pooling with stride 1 and padding (BVLC/caffe pooling_layer.cpp). kernel: odd.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__(kernel, 1, padding=kernel // 2)
        self.pad = (kernel // 2,) * 4

    def forward(self, x: Tensor) -> Tensor:
        return self._padded_before(x) if x.is_cuda and not torch.compiler.is_compiling() else super().forward(x)

    def _padded_before(self, x: Tensor) -> Tensor:
        """The same, as a pooling without padding.

        In torch 2.11 CUDA's backward pass of a padded pooling of channels_last images leaves the padding out of its
        sums (pytorch issue 188344): every pixel gets the gradient of its neighbour, above and to the left.
        """
        return F.avg_pool2d(F.pad(x, self.pad), self.kernel_size, 1)


class _GradientLikeInput(torch.autograd.Function):
    """The identity, whose gradient has the memory format of what passed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.format = torch.contiguous_format
        if x.is_contiguous(memory_format=torch.channels_last):
            ctx.format = torch.channels_last
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=ctx.format)


class GlobalAveragePool(nn.AdaptiveAvgPool2d):
    """The mean of each map: [N, C, H, W] to [N, C, 1, 1].

    PyTorch gives the gradient of a mean the default memory format. On a GPU, uncompiled, the last group of a residual
    network would pass that format on from sum to sum, and normalisation would use its slow kernels. It does not matter
    on a CPU.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_GradientLikeInput.apply(x) if x.is_cuda and not torch.compiler.is_compiling() else x)


class _WithinChannelLRN(torch.autograd.Function):
    """y = x s^-3/4 with s = 1 + alpha mean(x^2), by hand: plain autograd takes twice the time on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float) -> Tensor:
        # s is close to 1: bfloat16 cannot hold it. No `.to` where it changes nothing: compiled with torch 2.11 it would
        # lose the gradient.
        half = x.dtype in (torch.bfloat16, torch.float16)
        wide = x.float() if half else x
        mean = F.avg_pool2d(wide * wide, size, 1, size // 2)
        s = torch.rsub(mean, 1, alpha=-alpha)
        power = s.sqrt().mul_(s).rsqrt_()  # s^-3/4 without the slow pow
        y = (wide * power).to(x.dtype) if half else wide * power
        ctx.save_for_backward(x, s, power, y)
        ctx.size, ctx.alpha = size, alpha
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, s, power, y = ctx.saved_tensors
        # The window is symmetric, so the adjoint of its mean is the same pooling.
        spread = F.avg_pool2d((grad * y).to(s.dtype).div_(s), ctx.size, 1, ctx.size // 2)
        return (grad * power).addcmul_(x.to(s.dtype), spread, value=-1.5 * ctx.alpha).to(x.dtype), None, None


class WithinChannelLRN(nn.Module):
    """Local response normalisation over a `size` x `size` window of the same channel, beta 0.75, k 1.

    y = x (1 + alpha mean(x^2))^-0.75, the mean over zero padding too, that is always divided by size^2
    (BVLC/caffe lrn_layer.cpp, WITHIN_CHANNEL). `nn.LocalResponseNorm` is the other kind, across channels.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5) -> None:
        super().__init__()
        if size % 2 == 0:
            raise ValueError(f"the window of local response normalisation must be odd, not {size}")
        self.size, self.alpha = size, alpha

    def forward(self, x: Tensor) -> Tensor:
        return _WithinChannelLRN.apply(x, self.size, self.alpha)

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha}"


class Dropout(nn.Dropout):
    """`nn.Dropout` whose masks do not depend on how the virtual GPUs are spread over passes and processes.

    generators: of the virtual GPUs, set by `models.dropout_generators`; each draws the masks of its own rows of a
        training batch. While there are none this is `nn.Dropout`, which draws from PyTorch's default generator.
    gpu: changes with `models.select_gpu`: the virtual GPU whose images pass, None for all of them.
    """

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.generators: list[torch.Generator] = []
        self.gpu: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.generators):
            return super().forward(x)
        drawing = self.generators if self.gpu is None else [self.generators[self.gpu]]
        mask = torch.empty_like(x)
        for part, generator in zip(mask.chunk(len(drawing)), drawing, strict=True):
            part.bernoulli_(1 - self.p, generator=generator)
        return x * mask.div_(1 - self.p)


class BatchNorm(nn.Module):
    """Caffe's BatchNorm followed by Scale, its statistics taken over one virtual GPU at a time.

    Training batches are [gpus * B, C, H, W] with virtual GPU g at rows g B ... (g + 1) B - 1; their number must divide
    by `gpus`, else ValueError. Each is normalised with its own mean and variance. Tests use the running statistics of
    virtual GPU 0: sums S and weight W with S = fraction S + x, W = fraction W + 1, statistic S / W, where the variance
    x has m / (m - 1). Before the first step S / W counts as 0, so that the output is x / sqrt(eps)
    (BVLC/caffe batch_norm_layer.cpp).

    fraction: Caffe's moving_average_fraction.
    test_statistics: "running", or "batch": tests are normalised with the test batch itself, as one virtual GPU.
    frozen: always use the running statistics and never feed them, which leaves x / sqrt(eps) for good.
    groups and track change with `models.select_gpu`: virtual GPUs in a pass, and whether the first of them is GPU 0.
    deferred: changes with `models.defer_statistics`: a pass leaves `batch_mean` and `batch_variance` behind and
        somebody else calls `follow` for all layers.
    """

    mean: Tensor
    variance: Tensor
    weight_sum: Tensor
    batch_mean: Tensor
    batch_variance: Tensor

    def __init__(
        self,
        channels: int,
        *,
        gpus: int = 1,
        fraction: float = 0.999,
        eps: float = 1e-5,
        test_statistics: str = "running",
        frozen: bool = False,
    ) -> None:
        super().__init__()
        if test_statistics not in ("running", "batch"):
            raise ValueError(f"unknown test statistics {test_statistics!r}: expected running or batch")
        if not 0 <= fraction <= 1:
            raise ValueError(f"the moving average fraction must lie in 0 ... 1, not {fraction}")
        self.gpus, self.fraction, self.eps = gpus, fraction, eps
        self.test_statistics, self.frozen = test_statistics, frozen
        self.groups, self.track, self.deferred = gpus, True, False
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("mean", torch.empty(channels))
        self.register_buffer("variance", torch.empty(channels))
        self.register_buffer("weight_sum", torch.empty(()))
        self.register_buffer("batch_mean", torch.empty(channels), persistent=False)
        self.register_buffer("batch_variance", torch.empty(channels), persistent=False)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Scale 1, shift 0, empty running statistics, in place."""
        self.weight.fill_(1)
        for tensor in (self.bias, *self.buffers(recurse=False)):
            tensor.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.frozen or not (self.training or self.test_statistics == "batch"):
            scale = 1 / self.weight_sum.clamp(min=1)  # W is 0 before the first step, and at least 1 after it
            return self._normalise(x, self.mean * scale, self.variance * scale, training=False)
        if not self.training:
            return self._normalise(x, None, None, training=True)
        if x.shape[0] % self.groups:
            raise ValueError(f"a training batch of {x.shape[0]} images does not divide over {self.groups} virtual GPUs")
        if torch.compiler.is_compiling():
            return self._all_groups(x)
        first, *others = x.chunk(self.groups)
        if self.track:
            # Momentum 1 makes PyTorch hand out the batch's own mean and its variance with m / (m - 1).
            parts = [self._normalise(first, self.batch_mean, self.batch_variance, training=True)]
            if not self.deferred:
                follow([self])
        else:
            parts = [self._normalise(first, None, None, training=True)]
        parts += [self._normalise(part, None, None, training=True) for part in others]
        return torch.cat(parts) if others else parts[0]

    def _all_groups(self, x: Tensor) -> Tensor:
        """The same in one expression, for a compiler to fuse with what comes before and after."""
        half = x.dtype in (torch.bfloat16, torch.float16)
        parts = (x.float() if half else x).unflatten(0, (self.groups, -1))
        variance, mean = torch.var_mean(parts, (1, 3, 4), correction=0, keepdim=True)
        if self.track:
            count = parts[0].numel() // parts.shape[2]
            self.batch_mean.copy_(mean[0].detach().flatten())
            self.batch_variance.copy_(variance[0].detach().flatten() * (count / (count - 1)))
            if not self.deferred:
                follow([self])
        scale = self.weight.view(-1, 1, 1) * torch.rsqrt(variance + self.eps)
        y = ((parts - mean) * scale + self.bias.view(-1, 1, 1)).flatten(0, 1)
        return y.to(x.dtype) if half else y

    def _normalise(self, x: Tensor, mean: Tensor | None, variance: Tensor | None, *, training: bool) -> Tensor:
        return F.batch_norm(x, mean, variance, self.weight, self.bias, training, 1.0, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, gpus={self.gpus}, fraction={self.fraction}, eps={self.eps}"


@torch.no_grad()
def follow(layers: Sequence[BatchNorm]) -> None:
    """Let the running statistics of layers take in the batch that passed: three kernels on a GPU, for any number."""
    sums = [total for layer in layers for total in (layer.mean, layer.variance)]
    batch = [value for layer in layers for value in (layer.batch_mean, layer.batch_variance)]
    weights, fractions = [layer.weight_sum for layer in layers], [layer.fraction for layer in layers]
    torch._foreach_mul_(sums + weights, [f for f in fractions for _ in range(2)] + fractions)
    torch._foreach_add_(sums, batch)
    torch._foreach_add_(weights, 1)
