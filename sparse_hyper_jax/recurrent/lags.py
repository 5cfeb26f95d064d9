"""How fast the gradient of one loss fades on its way back through time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function
from sparse_hyper_jax.norms import in_units, unit_of
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.recurrent.cells import Cell, as_unrolled, check_scalar


class LagNorms(NamedTuple):
    """Sizes of the gradients to the states of a window of W steps.

    Attributes:
        phi: ``(W,)``, ``phi[k]`` the mean over rows of the length of ``dL_s / dh_{s-k}``.
        cum: ``(W,)``, ``cum[K - 1]`` the length of the mean over rows of the sum of the gradients
            of ``K`` steps, lags 0 to K - 1. Rows cancel here, and do not in ``phi``, on purpose:
            one is a bound, the other what it is compared with.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> norms = recurrent.lag_norms(jnp.ones((3, 1, 4)), rows=1)
        >>> norms.phi.tolist(), norms.cum.tolist()
        ([2.0, 2.0, 2.0], [2.0, 4.0, 6.0])
    """

    phi: jax.Array
    cum: jax.Array


def lag_gradients(cell: Cell, loss: Any, params: Any, h0: Any, xs: Any) -> Any:
    """Give the gradient of a loss after the last step to the states of all steps, by lag.

    ``G[k] = dL_s / dh_{s-k}`` with ``h_t = cell(params, h_{t-1}, x_t)`` and ``L_s = loss(params,
    h_s)``: one pass backwards, by zeros that are added to every state. The loss must read the
    last state alone. Several positions of a sequence are several windows: ``jax.vmap``, or as
    further rows of one batch.

    Args:
        cell: ``(params, h, x) -> h``.
        loss: ``(params, h) -> scalar``, as a rule a mean over the rows of ``h``.
        params: any pytree.
        h0: state before the first step, a pytree of floats; as a rule with a first axis of rows.
        xs: pytree of ``(W, ...)``, what the steps read.

    Returns:
        a pytree like the state, of ``(W, ...)``, in the dtype of the state.

    Raises:
        ValueError: the cell changes what kind of state it is, no steps, or a loss that is no
            number.

    Reference: Aicher, Foti, Fox 2019, arXiv 1905.07473.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> decay = lambda params, h, x: params * h + x
        >>> gradients = recurrent.lag_gradients(
        ...     decay, lambda params, h: h.sum(), 0.5, jnp.zeros(1), jnp.ones((4, 1))
        ... )
        >>> gradients[:, 0].tolist()
        [1.0, 0.5, 0.25, 0.125]
    """
    check_function("loss", loss, "a function (params, h) -> scalar")
    h0, xs, length = as_unrolled(cell, params, h0, xs)

    def last_loss(probes: Any) -> jax.Array:
        def step(h: Any, inputs: tuple[Any, Any]) -> tuple[Any, None]:
            x, probe = inputs
            return jax.tree.map(jnp.add, cell(params, h, x), probe), None

        h, _ = jax.lax.scan(step, h0, (xs, probes))
        return check_scalar(loss(params, h))

    zeros = jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), h0)
    return jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), jax.grad(last_loss)(zeros))


def lag_norms(gradients: Any, *, rows: int) -> LagNorms:
    """Give the mean size of the gradients at every lag, and of their sum over the lags so far.

    With ``g[k, i]`` the gradient of row i at lag k, all arrays of the state together, times
    ``rows``::

        phi[k] = mean_i |g[k, i]|            cum[K - 1] = | mean_i sum_{k < K} g[k, i] |

    Args:
        gradients: pytree of ``(W, n, ...)`` from :func:`lag_gradients`, a row of the batch in each
            of the n.
        rows: how many rows the loss is the mean of, which it divides their gradients by; 1 where it
            is their sum. It is n unless several positions stand side by side.

    Returns:
        :class:`LagNorms`, float32 or wider.

    Raises:
        ValueError: no array, or arrays that do not share two first axes.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> norms = recurrent.lag_norms(jnp.array([[1.0, -1.0], [0.5, 0.5]]) / 2, rows=2)
        >>> norms.phi.tolist(), norms.cum.tolist()
        ([1.0, 0.5], [0.0, 0.5])
    """
    rows = checks.check_count("rows", rows, least=1)
    leaves = [as_array("gradients", leaf) for leaf in jax.tree.leaves(gradients)]
    shapes = [leaf.shape for leaf in leaves]
    first = {shape[:2] for shape in shapes}
    checks.require(
        len(first) == 1 and all(len(two) == 2 and min(two) > 0 for two in first),
        f"gradients of shapes {shapes}",
        "arrays (W, n, ...) with the same W lags and n rows",
        "give the state a first axis of rows, of length 1 for a single one",
    )
    dtype = wide_dtype(*leaves)
    flat = [leaf.astype(dtype).reshape(*leaf.shape[:2], -1) for leaf in leaves]
    whole, shares = jnp.concatenate(flat, axis=-1), jnp.asarray(rows / flat[0].shape[1], dtype)
    # Times rows and over n at the end: in between the product could overflow.
    sums = jnp.cumsum(jnp.sum(whole, axis=1) * shares, axis=0)
    return LagNorms(jnp.sum(lengths(whole), axis=1) * shares, lengths(sums))


def lengths(vectors: jax.Array) -> jax.Array:
    """Give the lengths of the vectors along the last axis, whose derivative at 0 is 0."""
    # Squares of what is left after a hundred lags are below all floats: scaled first.
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(vectors)), axis=-1, initial=0)
    unit = unit_of(largest)
    squares = jnp.sum(jnp.square(in_units(vectors, unit[..., None])), axis=-1)
    # A root has no derivative at 0: take it at 1 there and discard the result (double where).
    roots = jnp.sqrt(jnp.where(squares == 0, 1, squares))
    found = jnp.where(squares == 0, 0, roots) * unit
    return jnp.where(largest == jnp.inf, largest, found)
