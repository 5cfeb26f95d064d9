"""The small handwritten digits bundled with scikit-learn: real data without a download."""

import numpy as np

from sparse_hyper_jax.train.data.dataset import Dataset, make_dataset

WHITE = 16  # each pixel counts the dark ones of a 4x4 block


def load_digits() -> Dataset:
    """Load 1,797 handwritten digits of 8x8 pixels.

    They are the test part of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin
    and Kaynak, 1998). There is no official split.

    Returns:
        The data set: ``(1797, 8, 8)`` float32 in ``[0, 1]`` and ``(1797,)`` int32 from 0 to 9.

    Raises:
        ImportError: scikit-learn is not installed.

    Example:
        >>> from sparse_hyper_jax.train.data import load_digits
        >>> digits = load_digits()
        >>> digits.images.shape, digits.labels[:5].tolist()
        ((1797, 8, 8), [0, 1, 2, 3, 4])
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "found no scikit-learn; expected it to be installed, for it brings these digits; "
            'run pip install "sparse_hyper_jax[train]"'
        ) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    return make_dataset(np.reshape(pixels, (-1, 8, 8)), np.asarray(labels), white=WHITE)
