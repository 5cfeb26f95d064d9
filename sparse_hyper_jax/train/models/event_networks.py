"""Networks that read an event camera: what they see of it, one pass over a sample, references."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax.spiking import (
    ErbpParameters,
    ErbpRule,
    activity_state,
    decolle_state,
    decolle_step,
    erbp_state,
    erbp_step,
    follow_activity,
    poisson_spikes,
    readdress,
)
from sparse_hyper_jax.train.data.events import EventSamples

LABEL_RATE = 0.5
"""Probability with which the label's neuron fires in a millisecond: 500 Hz."""


class Field(NamedTuple):
    """What of an event camera's field a network reads."""

    shape: tuple[int, int, int]
    """Polarities, height and width of the camera's."""

    pool: int
    """Pixels of a side that count as one."""

    window: int
    """Side of the window that follows the events, in pooled pixels; 0 for all of the field."""

    memory: int
    """Events whose median place is the window's middle; at least those of a step."""

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width in pooled pixels."""
        height, width = (-(-side // self.pool) for side in self.shape[1:])
        return height, width

    @property
    def inputs(self) -> int:
        """Inputs of a network."""
        height, width = self.seen
        return self.shape[0] * height * width

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width of what is read."""
        return (self.window, self.window) if self.window else self.pooled


def addressed(field: Field, codes: jax.Array) -> jax.Array:
    """Give the inputs ``(T, events)`` that the events of a sample drive; -1 is padding."""
    _, height, width = field.shape
    codes = codes.astype(jnp.int32)
    places = jnp.stack([codes // width % height, codes % width], axis=-1) // field.pool
    places = jnp.where(codes[..., None] < 0, -1, places)
    seen = places
    if field.window:
        sides = (field.window, field.window)

        def step(state: Any, now: jax.Array) -> tuple[Any, jax.Array]:
            state, centre = follow_activity(state, now)
            return state, readdress(now, centre, shape=field.pooled, window=sides)

        _, seen = jax.lax.scan(step, activity_state(field.pooled, memory=field.memory), places)
    down, across = field.seen
    inputs = (codes // (width * height) * down + seen[..., 0]) * across + seen[..., 1]
    return jnp.where(seen[..., 0] < 0, -1, inputs)


def rasters(inputs: jax.Array, count: int) -> jax.Array:
    """Count events ``(..., inputs)`` of lists ``(..., events)`` of inputs."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    rows = jnp.arange(len(flat))[:, None]
    places = jnp.where(flat < 0, count, flat)
    counts = jnp.zeros((len(flat), count), jnp.float32).at[rows, places].add(1, mode="drop")
    return counts.reshape(*inputs.shape[:-1], count)


def erbp_sample(
    key: jax.Array,
    parameters: ErbpParameters,
    inputs: jax.Array,
    label: jax.Array,
    *,
    rate: float,
    rule: ErbpRule,
) -> tuple[ErbpParameters, jax.Array, jax.Array]:
    """Show one sample ``(T, events)``, and learn; give output spikes ``(T, classes)``, hidden rate.

    A label of -1 has no spikes: without a rate too, nothing is taught.
    """
    classes = parameters.weights[-1].shape[1]
    label_key, step_key = jax.random.split(key)
    rates = LABEL_RATE * rule.dt * jax.nn.one_hot(label, classes)
    labels = poisson_spikes(label_key, rates, steps=len(inputs))

    def step(carry: Any, now: Any) -> tuple[Any, Any]:
        parameters, state = carry
        own, events, spikes = now
        one = erbp_step(own, parameters, state, events, spikes, learning_rate=rate, rule=rule)
        hidden = [jnp.mean(fired) for fired in one.spikes[:-1]]
        kept = one.parameters if rate else parameters
        return (kept, one.state), (one.spikes[-1], jnp.stack([*hidden, jnp.mean(one.spikes[-1])]))

    keys = jax.random.split(step_key, len(inputs))
    start = parameters, erbp_state(parameters)
    (parameters, _), (out, rates) = jax.lax.scan(step, start, (keys, inputs, labels))
    return parameters, out, jnp.mean(rates[:, :1])


class Decolle(NamedTuple):
    """Layers with readouts, their optimizer, and the steps in which nothing is learned."""

    readouts: list[jax.Array]
    optimizer: optax.GradientTransformation
    burn_in: int

    def start(self, key: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
        """Draw first weights: of potentials about 1 for inputs that fire in one step of ten."""
        weights = []
        keys = jax.random.split(key, len(sizes) - 1)
        for own, (inputs, outputs) in zip(keys, itertools.pairwise(sizes), strict=True):
            most = 10 / inputs**0.5
            weights.append(jax.random.uniform(own, (inputs, outputs), minval=-most, maxval=most))
        return weights


def decolle_readouts(key: jax.Array, sizes: Sequence[int], classes: int) -> list[jax.Array]:
    """Draw the fixed readout of every layer."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        jax.random.uniform(own, (size, classes), minval=-1, maxval=1) / size**0.5
        for own, size in zip(keys, sizes[1:], strict=True)
    ]


def decolle_batch(
    net: Decolle, weights: list[jax.Array], moments: Any, spikes: jax.Array, labels: jax.Array
) -> tuple[list[jax.Array], Any, jax.Array]:
    """Learn from spikes ``(T, b, inputs)``, an update in every step after the burn-in."""
    target = jax.nn.one_hot(labels, net.readouts[0].shape[1])

    def step(carry: Any, now: Any) -> tuple[Any, jax.Array]:
        weights, moments, state = carry
        number, s = now

        def total(weights: list[jax.Array]) -> tuple[jax.Array, Any]:
            one = decolle_step(weights, net.readouts, state, s, target)
            return jnp.sum(one.losses), one.state

        (loss, after), gradient = jax.value_and_grad(total, has_aux=True)(weights)
        updates, new_moments = net.optimizer.update(gradient, moments, weights)
        learned = optax.apply_updates(weights, updates), new_moments
        kept = jax.tree.map(
            lambda new, old: jnp.where(number >= net.burn_in, new, old), learned, (weights, moments)
        )
        return (*kept, after), loss

    start = weights, moments, decolle_state(weights, batch=spikes.shape[1:-1])
    (weights, moments, _), losses = jax.lax.scan(step, start, (jnp.arange(len(spikes)), spikes))
    return weights, moments, jnp.mean(losses[net.burn_in :])


def decolle_scores(
    net: Decolle, weights: list[jax.Array], spikes: jax.Array, labels: jax.Array
) -> jax.Array:
    """Give the last layer's scores ``(T, b, classes)``, 0 in the burn-in."""
    target = jax.nn.one_hot(labels, net.readouts[0].shape[1])

    def step(state: Any, s: jax.Array) -> tuple[Any, jax.Array]:
        one = decolle_step(weights, net.readouts, state, s, target)
        return one.state, one.scores[-1]

    state = decolle_state(weights, batch=spikes.shape[1:-1])
    _, scores = jax.lax.scan(step, state, spikes)
    return jnp.where((jnp.arange(len(scores)) < net.burn_in)[:, None, None], 0, scores)


def accuracies_over_time(scores: np.ndarray, labels: np.ndarray, *, parts: int = 10) -> list[float]:
    """Give the share of right decisions by what was said up to so many parts of the time.

    What is NaN decides for no class.
    """
    said = np.cumsum(scores, axis=0)
    last = np.linspace(0, len(said), parts + 1).round().astype(int)[1:] - 1
    decided = np.where(np.isnan(said).any(axis=-1), -1, said.argmax(axis=-1))
    return [float(np.mean(decided[t] == labels)) for t in np.maximum(last, 0)]


def in_parts(function: Callable[..., Any], samples: EventSamples, *, part: int = 50) -> list[Any]:
    """Call a function of codes and labels for a few samples at a time."""
    starts = range(0, len(samples.labels), part)
    slices = [slice(start, start + part) for start in starts]
    return [function(samples.codes[rows], samples.labels[rows]) for rows in slices]


def references(field: Field, train: EventSamples, test: EventSamples) -> dict[str, float]:
    """Give the test accuracy of the nearest neighbour and of logistic regression on counts."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    @jax.jit
    def counts_of(codes: jax.Array, labels: jax.Array) -> jax.Array:
        inputs = jax.vmap(lambda one: addressed(field, one))(codes)
        return rasters(inputs.reshape(len(codes), -1), field.inputs)

    counts = [
        np.sqrt(np.concatenate([np.asarray(one) for one in in_parts(counts_of, part)]))
        for part in (train, test)
    ]
    methods = {
        "nearest": KNeighborsClassifier(1),
        "logistic": LogisticRegression(max_iter=500),
    }
    return {
        f"test_accuracy_of_{name}": float(
            method.fit(counts[0], np.asarray(train.labels)).score(
                counts[1], np.asarray(test.labels)
            )
        )
        for name, method in methods.items()
    }
