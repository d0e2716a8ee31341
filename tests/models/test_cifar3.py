"""The 3-layer network against the author's file and log."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models


def network(classes: int = 10, *, seed: int = 0, size: int = 32, **settings: Any) -> Any:
    return models.build("cifar3", classes=classes, channels=3, size=size, gpus=4, init="msra", seed=seed, **settings)


def photos(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth random images on the scale of the author's data: 0-255 minus the mean."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=generator) + torch.randn(count, 3, 1, 1, generator=generator)
    x = 45 * F.interpolate(coarse, size=32, mode="bilinear")
    return x.contiguous(memory_format=torch.channels_last)


def labels(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("classes", "count"), [(10, 89_578), (100, 181_828)])
def test_parameter_count(classes: int, count: int) -> None:
    assert sum(parameter.numel() for parameter in network(classes).parameters()) == count


def test_shapes_of_every_layer() -> None:
    expected = "conv1 32x32x32, pool1 32x16x16, relu1 32x16x16, norm1 32x16x16, "
    expected += "conv2 32x16x16, relu2 32x16x16, pool2 32x8x8, norm2 32x8x8, "
    expected += "conv3 64x8x8, relu3 64x8x8, pool3 64x4x4, ip1 10"
    x, shapes = photos(2), []
    for name, layer in network().named_children():
        x = layer(x)
        shapes.append(f"{name} {'x'.join(str(side) for side in x.shape[1:])}")
    assert ", ".join(shapes) == expected


def test_multipliers_of_the_author_file() -> None:
    net = network()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    rows = {names[id(parameter)]: (lr, decay) for parameter, lr, decay in models.multipliers(net)}
    assert rows == {
        "conv1.weight": (1, 1),
        "conv1.bias": (2, 1),
        "conv2.weight": (1, 1),
        "conv2.bias": (2, 1),
        "conv3.weight": (1, 1),
        "conv3.bias": (1, 1),
        "ip1.weight": (1, 250),
        "ip1.bias": (2, 0),
    }
    assert list(rows) == list(names.values())


def test_fillers() -> None:
    net = network()
    for layer, std in ((net.conv1, 1e-4), (net.conv2, 0.01), (net.conv3, 0.01), (net.ip1, 0.01)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert not layer.bias.any()


def gradient(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    loss = F.cross_entropy(net(x), y)
    return loss.detach(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def test_first_iteration_has_the_size_of_the_author_log() -> None:
    """Log of the 100-class network, 4 x 128: loss 4.60509, gradient norm 0.181 (these are not its images)."""
    loss, g = gradient(network(100), photos(512), labels(512, 100))
    assert loss.item() == pytest.approx(math.log(100), abs=1e-3)
    assert 0.181 / 3 < g.norm().item() < 0.181 * 3


def test_one_pass_is_the_mean_of_four() -> None:
    net = network()
    x, y = photos(32), labels(32, 10)
    _, whole = gradient(net, x, y)
    parts = torch.stack([gradient(net, *part)[1] for part in zip(x.split(8), y.split(8), strict=True)])
    torch.testing.assert_close(whole, parts.mean(0), rtol=1e-5, atol=1e-6)


def test_same_seed_same_weights_and_reset_restores_them() -> None:
    net, twin, other = network(seed=5), network(seed=5), network(seed=6)
    torch.manual_seed(123)  # the global generator plays no part
    state = {key: value.clone() for key, value in net.state_dict().items()}
    assert all(torch.equal(twin.state_dict()[key], value) for key, value in state.items())
    assert not torch.equal(other.conv1.weight, net.conv1.weight)
    parameters = list(net.parameters())
    models.reset(net, init="xavier", seed=6)
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    assert torch.equal(net.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize("size", [8, 28, 40])
def test_any_image_size_and_width(size: int) -> None:
    net = network(size=size, width=4)
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_bf16_autocast_is_close() -> None:
    net = network(100)
    x, y = photos(64), labels(64, 100)
    exact_loss, exact = gradient(net, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        loss, g = gradient(net, x, y)
    assert loss.item() == pytest.approx(exact_loss.item(), rel=1e-3)
    assert torch.cosine_similarity(g, exact, dim=0).item() > 0.99


def test_errors_name_what_is_wrong() -> None:
    settings: dict[str, Any] = {"classes": 10, "channels": 3, "size": 32, "gpus": 4, "init": "msra", "seed": 0}
    with pytest.raises(ValueError, match=r"unknown network 'cifar-3': did you mean 'cifar3'\?"):
        models.build("cifar-3", **settings)
    with pytest.raises(ValueError, match=r"cifar3 has no setting depth; it has width"):
        models.build("cifar3", **settings, depth=2)
    with pytest.raises(ValueError, match="unknown init 'he'"):
        models.build("cifar3", **settings | {"init": "he"})
    with pytest.raises(ValueError, match="classes must be at least 1"):
        models.build("cifar3", **settings | {"classes": 0})
    with pytest.raises(ValueError, match="too small"):
        models.build("cifar3", **settings | {"size": 7})
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        models.build("cifar3", **settings, width=0)
    with pytest.raises(ValueError, match="0 ... 1, not 1.5"):
        models.build("resnet56", **settings, bn_fraction=1.5)
