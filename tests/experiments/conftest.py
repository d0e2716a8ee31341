"""ImageNet in small: class folders of JPEGs of many shapes; what a device's configuration leaves behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

CLASSES = ("n01440764", "n01443537", "n02123045")
SHAPES = ((50, 37), (37, 50), (40, 40), (64, 48), (200, 130), (18, 12))


@pytest.fixture
def jpegs(tmp_path):
    """A function that makes tmp_path/imagenet with train images and val images per class, and returns tmp_path.

    Every class has a colour of its own, every image another pattern and shape.
    """

    def make(train: int = 8, val: int = 7) -> Path:
        rng = np.random.default_rng(0)
        for split, n in (("train", train), ("val", val)):
            for label, name in enumerate(CLASSES):
                folder = tmp_path / "imagenet" / split / name
                folder.mkdir(parents=True)
                for i in range(n):
                    small = rng.integers(0, 120, (6, 6, 3))
                    small[..., label] += 120
                    image = Image.fromarray(small.astype(np.uint8)).resize(SHAPES[i % len(SHAPES)], Image.BICUBIC)
                    image.save(folder / f"{split}_{name}_{i}.JPEG", quality=90)
        return tmp_path

    return make


@pytest.fixture
def numerics():
    """Puts back what `experiments.device.configure` sets for the process on CUDA, threads included."""
    cudnn, matmul, threads = torch.backends.cudnn, torch.backends.cuda.matmul, torch.get_num_threads()
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    yield
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
    torch.set_num_threads(threads)
