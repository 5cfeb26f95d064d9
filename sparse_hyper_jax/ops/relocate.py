"""Move tuples that do no work to cells where the loss asks for an entry: grow where it pays.

Gradient descent leaves two kinds of surplus tuples. A duplicate has settled on a cell that another
settled tuple holds: its variance is so small that no other cell is felt. A lost tuple has found
nothing, and its variance grows until it is spread over everything. Both are rare and both last for
thousands of steps. A third kind has settled on a wrong cell, alone: nothing in its sight pulls it
away, and only its gradient tells, which is noise on a single batch. The cure is that of sparse
training with changing topology (RigL): drop what is useless, grow where the gradient is largest;
here among sampled points, without a dense gradient, or among all cells where their gains are known.

    gradients of the rounded layer's values --leaving_gains--> settled on wrong cells --+
    tuples --surplus--> duplicates and lost ones --> relocate <-- gains of cells        |
                                                         ^------------------------------+
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.duplicates import first_occurrence, mark_first
from sparse_hyper_jax.ops.entrance import enter_entries, enter_tuples
from sparse_hyper_jax.ops.sample import nearest_cells
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries


class Relocations(NamedTuple):
    """Which tuples go where.

    Attributes:
        tuples: int32 ``(m,)`` numbers of distinct tuples.
        cells: int32 ``(m, r)`` distinct target cells; 0 where nothing is moved.
        moved: bool ``(m,)``; false where there is nothing to move or to gain, and the rest of that
            row is to be ignored.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> twins = ops.ContinuousTuples(jnp.full((2, 1), 3.0), jnp.full((2, 1), 0.1), jnp.ones(2))
        >>> entries = ops.SparseEntries(jnp.array([[5], [6]]), jnp.ones(2))
        >>> moves = ops.relocate(twins, entries, jnp.array([0.5, 2.0]), (8,), limit=2)
        >>> moves.tuples[moves.moved].tolist(), moves.cells[moves.moved].tolist()
        ([1], [[6]])
    """

    tuples: jax.Array
    cells: jax.Array
    moved: jax.Array


export.register_namedtuple_serialization(
    Relocations, serialized_name="sparse_hyper_jax.Relocations"
)


def surplus(
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    settled: float | jax.Array = 1.0,
    lost: float | jax.Array = 0.25,
    wrap: bool = False,
) -> jax.Array:
    """Tell how urgently each tuple should be moved elsewhere.

    A tuple is settled if all its variances are below ``settled``, and lost if a variance exceeds
    ``lost`` times the length of its axis (fresh tuples have about 0.22 times the length).

    Args:
        tuples: ``k`` continuous tuples of rank ``r``.
        shape: the ``r`` lengths of the index space.
        settled: largest variance of a settled tuple, in squared index units; may be traced.
        lost: least variance of a lost tuple, in units of the axis length; may be traced.
        wrap: every axis is a circle.

    Returns:
        float32 ``(k,)``: infinite for a settled tuple on the cell of an earlier settled one, the
        largest ratio of variance to axis length for a lost one, NaN for one with a mean or variance
        of NaN, 0 for all others.

    Raises:
        ValueError: a rank that does not match ``shape``, or a negative number.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> means, variances = jnp.array([[3.0], [3.1], [5.0]]), jnp.array([[0.1], [0.1], [4.0]])
        >>> ops.surplus(ops.ContinuousTuples(means, variances, jnp.ones(3)), (8,)).tolist()
        [0.0, inf, 0.5]
    """
    shape = checks.check_index_shape("shape", shape)
    means, variances, _ = enter_tuples(tuples)
    checks.check_last_axis("means", means, len(shape))
    checks.check_number("settled", settled, at_least=0)
    checks.check_number("lost", lost, at_least=0)
    wrap = checks.check_flag("wrap", wrap)
    means, variances = jax.lax.stop_gradient((means, variances))
    settled, lost = (jnp.asarray(number, variances.dtype) for number in (settled, lost))
    is_settled = jnp.all(variances < settled, axis=1)
    # Settled tuples first, so that the first occurrence of a cell is held by a settled one.
    order = jnp.argsort(~is_settled, stable=True)
    first = mark_first(nearest_cells(means, shape, wrap=wrap)[order], shape)
    holds = jnp.zeros_like(first).at[order].set(first, unique_indices=True)
    sizes = jnp.asarray(shape, variances.dtype)[None]
    width = jnp.max(variances / sizes, axis=1)
    urgency = jnp.where(is_settled & ~holds, jnp.inf, jnp.where(width > lost, width, 0))
    unknown = jnp.any(jnp.isnan(means) | jnp.isnan(variances), axis=1)
    return jnp.where(unknown, jnp.nan, urgency).astype(jnp.float32)


def leaving_gains(
    tuples: ContinuousTuples,
    gradients: jax.Array,
    *,
    certainty: float | jax.Array = 5.0,
    frozen: float | jax.Array = 0.15,
    least: float | jax.Array = 0.0,
) -> jax.Array:
    """Bound from below what the rounded layer's loss gains if a tuple leaves, by several batches.

    With ``g`` the gradient with respect to a tuple's value ``v``, to first order ``v g`` is gained
    when it leaves. The bound is ``mean(v g) - certainty * error``, with ``error`` the standard
    error of that mean over the batches, ``std(v g) / sqrt(b)``. Gradients are those of the rounded
    layer: in the sampled one, wide tuples lay a little weight on right cells too, so that whoever
    is there seems to be too much. A tuple that is not narrow may be one step from the right cell,
    and counts for nothing.

    Args:
        tuples: ``k`` continuous tuples.
        gradients: ``(b, k)``: of the loss of :func:`~sparse_hyper_jax.ops.hyperlayer_hard` with
            respect to ``tuples.values``, on each of ``b`` batches.
        certainty: number of standard errors, from 0; may be traced.
        frozen: variance from which on a tuple is taken to be on its way, in squared index units;
            may be traced. At 0.15 it gives 3 % to each cell beside its own, and is nearly done.
        least: mean gain up to which leaving counts for nothing; may be traced. Where a layer is
            right everywhere its gradients are errors of rounding, and so alike over the batches
            that they seem certain: a thousandth of the largest gain of a cell holds them back.

    Returns:
        float32 or wider, ``(k,)``: positive where leaving clearly gains, 0 for tuples on their way,
        NaN for those with a mean or variance of NaN. Where values have been learned it is about 0,
        as their gradient vanishes: there the sizes of the values say who does little.

    Raises:
        ValueError: shapes that do not agree, fewer than two batches, or a negative number.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> means, variances = jnp.array([[3.0], [5.0]]), jnp.full((2, 1), 0.05)
        >>> tuples = ops.ContinuousTuples(means, variances, values=jnp.ones(2))
        >>> gradients = jnp.array([[2.0, 0.5], [2.5, -0.5], [1.5, 0.3]])  # of three batches
        >>> print(ops.leaving_gains(tuples, gradients).round(2))
        [ 0.56 -1.43]
    """
    means, variances, values = enter_tuples(tuples)
    gradients = at_least_float32(as_array("gradients", gradients))
    checks.require(
        gradients.ndim == 2 and len(gradients) >= 2 and gradients.shape[1:] == values.shape,
        f"gradients of shape {gradients.shape} for {len(values)} tuples",
        "(b, k): of two batches or more, as one has no standard error, one for each tuple",
        "pass the gradients of the values, batch by batch",
    )
    checks.check_number("certainty", certainty, at_least=0)
    checks.check_number("frozen", frozen, at_least=0)
    checks.check_number("least", least, at_least=0)
    dtype = jnp.promote_types(values.dtype, gradients.dtype)
    gained = values.astype(dtype)[None] * gradients.astype(dtype)
    error = jnp.std(gained, axis=0, ddof=1) / jnp.sqrt(jnp.asarray(len(gradients), dtype))
    mean = gained.mean(axis=0)
    bound = mean - jnp.asarray(certainty, dtype) * error
    bound = jnp.where(mean <= jnp.asarray(least, dtype), jnp.minimum(bound, 0), bound)
    moving = jnp.any(variances >= jnp.asarray(frozen, variances.dtype), axis=1)
    unknown = jnp.any(jnp.isnan(means) | jnp.isnan(variances), axis=1)
    return jnp.where(unknown, jnp.nan, jnp.where(moving, 0, bound))


def relocate(
    tuples: ContinuousTuples,
    entries: SparseEntries | None,
    gains: jax.Array,
    shape: Sequence[int],
    *,
    limit: int,
    leaving: jax.Array | None = None,
    settled: float | jax.Array = 1.0,
    lost: float | jax.Array = 0.25,
    wrap: bool = False,
    debug: bool = False,
) -> Relocations:
    """Pair the most urgent surplus tuples with the sampled cells, or any, that gain most.

    With ``L`` the loss and ``w`` the entries' values, the gain of a tuple of value ``v`` on cell
    ``p`` is to first order ``-v dL/dw_p``. Equal cells count once; a cell without a positive gain
    takes no tuple. After a move, set the tuple's mean to the cell, its variance to that of a fresh
    tuple or less, and its optimizer moments to 0.

    Args:
        tuples: ``k`` continuous tuples of rank ``r``.
        entries: ``n`` sampled entries, from :func:`~sparse_hyper_jax.ops.relax`. One with an index
            outside takes no tuple. None where the gains of all cells are known.
        gains: ``(n,)``, for tuples of value 1 the negative gradient with respect to
            ``entries.values``; without entries ``shape``, one for every cell. Neither a gain of NaN
            nor a tuple of NaN moves anything.
        shape: the ``r`` lengths of the index space.
        limit: largest number of moves, static.
        leaving: ``(k,)``, what the loss gains if a tuple leaves its cell, from
            :func:`leaving_gains`. Tuples with a positive one are moved as well, after duplicates
            and before lost ones, if they are alone on their cell: of several on one the last may be
            right there, once the others have left. None, 0 and NaN let them stay.
        settled: see :func:`surplus`.
        lost: see :func:`surplus`.
        wrap: see :func:`surplus`.
        debug: check by ``checkify`` that all indices lie inside.

    Returns:
        ``min(limit, k, n)`` relocations, where ``n`` counts entries or cells.

    Raises:
        ValueError: shapes that do not agree, or a limit below 1.

    Reference: Evci et al. 2020, arXiv 1911.11134, for drop and grow.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> twins = ops.ContinuousTuples(jnp.full((2, 1), 3.0), jnp.full((2, 1), 0.1), jnp.ones(2))
        >>> entries = ops.SparseEntries(jnp.array([[5], [6]]), jnp.ones(2))
        >>> moves = ops.relocate(twins, entries, gains=jnp.array([0.5, 2.0]), shape=(8,), limit=1)
        >>> moves.tuples.tolist(), moves.cells.tolist()
        ([1], [[6]])
    """
    limit = checks.check_count("limit", limit, least=1)
    shape = checks.check_index_shape("shape", shape)
    urgency = surplus(tuples, shape, settled=settled, lost=lost, wrap=wrap)
    gains = at_least_float32(as_array("gains", gains))
    if entries is None:
        checks.check_flat_size("shape", shape)
        checks.check_shape("gains", gains, shape, "one gain per cell, as entries is None")
        gains, kept = gains.reshape(-1), jnp.ones(gains.size, bool)
    else:
        indices, _ = enter_entries(entries, len(shape))
        checks.check_shape("gains", gains, indices.shape[:1], "one gain per entry")
        kept = first_occurrence(indices, shape, debug=debug)
    limit = min(limit, urgency.shape[0], kept.shape[0])
    unknown = jnp.isnan(urgency)
    urgency = jnp.where(unknown, 0, urgency)
    if leaving is None:
        urgencies, chosen = jax.lax.top_k(urgency, limit)
    else:
        leaving = at_least_float32(as_array("leaving", leaving))
        checks.check_shape("leaving", leaving, urgency.shape, "one number per tuple")
        leaves = (leaving > 0) & ~unknown & _alone(enter_tuples(tuples).means, shape, wrap)
        # Two keys, as gains and widths have different units; the last one sorts first.
        kind = jnp.where(leaves, 1, jnp.where(jnp.isinf(urgency), 2, 0))
        urgency = jnp.where(leaves, leaving, urgency.astype(leaving.dtype))
        chosen = jnp.lexsort((-urgency, -kind))[:limit]
        urgencies = urgency[chosen]
    best, places = jax.lax.top_k(jnp.where(kept & ~jnp.isnan(gains), gains, -jnp.inf), limit)
    moved = (urgencies > 0) & (best > 0)
    if entries is None:
        cells = jnp.stack(jnp.unravel_index(places, shape), axis=1)
    else:
        cells = indices[places]
    cells = jnp.where(moved[:, None], cells.astype(jnp.int32), 0)
    return Relocations(chosen.astype(jnp.int32), cells, moved)


def _alone(means: jax.Array, shape: tuple[int, ...], wrap: bool) -> jax.Array:
    """Mark tuples whose cell is nearest to no other one."""
    cells = nearest_cells(means, shape, wrap=wrap)
    return mark_first(cells, shape) & mark_first(cells[::-1], shape)[::-1]
