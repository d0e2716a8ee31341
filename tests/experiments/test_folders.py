"""ImageNet's class folders: the index and its cache, the order, decoding, the mean, and what may be wrong."""

import os
import pickle
import shutil
import tempfile

import numpy as np
import pytest
from PIL import Image

from experiments.data import folders
from experiments.errors import UserError

SIDE = 32


@pytest.fixture
def open_folders(jpegs):
    """Opens small folders; said: what was reported."""
    root = jpegs()

    def open_them(**options):
        said: list[str] = []
        source = folders.load(root, side=SIDE, progress=said.append, **options)
        return source, said

    open_them.root = root / "imagenet"
    return open_them


def touch(path, seconds=1):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


def test_splits_classes_and_title(open_folders):
    source, _ = open_folders()
    assert (len(source.train), len(source.test), source.classes) == (24, 21, 3)
    assert source.title == "ImageNet (folder, 24 images)"
    assert (source.name, source.original) == ("imagenet", False)
    assert source.train.classes == ("n01440764", "n01443537", "n02123045")  # synset ids in their order are 0, 1, 2
    for listing in (source.train, source.test):
        paths = [listing.path(i) for i in range(len(listing))]
        assert len(set(paths)) == len(listing)
        assert all(os.path.isfile(path) for path in paths)
        assert [path.split("/")[-2] for path in paths] == [listing.classes[label] for label in listing.labels]


def test_records_are_mixed_once_and_the_same_everywhere(open_folders, tmp_path):
    source, _ = open_folders()
    labels = source.train.labels
    assert not np.array_equal(labels, np.sort(labels))
    moved = tmp_path / "elsewhere" / "imagenet"
    shutil.copytree(open_folders.root, moved)
    other = folders.load(moved, side=SIDE)
    assert other.train.names.tolist() == source.train.names.tolist()
    assert other.fingerprint == source.fingerprint


def test_second_start_reads_the_index_and_the_mean(open_folders, monkeypatch):
    first, said = open_folders()
    assert len(said) == 2 and "listing 3 class folders" in said[0] and "mean image of 24 images" in said[1]
    monkeypatch.setattr(folders, "_scan", None)  # would be called to list, and fail
    monkeypatch.setattr(folders, "decode", None)
    second, said = open_folders()
    assert said == []
    assert second.train.names.tolist() == first.train.names.tolist()
    assert second.test.labels.tolist() == first.test.labels.tolist()
    assert np.array_equal(second.mean, first.mean)
    root = open_folders.root.parent
    assert folders.fingerprint(root, side=SIDE) == (first.fingerprint, first.title)
    assert folders.fingerprint(root, side=SIDE + 1)[0] != first.fingerprint  # other pixels, another experiment


def test_the_cache_may_lie_elsewhere_and_need_not_be_writable(open_folders, tmp_path):
    source, _ = open_folders(cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert {p.name for p in open_folders.root.iterdir()} == {"train", "val"}
    (tmp_path / "file").touch()
    again, said = open_folders(cache_dir=tmp_path / "file")
    assert [line.split(" cannot be remembered")[0] for line in said if "cannot" in line] == [
        "the list of its files",
        "the mean image",
    ]
    assert again.fingerprint == source.fingerprint


def added(root):
    shutil.copy(next((root / "train/n01440764").iterdir()), root / "train/n01440764/another.JPEG")
    touch(root / "train/n01440764")


def removed(root):
    next((root / "val/n02123045").iterdir()).unlink()
    touch(root / "val/n02123045")


def renamed(root):
    path = next((root / "train/n01443537").iterdir())
    path.rename(path.with_name("renamed.JPEG"))
    touch(root / "train/n01443537")


def overwritten(root):
    path = next((root / "train/n01443537").iterdir())
    Image.new("RGB", (300, 300)).save(path)
    touch(path)


def renamed_class(root):
    for split in ("train", "val"):
        (root / split / "n01440764").rename(root / split / "n01440000")


@pytest.mark.parametrize("change", [added, removed, renamed, overwritten, renamed_class])
def test_the_index_follows_the_folder(open_folders, change):
    before, _ = open_folders()
    change(open_folders.root)
    after, said = open_folders()
    assert "which has changed" in said[0]
    assert after.fingerprint != before.fingerprint
    assert os.path.isfile(after.train.path(0))
    assert len(after.train) == sum(len(list(folder.iterdir())) for folder in (open_folders.root / "train").iterdir())


def test_other_times_of_the_same_files_are_the_same_data(open_folders):
    before, _ = open_folders()
    touch(open_folders.root / "train/n01440764")
    after, said = open_folders()
    assert "which has changed" in said[0] and len(said) == 1  # the mean is still good
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"something else"])
def test_a_broken_cache_is_made_again(open_folders, content):
    before, _ = open_folders()
    for path in open_folders.root.glob("imagenet-*"):
        path.write_bytes(content)
    after, said = open_folders()
    assert len(said) == 2
    assert after.fingerprint == before.fingerprint and np.array_equal(after.mean, before.mean)


def test_a_damaged_byte_of_the_index_is_noticed(open_folders):
    open_folders()
    (path,) = open_folders.root.glob("imagenet-index-*")
    content = path.read_bytes()
    assert folders._read_index(path) is not None
    method = content.rfind(b"PK\x01\x02") + 10  # of compression, in the zip's directory
    for i in (method, *range(0, len(content), len(content) // 50)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :])
        assert folders._read_index(path) is None


def test_a_damaged_mean_is_computed_again(open_folders):
    before, _ = open_folders()
    (path,) = open_folders.root.glob("imagenet-mean-*")
    path.write_bytes(path.read_bytes()[:-400] + bytes(400))
    after, said = open_folders()
    assert len(said) == 1 and np.array_equal(after.mean, before.mean)
    assert open_folders()[1] == []


def test_caches_are_shared_and_an_interruption_leaves_nothing(open_folders, monkeypatch):
    open_folders()
    (other := open_folders.root / "other").touch()
    assert len({path.stat().st_mode for path in (other, *open_folders.root.glob("imagenet-*"))}) == 1
    for path in (other, *open_folders.root.glob("imagenet-*")):
        path.unlink()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_folders()
    assert {p.name for p in open_folders.root.iterdir()} == {"train", "val"}


def test_decoding_squeezes_the_whole_image(tmp_path):
    image = Image.new("RGB", (600, 300), (255, 0, 0))  # left half red, right half blue; width shrinks more than height
    image.paste((0, 0, 255), (300, 0, 600, 300))
    image.save(tmp_path / "wide.png")
    record = folders.decode(str(tmp_path / "wide.png"), 100).astype(int)
    assert record.shape == (100, 100, 3)
    assert np.all(record[:, :49] == [255, 0, 0]) and np.all(record[:, 51:] == [0, 0, 255])


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("size", [(1030, 700), (12, 9)])
def test_grey_and_cmyk_large_and_small_images_become_records(tmp_path, mode, size):
    path = tmp_path / "image.JPEG"
    Image.new("RGB", size, (90, 90, 90)).convert(mode).save(path, quality=95)
    record = folders.decode(str(path), SIDE)
    assert record.shape == (SIDE, SIDE, 3) and record.dtype == np.uint8
    assert np.abs(record.astype(int) - 90).max() <= 2


def test_shrinking_in_the_decoder_changes_little(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "large.JPEG"
    Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((1200, 900), Image.BICUBIC).save(path)
    with Image.open(path) as image:
        whole = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BILINEAR)).astype(int)
    assert np.abs(folders.decode(str(path), SIDE) - whole).mean() < 2


def test_the_mean_is_that_of_the_first_records(open_folders, monkeypatch):
    monkeypatch.setattr(folders, "MEAN_IMAGES", 10)
    monkeypatch.setattr(folders, "PROBES", 4)  # in three pieces
    source, _ = open_folders()
    images = [folders.decode(source.train.path(i), SIDE) for i in range(10)]
    np.testing.assert_allclose(source.mean, np.mean(np.array(images, np.float64), axis=0), atol=1e-5)
    assert source.mean.dtype == np.float32


def test_an_index_takes_little_memory_and_travels_to_workers(open_folders):
    source, _ = open_folders()
    listing = source.train
    assert listing.names.nbytes + listing.labels.nbytes <= 40 * len(listing)  # 50 MB for ImageNet
    assert pickle.loads(pickle.dumps(listing)).path(3) == listing.path(3)


def without_val(root):
    shutil.rmtree(root / "val")


def without_images(root):
    shutil.rmtree(root / "train/n01443537")
    (root / "train/n01443537").mkdir()


def without_a_class(root):
    shutil.rmtree(root / "val/n02123045")


def flat(root):
    for folder in list((root / "val").iterdir()):
        for path in folder.iterdir():
            path.rename(root / "val" / path.name)
        folder.rmdir()


def elsewhere(root):
    root.rename(root.with_name("other"))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (elsewhere, ["was not found", "DATA_DIR", "train/<class>/*.JPEG", "SCALE=smoke"]),
        (without_val, ["val cannot be read", "No such file"]),
        (without_images, ["n01443537", "holds no image"]),
        (without_a_class, ["train holds 3", "val 2", "n02123045 is only in train/"]),
        (flat, ["val holds 21 files and no class folder", "synset"]),
    ],
)
def test_wrong_folders_are_named(open_folders, break_it, words):
    break_it(open_folders.root)
    with pytest.raises(UserError) as caught:
        open_folders()
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("keep", [0, 100, 0.7])
def test_an_unreadable_image_is_named(open_folders, keep):
    source, _ = open_folders()
    path = source.train.path(5)
    with open(path, "rb+") as file:
        file.truncate(keep if isinstance(keep, int) else int(os.path.getsize(path) * keep))
    with pytest.raises(UserError, match=r"cannot be read as PNG or JPEG.*copy it again") as caught:
        open_folders()
    assert path in str(caught.value)


def test_an_image_of_another_format_is_not_opened_whatever_its_name(tmp_path):
    for kind in ("PNG", "JPEG"):  # one file of the archive is a PNG
        Image.new("RGB", (40, 40)).save(tmp_path / "image.JPEG", kind)
        folders.decode(str(tmp_path / "image.JPEG"), SIDE)
    Image.new("RGB", (40, 40)).save(tmp_path / "image.JPEG", "BMP")
    with pytest.raises(UserError, match="cannot be read as PNG or JPEG"):
        folders.decode(str(tmp_path / "image.JPEG"), SIDE)


def test_hidden_and_foreign_files_are_passed_over(open_folders):
    before, _ = open_folders()
    for name in (".DS_Store", "._a.JPEG", "readme.txt"):
        (open_folders.root / "train/n01440764" / name).touch()
    (open_folders.root / "train/.cache").mkdir()
    after, _ = open_folders()
    assert after.fingerprint == before.fingerprint


def test_workers_are_a_number(open_folders):
    assert open_folders(workers=0)[0].workers == 0
    assert 1 <= open_folders()[0].workers <= folders.MOST_WORKERS
    with pytest.raises(UserError, match="-1 decoding processes"):
        open_folders(workers=-1)


def test_sockets_with_too_long_names_are_refused_before_anything_waits_for_them(open_folders, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 100 * "x")
    open_folders(workers=0)
    with pytest.raises(UserError, match="has 105 bytes.* can have 70 at most: TMPDIR=/tmp, or data.workers=0"):
        open_folders(workers=1)
