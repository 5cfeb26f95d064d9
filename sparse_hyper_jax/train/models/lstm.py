"""An LSTM that reads tokens and tells tokens, as a cell, and its truncated training."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax.recurrent import (
    LagNorms,
    Windows,
    bias_by_lag,
    lag_gradients,
    lag_norms,
    window_scan,
)

LSTMParameters = dict[str, jax.Array]
LSTMState = tuple[jax.Array, jax.Array]
"""``c`` and ``h``, each ``(rows, width)``."""


def init_lstm(key: jax.Array, *, tokens: int, width: int) -> LSTMParameters:
    """Draw parameters; gates stand side by side: input, forget, candidate, output."""
    keys = jax.random.split(key, 3)
    draw = jax.nn.initializers.glorot_uniform()
    bias = jnp.zeros((4, width)).at[1].set(1.0)  # remember, to begin with
    return {
        "input": draw(keys[0], (tokens, 4 * width)),
        "state": jax.nn.initializers.orthogonal()(keys[1], (width, 4 * width)),
        "bias": bias.reshape(-1),
        "head": draw(keys[2], (width, tokens)),
        "head_bias": jnp.zeros(tokens),
    }


def start_of(rows: int, width: int) -> LSTMState:
    """Give the state before the first token."""
    return jnp.zeros((rows, width)), jnp.zeros((rows, width))


def lstm(params: LSTMParameters, h: LSTMState, x: jax.Array) -> LSTMState:
    """Read one token of every row, ``(rows,)``."""
    cell, hidden = h
    gates = params["input"][x] + hidden @ params["state"] + params["bias"]
    let_in, keep, candidate, let_out = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(let_in) * jnp.tanh(candidate)
    return cell, jax.nn.sigmoid(let_out) * jnp.tanh(cell)


def token_losses(params: LSTMParameters, hidden: jax.Array, targets: jax.Array) -> jax.Array:
    """Give the cross entropy in nats of every row and step."""
    logits = hidden @ params["head"] + params["head_bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


class Pass(NamedTuple):
    """What one run through the training sequences leaves."""

    parameters: LSTMParameters
    loss: jax.Array


def make_pass(
    windows: Windows, *, lag: int, learning_rate: float, clip: float
) -> Callable[[LSTMParameters, jax.Array, jax.Array], Pass]:
    """Make one run of truncated training through sequences ``(T, B)``, an update per window.

    Plain SGD on the mean loss of a window, its gradient clipped to a length.
    """
    clipper = optax.clip_by_global_norm(clip)

    def run(parameters: LSTMParameters, inputs: jax.Array, targets: jax.Array) -> Pass:
        def window_loss(
            parameters: LSTMParameters, h: LSTMState, window: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, LSTMState]:
            steps, counts = window
            (_, hidden), carried = window_scan(
                lstm, parameters, h, inputs, steps, carry=windows.carry
            )
            # Losses stand in the last places; the others only lead up to them.
            told = token_losses(parameters, hidden[-lag:], targets[jnp.maximum(steps[-lag:], 0)])
            told = jnp.sum(told * counts[-lag:, None], axis=0) / jnp.sum(counts)
            return jnp.mean(told), carried

        def body(
            carry: tuple[LSTMParameters, LSTMState], window: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[LSTMParameters, LSTMState], jax.Array]:
            parameters, h = carry
            (loss, h), gradient = jax.value_and_grad(window_loss, has_aux=True)(
                parameters, h, window
            )
            gradient, _ = clipper.update(gradient, clipper.init(parameters))
            parameters = jax.tree.map(lambda p, g: p - learning_rate * g, parameters, gradient)
            return (parameters, h), loss

        h = start_of(inputs.shape[1], parameters["state"].shape[0])
        table = (jnp.asarray(windows.steps), jnp.asarray(windows.losses))
        (parameters, _), losses = jax.lax.scan(body, (parameters, h), table)
        return Pass(parameters, jnp.mean(losses))

    return run


@jax.jit
def cross_entropy_of(
    parameters: LSTMParameters, inputs: jax.Array, targets: jax.Array
) -> jax.Array:
    """Give the mean cross entropy of sequences ``(T, B)`` in nats."""

    def step(h: LSTMState, both: tuple[jax.Array, jax.Array]) -> tuple[LSTMState, jax.Array]:
        h = lstm(parameters, h, both[0])
        return h, jnp.mean(token_losses(parameters, h[1], both[1]))

    h = start_of(inputs.shape[1], parameters["state"].shape[0])
    return jnp.mean(jax.lax.scan(step, h, (inputs, targets))[1])


def probe_windows(
    generator: np.random.Generator, tokens: np.ndarray, *, positions: int, steps: int
) -> np.ndarray:
    """Cut windows of ``steps`` out of ``(T, B)`` at random positions, as rows of one batch.

    Returns:
        ``(steps, positions * B)``.
    """
    starts = generator.integers(len(tokens) - steps + 1, size=positions)
    return np.concatenate([tokens[start : start + steps] for start in starts], axis=1)


@partial(jax.jit, static_argnames="burn_in")
def probe(
    parameters: LSTMParameters, inputs: jax.Array, targets: jax.Array, *, burn_in: int
) -> tuple[LagNorms, jax.Array]:
    """Measure how the gradient of the last loss of windows ``(burn_in + W, rows)`` fades.

    Returns:
        the sizes by lag, and the bias of all truncations relative to W steps.
    """
    h = start_of(inputs.shape[1], parameters["state"].shape[0])
    h, _ = jax.lax.scan(lambda h, x: (lstm(parameters, h, x), None), h, inputs[:burn_in])

    def loss(parameters: LSTMParameters, h: LSTMState) -> jax.Array:
        return jnp.mean(token_losses(parameters, h[1], targets[-1]))

    window = (lstm, loss, parameters, jax.lax.stop_gradient(h), inputs[burn_in:])
    return lag_norms(lag_gradients(*window), rows=inputs.shape[1]), bias_by_lag(*window)
