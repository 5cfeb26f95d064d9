"""Proximal steps towards at most two non-zeros in every four weights."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.precision import at_least_float32

TRIPLES = ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))
SWEEPS = 100


def penalty_2_to_4(weights: jax.Array, *, axis: int = -1) -> jax.Array:
    """Give the sum over groups of four of ``|abc| + |bcd| + |cda| + |dab|``.

    It is 0 exactly if no group has more than two non-zeros.

    Args:
        weights: floats, whose length on the axis is a multiple of 4.
        axis: along which four neighbours are a group.
    """
    groups = jnp.abs(_groups(weights, axis))
    return jnp.sum(_triples(groups))


def prox_2_to_4(weights: jax.Array, strength: float | jax.Array, *, axis: int = -1) -> jax.Array:
    """Take a proximal step towards the 2:4 pattern.

    For every four neighbours z it gives ``argmin_w 1/2 ||w - z||^2 + strength * r(w)`` with
    ``r = |abc| + |bcd| + |cda| + |dab|``: the best of the two largest alone, of three non-zeros and
    of four, the last two found by coordinate descent (each coordinate soft-thresholded by
    ``strength`` times the sum of the products of pairs of the others). Apply it to the parameters
    after every optimizer step, with growing strength; a large one leaves exactly two of four.

    Args:
        weights: floats, whose length on the axis is a multiple of 4.
        strength: lambda, at least 0; in units of 1 / weight. May be traced.
        axis: along which four neighbours are a group: the one that is summed over in a product.

    Returns:
        floats of the same shape and dtype.

    Raises:
        ValueError: the axis does not fit, or a static strength is negative.

    Reference: Kübler et al. 2025, arXiv 2501.18015.
    """
    if isinstance(strength, int | float):
        checks.require(strength >= 0, f"strength={strength}", "at least 0", "change it")
    groups = _groups(weights, axis)
    wide = at_least_float32(groups)
    rank = jnp.argsort(-jnp.abs(wide), axis=-1, stable=True)
    sorted_sizes = jnp.take_along_axis(jnp.abs(wide), rank, axis=-1)
    best = _best_of_sorted(sorted_sizes, jnp.asarray(strength, wide.dtype))
    sizes = jnp.take_along_axis(best, jnp.argsort(rank, axis=-1), axis=-1)
    result = (jnp.sign(wide) * sizes).astype(groups.dtype)
    moved = jnp.moveaxis(weights, axis, -1)
    return jnp.moveaxis(result.reshape(moved.shape), -1, axis)


def _groups(weights: jax.Array, axis: int) -> jax.Array:
    shape = jnp.shape(weights)
    valid = -len(shape) <= axis < len(shape) and shape[axis] % 4 == 0
    checks.require(
        valid,
        f"weights of shape {shape} with axis={axis}",
        "an axis whose length is a multiple of 4",
        "change axis",
    )
    moved = jnp.moveaxis(weights, axis, -1)
    return moved.reshape(*moved.shape[:-1], -1, 4)


def _best_of_sorted(sizes: jax.Array, strength: jax.Array) -> jax.Array:
    """Solve for non-negative numbers in falling order, ``(..., 4)``."""
    two = sizes * jnp.array([1, 1, 0, 0], sizes.dtype)
    three = _descend(sizes, strength, 3)
    four = _descend(sizes, strength, 4)
    candidates = jnp.stack([two, three, four])
    costs = 0.5 * jnp.sum((candidates - sizes) ** 2, axis=-1)
    costs += strength * jnp.sum(_triples(candidates), axis=-1)
    chosen = jnp.argmin(costs, axis=0)[None, ..., None]
    return jnp.take_along_axis(candidates, chosen, axis=0)[0]


def _descend(sizes: jax.Array, strength: jax.Array, nonzeros: int) -> jax.Array:
    """Minimise over one coordinate after the other, the last ones fixed at zero."""
    # From half the sizes: where they are nearly equal, descent from the sizes themselves ends in a
    # corner that is not the lowest.
    start = 0.5 * sizes * (jnp.arange(4) < nonzeros)

    def sweep(_: int, w: jax.Array) -> jax.Array:
        for place in range(nonzeros):
            a, b, c = (w[..., other] for other in TRIPLES[place])
            least = jnp.maximum(0, sizes[..., place] - strength * (a * b + b * c + c * a))
            w = w.at[..., place].set(least)
        return w

    return jax.lax.fori_loop(0, SWEEPS, sweep, start)


def _triples(groups: jax.Array) -> jax.Array:
    """Give the products of three of four numbers, ``(..., 4)``."""
    products = [groups[..., a] * groups[..., b] * groups[..., c] for a, b, c in TRIPLES]
    return jnp.stack(products, axis=-1)
