"""Batches and tests decoded by worker processes while training goes on, for image sets that fit no memory.

The same interfaces as `experiments.batches`, for `experiments.data.folders.ImageFolders`. Batch t follows from the
settings and t alone: crop and flip of an image are drawn from (seed, epoch, record). So any number of workers, and a
run that goes on from a checkpoint, read the same batches. Workers send uint8; the device casts and subtracts.
"""

import itertools
import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from experiments.batches import images_per_test, statistics_batch
from experiments.data.folders import ImageFolders, Listing, decode
from experiments.distributed import ALONE, Share
from experiments.errors import UserError
from experiments.order import Order
from experiments.settings import Settings

AHEAD = 2
"""Batches that each worker makes ahead. 128 images of 230 pixels are 20 MB of shared memory."""

LOAD = 50
"""Test images that a worker sends at once, about."""

HAS_SIGWAITINFO = hasattr(signal, "sigwaitinfo")
"""Not on macOS, where a SIGTERM to all processes ends the decoders with the rest."""
ENDED = ("is killed by signal", "exited unexpectedly", "shared memory")
"""What PyTorch says of workers that are gone or found no room."""

Records = tuple[torch.Tensor, torch.Tensor]
"""Crops uint8 [N, H, W, 3], and int64 [N, 4]: row and column of the crop's corner, whether it is flipped, label."""


def check(settings: Settings, source: ImageFolders) -> None:
    """Compare what the settings say of the data with what lies there. Raises UserError."""
    d = settings.dataset
    if d.channels != 3:
        raise UserError(f"dataset.channels={d.channels}: images from class folders have 3.")
    if d.size > source.side:
        raise UserError(
            f"dataset.size={d.size}: crops cannot be larger than the {source.side} pixels a side to which images are "
            "brought; the report's are 230."
        )
    found = {"classes": source.classes, "train_images": len(source.train), "test_images": len(source.test)}
    asked = {key: getattr(d, key) for key in found}
    wrong = [k for k in found if asked[k] > found[k] or (k == "classes" and asked[k] != found[k])]
    if wrong:

        def listed(values: dict[str, int]) -> str:
            return ", ".join(f"{values[k]:,} {k.replace('_', ' ')}" for k in wrong)

        settings_instead = " ".join(f"dataset.{k}={found[k]}" for k in wrong)
        raise UserError(
            f"The class folders hold {listed(found)}; the settings ask for {listed(asked)}: complete the folders, or "
            f"train on these with ARGS='{settings_instead}'."
        )


class StreamBatches:
    """The batch of every iteration: the records of `experiments.order.Order`, cropped and flipped at random.

    As Caffe's data layer does it (BVLC/caffe data_transformer.cpp): the corner of a crop is uniform over all places,
    and the mean image is subtracted where the crop lies, before the flip. mean: [1, 3, side, side] on the device.
    share: says which rows of a batch this process reads.
    """

    def __init__(self, settings: Settings, source: ImageFolders, device: torch.device, share: Share = ALONE):
        check(settings, source)
        self.device, self.mean = device, _mean(settings, source, device)
        self._windows = _windows(self.mean, settings.dataset.size)
        self._decoders = _Decoders(_Training(settings, source, share), source.workers, device)
        self._next = -1

    def __call__(self, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images float32 [total batch, 3, H, W] (0-255 less the mean image, channels_last) and labels int64.

        Calls in order, t, t + 1, ..., find their batch prepared; with any other t preparation begins anew. Raises
        UserError that names an image which cannot be read.
        """
        if t != self._next:
            self._decoders.begin(itertools.count(t))
        self._next = t + 1
        return _finish(self._decoders.get(), self._windows, self.device)


class StreamTests:
    """The test images, each as it is in its centre, in pieces.

    dataset.tests = "full": the first test_images records in every test. "author": as many as his solver took, from
    where the last test ended. piece: images that are handed out together, which is his test batch where a network's
    BatchNorm looks at the test batch. A share takes every n-th piece.
    """

    def __init__(self, settings: Settings, source: ImageFolders, device: torch.device, share: Share = ALONE):
        check(settings, source)
        self.share = share
        name = settings.model.name
        together = statistics_batch(settings)
        self.count, _ = images_per_test(settings)
        self.piece = together or LOAD
        if together and self.count % self.piece:
            raise UserError(
                f"dataset.test_images={self.count}: {name} is tested in batches of {self.piece}, whose statistics its "
                f"BatchNorm takes; say a multiple of {self.piece}."
            )
        self.device, self.mean = device, _mean(settings, source, device)
        self._windows = _windows(self.mean, settings.dataset.size)
        self._decoders = _Decoders(_Testing(settings, source), source.workers, device)

    def test(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The images (as training batches have them) and labels of test number 0, 1, ..., piece by piece."""
        cursor, step = number * self.count, self.piece * max(1, LOAD // self.piece)
        starts = range(self.share.rank * step, self.count, self.share.ranks * step)
        self._decoders.begin([(cursor + start, cursor + min(start + step, self.count)) for start in starts])
        for _ in starts:
            images, labels = _finish(self._decoders.get(), self._windows, self.device)
            yield from zip(images.split(self.piece), labels.split(self.piece), strict=True)


class _Training(Dataset[Records | UserError]):
    """Item t is batch t."""

    def __init__(self, settings: Settings, source: ImageFolders, share: Share = ALONE):
        d = settings.dataset
        self.part = share.part(settings.batch.total)
        self.listing, self.side, self.size, self.mirror = source.train, source.side, d.size, d.mirror
        self.order, self.seed = Order(settings, d.train_images), settings.seed

    def __getitem__(self, t: int) -> Records | UserError:
        records, epochs = (of_all[self.part] for of_all in self.order.batch(t))
        places = np.empty((len(records), 3), np.int64)
        for row, (epoch, record) in enumerate(zip(epochs, records, strict=True)):
            drawn = np.random.default_rng((self.seed, 4, int(epoch), int(record)))
            places[row, :2] = drawn.integers(self.side - self.size + 1, size=2)
            places[row, 2] = self.mirror and drawn.integers(2)
        return _read(self.listing, records, places, self.side, self.size)


class _Testing(Dataset[Records | UserError]):
    """Item (a, b) is the records a to b - 1, modulo the number of test images."""

    def __init__(self, settings: Settings, source: ImageFolders):
        self.listing, self.side, self.size = source.test, source.side, settings.dataset.size
        self.n = settings.dataset.test_images

    def __getitem__(self, records: tuple[int, int]) -> Records | UserError:
        index = np.arange(*records) % self.n
        corner = (self.side - self.size) // 2
        return _read(self.listing, index, np.array([[corner, corner, 0]] * len(index)), self.side, self.size)


def _read(listing: Listing, records: np.ndarray, places: np.ndarray, side: int, size: int) -> Records | UserError:
    """Decode and crop. An error is returned: raised in a worker, it would arrive wrapped in the worker's traceback."""
    images = torch.empty((len(records), size, size, 3), dtype=torch.uint8)
    if get_worker_info() is not None:
        images.share_memory_()  # too little of it fails here, not unheard in a thread
    pixels = images.numpy()
    try:
        for row, (record, (y, x, _)) in enumerate(zip(records, places, strict=True)):
            pixels[row] = decode(listing.path(record), side)[y : y + size, x : x + size]
    except UserError as error:
        return error
    return images, torch.from_numpy(np.column_stack([places, listing.labels[records]]))


class _Wanted:
    """The items that a loader is to make: a sampler that can be told others while the loader's workers stay."""

    def __init__(self) -> None:
        self.items: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class _Decoders:
    """Processes that prepare items of a dataset in the order wanted, a few ahead. They end with this object."""

    def __init__(self, dataset: Dataset, workers: int, device: torch.device):
        self._wanted = _Wanted()
        self._stream: Iterator[Any] | None = None
        self._loader: DataLoader | None = DataLoader(
            dataset,
            batch_size=None,
            sampler=self._wanted,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=_begin_worker,
            generator=torch.Generator().manual_seed(0),  # else each start would draw from the generator of dropout
        )

    def begin(self, items: Iterable[Any]) -> None:
        """Prepare these items from now on, and forget what was wanted before."""
        assert self._loader is not None, "an item could not be made"
        self._wanted.items = items
        before = signal.getsignal(signal.SIGCHLD)
        blocked = (
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}) if HAS_SIGWAITINFO else set()
        )
        try:
            self._stream = iter(self._loader)  # its processes ignore signals from the start; see _begin_worker
        finally:
            if HAS_SIGWAITINFO:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # PyTorch's handler raises wherever this thread happens to be when a worker dies, in C code too; get notices it.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)

    def get(self) -> Records:
        """The next item. Raises UserError where it could not be made, and ends the processes."""
        assert self._stream is not None, "begin comes first"
        try:
            found = next(self._stream)
        except (RuntimeError, OSError, EOFError) as error:
            if not (isinstance(error, ConnectionError | EOFError) or any(words in str(error) for words in ENDED)):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
            raise UserError(
                f"A process that decodes images has ended ({reason}). As a rule memory has run out, as a whole or in "
                "/dev/shm: give more (in a container: --shm-size=8g), or use fewer processes, data.workers=N."
            ) from error
        if isinstance(found, UserError):
            # At once: kept alive by the traceback, the processes would end late and noisily.
            self._stream = self._loader = None
            raise found
        return found


def _begin_worker(_: int) -> None:
    """Leave signals to the parent, which answers them with a checkpoint and needs batches until then.

    Ctrl-C reaches every process of a terminal, and a scheduler's SIGTERM every process of a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if HAS_SIGWAITINFO:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # Some of ImageNet's files have broken EXIF blocks, which say nothing of their pixels.
    warnings.filterwarnings("ignore", module="PIL")


def _end_with(parent: int) -> None:
    """End this process when the parent sends SIGTERM, and only then."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _mean(settings: Settings, source: ImageFolders, device: torch.device) -> torch.Tensor:
    """What is subtracted from a record: float32 [1, 3, side, side], zero where the settings say so."""
    mean = torch.from_numpy(source.mean * np.float32(settings.dataset.subtract_mean))
    return mean.to(device).permute(2, 0, 1)[None]


def _windows(mean: torch.Tensor, size: int) -> torch.Tensor:
    """Every crop of the mean image, float32 [places, places, size, size, 3]: a view."""
    return mean[0].unfold(1, size, 1).unfold(2, size, 1).permute(1, 2, 3, 4, 0)


def _finish(found: Records, windows: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """From what a worker sent to what a network takes, without waiting for the device."""
    images, places = (part.to(device, non_blocking=True) for part in found)
    y, x, flip, labels = places.unbind(1)
    images = images - windows[y, x]
    images = torch.where(flip.bool()[:, None, None, None], images.flip(2), images)
    return images.permute(0, 3, 1, 2), labels
