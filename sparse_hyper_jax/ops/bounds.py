"""Raw parameters to continuous tuples: means inside the index space, positive variances."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.inside import along
from sparse_hyper_jax.precision import at_least_float32

MeanMethod = Literal["sigmoid", "clamp", "modulo"]
MEAN_METHODS = get_args(MeanMethod)


def bound_means(
    raw: jax.Array, shape: Sequence[int], *, method: MeanMethod = "sigmoid"
) -> jax.Array:
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

    Example:
        >>> from sparse_hyper_jax import ops
        >>> ops.bound_means(jnp.zeros((1, 2)), (5, 9)).tolist()
        [[2.0, 4.0]]
        >>> ops.bound_means([[-1.0, 9.5]], (5, 9), method="modulo").tolist()
        [[4.0, 0.5]]
    """
    checks.check_choice("method", method, MEAN_METHODS)
    shape = checks.check_index_shape("shape", shape)
    raw = at_least_float32(as_array("raw", raw))
    checks.check_last_axis("raw", raw, len(shape))
    sizes = along(shape, raw)
    if method == "sigmoid":
        return jax.nn.sigmoid(raw) * (sizes - 1)
    if method == "clamp":
        return jnp.clip(raw, jnp.zeros_like(sizes), sizes - 1)
    wrapped = jnp.mod(raw, sizes)
    # Rounding can give exactly S (for instance for -1e-9): that cell is 0 on the circle.
    return jnp.where(wrapped >= sizes, wrapped - sizes, wrapped)


def invert_means(
    means: jax.Array, shape: Sequence[int], *, margin: float | jax.Array = 5e-5
) -> jax.Array:
    """Give the raw parameters whose sigmoid means lie at the given places.

    ``raw = logit(margin + (1 - 2 margin) * means / (S - 1))``, so the ends of an axis come back
    ``margin * (S - 1)`` inside, where the sigmoid still has a gradient.

    Args:
        means: ``(..., r)`` places in index units.
        shape: the ``r`` lengths of the index space.
        margin: relative distance kept from both ends, less than a half; may be traced.

    Returns:
        ``(..., r)`` raw parameters for ``bound_means(..., method="sigmoid")``; an axis of length 1
        gives 0, a place farther outside of its axis than the margin NaN.

    Raises:
        ValueError: a last axis that does not match ``shape``, or a margin out of range.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> raw = ops.invert_means([[2.0, 6.0]], (5, 9))
        >>> print(ops.bound_means(raw, (5, 9)).round(2))
        [[2. 6.]]
    """
    shape = checks.check_index_shape("shape", shape)
    means = at_least_float32(as_array("means", means))
    checks.check_last_axis("means", means, len(shape))
    checks.check_number("margin", margin, at_least=0, below=0.5)
    last = along([max(size - 1, 1) for size in shape], means)
    single = np.reshape(np.asarray(shape) == 1, last.shape)
    centred = jnp.where(single, 0.5, means / last)
    kept = jnp.asarray(margin, means.dtype)
    return jax.scipy.special.logit(kept + (1 - 2 * kept) * centred)


def bound_variances(
    raw: jax.Array,
    shape: Sequence[int],
    *,
    scale: float | jax.Array = 0.1,
    boost: float | jax.Array = 2.0,
    floor: float | jax.Array = 0.0,
    reference: bool = False,
) -> jax.Array:
    """Map one raw spread per tuple to a positive variance per axis.

    ``variance_c = scale * S_c * softplus(raw + boost) + floor``; with ``reference=True`` the floor
    stands inside, ``scale * S_c * (softplus(raw + boost) + floor)``, as in the sparse layers of the
    original code. A variance, not a standard deviation: the spread in cells is its square root.

    Args:
        raw: ``(...)`` one real number per tuple, shared by its axes.
        shape: the ``r`` lengths of the index space.
        scale: variance in units of the axis length, at least 0; this and the next two may be
            traced.
        boost: shift that makes fresh tuples wide.
        floor: least variance, in squared index units, at least 0.
        reference: put the floor where the original code has it.

    Returns:
        ``(..., r)`` variances in squared index units, float32 or wider.

    Raises:
        ValueError: ``shape`` is no tuple of positive ints, or a number out of range.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> print(np.asarray(ops.bound_variances(jnp.zeros(1), (5, 20))).round(2))
        [[1.06 4.25]]
    """
    shape = checks.check_index_shape("shape", shape)
    raw = at_least_float32(as_array("raw", raw))[..., None]
    for name, number, least in (
        ("scale", scale, 0),
        ("boost", boost, -math.inf),
        ("floor", floor, 0),
    ):
        checks.check_number(name, number, at_least=least)
    unit, shift, least = (jnp.asarray(number, raw.dtype) for number in (scale, boost, floor))
    unit, spread = unit * along(shape, raw), jax.nn.softplus(raw + shift)
    if checks.check_flag("reference", reference):
        return unit * (spread + least)
    return unit * spread + least
