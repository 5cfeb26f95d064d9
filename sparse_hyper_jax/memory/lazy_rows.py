"""Optimizers by rows: one that was not read keeps its weights, and what is remembered of it.

A table is read at a few rows, and the gradient of all others is 0. Adam takes that for news: their
moments decay, they go on moving, and a rare row that is read at last makes a long first step. Here
every row has an optimizer of its own, which counts the row's own steps.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import (
    as_array,
    check_instance,
    check_optimizer_state,
    check_same_shape,
)
from sparse_hyper_jax.memory.reads import enter_table, keep_inside
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.precision import wide_dtype

NAMED = "lazy_rows(inner).init"
"""What makes the state of rows, as errors call it."""


def lazy_rows(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Give every row of every parameter an optimizer of its own, asleep while its gradient is 0.

    A row is the last axis: of a table ``(m, d)`` or of a grid ``(S_1, ..., S_r, d)`` every vector,
    of a bias ``(d,)`` the whole. A row whose gradient is all zero has an update of 0, and its state
    stays as it is: moments, and the count by which Adam corrects their bias. So if all rows have
    gradients in all steps, this is ``inner``; otherwise it is ``inner`` for each row over the steps
    in which that row was read. Norms and schedules of ``inner`` are by row, too: clip before it,
    and scale by a schedule of all steps after it::

        optax.chain(lazy_rows(optax.scale_by_adam()), optax.scale_by_learning_rate(schedule))

    One that draws noise begins with one key for all rows, and draws the same for each.

    For tables alone use ``optax.partition``. The gradient is as large as the table, and every row
    is looked at; see :func:`update_rows` for a step that touches the rows alone.

    Args:
        inner: any optimizer; made for one row, of one parameter, at a time.

    Returns:
        the transformation. Its state is that of ``inner``, where what stood for all rows, such as a
        count, is there for each.

    Raises:
        ValueError: no optimizer; parameters that are numbers without an axis; updates and
            parameters of different structures.

    Reference: as sparse Adam of several libraries, which do not all count by rows; see for instance
    Abadi et al. 2016, arXiv 1603.04467.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax import memory
        >>> optimizer, table = memory.lazy_rows(optax.adam(0.1)), jnp.zeros((3, 2))
        >>> state = optimizer.init(table)
        >>> for row in (0, 0, 2):
        ...     gradient = jnp.zeros((3, 2)).at[row].set(1.0)
        ...     updates, state = optimizer.update(gradient, state, table)
        >>> updates.round(3).tolist(), state[0].count.tolist()
        ([[0.0, 0.0], [0.0, 0.0], [-0.10000000149011612, -0.10000000149011612]], [2, 0, 1])
    """
    check_instance("inner", inner, optax.GradientTransformation)
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> Any:
        leaves, structure = jax.tree.flatten(params)
        if not leaves:  # what optax.tree_utils asks with
            return inner.init(params)
        states = [_over_rows(inner.init, _enter_rows("params", leaf))(leaf) for leaf in leaves]
        return _together(structure, states)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(updates)
        if not leaves:
            return inner.update(updates, state, params, **extra)
        leaves = [_enter_rows("updates", leaf) for leaf in leaves]
        check_optimizer_state(state, init, updates, NAMED)
        row = jax.ShapeDtypeStruct(leaves[0].shape[-1:], leaves[0].dtype)
        states = _apart(structure, state, jax.tree.structure(jax.eval_shape(inner.init, row)))
        given = [None] * len(leaves) if params is None else _enter_params(structure, params)
        found = [
            _update_rows(inner, *parts, extra) for parts in zip(leaves, states, given, strict=True)
        ]
        changes, states = zip(*found, strict=True)
        return jax.tree.unflatten(structure, changes), _together(structure, states)

    return optax.GradientTransformationExtraArgs(init, update)


def update_rows(
    inner: optax.GradientTransformation, rows: Any, gradients: Any, state: Any, table: Any
) -> tuple[jax.Array, Any]:
    """Update the rows of a table that were read, and touch no other.

    The result is that of :func:`lazy_rows` with the gradient that has ``gradients`` added up at
    ``rows``, and 0 elsewhere, without that gradient; in float32 or wider, and rounded at the end to
    the dtypes of ``table`` and ``state``. With these donated to the program, the work is that of
    the rows: ``n log n`` to find equal ones, and ``n d``, however many rows the table has::

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(table, state, rows, gradients):
            return memory.update_rows(optimizer, rows, gradients, state, table)

    Args:
        inner: any optimizer, as for :func:`lazy_rows`.
        rows: integers ``(*batch,)``, of a grid row-major; equal ones add up. One outside, such as
            -1, is padding.
        gradients: ``(*batch, d)``: of the loss with respect to ``table[rows]``.
        state: ``lazy_rows(inner).init(table)``, or what this has returned.
        table: ``(*cells, d)``.

    Returns:
        table and state, after the step.

    Raises:
        ValueError: no optimizer, shapes that do not agree, or a table of integers.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax import memory
        >>> optimizer, table = optax.adam(0.5), jnp.zeros((4, 1))
        >>> state = memory.lazy_rows(optimizer).init(table)
        >>> gradients = jnp.array([[1.0], [2.0], [-3.0]])
        >>> table, state = memory.update_rows(optimizer, [2, 2, 0], gradients, state, table)
        >>> table.round(3).ravel().tolist(), state[0].count.tolist()
        ([0.5, 0.0, -0.5, 0.0], [1, 0, 1, 0])
    """
    check_instance("inner", inner, optax.GradientTransformation)
    inner = optax.with_extra_args_support(inner)
    table = enter_table(as_array("table", table, "floats"))
    rows, gradients = as_array("rows", rows, "integers"), as_array("gradients", gradients)
    width, cells = table.shape[-1], math.prod(table.shape[:-1])
    checks.check_shape("gradients", gradients, (*rows.shape, width), "one row for every number")
    check_optimizer_state(state, lazy_rows(inner).init, table, NAMED)
    count = math.prod(rows.shape)
    dtype = wide_dtype(table, gradients)
    names, sums = _add_equal(
        rows.reshape(count), gradients.astype(dtype).reshape(count, width), cells
    )

    def by_rows(leaf: jax.Array) -> jax.Array:
        # A bitcast, so that a donated leaf is written to in place.
        return spread_by(leaf.reshape(cells, *leaf.shape[table.ndim - 1 :]), names)

    def read(leaf: jax.Array) -> jax.Array:
        kept = by_rows(leaf).at[names].get(mode="clip", wrap_negative_indices=False)
        floats = jnp.issubdtype(kept.dtype, jnp.floating)
        return kept.astype(wide_dtype(kept, dtype)) if floats else kept

    def write(leaf: jax.Array, new: jax.Array) -> jax.Array:
        written = (
            by_rows(leaf)
            .at[names]
            .set(
                _cast(new, leaf.dtype),
                mode="drop",
                unique_indices=True,
                wrap_negative_indices=False,
            )
        )
        return written.reshape(leaf.shape)

    weights, kept = read(table), jax.tree.map(read, state)
    change, after = _update_rows(inner, sums, kept, weights, {})
    moved = weights + change.astype(dtype)
    return write(table, moved), jax.tree.map(write, state, after)


def _update_rows(
    inner: optax.GradientTransformationExtraArgs,
    gradient: jax.Array,
    state: Any,
    params: jax.Array | None,
    extra: dict[str, Any],
) -> tuple[jax.Array, Any]:
    """Update rows ``(*cells, d)``, each with a state of its own, those of gradient 0 not at all."""
    if params is not None:
        params = as_array("params", params)
        check_same_shape(updates=gradient, params=params)

    def one(gradient: jax.Array, state: Any, params: jax.Array | None) -> tuple[Any, Any]:
        return inner.update(gradient, state, params, **extra)

    changes, after = _over_rows(one, gradient)(gradient, state, params)
    touched = jnp.any(gradient != 0, axis=-1)  # NaN too

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        flags = jnp.expand_dims(touched, tuple(range(touched.ndim, new.ndim)))
        return jnp.where(flags, new, _cast(old, new.dtype))

    return choose(changes, jnp.zeros_like(changes)), jax.tree.map(choose, after, state)


def _add_equal(rows: jax.Array, gradients: jax.Array, cells: int) -> tuple[jax.Array, jax.Array]:
    """Add up gradients of equal rows: distinct names ``(n,)``, and sums ``(n, d)``.

    What is padding, and what is left over, has a name below 0, each its own.
    """
    places, kept = keep_inside(rows, cells)
    count = len(rows)
    names = jnp.where(kept, places, cells)
    order = jnp.argsort(names)
    names = names[order]
    first = jnp.concatenate([jnp.ones(min(count, 1), bool), names[1:] != names[:-1]])
    slots = jnp.cumsum(first, dtype=jnp.int32) - 1
    ordered = spread_by(gradients, order)[order]
    sums = jax.ops.segment_sum(ordered, slots, count, indices_are_sorted=True)
    nothing = spread_by(-1 - jnp.arange(count, dtype=jnp.int32), slots)
    distinct = nothing.at[slots].set(jnp.where(names < cells, names, -1 - slots))
    return distinct, sums


def _over_rows(function: Any, rows: jax.Array) -> Any:
    """Map a function of one row over all axes but the last."""
    return functools.reduce(lambda inner, _: jax.vmap(inner), range(rows.ndim - 1), function)


def _together(structure: Any, states: Sequence[Any]) -> Any:
    """Turn the states of parameters into one state, which has trees of parameters in it."""
    one = jax.tree.structure(states[0])
    parts = zip(*(one.flatten_up_to(state) for state in states), strict=True)
    return one.unflatten([structure.unflatten(part) for part in parts])


def _apart(structure: Any, state: Any, one: Any) -> list[Any]:
    """Give the state of every parameter, each of structure ``one``: the way back."""
    parts = [structure.flatten_up_to(part) for part in one.flatten_up_to(state)]
    numbers = range(structure.num_leaves)
    return [one.unflatten([part[number] for part in parts]) for number in numbers]


def _cast(leaf: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Cast a leaf of a state; keys, which are no numbers, have the dtype already."""
    return leaf if leaf.dtype == dtype else leaf.astype(dtype)


def _enter_params(structure: Any, params: Any) -> list[Any]:
    """Return the parameters of updates of this structure.

    Raises:
        ValueError: another structure.
    """
    try:
        return structure.flatten_up_to(params)
    except (TypeError, ValueError):
        found = f"params of structure {jax.tree.structure(params)!s:.200}"
        raise ValueError(
            f"found {found}; expected that of updates, {structure!s:.200}; pass the parameters "
            "that the gradient belongs to"
        ) from None


def _enter_rows(name: str, leaf: Any) -> jax.Array:
    """Return a parameter that has rows.

    Raises:
        ValueError: a number without an axis.
    """
    leaf = as_array(name, leaf)
    checks.require(
        leaf.ndim >= 1,
        f"a leaf of {name} of shape ()",
        "parameters with at least one axis, of which the last is a row",
        "leave numbers to another optimizer by optax.partition",
    )
    return leaf
