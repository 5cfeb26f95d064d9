"""Signed powers with derivatives of every order that are finite at zero."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.norms import direction, norm
from sparse_hyper_jax.precision import at_least_float32


def power(theta: jax.Array, alpha: float) -> jax.Array:
    """Raise the magnitude to a power and keep the sign: weights of powerpropagation.

    ``w = theta |theta|^(alpha - 1) = sign(theta) |theta|^alpha``, with the derivative
    ``alpha |theta|^(alpha - 1)``. For alpha = 1 it is the identity, bit for bit. For alpha > 1 zero
    has derivative 0: a parameter that is exactly zero never moves. 16-bit arrays are raised in
    float32; the result has their dtype, in which small weights underflow, so keep parameters in
    float32 (``powerprop(..., dtype=jnp.bfloat16)`` casts the weights alone).

    Args:
        theta: floats of any shape.
        alpha: Python number of at least 1. Multiples of 1/4 need no logarithm and are several
            times as fast as others.

    Returns:
        floats of the same shape and dtype.

    Raises:
        ValueError: alpha is smaller than 1, or no Python number; theta holds no floats.

    Reference: Schwarz et al. 2021, arXiv 2110.00296.

    Example:
        >>> from sparse_hyper_jax.reparam import power
        >>> theta = jnp.array([-3.0, -0.5, 0.0, 2.0])
        >>> power(theta, 2.0).tolist()
        [-9.0, -0.25, 0.0, 4.0]
        >>> jax.vmap(jax.grad(lambda theta: power(theta, 2.0)))(theta).tolist()  # what is 0 stays 0
        [6.0, 1.0, 0.0, 4.0]
    """
    return odd_power(as_array("theta", theta, "floats"), check_alpha(alpha))


def inverse_power(weights: jax.Array, alpha: float) -> jax.Array:
    """Give the parameters whose :func:`power` are the weights.

    ``theta = sign(w) |w|^(1 / alpha)``. Its derivative is infinite at zero, where 0 is given
    instead.

    Args:
        weights: floats of any shape.
        alpha: Python number of at least 1.

    Returns:
        floats of the same shape and dtype.

    Raises:
        ValueError: as for :func:`power`.

    Example:
        >>> from sparse_hyper_jax.reparam import inverse_power, power
        >>> theta = inverse_power(jnp.array([-9.0, 0.25, 4.0]), 2.0)
        >>> theta.tolist(), power(theta, 2.0).tolist()
        ([-3.0, 0.5, 2.0], [-9.0, 0.25, 4.0])
    """
    return odd_power(as_array("weights", weights, "floats"), 1 / check_alpha(alpha))


def group_power(theta: jax.Array, alpha: float, axes: tuple[int, ...]) -> jax.Array:
    """Raise the norm of each group to a power and keep its direction.

    ``w_G = ||theta_G||^(alpha - 1) theta_G``, so that whole groups become sparse: decaying theta
    penalises ``sum_G ||w_G||^(2 / alpha)``, for alpha = 2 the group lasso.

    Args:
        theta: floats.
        alpha: Python number of at least 1.
        axes: the axes along which a group extends; the others number the groups. For a kernel
            ``(inputs, outputs)``, ``(0,)`` makes the weights of one output a group.

    Returns:
        floats of the same shape and dtype.

    Raises:
        ValueError: as for :func:`power`, or theta lacks an axis.

    Example:
        >>> from sparse_hyper_jax.reparam import group_power
        >>> theta = jnp.array([[3.0, 0.3], [4.0, 0.4]])  # two outputs, of norm 5 and 1/2
        >>> print(np.asarray(group_power(theta, 2.0, axes=(0,))).round(2))
        [[15.    0.15]
         [20.    0.2 ]]
    """
    theta = as_array("theta", theta, "floats")
    return _group_power(theta, check_alpha(alpha), check_axes(axes, theta.ndim))


def inverse_group_power(weights: jax.Array, alpha: float, axes: tuple[int, ...]) -> jax.Array:
    """Give the parameters whose :func:`group_power` are the weights.

    ``theta_G = ||w_G||^(1 / alpha - 1) w_G``, and 0 for a group of zeros.

    Args:
        weights: floats.
        alpha: Python number of at least 1.
        axes: as for :func:`group_power`.

    Returns:
        floats of the same shape and dtype.

    Raises:
        ValueError: as for :func:`group_power`.

    Example:
        >>> from sparse_hyper_jax.reparam import inverse_group_power
        >>> weights = jnp.array([[15.0, 0.0], [20.0, 0.0]])
        >>> print(np.asarray(inverse_group_power(weights, 2.0, axes=(0,))).round(2))
        [[3. 0.]
         [4. 0.]]
    """
    weights = as_array("weights", weights, "floats")
    return _group_power(weights, 1 / check_alpha(alpha), check_axes(axes, weights.ndim))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def odd_power(x: jax.Array, exponent: float) -> jax.Array:
    """``sign(x) |x|^exponent``; the derivative is ``exponent * even_power(x, exponent - 1)``."""
    if exponent == 1:
        return x
    if exponent < 1:
        return jnp.sign(x) * even_power(x, exponent)
    return x * even_power(x, exponent - 1)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def even_power(x: jax.Array, exponent: float) -> jax.Array:
    """``|x|^exponent``, 1 for exponent 0; where that is infinite at zero, 0."""
    wide = at_least_float32(jnp.abs(x))
    if exponent < 0:
        result = jnp.where(wide == 0, 0, _raised(jnp.where(wide == 0, 1, wide), exponent))
    else:
        result = _raised(wide, exponent)
    return result.astype(x.dtype)


def _jvp_of(power, other):
    """Each kind of power has the other kind as its derivative."""

    def jvp(exponent, primals, tangents):
        (x,), (slope,) = primals, tangents
        if exponent == 0:
            return power(x, exponent), jnp.zeros_like(slope)
        # Wide, and rounded once: three roundings of 16 bits are more than the last place.
        wide = at_least_float32(x)
        change = exponent * other(wide, exponent - 1) * slope.astype(wide.dtype)
        return power(x, exponent), change.astype(slope.dtype)

    return jvp


odd_power.defjvp(_jvp_of(odd_power, even_power))
even_power.defjvp(_jvp_of(even_power, odd_power))


def _raised(base: jax.Array, exponent: float) -> jax.Array:
    """Raise non-negative numbers; by products and square roots where those are enough."""
    quarters = 4 * exponent
    if quarters != int(quarters) or not 0 <= exponent <= 16:
        return base**exponent
    whole, quarter = divmod(int(quarters), 4)
    result = jax.lax.integer_pow(base, whole)
    if not quarter:
        return result
    half = jnp.sqrt(base)
    if quarter == 2:
        return result * half
    fourth = jnp.sqrt(half)
    return result * (fourth if quarter == 1 else half * fourth)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _group_power(x: jax.Array, exponent: float, axes: tuple[int, ...]) -> jax.Array:
    if exponent == 1:
        return x
    scales = even_power(norm(x, axes), exponent - 1)
    return (x.astype(scales.dtype) * scales).astype(x.dtype)


@_group_power.defjvp
def _group_power_jvp(exponent, axes, primals, tangents):
    (x,), (slope,) = primals, tangents
    return _group_power(x, exponent, axes), group_slope(x, slope, exponent, axes)


def group_slope(
    theta: jax.Array, vector: jax.Array, alpha: float, axes: tuple[int, ...]
) -> jax.Array:
    """Multiply a vector with the symmetric Jacobian of the group power.

    ``J v = n^(alpha - 1) (v + (alpha - 1) u <u, v>)`` with norm n and direction u of each group; 0
    for a group of zeros.
    """
    if alpha == 1:
        return vector
    along = direction(theta, axes)
    wide = vector.astype(along.dtype)
    turned = wide + (alpha - 1) * along * jnp.sum(along * wide, axis=axes, keepdims=True)
    return (even_power(norm(theta, axes), alpha - 1) * turned).astype(vector.dtype)


def check_alpha(alpha: float) -> float:
    """Return alpha as a float; raise unless it is a Python number of at least 1."""
    static = isinstance(alpha, int | float | np.number) and checks.is_real(alpha)
    checks.require(
        static and 1 <= alpha < float("inf"),
        f"alpha={alpha!r}",
        "a Python number of at least 1",
        "pass for instance alpha=2.0, static under jit",
    )
    return float(alpha)


def check_axes(axes: Any, rank: int | None = None) -> tuple[int, ...]:
    """Return axes of a group counted from 0; raise unless the array has them.

    Args:
        axes: a tuple of ints.
        rank: of the array; None while it is not known.
    """
    valid = isinstance(axes, tuple) and all(
        isinstance(axis, int | np.integer) and not isinstance(axis, bool) for axis in axes
    )
    checks.require(
        valid and bool(axes) and all(rank is None or -rank <= axis < rank for axis in axes),
        f"axes={axes!r}" + ("" if rank is None else f" of an array with {rank} axes"),
        "a tuple of axes of the array along which a group extends",
        "pass for instance axes=(0,)",
    )
    return tuple(sorted({int(axis) if rank is None else int(axis) % rank for axis in axes}))
