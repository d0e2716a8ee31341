"""The device: freed memory is kept where the C library can, and nowhere else is anything called."""

import ctypes
import resource
import subprocess
import sys

import pytest
import torch

from experiments import device as devices
from experiments.compose import ROOT

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
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


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
