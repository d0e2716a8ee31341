"""What a data set is to the rest of the suite: uint8 arrays, labels, and an honest name."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, H, W, C] and labels int64 [N], in the order in which they are read."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class ImageSet:
    """A training and a test split with what a figure must say about them.

    ``title`` is printed on figures and never claims more than was verified; ``original`` is True only where
    the files' checksums are those of the published data set. ``fingerprint`` is the start of a sha256 over all
    pixels and labels. ``source`` says which form was read, without machine-specific folders.
    """

    train: Split
    test: Split
    name: str
    title: str
    classes: int
    original: bool
    fingerprint: str
    source: str


def digest(train: Split, test: Split) -> str:
    """First 16 hex digits of the sha256 over both splits' images and labels, shapes and dtypes included."""
    sha = hashlib.sha256()
    for split in (train, test):
        for array in (split.images, np.asarray(split.labels, dtype="<i8")):
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:16]


def mean_image(train_images: np.ndarray) -> np.ndarray:
    """Mean training image, float32 [H, W, C] on the 0-255 scale; the sum is exact (integers), the division float64.

    The author's data layers subtract it from every image and scale nothing (``mean_file`` in
    lnsmith54/hyperParam1 Cifar/architectures).
    """
    if train_images.ndim != 4 or train_images.dtype != np.uint8 or len(train_images) == 0:
        raise ValueError(f"expected uint8 [N, H, W, C] with N > 0, got {train_images.dtype} {train_images.shape}")
    return (train_images.sum(axis=0, dtype=np.int64) / len(train_images)).astype(np.float32)


class Form(NamedTuple):
    """What a file says of an array before any of it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


def check_forms(
    images: Form | np.ndarray,
    labels: Form | np.ndarray,
    *,
    where: str,
    count: int,
    shape: tuple[int, int, int],
) -> None:
    """Raises UserError, naming ``where`` the arrays come from, unless they are ``count`` images of ``shape`` [H, W, C]
    and as many labels."""
    if images.dtype != np.uint8:
        raise UserError(f"{where}: images are {images.dtype}, expected uint8 from 0 to 255.")
    if len(images.shape) != 4 or images.shape[1:] != shape:
        raise UserError(f"{where}: images have shape {list(images.shape)}, expected [N, {', '.join(map(str, shape))}].")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where}: labels are {labels.dtype}, expected int64.")
    n = images.shape[0]
    if labels.shape != (n,):
        raise UserError(f"{where}: labels have shape {list(labels.shape)}, expected [{n}], one for each image.")
    if n != count:
        raise UserError(f"{where}: holds {n:,} images, expected {count:,}; it is cut short or another data set.")


def checked_split(
    images: np.ndarray, labels: np.ndarray, *, where: str, count: int, shape: tuple[int, int, int], classes: int
) -> Split:
    """A Split of exactly ``count`` images of ``shape`` [H, W, C] with labels in [0, classes).

    Raises UserError, naming ``where`` the arrays came from, for any other dtype, shape, number or range.
    """
    check_forms(images, labels, where=where, count=count, shape=shape)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UserError(f"{where}: labels run from {low} to {high}, expected 0 to {classes - 1}.")
    return Split(np.ascontiguousarray(images), labels.astype(np.int64))
