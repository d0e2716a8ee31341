"""Grouped Caffe BatchNorm against PyTorch's, one per virtual GPU, and against the sums of Caffe's source."""

import pytest
import torch
from torch import nn

import models
from models.caffe import BatchNorm

GPUS, PER_GPU, CHANNELS = 4, 6, 5


def images(seed: int = 0, *, dtype: torch.dtype = torch.float64, count: int = GPUS * PER_GPU) -> torch.Tensor:
    """Images whose mean and spread differ from one virtual GPU to the next."""
    x = torch.randn(count, CHANNELS, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    x = x * torch.linspace(1, 3, count, dtype=dtype).view(-1, 1, 1, 1) + torch.arange(count).view(-1, 1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)


def layer(dtype: torch.dtype = torch.float64, **settings) -> BatchNorm:
    norm = BatchNorm(CHANNELS, **{"gpus": GPUS, "fraction": 0.9} | settings).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, CHANNELS))
        norm.bias.copy_(torch.linspace(-1, 1, CHANNELS))
    return norm


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_one_pass_is_four_batchnorms(dtype: torch.dtype, tolerance: float) -> None:
    norm, x, weight = layer(dtype), images(dtype=dtype).requires_grad_(), images(1, dtype=dtype)
    y = norm(x)
    found = torch.autograd.grad(y, (x, norm.weight, norm.bias), weight)

    x_parts, y_parts = x.detach().clone().requires_grad_(), []
    twin = nn.BatchNorm2d(CHANNELS).to(dtype)
    twin.load_state_dict({"weight": norm.weight, "bias": norm.bias}, strict=False)
    for part in x_parts.split(PER_GPU):
        y_parts.append(twin(part))
    expected = torch.autograd.grad(torch.cat(y_parts), (x_parts, twin.weight, twin.bias), weight)
    torch.testing.assert_close(y, torch.cat(y_parts), rtol=tolerance, atol=tolerance)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def test_gradient() -> None:
    norm = layer(gpus=2)
    x = images(count=4)[:, :, :2, :2].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(norm, (x,))


def test_running_statistics_are_caffes_sums_of_gpu_0() -> None:
    norm, fraction = layer(), 0.9
    mean_sum = variance_sum = torch.zeros(CHANNELS, dtype=torch.float64)
    weight = 0.0
    for step in range(3):
        x = images(step)
        norm(x)
        first = x[:PER_GPU].transpose(0, 1).reshape(CHANNELS, -1)
        m = first.shape[1]
        mean = first.sum(1) / m
        variance = ((first - mean[:, None]) ** 2).sum(1) / m
        mean_sum = fraction * mean_sum + mean
        variance_sum = fraction * variance_sum + variance * m / (m - 1)
        weight = fraction * weight + 1
    x = images(9)
    expected = (x - (mean_sum / weight).view(1, -1, 1, 1)) / (variance_sum / weight + 1e-5).sqrt().view(1, -1, 1, 1)
    expected = expected * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(norm.eval()(x), expected, rtol=1e-12, atol=1e-12)


def test_the_first_step_is_bias_corrected() -> None:
    norm = layer(fraction=0.999)
    x = images()
    norm(x)
    torch.testing.assert_close(norm.mean / norm.weight_sum, x[:PER_GPU].mean((0, 2, 3)))


def test_before_any_step_tests_divide_by_the_root_of_eps() -> None:
    norm, x = BatchNorm(CHANNELS).double().eval(), images()
    torch.testing.assert_close(norm(x), x / 1e-5**0.5)


def test_tests_with_batch_statistics_ignore_the_running_ones() -> None:
    norm = layer(test_statistics="batch")
    norm(images())
    state = {key: value.clone() for key, value in norm.state_dict().items()}
    x = images(1)
    twin = nn.BatchNorm2d(CHANNELS).double()
    twin.load_state_dict({"weight": norm.weight, "bias": norm.bias}, strict=False)
    torch.testing.assert_close(norm.eval()(x), twin(x))
    assert all(torch.equal(norm.state_dict()[key], value) for key, value in state.items())


def test_frozen_is_a_constant_gain_in_training_too() -> None:
    norm, x = BatchNorm(CHANNELS, eps=1e-3, frozen=True).double(), images().requires_grad_()
    y = norm(x)
    torch.testing.assert_close(y, x * 1000**0.5)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 1000**0.5))
    assert norm.weight_sum.item() == 0


def test_one_gpu_after_the_other() -> None:
    whole, single, x = layer(), layer(), images()
    y, parts = whole(x), []
    for gpu, part in enumerate(x.split(PER_GPU)):
        models.select_gpu(single, gpu)
        parts.append(single(part))
    assert torch.equal(y, torch.cat(parts))
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in single.state_dict().items())
    models.select_gpu(single, None)
    assert torch.equal(single(x), y)


@pytest.mark.parametrize("one_gpu_at_a_time", [False, True])
def test_statistics_of_all_layers_at_once_are_those_layer_by_layer(one_gpu_at_a_time) -> None:
    plain, other = (nn.Sequential(layer(), layer(fraction=0.5), layer(frozen=True)).double() for _ in range(2))
    follow = models.defer_statistics(other)
    for seed in range(3):
        x = images(seed)
        plain(x)
        before = [value.clone() for value in other.state_dict().values()]
        for gpu, part in enumerate(x.split(PER_GPU) if one_gpu_at_a_time else [x]):
            models.select_gpu(other, gpu if one_gpu_at_a_time else None)
            other(part)
        assert all(torch.equal(a, b) for a, b in zip(before, other.state_dict().values(), strict=True))
        follow()
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in plain.state_dict().items())
    assert other[1].weight_sum == 1.75 and not other[2].weight_sum
    models.defer_statistics(nn.Sequential())()


def test_reset_restores_the_beginning() -> None:
    norm = layer()
    norm(images() * float("nan"))
    norm.reset()
    assert torch.equal(norm.weight, torch.ones(CHANNELS)) and not norm.bias.any()
    assert norm.mean.abs().sum() == norm.variance.abs().sum() == norm.weight_sum == 0
    norm(images())
    assert norm.mean.isfinite().all() and norm.variance.isfinite().all()


def test_bf16_keeps_float32_statistics() -> None:
    norm, x = layer(torch.float32), images(dtype=torch.float32)
    y = norm(x.bfloat16())
    assert y.dtype == torch.bfloat16 and norm.mean.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(torch.float32)(x), rtol=0.02, atol=0.05)
    assert norm.eval()(x.bfloat16()).dtype == torch.bfloat16


def test_errors() -> None:
    with pytest.raises(ValueError, match="23 images does not divide over 4 virtual GPUs"):
        layer()(images(count=23))
    with pytest.raises(ValueError, match="unknown test statistics 'moving'"):
        BatchNorm(3, test_statistics="moving")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_expression_for_compilers_is_the_same(monkeypatch, dtype: torch.dtype, tolerance: float) -> None:
    weight = images(1, dtype=dtype)
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda c=compiling: c)
        norm, x = layer(dtype), images(dtype=dtype).requires_grad_()
        for _ in range(2):
            y = norm(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        gradients = torch.autograd.grad(y, (x, norm.weight, norm.bias), weight)
        found.append([y, *gradients, norm.mean, norm.variance, norm.weight_sum])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def test_the_expression_for_compilers_follows_the_selected_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    test_one_gpu_after_the_other()


def test_the_expression_for_compilers_keeps_bf16(monkeypatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    test_bf16_keeps_float32_statistics()
