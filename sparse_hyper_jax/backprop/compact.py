"""A kernel's gradient without its zero rows, for plain SGD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.choice import Sparsifier, check_sparsifier
from sparse_hyper_jax.backprop.memory import used_once
from sparse_hyper_jax.backprop.rules import LAYOUTS, Layout, choice_shapes, varying
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.precision import wide_dtype


class CompactGradient(NamedTuple):
    """The rows of a kernel's gradient that are not zero.

    A gradient has the type of what it belongs to, so all fields are floats. Numbers of units can be
    neither added up nor scaled: one call of the layer per gradient, no clipping, no averages.

    Attributes:
        columns: ``(c,)`` units.
        rows: ``(c, n_in)``.
        uses: scalar, backward passes that the gradient went through.

    Example:
        >>> from sparse_hyper_jax.backprop import CompactGradient, add_compact
        >>> gradient = CompactGradient(jnp.array([2.0]), jnp.array([[1.0, 1.0]]), uses=jnp.ones(()))
        >>> add_compact(jnp.zeros((3, 2)), gradient, -0.5).tolist()  # unit 2 alone
        [[0.0, 0.0], [0.0, 0.0], [-0.5, -0.5]]
    """

    columns: jax.Array
    rows: jax.Array
    uses: jax.Array


def empty_compact(
    kernel: jax.Array, sparsifier: Sparsifier, *, layout: Layout = "out_in"
) -> CompactGradient:
    """Make the zeros whose gradient will be that of the kernel, without its zero rows.

    Args:
        kernel: as for :func:`sparse_dense`.
        sparsifier: one that chooses columns for all rows.
        layout: of the kernel.

    Returns:
        zeros ``(c,)`` and ``(c, n_in)``.

    Raises:
        ValueError: the sparsifier does not choose columns, or not always as many.

    Example:
        >>> from sparse_hyper_jax.backprop import UnifiedTopK, empty_compact
        >>> compact = empty_compact(jnp.ones((1000, 300)), UnifiedTopK(0.04))
        >>> compact.columns.shape, compact.rows.shape  # a twenty-fifth of the kernel
        ((40,), (40, 300))
    """
    checks.check_choice("layout", layout, LAYOUTS)
    check_sparsifier(sparsifier)
    kernel = as_array("kernel", kernel, "floats")
    checks.check_shape("kernel", kernel, (None, None), f"({', '.join(layout.split('_'))})")
    n_out, n_in = kernel.shape if layout == "out_in" else kernel.shape[::-1]
    columns = None if sparsifier.needs_peak else choice_shapes(sparsifier, n_out).columns
    columns = checks.require_given(
        columns if n_out < 2**24 else None,
        f"{sparsifier!r} for {n_out} outputs",
        "a sparsifier that chooses a fixed number of columns out of fewer than 2**24",
        "use UnifiedTopK, CandidateTopK, BlockTopK or UnifiedRandomK, or no compact gradient",
    )
    rows = jnp.zeros((*columns.shape, n_in), kernel.dtype)
    numbers = jnp.zeros(columns.shape, jnp.float32)
    return CompactGradient(numbers, rows, jnp.zeros((), jnp.float32))


def add_compact(
    kernel: jax.Array,
    gradient: CompactGradient,
    scale: float | jax.Array,
    *,
    layout: Layout = "out_in",
) -> jax.Array:
    """Add ``scale`` times a compact gradient: plain SGD with ``scale = -learning_rate``.

    Momentum, Adam, weight decay and clipping would touch the other rows too: for them use the
    kernel's ordinary gradient.

    Args:
        kernel: ``(n_out, n_in)``, or ``(n_in, n_out)`` with ``layout="in_out"``.
        gradient: with respect to :func:`empty_compact`.
        scale: scalar, may be traced.
        layout: of the kernel.

    Returns:
        the new kernel; NaN inside ``jit`` where it would be an error outside. Units outside of the
        kernel are dropped.

    Raises:
        ValueError: another layout; a gradient that does not fit the kernel; outside ``jit``, one
            that went through several backward passes or was scaled.

    Example:
        >>> from sparse_hyper_jax.backprop import UnifiedTopK, add_compact, empty_compact
        >>> from sparse_hyper_jax.backprop import sparse_dense
        >>> x, kernel, top = jnp.array([[1.0, 2.0]]), jnp.ones((3, 2)), UnifiedTopK(1)
        >>> loss = lambda compact: jnp.sum(sparse_dense(
        ...     None, x, kernel, sparsifier=top, compact=compact) * jnp.array([1.0, 4.0, 2.0]))
        >>> gradient = jax.grad(loss)(empty_compact(kernel, top))
        >>> add_compact(kernel, gradient, -0.125).tolist()  # a step of SGD, of unit 1
        [[1.0, 1.0], [0.5, 0.0], [1.0, 1.0]]
    """
    checks.check_choice("layout", layout, LAYOUTS)
    check_instance("gradient", gradient, CompactGradient)
    checks.check_number("scale", scale)
    kernel = as_array("kernel", kernel, "floats")
    checks.check_shape("kernel", kernel, (None, None), f"({', '.join(layout.split('_'))})")
    n_out, n_in = kernel.shape if layout == "out_in" else kernel.shape[::-1]
    (number,) = jnp.shape(gradient.columns)
    checks.check_shape("rows", gradient.rows, (number, n_in), "one row per unit")
    whole = (gradient.uses == 0) | used_once(gradient.uses)
    if not isinstance(whole, Tracer):
        checks.require(
            bool(whole),
            f"a compact gradient that went through {float(gradient.uses):g} backward passes",
            "that of one call of the layer, neither clipped nor averaged",
            "use the kernel's ordinary gradient",
        )
    columns = gradient.columns.astype(jnp.int32)
    # Dropped, where -1 would wrap.
    columns = jnp.where(columns < 0, n_out + jnp.arange(number, dtype=jnp.int32), columns)
    wide = wide_dtype(kernel, gradient.rows)
    change = jnp.asarray(scale, wide) * gradient.rows.astype(wide)
    change = jnp.where(whole, change, jnp.nan).astype(kernel.dtype)
    if layout == "out_in":
        return kernel.at[columns].add(change, mode="drop", unique_indices=True)
    return kernel.at[:, columns].add(change.T, mode="drop", unique_indices=True)


def check_compact(compact: CompactGradient, x: jax.Array, wanted: CompactGradient) -> None:
    """Raise unless a compact gradient fits the layer and its rows are on one device.

    Raises:
        ValueError: other shapes than wanted, or rows that are spread over devices.
    """
    check_instance("compact", compact, CompactGradient)
    found, expected = (jax.tree.map(jnp.shape, one) for one in (compact, wanted))
    checks.require(
        found == expected,
        f"a compact gradient of shapes {tuple(found)}",
        f"shapes {tuple(expected)} for this kernel and sparsifier",
        "make it with empty_compact and the same arguments",
    )
    checks.require(
        not varying(x),
        "a compact gradient inside shard_map",
        "the kernel's ordinary gradient there: numbers of units cannot be added up over devices",
        "pass compact=None",
    )
