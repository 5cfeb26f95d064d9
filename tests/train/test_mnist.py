import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from sparse_hyper_jax.train.data import download_mnist, load_mnist, load_splits, mnist
from sparse_hyper_jax.train.data.mnist import CHECKSUMS, MIRRORS, check_mnist
from tests.train.test_idx import make_folder, make_pixels, write_idx

REAL = os.environ.get("SPARSE_HYPER_MNIST")
"""A folder with the real files; the tests below use it in addition to made ones."""


def checksums_of(folder):
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in CHECKSUMS}


@pytest.fixture
def mirror(tmp_path):
    """A folder with four small files under the names of MNIST, and their checksums."""
    folder = make_folder(tmp_path / "mirror")
    return folder, checksums_of(folder)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def corrupt(source, target):
    """Copy the four files with one byte changed in each."""
    target.mkdir()
    for name in CHECKSUMS:
        packed = bytearray((source / name).read_bytes())
        packed[-1] ^= 1
        (target / name).write_bytes(packed)
    return target


def test_published_constants():
    assert sorted(CHECKSUMS) == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    assert all(len(value) == 32 and int(value, 16) for value in CHECKSUMS.values())
    assert len(set(CHECKSUMS.values())) == 4
    assert all(address.startswith("https://") for address in MIRRORS)
    with pytest.raises(TypeError):
        CHECKSUMS["train-images-idx3-ubyte.gz"] = "0"


@pytest.mark.parametrize("source", ["made", *([REAL] if REAL else [])])
def test_load_verified_files(mirror, source):
    made = source == "made"
    folder, checksums = mirror if made else (Path(source), CHECKSUMS)
    train, test = load_mnist(folder, checksums=checksums)
    counts, size = ((40, 20), (5, 3)) if made else ((60_000, 10_000), (28, 28))
    assert (train.images.shape, test.images.shape) == ((counts[0], *size), (counts[1], *size))
    assert (train.labels.shape, test.labels.shape) == ((counts[0],), (counts[1],))
    mean = make_pixels(40).mean() / 255 if made else 0.1307
    assert train.images.mean() == pytest.approx(mean, abs=1e-4)
    np.testing.assert_array_equal(np.unique(test.labels), np.arange(10))


def test_missing_files_message(tmp_path):
    with pytest.raises(ValueError, match="--download") as caught:
        load_mnist(tmp_path)
    message = str(caught.value)
    for part in (*CHECKSUMS, *MIRRORS, str(tmp_path), "yann.lecun.com/exdb/mnist"):
        assert part in message


def test_only_the_missing_file_is_named(mirror):
    folder, checksums = mirror
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="no t10k-labels-idx1-ubyte") as caught:
        check_mnist(folder, checksums=checksums)
    assert "train-images" not in str(caught.value)


def test_wrong_checksum(mirror):
    folder, checksums = mirror
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.ones(40))
    with pytest.raises(ValueError, match="wrong MD5 checksum for train-labels-idx1") as caught:
        load_mnist(folder, checksums=checksums)
    assert checksums["train-labels-idx1-ubyte.gz"] in str(caught.value)
    assert "--download" in str(caught.value)
    assert "t10k" not in str(caught.value)


def test_made_files_are_not_mnist(mirror):
    with pytest.raises(ValueError, match="wrong MD5"):
        load_mnist(mirror[0])
    with pytest.raises(ValueError, match="wrong MD5"):
        load_splits("mnist", mirror[0], seed=0)


@pytest.mark.parametrize("slash", ["", "/"])
def test_download_from_file_mirror(mirror, tmp_path, slash):
    source, checksums = mirror
    target = tmp_path / "deep" / "target"
    download_mnist(target, mirrors=[source.as_uri() + slash], checksums=checksums)
    assert files_in(target) == sorted(CHECKSUMS)
    assert checksums_of(target) == checksums
    assert len(load_mnist(target, checksums=checksums)[0].labels) == 40


def test_next_mirror_after_corrupt_and_absent_ones(mirror, tmp_path):
    source, checksums = mirror
    bad = corrupt(source, tmp_path / "bad")
    mirrors = [bad.as_uri(), (tmp_path / "absent").as_uri(), "no-address", source.as_uri()]
    target = tmp_path / "target"
    download_mnist(target, mirrors=mirrors, checksums=checksums)
    assert files_in(target) == sorted(CHECKSUMS)
    assert checksums_of(target) == checksums


def test_failure_names_every_reason_and_leaves_nothing(mirror, tmp_path):
    source, checksums = mirror
    bad, absent = corrupt(source, tmp_path / "bad"), tmp_path / "absent"
    target = tmp_path / "target"
    with pytest.raises(ValueError, match="no mirror that delivers train-images") as caught:
        download_mnist(target, mirrors=[bad.as_uri(), absent.as_uri()], checksums=checksums)
    message = str(caught.value)
    assert bad.as_uri() in message
    assert absent.as_uri() in message
    assert f"expected {checksums['train-images-idx3-ubyte.gz']}" in message
    assert str(target) in message
    assert files_in(target) == []


def test_no_mirrors_at_all(tmp_path):
    with pytest.raises(ValueError, match="no mirror that delivers"):
        download_mnist(tmp_path, mirrors=[])


def test_good_files_are_kept_and_wrong_ones_replaced(mirror, tmp_path):
    source, checksums = mirror
    target = tmp_path / "target"
    download_mnist(target, mirrors=[source.as_uri()], checksums=checksums)
    good, wrong, *_ = sorted(CHECKSUMS)
    (target / wrong).write_bytes(b"half a file")
    # Were the good ones fetched again, they would come back with a new inode.
    before = {name: (target / name).stat().st_ino for name in CHECKSUMS}
    (source / good).unlink()
    download_mnist(target, mirrors=[source.as_uri()], checksums=checksums)
    after = {name: (target / name).stat().st_ino for name in CHECKSUMS}
    assert checksums_of(target) == checksums
    assert [name for name in CHECKSUMS if before[name] != after[name]] == [wrong]


def test_wrong_file_survives_a_failed_download(mirror, tmp_path):
    # A failed attempt must not make things worse than they were.
    source, checksums = mirror
    target = corrupt(source, tmp_path / "target")
    before = checksums_of(target)
    with pytest.raises(ValueError, match="no mirror"):
        download_mnist(target, mirrors=[(tmp_path / "absent").as_uri()], checksums=checksums)
    assert files_in(target) == sorted(CHECKSUMS)
    assert checksums_of(target) == before


def test_interrupt_leaves_no_temporary(mirror, tmp_path, monkeypatch):
    source, checksums = mirror

    def interrupt(*_):
        assert len(list(tmp_path.glob("target/.*.part"))) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download_mnist(tmp_path / "target", mirrors=[source.as_uri()], checksums=checksums)
    assert files_in(tmp_path / "target") == []


def test_endless_mirror_is_cut_off(mirror, tmp_path, monkeypatch):
    source, checksums = mirror
    monkeypatch.setattr(mnist, "MAX_DOWNLOAD", 100)
    monkeypatch.setattr(mnist, "CHUNK", 50)
    (source / "train-images-idx3-ubyte.gz").write_bytes(bytes(10_000))
    with pytest.raises(ValueError, match="after 150 bytes of"):
        download_mnist(tmp_path / "target", mirrors=[source.as_uri()], checksums=checksums)


class Liar(http.server.BaseHTTPRequestHandler):
    """Announces more bytes than it sends, as a broken connection does, or speaks no HTTP."""

    def do_GET(self):
        if self.path.startswith("/noise"):
            self.wfile.write(b"no status line\r\n\r\n")
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"short")

    def log_message(self, *_):
        pass


def test_broken_connection_moves_on(mirror, tmp_path):
    source, checksums = mirror
    with http.server.HTTPServer(("127.0.0.1", 0), Liar) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        mirrors = [address, f"{address}/noise", source.as_uri()]
        download_mnist(tmp_path / "target", mirrors=mirrors, checksums=checksums, timeout=5)
        server.shutdown()
        thread.join()
    assert checksums_of(tmp_path / "target") == checksums
