"""A spiking autoencoder of images: first weights, training by a batch, how it is judged."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax.spiking import (
    MembraneRule,
    membrane_loss,
    membrane_loss_scan,
    poisson_spikes,
)
from sparse_hyper_jax.train.data.epochs import Arrays

Weights = list[jax.Array]
START, START_PIXELS = 0.1, 784
"""First weights are uniform up to this for so many inputs, larger for fewer."""

TEST_KEY = 2**31 - 1
"""Seed of the spikes by which images are judged."""


class Score(NamedTuple):
    """How well images are rebuilt, on average."""

    mse: float
    """Squared error of the z-scored counts of output spikes, against the z-scored pixels."""

    mse_of_input: float
    """That of the input's own spikes: what no network of such spikes can be expected to beat."""

    silent_units: float
    """Share of hidden units that never fire."""


def first_weights(key: jax.Array, sizes: Sequence[int]) -> Weights:
    """Draw matrices ``(inputs, outputs)``, uniform with the authors' width for 784 inputs."""
    keys = jax.random.split(key, len(sizes) - 1)
    weights = []
    for own, (inputs, outputs) in zip(keys, itertools.pairwise(sizes), strict=True):
        most = START * (START_PIXELS / inputs) ** 0.5
        weights.append(jax.random.uniform(own, (inputs, outputs), minval=-most, maxval=most))
    return weights


def z_scored(counts: jax.Array) -> jax.Array:
    """Give each row the mean 0 and the variance 1; a constant one becomes 0."""
    centred = counts - jnp.mean(counts, axis=-1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True))
    some = deviation > 0
    return jnp.where(some, centred / jnp.where(some, deviation, 1), 0)


def squared_error(counts: jax.Array, pixels: jax.Array) -> jax.Array:
    """Give the mean squared error of each row after both were z-scored."""
    return jnp.mean(jnp.square(z_scored(counts) - z_scored(pixels)), axis=-1)


def learn_online(
    weights: Weights, spikes: jax.Array, targets: jax.Array, *, rate: float, rule: MembraneRule
) -> tuple[Weights, jax.Array]:
    """Learn from a batch in each of its time steps, by an Adam that begins anew."""
    adam = optax.adam(rate)
    done = membrane_loss_scan(
        weights, adam.init(weights), spikes, targets, optimizer=adam, rule=rule
    )
    return done.weights, jnp.sum(done.losses)


def make_measure(
    *, steps: int, peak: float, rule: MembraneRule, rows: int = 1000
) -> Callable[[Weights, Arrays], Score]:
    """Make the evaluation: of the first images of a set, with spikes by a fixed key."""

    @jax.jit
    def on_device(weights: Weights, images: jax.Array) -> tuple[jax.Array, ...]:
        spikes = poisson_spikes(jax.random.key(TEST_KEY), peak * images, steps=steps)
        _, (hidden, out) = membrane_loss(weights, spikes, spikes, rule=rule)
        silent = ~jnp.any(hidden > 0, axis=(0, 1))
        errors = [jnp.mean(squared_error(one.sum(axis=0), images)) for one in (out, spikes)]
        return (*errors, jnp.mean(silent.astype(jnp.float32)))

    return lambda weights, part: Score(*map(float, on_device(weights, part[0][:rows])))
