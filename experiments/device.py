"""Which device trains, and what is said of it on figures and in records."""

import os
import platform
import time
from collections import deque
from typing import Any

from experiments.errors import UserError
from experiments.settings import nearest

STEPS = ("auto", "eager", "graph", "compile")
"""How an iteration runs; `experiments.step` explains them."""

STEPS_AHEAD = 16
"""Steps that the host may be ahead of a CUDA device: enough never to keep it waiting."""


def cpu_name() -> str:
    """The processor's model, as the system names it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose(wish: str):
    """The torch.device for "auto", "cpu", "cuda" or "cuda:1". Raises UserError where there is no such device."""
    import torch

    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    if wish == "cpu":
        return torch.device("cpu")
    if not wish.startswith("cuda"):
        meant = nearest("cuda" if wish.startswith("gpu") else wish, ("auto", "cpu", "cuda", "cuda:1"))
        raise UserError(f"device={wish} is not known: {meant}")
    if not torch.cuda.is_available():
        raise UserError(
            f"device={wish}: torch {torch.__version__} finds no CUDA device here. Use DEVICE=cpu (with SCALE=quick or "
            "smoke), or check the driver with nvidia-smi."
        )
    try:
        device = torch.device(wish)
    except RuntimeError:
        raise UserError(f"device={wish} is not a device: expected cpu, cuda or cuda:N.") from None
    torch.cuda.init()  # before it, device_count() does not know a GPU's partitions (MIG) from GPUs
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"device={wish}: this machine has CUDA devices 0 to {torch.cuda.device_count() - 1}.")
    return device


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, where the C library is glibc. Returns whether it is.

    By itself glibc hands large blocks back to the system, which zeroes every page of the next step's activations anew.
    Kept, a step of the 3-layer network (1 thread, batch 524) faults in 5 pages an image instead of 35 and spends 5 us
    an image in the kernel instead of 65: 2,050 instead of 1,790 to 1,930 images per second of processor time in fp32,
    2,630 to 2,800 instead of 2,420 to 2,560 in bf16; LeNet 6,020 instead of 5,490; resnet-56 within the noise. Peak
    memory stays within 2 %. Passing the batch in small pieces, which helped without, no longer does: 512, 128, 64, 32
    or 16 images at once make 2,154, 2,121, 2,146, 2,056 and 1,886 (without: 1,436, 2,029, 2,165, 2,031, 1,839).
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    mmap_threshold, trim_threshold, top_pad = (-3, 2**30), (-1, 2**31 - 1), (-2, 2**26)
    return all(mallopt(option, value) for option, value in (mmap_threshold, trim_threshold, top_pad))


def configure(device, threads: int | None) -> None:
    """Threads, memory and numerics, once per process: fp32 means fp32 (no TF32), convolutions pick their algorithm.

    device=cuda:N becomes the current one: pinning memory for it, by a DataLoader's thread too, and what torch.compile
    asks by the way would otherwise open a context on GPU 0, which takes half a GB there and fails where it is full.
    """
    import torch

    if threads is not None and threads < 1:
        raise UserError(f"threads={threads}: a whole number from 1 up is expected.")
    if threads is not None and threads > 4 * cores():
        raise UserError(
            f"threads={threads}: this machine has {cores()} cores; more threads than that only slow it down."
        )
    torch.set_num_threads(threads or cores())
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    else:
        keep_memory()


def has_bf16(device) -> bool:
    """Whether this is a GPU that computes in bf16; older ones only emulate it, at a loss.

    Where there is none, as on a cluster's login node, the GPUs that the jobs will have are taken to.
    """
    import torch

    if device.type != "cuda" or not torch.cuda.is_available():
        return device.type == "cuda"
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def emulates_bf16(device) -> bool:
    """Whether this is a CPU without instructions for bf16, where fp32 trains several times as fast."""
    import torch

    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def clock(device) -> float:
    """Seconds, once the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Pace:
    """Keeps the host at most `STEPS_AHEAD` steps ahead of a CUDA device; on a CPU there is nothing to keep.

    CUDA itself lets hundreds of recorded steps queue up: Ctrl-C would wait for them, and the batches copied from pinned
    memory for each would have to lie ready.
    """

    def __init__(self, device) -> None:
        self.device = device
        self.queued: deque[Any] = deque()

    def step(self) -> None:
        """A step was handed to the device. Waits for the one `STEPS_AHEAD` before it, never for the newest."""
        if self.device.type != "cuda":
            return
        import torch

        self.queued.append(torch.cuda.Event(blocking=True))
        self.queued[-1].record(torch.cuda.current_stream(self.device))
        if len(self.queued) > STEPS_AHEAD:
            self.queued.popleft().synchronize()


def name(device) -> str:
    """What figures print: the model of the GPU, or the processor with its threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def instructions(device) -> str | None:
    """The vector instructions of this processor ("AVX2", "AVX512"), which its name may not tell; None for a GPU."""
    import torch

    return None if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()


def environment(device) -> dict[str, Any]:
    """What a run's record says of the machine and the libraries."""
    import torch

    return {
        "device": name(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        # Processors of one name may compute with other instructions, and round differently.
        "instructions": instructions(device),
        "system": f"{platform.system()} {platform.machine()}",
    }
