"""Gradients of a recurrent net without a way back: the derivative of the state goes along with it.

    J_t = D_t J_{t-1} + I_t        J = dh / dparams,  D = dF / dh,  I = dF / dparams at one step
    gradient of step t = (dL_t / dh_t) J_t

The rules differ in what they keep of J. All of them work on one instance, so that a batch is
``jax.vmap`` over states, inputs and traces. They are about frozen parameters: J forgets nothing of
the parameters it was made with, and is stale while they change, by design.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import check_function
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.recurrent.cells import (
    SIGNATURE,
    Cell,
    as_params,
    as_state,
    check_cell,
    check_scalar,
    flattened,
    unflattened,
)


class OnlineStep(NamedTuple):
    """What a step of an online rule gives.

    Attributes:
        h: the new state.
        loss: its loss, scalar.
        gradient: of that loss towards the parameters of the cell, in their dtypes.
        trace: for the next step.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> rule = recurrent.rtrl(lambda a, h, x: a * h + x)
        >>> h = jnp.ones(1)
        >>> one = rule.step(rule.init(0.5, h), 0.5, h, jnp.ones(1), jnp.sum)
        >>> float(one.loss), float(one.gradient)
        (1.5, 1.0)
    """

    h: Any
    loss: jax.Array
    gradient: Any
    trace: Any


class OnlineRule(NamedTuple):
    """A pair of pure functions.

    Attributes:
        init: ``(params, h) -> trace``, of a state that does not depend on the parameters.
        step: ``(trace, params, h, x, loss, *, key=None) -> OnlineStep`` with ``loss(h) -> scalar``
            of the new state; ``key`` where the rule draws. What the loss reads beside the state, as
            weights of an output layer, gets its gradient by ``jax.grad`` outside.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> init, step = recurrent.rtrl(lambda a, h, x: a * h + x)
        >>> h = jnp.ones(1)
        >>> step(init(0.5, h), 0.5, h, jnp.ones(1), jnp.sum).h.tolist()
        [1.5]
    """

    init: Callable[..., Any]
    step: Callable[..., OnlineStep]


def rtrl(cell: Cell) -> OnlineRule:
    """Keep all of J: exact, and dear.

    Memory for D P numbers, of D entries of the state and P of the parameters, and ``D^2 P``
    operations per step: the oracle of every other rule, and the method for small nets.

    Args:
        cell: ``(params, h, x) -> h``.

    Returns:
        :class:`OnlineRule`, whose trace is a pytree like the parameters of ``(D, ...)``.

    Raises:
        ValueError: ``cell`` is no function; from ``step``, a cell that changes what kind of state
            it is, or a loss that is no number.

    Reference: Williams, Zipser 1989, "A learning algorithm for continually running fully recurrent
    neural networks".

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> rule = recurrent.rtrl(lambda a, h, x: a * h + x)
        >>> h, trace = jnp.zeros(1), rule.init(0.5, jnp.zeros(1))
        >>> for x in jnp.ones((3, 1)):
        ...     h, loss, gradient, trace = rule.step(trace, 0.5, h, x, jnp.sum)
        >>> float(h[0]), float(gradient)  # 1 + a + a^2 and its derivative
        (1.75, 2.0)
    """
    check_function("cell", cell, SIGNATURE)

    def init(params: Any, h: Any) -> Any:
        params, h = as_params(params), as_state(h)
        size, dtype = sum(leaf.size for leaf in jax.tree.leaves(h)), wide_dtype(*leaves(params, h))
        return jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), dtype), params)

    def step(trace: Any, params: Any, h: Any, x: Any, loss: Any, *, key: Any = None) -> OnlineStep:
        del key
        check_trace(trace, init, params, h)
        one = linear_step(cell, params, h, x, loss)
        inner, immediate = jax.vmap(one.backwards)(jnp.eye(one.slope.size, dtype=one.slope.dtype))
        trace = jax.tree.map(
            lambda old, new: contracted(inner, old) + new.astype(old.dtype), trace, immediate
        )
        gradient = jax.tree.map(lambda leaf: contracted(one.slope, leaf), trace)
        return OnlineStep(one.h, one.loss, like(gradient, one.params), trace)

    return OnlineRule(init, step)


class LinearStep(NamedTuple):
    """One step of a cell and its derivatives, the state as one vector (D,), float32 or wider."""

    params: Any
    h: Any
    loss: jax.Array
    slope: jax.Array
    """dL / dh of the new state."""

    forwards: Callable[[jax.Array], jax.Array]
    """D times a vector."""

    backwards: Callable[[jax.Array], tuple[jax.Array, Any]]
    """A vector times D, and times I."""


def linear_step(cell: Cell, params: Any, h: Any, x: Any, loss: Any) -> LinearStep:
    """Run a step and its loss, and keep what differentiates them.

    Raises:
        ValueError: see :func:`rtrl`.
    """
    params, h = as_params(params), as_state(h)
    check_cell(cell, params, h, x)
    check_function("loss", loss, "a function (h) -> scalar")
    dtype = wide_dtype(*leaves(params, h))

    def run(params: Any, flat: jax.Array) -> jax.Array:
        return flattened(cell(params, unflattened(flat, h), x), dtype)

    flat = flattened(h, dtype)
    made, pull = jax.vjp(run, params, flat)
    value, slope = jax.value_and_grad(lambda new: check_scalar(loss(unflattened(new, h))))(made)
    return LinearStep(
        params,
        unflattened(made, h),
        value,
        slope,
        lambda vector: jax.jvp(lambda flat: run(params, flat), (flat,), (vector,))[1],
        lambda vector: pull(vector)[::-1],
    )


def check_trace(trace: Any, init: Callable[..., Any], params: Any, h: Any) -> None:
    """Raise unless a trace has the structure and the shapes that ``init`` gives it.

    Raises:
        ValueError: it was made for other parameters, another state, or by another rule.
    """
    found, expected = (
        jax.tree.map(jnp.shape, one) for one in (trace, jax.eval_shape(init, params, h))
    )
    require(
        found == expected,
        f"a trace of shapes {found}",
        f"{expected}, as init makes it",
        "pass the trace of the step before, or init(params, h)",
    )


def leaves(*trees: Any) -> list[jax.Array]:
    """List the arrays of all trees."""
    return jax.tree.leaves(trees)


def like(tree: Any, other: Any) -> Any:
    """Return a tree in the dtypes of another."""
    return jax.tree.map(lambda leaf, its: leaf.astype(its.dtype), tree, other)


def contracted(one: jax.Array, two: jax.Array) -> jax.Array:
    """Sum products over the last axis of one and the first of the other, exactly on all devices."""
    return jnp.tensordot(one, two, 1, precision=jax.lax.Precision.HIGHEST)
