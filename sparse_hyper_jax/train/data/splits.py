"""Training, validation and test sets: disjoint, shuffled, with the same mix of classes in each."""

from pathlib import Path

import numpy as np

from sparse_hyper_jax.checks import check_choice, check_count, require
from sparse_hyper_jax.train.data.dataset import Dataset, Splits, check_dataset
from sparse_hyper_jax.train.data.digits import load_digits
from sparse_hyper_jax.train.data.idx import load_idx
from sparse_hyper_jax.train.data.mnist import download_mnist, load_mnist

DATA = ("digits", "mnist", "idx")
"""The names that ``load_splits`` knows."""

# The bundled digits come without an official test set. Ours must not move with the training seed:
# runs with several seeds are averaged and compared, which means nothing on different test images,
# and settings chosen under one seed would have seen the test images of another.
SPLIT_SEED = 0

DIGITS_VALIDATION, DIGITS_TEST = 200, 300
MNIST_VALIDATION = 5_000

# Real sets hold a few images twice, and those of few pixels more; a copy of the training images
# holds all of them.
MOST_KNOWN = 0.5
"""The largest share of an official test set that may be among the training images."""


def _shuffled(count: int, seed: int) -> np.ndarray:
    """Return a random order of ``count`` things that stays the same over numpy versions.

    Only the raw output of a bit generator is promised not to change (NEP 19), so that is sorted
    instead of calling ``Generator.permutation``.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def _apportion(total: int, counts: np.ndarray) -> np.ndarray:
    """Share ``total`` out in proportion to ``counts``, in whole numbers (largest remainders)."""
    floors, remainders = np.divmod(total * counts.astype(np.int64), counts.sum())
    favoured = np.argsort(-remainders, kind="stable")[: total - floors.sum()]
    floors[favoured] += 1
    return floors


def _take(dataset: Dataset, rows: np.ndarray) -> Dataset:
    return Dataset(dataset.images[rows], dataset.labels[rows])


def cut_stratified(dataset: Dataset, count: int, *, seed: int) -> tuple[Dataset, Dataset]:
    """Cut a random part off a data set, with the same mix of classes.

    A class with ``n_c`` of ``n`` images gives ``count * n_c / n`` of them, rounded up or down so
    that ``count`` are cut in all.

    Args:
        dataset: ``n`` images.
        count: how many to cut off.
        seed: decides which ones, 0 or more.

    Returns:
        The rest, ``n - count`` images, and the part, ``count`` images: both shuffled, no image in
        both.

    Raises:
        ValueError: a class would be missing on either side, or not one integer label per image.

    Example:
        >>> from sparse_hyper_jax.train.data import cut_stratified, make_dataset
        >>> dataset = make_dataset(np.zeros((6, 8, 8)), np.array([0, 0, 0, 0, 1, 1]), white=1)
        >>> rest, part = cut_stratified(dataset, 3, seed=0)
        >>> sorted(rest.labels.tolist()), sorted(part.labels.tolist())
        ([0, 0, 1], [0, 0, 1])
    """
    check_count("count", count, 1)
    check_count("seed", seed)
    dataset = check_dataset(dataset)
    classes, members, counts = np.unique(dataset.labels, return_inverse=True, return_counts=True)
    total = len(dataset.labels)
    shares = _apportion(min(count, total), counts)
    short = classes[(shares < 1) | (shares >= counts)]
    require(
        len(short) == 0,
        f"{count} of {total} images to cut off, which leaves classes {short.tolist()} with no "
        "image on one side",
        "every class in every set",
        "cut off more or fewer images, or bring more images of these classes",
    )
    order = _shuffled(total, seed)
    grouped = order[np.argsort(members[order], kind="stable")]
    rank_in_class = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(total, bool)
    chosen[grouped[rank_in_class < np.repeat(shares, counts)]] = True
    return _take(dataset, order[~chosen[order]]), _take(dataset, order[chosen[order]])


def split_dataset(dataset: Dataset, *, seed: int, validation: int, test: int | Dataset) -> Splits:
    """Split a data set into three, shuffled and with the same mix of classes.

    Args:
        dataset: ``n`` images.
        seed: decides which image goes where, 0 or more.
        validation: how many images to validate on.
        test: how many images to test on, cut off first; or an official test set, which is passed
            through as it is.

    Returns:
        Disjoint sets; what remains is for training.

    Raises:
        ValueError: a class would be missing in one of the sets, not one integer label per image, or
            an official test set has images of another size, or mostly those for training.

    Example:
        >>> from sparse_hyper_jax.train.data import load_digits, split_dataset
        >>> splits = split_dataset(load_digits(), seed=0, validation=200, test=300)
        >>> [len(part.labels) for part in splits]
        [1297, 200, 300]
    """
    if isinstance(test, Dataset):
        held_out = test
        _check_official(dataset, test)
    else:
        dataset, held_out = cut_stratified(dataset, test, seed=seed)
    train, checked = cut_stratified(dataset, validation, seed=seed)
    lacking = np.setxor1d(train.labels, held_out.labels)
    require(
        len(lacking) == 0,
        f"classes {lacking.tolist()} in only one of training and test set",
        "every class in every set",
        "use a test set of the same classes",
    )
    return Splits(train, checked, held_out)


def _check_official(dataset: Dataset, test: Dataset) -> None:
    """Raise ValueError if a test set does not belong to a data set, or is a copy of its images."""
    learned, held_out = check_dataset(dataset).images, check_dataset(test).images
    require(
        held_out.shape[1:] == learned.shape[1:],
        f"test images of shape {held_out.shape[1:]}",
        f"that of the training images, {learned.shape[1:]}",
        "use a test set of the same size of image",
    )
    # Hashes, so that no second copy of the images is held.
    known = {_hash(image) for image in learned}
    found = sum(_hash(image) in known for image in held_out)
    require(
        found <= MOST_KNOWN * len(held_out),
        f"{found} of {len(held_out)} test images among the training images",
        f"at most {MOST_KNOWN:.0%}, for they are to be new to the model",
        "test on other images, for instance on a part cut off with cut_stratified",
    )


def _hash(image: np.ndarray) -> int:
    return hash(np.asarray(image, np.float32).tobytes())


def load_splits(
    data: str,
    data_dir: Path | None,
    *,
    seed: int,
    download: bool = False,
    num_classes: int = 10,
) -> Splits:
    """Load a data set by name and split it; the test set is the same for every seed.

    ============ ======================================== ====== ========== ======
    name         what                                      train validation   test
    ============ ======================================== ====== ========== ======
    ``digits``   8x8, bundled with scikit-learn             1297        200    300
    ``mnist``    28x28, official test set                  55000       5000  10000
    ``idx``      your four files in the format of MNIST    11/12       1/12  yours
    ============ ======================================== ====== ========== ======

    Args:
        data: one of ``DATA``.
        data_dir: the folder of the files; ``digits`` needs none.
        seed: decides which images validate, 0 or more.
        download: fetch missing files of ``mnist`` first.
        num_classes: ``idx`` only: labels must be below this.

    Returns:
        Three disjoint sets with every class in each.

    Raises:
        ValueError: an unknown name, no folder, files that are missing or damaged, or test images
            that are of another size or mostly those for training.
        ImportError: ``digits`` without scikit-learn.

    Example:
        >>> from sparse_hyper_jax.train.data import load_splits
        >>> splits = load_splits("digits", None, seed=0)
        >>> [part.images.shape for part in splits]
        [(1297, 8, 8), (200, 8, 8), (300, 8, 8)]
    """
    check_choice("data", data, DATA)
    if data == "digits":
        rest, test = cut_stratified(load_digits(), DIGITS_TEST, seed=SPLIT_SEED)
        return split_dataset(rest, seed=seed, validation=DIGITS_VALIDATION, test=test)
    folder = _checked_folder(data, data_dir, download)
    if data == "mnist":
        if download:
            download_mnist(folder)
        train, test = load_mnist(folder)
        return split_dataset(train, seed=seed, validation=MNIST_VALIDATION, test=test)
    train, test = load_idx(folder, num_classes=num_classes)
    validation = max(1, len(train.labels) // 12)
    return split_dataset(train, seed=seed, validation=validation, test=test)


def _checked_folder(data: str, data_dir: Path | None, download: bool) -> Path:
    """Return the folder of the files after checking the options that concern it."""
    folder = Path("" if data_dir is None else data_dir)
    require(
        data_dir is not None,
        f"data={data!r} without a folder",
        "the folder that holds its files",
        "pass --data-dir DIR, or --data digits, which needs none",
    )
    require(
        not (download and data == "idx"),
        "download=True with data='idx'",
        "a download only for data='mnist', the one set with a known address",
        "drop --download and put your files into the folder",
    )
    return folder
