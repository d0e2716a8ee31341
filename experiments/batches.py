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
"""Iterations whose flips are drawn at once."""


def to_device(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 [N, H, W, C] to a uint8 tensor [N, C, H, W] on the device, in channels_last memory (as it lay on disk)."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)


class Batches:
    """The training set of a run on a device, and the batch of every iteration.

    Which records a batch holds is `experiments.order.Order`'s; share says which rows of them this process takes.
    """

    def __init__(self, settings: Settings, data: ImageSet, device: torch.device, share: Share = ALONE):
        self.part = share.part(settings.batch.total)
        self.batch, self.dataset, self.seed = settings.batch, settings.dataset, settings.seed
        self.device = device
        self.images = to_device(data.train.images, device)
        self.labels = torch.from_numpy(data.train.labels).to(device)
        mean = mean_image(data.train.images) * np.float32(settings.dataset.subtract_mean)
        self.mean = torch.from_numpy(mean).to(device).permute(2, 0, 1)[None]
        self.order = Order(settings, len(self.labels))
        self.rows = torch.from_numpy(self.order.rows[self.part]).to(device)
        self._numpy, self._records = np.empty(0), torch.empty(0)
        self._chunk, self._flips = -1, torch.empty(0)

    def indices(self, t: int) -> torch.Tensor:
        """Which records batch t holds: int64 [total batch], or this share's part of it."""
        epoch, start = self.order.place(t)
        records = self.order.two_epochs(epoch)
        if records is not self._numpy:  # moved to the device once an epoch at most
            self._numpy, self._records = records, torch.from_numpy(records).to(self.device)
        return self._records[start + self.rows]

    def flips(self, t: int) -> torch.Tensor:
        """Which images of batch t are mirrored: bool [total batch, 1, 1, 1], each with probability 1/2."""
        chunk, offset = divmod(t, CHUNK)
        if chunk != self._chunk:
            drawn = np.random.default_rng((self.seed, 2, chunk)).random((CHUNK, self.batch.total)) < 0.5
            self._chunk, self._flips = chunk, torch.from_numpy(drawn).to(self.device)
        return self._flips[offset][:, None, None, None]

    def __call__(self, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images float32 [total batch, C, H, W] (0-255 less the mean image, channels_last) and labels int64.

        Of a share: only the rows of its virtual GPUs.
        """
        index = self.indices(t)
        images = self.images[index] - self.mean
        if self.dataset.mirror:  # after the mean, which is mirrored with the image (Caffe's data_transformer.cpp)
            images = torch.where(self.flips(t)[self.part], images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last), self.labels[index]


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


TEST_BATCH = {"resnet50": 10}
"""Images that must pass a network together in tests, because its BatchNorm takes the test batch's own statistics."""


class TestSet:
    """The test images on a device, in pieces that fit a processor's cache on the CPU; a share takes every n-th."""

    __test__ = False

    def __init__(self, settings: Settings, data: ImageSet, mean: torch.Tensor, share: Share = ALONE):
        n = settings.dataset.test_images
        self.images = to_device(data.test.images[:n], mean.device)
        self.labels = torch.from_numpy(data.test.labels[:n]).to(mean.device)
        self.mean, self.seed, self.share = mean, settings.seed, share
        self.count, self.mirror = n, False
        if settings.dataset.tests == "author":
            if settings.model.name not in AUTHOR_TESTS:
                raise UserError(
                    f"dataset.tests=author: how the author tested {settings.model.name} is not known, only "
                    f"{', '.join(AUTHOR_TESTS)}. Use dataset.tests=full."
                )
            self.count, self.mirror = AUTHOR_TESTS[settings.model.name]
        most = min(250 if mean.device.type == "cpu" else 2000, -(-self.count // share.ranks))
        self.piece = TEST_BATCH.get(settings.model.name, most)

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
