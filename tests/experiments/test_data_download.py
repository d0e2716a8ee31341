"""Downloading, tried on a web server of this machine that can be dead, slow, wrong or cut off."""

import errno
import fcntl
import gzip
import hashlib
import io
import pickle
import re
import socket
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision import datasets

from experiments.data import download, known, load
from experiments.errors import UserError


@contextmanager
def web_server(files, declared=None):
    """Serve {path: content}; `declared` is a false Content-Length. Gives (base URL, list of requested paths)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(declared or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def dead_host():
    """A base URL at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@contextmanager
def silent_host():
    """A host that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quick_and_local(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "BACK_OFF", 0.0)


@pytest.fixture
def archive(monkeypatch):
    """A small CIFAR-10 archive whose checksums are taken for the official ones; the original host is dead. Gives its
    bytes."""
    rng = np.random.default_rng(0)
    members, files = {}, {"train": [], "test": []}
    for split, names in {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}.items():
        for name in names:
            batch = {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}
            members[name] = pickle.dumps(batch, 3)
            files[split].append([name, hashlib.md5(members[name]).hexdigest()])
    members["batches.meta"] = pickle.dumps({"label_names": [str(i) for i in range(10)]}, 3)
    packed = tar_of({f"cifar-10-batches-py/{name}": content for name, content in members.items()})
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{dead_host()}/original/cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(packed).hexdigest())
    facts = replace(known.FACTS["cifar10"], train=20, test=10, files=files)
    monkeypatch.setitem(known.FACTS, "cifar10", facts)
    return packed


def tar_of(members):
    """The bytes of a packed archive of {path: content}."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


PATH = "/data/cifar-10-python.tar.gz"


def left_in(folder):
    """Names in `folder`, without the lock file that downloads share."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_download_and_read(archive, tmp_path):
    said = []
    with web_server({PATH: archive}) as (mirror, _):
        found = load("cifar10", data_dir=tmp_path / "new", mirrors=[mirror], progress=said.append)
    assert len(found.train) == 20 and found.original and found.title == "CIFAR-10"
    assert left_in(tmp_path / "new") == ["cifar-10-batches-py"]
    assert f"downloading CIFAR-10 from {mirror}/ (try 1 of 2)" in said
    again = load("cifar10", data_dir=tmp_path / "new", mirrors=[dead_host()], progress=said.append)
    assert again.fingerprint == found.fingerprint


def test_what_is_there_is_not_downloaded(archive, tmp_path):
    with web_server({PATH: archive}) as (mirror, asked):
        load("cifar10", data_dir=tmp_path, mirrors=[mirror])
        before = len(asked)
        load("cifar10", data_dir=tmp_path, mirrors=[mirror])
        assert len(asked) == before > 0


def test_a_folder_made_for_a_download_that_fails_goes_again(archive, tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mistyped" / "data", tmp_path / "mine"):
        with pytest.raises(UserError, match=r"was not found and could not be downloaded\.\nLooked for") as caught:
            load("cifar10", data_dir=folder, mirrors=[dead_host()])
        assert (f"Looked for (there is no folder {folder}):" in str(caught.value)) == ("mistyped" in str(folder))
    assert left_in(tmp_path) == ["mine"] and not left_in(tmp_path / "mine")


def test_a_dead_mirror_then_a_good_one(archive, tmp_path):
    said, dead = [], dead_host()
    with web_server({PATH: archive}) as (mirror, _):
        found = load("cifar10", data_dir=tmp_path, mirrors=[dead, mirror], progress=said.append)
    assert found.original
    tries = [line for line in said if line.startswith("downloading")]
    assert [dead in line for line in tries] == [True, True, False]


def test_a_silent_mirror_is_given_up(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    with silent_host() as silent, web_server({PATH: archive}) as (mirror, _):
        found = load("cifar10", data_dir=tmp_path, mirrors=[silent, mirror])
    assert found.original
    assert socket.getdefaulttimeout() is None


def test_the_original_host_is_tried_last(archive, monkeypatch, tmp_path):
    with web_server({PATH: archive}) as (host, _), web_server({}) as (empty, _):
        monkeypatch.setattr(datasets.CIFAR10, "url", f"{host}/cifar-10-python.tar.gz")
        said = []
        assert load("cifar10", data_dir=tmp_path, mirrors=[empty], progress=said.append).original
    assert [line for line in said if line.startswith("downloading")][-1].startswith(
        f"downloading CIFAR-10 from {host}/"
    )


@pytest.mark.parametrize("fault", ["corrupt", "cut off", "not an archive", "missing"])
def test_a_bad_answer_leaves_nothing(archive, monkeypatch, tmp_path, fault):
    files, declared = {PATH: archive}, None
    if fault == "corrupt":
        files = {PATH: archive[:500] + bytes([archive[500] ^ 1]) + archive[501:]}
    elif fault == "cut off":
        files, declared = {PATH: archive[:-700]}, len(archive)
    elif fault == "not an archive":
        files = {PATH: b"<html>sign in</html>"}
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(files[PATH]).hexdigest())
    else:
        files = {}
    with web_server(files, declared) as (mirror, _), pytest.raises(UserError) as caught:
        load("cifar10", data_dir=tmp_path, mirrors=[mirror])
    assert left_in(tmp_path) == []
    reason = {"missing": "404", "not an archive": "ReadError"}.get(fault, "corrupted")
    assert re.search(rf"{mirror}/ \(try 2\): .*{reason}", str(caught.value))


def test_nothing_is_unpickled_before_the_projects_own_reader(archive, monkeypatch, tmp_path):
    def opened(*_, **__):
        raise AssertionError("a plain pickle.load")

    monkeypatch.setattr(pickle, "load", opened)
    with web_server({PATH: archive}) as (mirror, _):
        assert load("cifar10", data_dir=tmp_path, mirrors=[mirror]).original


def test_only_the_data_sets_own_folder_is_unpacked(archive, monkeypatch, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    strange = ["../outside", f"{tmp_path}/outside", "cifar-10-batches-py/../outside", "cifar-10-batches-py/a/outside"]
    packed = tar_of(members | dict.fromkeys(strange, b""))
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(packed).hexdigest())
    with web_server({PATH: packed}) as (mirror, _):
        assert load("cifar10", data_dir=tmp_path / "data", mirrors=[mirror]).original
    assert {path.name for path in (tmp_path / "data" / "cifar-10-batches-py").iterdir()} == {
        *("data_batch_1", "data_batch_2", "test_batch", "batches.meta")
    }
    assert list(tmp_path.rglob("outside")) == []


def test_addresses_that_are_not_on_the_web_are_passed_over(archive, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    elsewhere = [tmp_path.as_uri(), str(tmp_path), "ftp://127.0.0.1"]
    with web_server({PATH: archive}) as (mirror, _):
        assert load("cifar10", data_dir=tmp_path / "new", mirrors=[*elsewhere, mirror]).original
    with pytest.raises(UserError) as caught:
        load("cifar10", data_dir=tmp_path / "none", mirrors=elsewhere)
    assert all(f"  {base}/: not tried, since only https://" in str(caught.value) for base in elsewhere)


def test_an_answer_without_a_length_is_a_failed_try(archive, monkeypatch, tmp_path):
    def without_length(*_):
        raise AttributeError("'addinfourl' object has no attribute 'length'")  # as after a redirection to FTP

    monkeypatch.setattr(download, "_fetch", without_length)
    with pytest.raises(UserError, match=r"\(try 2\): AttributeError: 'addinfourl'"):
        load("cifar10", data_dir=tmp_path, mirrors=["https://127.0.0.1"])


def test_the_error_names_places_tries_and_ways_out(archive, tmp_path):
    mirror = dead_host()
    with pytest.raises(UserError) as caught:
        load("cifar10", data_dir=tmp_path, mirrors=[mirror])
    message = str(caught.value)
    for place in ("cifar-10-batches-py", "cifar10-train.npz", "cifar10-test.npz", "cifar10/train", "train"):
        assert f"  {tmp_path / place}\n" in message
    for host in (mirror, datasets.CIFAR10.url.rsplit("/", 1)[0]):
        for attempt in (1, 2):
            assert f"  {host}/ (try {attempt}): URLError" in message
    for way in ("DATA_DIR=", "data.mirrors=[", "SCALE=smoke"):
        assert way in message


def test_switched_off(archive, tmp_path):
    with web_server({PATH: archive}) as (mirror, asked):
        with pytest.raises(
            UserError, match="was not found and downloading is switched off here.\nLooked for"
        ) as caught:
            load("cifar10", data_dir=tmp_path, mirrors=[mirror], download=False)
        assert asked == [] and left_in(tmp_path) == [] and "Tried" not in str(caught.value)


def test_an_interrupted_download_leaves_nothing(archive, monkeypatch, tmp_path):
    def interrupted(facts, base, root):
        (root / facts.folder).mkdir()
        (root / facts.folder / "data_batch_1").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("cifar10", data_dir=tmp_path, mirrors=["http://127.0.0.1"])
    assert left_in(tmp_path) == []


def test_what_a_killed_process_left_is_swept(archive, tmp_path):
    stale = tmp_path / ".download-cifar10-killed" / "cifar-10-batches-py"
    stale.mkdir(parents=True)
    (stale / "data_batch_1").write_bytes(b"half")
    with web_server({PATH: archive}) as (mirror, _):
        load("cifar10", data_dir=tmp_path, mirrors=[mirror])
    assert left_in(tmp_path) == ["cifar-10-batches-py"]


def test_without_locks_it_downloads_and_leaves_what_may_be_another_processs(archive, monkeypatch, tmp_path):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    other = tmp_path / ".download-cifar10-other"
    other.mkdir()
    said = []
    with web_server({PATH: archive}) as (mirror, _):
        load("cifar10", data_dir=tmp_path, mirrors=[mirror], progress=said.append)
    assert left_in(tmp_path) == [other.name, "cifar-10-batches-py"]
    assert any("cannot be locked (no locks available): going on without" in line for line in said)


def test_two_at_the_same_time_download_once(archive, tmp_path):
    found = []
    with web_server({PATH: archive}) as (mirror, asked):
        threads = [
            threading.Thread(target=lambda: found.append(load("cifar10", data_dir=tmp_path, mirrors=[mirror])))
            for _ in range(2)
        ]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert len(found) == 2 and found[0].fingerprint == found[1].fingerprint
    assert len(asked) == 2  # one download: torchvision asks once for redirects and once for the file


def test_a_folder_that_cannot_be_written(archive, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot be written.*DATA_DIR="):
        load("cifar10", data_dir=tmp_path / "file" / "data", mirrors=[dead_host()])


def test_mnist(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    files, resources = {}, []
    for split, count in {"train": 20, "test": 10}.items():
        arrays = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for name, array in zip(known.FACTS["mnist"].files[split][0], arrays, strict=True):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            files[f"/data/{name}.gz"] = gzip.compress(header + array.tobytes())
            resources.append((f"{name}.gz", hashlib.md5(files[f"/data/{name}.gz"]).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [dead_host() + "/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setitem(known.FACTS, "mnist", replace(known.FACTS["mnist"], train=20, test=10))
    with web_server(files) as (mirror, _):
        found = load("mnist", data_dir=tmp_path, mirrors=[mirror])
    assert len(found.train) == 20 and found.train.images.shape[1:] == (28, 28, 1)
    assert left_in(tmp_path) == ["MNIST"]
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(
        name[:-3] for name, _ in resources
    )
