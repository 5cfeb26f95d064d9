"""A first-order linear recurrence along the leading axis, forwards and backwards, in ``O(n)``.

As a matrix, ``F = (I - A S)^-1`` with ``A`` the diagonal of decays and ``S`` the shift by one
place: lower triangular, ``F[p, q] = a[q + 1] * .. * a[p]``, full, and never built.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp


# Compiled once: what is solved below is made anew by every call.
@partial(jax.jit, inline=True)
def decaying_sums(decays: jax.Array, inputs: jax.Array) -> jax.Array:
    """Return ``y = F x``: ``y[p] = x[p] + decays[p] * y[p - 1]``, from the first row to the last.

    Args:
        decays: ``(n,)``; the first has nothing to act on. A decay of zero starts anew, whatever
            came before, NaN and infinities included, and takes no gradient.
        inputs: ``(n, ...)``.

    Returns:
        ``(n, ...)``; differentiable any number of times, forwards and in reverse.
    """
    return _solve(decays, inputs, _forwards, _backwards, _delayed)


@partial(jax.jit, inline=True)
def decaying_sums_ahead(decays: jax.Array, inputs: jax.Array) -> jax.Array:
    """Return ``y = F^T x``: ``y[p] = x[p] + decays[p + 1] * y[p + 1]``, from the last row up."""
    return _solve(decays, inputs, _backwards, _forwards, _advanced)


Recurrence = Callable[[jax.Array, jax.Array], jax.Array]


def _solve(
    decays: jax.Array,
    inputs: jax.Array,
    recur: Recurrence,
    transposed: Recurrence,
    neighbours: Recurrence,
) -> jax.Array:
    dtype = jnp.promote_types(decays.dtype, inputs.dtype)
    decays, inputs = decays.astype(dtype), inputs.astype(dtype)
    # Told that y solves a linear system whose transpose it can solve as well, JAX differentiates by
    # two more recurrences, instead of through every step of this one.
    return jax.lax.custom_linear_solve(
        lambda y: y - neighbours(decays, y),
        inputs,
        solve=lambda _, x: recur(decays, x),
        transpose_solve=lambda _, x: transposed(decays, x),
    )


def _weigh(decays: jax.Array, rows: jax.Array) -> jax.Array:
    """Return ``decays * rows``, where zero times anything is zero."""
    decays = decays.reshape(*decays.shape, *(1,) * (rows.ndim - decays.ndim))
    return jnp.where(decays == 0, 0, decays * rows)


def _delayed(decays: jax.Array, rows: jax.Array) -> jax.Array:
    """Return ``A S y``: what each row receives from the one before."""
    return jnp.concatenate([jnp.zeros_like(rows[:1]), _weigh(decays[1:], rows[:-1])])


def _advanced(decays: jax.Array, rows: jax.Array) -> jax.Array:
    """Return ``(A S)^T y``: what each row receives from the one after."""
    return jnp.concatenate([_weigh(decays[1:], rows[1:]), jnp.zeros_like(rows[:1])])


def _forwards(decays: jax.Array, inputs: jax.Array) -> jax.Array:
    return _recur(decays, inputs, reverse=False)


def _backwards(decays: jax.Array, inputs: jax.Array) -> jax.Array:
    shifted = jnp.concatenate([decays[1:], jnp.zeros_like(decays[:1])])
    return _recur(shifted, inputs, reverse=True)


def _recur(decays: jax.Array, inputs: jax.Array, *, reverse: bool) -> jax.Array:
    # A processor is fastest row by row: one pass over the memory. An accelerator needs the rows in
    # parallel, at the price of log2(n) passes.
    def row_by_row(decays: jax.Array, inputs: jax.Array) -> jax.Array:
        # Carries what rounding lost (Knuth's two-sum): a million numbers added one by one would
        # otherwise be off by a per cent in single precision.
        def step(carry: tuple[jax.Array, jax.Array], row: tuple[jax.Array, jax.Array]):
            before, lost = (_weigh(row[0], part) for part in carry)
            added = row[1] + lost
            total = before + added
            part = total - before
            lost = (before - (total - part)) + (added - part)
            return (total, lost), total

        start = jnp.zeros_like(inputs[0])
        return jax.lax.scan(step, (start, start), (decays, inputs), reverse=reverse)[1]

    def in_parallel(decays: jax.Array, inputs: jax.Array) -> jax.Array:
        def join(first: tuple[jax.Array, jax.Array], then: tuple[jax.Array, jax.Array]):
            cut = (first[0] == 0) | (then[0] == 0)
            decay = jnp.where(cut, 0, first[0] * then[0])
            return decay, then[1] + _weigh(then[0], first[1])

        factors = decays.reshape(-1, *(1,) * (inputs.ndim - 1))
        return jax.lax.associative_scan(join, (factors, inputs), reverse=reverse)[1]

    return jax.lax.platform_dependent(decays, inputs, cpu=row_by_row, default=in_parallel)
