"""Static geometry of the quicksort: which positions form a bucket at each level, for any length."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_count
from sparse_hyper_jax.precision import at_least_float32


class Buckets(NamedTuple):
    """The buckets of one level, laid out as rows that are padded to the longest one.

    Sizes at a level differ by at most one, so a row has at most one slot of padding, its last.

    Attributes:
        sizes: ``(B,)`` int, positions in each bucket; they sum to ``n``.
        lower: ``(B,)`` int, ``sizes // 2``: how many of them form the lower half.
        slots: ``(B, m)`` int, the position in each slot; padding repeats the row's last position.
        present: ``(B, m)`` bool, false for padding.
        places: ``(n,)`` int, the flat slot of each position.
    """

    sizes: np.ndarray
    lower: np.ndarray
    slots: np.ndarray
    present: np.ndarray
    places: np.ndarray

    @property
    def width(self) -> int:
        """Slots in a row: the size of the largest bucket."""
        return self.slots.shape[1]

    @property
    def padded(self) -> bool:
        """Whether any row has padding; if not, rows and positions are related by a reshape."""
        return not self.present.all()


def num_levels(n: int) -> int:
    """Return the number of splits that sort ``n`` elements, ``ceil(log2(n))``."""
    return (check_count("n", n, 1) - 1).bit_length()


def bucket_sizes(n: int, level: int) -> np.ndarray:
    """Return the sizes of the buckets after ``level`` splits, from low to high positions.

    A bucket of size ``m`` splits into ``m // 2`` lower and ``m - m // 2`` upper positions; empty
    halves (of buckets of size one) vanish.

    Args:
        n: number of elements.
        level: number of splits already made, from 0 (one bucket) to ``num_levels(n)`` (``n``
            buckets of size one).

    Returns:
        ``(B,)`` int.

    Raises:
        ValueError: there is no such level.
    """
    sizes = np.array([n])
    for _ in range(check_level(level, n)):
        sizes = np.stack([sizes // 2, sizes - sizes // 2], axis=1).reshape(-1)
    return sizes[sizes > 0]


def check_level(level: Any, n: int) -> int:
    """Return how many splits of ``n`` elements were made before, as an int of Python.

    Raises:
        ValueError: there is no such level.
    """
    return check_count("level", level, most=num_levels(n))


@lru_cache(maxsize=256)
def buckets_at(n: int, level: int) -> Buckets:
    """Return the layout of the buckets after ``level`` splits of ``n`` elements.

    Raises:
        ValueError: there is no such level.
    """
    sizes = bucket_sizes(n, level)
    starts = np.cumsum(sizes) - sizes
    slot = np.arange(sizes.max())
    present = slot < sizes[:, None]
    slots = np.minimum(starts[:, None] + slot, (starts + sizes - 1)[:, None])
    places = np.flatnonzero(present)
    # int32 by hand: an index of NumPy's int64 would depend on whether 64 bits are enabled.
    sizes, lower, slots, places = (a.astype(np.int32) for a in (sizes, sizes // 2, slots, places))
    return Buckets(sizes, lower, slots, present, places)


def to_rows(array: jax.Array, buckets: Buckets) -> jax.Array:
    """Lay out the last axis as bucket rows: ``(..., n)`` to ``(..., B, m)``.

    Padding repeats a value of its row; mask it by ``buckets.present``.
    """
    if buckets.padded:
        return array[..., buckets.slots]
    return array.reshape(*array.shape[:-1], *buckets.slots.shape)


def from_rows(rows: jax.Array, buckets: Buckets) -> jax.Array:
    """Undo :func:`to_rows`, dropping the padding: ``(..., B, m)`` to ``(..., n)``."""
    flat = rows.reshape(*rows.shape[:-2], -1)
    return flat[..., buckets.places] if buckets.padded else flat


def bucket_means(array: jax.Array, buckets: Buckets) -> jax.Array:
    """Return the mean over each bucket: ``(n, ...)`` to ``(B, ...)``, float32 or wider."""
    array = at_least_float32(array)
    rows = (
        array[buckets.slots]
        if buckets.padded
        else jnp.reshape(array, (*buckets.slots.shape, *array.shape[1:]))
    )
    trailing = (1,) * (array.ndim - 1)
    share = buckets.present / buckets.sizes[:, None]
    weights = jnp.asarray(share.reshape(*share.shape, *trailing), array.dtype)
    return (rows * weights).sum(axis=1)
