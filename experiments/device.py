"""Which device trains, and what is said of it on figures and in records."""

import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import interrupts
from experiments.errors import UserError
from experiments.settings import nearest

if TYPE_CHECKING:  # torch is for what computes
    import torch

STEPS = ("auto", "eager", "graph", "compile")
"""How an iteration runs; `experiments.step` explains them."""

STEPS_AHEAD = 16
"""Steps that the host may be ahead of a CUDA device: enough never to keep it waiting."""

LONGEST_TMPDIR = 70
"""Bytes: a socket's address has 107, on macOS 103, and the name of one in this folder 32 more."""

CPUINFO = Path("/proc/cpuinfo")
QUOTAS = Path("/sys/fs/cgroup")


@cache
def cpu_name() -> str:
    """The processor's model, as the system names it: Linux on ARM knows only numbers, which lscpu has names for."""
    with suppress(OSError, StopIteration):
        lines = CPUINFO.read_text(errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    english = {**os.environ, "LC_ALL": "C"}
    asked = {r"Model name: *([^-\s].*)": ["lscpu"], "(.+)": ["sysctl", "-n", "machdep.cpu.brand_string"]}
    for pattern, command in asked.items():
        with suppress(OSError):
            said = subprocess.run(command, capture_output=True, text=True, env=english).stdout
            if found := re.search(f"^{pattern}$", said, re.MULTILINE):
                return found[1]
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores this process may use: those it may run on, or what its container's quota of time is worth."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def check_sockets(otherwise: str) -> None:
    """Whether worker processes can hand over tensors: where not, a thread of theirs dies and all wait for ever.

    Raises UserError, with what can be done besides taking another folder.
    """
    folder = os.fsencode(tempfile.gettempdir())
    if len(folder) > LONGEST_TMPDIR:
        raise UserError(
            f"TMPDIR={os.fsdecode(folder)} has {len(folder)} bytes. Processes hand over images through sockets in this "
            f"folder, whose name can have {LONGEST_TMPDIR} at most: TMPDIR=/tmp, or {otherwise}."
        )


def default_threads() -> int:
    """Threads of a process for which none are asked: OMP_NUM_THREADS, as everywhere in PyTorch, at most all cores."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(said), cores()) if re.fullmatch(r"[1-9][0-9]{0,3}", said) else cores()


def _quota() -> float:
    """How many cores' time a container has (docker --cpus, Kubernetes' limits); infinite without a quota."""
    for one, other in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroup 2 and 1
        with suppress(OSError, ValueError):
            words = " ".join((QUOTAS / name).read_text() for name in (one, other) if name).split()
            quota, period = float(words[0]), float(words[1])  # "max 100000", or -1: none
            if quota > 0 and period > 0:
                return quota / period
    return math.inf


def choose(wish: str) -> "torch.device":
    """The device for "auto", "cpu", "cuda" or "cuda:1". Raises UserError where there is no such device."""
    with interrupts.importing():  # of most commands the first place that needs it
        import torch

    if wish == "auto":  # torch itself warns of a GPU that it has no code for
        wish = "cuda" if torch.cuda.is_available() and _has_code_for(0) else "cpu"
    if wish == "cpu":
        return torch.device("cpu")
    if not wish.startswith("cuda"):
        meant = nearest("cuda" if wish.startswith("gpu") else wish, ("auto", "cpu", "cuda"))
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
    if not _has_code_for(device.index or 0):
        major, minor = torch.cuda.get_device_capability(device)
        raise UserError(
            f"device={wish}: torch {torch.__version__} has no code for {torch.cuda.get_device_name(device)}, of "
            f"compute capability {major}.{minor} (it has {', '.join(torch.cuda.get_arch_list())}). Use DEVICE=cpu, or "
            "install a torch for another version of CUDA that still has it."
        )
    return device


def check_step(wish: str, device: "torch.device") -> None:
    """Refuse one of STEPS that a device has not. Raises UserError."""
    if wish == "graph" and device.type != "cuda":
        raise UserError("step=graph needs a CUDA device: use step=auto, eager or compile.")


def _has_code_for(index: int) -> bool:
    """Whether this torch was compiled for a CUDA device: its first kernel would fail on an older one."""
    import torch

    return has_code(torch.cuda.get_device_capability(index), torch.cuda.get_arch_list())


def has_code(capability: tuple[int, int], compiled_for: Sequence[str]) -> bool:
    """Whether a GPU runs what was compiled for "sm_80" or "compute_80": code of its own major number, or any older PTX.

    What is compiled for other machines ("gfx90a") is not judged.
    """
    known = [found for name in compiled_for if (found := re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name))]
    versions = [(kind, (int(major), int(minor))) for kind, major, minor in (found.groups() for found in known)]
    return not versions or any(
        version <= capability and (kind == "compute" or version[0] == capability[0]) for kind, version in versions
    )


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
    threshold = any(mallopt(-3, size) for size in (2**30, 2**25))  # M_MMAP_THRESHOLD: older glibc takes 32 MiB at most
    trim, pad = mallopt(-1, 2**31 - 1), mallopt(-2, 2**26)  # M_TRIM_THRESHOLD, M_TOP_PAD
    return bool(threshold and trim and pad)


def configure(device: "torch.device", threads: int | None) -> None:
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
    torch.set_num_threads(threads or default_threads())
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    else:
        keep_memory()


def has_bf16(device: "torch.device") -> bool:
    """Whether this is a GPU that computes in bf16; older ones only emulate it, at a loss.

    Where there is none, as on a cluster's login node, the GPUs that the jobs will have are taken to.
    """
    import torch

    if device.type != "cuda" or not torch.cuda.is_available():
        return device.type == "cuda"
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def emulates_bf16(device: "torch.device") -> bool:
    """Whether this is a CPU without instructions for bf16, where fp32 is faster: with AVX2 about ten times."""
    import torch

    if device.type != "cpu":
        return False
    if platform.machine() in ("x86_64", "AMD64"):  # the question below is answered there by AVX-512 of any kind
        return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def failure(error: BaseException) -> UserError | None:
    """The sentence for a GPU that refuses or has failed, None for any other error.

    Where there is no room even for a context, or another process has the device for itself, it is of this kind, and no
    torch.OutOfMemoryError.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.AcceleratorError):
        return None
    said = str(error).partition("\n")[0]
    return UserError(
        f"The GPU failed ({said}): see with nvidia-smi whether it is full, taken by one process for itself, or broken; "
        "the same command then goes on from the last checkpoint. DEBUG=1 before it shows where this was."
    )


def clock(device: "torch.device") -> float:
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

    def __init__(self, device: "torch.device") -> None:
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


def name(device: "torch.device") -> str:
    """What figures print: the model of the GPU, or the processor with its threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def instructions(device: "torch.device") -> str | None:
    """What this processor computes with ("AVX2", "AVX512, bf16"), which its name may not tell; None for a GPU."""
    import torch

    if device.type == "cuda":
        return None
    return torch.backends.cpu.get_cpu_capability() + ("" if emulates_bf16(device) else ", bf16")


def environment(device: "torch.device") -> dict[str, Any]:
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
