"""Gradients over ranges of tuples: less memory, one relaxed range at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.precision import at_least_float32

Loss = Callable[[jax.Array, Any, Any, tuple[jax.Array, int]], jax.Array]


def accumulate_over_ranges(
    key: jax.Array,
    loss: Loss,
    tuple_parameters: Any,
    shared_parameters: Any,
    *,
    num_tuples: int,
    range_size: int,
) -> tuple[jax.Array, Any, Any]:
    """Sum a loss's gradients over passes that each relax one range of tuples.

    With ``m`` passes of ``range_size`` tuples the table of proportions shrinks by ``m**2``. Pass
    ``i`` relaxes its range and takes all other tuples rounded and constant, so the sum is a
    block-wise estimate of the gradient, not the gradient of one relaxed pass::

        grad tuple_parameters  = sum_i  d loss_i / d tuple_parameters
        grad shared_parameters = 1/m sum_i  d loss_i / d shared_parameters

    The mean in the second line: every pass contains the shared parameters once, so their plain sum
    would be ``m`` times too large. Parameters that reach the loss only through the tuples (free
    tuples, a source network) belong in the first group, all others (bias, other layers) in the
    second.

    Args:
        key: a typed key; pass ``i`` gets ``fold_in(key, i)``.
        loss: ``loss(key, tuple_parameters, shared_parameters, active) -> scalar``, which hands
            ``active`` to :func:`~sparse_hyper_jax.ops.hyperlayer`.
        tuple_parameters: pytree.
        shared_parameters: pytree.
        num_tuples: ``k``.
        range_size: tuples relaxed per pass; divides ``k``.

    Returns:
        mean loss over the passes, gradient of ``tuple_parameters``, gradient of
        ``shared_parameters``.

    Raises:
        ValueError: a range size that does not divide the number of tuples.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    checks.check_count("num_tuples", num_tuples, least=1)
    checks.check_count("range_size", range_size, least=1)
    checks.require(
        num_tuples % range_size == 0,
        f"{num_tuples} tuples in ranges of {range_size}",
        "a range size that divides the number of tuples",
        "change range_size",
    )
    passes = num_tuples // range_size

    def one_pass(number: jax.Array) -> Any:
        return jax.value_and_grad(loss, argnums=(1, 2))(
            jax.random.fold_in(key, number),
            tuple_parameters,
            shared_parameters,
            (number * range_size, range_size),
        )

    def add_pass(total: Any, number: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, one_pass(number)), None

    shapes = jax.eval_shape(one_pass, jnp.zeros((), jnp.int32))
    # At least float32: a sum over many passes would stand still in 16 bits.
    zeros = jax.tree.map(lambda leaf: at_least_float32(jnp.zeros(leaf.shape, leaf.dtype)), shapes)
    (value, (grad_tuples, grad_shared)), _ = jax.lax.scan(add_pass, zeros, jnp.arange(passes))
    value, grad_shared = jax.tree.map(lambda leaf: leaf / passes, (value, grad_shared))
    results = (value, (grad_tuples, grad_shared))
    value, grads = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), results, shapes)
    return value, *grads
