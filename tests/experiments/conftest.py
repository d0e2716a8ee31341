"""Data sets in small; what a device's configuration leaves behind."""

from dataclasses import replace

import pytest
import torch
from data_files import COUNT

from experiments.data import known


@pytest.fixture
def small_sets(monkeypatch):
    """The three data sets with 40 training and 20 test images."""
    for name, facts in list(known.FACTS.items()):
        monkeypatch.setitem(known.FACTS, name, replace(facts, **COUNT))
    return known.FACTS


@pytest.fixture
def numerics():
    """Puts back what `experiments.device.configure` sets for the process on CUDA, threads included."""
    cudnn, matmul, threads = torch.backends.cudnn, torch.backends.cuda.matmul, torch.get_num_threads()
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    yield
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
    torch.set_num_threads(threads)
