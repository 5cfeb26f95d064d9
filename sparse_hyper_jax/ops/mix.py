"""Proportions to sparse entries: the value of every point, mixed from all tuples."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.blocks import sum_over_blocks
from sparse_hyper_jax.ops.densities import check_points, share_values
from sparse_hyper_jax.ops.device_axes import vary_alike
from sparse_hyper_jax.precision import at_least_float32

TABLE_CELLS = 2**18
"""Cells of the table of proportions that is held at once by default: what a cache takes."""


def mix_values(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    values: jax.Array,
    *,
    density: str = "gaussian",
    period: tuple[int, ...] | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Give every point the sum of its shares of the tuples' values.

    ``w_p = sum_j pi_pj v_j``, so ``sum_p w_p = sum_j v_j``, and dropped points get 0. Tuples come
    in blocks, one after the other; memory is a table of ``block_size * P`` numbers, and derivatives
    compute it again.

    Args:
        points: int ``(P, r)``.
        mask: bool ``(P,)``, the kept mask.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        values: ``(k,)``.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        period: see :func:`~sparse_hyper_jax.ops.log_densities`.
        block_size: tuples per block; changes the result by rounding only. By default as many as
            keep the table in a cache; ``k`` makes a single one.

    Returns:
        ``(P,)`` mixed values, float32 or wider.

    Raises:
        ValueError: shapes that do not agree.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    checks.check_tuples(means, variances, values)
    checks.check_shape("mask", mask, (len(points),), "one flag per point")
    coordinates = check_points(points, means, variances, density)
    if block_size is None:
        # A power of two, which is often a divisor of the number of tuples.
        block_size = 1 << max(1, TABLE_CELLS // max(1, len(points))).bit_length() - 1
    checks.check_count("block_size", block_size, least=1)

    def mix(block: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return share_values(coordinates, mask, block, density=density, period=period, summed=True)

    tuples = tuple(map(at_least_float32, (means, variances, values)))
    # Points may differ between the devices of a shard_map where tuples do not.
    zeros, *_ = vary_alike(
        jnp.zeros(len(points), jnp.result_type(*tuples)), *coordinates, mask, *tuples
    )
    return sum_over_blocks(mix, jnp.add, zeros, tuples, block_size)
