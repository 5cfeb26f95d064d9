"""The exact relaxation over all cells: what sampling estimates, for small tensors."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.mix import mix_values
from sparse_hyper_jax.types import ContinuousTuples


def dense_relaxation(
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    density: Density = "gaussian",
    wrap: bool = False,
) -> jax.Array:
    """Share out every tuple among ALL cells: the dense tensor that sampled ones approach.

    ``W_u = sum_j v_j d_j(u) / sum_{all cells u'} d_j(u')``. Time and memory are ``k`` times the
    number of cells: for tests, figures and small tensors.

    Args:
        tuples: ``k`` continuous tuples of rank ``r``.
        shape: the ``r`` lengths of the tensor.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        wrap: every axis is a circle.

    Returns:
        array of ``shape``, summing to the sum of the values.

    Raises:
        ValueError: a rank that does not match, or 2**31 cells or more.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> tuples = ops.ContinuousTuples(jnp.array([[1.0]]), jnp.array([[0.5]]), jnp.array([10.0]))
        >>> print(np.asarray(ops.dense_relaxation(tuples, (4,))).round(2))
        [2.1 5.7 2.1 0.1]
    """
    shape = checks.check_index_shape("shape", shape)
    count = checks.check_flat_size("shape", shape)
    cells = jnp.asarray(np.indices(shape).reshape(len(shape), count).T, jnp.int32)
    period = shape if checks.check_flag("wrap", wrap) else None
    tuples = enter_tuples(tuples)
    kept = jnp.ones(count, bool)
    return mix_values(cells, kept, *tuples, density=density, period=period).reshape(shape)
