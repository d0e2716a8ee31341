"""The report's networks and one more of Caffe's, built by name with asserted parameter counts.

network = models.build("cifar3", classes=10, channels=3, size=32, gpus=4, init="msra", seed=0)
for parameter, lr_mult, decay_mult in models.multipliers(network): ...
models.reset(network, init="xavier", seed=1)  # the same object for the next run of a sweep
"""

import difflib
import inspect
from collections.abc import Callable

import torch
import torch.nn as nn

from models.caffe import INITS, BatchNorm, Convolution, Dropout, InnerProduct, fill, follow
from models.cifar3 import cifar3
from models.cifar10_quick import cifar10_quick
from models.densenet import densenet40
from models.inception import inception_resnet_v2
from models.lenet import lenet
from models.resnet import resnet56, wide32
from models.resnet50 import resnet50
from models.resnet_v1 import resnet56_v1

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "cifar3": cifar3,
    "resnet56": resnet56,
    "resnet56-v1": resnet56_v1,
    "wide32": wide32,
    "densenet40": densenet40,
    "lenet": lenet,
    "cifar10-quick": cifar10_quick,
    "resnet50": resnet50,
    "inception-resnet-v2": inception_resnet_v2,
}
NAMES = tuple(NETWORKS)

REPORTED = {
    "cifar3": (10, 3, 32),
    "resnet56": (10, 3, 32),
    "resnet56-v1": (10, 3, 32),
    "wide32": (10, 3, 32),
    "densenet40": (10, 3, 32),
    "lenet": (10, 1, 28),
    "cifar10-quick": (10, 3, 32),
    "resnet50": (1000, 3, 230),
    "inception-resnet-v2": (1000, 3, 230),
}
"""(classes, channels, size) at which `PARAMETERS` counts."""

PARAMETERS = {
    "cifar3": 89_578,
    "resnet56": 860_874,
    "resnet56-v1": 808_682,
    "wide32": 5_903_626,
    "densenet40": 1_019_722,
    "lenet": 431_080,
    "cifar10-quick": 145_578,
    "resnet50": 31_727_592,
    "inception-resnet-v2": 55_843_464,
}
"""Learnable values of each network as the report ran it; BatchNorm's running statistics do not count."""


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    size: int,
    gpus: int,
    init: str,
    seed: int,
    depth: int | None = None,
    width: int | None = None,
    weights: bool = True,
    **options: str | float | bool | None,
) -> nn.Module:
    """The network `name` on the CPU in channels_last: images [N, channels, size, size] to logits [N, classes].

    size: height and width of the images in pixels.
    gpus: virtual GPUs. A training batch holds them one after the other in equal parts; BatchNorm statistics belong to
        one of them. Networks without BatchNorm take any batch.
    init: "msra" or "xavier" (the author's replicates alternate), for layers whose filler the network file leaves open.
    seed: of all weights; the same seed gives the same weights on every device.
    depth, width: None is the report's network, else a smaller or larger variant; see the network's own function,
        which also lists its options. An option that is None keeps the network's default.
    weights: False leaves them out: the layers' shapes alone, on PyTorch's meta device.
    ValueError: unknown name, a setting that the network does not have, or one out of range.
    """
    if name not in NETWORKS:
        nearest = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown network {name!r}: did you mean {nearest!r}? There are {', '.join(NAMES)}")
    numbers = {"classes": classes, "channels": channels, "size": size, "gpus": gpus, "depth": depth, "width": width}
    for what, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{what} must be at least 1, not {value}")
    network_of = NETWORKS[name]
    accepted = inspect.signature(network_of).parameters
    given = {key: value for key, value in {"depth": depth, "width": width, **options}.items() if value is not None}
    if refused := [key for key in given if key not in accepted]:
        offered = [key for key in accepted if key not in ("classes", "channels", "size", "gpus")]
        raise ValueError(f"{name} has no setting {', '.join(refused)}; it has {', '.join(offered)}")
    if "gpus" in accepted:
        given["gpus"] = gpus
    with torch.device("meta"):  # no work for weights that reset() sets anyway
        network = network_of(classes=classes, channels=channels, size=size, **given)
    if weights:
        network = network.to_empty(device="cpu").to(memory_format=torch.channels_last)
        reset(network, init=init, seed=seed)
    if depth is None and width is None and (channels, size) == REPORTED[name][1:]:
        _assert_parameters(name, network, classes)
    return network


def _assert_parameters(name: str, network: nn.Module, classes: int) -> None:
    """Compare the count with the report's network; another number of classes changes the last layer only."""
    head = [layer for layer in network.modules() if isinstance(layer, InnerProduct)][-1]
    expected = PARAMETERS[name] + (classes - REPORTED[name][0]) * (head.in_features + 1)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == expected, f"{name} with {classes} classes has {count:,} parameters, not {expected:,}"


def reset(network: nn.Module, *, init: str, seed: int) -> None:
    """Start again in place: all weights from `seed` and `init`, and empty BatchNorm running statistics."""
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}: expected one of {', '.join(INITS)}")
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, Convolution | InnerProduct):
            fill(layer, init=init, generator=generator)
        elif isinstance(layer, BatchNorm):
            layer.reset()


def chooses_init(name: str) -> bool:
    """Whether `init` changes the weights of the network `name`: not where its file gives every layer a filler."""
    network_of, (classes, channels, size) = NETWORKS[name], REPORTED[name]
    options = {"gpus": 1} if "gpus" in inspect.signature(network_of).parameters else {}
    with torch.device("meta"):
        layers = network_of(classes=classes, channels=channels, size=size, **options).modules()
    return any(layer.blobs.weight == "init" for layer in layers if isinstance(layer, Convolution | InnerProduct))


def select_gpu(network: nn.Module, gpu: int | None) -> None:
    """Say that training passes from now on hold the images of one virtual GPU only; None: of all of them again.

    Running one virtual GPU after the other and averaging their gradients is the same step as one pass over all, with
    less memory, and faster on a CPU. BatchNorm's running statistics follow the passes of virtual GPU 0.
    """
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            layer.groups = layer.gpus if gpu is None else 1
            layer.track = gpu in (None, 0)
        elif isinstance(layer, Dropout):
            layer.gpu = gpu


def defer_statistics(network: nn.Module) -> Callable[[], None]:
    """Take over the running statistics of all BatchNorm layers: call what is returned after every training pass.

    Each layer by itself takes 6 small kernels, 330 a step for resnet-56 on a GPU; all together take 3. Where virtual
    GPUs pass one at a time, one call after the last is enough, since only GPU 0 counts.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm) and not layer.frozen]
    for layer in layers:
        layer.deferred = True
    return lambda: follow(layers) if layers else None


def dropout_generators(network: nn.Module, device: torch.device, gpus: int) -> list[torch.Generator]:
    """Give the dropout layers a generator per virtual GPU, which they share; seeding them is the caller's.

    Returns them, or nothing for a network without dropout. A CUDA graph must know them
    (`torch.cuda.CUDAGraph.register_generator_state`); seeds set between its replays then take effect.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, Dropout)]
    generators = [torch.Generator(device) for _ in range(gpus)] if layers else []
    for layer in layers:
        layer.generators = generators
    return generators


def multipliers(network: nn.Module) -> list[tuple[nn.Parameter, float, float]]:
    """(parameter, lr_mult, decay_mult) of every parameter, in the order of `network.parameters()`."""
    rows = []
    for layer in network.modules():
        for position, parameter in enumerate(layer.parameters(recurse=False)):
            if isinstance(layer, Convolution | InnerProduct):
                rows.append((parameter, layer.blobs.lr[position], layer.blobs.decay[position]))
            else:
                rows.append((parameter, 1.0, 1.0))
    return rows
