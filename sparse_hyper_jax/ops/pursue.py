"""Place taps on cells of an index space, one after another, where a score is largest.

Where all outputs share the positions (lags of a convolution, offsets of an attention head, delays)
the gain of a tap on EVERY cell is known from one pass, so nothing has to be sampled: a tap is put
on the best cell, training goes on, and the next one is placed by what is still missing::

    gains of all cells    gains.py     whiten_cotangent, decorrelated_gains
         |                             (*cells, C, m)
    scores                gains.py     residual_scores, z_scores
         |                             (*cells)
    taps                  pursue.py    pursue, drop_taps
                          probe.py     pursue_gains, pursue_halves: the last two arrows in turn

Slots are static, so an empty one has a position too: it is 0 and means nothing. Whoever reads taps
has to mask by ``placed``, or the empty slots are live: weight 0, and no gradient.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, as_int32
from sparse_hyper_jax.precision import at_least_float32


class Taps(NamedTuple):
    """Slots for positions that all outputs share.

    Attributes:
        positions: ``(k, r)`` int32, one cell of the index space per slot; 0 in an empty slot.
        placed: ``(k,)`` bool; false marks an empty slot, which counts for nothing.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> taps = ops.Taps(jnp.array([[3], [0]]), jnp.array([True, False]))
        >>> taps.positions[taps.placed].tolist()
        [[3]]
    """

    positions: jax.Array
    placed: jax.Array


export.register_namedtuple_serialization(Taps, serialized_name="sparse_hyper_jax.Taps")


def empty_taps(count: int, rank: int = 1) -> Taps:
    """Make slots of which none holds a tap.

    Args:
        count: number ``k`` of slots, static.
        rank: number ``r`` of axes of the index space, 1 for lags, 2 for offsets in a plane.

    Returns:
        taps of shape ``(k, r)``.

    Raises:
        ValueError: a negative count, or a rank below 1.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> ops.empty_taps(3).placed.tolist()
        [False, False, False]
    """
    count, rank = checks.check_count("count", count), checks.check_count("rank", rank, least=1)
    return Taps(jnp.zeros((count, rank), jnp.int32), jnp.zeros(count, bool))


def pursue(
    scores: jax.Array,
    taps: Taps,
    count: int = 1,
    *,
    apart: int = 0,
    allowed: jax.Array | None = None,
    threshold: float | jax.Array | None = None,
) -> Taps:
    """Fill empty slots, one after another, with the open cells of the largest scores.

    A cell is open if it is allowed, its score exceeds ``threshold``, and no placed tap lies within
    ``apart`` cells of it along every axis. Equal scores go to the first cell in the order of
    ``scores.reshape(-1)``, and taps to the first empty slot. NaN and -inf are never chosen.

    Args:
        scores: ``(*cells)``, of rank ``r``: one score per cell of the index space.
        taps: ``k`` slots; a tap outside of the cells keeps its slot and closes no cell.
        count: largest number of taps to place, static; no more than there are empty slots.
        apart: distance (Chebyshev, in cells) up to which a placed tap closes its neighbours; 0
            closes its own cell alone.
        allowed: bool ``(*cells)``; None allows all.
        threshold: scores have to exceed it; None takes any. May be traced.

    Returns:
        the taps, with up to ``count`` more of them placed. Slots that stay empty have position 0.

    Raises:
        ValueError: shapes or ranks that do not agree, or a negative number of taps or cells.

    Reference: Mallat and Zhang 1993, matching pursuit.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> scores = jnp.array([1.0, 5.0, 4.0, 2.0, 3.0])
        >>> ops.pursue(scores, ops.empty_taps(3), 2).positions.tolist()
        [[1], [2], [0]]
        >>> ops.pursue(scores, ops.empty_taps(3), 2, apart=1).positions.tolist()
        [[1], [4], [0]]
    """
    scores = at_least_float32(as_array("scores", scores))
    taps = enter_taps(taps)
    check_cells("scores", scores.shape, taps, exact=True)
    count, apart = checks.check_count("count", count), checks.check_count("apart", apart)
    opened = enter_allowed(allowed, scores.shape)
    if threshold is not None:
        checks.check_number("threshold", threshold)
        opened &= scores > jnp.asarray(threshold, scores.dtype)
    return place(jnp.where(opened, scores, -jnp.inf), taps, count, apart)


def drop_taps(taps: Taps, importance: jax.Array, count: int = 1) -> Taps:
    """Empty the slots of the least important taps, so that a pursuit can place them elsewhere.

    ``pursue(scores, drop_taps(taps, importance))`` is a swap; whether it was one for the better
    only the loss can tell.

    Args:
        taps: ``k`` slots.
        importance: ``(k,)``, for instance norm of the weights times size of the inputs. A tap of
            NaN or infinite importance stays.
        count: largest number of taps to drop, static.

    Returns:
        the taps; of equally important ones the first slots are emptied.

    Raises:
        ValueError: shapes that do not agree, or a negative count.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> taps = ops.Taps(jnp.array([[3], [7]]), jnp.array([True, True]))
        >>> ops.drop_taps(taps, jnp.array([0.9, 0.1])).placed.tolist()
        [True, False]
    """
    taps = enter_taps(taps)
    importance = at_least_float32(as_array("importance", importance))
    checks.check_shape("importance", importance, taps.placed.shape, "one number per slot")
    count = min(checks.check_count("count", count), len(taps.placed))
    if count == 0:
        return taps
    droppable = taps.placed & jnp.isfinite(importance)
    least, slots = jax.lax.top_k(jnp.where(droppable, -importance, -jnp.inf), count)
    # One row per slot instead of a scatter, which a sharded batch could not map.
    chosen = (jnp.arange(len(taps.placed))[:, None] == slots[None]) & (least > -jnp.inf)[None]
    return masked(Taps(taps.positions, taps.placed & ~chosen.any(axis=1)))


def place(scores: jax.Array, taps: Taps, count: int, apart: int) -> Taps:
    """Fill empty slots with the best cells; NaN and -inf mark cells that are closed."""
    closed = jnp.isnan(scores) | taken(taps, scores.shape, apart)
    scores = jnp.where(closed, -jnp.inf, scores)
    # A loop of XLA would refuse taps that all instances of a sharded batch share.
    for _ in range(min(count, len(taps.placed))):
        scores, taps = _place_one(scores, taps, apart)
    return taps


# Outside of jit one program for a tap: not one for every operation, nor one for all taps, which
# would take minutes to compile.
@partial(jax.jit, static_argnames="apart", inline=True)
def _place_one(scores: jax.Array, taps: Taps, apart: int) -> tuple[jax.Array, Taps]:
    """Fill the first empty slot; give the scores without the cells that it closes, and the taps."""
    position = jnp.stack(jnp.unravel_index(jnp.argmax(scores), scores.shape)).astype(jnp.int32)
    filled = (scores.max() > -jnp.inf) & ~taps.placed.all()
    here = (jnp.arange(len(taps.placed)) == jnp.argmin(taps.placed)) & filled
    taps = Taps(jnp.where(here[:, None], position[None], taps.positions), taps.placed | here)
    return jnp.where(near(position, scores.shape, apart) & filled, -jnp.inf, scores), taps


def near(position: jax.Array, cells: tuple[int, ...], apart: int) -> jax.Array:
    """Mark the cells ``(*cells)`` within ``apart`` of a position ``(r,)`` along every axis."""
    marked = jnp.ones(cells, bool)
    for axis in range(len(cells)):
        along = jax.lax.broadcasted_iota(jnp.int32, cells, axis)
        marked &= jnp.abs(along - position[axis]) <= apart
    return marked


@partial(jax.jit, static_argnames=("cells", "apart"), inline=True)
def taken(taps: Taps, cells: tuple[int, ...], apart: int = 0) -> jax.Array:
    """Mark the cells ``(*cells)`` within ``apart`` of a placed tap that lies inside."""
    counts = taps.placed & inside(taps, cells)
    closed = jax.vmap(lambda position: near(position, cells, apart))(taps.positions)
    return (closed & counts.reshape(-1, *(1 for _ in cells))).any(axis=0)


def inside(taps: Taps, cells: tuple[int, ...]) -> jax.Array:
    """Say ``(k,)`` which taps lie on a cell; others count for nothing."""
    return ((taps.positions >= 0) & (taps.positions < jnp.array(cells)[None])).all(axis=1)


def masked(taps: Taps) -> Taps:
    """Put the empty slots to position 0."""
    return Taps(jnp.where(taps.placed[:, None], taps.positions, 0), taps.placed)


def enter_taps(taps: Any) -> Taps:
    """Check taps, which may also be a plain tuple of positions and flags; mask the empty slots.

    Raises:
        ValueError: not two parts, shapes that do not agree, no integers, or no flags.
    """
    checks.require(
        isinstance(taps, tuple | list) and len(taps) == 2,
        f"taps={taps!r:.80}",
        "Taps(positions, placed), or a plain tuple of these",
        "pass Taps, for instance empty_taps(8)",
    )
    positions, placed = as_array("positions", taps[0]), as_array("placed", taps[1], "flags")
    checks.check_shape("positions", positions, (None, None), "(k, r): one row per slot")
    checks.require(
        positions.shape[1] >= 1,
        f"positions of shape {positions.shape}",
        "at least one column, one per axis of the index space",
        "pass lags as (k, 1)",
    )
    checks.check_integers("positions", positions)
    checks.check_shape("placed", placed, positions.shape[:1], "one flag per row of positions")
    return masked(Taps(as_int32("positions", positions), placed))


def enter_allowed(allowed: Any, cells: tuple[int, ...]) -> jax.Array:
    """Return flags ``(*cells)``, true everywhere where none are given.

    Raises:
        ValueError: another shape, or no flags.
    """
    if allowed is None:
        return jnp.ones(cells, bool)
    allowed = as_array("allowed", allowed, "flags")
    checks.check_shape("allowed", allowed, cells, "one flag per cell")
    return allowed


def check_cells(name: str, shape: tuple[int, ...], taps: Taps, *, exact: bool = False) -> None:
    """Raise unless the first axes of a shape are those of the taps' index space, with cells.

    Args:
        name: of the array.
        shape: its shape.
        taps: of rank ``r``.
        exact: there may be no further axes.

    Raises:
        ValueError: too few axes, too many, or an empty one.
    """
    rank = taps.positions.shape[1]
    fits = len(shape) == rank if exact else len(shape) >= rank
    axes = f"{rank} axes" if exact else f"at least {rank} axes"
    checks.require(
        fits and min(shape) >= 1,
        f"{name} of shape {shape} and taps of rank {rank}",
        f"{axes} for an index space of rank {rank}, none of them empty",
        f"reshape {name}, or give positions one column per axis of the index space",
    )
