"""Gradients over ranges of tuples: less memory, one relaxed range at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function, check_random_key
from sparse_hyper_jax.ops.device_axes import spread_alike
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import ContinuousTuples

Loss = Callable[[jax.Array, Any, Any, tuple[jax.Array, int]], jax.Array]


def accumulate_over_ranges(
    key: jax.Array,
    loss: Loss,
    tuple_parameters: Any,
    shared_parameters: Any,
    *,
    range_size: int,
    tuples_of: Callable[[Any], ContinuousTuples] | None = None,
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
        tuple_parameters: pytree of floats. Every leaf has one row per tuple, as the parts of
            continuous tuples have, so that their number ``k`` is known; else see ``tuples_of``.
        shared_parameters: pytree of floats.
        range_size: tuples relaxed per pass; divides ``k``.
        tuples_of: for other tuple parameters, such as those of a source network: the function that
            makes tuples of them. The loss then takes the tuples in their place.

    Returns:
        mean loss over the passes, gradient of ``tuple_parameters``, gradient of
        ``shared_parameters``.

    Raises:
        ValueError: a range size that does not divide the number of tuples, or parameters of which
            no number of tuples can be told.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> tuples = ops.ContinuousTuples(jnp.array([[0.4], [2.2]]), jnp.ones((2, 1)), jnp.ones(2))
        >>> def loss(key, tuples, bias, active):
        ...     entries = ops.relax(key, tuples, (4,), active=active)
        ...     return jnp.sum((ops.to_dense(entries, (4,)) + bias) ** 2)
        >>> of = jax.random.key(0), loss, tuples, jnp.zeros(4)
        >>> value, grad_tuples, grad_bias = ops.accumulate_over_ranges(*of, range_size=1)
        >>> grad_tuples.means.shape, grad_bias.shape
        ((2, 1), (4,))
    """
    check_random_key(key)
    check_function("loss", loss)
    if tuples_of is not None:
        check_function("tuples_of", tuples_of)
    tuple_parameters, shared_parameters = (
        jax.tree_util.tree_map_with_path(_enter, tree, is_leaf=lambda leaf: leaf is None)
        for tree in (tuple_parameters, shared_parameters)
    )
    make = (lambda given: given) if tuples_of is None else tuples_of
    count = _count_rows(jax.eval_shape(make, tuple_parameters))
    range_size = checks.check_count("range_size", range_size, least=1)
    checks.require(
        count % range_size == 0,
        f"{count} tuples in ranges of {range_size}",
        "a range size that divides the number of tuples",
        "change range_size",
    )
    passes = count // range_size

    def one_loss(tuple_parameters: Any, shared_parameters: Any, number: jax.Array) -> jax.Array:
        pass_key, active = jax.random.fold_in(key, number), (number * range_size, range_size)
        value = loss(pass_key, make(tuple_parameters), shared_parameters, active)
        value = as_array("loss", value, "floats")
        checks.check_shape("loss", value, (), "one number")
        return value

    def one_pass(number: jax.Array) -> Any:
        return jax.value_and_grad(one_loss, argnums=(0, 1))(
            tuple_parameters, shared_parameters, number
        )

    shapes = jax.eval_shape(one_pass, jnp.zeros((), jnp.int32))
    total = _sum_of(one_pass, passes, shapes, like=(tuple_parameters, shared_parameters))
    value, (grad_tuples, grad_shared) = total
    value, grad_shared = jax.tree.map(lambda leaf: leaf / passes, (value, grad_shared))
    results = (value, (grad_tuples, grad_shared))
    value, grads = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), results, shapes)
    return value, *grads


def _sum_of(one_pass: Callable[[jax.Array], Any], passes: int, shapes: Any, like: Any) -> Any:
    """Sum the results of all passes, spread over devices as the parameters are."""

    def add(total: Any, number: jax.Array) -> tuple[Any, None]:
        one = one_pass(number)
        return jax.tree.map(lambda sums, part: sums + part.astype(sums.dtype), total, one), None

    # At least float32: a sum over many passes would stand still in 16 bits.
    zeros = jax.tree.map(lambda leaf: at_least_float32(jnp.zeros(leaf.shape, leaf.dtype)), shapes)
    leaves, structure = jax.tree.flatten(zeros)
    start = structure.unflatten(spread_alike(*leaves, *jax.tree.leaves(like))[: len(leaves)])
    return jax.lax.scan(add, start, jnp.arange(passes, dtype=jnp.int32))[0]


def _enter(path: Any, leaf: Any) -> jax.Array:
    return as_array(f"parameter {jax.tree_util.keystr(path)}", leaf, "floats")


def _count_rows(tuples: Any) -> int:
    """Give the number of tuples: the one length that all leading axes have."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(tuples)]
    lengths = {shape[0] if shape else None for shape in shapes}
    checks.require(
        len(lengths) == 1 and None not in lengths and 0 not in lengths,
        f"tuple parameters of shapes {shapes}",
        "one row per tuple in each of them, and at least one tuple",
        "pass continuous tuples, or tuples_of, which makes them of other parameters",
    )
    return shapes[0][0]
