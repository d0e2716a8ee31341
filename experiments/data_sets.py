"""The data sets of one command: each looked for once, and the same when it is trained on."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import data as datasets
from experiments.data import folders
from experiments.errors import DataMissing, UserError
from experiments.settings import Settings


def shapes_of(settings: Settings) -> datasets.ShapesSpec:
    """The made images that a run asks for."""
    d = settings.dataset
    return datasets.ShapesSpec(
        size=d.size,
        channels=d.channels,
        classes=d.classes,
        train=d.train_images,
        test=d.test_images,
        seed=d.seed,
        label_noise=d.label_noise,
    )


class DataSets:
    """Where a command's data are, and what it has learned of them.

    folder: as `experiments.data.data_folder` takes it, None where the user named none; cache: where fingerprints are
    remembered; workers: processes that decode ImageNet, None for one per core.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        mirrors: Sequence[str],
        download: bool,
        workers: int | None,
        cache: Path,
        say: Callable[[str], None],
    ):
        self.folder, self.cache, self.workers, self.say = folder, cache, workers, say
        self._where = {"data_dir": folder, "mirrors": list(mirrors), "download": download, "progress": say}
        self._absent: dict[str, DataMissing] = {}
        self._fingerprints: dict[str, tuple[str, str]] = {}
        self._loaded: tuple[str, datasets.ImageSet | datasets.ImageFolders] | None = None

    def fingerprint(self, settings: Settings) -> tuple[str, str]:
        """Fingerprint and title of the data a run would see. Raises DataMissing, after one search a data set."""
        name = settings.dataset.name
        key = repr(shapes_of(settings)) if name == "shapes" else name
        if name in self._absent:
            raise self._absent[name]
        try:
            if key not in self._fingerprints:  # where results cannot be written, nothing else remembers it
                self._fingerprints[key] = self._fingerprint(settings)
            return self._fingerprints[key]
        except DataMissing as error:
            self._absent[name] = error
            raise

    def load(self, settings: Settings) -> datasets.ImageSet | datasets.ImageFolders:
        """The data themselves, checked against what the settings say of them; the last ones asked for are kept.

        Raises UserError where they do not fit, or are no longer those whose fingerprint is part of the run's name.
        """
        key = repr(settings.dataset)
        if self._loaded is None or self._loaded[0] != key:
            data = self._checked(settings)
            if settings.dataset.fingerprint not in ("", data.fingerprint):
                raise UserError(
                    f"The data set {settings.dataset.name} has changed since this command began: put back what was "
                    "there, or start the command again, which makes other runs of the new data."
                )
            self._loaded = key, data
        return self._loaded[1]

    def _source(self, settings: Settings) -> dict[str, Any]:
        return self._where | {"shapes": shapes_of(settings) if settings.dataset.name == "shapes" else None}

    def _fingerprint(self, settings: Settings) -> tuple[str, str]:
        name, folder = settings.dataset.name, datasets.data_folder(self.folder)
        asked = self.folder is not None or bool(os.environ.get("DATA_DIR"))
        if asked and name != "shapes" and not folder.is_dir():
            raise UserError(
                f"DATA_DIR or data.dir names {folder}, which is no folder: correct it or leave it out; "
                "SCALE=smoke needs none."
            )
        if name == "imagenet":
            return folders.fingerprint(folder, cache_dir=self.cache, progress=self.say)
        return datasets.fingerprint(name, **self._source(settings), cache_dir=self.cache)

    def _checked(self, settings: Settings) -> datasets.ImageSet | datasets.ImageFolders:
        if settings.dataset.name == "imagenet":
            folder = datasets.data_folder(self.folder)
            return folders.load(folder, cache_dir=self.cache, workers=self.workers, progress=self.say)
        data = datasets.load(settings.dataset.name, **self._source(settings))
        d = settings.dataset
        _, h, _, c = data.train.images.shape
        expected, found = (d.size, d.channels, d.classes), (h, c, data.classes)
        if expected != found or d.train_images > len(data.train) or d.test_images > len(data.test):
            raise UserError(
                f"The data set {d.name} has (pixels a side, channels, classes) = {found}, {len(data.train)} training "
                f"and {len(data.test)} test images; the settings say {expected}, "
                f"dataset.train_images={d.train_images} and dataset.test_images={d.test_images}."
            )
        first = datasets.Split(data.train.images[: d.train_images], data.train.labels[: d.train_images])
        return replace(data, train=first)
