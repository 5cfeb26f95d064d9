"""Addresses among the cells of a grid to the cells that are read, and their shares."""

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.memory.reads import Reads, enter_table, sum_rows
from sparse_hyper_jax.ops.counts import Counts, check_counts
from sparse_hyper_jax.ops.duplicates import flat_index
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.inside import along
from sparse_hyper_jax.ops.sample import draw_tuples, nearest_cells
from sparse_hyper_jax.ops.shares import share_among
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import ContinuousTuples

Evaluation = Literal["interpolate", "round"]
EVALUATIONS = get_args(Evaluation)
"""What a read without random points does with an address between cells.

Example:
    >>> from sparse_hyper_jax import memory
    >>> table = jnp.array([[0.0], [10.0], [20.0]])
    >>> for evaluate in memory.EVALUATIONS:
    ...     print(evaluate, memory.grid_read(None, table, [[1.25]], evaluate=evaluate).tolist())
    interpolate [[12.5]]
    round [[10.0]]
"""

MOST_AXES = 4
"""A read has 2**r corners; on more axes use several memories of fewer, and add what they give."""

FAR = 1e17
"""Further outside, means of all variances from 1e-12 to 1e12 read the cells of the edge alone."""


def grid_read(
    key: jax.Array | None,
    table: Any,
    addresses: Any,
    *,
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
    evaluate: Evaluation | None = None,
) -> jax.Array:
    """Read a table at addresses between its cells: ``y = v sum_p pi_p table[u_p]``.

    :func:`grid_shares`, then :func:`~sparse_hyper_jax.memory.read_rows`: see there. Work is that of
    the points, ``k q d``, however many cells there are; but the slope of the table has its shape,
    with zeros where nothing was read. A step in which nothing has that shape takes the slope of
    ``table[rows]``, and :func:`~sparse_hyper_jax.memory.update_rows`.

    Args:
        key: a typed key; may be None without global and local points.
        table: ``(S_1, ..., S_r, d)``, one vector per cell; ``r`` from 1 to 4.
        addresses: see :func:`grid_shares`.
        num_global: see there.
        num_local: see there.
        region: see there.
        evaluate: see there.

    Returns:
        ``(*batch, d)``, float32 or wider.

    Raises:
        ValueError: as :func:`grid_shares`.

    Reference: Bloem 2018, arXiv 1810.09184; Goucher and Troll 2021, arXiv 2107.03474, read lattices
    by a fixed kernel.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, memory
        >>> table = jnp.arange(16.0).reshape(4, 4, 1)
        >>> memory.grid_read(None, table, [[1.0, 2.0], [0.5, 2.0]]).tolist()
        [[6.0], [4.0]]
        >>> tuples = ContinuousTuples(jnp.full((5, 2), 1.5), jnp.ones((5, 2)), jnp.ones(5))
        >>> memory.grid_read(jax.random.key(0), table, tuples, num_global=8).shape
        (5, 1)
    """
    table = enter_table(table)
    reads = grid_shares(
        key,
        addresses,
        table.shape[:-1],
        num_global=num_global,
        num_local=num_local,
        region=region,
        evaluate=evaluate,
    )
    return sum_rows(table, reads)


def grid_shares(
    key: jax.Array | None,
    addresses: Any,
    shape: Sequence[int],
    *,
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
    evaluate: Evaluation | None = None,
) -> Reads:
    """Share every address among cells of a grid, in one of three ways.

    * Tuples, ``evaluate=None``: the integer tuples of
      :func:`~sparse_hyper_jax.ops.sample_tuples` (``2**r`` corners, global and local cells), each
      tuple by itself, shared by Gaussian density: ``q = 2**r + num_global + num_local``.
    * ``"interpolate"``, also for plain addresses: the ``2**r`` corners, multilinear:
      ``pi = prod_c (1 - |u_c - a_c|)``. Here the slope of an address sees these cells only.
    * ``"round"``: the nearest cell, ``q = 1``; no gradient reaches the address.

    An address outside reads the edge, as everywhere in the core; its slope there is 0 where it
    interpolates. Equal points of a tuple count once.

    Args:
        key: a typed key; may be None without global and local points.
        addresses: in index units: ``(*batch, r)``, or ``k`` continuous tuples, of which the value
            multiplies the shares.
        shape: the ``r`` lengths of the grid, ``r`` from 1 to 4.
        num_global: points per tuple drawn from all cells.
        num_local: points per tuple drawn from the region about its mean.
        region: its ``r`` lengths.
        evaluate: None for what training does: shares by density, of plain addresses interpolation.

    Returns:
        rows and shares ``(*batch, q)``, of tuples ``(k, q)``. Shares of an address sum to 1, or to
        the value; a NaN in the address makes them NaN.

    Raises:
        ValueError: ranks that differ or exceed 4, random points where none are drawn, a missing key
            or region, or an unknown evaluation.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> reads = memory.grid_shares(None, [[0.25, 1.0]], (2, 3))
        >>> reads.rows.tolist(), reads.shares.tolist()
        ([[1, 2, 4, 5]], [[0.75, 0.0, 0.25, 0.0]])
    """
    shape = enter_shape(shape)
    counts = check_counts(key, shape, num_global, num_local, region)
    if evaluate is not None:
        checks.check_choice("evaluate", evaluate, EVALUATIONS)
    tuples = enter_tuples(addresses) if isinstance(addresses, tuple) else None
    places = at_least_float32(as_array("addresses", addresses)) if tuples is None else tuples.means
    checks.check_last_axis("addresses", places, len(shape))
    drawn = counts.num_global + counts.num_local
    checks.require(
        not drawn or (tuples is not None and evaluate is None),
        f"num_global={counts.num_global} and num_local={counts.num_local} with"
        f" evaluate={evaluate!r} and addresses of type {type(addresses).__name__}",
        "no random points, where nothing is drawn: plain addresses and evaluation interpolate",
        "set both counts to 0, or pass ContinuousTuples and evaluate=None",
    )
    if tuples is not None and evaluate is None:
        return share_by_density(key, tuples, shape, counts)
    rows, shares = corners(places, shape) if evaluate != "round" else nearest(places, shape)
    return Reads(rows, shares if tuples is None else shares * tuples.values[:, None])


def enter_shape(shape: Any) -> tuple[int, ...]:
    """Return the lengths of a grid of 1 to 4 axes, whose cells int32 can number.

    Raises:
        ValueError: otherwise.
    """
    shape = checks.check_index_shape("shape", shape)
    checks.require(
        1 <= len(shape) <= MOST_AXES,
        f"a grid of {len(shape)} axes, {shape}",
        f"1 to {MOST_AXES}: a read has 2**r corners",
        "add what several memories of fewer axes give",
    )
    checks.check_flat_size("shape", shape)
    return shape


def corners(places: jax.Array, shape: tuple[int, ...]) -> Reads:
    """Interpolate between the corners about each place: rows and shares ``(*batch, 2**r)``."""
    last = along([size - 1 for size in shape], places)
    inside = (places >= 0) & (places <= last)
    # Outside, the edge as a constant; on the last cell, the slope is the one from inside.
    held = jax.lax.stop_gradient(jnp.clip(places, jnp.zeros_like(last), last))
    places = jnp.where(inside, places, held)
    floors = jnp.floor(places)
    cells = nearest_cells(floors, shape, wrap=False)
    low = jnp.minimum(cells, along([max(size - 2, 0) for size in shape], cells))
    # A difference of integers: as a float32, a cell from 2**24 on may be the one next to it.
    beyond = places - floors + (cells - low).astype(places.dtype)
    sizes = along([min(size - 1, 1) for size in shape], low)
    rows, shares = [], []
    for ends in itertools.product((0, 1), repeat=len(shape)):
        rows.append(flat_index(low + along(ends, low) * sizes, shape))
        parts = [beyond[..., axis] if up else 1 - beyond[..., axis] for axis, up in enumerate(ends)]
        shares.append(functools.reduce(operator.mul, parts))
    return Reads(jnp.stack(rows, axis=-1), jnp.stack(shares, axis=-1))


def nearest(places: jax.Array, shape: tuple[int, ...]) -> Reads:
    """Read the nearest cell: rows and shares ``(*batch, 1)``."""
    cells = nearest_cells(places, shape, wrap=False)
    # A NaN has no cell, so its share tells.
    lost = jnp.isnan(jax.lax.stop_gradient(places)).any(axis=-1)
    shares = jnp.where(lost, jnp.nan, 1).astype(places.dtype)
    return Reads(flat_index(cells, shape)[..., None], shares[..., None])


def share_by_density(
    key: jax.Array | None, tuples: ContinuousTuples, shape: tuple[int, ...], counts: Counts
) -> Reads:
    """Share tuples ``k``, each by itself, among the points that it draws: ``(k, q)``."""
    means = jnp.clip(tuples.means, -FAR, FAR)
    points = draw_tuples(key, means, None, shape, counts, wrap=False)
    rows = flat_index(points, shape)
    places = [points[..., axis].astype(means.dtype) for axis in range(len(shape))]
    origins = nearest_cells(means, shape, wrap=False).astype(means.dtype)
    tuples = tuples._replace(means=means)
    shares = share_among(places, first_of_each(rows), tuples, origins, density="gaussian")
    return Reads(rows, shares)


def first_of_each(rows: jax.Array) -> jax.Array:
    """Mark the first occurrence of every number in ``(k, q)``, by comparing pairs: q is small."""
    count = rows.shape[1]
    earlier = np.tri(count, k=-1, dtype=bool)[None]
    return ~((rows[:, :, None] == rows[:, None, :]) & earlier).any(axis=2)
