"""What all recipes for labelled images share: arrays, loss, checks of their options."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.train.data import Dataset

Arrays = tuple[jax.Array, jax.Array]
"""Images ``(n, pixels)`` in [0, 1] and labels ``(n,)``."""


def to_arrays(part: Dataset) -> Arrays:
    """Flatten images and move them to the device."""
    return jnp.asarray(part.images.reshape(len(part.images), -1)), jnp.asarray(part.labels)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Give the mean cross-entropy of a batch."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def check_folder(data: str, data_dir: Path | None) -> None:
    """Raise if data that is read from files has no folder."""
    checks.require(
        data == "digits" or data_dir is not None,
        f"data={data!r} without a folder",
        "the folder of its files",
        "pass --data-dir DIR",
    )


def check_batch(batch: int, images: int) -> None:
    """Raise if a batch does not fit into an epoch."""
    checks.require(
        batch <= images,
        f"batch={batch} with {images} training images",
        "at most as many",
        "lower --batch",
    )
