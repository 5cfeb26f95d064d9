"""What each connection is worth: the loss without it, and what its gradient would say."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function
from sparse_hyper_jax.precision import at_least_float32


class Ablation(NamedTuple):
    """What ``k`` connections are worth, in units of the loss.

    Attributes:
        exact: ``(k,)``, by how much the loss rises without each one, the others as they are.
        first_order: ``(k,)``, the same as its gradient foretells, at the price of one pass.

    Example:
        >>> from sparse_hyper_jax import explain
        >>> found = explain.ablate(lambda v: (jnp.sum(v) - 4.0) ** 2, jnp.array([1.0, 2.0]))
        >>> found.exact.tolist(), found.first_order.tolist()
        ([3.0, 8.0], [2.0, 4.0])
    """

    exact: jax.Array
    first_order: jax.Array


def ablate(loss: Callable[[jax.Array], jax.Array], values: Any, *, batch_size: int = 1) -> Ablation:
    """Leave every connection out in turn, and see what the loss does.

    ``exact_j = loss(values without j) - loss(values)`` and ``first_order_j = -dloss/dvalues_j .
    values_j``. At a minimum the latter is near 0 for all, whatever they are worth: a gradient tells
    the gain of what is absent, not the loss of what is there. No retraining: what others would have
    taken over counts as lost.

    Args:
        loss: a function of the values, in hard mode and on data that was not trained on.
        values: ``(k, ...)`` values or weights; without a connection its row is 0. Values of edges
            ``(n, k)`` are flattened to ``(n k,)`` first, or a row is all edges of a node.
        batch_size: rows that are left out side by side, in as many times the memory; static.

    Returns:
        :class:`Ablation`.

    Raises:
        ValueError: a loss that is no real number, values without an axis.

    Example:
        >>> from sparse_hyper_jax import explain
        >>> x = jnp.array([1.0, 10.0, 0.0])
        >>> found = explain.ablate(lambda weights: jnp.square(weights @ x - 12.0), jnp.ones(3))
        >>> found.exact.tolist()
        [3.0, 120.0, 0.0]
    """
    check_function("loss", loss, "a function of the values")
    values = at_least_float32(as_array("values", values))
    batch_size = checks.check_count("batch_size", batch_size, least=1)
    checks.require(
        values.ndim >= 1, "values of shape ()", "a row for every connection", "pass (k, ...) values"
    )
    jax.eval_shape(lambda values: _number(loss(values)), values)
    whole, slopes = jax.value_and_grad(loss)(values)
    first_order = -jnp.sum(slopes * values, tuple(range(1, values.ndim)))

    def without(number: jax.Array) -> jax.Array:
        left = jnp.arange(len(values)) == number
        return loss(jnp.where(left.reshape(-1, *[1] * (values.ndim - 1)), 0, values))

    rest = jax.lax.map(without, jnp.arange(len(values)), batch_size=batch_size)
    return Ablation(rest - whole, first_order)


def _number(loss: Any) -> jax.Array:
    """Return what a loss gives, which has to be one real number."""
    loss = as_array("a loss", loss, "floats")
    checks.require(
        loss.shape == (), f"a loss of shape {loss.shape}", "one number", "sum or average it"
    )
    return loss
