"""Shallow forms of all networks, trained for a few iterations: what the tests of steps share."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_runs import CPU

from experiments import step
from experiments.benchmark import settings_of
from experiments.estimate import random_images
from experiments.settings import Batch, Model, Settings
from experiments.step import How
from experiments.trainer import Trainer

needs_compiler = pytest.mark.skipif(
    step.compiler() is None, reason="torch.compile needs a C++ compiler and Python's headers"
)


def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has compiled nothing yet: dynamo refuses to compile after a handful of shapes."""
    monkeypatch.setattr(step, "_kept", None)
    torch._dynamo.reset()


SHALLOW: dict[str, tuple[int, dict[str, int]]] = {
    "cifar3": (8, {}),
    "lenet": (28, {}),
    "resnet56": (8, {"depth": 1, "width": 4}),
    "wide32": (8, {"depth": 2, "width": 4}),
    "densenet40": (8, {"depth": 2, "width": 4}),
    "resnet56-v1": (8, {"depth": 1}),
    "resnet50": (64, {"width": 4}),
    "inception-resnet-v2": (75, {}),
}
QUICK = [name for name in SHALLOW if name != "inception-resnet-v2"]
SLOW = [pytest.param("inception-resnet-v2", marks=pytest.mark.slow)]


def shallow(name: str, **changes: Any) -> Settings:
    size, smaller = SHALLOW[name]
    s = settings_of(name, 8, changes.pop("precision", "fp32"))
    dataset = replace(s.dataset, size=size, train_images=32, order="reshuffled", mirror=name != "lenet")
    # Gradients of noise have a norm of 560 in the one, and multiply rounding a thousandfold in both.
    lr = replace(s.lr, base={"resnet50": 1e-6, "inception-resnet-v2": 1e-9}.get(name, 0.01))
    return replace(s, dataset=dataset, model=Model(name, **smaller), batch=Batch(4, 2), lr=lr, iterations=20, **changes)


def trained(
    settings: Settings, how: str | How, device: torch.device = CPU, steps: int = 3, drop: bool = True
) -> dict[str, torch.Tensor]:
    """The network's state, and the last losses, after a few iterations; without dropout where drop is False."""
    trainer = Trainer(settings, random_images(settings, 32, 8), device, how)
    for layer in trainer.net.modules():
        if isinstance(layer, torch.nn.Dropout) and not drop:
            layer.p = 0.0
    for t in range(steps):
        _, losses, _ = trainer.step(t)
        trainer.update()
    assert trainer.optimizer.iteration.item() == steps
    return {key: value.clone().cpu() for key, value in trainer.net.state_dict().items()} | {"losses": losses.cpu()}


def gradients(settings: Settings, how: str | How, device: torch.device = CPU) -> dict[str, torch.Tensor]:
    """Of the first iteration, without dropout."""
    trainer = Trainer(settings, random_images(settings, 32, 8), device, how)
    for layer in trainer.net.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    trainer.step(0)
    found = {name: p.grad.cpu().clone() for name, p in trainer.net.named_parameters() if p.grad is not None}
    assert len(found) == len(trainer.optimizer.weights)
    return found


def assert_gradients_close(
    a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], precision: str, fp32: float = 1e-3
) -> None:
    """b's are a's. A small step would hide what is wrong with them. fp32: how far they may be apart in fp32."""
    least = 1e-2 * max(value.norm() for value in a.values())  # a bias before BatchNorm has nothing but rounding
    for key, value in a.items():
        apart = (b[key] - value).norm() / max(value.norm(), least)
        # Where kernels are fused, values are rounded to bfloat16 less often.
        assert apart < (fp32 if precision == "fp32" else 0.3), f"{key}: {apart:.2g}"


def assert_close(
    a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], rtol: float = 1e-3, least: float = 2e-5
) -> None:
    for key, value in a.items():
        atol = rtol * value.abs().max().item() + least  # a bias that BatchNorm cancels has nothing but rounding
        torch.testing.assert_close(b[key], value, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}")


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    different = [key for key, value in a.items() if not torch.equal(value, b[key])]
    assert not different


def measured_settings(network: str = "cifar3", gpus: int = 4, per_gpu: int = 2, size: int = 8, **model) -> Settings:
    """The benchmark's settings of a network, for tiny images and batches."""
    settings = settings_of(network, 8, "fp32")
    dataset = replace(settings.dataset, size=size, train_images=32)
    return replace(settings, dataset=dataset, batch=Batch(per_gpu, gpus), model=Model(network, **model))
