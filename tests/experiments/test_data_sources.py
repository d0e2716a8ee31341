"""Every form of a data set read back from files made here, and every way in which such files can be wrong."""

import gzip
import hashlib
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import known, load, sources
from experiments.errors import UserError

COUNT = {"train": 40, "test": 20}


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


@pytest.fixture
def small(monkeypatch):
    """The three data sets with 40 training and 20 test images."""
    for name, facts in list(known.FACTS.items()):
        monkeypatch.setitem(known.FACTS, name, replace(facts, train=40, test=20))
    return known.FACTS


@pytest.fixture
def torchvision_cifar10(small, monkeypatch, tmp_path):
    """A CIFAR-10 folder as torchvision leaves it, whose md5s are the known ones; gives (data_dir, arrays)."""
    made = arrays((32, 32, 3), 10)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    files = {"train": [], "test": []}
    for split, names in {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}.items():
        images, labels = made[split]
        for name, part in zip(names, np.split(np.arange(len(images)), len(names)), strict=True):
            content = python2_batch(images[part], labels[part])
            (folder / name).write_bytes(content)
            files[split].append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setitem(known.FACTS, "cifar10", replace(known.FACTS["cifar10"], files=files))
    return tmp_path, made


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


# ------------------------------------------------------------------------------------------- torchvision's folders


def test_known_md5s_are_torchvisions():
    from torchvision import datasets

    for name, theirs in {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}.items():
        facts = known.FACTS[name]
        assert facts.folder == theirs.base_folder
        assert [list(pair) for pair in facts.files["train"]] == theirs.train_list
        assert [list(pair) for pair in facts.files["test"]] == theirs.test_list
    packed = [name for split in ("train", "test") for name in known.FACTS["mnist"].files[split][0]]
    assert [f"{name}.gz" for name in packed] == [name for name, _ in datasets.MNIST.resources]


def test_cifar10_batches(torchvision_cifar10):
    data_dir, made = torchvision_cifar10
    found = load("cifar10", data_dir=data_dir, download=False)
    assert_same(found, made)
    assert (found.title, found.original, found.classes) == ("CIFAR-10", True, 10)
    assert str(data_dir) not in found.source and "cifar-10-batches-py" in found.source


def test_cifar100_takes_the_fine_labels(small, monkeypatch, tmp_path):
    made = arrays((32, 32, 3), 100)
    (tmp_path / "cifar-100-python").mkdir()
    files = {}
    for split, (images, labels) in made.items():
        content = python2_batch(images, labels, "fine_labels")
        (tmp_path / "cifar-100-python" / split).write_bytes(content)
        files[split] = [(split, hashlib.md5(content).hexdigest())]
    monkeypatch.setitem(known.FACTS, "cifar100", replace(known.FACTS["cifar100"], files=files))
    found = load("cifar100", data_dir=tmp_path, download=False)
    assert_same(found, made)
    assert found.original and found.classes == 100


class Exploit:
    """Unpickles by calling os.mkdir: whoever unpickles it leaves a trace."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_batch_of_another_md5_is_never_unpickled(torchvision_cifar10):
    data_dir, _ = torchvision_cifar10
    trace, path = data_dir / "trace", data_dir / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps(Exploit(trace)))
    refused("cifar10", data_dir, path, "md5", "not opened")
    assert not trace.exists()


def test_a_truncated_batch_is_refused(torchvision_cifar10):
    data_dir, _ = torchvision_cifar10
    path = data_dir / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:-1])
    refused("cifar10", data_dir, path, "cut short")


def test_a_missing_batch_is_an_error_though_an_npz_lies_beside(torchvision_cifar10):
    data_dir, made = torchvision_cifar10
    write_npz(data_dir, "cifar10", made)
    (data_dir / "cifar-10-batches-py" / "data_batch_5").unlink()
    refused("cifar10", data_dir, "data_batch_5 is missing")


@pytest.mark.parametrize("protocol", [2, 5])
def test_even_with_the_right_md5_only_arrays_are_unpickled(small, monkeypatch, tmp_path, protocol):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": Exploit(tmp_path / "trace"), "labels": []}, protocol))
    with pytest.raises(UserError, match="mkdir"):
        sources._read_batch(path, hashlib.md5(path.read_bytes()).hexdigest())
    assert not (tmp_path / "trace").exists()


def test_a_pickle_that_is_no_batch(small, tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": [1, 2], "labels": [0]}, 2))
    with pytest.raises(UserError, match="not a CIFAR batch"):
        sources._read_batch(path, hashlib.md5(path.read_bytes()).hexdigest())


# ------------------------------------------------------------------------------------------------------- MNIST, IDX


def write_idx(data_dir, made, packed=False):
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, (images, labels) in made.items():
        for name, array in zip(known.FACTS["mnist"].files[split][0], (images[..., 0], labels), strict=True):
            content = idx(array)
            (raw / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return raw


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_idx(small, tmp_path, packed):
    made = arrays((28, 28, 1), 10)
    write_idx(tmp_path, made, packed)
    found = load("mnist", data_dir=tmp_path, download=False)
    assert_same(found, made)
    assert (found.title, found.original) == ("MNIST (not verified as the original)", False)


@pytest.mark.parametrize("form", ["idx", "npz"])
def test_mnist_is_the_original_if_its_idx_files_would_be(small, monkeypatch, tmp_path, form):
    made = arrays((28, 28, 1), 10)
    content = [array for images, labels in made.values() for array in (images[..., 0], labels)]
    monkeypatch.setattr(sources, "MNIST_IDX_SHA256", tuple(hashlib.sha256(idx(a)).hexdigest() for a in content))
    write_idx(tmp_path, made) if form == "idx" else write_npz(tmp_path, "mnist", made)
    found = load("mnist", data_dir=tmp_path, download=False)
    assert (found.title, found.original) == ("MNIST", True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-5], ["bytes", "its header [20, 28, 28] says 15,696"]),
        (lambda content: content[:6], ["IDX header"]),
        (lambda content: b"", ["nothing"]),
        (lambda content: b"\x00\x00\x0d\x03" + content[4:], ["00000d03"]),
    ],
)
def test_damaged_idx(small, tmp_path, damage, words):
    path = write_idx(tmp_path, arrays((28, 28, 1), 10)) / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    refused("mnist", tmp_path, path, *words)


def test_damaged_gzip(small, tmp_path):
    path = write_idx(tmp_path, arrays((28, 28, 1), 10), packed=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:200])
    refused("mnist", tmp_path, path, "cannot be unpacked")


def test_more_labels_than_images(small, tmp_path):
    raw = write_idx(tmp_path, arrays((28, 28, 1), 10))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(41, np.uint8)))
    refused("mnist", tmp_path, "labels have shape [41], expected [40]")


# ---------------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize(
    ("name", "shape"), [("cifar10", (32, 32, 3)), ("cifar100", (32, 32, 3)), ("mnist", (28, 28, 1))]
)
def test_npz(small, tmp_path, name, shape):
    made = arrays(shape, small[name].classes)
    write_npz(tmp_path, name, made)
    found = load(name, data_dir=tmp_path, download=False)
    assert_same(found, made)
    assert found.title == f"{small[name].label} (not verified as the original)" and not found.original


def test_a_known_preparation_is_called_by_its_name(small, monkeypatch, tmp_path):
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
        ({"images": np.array([None] * 20), "labels": GOOD[1]}, ["cannot be read", "allow_pickle"]),
    ],
)
def test_wrong_arrays(small, tmp_path, content, words):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    np.savez(tmp_path / "cifar10-test.npz", **content)
    refused("cifar10", tmp_path, tmp_path / "cifar10-test.npz", *words)


@pytest.mark.parametrize("keep", [0, 3, 1000, -1000])
def test_npz_cut_short(small, tmp_path, keep):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    path = tmp_path / "cifar10-train.npz"
    path.write_bytes(path.read_bytes()[:keep])
    refused("cifar10", tmp_path, path, "cannot be read as npz")


def test_npz_with_a_flipped_byte(small, tmp_path):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    path = tmp_path / "cifar10-train.npz"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    refused("cifar10", tmp_path, path, "CRC")


def test_a_bare_array_under_the_npz_name(small, tmp_path):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    with (tmp_path / "cifar10-test.npz").open("wb") as stream:
        np.save(stream, GOOD[0])
    refused("cifar10", tmp_path, "single array")


def test_half_an_npz_pair(small, tmp_path):
    write_npz(tmp_path, "cifar10", arrays((32, 32, 3), 10))
    (tmp_path / "cifar10-train.npz").unlink()
    refused("cifar10", tmp_path, "cifar10-train.npz is missing beside cifar10-test.npz")


# ------------------------------------------------------------------------------------------------- class folders

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def as_set(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("below", ["cifar10", "."])
def test_class_folders(small, tmp_path, below):
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


def test_class_folders_read_the_same_whatever_the_file_system_lists_first(small, tmp_path, monkeypatch):
    write_folders(tmp_path / "cifar10", arrays((32, 32, 3), 10), CIFAR10_CLASSES)
    first = load("cifar10", data_dir=tmp_path, download=False).fingerprint
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(listed(self))))
    assert load("cifar10", data_dir=tmp_path, download=False).fingerprint == first


def test_numbered_class_folders_count_as_numbers(small, monkeypatch, tmp_path):
    monkeypatch.setitem(known.FACTS, "cifar100", replace(small["cifar100"], train=100, test=100))
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    made = {split: (images, np.arange(100)) for split in COUNT}
    write_folders(tmp_path / "cifar100", made, [str(i) for i in range(100)])
    found = load("cifar100", data_dir=tmp_path, download=False)
    assert as_set(found.test.images, found.test.labels) == as_set(images, np.arange(100))


def test_grey_jpegs(small, tmp_path):
    made = arrays((28, 28, 1), 10)
    write_folders(tmp_path / "mnist", made, [str(i) for i in range(10)], "jpg")
    found = load("mnist", data_dir=tmp_path, download=False)
    assert found.train.images.shape == (40, 28, 28, 1)
    assert sorted(found.train.labels) == sorted(made["train"][1])


@pytest.fixture
def folders(small, tmp_path):
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
    refused("cifar10", data_dir, path, "cannot be read as an image")


# --------------------------------------------------------------------------------------------------- search order


def test_search_order(torchvision_cifar10):
    data_dir, made = torchvision_cifar10
    write_npz(data_dir, "cifar10", arrays((32, 32, 3), 10, seed=2))
    write_folders(data_dir / "cifar10", arrays((32, 32, 3), 10, seed=3), CIFAR10_CLASSES)
    assert sources.find(known.FACTS["cifar10"], data_dir).form == "torchvision"
    assert_same(load("cifar10", data_dir=data_dir, download=False), made)
    (data_dir / "cifar-10-batches-py").rename(data_dir / "elsewhere")
    assert sources.find(known.FACTS["cifar10"], data_dir).form == "npz"
    for split in COUNT:
        (data_dir / f"cifar10-{split}.npz").unlink()
    assert sources.find(known.FACTS["cifar10"], data_dir).form == "folders"


def test_a_bare_train_folder_of_another_number_of_classes_is_not_taken(small, tmp_path):
    write_folders(tmp_path, arrays((32, 32, 3), 10), CIFAR10_CLASSES)
    assert sources.find(small["cifar10"], tmp_path) is not None
    assert sources.find(small["cifar100"], tmp_path) is None
