"""Sparsify the cotangent after any operation: identity forward, sparse backward."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.choice import Sparsifier, spread
from sparse_hyper_jax.backprop.memory import Memory, Rule, SelectOn, prepare, propagate
from sparse_hyper_jax.backprop.rules import (
    align,
    check_differentiated,
    check_memory,
    make_rule,
    materialise,
    memory_axes,
    split_primals,
)
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.placement import placed_like, with_whole_rows


def sparsify_cotangent(
    key: jax.Array | None,
    y: jax.Array,
    memory: Memory | None = None,
    *,
    sparsifier: Sparsifier,
    eta: float = 0.8,
    select_on: SelectOn = "corrected",
    event_ndim: int = 1,
) -> jax.Array:
    """Return ``y``; on the way back, propagate only some components of its cotangent.

    With the cotangent g and the memory m of the call site::

        forward:    y
        backward:   a = g + m,   dL/dy = S(a),   m' = eta * (a - S(a))

    and the gradient with respect to ``memory`` is its next value. This works after any operation
    and saves nothing by itself: what comes before still multiplies dense arrays with zeros in
    them. (:func:`~sparse_hyper_jax.backprop.sparse_dense` saves.) Put it right after the linear
    operation, before the nonlinearity: after a ReLU, components would be spent on dead units.
    Reverse mode only. Second derivatives are those of this sparse gradient with its choice of
    components held fixed: no Hessian of the loss, and not symmetric.

    Args:
        key: a typed key for random sparsifiers, fresh for every step and call site; else None.
        y: ``(..., *event)`` floats.
        memory: from :func:`~sparse_hyper_jax.backprop.init_memory` with the shape of ``y``; None
            forgets what is not propagated.
        sparsifier: which components, see the classes of this package.
        eta: share of the rest that is remembered, from 0 to 1; may be traced, gets no gradient.
        select_on: choose by the ``"corrected"`` cotangent a, or by the ``"gradient"`` g alone;
            either way the components of a are propagated and only the others stay in the memory.
        event_ndim: number of last axes among which a row's components are chosen: 1 for features
            or channels, 3 for whole ``(h, w, c)`` images.

    Returns:
        ``y``.

    Raises:
        ValueError: an option is wrong; where a gradient is taken: the memory does not fit, or no
            gradient with respect to it is.

    Reference: Sun et al. 2017, arXiv 1706.06197; Zhang et al. 2020, arXiv 1905.10194.

    Example:
        >>> from sparse_hyper_jax.backprop import TopK, sparsify_cotangent
        >>> x, kernel = jnp.array([[1.0, 2.0]]), jnp.ones((2, 3))
        >>> def loss(kernel):  # after a product of any kind, before the nonlinearity
        ...     y = sparsify_cotangent(None, x @ kernel, sparsifier=TopK(1))
        ...     return jnp.sum(jnp.tanh(y) * jnp.array([1.0, 5.0, 2.0]))
        >>> jnp.count_nonzero(jax.grad(loss)(kernel), axis=0).tolist()  # the weights of one unit
        [0, 2, 0]
    """
    event_ndim = checks.check_count("event_ndim", event_ndim, least=1)
    y = as_array("y", y, "floats")
    checks.require(
        jnp.ndim(y) >= event_ndim,
        f"y of shape {jnp.shape(y)} with event_ndim={event_ndim}",
        "at least as many axes",
        "add a batch axis or lower event_ndim",
    )
    uses_over = memory_axes(memory)
    (y, memory), over = align(y, memory)
    axes = () if memory is None else tuple(sorted(over - uses_over))
    rule, draw = make_rule(
        sparsifier, eta, select_on, key=key, memory=memory, out_shape=y.shape, axes=axes
    )
    return _identity(rule, event_ndim, draw, y, memory)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _identity(rule: Rule, event_ndim: int, draw: Any, y: jax.Array, memory: Any) -> jax.Array:
    return y


def _forward(rule: Rule, event_ndim: int, *arguments: Any) -> tuple[jax.Array, Any]:
    (draw, y, memory), (_, asked, memory_asked) = split_primals(arguments)
    check_memory(memory, y.shape, event_ndim)
    check_differentiated(memory_asked, training=asked)
    return y, (draw, memory)


def _backward(rule: Rule, event_ndim: int, saved: Any, cotangent: Any) -> tuple[Any, ...]:
    draw, memory = saved
    cotangent = materialise(cotangent)
    shape = cotangent.shape
    columns = math.prod(shape[len(shape) - event_ndim :])
    rows = with_whole_rows(cotangent.reshape(-1, columns))
    sparse = propagate(rule, draw, prepare(rule, rows, memory), memory)
    dense = spread(sparse.taken, sparse.choice, columns).astype(cotangent.dtype)
    return None, placed_like(dense.reshape(shape), cotangent), sparse.memory


_identity.defvjp(_forward, _backward, symbolic_zeros=True)
