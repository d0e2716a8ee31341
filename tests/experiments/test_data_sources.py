"""torchvision's folders (CIFAR batches, IDX files) read back, ways in which they can be wrong, and the search order."""

import gzip
import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    CIFAR10_CLASSES,
    COUNT,
    arrays,
    assert_same,
    idx,
    python2_batch,
    refused,
    write_folders,
    write_npz,
)

from experiments.data import known, load, sources
from experiments.errors import UserError


@pytest.fixture
def torchvision_cifar10(small_sets, monkeypatch, tmp_path):
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


def test_cifar100_takes_the_fine_labels(small_sets, monkeypatch, tmp_path):
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
def test_even_with_the_right_md5_only_arrays_are_unpickled(small_sets, monkeypatch, tmp_path, protocol):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": Exploit(tmp_path / "trace"), "labels": []}, protocol))
    with pytest.raises(UserError, match="mkdir"):
        sources._read_batch(path, hashlib.md5(path.read_bytes()).hexdigest())
    assert not (tmp_path / "trace").exists()


def test_a_pickle_that_is_no_batch(small_sets, tmp_path):
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
def test_mnist_idx(small_sets, tmp_path, packed):
    made = arrays((28, 28, 1), 10)
    write_idx(tmp_path, made, packed)
    found = load("mnist", data_dir=tmp_path, download=False)
    assert_same(found, made)
    assert found.train.images.flags.writeable, "PyTorch warns of tensors that share read-only memory"
    assert (found.title, found.original) == ("MNIST (not verified as the original)", False)


@pytest.mark.parametrize("form", ["idx", "npz"])
def test_mnist_is_the_original_if_its_idx_files_would_be(small_sets, monkeypatch, tmp_path, form):
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
        (lambda content: content[:4] + np.array([2**31, 2**31, 4], ">u4").tobytes(), ["18,446,744,073,709,551,632"]),
        (lambda content: b"", ["nothing"]),
        (lambda content: b"\x00\x00\x0d\x03" + content[4:], ["00000d03"]),
    ],
)
def test_damaged_idx(small_sets, tmp_path, damage, words):
    path = write_idx(tmp_path, arrays((28, 28, 1), 10)) / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    refused("mnist", tmp_path, path, *words)


def test_damaged_gzip(small_sets, tmp_path):
    path = write_idx(tmp_path, arrays((28, 28, 1), 10), packed=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:200])
    refused("mnist", tmp_path, path, "cannot be unpacked")


def test_more_labels_than_images(small_sets, tmp_path):
    raw = write_idx(tmp_path, arrays((28, 28, 1), 10))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(41, np.uint8)))
    refused("mnist", tmp_path, "labels have shape [41], expected [40]")


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


def test_a_bare_train_folder_of_another_number_of_classes_is_not_taken(small_sets, tmp_path):
    write_folders(tmp_path, arrays((32, 32, 3), 10), CIFAR10_CLASSES)
    assert sources.find(small_sets["cifar10"], tmp_path) is not None
    assert sources.find(small_sets["cifar100"], tmp_path) is None


def test_what_may_not_be_looked_at_is_not_called_damaged(small_sets, tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "mnist-train.npz"))

    with monkeypatch.context() as context:
        context.setattr(Path, "is_dir", denied)
        with pytest.raises(
            UserError, match=r"mnist-train.npz cannot be looked into \(Permission denied\): correct its"
        ):
            sources.find(known.FACTS["mnist"], tmp_path)
    write_npz(tmp_path, "mnist", arrays((28, 28), 10))
    monkeypatch.setattr(sources.zipfile, "ZipFile", denied)
    with pytest.raises(UserError, match=r"npz cannot be read \(permission denied\): correct its permissions"):
        load("mnist", data_dir=tmp_path)
