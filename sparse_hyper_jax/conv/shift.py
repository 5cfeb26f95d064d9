"""Sequences some steps late or early: a linear map whose transpose is the shift the other way.

The derivative rule of ``dynamic_slice`` writes every cotangent into an array of zeros of its own
and adds these up. Shifts are slices in both directions, which XLA fuses with the sum over taps:
that is what makes gradients of convolutions at few lags cheap, hence a primitive. Where sequences
or channels have lags of their own, slices become gathers, and their cotangents are added up.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sparse_hyper_jax.ops.device_axes import spread_by, vary_alike


def shift(x: jax.Array, lag: jax.Array) -> jax.Array:
    """Give ``x[..., t - lag, c]``, and 0 before the first step.

    Args:
        x: ``(..., T, C)``.
        lag: int32 ``()``, at least 0. From ``T`` on there is nothing but zeros.
    """
    return _bound(x, lag, early=False)


def _bound(x: jax.Array, lag: jax.Array, *, early: bool) -> jax.Array:
    return _shift.bind(*vary_alike(x, lag), early=early)


def _sliced(x: jax.Array, lag: jax.Array, *, early: bool) -> jax.Array:
    """Cut the steps out of a sequence with zeros before it, or behind it."""
    steps = x.shape[-2]
    lag = jnp.clip(lag, 0, steps)
    ends, start = ((0, steps), lag) if early else ((steps, 0), steps - lag)
    padded = jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), ends, (0, 0)])
    return jax.lax.dynamic_slice_in_dim(padded, start, steps, axis=-2)


def _jvp(primals: Any, tangents: Any, **options: Any) -> Any:
    """Shift the tangent too; a lag has none."""
    (x, lag), (tangent, _) = primals, tangents
    y = _bound(x, lag, **options)
    if type(tangent) is ad.Zero:
        return y, ad.Zero(jax.typeof(y).to_tangent_aval())
    return y, _bound(tangent, lag, **options)


def _transpose(cotangent: Any, _: Any, lag: Any, *, early: bool) -> list[Any]:
    """Shift the cotangent the other way."""
    if type(cotangent) is not ad.Zero:
        cotangent = _bound(cotangent, lag, early=not early)
    return [cotangent, None]


def _batched(arguments: Any, axes: Any, **options: Any) -> tuple[jax.Array, int]:
    """Let an axis of sequences lead; with a lag for each, take the slices as they are."""
    x, lag = arguments
    if axes[1] is None:
        return _bound(jnp.moveaxis(x, axes[0], 0), lag, **options), 0
    return jax.vmap(lambda x, lag: _sliced(spread_by(x, lag), lag, **options), axes)(x, lag), 0


_shift = Primitive("sparse_hyper_jax.shift")
_shift.def_impl(jax.jit(_sliced, static_argnames="early"))
_shift.def_abstract_eval(lambda x, lag, **options: x.update(weak_type=False))
ad.primitive_jvps[_shift] = _jvp
ad.primitive_transposes[_shift] = _transpose
batching.primitive_batchers[_shift] = _batched
mlir.register_lowering(_shift, mlir.lower_fun(_sliced, multiple_results=False))
