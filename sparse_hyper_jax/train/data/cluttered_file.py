"""Reader for a ready-made set of cluttered digits: 40x40 pixels, five pieces of 5x5 on each."""

from pathlib import Path

import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.dataset import Dataset, Splits, make_dataset
from sparse_hyper_jax.train.npz import read_npz

FILE = "mnist_sequence1_sample_5distortions5x5.npz"
SIDE, CLASSES = 40, 10
PARTS = ("train", "valid", "test")
ARRAYS = tuple(f"{kind}_{part}" for part in PARTS for kind in "Xy")
CHANGE = f"fetch {FILE} again, from daviddao/spatial-transformer-tensorflow on GitHub"


def _make_part(part: str, pixels: np.ndarray, labels: np.ndarray) -> Dataset:
    """Shape one of the three sets and check that it is complete."""
    fits = pixels.ndim == 2 and pixels.shape[1] == SIDE**2 and labels.shape == (len(pixels), 1)
    require(
        fits,
        f"X_{part} of shape {pixels.shape} and y_{part} of shape {labels.shape}",
        f"(n, {SIDE**2}) and (n, 1): one image of {SIDE}x{SIDE} and its label per row",
        CHANGE,
    )
    dataset = make_dataset(pixels.reshape(-1, SIDE, SIDE), labels[:, 0], white=1.0)
    classes = np.unique(dataset.labels).tolist()
    require(
        classes == list(range(CLASSES)),
        f"classes {classes} in y_{part}",
        f"images of each class from 0 to {CLASSES - 1}",
        CHANGE,
    )
    return dataset


def load_cluttered(folder: Path) -> Splits:
    """Read the ready-made set; its official split is used as it is.

    Its digits are whole and upright. They do not lie uniformly: most are at the lowest place, so
    that the vertical position is easy to guess, other than in :func:`make_cluttered`.

    Args:
        folder: holds ``mnist_sequence1_sample_5distortions5x5.npz``.

    Returns:
        10,000 images of 40x40 to train on, 1,000 to validate and 1,000 to test.

    Raises:
        ValueError: no such file, a damaged one, arrays missing or of a wrong shape, pixels outside
            ``[0, 1]``, or a class missing in a set.

    Example:
        >>> from pathlib import Path
        >>> from sparse_hyper_jax.train.data import load_cluttered
        >>> arrays = {}
        >>> for part in ("train", "valid", "test"):  # one blank image for each class
        ...     arrays[f"X_{part}"] = np.zeros((10, 1600))
        ...     arrays[f"y_{part}"] = np.arange(10)[:, None]
        >>> np.savez("mnist_sequence1_sample_5distortions5x5.npz", **arrays)
        >>> [part.images.shape for part in load_cluttered(Path())]
        [(10, 40, 40), (10, 40, 40), (10, 40, 40)]
    """
    path = Path(folder) / FILE
    require(
        path.is_file(),
        f"no {FILE} in {folder}",
        "the ready-made set of cluttered digits",
        f"pass the folder that holds it, or {CHANGE}",
    )
    arrays = read_npz(path, names=ARRAYS, change=CHANGE)
    return Splits(*(_make_part(part, arrays[f"X_{part}"], arrays[f"y_{part}"]) for part in PARTS))
