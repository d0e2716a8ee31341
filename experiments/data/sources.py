"""The three forms in which a published data set may lie on disk, and their readers.

Search order below the data folder; the first form that is there is read, and a form that is there but broken is an
error, never a reason to look further:

1. torchvision's own folder: ``cifar-10-batches-py/``, ``cifar-100-python/``, ``MNIST/raw/`` (IDX files, .gz or not);
2. ``<name>-train.npz`` and ``<name>-test.npz``: ``images`` uint8 [N, H, W, C] and ``labels`` int64 [N];
3. class folders of images, ``<name>/train/<class>/*.png|jpg`` and ``<name>/test/...``, or the same without ``<name>/``.
"""

import gzip
import hashlib
import io
import math
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from experiments.data.imageset import Form, Split, check_forms, checked_split
from experiments.data.known import MNIST_IDX_SHA256, Facts
from experiments.errors import UserError, unreadable

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
IMAGE_FORMATS = ("PNG", "JPEG")
"""Whatever a file is called, Pillow goes by its content, and for some formats it starts other programs."""

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Source:
    """Where a data set was found: ``form`` is "torchvision", "npz" or "folders", ``root`` the folder that holds it."""

    facts: Facts
    form: str
    root: Path

    @property
    def description(self) -> str:
        """The form in words, without machine-specific folders."""
        if self.form == "torchvision":
            return f"torchvision's files in {self.facts.folder}"
        if self.form == "npz":
            return f"{self.facts.name}-train.npz and {self.facts.name}-test.npz"
        return "class folders of images, train/ and test/"

    def files(self) -> list[Path]:
        """Every file that ``read`` would open, in a fixed order. Raises UserError where one is missing."""
        if self.form == "torchvision":
            return [path for split in SPLITS for path in _torchvision_files(self.facts, self.root, split)]
        if self.form == "npz":
            return [_npz_file(self.facts, self.root, split) for split in SPLITS]
        return [path for split in SPLITS for path, _ in _folder_images(self.facts, self.root, split)]

    def read(self) -> tuple[Split, Split]:
        """Train and test split; raises UserError naming the file that is not what it should be."""
        reader = {"torchvision": _read_torchvision, "npz": _read_npz, "folders": _read_folders}[self.form]
        return reader(self.facts, self.root, "train"), reader(self.facts, self.root, "test")


def candidates(facts: Facts, data_dir: Path) -> list[Path]:
    """Every place where ``find`` looks, in its order."""
    npz = [data_dir / f"{facts.name}-{split}.npz" for split in SPLITS]
    return [data_dir / facts.folder, *npz, data_dir / facts.name / "train", data_dir / "train"]


def find(facts: Facts, data_dir: Path) -> Source | None:
    """The first form of the data set that lies in ``data_dir``, or None. Raises UserError where it may not look."""
    try:
        return _find(facts, data_dir)
    except OSError as error:
        raise UserError(
            f"{error.filename or data_dir} cannot be looked into ({error.strerror}): correct its permissions, or name "
            "another folder (DATA_DIR= or data.dir=)."
        ) from None


def _find(facts: Facts, data_dir: Path) -> Source | None:
    if (data_dir / facts.folder).is_dir():
        return Source(facts, "torchvision", data_dir / facts.folder)
    if any((data_dir / f"{facts.name}-{split}.npz").is_file() for split in SPLITS):
        return Source(facts, "npz", data_dir)
    if any((data_dir / facts.name / split).is_dir() for split in SPLITS):
        return Source(facts, "folders", data_dir / facts.name)
    # A bare train/ does not say whose it is: at least the number of classes has to fit.
    if (data_dir / "train").is_dir() and len(_class_folders(data_dir / "train")) == facts.classes:
        return Source(facts, "folders", data_dir)
    return None


def is_original_mnist(train: Split, test: Split) -> bool:
    """Whether the arrays, written as IDX files, have the sha256 of the official MNIST files."""
    arrays = (train.images[..., 0], train.labels, test.images[..., 0], test.labels)
    for array, expected in zip(arrays, MNIST_IDX_SHA256, strict=True):
        content = array.astype(np.uint8)
        header = bytes((0, 0, 8, content.ndim)) + np.array(content.shape, ">u4").tobytes()
        if hashlib.sha256(header + content.tobytes()).hexdigest() != expected:
            return False
    return True


# ------------------------------------------------------------------------------------------- torchvision's files


class _BatchUnpickler(pickle.Unpickler):
    """Admits what a CIFAR batch holds (arrays in dictionaries, lists, bytes and strings) and nothing else."""

    allowed: ClassVar = {
        # The batches were pickled when the module was numpy.core; _reconstruct is reached without its name.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        """The object that a pickle may build on; raises UnpicklingError for any other."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR batch needs")
        return self.allowed[module, name]


def _torchvision_files(facts: Facts, root: Path, split: str) -> list[Path]:
    if facts.name == "mnist":
        paths = [root / name for name in facts.files[split][0]]
        paths = [path if path.is_file() else path.with_name(path.name + ".gz") for path in paths]
    else:
        paths = [root / name for name, _ in facts.files[split]]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path} is missing, so {root} is not the whole of {facts.label}; complete the folder or remove it."
            )
    return paths


def _read_torchvision(facts: Facts, root: Path, split: str) -> Split:
    paths = _torchvision_files(facts, root, split)
    if facts.name == "mnist":
        images, labels = _read_idx(paths[0], 3)[..., None], _read_idx(paths[1], 1)
    else:
        parts = [_read_batch(path, md5) for path, (_, md5) in zip(paths, facts.files[split], strict=True)]
        images = np.concatenate([data for data, _ in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.concatenate([labels for _, labels in parts])
    return _checked(facts, split, images, labels, f"{root} ({split})")


def _read_batch(path: Path, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """One CIFAR batch: uint8 [N, 3072] and labels [N]. Never unpickled unless its md5 is the official one."""
    content = _read_bytes(path)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UserError(
            f"{path} has md5 {found}, expected {md5}: it is cut short or not the official file, and since it is a "
            "Python pickle it is not opened; remove its folder to download the data again."
        )
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="latin1").load()
        labels = batch["labels"] if "labels" in batch else batch["fine_labels"]
        return batch["data"].reshape(-1, 3072), np.asarray(labels, dtype=np.int64)
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a CIFAR batch ({error}); expected data [N, 3072] and labels.") from error


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """uint8 array of ``ndim`` dimensions from an IDX file, unpacked on the way if it ends in .gz."""
    try:
        content = gzip.decompress(_read_bytes(path)) if path.suffix == ".gz" else _read_bytes(path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be unpacked ({error}); it is cut short or not gzip: fetch it again.") from error
    start = 4 + 4 * ndim
    if content[:4] != bytes((0, 0, 8, ndim)) or len(content) < start:
        raise UserError(
            f"{path} starts with {content[:4].hex() or 'nothing'}, expected the IDX header 0000080{ndim}: replace it."
        )
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise UserError(f"{path} holds {len(content):,} bytes, its header {list(shape)} says {expected:,}: replace it.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # writable, as PyTorch asks


# ------------------------------------------------------------------------------------------------------------ npz


def _npz_file(facts: Facts, root: Path, split: str) -> Path:
    path = root / f"{facts.name}-{split}.npz"
    if not path.is_file():
        other = f"{facts.name}-{'test' if split == 'train' else 'train'}.npz"
        raise UserError(f"{path} is missing beside {other}; both are needed.")
    return path


def _read_npz(facts: Facts, root: Path, split: str) -> Split:
    path = _npz_file(facts, root, split)
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            if not {"images", "labels"} <= held:
                raise UserError(f"{path} holds {sorted(held)}, expected the arrays 'images' and 'labels'.")
            with archive.open("images.npy") as images_file, archive.open("labels.npy") as labels_file:
                # Before anything is read: a header may claim more than fits into memory.
                forms = _npy_form(images_file), _npy_form(labels_file)
                check_forms(*forms, where=str(path), count=facts.count(split), shape=facts.shape)
                images, labels = _read_npy(images_file), _read_npy(labels_file)
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # of flipped bytes zipfile, its decoders and NumPy's header parser make many kinds
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as npz ({why}); it is cut short or damaged: copy it again, or "
            "make it again with numpy.savez."
        ) from error
    return _checked(facts, split, images, labels, str(path))


def _npy_form(member: IO[bytes]) -> Form:
    """The header of one array. Raises many kinds of exceptions where it is damaged."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array of format {version}")
    shape, _, dtype = readers[version](member)
    return Form(shape, dtype)


def _read_npy(member: IO[bytes]) -> np.ndarray:
    """One array from its beginning to the end of the file, where zipfile compares the checksum."""
    member.seek(0)
    array = np.lib.format.read_array(member, allow_pickle=False)
    if member.read(1):
        raise ValueError("more bytes than its header says")
    return array


# -------------------------------------------------------------------------------------------------- class folders


def _class_folders(folder: Path) -> list[Path]:
    """The class folders in label order: by name, which is the official order of CIFAR-10 and CIFAR-100; by number for
    numbered classes."""
    folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if all(path.name.isdecimal() for path in folders):
        return sorted(folders, key=lambda path: int(path.name))
    return sorted(folders, key=lambda path: path.name)


def _folder_images(facts: Facts, root: Path, split: str) -> list[tuple[Path, int]]:
    """(file, label) for every image of ``split``.

    Training reads images in a fixed order, and a class at a time would make batches of one class: the order is that of
    the sha256 of ``split/class/file``, which is mixed, the same on every machine, and official for no data set.
    """
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; class folders need both {root / 'train'} and {root / 'test'}.")
    classes = _class_folders(folder)
    names = [path.name for path in classes]
    if len(classes) != facts.classes:
        raise UserError(f"{folder} holds {len(classes)} class folders, {facts.label} has {facts.classes} classes.")
    if split == "test" and names != [path.name for path in _class_folders(root / "train")]:
        raise UserError(f"{folder} and {root / 'train'} hold different class folders; expected the same names in both.")
    images = []
    for label, path in enumerate(classes):
        files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
        if not files:
            raise UserError(f"{path} holds no image; expected .png or .jpg files in every class folder.")
        images += [(f, label) for f in files]
    if len(images) != facts.count(split):
        raise UserError(
            f"{folder} holds {len(images):,} images, {facts.label} has {facts.count(split):,}; copy the folder again."
        )
    return sorted(
        images, key=lambda item: hashlib.sha256(f"{split}/{item[0].parent.name}/{item[0].name}".encode()).digest()
    )


def _read_folders(facts: Facts, root: Path, split: str) -> Split:
    height, width, channels = facts.shape
    listed = _folder_images(facts, root, split)
    images = np.empty((len(listed), *facts.shape), np.uint8)
    for i, (path, _) in enumerate(listed):
        images[i] = _read_image(path, (width, height), "RGB" if channels == 3 else "L").reshape(facts.shape)
    return _checked(facts, split, images, np.array([label for _, label in listed]), str(root / split))


def _read_image(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    from PIL import Image  # here, because the other forms do without

    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.size != size:
                raise UserError(f"{path} is {image.size[0]}x{image.size[1]}, expected {size[0]}x{size[1]} pixels.")
            return np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as PNG or JPEG ({error}); copy it again, or convert it.") from error


# --------------------------------------------------------------------------------------------------------- shared


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _checked(facts: Facts, split: str, images: np.ndarray, labels: np.ndarray, where: str) -> Split:
    return checked_split(
        images, labels, where=where, count=facts.count(split), shape=facts.shape, classes=facts.classes
    )
