"""Norms and directions that neither overflow nor vanish on the way, nor do their derivatives.

All is computed in units of the largest entry, so that no divisor is small when it is squared.
"""

from functools import partial

import jax
import jax.numpy as jnp

from sparse_hyper_jax.precision import at_least_float32


def unit_of(largest: jax.Array) -> jax.Array:
    """Give the power of two below a magnitude: in its units no square overflows or vanishes.

    Dividing by it and multiplying with it are exact.

    Args:
        largest: float32 or float64, not negative; 1 stands for what is 0 or not finite.

    Example:
        >>> from sparse_hyper_jax.norms import unit_of
        >>> unit_of(jnp.array([5.0, 0.75, 0.0])).tolist()
        [4.0, 0.5, 1.0]
    """
    limits = jnp.finfo(largest.dtype)
    known = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    # The reciprocal of a power beyond these is flushed to 0.
    known = jnp.clip(known, 2.0 ** (limits.minexp + 2), 2.0 ** (limits.maxexp - 2))
    kind = jnp.int64 if limits.bits == 64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(known), kind)
    # Without its fraction a float is a power of two.
    return jax.lax.bitcast_convert_type(bits & -(2**limits.nmant), largest.dtype)


def in_units(array: jax.Array, unit: jax.Array) -> jax.Array:
    """Divide by a unit; the quotient may be squared.

    Args:
        array: floats of float32 or wider, below twice the unit or not finite.
        unit: from :func:`unit_of`, of a shape that is broadcast.

    Example:
        >>> from sparse_hyper_jax.norms import in_units
        >>> jax.jit(lambda: in_units(jnp.array([3e30, 4e30]), jnp.array(2.0**100)) ** 2)().shape
        (2,)
    """
    # The bounds change nothing that counts. Without them XLA, on CPU, would make
    # (x / u) * (x / u) of a constant x to (x * x) * (1 / u * 1 / u), infinity times zero.
    most = jnp.finfo(array.dtype).max ** 0.75
    return jnp.clip(array / unit, -most, most)


def norm(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Give Euclidean norms, each computed in units of its largest entry.

    Args:
        array: floats; computed in float32 or wider.
        axes: over which a norm extends; they stay, with length 1.

    Returns:
        norms; derivatives are 0 where all entries are 0.

    Example:
        >>> from sparse_hyper_jax.norms import norm
        >>> norm(jnp.array([[3.0, 4.0], [3e30, 4e30]]), (1,)).shape
        (2, 1)
        >>> bool(jnp.isfinite(norm(jnp.array([[3e30, 4e30]]), (1,))).all())
        True
    """
    return _norm(at_least_float32(array), axes)


def direction(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Divide by the norms; 0 where all entries are 0.

    Args:
        array: as for :func:`norm`.
        axes: as there.

    Example:
        >>> from sparse_hyper_jax.norms import direction
        >>> print(np.asarray(direction(jnp.array([[3.0, 4.0], [0.0, 0.0]]), (1,))).round(2))
        [[0.6 0.8]
         [0.  0. ]]
    """
    wide = at_least_float32(array)
    scaled = wide / _unit(wide, axes)
    length = norm(scaled, axes)
    # Not where it is above 0: that of NaN stays NaN.
    return scaled / jnp.where(length == 0, 1, length)


def _unit(wide: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return unit_of(jnp.max(jnp.abs(wide), axis=axes, keepdims=True, initial=0))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _norm(wide: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    unit = _unit(wide, axes)
    scaled = in_units(wide, unit)
    return unit * jnp.sqrt(jnp.sum(scaled * scaled, axis=axes, keepdims=True))


@_norm.defjvp
def _norm_jvp(axes, primals, tangents):
    (wide,), (slope,) = primals, tangents
    along = jnp.sum(direction(wide, axes) * slope, axis=axes, keepdims=True)
    return _norm(wide, axes), along
