"""Proportions to sparse entries: the value of every point, mixed from all tuples."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.blocks import largest_block, sum_over_blocks
from sparse_hyper_jax.ops.densities import check_density, places_of, some_of
from sparse_hyper_jax.ops.device_axes import vary_alike
from sparse_hyper_jax.ops.distances import Density, coordinates
from sparse_hyper_jax.ops.entrance import enter_mask, enter_tuples
from sparse_hyper_jax.ops.shares import share_values
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.types import ContinuousTuples

TABLE_CELLS = 2**18
"""Cells of the table of proportions that is held at once by default: what a cache takes."""


def mix_values(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    values: jax.Array,
    *,
    density: Density = "gaussian",
    period: Sequence[int] | None = None,
    block_size: int | None = None,
    debug: bool = False,
) -> jax.Array:
    """Give every point the sum of its shares of the tuples' values.

    ``w_p = sum_j pi_pj v_j``, so ``sum_p w_p = sum_j v_j``, and dropped points get 0. Tuples come
    in blocks, one after the other; memory is a table of ``block_size * P`` numbers, and derivatives
    compute it again.

    Args:
        points: int ``(P, r)``; one outside is dropped, see
            :func:`~sparse_hyper_jax.ops.log_densities`.
        mask: bool ``(P,)``, the kept mask; if nothing is kept, all values are 0.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        values: ``(k,)``.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        period: see :func:`~sparse_hyper_jax.ops.log_densities`.
        block_size: tuples per block; changes the result by rounding only. By default as many as
            keep the table in a cache; ``k`` makes a single one.
        debug: check by ``checkify`` that no point lies outside.

    Returns:
        ``(P,)`` mixed values, float32 or wider.

    Raises:
        ValueError: shapes that do not agree.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> points, mask = jnp.array([[0], [1], [2]]), jnp.ones(3, bool)
        >>> values = ops.mix_values(points, mask, [[0.0], [1.5]], [[1e-3], [0.1]], [5.0, 2.0])
        >>> print(np.asarray(values).round(2))
        [5. 1. 1.]
    """
    tuples = enter_tuples((means, variances, values))
    check_density(density)
    block_size = check_block_size(block_size)
    points, inside, period = places_of(points, tuples.means.shape[1], period, debug=debug)
    kept = enter_mask(mask, points) & inside
    mixed = mix_in_blocks(
        points, some_of(kept), tuples, density=density, period=period, block_size=block_size
    )
    return jnp.where(kept, mixed, 0)


def mix_in_blocks(
    points: jax.Array,
    mask: jax.Array,
    tuples: ContinuousTuples,
    *,
    density: Density,
    period: tuple[int, ...] | None,
    block_size: int | None,
) -> jax.Array:
    """Do what :func:`mix_values` says, without checks."""
    if block_size is None:
        block_size = largest_block(TABLE_CELLS, points.shape[0])
    axes = coordinates(points, tuples.means)

    def share(block: ContinuousTuples) -> jax.Array:
        return share_values(axes, mask, block, density=density, period=period, summed=True)

    # Points may differ between the devices of a shard_map where tuples do not.
    zeros, *_ = vary_alike(jnp.zeros(points.shape[0], wide_dtype(*tuples)), *axes, mask, *tuples)
    return sum_over_blocks(share, jnp.add, zeros, tuples, block_size)


def check_block_size(block_size: int | None) -> int | None:
    """Return how many tuples make a block, unless it is to be chosen.

    Raises:
        ValueError: no positive int.
    """
    return None if block_size is None else checks.check_count("block_size", block_size, least=1)
