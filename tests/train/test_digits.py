import subprocess
import sys

import jax
import numpy as np
import pytest

from sparse_hyper_jax.train.data import (
    Dataset,
    cut_stratified,
    download_mnist,
    index_by_class,
    load_digits,
    load_splits,
    make_dataset,
    split_dataset,
    splits,
)
from tests.train.test_idx import TEST_FILES, TRAIN_FILES, make_folder


def numbered(labels, first=0):
    """A data set whose image `i` is filled with `first + i`, so that every image can be traced."""
    labels = np.asarray(labels, np.int32)
    images = np.broadcast_to(
        np.arange(first, first + len(labels), dtype=np.float32)[:, None, None], (len(labels), 2, 3)
    )
    return Dataset(images.copy(), labels)


def ids(dataset):
    return dataset.images[:, 0, 0].astype(int)


UNEVEN = np.repeat(np.arange(4), [100, 37, 60, 11])


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_digits_values(digits):
    assert (digits.images.shape, digits.images.dtype) == ((1797, 8, 8), np.float32)
    assert (digits.labels.shape, digits.labels.dtype) == ((1797,), np.int32)
    assert (digits.images.min(), digits.images.max()) == (0.0, 1.0)
    # Pixels are counts of sixteenths: exact in float32.
    np.testing.assert_array_equal(digits.images * 16, np.round(digits.images * 16))
    np.testing.assert_array_equal(
        np.bincount(digits.labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    )


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "sparse_hyper_jax\[train\]"'):
        load_digits()


def test_import_brings_no_extra():
    code = (
        "import sys, sparse_hyper_jax.train.data; "
        "print(sorted({'sklearn', 'matplotlib', 'torch', 'tqdm'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert printed.stdout.decode().strip() == "[]"


def test_make_dataset_scales():
    pixels = np.array([[[0, 51], [102, 255]]], np.uint8)
    data = make_dataset(pixels, np.array([7]), white=255)
    np.testing.assert_allclose(data.images, [[[0, 0.2], [0.4, 1]]], rtol=1e-7)
    assert (data.images.dtype, data.labels.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((2, 3)), np.zeros(2, int), "pixels of shape"),
        (np.zeros((2, 3, 3)), np.zeros(3, int), "labels of shape"),
        (np.zeros((0, 3, 3)), np.zeros(0, int), "at least one pixel"),
        (np.full((1, 2, 2), 17.0), np.zeros(1, int), "pixels from 17.0 to 17.0"),
        (np.full((1, 2, 2), -1.0), np.zeros(1, int), "pixels from -1.0"),
        (np.full((1, 2, 2), np.nan), np.zeros(1, int), "pixels from nan"),
        (np.zeros((1, 2, 2)), np.array([-1]), "labels from -1 to -1; expected labels from 0 to"),
        (np.zeros((1, 2, 2)), np.array([2**32 + 3]), "labels from 4294967299 to 4294967299"),
        (np.zeros((1, 2, 2)), np.array([2**31], np.uint64), "labels from 2147483648"),
        (np.zeros((1, 2, 2), complex), np.zeros(1, int), "pixels of type complex128"),
        (np.full((1, 2, 2), "0"), np.zeros(1, int), "pixels of type <U1; expected numbers"),
        (np.full((1, 2, 2), None), np.zeros(1, int), "pixels of type object"),
        (np.zeros((1, 2, 2), "M8[s]"), np.zeros(1, int), "pixels of type datetime64"),
        (np.zeros((1, 2, 2)), np.array([0.5]), "integer labels"),
    ],
)
def test_make_dataset_refuses(pixels, labels, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(pixels, labels, white=16)


@pytest.mark.parametrize("make", [np.ndarray.tolist, jax.numpy.asarray])
def test_make_dataset_takes_lists_and_arrays_of_jax(make):
    pixels, labels = np.array([[[0, 51], [102, 255]]]), np.array([7])
    expected = make_dataset(pixels, labels, white=255)
    jax.tree.map(
        np.testing.assert_array_equal, make_dataset(make(pixels), make(labels), white=255), expected
    )


HAND_MADE = [
    (np.zeros((10, 2, 3)), np.arange(6) % 2, r"labels of shape \(6,\); .* of shape \(10\)"),
    (np.zeros((4, 2, 3)), np.array([0, 0.5, 1, 2]), "labels of type float64; expected integer"),
    (np.zeros((4, 2, 3)), np.array([0, 0, np.nan, np.nan]), "labels of type float64"),
    (np.zeros((4, 2, 3)), np.array([[0], [0], [1], [1]]), r"labels of shape \(4, 1\)"),
    (np.zeros((4, 6)), np.array([0, 0, 1, 1]), r"images of shape \(4, 6\); .*\(n, h, w\)"),
    (np.zeros((0, 2, 3)), np.zeros(0, int), r"images of shape \(0, 2, 3\); expected at least one"),
]


@pytest.mark.parametrize("take", [index_by_class, lambda data: cut_stratified(data, 2, seed=0)])
@pytest.mark.parametrize(("images", "labels", "message"), HAND_MADE)
def test_a_data_set_made_by_hand_is_checked(take, images, labels, message):
    with pytest.raises(ValueError, match=f"^found {message}.*; "):
        take(Dataset(images, labels))


def test_a_data_set_made_by_hand_may_hold_lists_and_channels():
    images = np.arange(4 * 2 * 3 * 3).reshape(4, 2, 3, 3)
    rest, part = cut_stratified(Dataset(images.tolist(), [0, 0, 1, 1]), 2, seed=0)
    together = np.concatenate([rest.images, part.images])
    np.testing.assert_array_equal(together[np.argsort(together[:, 0, 0, 0])], images)


@pytest.mark.parametrize("white", [0, 1e-46, 1e39, np.inf, np.nan, "white"])
def test_white_is_a_number_to_divide_by(white):
    with pytest.raises(ValueError, match=r"^found white=.*; expected one number"):
        make_dataset(np.zeros((1, 2, 2)), np.zeros(1, int), white=white)


@pytest.mark.parametrize("count", [20, 50, 104, 180])
@pytest.mark.parametrize("seed", [0, 5])
def test_cut_is_exact_disjoint_and_stratified(count, seed):
    data = numbered(UNEVEN)
    rest, part = cut_stratified(data, count, seed=seed)
    assert (len(part.labels), len(rest.labels)) == (count, len(UNEVEN) - count)
    np.testing.assert_array_equal(np.sort([*ids(rest), *ids(part)]), np.arange(len(UNEVEN)))
    for side in (rest, part):
        np.testing.assert_array_equal(side.labels, UNEVEN[ids(side)])
    wanted = count * np.bincount(UNEVEN) / len(UNEVEN)
    assert np.all(np.abs(np.bincount(part.labels, minlength=4) - wanted) < 1)


def test_cut_is_shuffled():
    # Neither side may come ordered by class or by place, or a plain slice would be a biased batch.
    for side in cut_stratified(numbered(UNEVEN), 104, seed=0):
        assert np.any(np.diff(ids(side)) < 0)
        assert len(np.unique(side.labels[:25])) > 1
        assert abs(np.corrcoef(ids(side), np.arange(len(side.labels)))[0, 1]) < 0.3


def test_cut_depends_on_the_seed_alone():
    data = numbered(UNEVEN)
    first, again, other = (cut_stratified(data, 50, seed=seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(ids(first), ids(again))
    assert set(ids(first)) != set(ids(other))


def test_every_image_is_equally_likely_to_be_cut():
    data = numbered(np.repeat([0, 1], [30, 10]))
    hits = np.zeros(40)
    for seed in range(400):
        hits[ids(cut_stratified(data, 8, seed=seed)[1])] += 1
    # Binomial(400, 0.2) has a standard deviation of 8.
    assert np.all(np.abs(hits - 80) < 4.5 * 8)


def test_split_order_is_pinned():
    # A changed order would silently move images between test and training over versions.
    np.testing.assert_array_equal(splits._shuffled(8, 0), [3, 2, 1, 6, 0, 7, 4, 5])


@pytest.mark.parametrize("count", [1, 3, 206, 208, 1000])
def test_cut_without_room_for_a_class(count):
    with pytest.raises(ValueError, match="every class in every set"):
        cut_stratified(numbered(UNEVEN), count, seed=0)


@pytest.mark.parametrize("options", [{"count": 0, "seed": 0}, {"count": 50, "seed": -1}])
def test_cut_checks_its_numbers(options):
    with pytest.raises(ValueError, match="an int of at least"):
        cut_stratified(numbered(UNEVEN), **options)


def test_split_in_three():
    parts = split_dataset(numbered(UNEVEN), seed=1, validation=30, test=50)
    assert [len(part.labels) for part in parts] == [len(UNEVEN) - 80, 30, 50]
    everything = np.concatenate([ids(part) for part in parts])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(UNEVEN)))
    for part in parts:
        np.testing.assert_array_equal(np.unique(part.labels), np.arange(4))


def test_official_test_set_is_passed_through():
    # Half of it may be known: real sets hold some images twice.
    official = numbered([3, 2, 1, 0], len(UNEVEN) - 2)
    parts = split_dataset(numbered(UNEVEN), seed=1, validation=30, test=official)
    assert parts.test is official
    assert len(parts.train.labels) == len(UNEVEN) - 30


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, 2, 3, 4]])
def test_official_test_set_of_other_classes(labels):
    with pytest.raises(ValueError, match=f"classes \\[{3 if len(labels) == 3 else 4}\\] in only"):
        split_dataset(numbered(UNEVEN), seed=1, validation=30, test=numbered(labels, 1000))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_official_test_set_of_known_images(kind):
    official = numbered([3, 2, 1, 0], len(UNEVEN) - 3)
    official = official._replace(images=official.images.astype(kind))
    message = "^found 3 of 4 test images among the training images; expected at most 50%, .*; test"
    with pytest.raises(ValueError, match=message):
        split_dataset(numbered(UNEVEN), seed=1, validation=30, test=official)


def test_official_test_set_of_another_size():
    official = Dataset(np.full((4, 3, 2), 0.5, np.float32), np.arange(4))
    message = r"^found test images of shape \(3, 2\); expected .* \(2, 3\); use"
    with pytest.raises(ValueError, match=message):
        split_dataset(numbered(UNEVEN), seed=1, validation=30, test=official)


def test_official_test_set_made_by_hand_is_checked():
    official = numbered([3, 2, 1, 0], 1000)._replace(labels=np.arange(3))
    with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
        split_dataset(numbered(UNEVEN), seed=1, validation=30, test=official)


def test_digits_splits(digits):
    parts = load_splits("digits", None, seed=0)
    assert [len(part.labels) for part in parts] == [1297, 200, 300]
    rows = [{image.tobytes() for image in part.images} for part in parts]
    # All 1,797 images differ, so that disjoint sets of bytes are disjoint sets of images.
    assert len(rows[0] | rows[1] | rows[2]) == 1797 == len({i.tobytes() for i in digits.images})
    share = np.bincount(digits.labels) / 1797
    for part in parts:
        expected = share * len(part.labels)
        assert np.all(np.abs(np.bincount(part.labels) - expected) < 2)


def test_digits_test_set_is_the_same_for_every_seed():
    first, second = (load_splits("digits", None, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.test.images, second.test.images)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    assert {i.tobytes() for i in first.validation.images} != {
        i.tobytes() for i in second.validation.images
    }
    again = load_splits("digits", None, seed=1)
    jax.tree.map(np.testing.assert_array_equal, again, second)


def test_idx_splits(tmp_path):
    parts = load_splits("idx", make_folder(tmp_path, train=240, test=30), seed=0)
    assert [len(part.labels) for part in parts] == [220, 20, 30]
    assert all(len(np.unique(part.labels)) == 10 for part in parts)


def test_idx_test_files_that_are_copies_of_the_training_files(tmp_path):
    folder = make_folder(tmp_path, train=240, test=30)
    for own, copied in zip(TEST_FILES, TRAIN_FILES, strict=True):
        (folder / f"{own}.gz").write_bytes((folder / f"{copied}.gz").read_bytes())
    with pytest.raises(ValueError, match="found 240 of 240 test images among the training images"):
        load_splits("idx", folder, seed=0)


def test_idx_splits_with_other_classes(tmp_path):
    folder = make_folder(tmp_path, train=240, test=30, classes=12)
    with pytest.raises(ValueError, match="label 11"):
        load_splits("idx", folder, seed=0)
    assert len(np.unique(load_splits("idx", folder, seed=0, num_classes=12).test.labels)) == 12


def test_mnist_is_downloaded_only_on_request(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(splits, "download_mnist", calls.append)
    with pytest.raises(ValueError, match="--download"):
        load_splits("mnist", tmp_path, seed=0)
    assert calls == []
    with pytest.raises(ValueError, match="--download"):
        load_splits("mnist", str(tmp_path), seed=0, download=True)
    assert calls == [tmp_path]
    assert callable(download_mnist)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("cifar", {}, "one of 'digits', 'mnist', 'idx'"),
        ("mnist", {}, "without a folder; .*--data-dir"),
        ("idx", {}, "without a folder; .*--data-dir"),
        ("idx", {"download": True, "folder": "."}, "drop --download"),
    ],
)
def test_load_splits_refuses(data, options, message):
    folder = options.pop("folder", None)
    with pytest.raises(ValueError, match=message):
        load_splits(data, folder, seed=0, **options)
