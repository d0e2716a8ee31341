"""The device: freed memory is kept where the C library can, and nowhere else is anything called."""

import ctypes
import resource
import subprocess
import sys

import pytest

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
