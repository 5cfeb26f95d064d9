"""A dense baseline to compare with: NeuralSort, which relaxes the whole permutation matrix."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_shape
from sparse_hyper_jax.precision import at_least_float32


def neural_sort(keys: jax.Array, *, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Relax the permutation matrix that sorts ``keys`` in ascending order.

    With ``r = 0 .. n - 1`` the rows and ``A_j = sum_k |k_j - k_k|``,

        ``P[r] = softmax_j( ((2 r + 1 - n) keys[j] - A_j) / temperature )``

    Rows are positive and sum to one, their maxima form a permutation for distinct keys, and as the
    temperature falls ``P @ keys`` becomes ``sort(keys)``. (The paper sorts in descending order:
    its rows are these in reverse.)

    A baseline only: memory and time are quadratic in ``n``, which the quicksort avoids.

    Args:
        keys: ``(n,)`` keys.
        temperature: positive scalar, may be traced; in units of the keys.

    Returns:
        ``(n, n)``, row ``r`` for sorted position ``r``; at least float32.

    Raises:
        ValueError: keys or temperature of another rank.

    Reference: Grover et al. 2019, arXiv 1903.08850.
    """
    check_shape("keys", keys, (None,), "(n,): one key per element; use jax.vmap for batches")
    check_shape("temperature", temperature, (), "(): one number for all rows")
    wide = at_least_float32(keys)
    n = len(keys)
    distances = jnp.abs(wide[:, None] - wide[None, :]).sum(axis=1)
    slopes = (2 * jnp.arange(n) + 1 - n).astype(wide.dtype)
    return jax.nn.softmax((slopes[:, None] * wide - distances) / temperature, axis=1)
