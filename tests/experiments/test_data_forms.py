"""npz files and class folders of images read back, and every way in which they can be wrong."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import CIFAR10_CLASSES, COUNT, arrays, as_set, assert_same, refused, write_folders, write_npz
from PIL import Image

from experiments.data import known, load

# ---------------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize(
    ("name", "shape"), [("cifar10", (32, 32, 3)), ("cifar100", (32, 32, 3)), ("mnist", (28, 28, 1))]
)
def test_npz(small_sets, tmp_path, name, shape):
    made = arrays(shape, small_sets[name].classes)
    write_npz(tmp_path, name, made)
    found = load(name, data_dir=tmp_path, download=False)
    assert_same(found, made)
    assert found.title == f"{small_sets[name].label} (not verified as the original)" and not found.original


def test_a_known_preparation_is_called_by_its_name(small_sets, monkeypatch, tmp_path):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    fingerprint = load("cifar10", data_dir=tmp_path, download=False).fingerprint
    monkeypatch.setitem(known.KNOWN_PREPARATIONS, fingerprint, "CIFAR-10 (JPEG)")
    found = load("cifar10", data_dir=tmp_path, download=False)
    assert (found.title, found.original) == ("CIFAR-10 (JPEG)", False)


GOOD = arrays((32, 32, 3), 10)["test"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": GOOD[0] / 255, "labels": GOOD[1]}, ["images are float64", "uint8"]),
        ({"images": np.full((20, 32, 32, 3), np.nan), "labels": GOOD[1]}, ["images are float64"]),
        ({"images": GOOD[0].reshape(20, -1), "labels": GOOD[1]}, ["[20, 3072]", "[N, 32, 32, 3]"]),
        ({"images": GOOD[0].transpose(0, 3, 1, 2), "labels": GOOD[1]}, ["[20, 3, 32, 32]"]),
        ({"images": GOOD[0][:19], "labels": GOOD[1][:19]}, ["holds 19 images", "expected 20"]),
        ({"images": GOOD[0], "labels": GOOD[1][:19]}, ["[19]", "[20]"]),
        ({"images": GOOD[0], "labels": np.eye(10)[GOOD[1]]}, ["labels are float64"]),
        ({"images": GOOD[0], "labels": np.eye(10, dtype=int)[GOOD[1]]}, ["[20, 10]"]),
        ({"images": GOOD[0], "labels": GOOD[1] + 1}, ["1 to 10", "0 to 9"]),
        ({"images": GOOD[0], "labels": GOOD[1] - 1}, ["-1 to 8"]),
        ({"images": GOOD[0]}, ["'images'", "'labels'"]),
        ({"images": np.array([None] * 20), "labels": GOOD[1]}, ["images are object", "uint8"]),
    ],
)
def test_wrong_arrays(small_sets, tmp_path, content, words):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    np.savez(tmp_path / "cifar10-test.npz", **content)
    refused("cifar10", tmp_path, tmp_path / "cifar10-test.npz", *words)


@pytest.mark.parametrize("single_array", [False, True])
def test_what_is_no_npz(small_sets, tmp_path, single_array):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    with (path := tmp_path / "cifar10-test.npz").open("wb") as stream:
        np.save(stream, GOOD[0]) if single_array else stream.write(b"not found\n")
    refused("cifar10", tmp_path, path, "cannot be read as npz (File is not a zip file)", "numpy.savez")


@pytest.mark.parametrize("keep", [0, 3, 1000, -1000])
def test_npz_cut_short(small_sets, tmp_path, keep):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    path = tmp_path / "cifar10-train.npz"
    path.write_bytes(path.read_bytes()[:keep])
    refused("cifar10", tmp_path, path, "cannot be read as npz")


def test_npz_with_a_flipped_byte(small_sets, tmp_path):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    path = tmp_path / "cifar10-train.npz"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    refused("cifar10", tmp_path, path, "CRC")


def member(shape, descr="|u1", content=b""):
    """An array's file whose header says `shape` and `descr`."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


HEADER = member((20, 32, 32, 3))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (member((10**12, 32, 32, 3)), ["labels have shape [20], expected [1000000000000]"]),
        (member((10**30, 32, 32, 3)), ["labels have shape [20]"]),
        (member((20, 10**9, 10**9, 3)), ["[20, 1000000000, 1000000000, 3]"]),
        (HEADER, ["cannot be read as npz (EOF"]),
        (HEADER + GOOD[0].tobytes() + b"more", ["more bytes than its header says"]),
        (HEADER.replace(b"}", b"("), ["cannot be read as npz"]),  # TokenError
        (HEADER[:6] + b"\x09" + HEADER[7:], ["format (9, 0)"]),
    ],
)
def test_a_header_is_not_believed(small_sets, tmp_path, images, words):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    with zipfile.ZipFile(path := tmp_path / "cifar10-test.npz", "w") as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", member((20,), "<i8", GOOD[1].astype("<i8").tobytes()))
    refused("cifar10", tmp_path, path, *words)


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 99)])  # of an entry of the zip's directory
def test_a_damaged_directory_of_an_npz(small_sets, tmp_path, place, value):
    """Flags that say "encrypted" (RuntimeError), an unknown compression (NotImplementedError)."""
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    content = bytearray((path := tmp_path / "cifar10-train.npz").read_bytes())
    content[content.find(b"PK\x01\x02") + place] = value
    path.write_bytes(content)
    refused("cifar10", tmp_path, path, "cannot be read as npz")


def test_half_an_npz_pair(small_sets, tmp_path):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    (tmp_path / "cifar10-train.npz").unlink()
    refused("cifar10", tmp_path, "cifar10-train.npz is missing beside cifar10-test.npz")


# ------------------------------------------------------------------------------------------------- class folders


@pytest.mark.parametrize("below", ["cifar10", "."])
def test_class_folders(small_sets, tmp_path, below):
    made = arrays((32, 32, 3), 10)
    write_folders(tmp_path / below, made, CIFAR10_CLASSES)
    (tmp_path / below / "train" / ".DS_Store").write_bytes(b"no image")
    found = load("cifar10", data_dir=tmp_path, download=False)
    for split in COUNT:
        mine = getattr(found, split)
        assert as_set(mine.images, mine.labels) == as_set(*made[split])
    # Classes are mixed: a fixed reading order must not give batches of one class.
    assert np.count_nonzero(np.diff(found.train.labels)) > 25
    assert not found.original and "not verified" in found.title


def test_class_folders_read_the_same_whatever_the_file_system_lists_first(small_sets, tmp_path, monkeypatch):
    write_folders(tmp_path / "cifar10", arrays((32, 32, 3), 10), CIFAR10_CLASSES)
    first = load("cifar10", data_dir=tmp_path, download=False).fingerprint
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(listed(self))))
    assert load("cifar10", data_dir=tmp_path, download=False).fingerprint == first


def test_numbered_class_folders_count_as_numbers(small_sets, monkeypatch, tmp_path):
    monkeypatch.setitem(known.FACTS, "cifar100", replace(small_sets["cifar100"], train=100, test=100))
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    made = {split: (images, np.arange(100)) for split in COUNT}
    write_folders(tmp_path / "cifar100", made, [str(i) for i in range(100)])
    found = load("cifar100", data_dir=tmp_path, download=False)
    assert as_set(found.test.images, found.test.labels) == as_set(images, np.arange(100))


def test_grey_jpegs(small_sets, tmp_path):
    made = arrays((28, 28, 1), 10)
    write_folders(tmp_path / "mnist", made, [str(i) for i in range(10)], "jpg")
    found = load("mnist", data_dir=tmp_path, download=False)
    assert found.train.images.shape == (40, 28, 28, 1)
    assert sorted(found.train.labels) == sorted(made["train"][1])


@pytest.fixture
def folders(small_sets, tmp_path):
    write_folders(tmp_path / "cifar10", arrays((32, 32, 3), 10), CIFAR10_CLASSES)
    return tmp_path, tmp_path / "cifar10"


def test_empty_class_folder(folders):
    data_dir, root = folders
    for path in (root / "test" / "frog").iterdir():
        path.unlink()
    refused("cifar10", data_dir, root / "test" / "frog", "holds no image")


def test_a_class_too_many(folders):
    data_dir, root = folders
    (root / "train" / "zebra").mkdir()
    refused("cifar10", data_dir, root / "train", "11 class folders", "10 classes")


def test_other_classes_in_test(folders):
    data_dir, root = folders
    (root / "test" / "frog").rename(root / "test" / "toad")
    refused("cifar10", data_dir, "different class folders")


def test_no_test_folder(folders):
    data_dir, root = folders
    (root / "test").rename(root / "validation")
    refused("cifar10", data_dir, root / "test", "is missing")


def test_one_image_missing(folders):
    data_dir, root = folders
    next((root / "train" / "cat").iterdir()).unlink()
    refused("cifar10", data_dir, root / "train", "39 images", "40")


def test_an_image_of_another_size(folders):
    data_dir, root = folders
    path = next((root / "train" / "cat").iterdir())
    Image.new("RGB", (64, 48)).save(path)
    refused("cifar10", data_dir, path, "64x48", "32x32")


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_image(folders, content):
    data_dir, root = folders
    path = next((root / "test" / "ship").iterdir())
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    refused("cifar10", data_dir, path, "cannot be read as PNG or JPEG")


def test_an_image_of_another_format_is_not_opened_whatever_its_name(folders):
    data_dir, root = folders
    path = next((root / "test" / "ship").iterdir())
    Image.new("RGB", (32, 32)).save(path, "BMP")
    refused("cifar10", data_dir, path, "cannot be read as PNG or JPEG")
    Image.new("RGB", (32, 32)).save(path, "JPEG")
    load("cifar10", data_dir=data_dir, download=False)
