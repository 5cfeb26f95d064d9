import numpy as np
import pytest

from sparse_hyper_jax.train.data import load_cluttered
from sparse_hyper_jax.train.data.cluttered_file import FILE
from tests.hostile import hostile_npz

COUNTS = {"train": 30, "valid": 10, "test": 20}


def good_arrays():
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in COUNTS.items():
        # As in the real file, pixels are multiples of 1/256 and labels a column.
        arrays[f"X_{part}"] = generator.integers(0, 257, (count, 1600)).astype(np.float32) / 256
        arrays[f"y_{part}"] = generator.permutation(np.arange(count) % 10)[:, None].astype(np.int32)
    return arrays


def save(folder, **changes):
    arrays = {**good_arrays(), **changes}
    np.savez_compressed(folder / FILE, **{k: v for k, v in arrays.items() if v is not None})
    return folder


def test_reads_the_official_split_in_order(tmp_path):
    splits = load_cluttered(save(tmp_path))
    arrays = good_arrays()
    for part, dataset in zip(COUNTS, splits, strict=True):
        assert dataset.images.shape == (COUNTS[part], 40, 40)
        assert (dataset.images.dtype, dataset.labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(dataset.images.reshape(-1, 1600), arrays[f"X_{part}"])
        np.testing.assert_array_equal(dataset.labels, arrays[f"y_{part}"][:, 0])


def test_the_folder_may_be_a_string(tmp_path):
    assert len(load_cluttered(str(save(tmp_path))).test.labels) == COUNTS["test"]


def test_no_file(tmp_path):
    message = f"found no {FILE} in .*; expected the ready-made set .*; pass the folder"
    with pytest.raises(ValueError, match=message):
        load_cluttered(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no npz", b"PK\x03\x04 cut off"])
def test_damaged_file(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(
        ValueError, match=r"damaged or no npz file .*; expected a complete npz .*; fetch"
    ):
        load_cluttered(tmp_path)


def test_cut_off_file(tmp_path):
    path = save(tmp_path) / FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or no npz file"):
        load_cluttered(tmp_path)


def test_changed_bytes(tmp_path):
    path = save(tmp_path) / FILE
    data = bytearray(path.read_bytes())
    data[1000:1100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged or no npz file"):
        load_cluttered(tmp_path)


def test_a_single_array_is_no_npz_file(tmp_path):
    with (tmp_path / FILE).open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match="damaged or no npz file"):
        load_cluttered(tmp_path)


def test_code_in_the_file_is_not_run(tmp_path):
    pickled = np.array([{"any": "object"}] * 10, dtype=object)[:, None]
    with pytest.raises(ValueError, match=r"y_valid.npy.* of dtype object; expected .*numbers"):
        load_cluttered(save(tmp_path, y_valid=pickled))


def test_missing_arrays(tmp_path):
    message = "found no X_valid, y_test in .*; expected arrays X_train, y_train, X_valid, .*; fetch"
    with pytest.raises(ValueError, match=message):
        load_cluttered(save(tmp_path, X_valid=None, y_test=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_test": np.zeros((20, 1599), np.float32)}, r"X_test of shape \(20, 1599\)"),
        ({"X_test": np.zeros((20, 40, 40), np.float32)}, r"X_test of shape \(20, 40, 40\)"),
        ({"X_test": np.zeros((19, 1600), np.float32)}, r"\(19, 1600\) and y_test .*\(20, 1\);"),
        ({"y_valid": np.zeros(10, np.int32)}, r"y_valid of shape \(10,\); expected .*40x40"),
        ({"X_train": np.full((30, 1600), 255.0)}, "pixels from 255.0 to 255.0"),
        ({"X_train": np.full((30, 1600), np.nan)}, "pixels from nan to nan"),
        ({"y_train": good_arrays()["y_train"] * 1.0}, "labels of type float64"),
        ({"y_train": good_arrays()["y_train"] - 1}, "from -1"),
        ({"y_valid": np.full((10, 1), 3)}, r"classes \[3\] in y_valid; .* each class from 0 to 9"),
        ({"y_valid": good_arrays()["y_valid"] + 1}, r"classes \[1, .*, 10\] in y_valid"),
    ],
)
def test_wrong_arrays(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_cluttered(save(tmp_path, **changes))


@pytest.mark.parametrize(("damage", "write"), hostile_npz(good_arrays(), "y_train").items())
def test_hostile_file_is_told_in_three_parts(tmp_path, damage, write):
    write(tmp_path / FILE)
    with pytest.raises(ValueError, match=r"^found .*; expected .*; fetch"):
        load_cluttered(tmp_path)


@pytest.mark.parametrize("offset", [2**32, 2**33])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_labels_do_not_wrap(tmp_path, offset, dtype):
    labels = good_arrays()["y_test"].astype(dtype) + dtype(offset)
    with pytest.raises(ValueError, match=rf"found labels from {offset} to {offset + 9}; expected"):
        load_cluttered(save(tmp_path, y_test=labels))
