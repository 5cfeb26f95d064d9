"""Sums over blocks of tuples: a table of all tuples at once is never held."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.ops.device_axes import spread_alike, vary_alike


def largest_block(cells: int, row: int) -> int:
    """Give the number of rows of a block of at most so many cells, at least one.

    A power of two, which is often a divisor of the number of all rows.

    Args:
        cells: of the block.
        row: cells of a row. One that is not known yet, in a program that is exported for any
            number, makes a single block.
    """
    if not isinstance(row, int):
        return cells
    return 1 << max(1, cells // max(1, row)).bit_length() - 1


def sum_over_blocks(
    term: Callable[[Any], Any],
    add: Callable[[jax.Array, Any], jax.Array],
    zeros: jax.Array,
    arrays: Any,
    block_size: int,
) -> jax.Array:
    """Add up the terms of blocks of rows, one block after the other.

    Derivatives, and forward ones of these, compute every block anew instead of keeping it. The
    gradient of a gradient keeps them all.

    Args:
        term: function of a block of the arrays.
        add: ``add(total, term) -> total``.
        zeros: where the sum starts.
        arrays: pytree of arrays of equal length. Rows of zeros are added to fill the last block.
        block_size: rows per block; an unknown number of rows is one block.

    Returns:
        the total.
    """
    leaves = jax.tree.leaves(arrays)
    count = leaves[0].shape[0]
    if not isinstance(count, int) or block_size >= count:
        return add(zeros, term(arrays))
    blocks = -(-count // block_size)

    def cut(leaf: jax.Array) -> jax.Array:
        fill = [(0, blocks * block_size - count)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, fill).reshape(blocks, block_size, *leaf.shape[1:])

    @jax.checkpoint
    def step(total: jax.Array, block: Any) -> tuple[jax.Array, None]:
        return add(total, term(block)), None

    zeros, *_ = spread_alike(*vary_alike(zeros, *leaves))
    return jax.lax.scan(step, zeros, jax.tree.map(cut, arrays))[0]
