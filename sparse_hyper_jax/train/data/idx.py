"""Reader for a folder with the four idx files of MNIST, or any data set in the same format.

An idx file is a header and then raw bytes::

    0  0  type  rank | size_1 .. size_rank (4 bytes each, big-endian) | bytes, last axis fastest

Type 8 is an unsigned byte, the only one read here; images have rank 3 and labels rank 1. A file may
be compressed by gzip, told by its name ending in ``.gz``. Nothing in a file is believed: memory is
only used for bytes that have arrived, and never for more than the header announces.
"""

import gzip
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from sparse_hyper_jax.checks import check_count, require
from sparse_hyper_jax.train.data.dataset import Dataset, make_dataset
from sparse_hyper_jax.train.reading import check_expansion, reading

TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
"""Images and labels to learn from, each with or without ``.gz``."""

TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""Images and labels to test on."""

UNSIGNED_BYTE = 8
MAX_BYTES = 2**31 - 1
# A deflate stream cannot expand by more than this, so a small file cannot hold a large array.
DEFLATE_LIMIT = 1032
CHUNK = 2**20


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzip file and turn damage found while reading into one clear error."""
    packed = path.suffix == ".gz"
    change = "fetch it again, or drop .gz from its name if it is not compressed"
    # What is raised in the caller's block comes from its reads: checks follow after it.
    with reading(path, "gzip file" if packed else "file", change), _open(path, packed) as stream:
        yield stream


def _open(path: Path, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _header_bytes(rank: int) -> int:
    return 4 + 4 * rank


def read_header(path: str | Path, *, rank: int) -> tuple[int, ...]:
    """Read the lengths of the axes of an idx file, and check them against the file's own size.

    Args:
        path: an idx file, compressed if its name ends in ``.gz``.
        rank: the number of axes it must have.

    Returns:
        ``rank`` lengths of 1 or more whose product is at most 2**31 - 1.

    Raises:
        ValueError: a damaged or short file, a wrong magic number, type or rank, an empty axis, or
            more elements than the file can hold, or than a packed file should.

    Example:
        >>> from pathlib import Path
        >>> from sparse_hyper_jax.train.data import read_header
        >>> size = Path("labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_header(Path("labels"), rank=1)
        (3,)
    """
    path, wanted = Path(path), _header_bytes(rank)
    with _reading(path) as stream:
        head = stream.read(wanted)
    change = "check that this is the right file and fetch it again"
    magic = bytes((0, 0, UNSIGNED_BYTE, rank))
    require(
        head[:4] == magic,
        f"{path} starting with bytes {head[:4].hex(' ')}",
        f"{magic.hex(' ')}: an idx file of unsigned bytes with {rank} axes",
        change,
    )
    require(
        len(head) == wanted, f"{path} with {len(head)} bytes", f"a header of {wanted} bytes", change
    )
    shape = struct.unpack(f">{rank}I", head[4:])
    _check_size(path, shape, change)
    return shape


def _check_size(path: Path, shape: tuple[int, ...], change: str) -> None:
    """Raise if the announced elements are none, too many, or more than the file can hold."""
    size, stored = math.prod(shape), path.stat().st_size
    require(
        1 <= size <= MAX_BYTES,
        f"{path} announcing sizes {shape}, {size} bytes",
        "sizes of 1 or more and fewer than 2**31 bytes in all",
        change,
    )
    packed = path.suffix == ".gz"
    room = stored * DEFLATE_LIMIT if packed else stored - _header_bytes(len(shape))
    require(
        size <= room,
        f"{path} announcing sizes {shape}, {size} bytes, in a file of {stored} bytes",
        f"at most {room} bytes in a file of that size",
        change,
    )
    if packed:
        unpack = "unpack it with gunzip if it is meant to"
        check_expansion(str(path), packed=stored, unpacked=size, change=unpack)


def _read_at_most(stream: IO[bytes], limit: int) -> bytearray:
    """Read up to ``limit`` bytes in pieces: one large ``read`` would allocate them all first."""
    body = bytearray()
    while len(body) < limit:
        piece = stream.read(min(CHUNK, limit - len(body)))
        if not piece:
            break
        body += piece
    return body


def read_idx(path: str | Path, *, rank: int) -> np.ndarray:
    """Read one idx file of unsigned bytes.

    Args:
        path: an idx file, compressed if its name ends in ``.gz``.
        rank: the number of axes it must have, 3 for images and 1 for labels.

    Returns:
        A uint8 array of that rank, in the lengths of the header.

    Raises:
        ValueError: see :func:`read_header`; or the file is truncated, has bytes after the last
            element, or fails the checksum of gzip.

    Example:
        >>> from pathlib import Path
        >>> from sparse_hyper_jax.train.data import read_idx
        >>> size = Path("labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_idx(Path("labels"), rank=1).tolist()
        [7, 2, 1]
    """
    path = Path(path)
    shape = read_header(path, rank=rank)
    size = math.prod(shape)
    with _reading(path) as stream:
        stream.read(_header_bytes(rank))
        # One byte more than announced: enough to notice trailing data, and asking for it makes
        # gzip reach the end of its stream, where it verifies its checksum.
        body = _read_at_most(stream, size + 1)
    require(
        len(body) == size,
        f"{path} with {'more' if len(body) > size else f'only {len(body)}'} bytes after its header",
        f"{size} bytes for sizes {shape}",
        "fetch the file again: it is truncated or does not belong to its header",
    )
    return np.frombuffer(body, np.uint8).reshape(shape)


def load_pair(images: str | Path, labels: str | Path, *, num_classes: int = 10) -> Dataset:
    """Read a file of images and the file of their labels.

    Args:
        images: an idx file of rank 3, ``(n, h, w)``; the images need not be square.
        labels: an idx file of rank 1, ``(n,)``.
        num_classes: labels must be below this, at most 256.

    Returns:
        The data set: ``(n, h, w)`` float32 in ``[0, 1]`` and ``(n,)`` int32.

    Raises:
        ValueError: a damaged file, different counts, or a label out of range.
    """
    check_count("num_classes", num_classes, 1)
    # Both headers first, so that a mismatch costs nothing.
    (count, *_), (named,) = read_header(images, rank=3), read_header(labels, rank=1)
    require(
        count == named,
        f"{count} images in {images} and {named} labels in {labels}",
        "as many images as labels",
        "use two files that belong together",
    )
    names = read_idx(labels, rank=1)
    require(
        names.max() < num_classes,
        f"label {names.max()} in {labels}",
        f"labels below num_classes={num_classes}",
        "raise num_classes or correct the labels",
    )
    return make_dataset(read_idx(images, rank=3), names, white=255)


def load_idx(folder: Path, *, num_classes: int = 10) -> tuple[Dataset, Dataset]:
    """Read the four idx files of a folder, named like those of MNIST, plain or with ``.gz``.

    Args:
        folder: holds the files of ``TRAIN_FILES`` and ``TEST_FILES``; ``.gz`` wins if both exist.
        num_classes: labels must be below this.

    Returns:
        The training set and the test set.

    Raises:
        ValueError: files are missing or damaged, or images of the two sets differ in size.

    Example:
        >>> from pathlib import Path
        >>> from sparse_hyper_jax.train.data import load_idx
        >>> images = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(32)  # two 4x4
        >>> labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 7])
        >>> for part in ("train", "t10k"):
        ...     size = Path(f"{part}-images-idx3-ubyte").write_bytes(images)
        ...     size = Path(f"{part}-labels-idx1-ubyte").write_bytes(labels)
        >>> [(part.images.shape, part.labels.tolist()) for part in load_idx(Path())]
        [((2, 4, 4), [3, 7]), ((2, 4, 4), [3, 7])]
    """
    folder = Path(folder)
    names = (*TRAIN_FILES, *TEST_FILES)
    choices = {name: [folder / f"{name}.gz", folder / name] for name in names}
    found = {name: [path for path in choices[name] if path.is_file()] for name in names}
    missing = [name for name in names if not found[name]]
    require(
        not missing,
        f"no {', '.join(missing)} in {folder}",
        f"the files {', '.join(names)}, each plain or with .gz",
        "pass the folder that holds them as --data-dir",
    )
    train, test = (
        load_pair(*(found[name][0] for name in pair), num_classes=num_classes)
        for pair in (TRAIN_FILES, TEST_FILES)
    )
    require(
        train.images.shape[1:] == test.images.shape[1:],
        f"training images of {train.images.shape[1:]} and test images of {test.images.shape[1:]}",
        "one size",
        "use four files that belong together",
    )
    return train, test
