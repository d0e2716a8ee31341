"""One run on several processes, each with an equal part of its virtual GPUs.

Rank r of R hosts the virtual GPUs r G/R ... (r+1) G/R - 1: it trains their rows of every batch and tests every R-th
piece of the test set. What crosses between processes is one sum of all gradients a step, the running statistics of
virtual GPU 0 before a test and two sums after it.

Gradients are averaged in one flat buffer rather than by DistributedDataParallel. A CPU passes one virtual GPU after
the other, so DDP would need no_sync around all passes but the last; its hooks stand in the way of CUDA graphs; and
what it gains, hiding communication behind the backward pass, is little with networks of 0.4 to 60 MB of gradients
that one call sums.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LONGEST_WAIT = timedelta(hours=2)
"""For a rank that writes a checkpoint or decodes images; one that dies is noticed by the process that started it."""

BETWEEN_QUESTIONS, MOST_ITERATIONS = 0.3, 500
"""About so many seconds, and at most so many iterations, pass between two questions whether to stop."""


def _as_one(tensors: Sequence[Tensor], collective: Callable[[Tensor], object]) -> None:
    """Apply what works on one flat tensor in place to all of them at once."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    collective(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)])


def _line(tensor: Tensor) -> Tensor | None:
    """A tensor's values in the order of memory, as a view; None where it has gaps or an order of its own."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1).view(-1)
    return None


@dataclass(frozen=True)
class Share:
    """The part of a run that this process does: the `rank`-th of `ranks` equal ones.

    host: the group for small tensors in the host's memory, so that asking does not wait for a device.
    The methods work in place, and do nothing where there is one process.
    """

    rank: int = 0
    ranks: int = 1
    host: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process hosts virtual GPU 0: it takes the metrics and writes all files."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """This rank's of n things in a row, for n that divides by `ranks`."""
        each = n // self.ranks
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, tensors: Sequence[Tensor | None]) -> None:
        """Replace each gradient by its mean over the ranks. None (a parameter without gradient) is left out.

        A gradient lies in memory as its parameter does, on all ranks alike, so values can be sent in that order: put
        into another one, those of every convolution would be copied by a kernel each, there and back.
        """
        if self.ranks == 1:
            return

        def mean(flat: Tensor) -> None:
            dist.all_reduce(flat)
            flat.div_(self.ranks)

        given = [tensor for tensor in tensors if tensor is not None]
        lines = [line for tensor in given if (line := _line(tensor)) is not None]
        _as_one(lines if len(lines) == len(given) else given, mean)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks."""
        if self.ranks > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_lead(self, tensors: Sequence[Tensor]) -> None:
        """Take over rank 0's values of floating tensors."""
        if self.ranks == 1 or not tensors:
            return
        _as_one(tensors, lambda flat: dist.broadcast(flat, src=0))

    def told(self, *numbers: int) -> list[int]:
        """Rank 0's numbers, on every rank."""
        if self.ranks == 1:
            return list(numbers)
        message = torch.tensor(numbers, dtype=torch.int64)
        dist.broadcast(message, src=0, group=self.host)
        return message.tolist()

    def meet(self, iteration: int) -> None:
        """Wait for all ranks. Raises RuntimeError where they are not about to train the same iteration."""
        if self.ranks == 1:
            return
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.ranks)]
        dist.all_gather(found, torch.tensor([iteration]), group=self.host)
        if len({int(one) for one in found}) > 1:
            raise RuntimeError(f"the ranks would start at iterations {[int(one) for one in found]}: they must agree")


ALONE = Share()


class Agreement:
    """A question "stop?" that every rank answers alike at the same iteration: with rank 0's wish.

    Asked once an iteration. Only every few iterations, as rank 0 measures them, does the answer cross between the
    processes; in between it is no.
    """

    def __init__(self, share: Share, wish: Callable[[], bool]):
        self.share, self.wish = share, wish
        self.asked, self.interval, self.since = 0, 1, time.monotonic()

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked < self.interval:
            return False
        now = time.monotonic()
        each = max((now - self.since) / self.asked, 1e-6)
        wanted = max(1, min(int(BETWEEN_QUESTIONS / each), 2 * self.interval, MOST_ITERATIONS))
        stop, self.interval = self.share.told(int(self.wish()), wanted)
        self.asked, self.since = 0, time.monotonic()
        return bool(stop)


def join(rank: int, ranks: int, device: torch.device, meeting: Path) -> Share:
    """Meet the other ranks of this machine through a file that only they use. NCCL on CUDA devices, gloo on a CPU."""
    if ranks == 1:
        return ALONE
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's own name need not lead to it
    on_cuda = device.type == "cuda"
    store = dist.FileStore(str(meeting), ranks)  # by its path, for an address would need its blanks taken back
    store.set_timeout(LONGEST_WAIT)
    dist.init_process_group(
        "nccl" if on_cuda else "gloo",
        store=store,
        rank=rank,
        world_size=ranks,
        timeout=LONGEST_WAIT,
        device_id=device if on_cuda else None,
    )
    return Share(rank, ranks, dist.new_group(backend="gloo", timeout=LONGEST_WAIT) if on_cuda else dist.group.WORLD)


def leave(share: Share) -> None:
    """End what `join` began."""
    if share.ranks > 1:
        dist.destroy_process_group()
