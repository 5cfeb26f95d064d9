"""Raw parameters to continuous tuples: means inside the index space, positive variances."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.precision import at_least_float32

MEAN_METHODS = ("sigmoid", "clamp", "modulo")


def bound_means(raw: jax.Array, shape: Sequence[int], *, method: str = "sigmoid") -> jax.Array:
    """Map raw parameters to means inside the index space.

    Per axis of length ``S``::

        sigmoid   (S - 1) * sigmoid(raw)            open range (0, S - 1)
        clamp     min(max(raw, 0), S - 1)           raw in index units, no gradient outside
        modulo    raw mod S                         range [0, S): the axis is a circle

    Means of float32 tell cells apart on axes of up to ``2**24`` cells; longer ones need float64.
    After ``modulo`` sample and measure on the circle too: pass ``wrap=True`` to the functions
    that follow. In float32 the sigmoid reaches its ends, where its gradient is 0, at ``raw`` of
    about -88 and 17.

    Args:
        raw: ``(..., r)`` real numbers.
        shape: the ``r`` lengths of the index space.
        method: ``"sigmoid"``, ``"clamp"`` or ``"modulo"``.

    Returns:
        ``(..., r)`` means in index units, float32 or wider.

    Raises:
        ValueError: an unknown method, or a last axis that does not match ``shape``.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    checks.check_choice("method", method, MEAN_METHODS)
    shape = checks.check_index_shape("shape", shape)
    raw = at_least_float32(raw)
    checks.check_last_axis("raw", raw, len(shape))
    sizes = jnp.asarray(shape, raw.dtype)
    if method == "sigmoid":
        return jax.nn.sigmoid(raw) * (sizes - 1)
    if method == "clamp":
        return jnp.clip(raw, 0, sizes - 1)
    wrapped = jnp.mod(raw, sizes)
    # Rounding can give exactly S (for instance for -1e-9): that cell is 0 on the circle.
    return jnp.where(wrapped >= sizes, wrapped - sizes, wrapped)


def invert_means(means: jax.Array, shape: Sequence[int], *, margin: float = 5e-5) -> jax.Array:
    """Give the raw parameters whose sigmoid means lie at the given places.

    ``raw = logit(margin + (1 - 2 margin) * means / (S - 1))``, so the ends of an axis come back
    ``margin * (S - 1)`` inside, where the sigmoid still has a gradient.

    Args:
        means: ``(..., r)`` places in index units.
        shape: the ``r`` lengths of the index space.
        margin: relative distance kept from both ends.

    Returns:
        ``(..., r)`` raw parameters for ``bound_means(..., method="sigmoid")``; an axis of length 1
        gives 0.

    Raises:
        ValueError: a last axis that does not match ``shape``.
    """
    shape = checks.check_index_shape("shape", shape)
    means = at_least_float32(means)
    checks.check_last_axis("means", means, len(shape))
    last = jnp.asarray([max(size - 1, 1) for size in shape], means.dtype)
    centred = jnp.where(jnp.asarray(shape) == 1, 0.5, means / last)
    return jax.scipy.special.logit(margin + (1 - 2 * margin) * centred)


def bound_variances(
    raw: jax.Array,
    shape: Sequence[int],
    *,
    scale: float = 0.1,
    boost: float = 2.0,
    floor: float = 0.0,
    reference: bool = False,
) -> jax.Array:
    """Map one raw spread per tuple to a positive variance per axis.

    ``variance_c = scale * S_c * softplus(raw + boost) + floor``; with ``reference=True`` the floor
    stands inside, ``scale * S_c * (softplus(raw + boost) + floor)``, as in the sparse layers of the
    original code. A variance, not a standard deviation: the spread in cells is its square root.

    Args:
        raw: ``(...)`` one real number per tuple, shared by its axes.
        shape: the ``r`` lengths of the index space.
        scale: variance in units of the axis length.
        boost: shift that makes fresh tuples wide.
        floor: least variance, in squared index units.
        reference: put the floor where the original code has it.

    Returns:
        ``(..., r)`` variances in squared index units, float32 or wider.

    Raises:
        ValueError: ``shape`` is no tuple of positive ints.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    sizes = jnp.asarray(checks.check_index_shape("shape", shape), jnp.float32)
    spread = jax.nn.softplus(at_least_float32(raw) + boost)[..., None]
    if reference:
        return scale * sizes * (spread + floor)
    return scale * sizes * spread + floor
