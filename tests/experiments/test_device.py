"""The device: freed memory is kept where the C library can, and nowhere else is anything called."""

import ctypes
import os
import resource
import subprocess
import sys

import pytest
import torch

from experiments import device as devices
from experiments.compose import ROOT
from experiments.errors import UserError

PROGRAM = """
import resource, sys
import torch
from experiments import device
torch.set_num_threads(1)
kept = sys.argv[1] == "kept"
if kept:
    device.configure(torch.device("cpu"), 1)
for _ in range(3):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    """Page faults of ten allocations of 64 MiB."""
    command = [sys.executable, "-c", PROGRAM, word]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    return int(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not devices.keep_memory(), reason="needs glibc")
def test_freed_pages_are_used_again():
    pages = 10 * 2**26 // resource.getpagesize()
    plain = faults("plain")
    assert plain > pages / 1000, "else there is nothing to keep, huge pages or not"
    assert faults("kept") < plain / 2  # as a rule none, but a busy system may take back a block


def test_another_c_library_is_left_alone(monkeypatch):
    class Musl:
        def __init__(self, _):
            pass

    monkeypatch.setattr(ctypes, "CDLL", Musl)
    assert not devices.keep_memory()


def test_an_older_c_library_keeps_smaller_blocks(monkeypatch):
    """There glibc refuses a threshold above 32 MiB; the other options are set all the same."""
    accepted = []

    class Older:
        def __init__(self, _):
            self.mallopt = lambda option, value: int(option != -3 or value <= 2**25) and not accepted.append(option)

    monkeypatch.setattr(ctypes, "CDLL", Older)
    assert devices.keep_memory()
    assert sorted(accepted) == [-3, -2, -1]


def test_a_refusal_is_told(monkeypatch):
    class Refusing:
        def __init__(self, _):
            self.mallopt = lambda option, value: 0

    monkeypatch.setattr(ctypes, "CDLL", Refusing)
    assert not devices.keep_memory()


@pytest.mark.parametrize(("name", "current"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", [])])
def test_the_gpu_that_was_named_is_the_current_one(name, current, numerics, monkeypatch):
    """Else memory would be pinned through GPU 0."""
    found = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: found.append(str(device)))
    devices.configure(torch.device(name), 1)
    assert found == current
    if name != "cpu":
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_a_containers_quota_counts(files, cores, tmp_path, monkeypatch):
    """64 threads on two cores' time would wait for each other most of the time."""
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(devices, "QUOTAS", tmp_path)
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    assert devices.cores() == cores


@pytest.mark.parametrize(
    ("cpuinfo", "lscpu", "name"),
    [
        ("processor : 0\nmodel name\t: AMD EPYC 9R14\n", "Model name: other", "AMD EPYC 9R14"),
        ("CPU implementer : 0x41\n", "Vendor ID:   ARM\nModel name:  Neoverse-V1\n", "Neoverse-V1"),
        ("CPU implementer : 0x41\n", "Vendor ID:   ARM\nModel name:  -\n", None),
    ],
)
def test_a_processor_has_its_name(cpuinfo, lscpu, name, tmp_path, monkeypatch):
    for file, content in (("cpuinfo", cpuinfo), ("lscpu", f"#!/bin/sh\nprintf '{lscpu}'\n")):
        (tmp_path / file).write_text(content)
    (tmp_path / "lscpu").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "cpuinfo")
    named = devices.cpu_name.__wrapped__()
    assert named == (name or devices.platform.processor() or devices.platform.machine())


@pytest.mark.parametrize(
    ("capability", "compiled_for", "runs"),
    [
        ((9, 0), ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"], True),
        ((8, 9), ["sm_75", "sm_80", "sm_86", "sm_90"], True),
        ((6, 1), ["sm_75", "sm_80", "sm_86", "sm_90"], False),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((12, 1), ["sm_90a", "sm_120"], True),
        ((13, 0), ["sm_90a", "sm_120"], False),
        ((13, 0), ["sm_90a", "sm_120", "compute_120"], True),
        ((9, 4), ["gfx90a", "gfx942"], True),
    ],
)
def test_a_gpu_needs_code_of_its_own_kind(capability, compiled_for, runs):
    assert devices.has_code(capability, compiled_for) == runs


def test_a_gpu_without_code_is_not_chosen_and_refused_by_name(monkeypatch):
    """torch says that it is there, and fails at the first kernel."""
    for function, answer in {
        "is_available": True,
        "init": None,
        "device_count": 1,
        "get_device_capability": (6, 1),
        "get_device_name": "GeForce GTX 1060",
        "get_arch_list": ["sm_75", "sm_80"],
    }.items():
        monkeypatch.setattr(torch.cuda, function, lambda *_, answer=answer: answer)
    assert devices.choose("auto").type == "cpu"
    with pytest.raises(UserError, match=r"no code for GeForce GTX 1060, of compute capability 6.1 .it has sm_75"):
        devices.choose("cuda")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_61"])
    assert devices.choose("auto").type == devices.choose("cuda:0").type == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_training_on_the_second_gpu_leaves_the_first_alone():
    program = """
import torch
from experiments import device
from experiments.benchmark import settings_of
from experiments.estimate import random_images
from experiments.trainer import Trainer
second = torch.device("cuda:1")
device.configure(second, 1)
settings = settings_of("cifar3", 8, "bf16")
trainer = Trainer(settings, random_images(settings, 64, 8), second, "graph")
trainer.step(0), trainer.update(), trainer.test()
print([torch._C._cuda_hasPrimaryContext(gpu) for gpu in (0, 1)])
"""
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[False, True]"


def test_the_host_waits_for_the_step_before_the_last_few_only(monkeypatch):
    waited, stamps = [], iter(range(1000))

    class Event:
        def __init__(self, blocking):
            assert blocking, "a core is not to spin"

        def record(self, stream):
            self.number = next(stamps)

        def synchronize(self):
            waited.append(self.number)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    pace = devices.Pace(torch.device("cuda"))
    for _ in range(devices.STEPS_AHEAD):
        pace.step()
    assert waited == []
    pace.step()
    pace.step()
    assert waited == [0, 1]
    on_cpu = devices.Pace(torch.device("cpu"))
    for _ in range(100):
        on_cpu.step()
    assert waited == [0, 1]


@pytest.mark.parametrize(
    ("said", "threads"), [("1", 1), (" 2,1", 2), ("64", 4), ("0", 4), ("", 4), ("all", 4), ("-1", 4)]
)
def test_threads_are_as_many_as_elsewhere_in_pytorch(said, threads, monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert devices.default_threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert devices.default_threads() == 4


def test_a_gpu_that_failed_is_a_sentence():
    error = torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere")
    assert str(devices.failure(error)).startswith("The GPU failed (CUDA error: out of memory): see with nvidia-smi")
    assert devices.failure(RuntimeError("CUDA error")) is None
