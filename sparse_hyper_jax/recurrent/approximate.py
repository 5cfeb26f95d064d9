"""Online rules that keep less of the derivative of the state than :func:`rtrl`, which is exact."""

from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_function, check_random_key
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.recurrent.cells import (
    SIGNATURE,
    Cell,
    as_params,
    as_state,
    check_cell,
    check_scalar,
    flattened,
)
from sparse_hyper_jax.recurrent.lags import lengths
from sparse_hyper_jax.recurrent.online import (
    OnlineRule,
    OnlineStep,
    check_trace,
    leaves,
    like,
    linear_step,
)


def snap1(cell: Cell, *, elementwise: bool = False) -> OnlineRule:
    """Keep of J what a parameter does to its own unit within one step (SnAp-1).

    ``J_t = diag(D_t) * J_{t-1} + I_t`` has the shape of the parameters: memory and time of
    backpropagation. Exact where the recurrence is elementwise (diagonal state matrices, recurrent
    trace units), biased where units read each other.

    Every parameter must feed one unit, that of its place along its last axis: kernels ``(in, D)``
    and biases ``(D,)``, or with m gates side by side ``(in, m D)``, gate after gate. A reset gate
    has to act behind the product with the state, as in cuDNN's and Flax's GRU, not before it.

    Args:
        cell: ``(params, h, x) -> h``; the arrays of its state are all ``(D,)``, one (GRU) or
            several (LSTM, whose c and h of a unit keep all that they do to each other).
        elementwise: a unit reads no state but its own: then one product gives the diagonal, instead
            of D of them.

    Returns:
        :class:`OnlineRule`, whose trace holds for each array of the state a pytree like the
        parameters.

    Raises:
        ValueError: from ``init`` and ``step``: states that are no vectors of one length, parameters
            whose last axis is no multiple of it; otherwise as :func:`rtrl`.

    Reference: Menick et al. 2021, "Practical real time recurrent learning with a sparse
    approximation", ICLR.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> rule = recurrent.snap1(lambda a, h, x: a * h + x, elementwise=True)
        >>> a, h = jnp.array([0.5, 0.25]), jnp.zeros(2)
        >>> trace = rule.init(a, h)
        >>> for x in jnp.ones((3, 2)):
        ...     h, loss, gradient, trace = rule.step(trace, a, h, x, jnp.sum)
        >>> gradient.tolist()  # of 1 + a + a^2
        [2.0, 1.5]
    """
    check_function("cell", cell, SIGNATURE)
    elementwise = checks.check_flag("elementwise", elementwise)

    def init(params: Any, h: Any) -> Any:
        params, h = as_params(params), as_state(h)
        _check_units(params, h)
        dtype = wide_dtype(*leaves(params, h))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), params)
        return [zeros for _ in jax.tree.leaves(h)]

    def step(trace: Any, params: Any, h: Any, x: Any, loss: Any, *, key: Any = None) -> OnlineStep:
        del key
        params, h = as_params(params), as_state(h)
        check_cell(cell, params, h, x)
        check_function("loss", loss, "a function (h) -> scalar")
        check_trace(trace, init, params, h)
        parts, structure = jax.tree.flatten(h)

        def run(params: Any, parts: list[jax.Array]) -> list[jax.Array]:
            return jax.tree.leaves(cell(params, jax.tree.unflatten(structure, parts), x))

        made, pull = jax.vjp(lambda params: run(params, parts), params)
        inner = _diagonals(lambda parts: run(params, parts), parts, elementwise=elementwise)
        trace = [
            _next_trace(inner[number], trace, _immediate(pull, made, number))
            for number in range(len(made))
        ]
        new = jax.tree.unflatten(structure, made)
        value, slope = jax.value_and_grad(lambda new: check_scalar(loss(new)))(new)
        gradient = _combined(jax.tree.leaves(slope), trace)
        return OnlineStep(new, value, like(gradient, params), trace)

    return OnlineRule(init, step)


def _check_units(params: Any, h: Any) -> None:
    shapes = {leaf.shape for leaf in jax.tree.leaves(h)}
    checks.require(
        len(shapes) == 1 and all(len(shape) == 1 and shape[0] > 0 for shape in shapes),
        f"states of shapes {sorted(shapes)}",
        "arrays (D,), of D units each, at least one",
        "use jax.vmap over rows",
    )
    ((units,),) = shapes
    for leaf in jax.tree.leaves(params):
        checks.require(
            leaf.ndim > 0 and leaf.shape[-1] % units == 0,
            f"a parameter of shape {leaf.shape} with {units} units",
            f"a last axis of {units}, or a multiple of it, gate after gate",
            "transpose it, or keep what is no part of the cell outside",
        )


def _immediate(pull: Any, made: list[jax.Array], number: int) -> Any:
    """Give ``I`` of one array of the state: each parameter feeds one unit, so sums lose nothing."""
    return pull([jnp.full_like(leaf, n == number) for n, leaf in enumerate(made)])[0]


def _diagonals(run: Any, parts: list[jax.Array], *, elementwise: bool) -> list[list[jax.Array]]:
    """Give ``[a][b]``: (D,), how every unit of array a reads the same unit of array b."""
    columns = []
    for number, part in enumerate(parts):

        def along(direction: jax.Array, number: int = number) -> list[jax.Array]:
            zeros = [jnp.zeros_like(leaf) for leaf in parts]
            zeros[number] = direction
            return jax.jvp(run, (parts,), (zeros,))[1]

        if elementwise:
            columns.append(along(jnp.ones_like(part)))
        else:
            squares = jax.vmap(along)(jnp.eye(part.size, dtype=part.dtype))
            columns.append([jnp.diagonal(square) for square in squares])
    return [list(row) for row in zip(*columns, strict=True)]


def _next_trace(inner: list[jax.Array], trace: Any, immediate: Any) -> Any:
    return jax.tree.map(
        lambda now, old: now.astype(old.dtype) + old, immediate, _combined(inner, trace)
    )


def _combined(numbers: list[jax.Array], trace: list[Any]) -> Any:
    """Sum numbers of units (D,) times what the parameters do to them, over arrays of the state."""

    def one(*of_arrays: jax.Array) -> jax.Array:
        terms = [
            _along_last(number.astype(leaf.dtype), leaf) * leaf
            for number, leaf in zip(numbers, of_arrays, strict=True)
        ]
        return reduce(jnp.add, terms)

    return jax.tree.map(one, *trace)


def _along_last(number: jax.Array, leaf: jax.Array) -> jax.Array:
    """Repeat numbers of units for every gate, along the last axis of a parameter."""
    gates = leaf.shape[-1] // number.size
    return jnp.tile(number, gates).reshape((1,) * (leaf.ndim - 1) + (-1,))


class RankOne(NamedTuple):
    """The trace of :func:`uoro`: ``J`` is on average the outer product of the two."""

    state: jax.Array
    """``(D,)``."""

    params: Any
    """A pytree like the parameters."""


def uoro(cell: Cell) -> OnlineRule:
    """Keep of J one outer product that is right on average (UORO).

    With random signs ``v`` in every step, J is s outer w::

        s <- r0 D s + r1 v        r0 = sqrt(|w| / |D s|)
        w <- w / r0 + v^T I / r1  r1 = sqrt(|v^T I| / |v|)

    Unbiased and noisy, in the time and memory of one pass back and one forward; where one of two
    factors is 0, so is their product, and both are left out.

    Args:
        cell: ``(params, h, x) -> h``, any state of floats.

    Returns:
        :class:`OnlineRule`, whose ``step`` needs a ``key``.

    Raises:
        ValueError: from ``step``, no key; otherwise as :func:`rtrl`.

    Reference: Tallec, Ollivier 2018, "Unbiased online recurrent optimization", ICLR, arXiv
    1702.05043.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> rule = recurrent.uoro(lambda a, h, x: a * h + x)
        >>> h, trace = jnp.ones(1), rule.init(0.5, jnp.ones(1))
        >>> step = rule.step(trace, 0.5, h, jnp.ones(1), jnp.sum, key=jax.random.key(0))
        >>> round(float(step.gradient), 4)  # of one unit and one parameter it is exact
        1.0
    """
    check_function("cell", cell, SIGNATURE)

    def init(params: Any, h: Any) -> RankOne:
        params, h = as_params(params), as_state(h)
        size, dtype = sum(leaf.size for leaf in jax.tree.leaves(h)), wide_dtype(*leaves(params, h))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), params)
        return RankOne(jnp.zeros(size, dtype), zeros)

    def step(
        trace: RankOne, params: Any, h: Any, x: Any, loss: Any, *, key: Any = None
    ) -> OnlineStep:
        check_random_key(key)
        check_trace(trace, init, params, h)
        one = linear_step(cell, params, h, x, loss)
        signs = jax.random.rademacher(key, one.slope.shape, one.slope.dtype)
        inner, immediate = one.forwards(trace.state), one.backwards(signs)[1]
        immediate = like(immediate, trace.params)
        keep, kept = _balance(_length(trace.params), lengths(inner))
        add, added = _balance(_length(immediate), lengths(signs))
        trace = RankOne(
            keep * inner + add * signs,
            jax.tree.map(lambda old, new: kept * old + added * new, trace.params, immediate),
        )
        share = jnp.sum(one.slope * trace.state)
        gradient = jax.tree.map(lambda leaf: share * leaf, trace.params)
        return OnlineStep(one.h, one.loss, like(gradient, one.params), trace)

    return OnlineRule(init, step)


def _length(params: Any) -> jax.Array:
    return lengths(flattened(params, wide_dtype(*leaves(params))))


def _balance(one: jax.Array, two: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give ``sqrt(one / two)`` and its inverse, or zeros where one of the two is."""
    empty = (one == 0) | (two == 0)
    # Two roots: the quotient of a large number and a small one could overflow.
    root = jnp.sqrt(jnp.where(empty, 1, one)) / jnp.sqrt(jnp.where(empty, 1, two))
    return jnp.where(empty, 0, root), jnp.where(empty, 0, 1 / root)
