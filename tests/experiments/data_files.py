"""Small data sets written in the real file formats, for the tests of the data layer."""

import struct

import numpy as np
import pytest
from PIL import Image

from experiments.data import load
from experiments.errors import UserError

COUNT = {"train": 40, "test": 20}
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def arrays(shape, classes, seed=1):
    """{"train": (images, labels), "test": ...}: random pixels, every class present."""
    rng = np.random.default_rng(seed)
    made = {}
    for split, n in COUNT.items():
        made[split] = rng.integers(0, 256, (n, *shape), dtype=np.uint8), rng.permutation(n) % classes
    return made


def python2_batch(images, labels, key="labels"):
    """The bytes of a CIFAR batch as Python 2 and NumPy 1 wrote them: protocol 2, byte strings, numpy.core."""

    def text(content):
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value):
        return b"J" + struct.pack("<i", value)

    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
    array += b"(" + number(1) + b"(" + number(rows.shape[0]) + number(rows.shape[1]) + b"t"
    array += dtype + b"\x89" + text(rows.tobytes()) + b"tb"
    numbers = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    items = text(b"batch_label") + text(b"a batch") + text(key.encode()) + numbers + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_npz(folder, name, made):
    for split, (images, labels) in made.items():
        np.savez(folder / f"{name}-{split}.npz", images=images, labels=labels)


def write_folders(root, made, classes, suffix="png"):
    """Class folders; file names do not follow the order of the arrays."""
    for split, (images, labels) in made.items():
        for c in classes:
            (root / split / c).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / split / classes[label] / f"{(i * 7) % 1000:04d}.{suffix}"
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def assert_same(found, made):
    for split, (images, labels) in made.items():
        mine = getattr(found, split)
        assert mine.images.dtype == np.uint8 and mine.labels.dtype == np.int64
        np.testing.assert_array_equal(mine.images, images)
        np.testing.assert_array_equal(mine.labels, labels)


def refused(name, data_dir, *words):
    """`load` raises a UserError of one sentence that names everything in `words`."""
    with pytest.raises(UserError) as caught:
        load(name, data_dir=data_dir, download=False)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def as_set(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
