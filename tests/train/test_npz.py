import tracemalloc
import zipfile

import numpy as np
import pytest

from sparse_hyper_jax.train.npz import read_npz
from tests.hostile import hostile_npz, write_npz

GOOD = {
    "pixels": np.arange(12, dtype=np.float32).reshape(3, 4),
    "labels": np.array([1, 2, 3], np.int64),
    "flags": np.array([True, False]),
    "scalar": np.float64(0.5),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "nothing": np.zeros((0, 3), np.uint8),
}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_what_numpy_writes_comes_back(tmp_path, write):
    write(tmp_path / "a.npz", **GOOD)
    for names in (None, ("labels", "pixels")):
        read = read_npz(tmp_path / "a.npz", change="", names=names)
        assert list(read) == list(names or GOOD)
        for name, array in read.items():
            np.testing.assert_array_equal(array, GOOD[name], strict=True)


@pytest.mark.parametrize(("damage", "write"), hostile_npz(GOOD, "pixels").items())
def test_damage_is_told_in_three_parts_and_costs_no_memory(tmp_path, damage, write):
    path = tmp_path / "a.npz"
    write(path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^found .*; expected .*; fetch it again") as caught:
            read_npz(path, change="fetch it again", names=tuple(GOOD))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 2**20


def test_what_is_not_asked_for_is_not_looked_at(tmp_path):
    write_npz(tmp_path / "a.npz", GOOD, raw={"other": b"x", "more.npy": b"y"})
    assert list(read_npz(tmp_path / "a.npz", change="", names=["flags"])) == ["flags"]


def test_kinds_may_be_added(tmp_path):
    np.savez(tmp_path / "a.npz", waves=np.array([1j]))
    read = read_npz(tmp_path / "a.npz", change="", kinds="c")
    np.testing.assert_array_equal(read["waves"], [1j])


@pytest.mark.parametrize("flag", [0x1, 0x20])
def test_what_zipfile_does_not_know_is_damage(tmp_path, flag):
    # Encrypted, or a patch of another file.
    path = tmp_path / "a.npz"
    write_npz(path, {"a": np.zeros(3)}, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= flag
    data[data.index(b"PK\x01\x02") + 8] |= flag
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged or no npz file .*; expected .*; change"):
        read_npz(path, change="change")


def test_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found .*a.npz.*; expected a npz file; fetch it"):
        read_npz(tmp_path / "a.npz", change="fetch it")
