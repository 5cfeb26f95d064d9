"""What every loader returns, images in [0, 1] with labels, and three disjoint sets of them."""

from typing import NamedTuple

import numpy as np

from sparse_hyper_jax.checks import INT32_CELLS, check_number, check_shape, require


class Dataset(NamedTuple):
    """Labelled images on the host.

    Attributes:
        images: ``(n, h, w)`` float32 in ``[0, 1]``, 0 is background.
        labels: ``(n,)`` int32, the class of each image.

    Example:
        >>> from sparse_hyper_jax.train.data import load_digits
        >>> digits = load_digits()
        >>> digits.images.shape, digits.labels[:5].tolist()
        ((1797, 8, 8), [0, 1, 2, 3, 4])
    """

    images: np.ndarray
    labels: np.ndarray


class Splits(NamedTuple):
    """Three sets that share no image.

    Attributes:
        train: what the model learns from.
        validation: what choices (settings, stopping) are made on.
        test: what is reported, once.

    Example:
        >>> from sparse_hyper_jax.train.data import load_splits
        >>> splits = load_splits("digits", None, seed=0)
        >>> [len(part.labels) for part in splits]
        [1297, 200, 300]
    """

    train: Dataset
    validation: Dataset
    test: Dataset


def make_dataset(pixels: np.ndarray, labels: np.ndarray, *, white: float) -> Dataset:
    """Scale pixels to ``[0, 1]`` and check that images and labels fit together.

    ``images = pixels / white``.

    Args:
        pixels: ``(n, h, w)`` non-negative numbers, at most ``white``.
        labels: ``(n,)`` integers from 0 to 2**31 - 1.
        white: the largest value a pixel can have, for instance 255.

    Returns:
        The ``(n, h, w)`` float32 images and ``(n,)`` int32 labels.

    Raises:
        ValueError: a wrong rank, no image, different counts, or a value out of range.

    Example:
        >>> from sparse_hyper_jax.train.data import make_dataset
        >>> dataset = make_dataset(np.array([[[0, 1], [4, 2]]]), np.array([7]), white=4)
        >>> dataset.images.tolist(), dataset.labels.tolist()
        ([[[0.0, 0.25], [1.0, 0.5]]], [7])
    """
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    check_shape("pixels", pixels, (None, None, None), "(n, h, w): one image per row")
    _check_labels(labels, len(pixels))
    require(pixels.size > 0, f"pixels of shape {pixels.shape}", "at least one pixel", "pass images")
    require(
        pixels.dtype.kind in "biuf",
        f"pixels of type {pixels.dtype}",
        "numbers",
        "pass brightness, from 0 for black to white",
    )
    limits = np.finfo(np.float32)
    check_number("white", white, at_least=float(limits.tiny), at_most=float(limits.max))
    low, high = pixels.min(), pixels.max()
    require(
        low >= 0 and high <= white,
        f"pixels from {low} to {high}",
        f"pixels from 0 to {white}",
        "pass the largest possible pixel as white",
    )
    # Before they are cast: 2**32 + 3 would become 3.
    require(
        labels.min() >= 0 and labels.max() < INT32_CELLS,
        f"labels from {labels.min()} to {labels.max()}",
        "labels from 0 to 2**31 - 1",
        "number the classes from 0",
    )
    # Dividing with a float32 result keeps 60,000 images from passing through float64.
    images = np.divide(pixels, np.float32(white), dtype=np.float32)
    return Dataset(images, labels.astype(np.int32))


def check_dataset(dataset: Dataset) -> Dataset:
    """Return a data set as arrays of NumPy; it may be made by hand, without :func:`make_dataset`.

    Args:
        dataset: ``(n, h, w)`` images, or with channels ``(n, h, w, C)``, and ``(n,)`` integers.

    Raises:
        ValueError: images of a wrong rank, no image, or not one integer label per image.
    """
    images, labels = np.asarray(dataset.images), np.asarray(dataset.labels)
    shape = (None, None, None, None) if images.ndim == 4 else (None, None, None)
    check_shape("images", images, shape, "(n, h, w) or (n, h, w, C): one image per row")
    require(len(images) > 0, f"images of shape {images.shape}", "at least one image", "bring some")
    _check_labels(labels, len(images))
    return Dataset(images, labels)


def _check_labels(labels: np.ndarray, count: int) -> None:
    """Raise ValueError unless there is one integer per image."""
    check_shape("labels", labels, (count,), "(n,): one label per image")
    require(
        np.issubdtype(labels.dtype, np.integer),
        f"labels of type {labels.dtype}",
        "integer labels",
        "number the classes from 0",
    )
