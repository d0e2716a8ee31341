"""Training batches made on the device: no worker, no copy from the host inside a step.

The images stay on the device as uint8 (CIFAR-10: 154 MB). A batch is an index, a flip, a subtraction of the mean
image and a cast. Nothing here keeps a state: batch t follows from the settings and t alone, so there is nothing to
restore when a run goes on, and any number of devices reads the same batches.
"""

from collections.abc import Iterator

import numpy as np
import torch

from experiments.data import ImageSet, mean_image
from experiments.distributed import ALONE, Share
from experiments.errors import UserError
from experiments.order import Order
from experiments.settings import Settings

CHUNK = 256
"""Iterations whose flips are drawn at once. Another number would draw other flips."""


def to_device(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 [N, H, W, C] to a uint8 tensor [N, C, H, W] on the device, in channels_last memory (as it lay on disk)."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)


def upload(values: np.ndarray, target: torch.Tensor) -> None:
    """Copy into a tensor, in place. Out of pinned memory the host need not wait for a CUDA device."""
    source = torch.from_numpy(values)
    target.copy_(source.pin_memory() if target.device.type == "cuda" else source, non_blocking=True)


class Batches:
    """The training set of a run on a device, and the batch of every iteration.

    Which records a batch holds is `experiments.order.Order`'s; share says which rows of them this process takes.
    `point` says which batch is meant, from the host and without waiting for the device; `batch` makes it out of
    tensors of fixed address, so that a CUDA graph can hold it.
    """

    def __init__(self, settings: Settings, data: ImageSet, device: torch.device, share: Share = ALONE):
        self.batch_size, self.dataset, self.seed = settings.batch.total, settings.dataset, settings.seed
        self.part = share.part(self.batch_size)
        self.device = device
        self.images = to_device(data.train.images, device)
        self.labels = torch.from_numpy(data.train.labels).to(device)
        mean = mean_image(data.train.images) * np.float32(settings.dataset.subtract_mean)
        self.mean = torch.from_numpy(mean).to(device).permute(2, 0, 1)[None]
        self.order = Order(settings, len(self.labels))
        self.rows = torch.from_numpy(self.order.rows[self.part]).to(device)
        self._numpy, self._chunk = np.empty(0), -1
        self._start, self._offset = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        self._records = torch.zeros(2 * len(self.labels), dtype=torch.int64, device=device)
        self._flips = torch.zeros((CHUNK, self.batch_size), dtype=torch.bool, device=device)

    def point(self, t: int) -> None:
        """Let `batch` make batch t."""
        epoch, start = self.order.place(t)
        records = self.order.two_epochs(epoch)
        if records is not self._numpy:  # once an epoch at most
            self._numpy = records
            upload(records, self._records)
        self._start.fill_(start)
        if self.dataset.mirror:
            chunk, offset = divmod(t, CHUNK)
            if chunk != self._chunk:
                self._chunk = chunk
                upload(np.random.default_rng((self.seed, 2, chunk)).random((CHUNK, self.batch_size)) < 0.5, self._flips)
            self._offset.fill_(offset)

    def _index(self) -> torch.Tensor:
        return self._records[self._start + self.rows]

    def _flip(self) -> torch.Tensor:
        return self._flips.index_select(0, self._offset).view(-1, 1, 1, 1)[self.part]

    def indices(self, t: int) -> torch.Tensor:
        """Which records batch t holds: int64 [total batch], or this share's part of it."""
        self.point(t)
        return self._index()

    def flips(self, t: int) -> torch.Tensor:
        """Which images of batch t are mirrored: bool [total batch, 1, 1, 1], each with probability 1/2."""
        self.point(t)
        return self._flip()

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images float32 [total batch, C, H, W] (0-255 less the mean image, channels_last) and labels int64.

        Of a share: only the rows of its virtual GPUs.
        """
        index = self._index()
        images = self.images[index] - self.mean
        if self.dataset.mirror:  # after the mean, which is mirrored with the image (Caffe's data_transformer.cpp)
            images = torch.where(self._flip(), images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last), self.labels[index]

    def __call__(self, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch t, as `batch` makes it."""
        self.point(t)
        return self.batch()


AUTHOR_TESTS = {
    "cifar3": (20000, False),
    "resnet56": (6400, True),
    "wide32": (6400, True),
    "densenet40": (7400, True),
    "resnet56-v1": (25000, False),
    "resnet50": (10000, False),
    "inception-resnet-v2": (5000, False),
}
"""Images per test and whether they are flipped at random, by network.

Test batch x 200 in the author's CIFAR files, x 1,000 in his ImageNet logs.
"""


def images_per_test(settings: Settings) -> tuple[int, bool]:
    """Images that a test takes, and whether they are flipped at random. Raises UserError."""
    if settings.dataset.tests != "author":
        return settings.dataset.test_images, False
    name = settings.model.name
    if name not in AUTHOR_TESTS:
        raise UserError(
            f"dataset.tests=author: how the author tested {name} is not known, only {', '.join(AUTHOR_TESTS)}. "
            "Use dataset.tests=full."
        )
    return AUTHOR_TESTS[name]


TESTED_FIRST = {"resnet56-v1"}
"""Networks whose logs begin with a test at iteration 0 (the author's sc_*), which no row of ours has."""


def test_number(settings: Settings, iteration: int) -> int:
    """Which of its run's tests an iteration's is: from where it goes on, where tests are the author's."""
    before = settings.model.name in TESTED_FIRST
    return iteration // settings.test_interval - (0 if before else 1)


def statistics_batch(settings: Settings) -> int | None:
    """Images that must pass the network together in tests, where its BatchNorm takes the test batch's own statistics.

    The author's: 10 for resnet-50, whose file has no others, and for resnet56-v1 as many as a GPU had in training.
    """
    model = settings.model
    if (model.test_statistics or ("batch" if model.name == "resnet50" else "running")) == "running":
        return None
    return 10 if model.name == "resnet50" else settings.batch.per_gpu


class TestSet:
    """The test images on a device, in pieces that fit a processor's cache on the CPU; a share takes every n-th."""

    __test__ = False

    def __init__(self, settings: Settings, data: ImageSet, mean: torch.Tensor, share: Share = ALONE):
        n = settings.dataset.test_images
        self.images = to_device(data.test.images[:n], mean.device)
        self.labels = torch.from_numpy(data.test.labels[:n]).to(mean.device)
        self.mean, self.seed, self.share = mean, settings.seed, share
        self.count, self.mirror = images_per_test(settings)
        most = min(250 if mean.device.type == "cpu" else 2000, -(-self.count // share.ranks))
        self.piece = statistics_batch(settings) or most

    def test(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The images (as training batches have them) and labels of test number 0, 1, ..., piece by piece."""
        n, device = len(self.labels), self.mean.device
        flips = torch.empty(0)
        if self.mirror:
            drawn = np.random.default_rng((self.seed, 3, number)).random(self.count) < 0.5
            flips = torch.from_numpy(drawn).to(device)[:, None, None, None]
        cursor = number * self.count
        for start in range(self.share.rank * self.piece, self.count, self.share.ranks * self.piece):
            end = min(start + self.piece, self.count)
            index = torch.arange(cursor + start, cursor + end, device=device) % n
            images = self.images[index] - self.mean
            if self.mirror:
                images = torch.where(flips[start:end], images.flip(3), images)
            yield images.contiguous(memory_format=torch.channels_last), self.labels[index]
