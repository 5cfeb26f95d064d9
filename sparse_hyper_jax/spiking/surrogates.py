"""The spike: a step that is exact forwards, and a smooth slope in its place backwards."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_choice, check_number
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.precision import at_least_float32, float_dtype

Surrogate = Literal["sigmoid", "superspike", "arctan", "triangle", "boxcar"]

SURROGATES: tuple[str, ...] = get_args(Surrogate)
"""Names of the slopes that stand for the derivative of a step.

Example:
    >>> from sparse_hyper_jax import spiking
    >>> spiking.SURROGATES
    ('sigmoid', 'superspike', 'arctan', 'triangle', 'boxcar')
"""

LEAST_SCALE, LARGEST_SCALE = 1e-6, 1e38
"""Of a scale; it stands in denominators."""


def spike(
    u: jax.Array, *, surrogate: Surrogate = "superspike", scale: float | jax.Array | None = None
) -> jax.Array:
    """Fire where a potential has reached its threshold, with a slope to learn by.

    Forwards exactly ``1`` where ``u >= 0``, also at 0, and ``0`` elsewhere; the derivative, in
    both modes, is that of :func:`surrogate_slope` in place of a delta::

        s = [u >= 0]        ds/du := psi(u)

    There is no other mode for evaluation: the value never depends on the surrogate. First
    derivatives mean something; for second ones :func:`jax.lax.scan` forgets the rule.

    Args:
        u: potential minus threshold, of any shape.
        surrogate: the slope, see there.
        scale: its sharpness or width, see there; has no gradient.

    Returns:
        zeros and ones of the shape and dtype of ``u``, NaN for NaN; floats for whole numbers.

    Raises:
        ValueError: an unknown surrogate, or a scale that is not positive.

    Reference: Neftci, Mostafa, Zenke 2019, arXiv 1901.09948.

    Example:
        >>> from sparse_hyper_jax.spiking import spike
        >>> spike(jnp.array([-0.5, 0.0, 0.5])).tolist()
        [0.0, 1.0, 1.0]
        >>> float(jax.grad(lambda u: spike(u, surrogate="triangle"))(-0.25))
        0.75
    """
    u = as_array("u", u)
    return _spike(u.astype(float_dtype(u)), _scale(surrogate, scale, u), surrogate)


def surrogate_slope(
    u: jax.Array, *, surrogate: Surrogate = "superspike", scale: float | jax.Array | None = None
) -> jax.Array:
    """Give the slope ``psi(u)`` that stands for the derivative of a spike.

    ============== ================================== ============= ======== =======
    surrogate      ``psi(u)``, with the scale ``b``   default ``b`` at ``0`` area
    ============== ================================== ============= ======== =======
    ``sigmoid``    ``b s(b u) (1 - s(b u))``          4             ``b/4``  1
    ``superspike`` ``1 / (1 + b abs(u))^2``           10            1        ``2/b``
    ``arctan``     ``(b/2) / (1 + (pi b u / 2)^2)``   2             ``b/2``  1
    ``triangle``   ``max(0, 1 - abs(u) / b) / b``     1             ``1/b``  1
    ``boxcar``     ``[abs(u) < b/2] / b``             1             ``1/b``  1
    ============== ================================== ============= ======== =======

    Four of them are densities that tend to a delta as ``b`` grows, or shrinks for the last two;
    ``superspike``, also called fast sigmoid, has the height 1 for every ``b`` instead.

    Args:
        u: potential minus threshold, of any shape.
        surrogate: its name.
        scale: ``b``, a number of at least 1e-6; may be traced.

    Returns:
        the slopes in the shape of ``u``, float32 or wider.

    Raises:
        ValueError: an unknown surrogate, or a scale that is too small or too large.

    Reference: Zenke, Ganguli 2018, arXiv 1705.11146 (``superspike``); Neftci, Mostafa, Zenke 2019.

    Example:
        >>> from sparse_hyper_jax.spiking import SURROGATES, surrogate_slope
        >>> [float(surrogate_slope(0.0, surrogate=name)) for name in SURROGATES]
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    u = as_array("u", u)
    return _slope(u, _scale(surrogate, scale, u), surrogate)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _spike(u: jax.Array, scale: jax.Array, surrogate: str) -> jax.Array:
    """Forward; NaN stays."""
    return jnp.where(jnp.isnan(u), u, (u >= 0).astype(u.dtype))


@_spike.defjvp
def _spike_jvp(surrogate: str, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    u, scale = primals
    slope = _slope(u, scale, surrogate)
    # Rounded once: a slope that 16 bits do not hold would make NaN of a tangent of 0.
    return _spike(u, scale, surrogate), (slope * tangents[0].astype(slope.dtype)).astype(u.dtype)


def _slope(u: jax.Array, scale: jax.Array, surrogate: str) -> jax.Array:
    u = at_least_float32(u)
    return _SLOPES[surrogate][0](u, jax.lax.stop_gradient(scale.astype(u.dtype)))


def check_surrogate(surrogate: str, scale: Any) -> None:
    """Raise unless this is a surrogate and a scale, or None for its own.

    Raises:
        ValueError: an unknown name, or a scale that is too small.
    """
    check_choice("surrogate", surrogate, SURROGATES)
    if scale is not None:
        check_number("scale", scale, at_least=LEAST_SCALE, at_most=LARGEST_SCALE)


def _scale(surrogate: str, scale: Any, u: jax.Array) -> jax.Array:
    check_surrogate(surrogate, scale)
    return jnp.asarray(_SLOPES[surrogate][1] if scale is None else scale, at_least_float32(u).dtype)


def _sigmoid(u: jax.Array, b: jax.Array) -> jax.Array:
    # Two sigmoids instead of 1 - s: no cancellation, and no exponential that overflows.
    return b * jax.nn.sigmoid(b * u) * jax.nn.sigmoid(-b * u)


def _superspike(u: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.square(1 / (1 + b * jnp.abs(u)))


def _arctan(u: jax.Array, b: jax.Array) -> jax.Array:
    return b / 2 / (1 + jnp.square(math.pi / 2 * b * u))


def _triangle(u: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.maximum(0, 1 - jnp.abs(u) / b) / b


def _boxcar(u: jax.Array, b: jax.Array) -> jax.Array:
    inside = (jnp.abs(u) < b / 2).astype(u.dtype) / b
    return jnp.where(jnp.isnan(u), u, inside)


_SLOPES: dict[str, tuple[Callable[[jax.Array, jax.Array], jax.Array], float]] = {
    "sigmoid": (_sigmoid, 4.0),
    "superspike": (_superspike, 10.0),
    "arctan": (_arctan, 2.0),
    "triangle": (_triangle, 1.0),
    "boxcar": (_boxcar, 1.0),
}
"""By name the slope and its default scale."""
