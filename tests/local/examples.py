"""Components of unequal widths, pure and small, and their parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.local import Component

INPUTS, CLASSES = 5, 3
WIDTHS, CODES = (4, 6, 3), (4, 2, 5)
"""Units of ``forward`` and of ``encode``."""

DEPTH = len(WIDTHS)


def make(parameters):
    """The four dense functions of a component."""
    return Component(*(lambda x, w=w: jnp.tanh(x @ w) for w in parameters))


def parameters_of(seed=0):
    random = np.random.default_rng(seed)

    def matrix(*shape):
        return jnp.asarray(random.normal(size=shape) / 2, jnp.float32)

    inputs, codes = (INPUTS, *WIDTHS), (CLASSES, *CODES)
    return [
        Component(
            matrix(inputs[n], inputs[n + 1]),
            matrix(inputs[n + 1], codes[n + 1]),
            matrix(codes[n], codes[n + 1]),
            matrix(codes[n + 1], codes[n]),
        )
        for n in range(DEPTH)
    ]


def batches(count, rows=4):
    random = np.random.default_rng(7)
    xs = jnp.asarray(random.normal(size=(count, rows, INPUTS)), jnp.float32)
    labels = jnp.asarray(random.integers(CLASSES, size=(count, rows)))
    return xs, jax.nn.one_hot(labels, CLASSES)
