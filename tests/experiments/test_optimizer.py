"""The optimizer against scalar loops in float64, and against torch.optim.SGD where the two must agree or differ."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from steps import needs_compiler
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import Parameter
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.optimizer import CaffeSGD, grad_norm
from experiments.schedules import one_cycle, script_multistep

SHAPES = [(4, 3, 2, 2), (4,), (5, 4), (5,), (1,)]
both_updates = pytest.mark.parametrize("nesterov", [True, False], ids=["nesterov", "sgd"])


def parameters(seed: int, dtype: torch.dtype = torch.float64) -> list[Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def gradients(seed: int, iterations: int, dtype: torch.dtype = torch.float64) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(s, generator=generator, dtype=dtype) for s in SHAPES] for _ in range(iterations)]


def schedule(seed: int, low: float, high: float, iterations: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(iterations, generator=generator, dtype=torch.float64)


def give(weights: Sequence[Parameter], grads: Sequence[Tensor]) -> None:
    for w, g in zip(weights, grads, strict=True):
        w.grad = g.clone()


def plain(weights: Sequence[Parameter]) -> list[tuple[Parameter, float, float]]:
    return [(w, 1.0, 1.0) for w in weights]


class Operations(TorchDispatchMode):
    """The operations that are dispatched within."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def scalar_reference(
    w: float, grads: np.ndarray, lr: Tensor, momentum: Tensor, decay: float, lr_mult: float, nesterov: bool
) -> float:
    """Caffe's SGDSolver and NesterovSolver for one weight: the second as its (1 + m) v' - m v."""
    v = 0.0
    for g, rate, m in zip(grads.tolist(), lr.tolist(), momentum.tolist(), strict=True):
        previous = v
        v = m * v + rate * lr_mult * (g + decay * w)
        w -= (1 + m) * v - m * previous if nesterov else v
    return w


class TestAgainstScalars:
    @both_updates
    @pytest.mark.parametrize("weight_decay", [0.0, 0.03])
    def test_random_schedules_and_multipliers(self, nesterov: bool, weight_decay: float) -> None:
        iterations, weights = 25, parameters(1)
        multipliers = [(1.0, 1.0), (2.0, 0.0), (1.0, 0.5), (2.0, 1.0), (0.0, 1.0)]
        lr, momentum = schedule(2, 0, 0.5, iterations), schedule(3, 0, 1, iterations)
        grads = gradients(4, iterations)
        start = [w.detach().clone() for w in weights]
        optimizer = CaffeSGD(
            [(w, *m) for w, m in zip(weights, multipliers, strict=True)], lr, momentum, weight_decay, nesterov
        )
        for now in grads:
            give(weights, now)
            optimizer.step()
        for i, (w, (lr_mult, decay_mult)) in enumerate(zip(weights, multipliers, strict=True)):
            own = np.stack([now[i].numpy().ravel() for now in grads])
            expected = [
                scalar_reference(
                    start[i].ravel()[k].item(), own[:, k], lr, momentum, weight_decay * decay_mult, lr_mult, nesterov
                )
                for k in range(w.numel())
            ]
            assert_close(w.detach().ravel(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
        assert torch.equal(weights[-1], start[-1])  # lr_mult 0
        assert optimizer.iteration.item() == iterations

    @both_updates
    def test_fp32_stays_near_fp64(self, nesterov: bool) -> None:
        iterations = 200
        lr = torch.from_numpy(one_cycle(0.05, 0.5, 80, iterations))
        momentum = torch.tensor(0.9, dtype=torch.float64)
        ended = []
        for dtype in (torch.float32, torch.float64):
            weights = parameters(1, torch.float32)
            weights = [Parameter(w.detach().to(dtype)) for w in weights]
            optimizer = CaffeSGD(plain(weights), lr, momentum, 1e-3, nesterov)
            for now in gradients(5, iterations, torch.float32):
                give(weights, [g.to(dtype) for g in now])
                optimizer.step()
            assert all(x.dtype == dtype for x in (*optimizer.velocity, optimizer.lr, optimizer.momentum))
            ended.append([w.detach().double() for w in weights])
        for single, double in zip(*ended, strict=True):
            assert_close(single, double, rtol=1e-4, atol=1e-4)


class TestAgainstTorch:
    @both_updates
    @pytest.mark.parametrize("changing_momentum", [False, True])
    def test_equal_at_constant_learning_rate(self, nesterov: bool, changing_momentum: bool) -> None:
        iterations = 60
        ours, theirs = parameters(7), parameters(7)
        momentum = schedule(8, 0.7, 0.99, iterations) if changing_momentum else torch.full((iterations,), 0.9).double()
        caffe = CaffeSGD(plain(ours), torch.tensor(0.05).double(), momentum, 5e-4, nesterov)
        sgd = torch.optim.SGD(theirs, lr=caffe.lr.item(), momentum=0.9, weight_decay=5e-4, nesterov=nesterov)
        for now, m in zip(gradients(9, iterations), momentum.tolist(), strict=True):
            sgd.param_groups[0]["momentum"] = m
            for weights, optimizer in ((ours, caffe), (theirs, sgd)):
                give(weights, now)
                optimizer.step()
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, rtol=1e-11, atol=1e-11)

    @both_updates
    def test_equal_under_any_schedule_with_rescaled_buffers(self, nesterov: bool) -> None:
        """Multiplying torch's momentum buffers by lr[t-1] / lr[t] before step t turns it into Caffe's update."""
        iterations = 60
        ours, theirs = parameters(10), parameters(10)
        lr, momentum = schedule(11, 0.01, 0.5, iterations), schedule(12, 0.7, 0.99, iterations)
        caffe = CaffeSGD(plain(ours), lr, momentum, 1e-2, nesterov)
        sgd = torch.optim.SGD(theirs, lr=1.0, momentum=0.9, weight_decay=1e-2, nesterov=nesterov)
        previous = None
        for now, rate, m in zip(gradients(13, iterations), lr.tolist(), momentum.tolist(), strict=True):
            sgd.param_groups[0].update(lr=rate, momentum=m)
            if previous is not None:
                for state in sgd.state.values():
                    state["momentum_buffer"].mul_(previous / rate)
            previous = rate
            for weights, optimizer in ((ours, caffe), (theirs, sgd)):
                give(weights, now)
                optimizer.step()
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, rtol=1e-10, atol=1e-10)

    def test_differs_after_a_cycle(self) -> None:
        """Size of one step, ours over torch's, under a constant unit gradient on the logged resnet-56 schedule.

        They hardly differ on the ramps. When the cycle has ended, Caffe coasts on the velocity that it has.
        """
        expected = {100: 0.97, 4003: 0.996, 6000: 1.009, 7900: 1.17, 7980: 1.7, 8006: 45, 8050: 5.6, 8100: 1.4}
        lr = one_cycle(0.08, 0.8, 4003, 9277)
        ours, theirs = (Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2))
        caffe = CaffeSGD(plain([ours]), torch.from_numpy(lr), torch.tensor(0.95).double(), 0.0, nesterov=True)
        sgd = torch.optim.SGD([theirs], lr=1.0, momentum=0.95, nesterov=True)
        ours.grad, theirs.grad = torch.ones_like(ours), torch.ones_like(theirs)
        for t in range(max(expected) + 1):
            sgd.param_groups[0]["lr"] = lr[t]
            before = ours.item(), theirs.item()
            caffe.step()
            sgd.step()
            if t in expected:
                ratio = (ours.item() - before[0]) / (theirs.item() - before[1])
                assert ratio == pytest.approx(expected[t], rel=0.035 if t > 7900 else 0.004), t

    def test_coasts_after_a_drop(self) -> None:
        """Right after a multistep drop the velocity, so the step, is still almost that of before."""
        lr = script_multistep(0.1, 400)[:201]  # the first drop is at 200
        ours, theirs = (Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2))
        caffe = CaffeSGD(plain([ours]), torch.from_numpy(lr), torch.tensor(0.95).double(), 0.0, nesterov=False)
        sgd = torch.optim.SGD([theirs], lr=1.0, momentum=0.95)
        ours.grad, theirs.grad = torch.ones_like(ours), torch.ones_like(theirs)
        for rate in lr:
            sgd.param_groups[0]["lr"] = rate
            before = ours.item(), theirs.item()
            caffe.step()
            sgd.step()
        constant_lr_step = 0.1 / (1 - 0.95)
        assert before[0] - ours.item() == pytest.approx(constant_lr_step * (0.95 + 0.05 * 0.316), rel=1e-3)
        assert before[1] - theirs.item() == pytest.approx(constant_lr_step * 0.316, rel=1e-3)


class TestState:
    @both_updates
    def test_resumed_run_is_the_same_bit_for_bit(self, nesterov: bool, tmp_path) -> None:
        iterations = 30
        lr, momentum = schedule(20, 0, 0.5, iterations), schedule(21, 0, 1, iterations)
        grads = gradients(22, iterations, torch.float32)

        def run(weights: list[Parameter], optimizer: CaffeSGD, begin: int, end: int) -> None:
            for now in grads[begin:end]:
                give(weights, now)
                optimizer.step()

        whole = parameters(23, torch.float32)
        run(whole, CaffeSGD(plain(whole), lr, momentum, 1e-3, nesterov), 0, iterations)

        first = parameters(23, torch.float32)
        optimizer = CaffeSGD(plain(first), lr, momentum, 1e-3, nesterov)
        run(first, optimizer, 0, 13)
        torch.save({"weights": [w.detach() for w in first], "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
        saved = torch.load(tmp_path / "state.pt", weights_only=True)
        second = [Parameter(w) for w in saved["weights"]]
        resumed = CaffeSGD(plain(second), lr, momentum, 1e-3, nesterov)
        resumed.load_state_dict(saved["optimizer"])
        run(second, resumed, 13, iterations)
        assert resumed.iteration.item() == iterations
        assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))

    def test_state_is_a_copy_and_loads_in_place(self) -> None:
        weights = parameters(24)
        optimizer = CaffeSGD(plain(weights), torch.tensor(0.1), torch.tensor(0.9), 0.0)
        give(weights, gradients(25, 1)[0])
        optimizer.step()
        state = optimizer.state_dict()
        addresses = [v.data_ptr() for v in optimizer.velocity] + [optimizer.iteration.data_ptr()]
        optimizer.step()
        assert state["iteration"].item() == 1
        assert not any(torch.equal(v, s) for v, s in zip(optimizer.velocity, state["velocity"], strict=True))
        optimizer.load_state_dict(state)
        assert [v.data_ptr() for v in optimizer.velocity] + [optimizer.iteration.data_ptr()] == addresses
        assert all(torch.equal(v, s) for v, s in zip(optimizer.velocity, state["velocity"], strict=True))

    def test_another_networks_state_is_refused(self) -> None:
        weights = parameters(26)
        optimizer = CaffeSGD(plain(weights), torch.tensor(0.1), torch.tensor(0.9), 0.0)
        for velocity in ([], [torch.zeros(2)] * len(weights), [v.float() for v in optimizer.velocity]):
            with pytest.raises(ValueError, match="belongs to another network"):
                optimizer.load_state_dict({"iteration": torch.tensor(3), "velocity": velocity})
        assert optimizer.iteration.item() == 0


class TestStep:
    @both_updates
    def test_nonfinite_gradients_pass_through(self, nesterov: bool) -> None:
        weights = parameters(30)
        optimizer = CaffeSGD(plain(weights), torch.tensor(0.1), torch.tensor(0.9), 1e-3, nesterov)
        for bad in (float("inf"), float("nan")):
            give(weights, [torch.full_like(w, bad if i == 0 else 1.0) for i, w in enumerate(weights)])
            optimizer.step()
        assert weights[0].isnan().all()
        assert all(w.isfinite().all() for w in weights[1:])
        assert grad_norm(weights).isnan()

    def test_nothing_is_read_from_the_device(self) -> None:
        """No scalar goes to the host in a step, by the operations that are dispatched: on a GPU it would wait."""
        weights = parameters(28)
        optimizer = CaffeSGD(plain(weights), schedule(27, 0, 0.5, 4), schedule(29, 0, 1, 4), 1e-3)
        give(weights, gradients(41, 1)[0])
        with Operations() as operations:
            optimizer.step()
            grad_norm(weights)
        assert torch.ops.aten.index_select.default in operations.seen
        assert torch.ops.aten._local_scalar_dense.default not in operations.seen
        with Operations() as operations:  # what it would look like
            optimizer.lr[optimizer.iteration]
        assert torch.ops.aten._local_scalar_dense.default in operations.seen

    def test_lists_are_updated_whole(self) -> None:
        """On a GPU every call is a launch or several. Multipliers split no list but that which they multiply."""
        weights = parameters(70)
        multipliers = [(1.0, 1.0), (2.0, 0.0), (1.0, 0.5), (2.0, 1.0), (1.0, 1.0)]
        made = [(w, *m) for w, m in zip(weights, multipliers, strict=True)]
        optimizer = CaffeSGD(made, schedule(27, 0, 0.5, 4), schedule(29, 0, 1, 4), 1e-3)
        give(weights, gradients(71, 1)[0])
        with Operations() as operations:
            optimizer.step()
        # two decays, two learning rates, and v *= m, v += u, m v, u += m v, w -= u
        assert sum("_foreach_" in str(operation) for operation in operations.seen) == 2 + 2 + 5

    @pytest.mark.parametrize(
        "backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, needs_compiler])]
    )
    def test_compiles_once_without_graph_breaks(self, backend: str) -> None:
        """Changing learning rates and momenta must not recompile: dynamo counts the compilations."""
        iterations = 12
        lr, momentum = schedule(31, 0, 0.5, iterations), schedule(32, 0, 1, iterations)
        grads = gradients(33, iterations)
        eager, compiled = parameters(34), parameters(34)
        torch._dynamo.reset()
        counter = CompileCounterWithBackend(backend)
        runs = []
        for weights in (eager, compiled):
            optimizer = CaffeSGD([(w, 1.0 + (w.ndim == 1), 1.0) for w in weights], lr, momentum, 1e-3)
            step = (
                optimizer.step if weights is eager else torch.compile(optimizer.step, backend=counter, fullgraph=True)
            )
            for now in grads:
                for w, g in zip(weights, now, strict=True):
                    w.grad = g.clone() if w.grad is None else w.grad.copy_(g)
                step()
            runs.append(optimizer)
        assert counter.frame_count == 1
        assert runs[1].iteration.item() == iterations
        for a, b in zip(eager, compiled, strict=True):
            assert_close(a, b, rtol=1e-12, atol=1e-12)

    def test_memory_format_is_kept(self) -> None:
        w = Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
        optimizer = CaffeSGD(plain([w]), torch.tensor(0.1), torch.tensor(0.9), 1e-3)
        w.grad = torch.ones_like(w)
        optimizer.step()
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (w, optimizer.velocity[0]))

    def test_schedule_ends(self) -> None:
        w = Parameter(torch.zeros(2))
        optimizer = CaffeSGD(plain([w]), torch.full((3,), 0.1), torch.tensor(0.9), 0.0)
        w.grad = torch.ones_like(w)
        for _ in range(3):
            optimizer.step()
        with pytest.raises(IndexError):
            optimizer.step()

    def test_missing_gradient(self) -> None:
        weights = parameters(35)
        optimizer = CaffeSGD(plain(weights), torch.tensor(0.1), torch.tensor(0.9), 0.0)
        give(weights, gradients(36, 1)[0])
        optimizer.zero_grad()
        assert all(w.grad is None for w in weights)
        weights[0].grad = torch.ones_like(weights[0])
        with pytest.raises(ValueError, match="a parameter has no gradient"):
            optimizer.step()

    def test_grad_norm(self) -> None:
        weights, grads = parameters(39), gradients(40, 1)[0]
        give(weights, grads)
        expected = math.sqrt(sum(x * x for g in grads for x in g.ravel().tolist()))
        assert grad_norm(weights).item() == pytest.approx(expected, rel=1e-12)
        assert grad_norm(weights).shape == ()


class TestErrors:
    @pytest.mark.parametrize(
        ("lr", "momentum", "says"),
        [
            (torch.full((5,), 0.1), torch.full((6,), 0.9), "lr covers 5 iterations, momentum 6"),
            (torch.full((5, 1), 0.1), torch.tensor(0.9), r"lr is torch.float32 of shape \[5, 1\]"),
            (torch.tensor(1), torch.tensor(0.9), "lr is torch.int64"),
            (torch.tensor(0.1), torch.empty((), device="meta"), "momentum is torch.float32 of shape .* on meta"),
        ],
    )
    def test_schedules_that_do_not_fit(self, lr: Tensor, momentum: Tensor, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            CaffeSGD(plain(parameters(50)), lr, momentum, 0.0)

    def test_parameters_that_do_not_fit(self) -> None:
        lr, momentum, w = torch.tensor(0.1), torch.tensor(0.9), Parameter(torch.zeros(2))
        half = Parameter(torch.zeros(2, dtype=torch.bfloat16))
        for weights, says in (
            ([], "no parameters"),
            ([w, w], "listed twice"),
            ([w, half], "bfloat16 on cpu, torch.float32 on cpu"),
            ([half], "all must be float32 on one device"),
        ):
            with pytest.raises(ValueError, match=says):
                CaffeSGD(plain(weights), lr, momentum, 0.0)
