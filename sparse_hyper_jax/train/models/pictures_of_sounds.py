"""From vectors with a class to a picture of it: data, and how what is synthesised is judged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.spiking import MembraneRule, membrane_loss, poisson_spikes
from sparse_hyper_jax.train.data.epochs import Arrays, to_arrays
from sparse_hyper_jax.train.data.splits import load_splits
from sparse_hyper_jax.train.data.spoken import Spoken, load_spoken, split_spoken
from sparse_hyper_jax.train.models.spiking_autoencoder import TEST_KEY, Weights, squared_error

DATA_SEED = 0
"""The pictures of the classes are the same for every seed of a run."""


class Pairs(NamedTuple):
    """Inputs with classes, images to learn pictures from, and a picture of every class."""

    train: Arrays
    """``(n, features)`` in [0, 1] and classes."""

    validation: Arrays | None
    test: Arrays
    images: Arrays
    pictures: jax.Array
    """``(classes, pixels)``: the first training image of each class."""


def load_pairs(
    task: str,
    data_dir: Path | None,
    images: str,
    images_dir: Path | None,
    held_out: int | None,
    *,
    validate: bool = True,
) -> Pairs:
    """Read spoken digits, or take the upper halves of images for them.

    Args:
        task: "halves" or "fsdd".
        data_dir: folder of the latter.
        images: "digits" or "mnist", see :func:`load_splits`.
        images_dir: folder of the latter.
        held_out: speaker to test on, None for the official test takes.
        validate: whether recordings are kept apart to validate on; see :func:`split_spoken`.

    Raises:
        ValueError: what a loader refuses, or an unknown speaker.
    """
    splits = load_splits(images, images_dir, seed=DATA_SEED)
    shown = to_arrays(splits.train)
    first = [int(np.argmax(splits.train.labels == label)) for label in range(10)]
    pictures = shown[0][np.array(first)]
    if task == "halves":
        half = shown[0].shape[1] // 2
        train, checked, test = (
            (pixels[:, :half], labels) for pixels, labels in map(to_arrays, splits)
        )
        return Pairs(train, checked, test, shown, pictures)
    assert data_dir, "checked"
    parts = split_spoken(load_spoken(data_dir), held_out=held_out, validate=validate)
    train, checked, test = (part and _flat(part) for part in parts)
    assert train, "not empty"
    assert test, "not empty"
    return Pairs(train, checked, test, shown, pictures)


def _flat(part: Spoken) -> Arrays:
    """Give the energies of recordings as vectors, and their digits."""
    return jnp.asarray(part.bands.reshape(len(part.bands), -1)), jnp.asarray(part.digits)


class Translation(NamedTuple):
    """How well pictures are synthesised, on average."""

    accuracy: float
    """Share of those that are nearest to the picture of their class."""

    mse: float
    """Error of z-scored counts of spikes against that picture."""


def hidden_spikes(
    encoder: jax.Array, pictures: jax.Array, *, peak: float, steps: int, rule: MembraneRule
) -> jax.Array:
    """Give the spikes ``(T, classes, units)`` by which the encoder answers the pictures."""
    spikes = poisson_spikes(jax.random.key(TEST_KEY), peak * pictures, steps=steps)
    units = encoder.shape[1]
    silent = jnp.zeros((*spikes.shape[:-1], units), spikes.dtype)
    return membrane_loss([encoder], spikes, silent, rule=rule)[1][-1]


def run_through(layers: Weights, spikes: jax.Array, rule: MembraneRule) -> jax.Array:
    """Give the counts ``(..., outputs)`` of the spikes that come out of layers."""
    silent = jnp.zeros((*spikes.shape[:-1], layers[-1].shape[1]), spikes.dtype)
    return membrane_loss(layers, spikes, silent, rule=rule)[1][-1].sum(axis=0)


def repeated(spikes: jax.Array, steps: int) -> jax.Array:
    """Repeat spikes in time, from the beginning again, until they last for so many steps."""
    return spikes[jnp.arange(steps) % len(spikes)]


def make_judge(
    pictures: jax.Array, *, steps: int, peak: float, rule: MembraneRule
) -> Callable[[Any, Arrays], Translation]:
    """Make the evaluation: synthesise a picture of every input, and look which class is nearest."""

    @jax.jit
    def on_device(parameters: Any, part: Arrays) -> tuple[jax.Array, jax.Array]:
        inputs, labels = part
        counts = synthesise(parameters, inputs, steps=steps, peak=peak, rule=rule)
        errors = jax.vmap(
            lambda picture: squared_error(counts, jnp.broadcast_to(picture, counts.shape))
        )(pictures)
        own = jnp.take_along_axis(errors, labels[None], axis=0)
        return jnp.mean(jnp.argmin(errors, axis=0) == labels), jnp.mean(own)

    return lambda parameters, part: Translation(*map(float, on_device(parameters, part)))


def synthesise(
    parameters: Any, inputs: jax.Array, *, steps: int, peak: float, rule: MembraneRule
) -> jax.Array:
    """Give counts of output spikes ``(n, pixels)``: from inputs to hidden spikes to a picture."""
    spikes = poisson_spikes(jax.random.key(TEST_KEY), peak * inputs, steps=steps)
    return run_through([*parameters["sounds"], parameters["images"][1]], spikes, rule)


def between(pictures: jax.Array) -> float:
    """Give the mean error between pictures of different classes."""

    @jax.jit
    def total(pictures: jax.Array) -> jax.Array:
        one, two = jnp.broadcast_to(pictures, (count, *pictures.shape)), pictures[:, None]
        return jnp.sum(squared_error(one, jnp.broadcast_to(two, one.shape)))

    count = len(pictures)
    return float(total(pictures) / (count * (count - 1)))
