"""Caffe's layers and fillers against loops in float64."""

import math

import pytest
import torch

from models.caffe import (
    AveragePool,
    Blobs,
    Convolution,
    GlobalAveragePool,
    InnerProduct,
    MaxPool,
    SameAveragePool,
    WithinChannelLRN,
    _GradientLikeInput,
    fill,
    pooled,
)


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def lrn_loop(x: torch.Tensor, size: int, alpha: float) -> torch.Tensor:
    y = torch.empty_like(x)
    half = size // 2
    for n, c, i, j in torch.cartesian_prod(*[torch.arange(side) for side in x.shape]).tolist():
        window = x[n, c, max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1]
        y[n, c, i, j] = x[n, c, i, j] * (1 + alpha * float((window**2).sum()) / size**2) ** -0.75
    return y


@pytest.mark.parametrize("size", [3, 5])
def test_lrn_is_the_loop(size: int) -> None:
    x = 30 * images(2, 2, 6, 7)
    torch.testing.assert_close(WithinChannelLRN(size, 5e-3)(x), lrn_loop(x, size, 5e-3), rtol=1e-12, atol=0)


def test_lrn_gradient() -> None:
    x = images(2, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(WithinChannelLRN(3, 0.7), (x,))


def test_lrn_float32_channels_last_gradient_is_that_of_plain_autograd() -> None:
    x = (100 * images(3, 8, 16, 16, dtype=torch.float32)).contiguous(memory_format=torch.channels_last)
    weight = images(3, 8, 16, 16, seed=1, dtype=torch.float32)
    x.requires_grad_()
    y = WithinChannelLRN(3, 5e-5)(x)
    (gradient,) = torch.autograd.grad(y, x, weight)
    exact = x.detach().double().requires_grad_()
    plain = exact * (1 + 5e-5 * torch.nn.functional.avg_pool2d(exact**2, 3, 1, 1)) ** -0.75
    (expected,) = torch.autograd.grad(plain, exact, weight.double())
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), plain.detach(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-6)


def test_lrn_keeps_bfloat16_and_its_precision() -> None:
    x = (100 * images(2, 4, 8, 8)).to(torch.bfloat16).requires_grad_()
    y = WithinChannelLRN(3, 5e-5)(x)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.dtype == gradient.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), lrn_loop(x.detach().double(), 3, 5e-5), rtol=4e-3, atol=0)


def test_lrn_refuses_an_even_window() -> None:
    with pytest.raises(ValueError, match="odd, not 4"):
        WithinChannelLRN(4)


def average_loop(x: torch.Tensor, kernel: int, stride: int, border: str) -> torch.Tensor:
    rows, columns = (math.ceil((side - kernel) / stride) + 1 for side in x.shape[2:])
    y = x.new_empty(*x.shape[:2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            cells = kernel**2 if border == "cudnn" else window.shape[2] * window.shape[3]
            y[:, :, i, j] = window.sum((2, 3)) / cells
    return y


@pytest.mark.parametrize("border", ["caffe", "cudnn"])
@pytest.mark.parametrize("side", [3, 4, 7, 8, 15, 16, 32])
def test_average_pooling_and_its_border(side: int, border: str) -> None:
    x = images(2, 3, side, side + 1)
    y = AveragePool(3, 2, border=border)(x)
    assert y.shape[2:] == (pooled(side, 3, 2), pooled(side + 1, 3, 2))
    torch.testing.assert_close(y, average_loop(x, 3, 2, border))


@pytest.mark.parametrize(
    ("kernel", "stride", "sides"), [(3, 2, (7, 8)), (3, 2, (16, 16)), (2, 2, (8, 8)), (7, 1, (7, 7))]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_average_pooling_for_compilers_is_the_same(kernel, stride, sides, dtype, monkeypatch) -> None:
    x = images(2, 3, *sides).to(dtype).requires_grad_()
    pool = AveragePool(kernel, stride)
    y = pool(x)
    upon = images(*y.shape, seed=1).to(dtype)
    (grad,) = torch.autograd.grad(y, x, upon)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    again = pool(x)
    assert again.dtype == dtype
    torch.testing.assert_close(again, y)
    atol = 1e-7 if dtype == torch.float64 else 2**-8  # rounded once more
    torch.testing.assert_close(torch.autograd.grad(again, x, upon)[0], grad, rtol=1e-2, atol=atol)


def average_of_zeros_too(x: torch.Tensor, kernel: int) -> torch.Tensor:
    y, half = torch.empty_like(x), kernel // 2
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            window = x[:, :, max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1]
            y[:, :, i, j] = window.sum((2, 3)) / kernel**2
    return y


@pytest.mark.parametrize("kernel", [3, 5])
def test_same_average_pooling_is_the_loop_either_way(kernel: int) -> None:
    """The window is symmetric: its gradient is the same mean of what comes from above."""
    x, upon = images(2, 3, 6, 7).requires_grad_(), images(2, 3, 6, 7, seed=1)
    pool = SameAveragePool(kernel)
    for forward in (pool, pool._padded_before):
        y = forward(x)
        torch.testing.assert_close(y, average_of_zeros_too(x.detach(), kernel))
        torch.testing.assert_close(torch.autograd.grad(y, x, upon)[0], average_of_zeros_too(upon, kernel))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    "layer",
    [
        MaxPool(3, 2),
        MaxPool(2, 2),
        AveragePool(3, 2),
        AveragePool(3, 2, border="cudnn"),
        AveragePool(2, 2),
        AveragePool(7, 1),
        SameAveragePool(3),
        GlobalAveragePool(),
        WithinChannelLRN(3, 5e-3),
    ],
    ids=repr,
)
def test_layers_on_a_gpu_are_those_on_the_cpu(layer: torch.nn.Module, memory_format: torch.memory_format) -> None:
    """Values and gradients; some of PyTorch's kernels have been wrong in channels_last memory only."""
    x = images(4, 6, 16, 15)
    upon = images(*layer(x).shape, seed=1)
    found = []
    for device in ("cpu", "cuda"):
        there = x.to(device).contiguous(memory_format=memory_format).requires_grad_()
        y = layer(there)
        (gradient,) = torch.autograd.grad(y, there, upon.to(device).contiguous(memory_format=memory_format))
        found.append((y.detach().cpu(), gradient.cpu()))
    torch.testing.assert_close(found[1], found[0])


def test_the_two_borders_differ_by_three_halves_on_the_edge_only() -> None:
    x = torch.ones(1, 1, 32, 32)
    caffe, cudnn = AveragePool(3, 2)(x), AveragePool(3, 2, border="cudnn")(x)
    assert torch.equal(caffe, torch.ones(1, 1, 16, 16))
    assert torch.equal(cudnn[..., :15, :15], torch.ones(1, 1, 15, 15))
    torch.testing.assert_close(cudnn[0, 0, 15, :15], torch.full((15,), 6 / 9))
    torch.testing.assert_close(cudnn[0, 0, 15, 15].item(), 4 / 9)


@pytest.mark.parametrize("side", [3, 4, 5, 27, 32])
def test_max_pooling_rounds_up(side: int) -> None:
    assert MaxPool(3, 2)(torch.zeros(1, 1, side, side)).shape[-1] == pooled(side, 3, 2)


def test_pooling_errors() -> None:
    with pytest.raises(ValueError, match="too small"):
        pooled(1, 3, 2)
    with pytest.raises(ValueError, match="border rule 'zero'"):
        AveragePool(3, 2, border="zero")


def filled(kind: str | float, *, init: str = "msra", bias: float = 0.0) -> Convolution:
    layer = Convolution(64, 128, 5, blobs=Blobs(kind, bias=bias))
    fill(layer, init=init, generator=torch.Generator().manual_seed(7))
    return layer


@pytest.mark.parametrize(
    ("kind", "init", "std"),
    [
        ("init", "msra", math.sqrt(2 / 1600)),
        ("init", "xavier", math.sqrt(1 / 1600)),
        ("xavier", "msra", math.sqrt(1 / 1600)),
        (0.01, "xavier", 0.01),
    ],
)
def test_filler_variance(kind: str | float, init: str, std: float) -> None:
    weight = filled(kind, init=init).weight.detach()
    assert weight.std().item() == pytest.approx(std, rel=0.01)
    assert abs(weight.mean().item()) < 0.01 * std


def test_filler_shapes() -> None:
    xavier, msra = filled("xavier").weight.detach(), filled("msra").weight.detach()
    limit = math.sqrt(3 / 1600)
    assert 0.999 * limit < xavier.abs().max().item() <= limit
    # Fourth moment over squared variance: 3 for a normal distribution, 9/5 for a uniform one.
    assert (msra**4).mean().item() / msra.var().item() ** 2 == pytest.approx(3, rel=0.02)
    assert (xavier**4).mean().item() / xavier.var().item() ** 2 == pytest.approx(1.8, rel=0.02)


def test_filler_of_an_inner_product_counts_its_inputs() -> None:
    layer = InnerProduct(4096, 64)
    fill(layer, init="xavier", generator=torch.Generator().manual_seed(0))
    assert layer.weight.std().item() == pytest.approx(1 / 64, rel=0.01)


def test_bias_starts_at_its_constant() -> None:
    bias = filled("msra", bias=0.2).bias
    assert bias is not None and torch.equal(bias, torch.full((128,), 0.2))


def test_unknown_filler() -> None:
    with pytest.raises(ValueError, match="unknown filler 'he'"):
        filled("he")


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_gradient_takes_the_memory_format_of_what_passed(memory_format: torch.memory_format) -> None:
    """Of a mean's gradient PyTorch makes one in the default format, which is what the layer is for."""
    x = images(2, 3, 4, 5).contiguous(memory_format=memory_format).requires_grad_()
    pool, weight, found = GlobalAveragePool(), images(2, 3, 1, 1), []
    for passed in (lambda y: y, _GradientLikeInput.apply):
        y = x * 1
        y.register_hook(found.append)
        pool(passed(y)).backward(weight)
    plain, ours = found
    assert plain.is_contiguous() and not plain.is_contiguous(memory_format=torch.channels_last)
    assert ours.is_contiguous(memory_format=memory_format)
    assert torch.equal(plain, ours) and torch.equal(plain, (weight / 20).expand_as(x))
