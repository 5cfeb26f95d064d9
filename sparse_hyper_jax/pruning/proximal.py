"""Proximal steps towards at most two non-zeros in every four weights."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.norms import unit_of
from sparse_hyper_jax.placement import gathered, placed_like
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.pruning.patterns import check_axis

TRIPLES = ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))
SWEEPS = 100


def penalty_2_to_4(weights: jax.Array, *, axis: int = -1) -> jax.Array:
    """Give the sum over groups of four of ``|abc| + |bcd| + |cda| + |dab|``.

    It is 0 if no group has more than two non-zeros, and only then, but for products that are too
    small for the type.

    Args:
        weights: floats, whose length on the axis is a multiple of 4.
        axis: along which four neighbours are a group.

    Returns:
        scalar, float32 or wider; the slope at an entry of 0 is 0.

    Raises:
        ValueError: the axis does not fit.

    Example:
        >>> from sparse_hyper_jax.pruning import penalty_2_to_4
        >>> weights = jnp.array([[3.0, -2.0, 0.0, 0.0], [3.0, -2.0, 1.0, 0.0]])
        >>> [penalty_2_to_4(row).item() for row in weights]  # only what is not 2:4 costs
        [0.0, 6.0]
    """
    groups = jnp.abs(_groups(as_array("weights", weights), axis))
    known = ~jnp.isnan(groups).any(axis=-1)
    falling = -jnp.sort(-groups, axis=-1)
    total = jnp.zeros_like(falling[..., 0])
    for triple in TRIPLES:
        three = [falling[..., place] for place in triple]
        # Zeros first: infinity times zero would be NaN.
        none = known & (three[2] == 0)
        large, middle, small = (jnp.where(none, 1, one) for one in three)
        # The largest times the smallest overflows or vanishes only if all three do.
        total += jnp.where(none, 0, large * small * middle)
    return jnp.sum(total)


def prox_2_to_4(weights: jax.Array, strength: float | jax.Array, *, axis: int = -1) -> jax.Array:
    """Take a proximal step towards the 2:4 pattern.

    For every four neighbours z it gives ``argmin_w 1/2 ||w - z||^2 + strength * r(w)`` with
    ``r = |abc| + |bcd| + |cda| + |dab|``: the best of the two largest alone, of three non-zeros and
    of four, the last two found by coordinate descent (each coordinate soft-thresholded by
    ``strength`` times the sum of the products of pairs of the others). Apply it to the parameters
    after every optimizer step, with growing strength; a large one leaves exactly two of four.

    Four weights of which one is NaN become NaN. An infinite one stays, and counts as larger than
    all others.

    Args:
        weights: floats, whose length on the axis is a multiple of 4.
        strength: lambda, at least 0; in units of 1 / weight. May be traced.
        axis: along which four neighbours are a group: the one that is summed over in a product.

    Returns:
        floats of the same shape and dtype; their first derivatives hold the choice of the best
        fixed, second ones mean nothing.

    Raises:
        ValueError: the axis does not fit, or a strength that is known is negative.

    Reference: Kübler et al. 2025, arXiv 2501.18015.

    Example:
        >>> from sparse_hyper_jax.pruning import prox_2_to_4
        >>> weights = jnp.array([3.0, -2.0, 1.0, 0.5])
        >>> for strength in (0.125, 1.0):  # two are left where the strength is enough
        ...     print(np.asarray(prox_2_to_4(weights, strength)).round(2))
        [ 2.93 -1.89  0.31  0.  ]
        [ 3. -2.  0.  0.]
    """
    checks.check_number("strength", strength, at_least=0)
    weights = as_array("weights", weights, "floats")
    groups = _groups(weights, axis)
    result = _step(groups, jnp.asarray(strength, groups.dtype)).astype(weights.dtype)
    moved = jnp.moveaxis(result.reshape(_moved(weights, axis).shape), -1, axis)
    return placed_like(moved, weights)


def _step(groups: jax.Array, strength: jax.Array) -> jax.Array:
    """Take the step for ``(..., 4)`` numbers, in units in which no square or cube overflows."""
    limits = jnp.finfo(groups.dtype)
    sizes = jnp.minimum(jnp.abs(groups), limits.max)
    unit = unit_of(jnp.max(sizes, axis=-1, keepdims=True))
    rank = jnp.argsort(-sizes, axis=-1, stable=True)
    falling = jnp.take_along_axis(sizes / unit, rank, axis=-1)
    # Beyond that all but two are zero, and infinity times zero would be NaN.
    relative = jnp.minimum(strength * unit, limits.max**0.25)
    best = _best_of_sorted(falling, relative[..., 0])
    kept = jnp.take_along_axis(best, jnp.argsort(rank, axis=-1), axis=-1)
    result = jnp.where((kept > 0) & jnp.isinf(groups), groups, jnp.sign(groups) * kept * unit)
    unknown = jnp.any(jnp.isnan(groups), axis=-1, keepdims=True) | jnp.isnan(strength)
    return jnp.where(unknown, jnp.nan, result)


def _groups(weights: jax.Array, axis: int) -> jax.Array:
    """Cut an axis into fours: ``(..., n / 4, 4)``, in float32 or wider."""
    checks.require(
        weights.shape[check_axis(axis, weights.shape)] % 4 == 0,
        f"weights of shape {weights.shape} with axis={axis}",
        "an axis whose length is a multiple of 4",
        "change axis",
    )
    moved = _moved(at_least_float32(gathered(weights)), axis)
    return moved.reshape(*moved.shape[:-1], moved.shape[-1] // 4, 4)


def _moved(weights: jax.Array, axis: int) -> jax.Array:
    return jnp.moveaxis(weights, axis, -1)


def _best_of_sorted(sizes: jax.Array, strength: jax.Array) -> jax.Array:
    """Solve for non-negative numbers in falling order, ``(..., 4)``."""
    two = _only_first(sizes, 2)
    three = _descend(sizes, strength, 3)
    four = _descend(sizes, strength, 4)
    candidates = jnp.stack([two, three, four])
    costs = 0.5 * jnp.sum((candidates - sizes[None]) ** 2, axis=-1)
    costs += strength[None] * jnp.sum(_triples(candidates), axis=-1)
    chosen = jnp.argmin(costs, axis=0)[None, ..., None]
    return jnp.take_along_axis(candidates, chosen, axis=0)[0]


def _descend(sizes: jax.Array, strength: jax.Array, nonzeros: int) -> jax.Array:
    """Minimise over one coordinate after the other, the last ones fixed at zero."""
    # From half the sizes: where they are nearly equal, descent from the sizes themselves ends in a
    # corner that is not the lowest.
    start = 0.5 * _only_first(sizes, nonzeros)

    def sweep(_: int, w: jax.Array) -> jax.Array:
        for place in range(nonzeros):
            a, b, c = (w[..., other] for other in TRIPLES[place])
            least = jnp.maximum(0, sizes[..., place] - strength * (a * b + b * c + c * a))
            w = w.at[..., place].set(least)
        return w

    return jax.lax.fori_loop(0, SWEEPS, sweep, start)


def _only_first(sizes: jax.Array, number: int) -> jax.Array:
    """Set all but the first of four to zero."""
    return jnp.where(
        jax.lax.broadcasted_iota(jnp.int32, sizes.shape, sizes.ndim - 1) < number, sizes, 0
    )


def _triples(groups: jax.Array) -> jax.Array:
    """Give the products of three of four numbers, ``(..., 4)``."""
    products = [groups[..., a] * groups[..., b] * groups[..., c] for a, b, c in TRIPLES]
    return jnp.stack(products, axis=-1)
