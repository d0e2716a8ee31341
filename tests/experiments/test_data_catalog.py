"""Names, titles, fingerprints and their cache, and the mean image."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data import ImageSet, ShapesSpec, Split, catalog, data_folder, fingerprint, known, load, mean_image
from experiments.data.imageset import digest
from experiments.errors import UserError

SMALL = ShapesSpec(size=8, train=30, test=10)


@pytest.fixture
def npz(monkeypatch, tmp_path):
    """A folder with a small MNIST as npz files."""
    monkeypatch.setitem(known.FACTS, "mnist", replace(known.FACTS["mnist"], train=20, test=10))
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, n in {"train": 20, "test": 10}.items():
        images = rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        np.savez(folder / f"mnist-{split}.npz", images=images, labels=np.arange(n) % 10)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a data set is really read."""
    calls = []
    read = catalog._read
    monkeypatch.setattr(catalog, "_read", lambda *a: calls.append(a) or read(*a))
    return calls


def test_unknown_name():
    for ask in (load, fingerprint):
        with pytest.raises(UserError, match="'imagenet'; expected one of cifar10, cifar100, mnist, shapes"):
            ask("imagenet")


def test_shapes_is_an_image_set():
    found = load("shapes", shapes=SMALL)
    assert isinstance(found, ImageSet)
    assert (found.name, found.title, found.classes, found.original) == ("shapes", "shapes (made on the fly)", 10, False)
    assert len(found.train) == 30 and len(found.test) == 10


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "environment"))
    assert data_folder(tmp_path / "argument") == tmp_path / "argument"
    assert data_folder() == tmp_path / "environment"
    monkeypatch.delenv("DATA_DIR")
    assert data_folder().name == "data" and (data_folder().parent / "experiments" / "data").is_dir()


def test_data_dir_of_the_environment_is_read(npz, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(npz))
    assert len(load("mnist", download=False).train) == 20


def test_what_was_used_is_reported(npz):
    said = []
    load("mnist", data_dir=npz, download=False, progress=said.append)
    assert said == [f"reading MNIST from {npz} (mnist-train.npz and mnist-test.npz)"]


# ---------------------------------------------------------------------------------------------------- fingerprints


def test_digest_depends_on_every_part():
    images, labels = np.zeros((4, 2, 3, 1), np.uint8), np.arange(4)
    base = Split(images, labels)
    pixel = images.copy()
    pixel[3, 1, 2, 0] = 1
    others = [
        (Split(pixel, labels), base),
        (base, Split(pixel, labels)),
        (Split(images, labels[::-1]), base),
        (Split(images.reshape(4, 3, 2, 1), labels), base),
        (Split(images[:2], labels[:2]), Split(images, labels)),
    ]
    digests = [digest(base, base), *(digest(*pair) for pair in others)]
    assert len(set(digests)) == len(digests)
    assert all(len(d) == 16 and int(d, 16) >= 0 for d in digests)
    assert digest(Split(images, labels.astype(np.int32)), base) == digests[0]


def test_fingerprint_is_that_of_load(npz, tmp_path):
    found = load("mnist", data_dir=npz, download=False)
    assert fingerprint("mnist", data_dir=npz, cache_dir=tmp_path) == (found.fingerprint, found.title)
    drawn = load("shapes", shapes=SMALL)
    assert fingerprint("shapes", shapes=SMALL, cache_dir=tmp_path) == (drawn.fingerprint, drawn.title)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_asking_again_reads_nothing(npz, reads, tmp_path, elsewhere):
    place = {"cache_dir": tmp_path / "cache"} if elsewhere else {}
    first = fingerprint("mnist", data_dir=npz, download=False, **place)
    assert fingerprint("mnist", data_dir=npz, download=False, **place) == first
    assert len(reads) == 1
    assert ((tmp_path / "cache" if elsewhere else npz) / ".fingerprints.json").is_file()
    assert len(list(npz.iterdir())) == (2 if elsewhere else 3)


def test_a_file_written_again_is_read_again(npz, reads, tmp_path):
    first = fingerprint("mnist", data_dir=npz, cache_dir=tmp_path)
    images = np.zeros((10, 28, 28, 1), np.uint8)
    path = npz / "mnist-test.npz"
    np.savez(path, images=images, labels=np.arange(10))  # the same size: only the time tells
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))
    assert fingerprint("mnist", data_dir=npz, cache_dir=tmp_path) != first
    assert len(reads) == 2


def test_another_drawn_set_has_another_fingerprint(tmp_path):
    specs = [SMALL, replace(SMALL, seed=1), replace(SMALL, label_noise=0.5), replace(SMALL, train=31)]
    assert len({fingerprint("shapes", shapes=spec, cache_dir=tmp_path) for spec in specs}) == 4
    assert len(json.loads((tmp_path / ".fingerprints.json").read_text())) == 4


def test_a_cache_that_cannot_be_written_is_reported_and_no_more(npz, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    said = []
    found = fingerprint("mnist", data_dir=npz, cache_dir=tmp_path / "file" / "cache", progress=said.append)
    assert found[0] == load("mnist", data_dir=npz).fingerprint
    assert "not remembered" in said[-1]


def test_a_cache_is_as_readable_as_other_files(npz):
    fingerprint("mnist", data_dir=npz)
    (other := npz / "other").touch()
    assert (npz / ".fingerprints.json").stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"a": 1}', '{"a": ["b"]}', "\udc80"])
def test_a_damaged_cache_counts_as_empty(npz, reads, content):
    cache = npz / ".fingerprints.json"
    cache.write_text(content, errors="surrogateescape")
    first = fingerprint("mnist", data_dir=npz)
    assert fingerprint("mnist", data_dir=npz) == first
    assert len(reads) == 1


# ------------------------------------------------------------------------------------------------------ mean image


@given(
    n=st.integers(1, 50), h=st.integers(1, 4), w=st.integers(1, 4), c=st.integers(1, 3), seed=st.integers(0, 2**32 - 1)
)
def test_mean_image_is_the_float64_mean(n, h, w, c, seed):
    images = np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)
    mean = mean_image(images)
    assert mean.shape == (h, w, c) and mean.dtype == np.float32
    for at in np.ndindex(h, w, c):
        exact = sum(int(image[at]) for image in images) / n
        assert mean[at] == np.float32(exact)


def test_mean_image_does_not_lose_small_addends():
    images = np.full((2**18, 1, 1, 1), 255, np.uint8)  # 2^18 * 255 needs 26 bits, float32 holds 24
    images[0] = 254
    assert mean_image(images)[0, 0, 0] == np.float32(255 - 1 / 2**18)


@pytest.mark.parametrize("bad", [np.zeros((0, 2, 2, 1), np.uint8), np.zeros((3, 2, 2, 1)), np.zeros((3, 2), np.uint8)])
def test_mean_image_refuses(bad):
    with pytest.raises(ValueError, match="expected uint8"):
        mean_image(bad)
