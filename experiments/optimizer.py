"""Caffe's SGD and Nesterov updates, with the whole schedule on the device.

torch.optim.SGD is another method as soon as the learning rate changes. Caffe multiplies each gradient by the learning
rate of its own iteration before it enters the velocity; PyTorch multiplies the accumulated velocity by today's. On a
ramp the two hardly differ. After a drop, and at the end of 1cycle, Caffe coasts on its old velocity for some 60 to 100
iterations at momentum 0.95.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter


class _Part(NamedTuple):
    """Parameters that are updated together: lists of tensors, and at which places a multiplier holds."""

    weights: list[Tensor]
    velocity: list[Tensor]
    lr_mults: dict[float, list[int]]
    decay_mults: dict[float, list[int]]


class CaffeSGD:
    """Stochastic gradient descent with momentum as in Caffe 1.0 (sgd_solver.cpp, nesterov_solver.cpp).

    Per parameter w with gradient g, at iteration t:

        d  = g + weight_decay * decay_mult * w
        v' = momentum[t] * v + lr[t] * lr_mult * d
        w -= v'                                              plain
        w -= lr[t] * lr_mult * d + momentum[t] * v'          Nesterov

    Nothing in `step` reads the device from the host: ``lr[t]`` and ``momentum[t]`` are looked up with a counter that
    lives on the device and that the step increments. So a step can be captured in a CUDA graph, and compiles once.

    parameters: (parameter, lr_mult, decay_mult) of each learnable blob. They are the master weights, hence fp32
        (or fp64); their memory format is kept.
    lr, momentum: floating tensors on the parameters' device, 0-dim (the same at every iteration) or
        [iterations] (as `experiments.schedules` gives them). Steps beyond a schedule's end are an error: IndexError
        on a CPU, a device-side assertion on a GPU.
    weight_decay: the L2 coefficient.

    Raises ValueError for parameters or schedules that do not fit.

    The arithmetic runs over lists of tensors (foreach); multipliers split only what they multiply. All weights in one
    flat buffer would be fewer calls still, and would tie gradients and memory formats to it.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[Parameter, float, float]],
        lr: Tensor,
        momentum: Tensor,
        weight_decay: float,
        nesterov: bool = True,
    ) -> None:
        parameters = list(parameters)
        _check_parameters(parameters)
        device, dtype = parameters[0][0].device, parameters[0][0].dtype
        _check_schedules(lr, momentum, device)
        self.lr, self.momentum = lr.to(dtype), momentum.to(dtype)
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.iteration = torch.zeros((), dtype=torch.int64, device=device)
        self.weights = [w for w, _, _ in parameters]
        self.velocity = [torch.zeros_like(w, requires_grad=False) for w in self.weights]
        self._multipliers = [(lr_mult, decay_mult) for _, lr_mult, decay_mult in parameters]
        self._parts = [self._part(range(len(parameters)))]

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its gradient and advance the counter. Non-finite gradients pass through.

        Raises ValueError where a parameter has no gradient.
        """
        lr, momentum = self._now(self.lr), self._now(self.momentum)
        for part in self._parts:
            update = self._decayed_gradients(part)
            for lr_mult, places in part.lr_mults.items():
                eta = lr if lr_mult == 1 else lr * lr_mult
                _put(update, places, torch._foreach_mul([update[i] for i in places], eta))
            torch._foreach_mul_(part.velocity, momentum)
            torch._foreach_add_(part.velocity, update)
            if self.nesterov:
                torch._foreach_add_(update, torch._foreach_mul(part.velocity, momentum))
                torch._foreach_sub_(part.weights, update)
            else:
                torch._foreach_sub_(part.weights, part.velocity)
        self.iteration.add_(1)

    def one_by_one(self) -> None:
        """Update every parameter with kernels of its own from now on, to measure what lists of them are worth."""
        self._parts = [self._part([i]) for i in range(len(self.weights))]

    def zero_grad(self) -> None:
        """Drop the gradients, so that the next backward pass makes new ones instead of adding to zeros.

        In a CUDA graph, call it in the captured function before the backward pass: the gradients then live in the
        graph's memory and every replay overwrites them.
        """
        for w in self.weights:
            w.grad = None

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that a resumed run needs: the counter and the velocities, in the parameters' order."""
        return {"iteration": self.iteration.clone(), "velocity": [v.clone() for v in self.velocity]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state in place, bit for bit; a captured graph goes on with it.

        Raises ValueError where its velocities are not of the parameters' number, shapes and types.
        """
        expected = [(v.shape, v.dtype) for v in self.velocity]
        found = [(v.shape, v.dtype) for v in state["velocity"]]
        if found != expected:
            raise ValueError(
                f"the optimizer's state has {len(found)} velocities which are not of the shapes and types of the "
                f"network's {len(expected)} parameters: the checkpoint belongs to another network"
            )
        self.iteration.copy_(state["iteration"])
        for mine, theirs in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(theirs)

    def _now(self, schedule: Tensor) -> Tensor:
        # Not schedule[self.iteration]: a 0-dim index is copied to the host. So it is in a compiled take().
        return schedule.index_select(0, self.iteration.view(1)).view(()) if schedule.ndim else schedule

    def _part(self, places: Sequence[int]) -> _Part:
        part = _Part([self.weights[i] for i in places], [self.velocity[i] for i in places], {}, {})
        for at, i in enumerate(places):
            lr_mult, decay_mult = self._multipliers[i]
            part.lr_mults.setdefault(lr_mult, []).append(at)
            part.decay_mults.setdefault(decay_mult, []).append(at)
        return part

    def _decayed_gradients(self, part: _Part) -> list[Tensor]:
        """Of each weight its gradient with its decay, or the gradient itself, not to be written to, without one."""
        gradients = [w.grad for w in part.weights if w.grad is not None]
        if len(gradients) < len(part.weights):
            raise ValueError("a parameter has no gradient: run a backward pass that reaches every parameter first")
        for decay_mult, places in part.decay_mults.items():
            if decay := self.weight_decay * decay_mult:
                weights = [part.weights[i] for i in places]
                _put(gradients, places, torch._foreach_add([gradients[i] for i in places], weights, alpha=decay))
        return gradients


def _put(into: list[Tensor], places: Sequence[int], values: Sequence[Tensor]) -> None:
    for i, value in zip(places, values, strict=True):
        into[i] = value


def grad_norm(parameters: Iterable[Parameter]) -> Tensor:
    """The L2 norm over all gradients together, before weight decay: a 0-dim tensor on their device.

    The author's logs print it as "grad_norm". Parameters without a gradient count as 0.
    """
    return torch.nn.utils.get_total_norm([w.grad for w in parameters if w.grad is not None])


def _check_parameters(parameters: Sequence[tuple[Parameter, float, float]]) -> None:
    if not parameters:
        raise ValueError("there are no parameters to optimize")
    if len({id(w) for w, _, _ in parameters}) < len(parameters):
        raise ValueError("a parameter is listed twice: it would be updated twice per step")
    kinds = {(w.device, w.dtype) for w, _, _ in parameters}
    if len(kinds) > 1 or parameters[0][0].dtype not in (torch.float32, torch.float64):
        listed = ", ".join(sorted(f"{dtype} on {device}" for device, dtype in kinds))
        raise ValueError(
            f"the parameters are {listed}; all must be float32 on one device (use autocast for lower precision)"
        )


def _check_schedules(lr: Tensor, momentum: Tensor, device: torch.device) -> None:
    for name, schedule in (("lr", lr), ("momentum", momentum)):
        if schedule.ndim > 1 or not schedule.is_floating_point() or schedule.device != device:
            raise ValueError(
                f"{name} is {schedule.dtype} of shape {list(schedule.shape)} on {schedule.device}; "
                f"it must be a floating tensor of shape [] or [iterations] on {device}"
            )
    if lr.ndim and momentum.ndim and len(lr) != len(momentum):
        raise ValueError(f"lr covers {len(lr)} iterations, momentum {len(momentum)}: they must cover the same run")
