"""The MNIST handwritten digits (LeCun, Cortes and Burges, 1998), verified, fetched on request."""

import hashlib
import http.client
import os
import secrets
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.dataset import Dataset
from sparse_hyper_jax.train.data.idx import CHUNK, TEST_FILES, TRAIN_FILES, load_pair

ORIGIN = "http://yann.lecun.com/exdb/mnist"

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
"""Tried in this order; the original site no longer serves the files reliably."""

CHECKSUMS: Mapping[str, str] = MappingProxyType(
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
)
"""MD5 of the compressed files: against damage and mix-ups, not against malice."""

MAX_DOWNLOAD = 16 * 2**20  # the largest file has 10 MB; a mirror gone astray must not fill the disk


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_mnist(folder: Path, *, checksums: Mapping[str, str] = CHECKSUMS) -> None:
    """Check that the four files are there and are the published ones, byte for byte.

    Args:
        folder: holds the compressed files.
        checksums: MD5 in hexadecimal for each file name.

    Raises:
        ValueError: a file is missing or differs; the message says where to get it.
    """
    folder = Path(folder)
    missing = [name for name in checksums if not (folder / name).is_file()]
    sources = f"copy them from {' or '.join(MIRRORS)}"
    require(
        not missing,
        f"no {', '.join(missing)} in {folder}",
        f"the four compressed MNIST files of {ORIGIN}",
        f"run again with --download, or {sources} (unpacked files: --data idx)",
    )
    wrong = [name for name in checksums if _md5(folder / name) != checksums[name]]
    require(
        not wrong,
        f"a wrong MD5 checksum for {', '.join(wrong)} in {folder}",
        ", ".join(f"{checksums[name]} for {name}" for name in wrong),
        f"run again with --download, or {sources}; another data set is read by --data idx",
    )


def load_mnist(
    folder: Path, *, checksums: Mapping[str, str] = CHECKSUMS
) -> tuple[Dataset, Dataset]:
    """Read MNIST after verifying its files.

    Args:
        folder: holds the four compressed files.
        checksums: MD5 in hexadecimal for each file name.

    Returns:
        The training set, 60,000 images of 28x28, and the test set, 10,000.

    Raises:
        ValueError: a file is missing, differs from the published one, or cannot be read.
    """
    check_mnist(folder, checksums=checksums)
    train, test = (
        load_pair(*(Path(folder) / f"{name}.gz" for name in pair))
        for pair in (TRAIN_FILES, TEST_FILES)
    )
    return train, test


def _fetch(url: str, target: Path, *, checksum: str, timeout: float) -> None:
    """Bring one verified file to ``target``, which never holds a part of it.

    The temporary lies in the same folder because a rename is atomic only within a file system, and
    has a random name so that two processes may fetch at the same time.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with urllib.request.urlopen(url, timeout=timeout) as source, part.open("xb") as sink:
            while size <= MAX_DOWNLOAD and (piece := source.read(CHUNK)):
                sink.write(piece)
                digest.update(piece)
                size += len(piece)
        require(
            digest.hexdigest() == checksum,
            f"MD5 {digest.hexdigest()} after {size} bytes of {url}",
            checksum,
            "use another mirror",
        )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _fetch_from_any(
    name: str, folder: Path, *, mirrors: Sequence[str], checksum: str, timeout: float
) -> None:
    """Try the mirrors in order until one delivers the right bytes."""
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            _fetch(url, folder / name, checksum=checksum, timeout=timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{url}: {error}")
        else:
            return
    require(
        False,
        f"no mirror that delivers {name} ({' | '.join(failures)})",
        f"one of the four compressed MNIST files of {ORIGIN}",
        f"check the network, or put the file into {folder} by hand",
    )


def download_mnist(
    folder: Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    checksums: Mapping[str, str] = CHECKSUMS,
    timeout: float = 30.0,
) -> None:
    """Fetch those of the four files that are missing or wrong; right ones are kept.

    Args:
        folder: where the files go, made if it does not exist.
        mirrors: addresses of folders, tried in this order for each file.
        checksums: MD5 in hexadecimal for each file name.
        timeout: in seconds, how long a mirror may stay silent.

    Raises:
        ValueError: no mirror delivers a file with the right checksum.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, checksum in checksums.items():
        target = folder / name
        if not (target.is_file() and _md5(target) == checksum):
            _fetch_from_any(name, folder, mirrors=mirrors, checksum=checksum, timeout=timeout)
