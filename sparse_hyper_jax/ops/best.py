"""The best few of every row of a table that is never held: block by block of its columns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sparse_hyper_jax.norms import norm
from sparse_hyper_jax.ops.device_axes import spread_by


class _Best(NamedTuple):
    """What is carried from block to block."""

    columns: jax.Array
    gains: jax.Array
    length: jax.Array
    """Of all gains so far."""

    count: jax.Array


def best_of_blocks(
    gains_of: Callable[[jax.Array], jax.Array],
    opened_of: Callable[[jax.Array], jax.Array],
    *,
    rows: int,
    columns: int,
    count: int,
    block: int,
    dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Carry the best columns of every row on, from one block to the next.

    Args:
        gains_of: from the first column of a block to its gains ``(rows, block)``.
        opened_of: the same to flags ``(rows, block)`` or ``(1, block)`` of what counts; the last
            block may reach beyond the columns, and has to close what does.
        rows: their number.
        columns: their number.
        count: how many to give, ``c``.
        block: number of columns that are looked at together.
        dtype: of the gains, float32 or wider.

    Returns:
        columns int32 ``(rows, c)``, best first, of equal gains the first, -1 where there are no
        more; gains ``(rows, c)``, there -inf; and the root mean square of all gains of each row
        that count, ``(rows,)``. A gain of NaN is never among the best.
    """

    def step(best: _Best, number: jax.Array) -> tuple[_Best, None]:
        start = number * jnp.asarray(block, jnp.int32)
        numbers = start + jnp.arange(block, dtype=jnp.int32)
        return _merge(best, gains_of(start), numbers, opened_of(start)), None

    none = jnp.zeros((rows, count), jnp.int32) - 1
    lowest = jnp.full((rows, count), -jnp.inf, dtype)
    zeros = jnp.zeros(rows, dtype)
    numbers = jnp.arange(-(-columns // block), dtype=jnp.int32)
    best, _ = lax.scan(step, _Best(none, lowest, zeros, zeros), numbers)
    return best.columns, best.gains, best.length / jnp.sqrt(jnp.maximum(best.count, 1))


def per_size(gains: jax.Array, rows: jax.Array) -> jax.Array:
    """Divide the gains of a block by the size of what each of its columns brings.

    Args:
        gains: ``(n, block)``.
        rows: ``(block, F)``: one of zeros gains nothing.
    """
    size = norm(rows, (1,)).T
    some = ~(size < jnp.finfo(size.dtype).tiny)  # NaN too
    return jnp.where(some, gains / jnp.where(some, size, 1), 0)


def _merge(best: _Best, gains: jax.Array, numbers: jax.Array, opened: jax.Array) -> _Best:
    """Keep the best of those so far and of a block, the earlier ones first."""
    count = best.gains.shape[1]
    valid = opened & ~jnp.isnan(gains)
    candidates = jnp.concatenate([best.gains, jnp.where(valid, gains, -jnp.inf)], axis=1)
    names = jnp.concatenate([best.columns, jnp.broadcast_to(numbers[None], gains.shape)], axis=1)
    largest, places = lax.top_k(candidates, count)
    chosen = jnp.take_along_axis(spread_by(names, places), places, axis=1)
    every = jnp.concatenate([best.length[:, None], jnp.where(opened, gains, 0)], axis=1)
    return _Best(
        jnp.where(largest > -jnp.inf, chosen, -1),
        largest,
        norm(every, (1,))[:, 0],
        best.count + opened.sum(axis=1).astype(best.count.dtype),
    )
