"""A dense baseline to compare with: NeuralSort, which relaxes the whole permutation matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_number
from sparse_hyper_jax.sort.entrance import LARGEST, enter_keys
from sparse_hyper_jax.sort.split import widen_keys

LEAST_TEMPERATURE = float(np.finfo(np.float32).tiny)

VANISHING = -1e3
"""Below this an exponential is 0 in every precision, and with it every slope."""


def neural_sort(keys: jax.Array, *, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Relax the permutation matrix that sorts ``keys`` in ascending order.

    With ``r = 0 .. n - 1`` the rows and ``A_j = sum_k |k_j - k_k|``,

        ``P[r] = softmax_j( ((2 r + 1 - n) keys[j] - A_j) / temperature )``

    Rows are positive and sum to one, their maxima form a permutation for distinct keys, and as the
    temperature falls ``P @ keys`` becomes ``sort(keys)``. (The paper sorts in descending order:
    its rows are these in reverse.)

    A baseline only: memory and time are quadratic in ``n``, which the quicksort avoids.

    Args:
        keys: ``(n,)`` keys, any ``n >= 1``; beyond 1e30 they count as 1e30, and a NaN spoils all.
        temperature: scalar above 0, may be traced; in units of the keys.

    Returns:
        ``(n, n)``, row ``r`` for sorted position ``r``; at least float32.

    Raises:
        ValueError: wrong shapes, dtypes or numbers.

    Reference: Grover et al. 2019, arXiv 1903.08850.

    Example:
        >>> from sparse_hyper_jax.sort import neural_sort
        >>> print(np.asarray(neural_sort(jnp.array([0.3, -1.2, 0.9]), temperature=0.1)).round(2))
        [[0. 1. 0.]
         [1. 0. 0.]
         [0. 0. 1.]]
    """
    check_number("temperature", temperature, at_least=LEAST_TEMPERATURE, at_most=LARGEST)
    wide = widen_keys(enter_keys(keys, floating=False))
    n = len(wide)
    distances = jnp.abs(wide[:, None] - wide[None, :]).sum(axis=1)
    slopes = (2 * np.arange(n) + 1 - n).astype(wide.dtype)
    scores = slopes[:, None] * wide[None, :] - distances[None, :]
    # Below the largest: its quotient by a small temperature is 0, not infinite.
    below = scores - jax.lax.stop_gradient(scores.max(axis=1, keepdims=True))
    return jax.nn.softmax(_divide(below, jnp.asarray(temperature, wide.dtype)), axis=1)


@jax.custom_jvp
def _divide(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Return the quotient; its slope for ``whole`` would else divide by a square, which is 0."""
    return part / whole


@_divide.defjvp
def _divide_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    quotient = _divide(*primals)
    gone = quotient < VANISHING
    slope = (tangents[0] - jnp.where(gone, 0, quotient) * tangents[1]) / primals[1]
    return quotient, jnp.where(gone, 0, slope)
