"""An autoencoder with a discrete code: network, training step, expected reconstruction."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from sparse_hyper_jax.estimators import Estimator, expectation
from sparse_hyper_jax.train.data.epochs import Arrays, next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, next_state


class Autoencoder(nnx.Module):
    """Images to logits of ``K`` categorical variables with ``C`` classes, and back to pixels."""

    def __init__(
        self, pixels: int, hidden: Sequence[int], code: tuple[int, int], *, rngs: nnx.Rngs
    ):
        sizes = [pixels, *hidden, code[0] * code[1]]
        self.code = code
        self.encoder = _layers(sizes, rngs)
        self.decoder = _layers(sizes[::-1], rngs)

    def encode(self, images: jax.Array) -> jax.Array:
        """Give logits ``(..., K, C)`` of images ``(..., pixels)``."""
        logits = _run(self.encoder, images)
        return logits.reshape(*logits.shape[:-1], *self.code)

    def decode(self, rows: jax.Array) -> jax.Array:
        """Give logits of pixels ``(..., pixels)`` from one-hot rows ``(..., K, C)``."""
        return _run(self.decoder, rows.reshape(*rows.shape[:-2], -1))


def _layers(sizes: Sequence[int], rngs: nnx.Rngs) -> nnx.List:
    return nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in itertools.pairwise(sizes)])


def _run(layers: nnx.List, x: jax.Array) -> jax.Array:
    *hidden, last = layers
    for layer in hidden:
        x = nnx.leaky_relu(layer(x), 0.2)
    return last(x)


class Coder(NamedTuple):
    """The network as functions of its parameters."""

    encode: Callable[[nnx.State, jax.Array], jax.Array]
    decode: Callable[[nnx.State, jax.Array], jax.Array]


def make_coder(
    pixels: int, hidden: Sequence[int], code: tuple[int, int], *, seed: int
) -> tuple[Coder, nnx.State]:
    """Build the network; give it as functions, and initial parameters."""
    network = Autoencoder(pixels, hidden, code, rngs=nnx.Rngs(params=seed))
    graph, parameters = nnx.split(network, nnx.Param)
    return Coder(
        lambda parameters, images: nnx.merge(graph, parameters).encode(images),
        lambda parameters, rows: nnx.merge(graph, parameters).decode(rows),
    ), parameters


def make_step(
    loss_of: Callable[[nnx.State, jax.Array, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    batch: int,
) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure training step.

    Args:
        loss_of: maps parameters, a typed key and images ``(b, pixels)`` to a scalar.
        optimizer: from gradients to updates.
        batch: images per step.
    """

    def step(state: EpochState, key: jax.Array, train_set: Arrays) -> tuple[EpochState, Metrics]:
        order_key, key = jax.random.split(key)
        order, (images, _) = next_batch(order_key, state.order, state.count, train_set, batch=batch)
        loss, gradient = jax.value_and_grad(loss_of)(state.parameters, key, images)
        return next_state(state, gradient, optimizer, order), {"loss": loss}

    return step


def expected_reconstruction(
    coder: Coder, estimator: Estimator, parameters: nnx.State
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Make ``E_z[-log p(x | z)]`` in nats as a function of a key, an image and its logits.

    Args:
        coder: the network.
        estimator: what makes the gradient towards the logits.
        parameters: of the decoder.

    Returns:
        a function of a typed key, an image ``(pixels,)`` with pixels from 0 to 1, and logits
        ``(K, C)``.
    """

    def expected(key: jax.Array, image: jax.Array, logits: jax.Array) -> jax.Array:
        def of_rows(rows: jax.Array) -> jax.Array:
            return reconstruction_loss(coder.decode(parameters, rows), image)

        def of_classes(classes: jax.Array) -> jax.Array:
            return of_rows(jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype))

        f = of_rows if estimator.relaxed else of_classes
        return expectation(key, logits, f, estimator=estimator)

    return expected


def reconstruction_loss(pixel_logits: jax.Array, image: jax.Array) -> jax.Array:
    """Give ``-log p(x | z)`` in nats, with independent pixels: ``(..., pixels)`` to ``(...)``."""
    return jnp.sum(optax.sigmoid_binary_cross_entropy(pixel_logits, image), axis=-1)


def divergence_from_uniform(logits: jax.Array) -> jax.Array:
    """Give ``KL(q || uniform)`` of ``K`` independent variables: ``(..., K, C)`` to ``(...)``.

    ``sum_kc q_kc log(C q_kc)``.
    """
    log_q = jax.nn.log_softmax(logits)
    terms = jnp.exp(log_q) * (log_q + jnp.log(logits.shape[-1]))
    return jnp.sum(terms, axis=(-2, -1))


def binarise(images: jax.Array) -> jax.Array:
    """Turn pixels above one half into 1 and all others into 0."""
    return (images > 0.5).astype(images.dtype)
