import gzip
import io
import struct
import tracemalloc

import numpy as np
import pytest

from sparse_hyper_jax.train.data import load_idx, read_header, read_idx
from sparse_hyper_jax.train.data.idx import (
    MAX_BYTES,
    TEST_FILES,
    TRAIN_FILES,
    _read_at_most,
    load_pair,
)


def idx_bytes(array, *, kind=8, sizes=None):
    """Pack a uint8 array as idx; `sizes` overrides what the header announces."""
    sizes = array.shape if sizes is None else sizes
    head = bytes((0, 0, kind, len(sizes))) + struct.pack(f">{len(sizes)}I", *sizes)
    return head + array.astype(np.uint8).tobytes()


def write_idx(path, array, **options):
    packed = idx_bytes(array, **options)
    path.write_bytes(gzip.compress(packed, mtime=0) if path.suffix == ".gz" else packed)
    return path


def make_pixels(count, height=5, width=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)


def make_folder(folder, *, train=40, test=20, suffix=".gz", classes=10):
    """Write four small files of images that are not square; the classes take turns."""
    folder.mkdir(exist_ok=True)
    for seed, (names, count) in enumerate(((TRAIN_FILES, train), (TEST_FILES, test))):
        write_idx(folder / (names[0] + suffix), make_pixels(count, seed=seed))
        write_idx(folder / (names[1] + suffix), np.arange(count) % classes)
    return folder


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 1, 1), (7,)])
def test_round_trip(tmp_path, suffix, shape):
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    path = write_idx(tmp_path / f"file{suffix}", array)
    assert read_header(path, rank=len(shape)) == shape
    read = read_idx(path, rank=len(shape))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_large_file_is_read_in_pieces(tmp_path):
    # Larger than one piece, and not a multiple of it.
    array = np.random.default_rng(2).integers(0, 256, (3, 701, 1001), np.uint8)
    for name in ("file", "file.gz"):
        np.testing.assert_array_equal(read_idx(write_idx(tmp_path / name, array), rank=3), array)


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "starting with bytes ; expected 00 00 08 03"),
        (b"\x00\x00", "expected 00 00 08 03"),
        (b"\x01\x00\x08\x03" + bytes(12), "starting with bytes 01 00 08 03"),
        (b"\x00\x00\x0d\x03" + bytes(12), "00 00 0d 03; expected 00 00 08 03"),
        (b"\x00\x00\x08\x01" + bytes(12), "00 00 08 01; expected 00 00 08 03"),
        (b"\x00\x00\x08\x03" + bytes(11), "with 15 bytes; expected a header of 16 bytes"),
        (b"\x00\x00\x08\x03" + bytes(12), "sizes of 1 or more"),
    ],
)
def test_bad_header(tmp_path, suffix, head, message):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(head) if suffix else head)
    with pytest.raises(ValueError, match=message) as caught:
        read_header(path, rank=3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2**31, 28, 28), "fewer than 2\\*\\*31 bytes"),
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), "fewer than 2\\*\\*31 bytes"),
        ((MAX_BYTES, 1, 1), "in a file of .* bytes"),
        ((2, 0, 28), "sizes of 1 or more"),
        ((60_000, 28, 28), "in a file of .* bytes"),
    ],
)
def test_absurd_sizes_cost_no_memory(tmp_path, suffix, sizes, message):
    path = write_idx(tmp_path / f"images{suffix}", make_pixels(60), sizes=sizes)
    assert path.stat().st_size < 2000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read_idx(path, rank=3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_what_a_header_hides_is_not_unpacked(tmp_path):
    # 64 MB of zeros behind a header that announces ten bytes.
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(2**26, np.uint8), sizes=(10,))))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more bytes after its header; expected 10 bytes"):
            read_idx(path, rank=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_memory_follows_the_bytes_that_arrive(tmp_path):
    # A file that could hold 16 MB by its size, announces them, and holds 30 kB.
    path = write_idx(tmp_path / "labels.gz", make_pixels(2000), sizes=(16_000_000,))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="only 30000 bytes"):
            read_idx(path, rank=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_small_file_that_honestly_announces_a_hundred_megabytes_is_refused(tmp_path):
    # 0.1 MB of gzip, all black, which would be half a gigabyte as float32.
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((10_000, 100, 100), np.uint8))))
    assert path.stat().st_size < 2**17
    labels = write_idx(tmp_path / "labels", np.zeros(10_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"announcing 100000000 bytes.*; expected .*; unpack"):
            load_pair(path, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    assert read_header(write_idx(tmp_path / "plain", np.zeros((9, 9, 9))), rank=3) == (9, 9, 9)


def test_system_errors_keep_their_kind(tmp_path):
    message = r"found .*none.*cannot be read.*; expected .*; fetch"
    with pytest.raises(FileNotFoundError, match=message):
        read_idx(tmp_path / "none", rank=1)
    (tmp_path / "folder.gz").mkdir()
    with pytest.raises(IsADirectoryError, match=r"found .*; expected a gzip file"):
        read_idx(tmp_path / "folder.gz", rank=1)


def test_pieces_end_at_the_limit():
    stream = io.BytesIO(bytes(100))
    assert len(_read_at_most(stream, 41)) == stream.tell() == 41
    assert len(_read_at_most(stream, 99)) == 59


def test_highly_compressed_file_is_still_read(tmp_path):
    # The bound on what a small file can hold must not reject images that are all black.
    array = np.zeros((2000, 28, 28), np.uint8)
    path = write_idx(tmp_path / "images.gz", array)
    assert path.stat().st_size * 900 < array.size
    np.testing.assert_array_equal(read_idx(path, rank=3), array)


@pytest.mark.parametrize(
    ("suffix", "sizes", "message"),
    [
        (".gz", (9, 5, 3), "only 120 bytes after its header; expected 135 bytes"),
        ("", (9, 5, 3), "135 bytes, in a file of 136 bytes; expected at most 120 bytes"),
        (".gz", (7, 5, 3), "more bytes after its header; expected 105 bytes"),
        ("", (7, 5, 3), "more bytes after its header; expected 105 bytes"),
    ],
)
def test_body_must_fit_its_header(tmp_path, suffix, sizes, message):
    path = write_idx(tmp_path / f"images{suffix}", make_pixels(8), sizes=sizes)
    with pytest.raises(ValueError, match=message):
        read_idx(path, rank=3)


@pytest.mark.parametrize("kept", [5, 12, 40, -9, -1])
def test_truncated_gzip(tmp_path, kept):
    path = write_idx(tmp_path / "images.gz", make_pixels(30))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged or no gzip file"):
        read_idx(path, rank=3)


@pytest.mark.parametrize("place", [0, 1, 10, 200, -8, -1])
def test_flipped_byte_in_gzip(tmp_path, place):
    # Byte 10 holds the type of the first block; the last eight are the checksum and the length,
    # found only by reading to the end.
    path = write_idx(tmp_path / "images.gz", make_pixels(30))
    packed = bytearray(path.read_bytes())
    packed[place] ^= 0xFF
    path.write_bytes(packed)
    with pytest.raises(ValueError, match="damaged or no gzip file"):
        read_idx(path, rank=3)


def test_trailing_garbage_after_gzip(tmp_path):
    path = write_idx(tmp_path / "images.gz", make_pixels(4))
    path.write_bytes(path.read_bytes() + b"garbage")
    with pytest.raises(ValueError, match="damaged or no gzip file"):
        read_idx(path, rank=3)


def test_pair_values(tmp_path):
    pixels, labels = make_pixels(6), np.array([3, 1, 4, 1, 5, 9])
    data = load_pair(write_idx(tmp_path / "i.gz", pixels), write_idx(tmp_path / "l", labels))
    assert (data.images.dtype, data.labels.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(data.images, pixels.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.labels, labels)


def test_count_mismatch_is_told_by_the_headers_alone(tmp_path):
    images = write_idx(tmp_path / "i.gz", make_pixels(6))
    labels = write_idx(tmp_path / "l.gz", np.zeros(5), sizes=(5_000,))
    with pytest.raises(ValueError, match=r"6 images in .*i\.gz and 5000 labels in .*l\.gz"):
        load_pair(images, labels)


def test_count_mismatch(tmp_path):
    images = write_idx(tmp_path / "i.gz", make_pixels(6))
    labels = write_idx(tmp_path / "l.gz", np.zeros(5))
    with pytest.raises(ValueError, match=r"6 images in .*i\.gz and 5 labels in .*l\.gz"):
        load_pair(images, labels)


@pytest.mark.parametrize(("largest", "num_classes"), [(10, 10), (255, 10), (5, 5)])
def test_label_out_of_range(tmp_path, largest, num_classes):
    images = write_idx(tmp_path / "i.gz", make_pixels(3))
    labels = write_idx(tmp_path / "l.gz", np.array([0, largest, 1]))
    with pytest.raises(ValueError, match=f"label {largest} .* below num_classes={num_classes}"):
        load_pair(images, labels, num_classes=num_classes)
    assert load_pair(images, labels, num_classes=largest + 1).labels.max() == largest


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_load_folder(tmp_path, suffix):
    train, test = load_idx(make_folder(tmp_path, suffix=suffix))
    assert (train.images.shape, test.images.shape) == ((40, 5, 3), (20, 5, 3))
    np.testing.assert_array_equal(train.images, make_pixels(40, seed=0) / np.float32(255))
    np.testing.assert_array_equal(test.images, make_pixels(20, seed=1) / np.float32(255))
    np.testing.assert_array_equal(test.labels, np.arange(20) % 10)


def test_folder_given_as_text(tmp_path):
    folder = make_folder(tmp_path)
    assert len(load_idx(str(folder))[0].labels) == 40
    assert len(read_idx(f"{folder}/{TRAIN_FILES[1]}.gz", rank=1)) == 40


def test_missing_files_are_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / f"{TRAIN_FILES[1]}.gz").unlink()
    with pytest.raises(ValueError, match=f"no {TRAIN_FILES[1]} in .*--data-dir"):
        load_idx(tmp_path)
    with pytest.raises(ValueError, match=f"no {', '.join(TRAIN_FILES + TEST_FILES)} in"):
        load_idx(tmp_path / "nowhere")


def test_train_and_test_of_different_size(tmp_path):
    make_folder(tmp_path)
    write_idx(tmp_path / f"{TEST_FILES[0]}.gz", make_pixels(20, height=4))
    with pytest.raises(ValueError, match=r"\(5, 3\) and test images of \(4, 3\)"):
        load_idx(tmp_path)
