"""Cells and sequences that the tests of this room share."""

import jax.numpy as jnp
import numpy as np

INPUTS, UNITS, STEPS = 2, 3, 7


def linear(a, h, x):
    return a * h + x


def dense(params, h, x):
    return jnp.tanh(h @ params["state"] + x @ params["input"] + params["bias"])


def elementwise(params, h, x):
    return jnp.tanh(h * params["state"] + x @ params["input"] + params["bias"])


def gated(params, h, x):
    """A minimal LSTM: a state of two arrays, three gates side by side."""
    cell, hidden = h
    gates = hidden @ params["state"] + x @ params["input"]
    keep, let_in, let_out = jnp.split(gates, 3, axis=-1)
    cell = cell / (1 + jnp.exp(-keep)) + jnp.tanh(let_in)
    return cell, jnp.tanh(cell) / (1 + jnp.exp(-let_out))


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def params_of(cell, units=UNITS):
    state = numbers(units, seed=1) if cell is elementwise else numbers(units, units, seed=1)
    if cell is gated:
        return {
            "state": numbers(units, 3 * units, seed=1) / 2,
            "input": numbers(INPUTS, 3 * units, seed=2),
        }
    return {
        "state": state / 2,
        "input": numbers(INPUTS, units, seed=2),
        "bias": numbers(units, seed=4) / 4,
    }


def start_of(cell, *rows, units=UNITS):
    h = jnp.asarray(numbers(*rows, units, seed=3))
    return (h, h / 2) if cell is gated else h
