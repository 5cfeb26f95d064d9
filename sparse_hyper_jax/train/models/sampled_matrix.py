"""How far a sparse matrix is from the identity: sampled, by several estimators, and settled."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import dist
from sparse_hyper_jax.estimators import (
    ARM,
    ARSM,
    RLOO,
    Estimator,
    axis_choices,
    cell_choices,
    expectation,
    sample_cells,
    score_function_loss,
)
from sparse_hyper_jax.ops import (
    ContinuousTuples,
    SparseEntries,
    hyperlayer,
    hyperlayer_hard,
    round_means,
    sparse_multiply,
)

TEST_SEED = 2**31 - 1
TEST_INSTANCES = 10_000


Problem = Any
"""The recipe ``identity``: ``size``, ``batch``, ``sample_groups``, ``num_global``, ``num_local``,
``region``, ``chunk_size``, ``tuple_density``, ``method``, ``num_samples``, ``mesh``, and
``tuples(parameters)``, which bounds the parameters."""


def draw_inputs(recipe: Problem, key: jax.Array) -> jax.Array:
    """Draw a batch of standard normal vectors, ``(n, batch)``: the batch as the last axis."""
    x = jax.random.normal(key, (recipe.size, recipe.batch))
    return x if recipe.mesh is None else dist.shard_batch(x, dist.make_mesh(recipe.mesh))


def relaxed_loss(recipe: Problem, key: jax.Array, parameters: Mapping[str, jax.Array]) -> jax.Array:
    """Mean squared error of sampled sparse matrices, one per group of the batch."""
    input_key, sample_key = jax.random.split(key)
    tuples = recipe.tuples(parameters)
    multiply = hyperlayer
    if recipe.mesh is not None:
        multiply = partial(dist.hyperlayer, mesh=dist.make_mesh(recipe.mesh))

    options = sampling_of(recipe)

    def group_loss(key: jax.Array, x: jax.Array) -> jax.Array:
        y = multiply(key, tuples, x, (recipe.size,), chunk_size=recipe.chunk_size, **options)
        return jnp.mean(jnp.square(y - x))

    x = draw_inputs(recipe, input_key)
    if recipe.sample_groups == 1:
        return group_loss(sample_key, x)
    groups = jnp.stack(jnp.split(x, recipe.sample_groups, axis=1))
    keys = jax.random.split(sample_key, recipe.sample_groups)
    return jnp.mean(jax.vmap(group_loss)(keys, groups))


def reinforce_loss(
    recipe: Problem, key: jax.Array, parameters: Mapping[str, jax.Array]
) -> jax.Array:
    """Surrogate of the mean squared error when every instance draws one cell per tuple."""
    input_key, sample_key = jax.random.split(key)
    x = draw_inputs(recipe, input_key).T
    means, variances, values = recipe.tuples(parameters)

    def instance(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        cells, log_probability = sample_cells(key, means, variances, (recipe.size,) * 2)
        y = sparse_multiply(cells, values, x, (recipe.size,))
        return jnp.mean(jnp.square(y - x)), log_probability

    keys = jax.random.split(sample_key, recipe.batch)
    return score_function_loss(*jax.vmap(instance)(keys, x))


def sampling_of(recipe: Problem) -> dict[str, Any]:
    """Give the options of sampling."""
    return {
        "num_global": recipe.num_global,
        "num_local": recipe.num_local,
        "region": (recipe.region,) * 2,
        "density": recipe.tuple_density,
    }


def choice_loss(recipe: Problem, key: jax.Array, parameters: Mapping[str, jax.Array]) -> jax.Array:
    """Expected squared error when every tuple picks one of its points, for every vector anew."""
    input_key, sample_key = jax.random.split(key)
    x = draw_inputs(recipe, input_key).T
    tuples = recipe.tuples(parameters)
    shape = (recipe.size, recipe.size)
    estimators: dict[str, Estimator] = {
        "rloo": RLOO(recipe.num_samples),
        "arsm": ARSM(),
        "arm": ARM(),
    }
    estimator = estimators[recipe.method]

    def instance(key: jax.Array, x: jax.Array) -> jax.Array:
        points_key, draw_key = jax.random.split(key)
        if recipe.method == "arm":
            choices = axis_choices(tuples, shape)
        else:
            choices = cell_choices(points_key, tuples, shape, **sampling_of(recipe))

        def error(classes: jax.Array) -> jax.Array:
            cells = choices.pick(classes).reshape(recipe.size, 2)
            y = sparse_multiply(cells, tuples.values, x, (recipe.size,))
            return jnp.mean(jnp.square(y - x))

        return expectation(draw_key, choices.logits, error, estimator=estimator)

    return jnp.mean(jax.vmap(instance)(jax.random.split(sample_key, recipe.batch), x))


def value_gradients(
    recipe: Problem, key: jax.Array, entries: SparseEntries, *, batches: int = 1
) -> jax.Array:
    """Differentiate the error of a sparse matrix by its values, on several batches.

    Args:
        recipe: the problem.
        key: draws the batches.
        entries: ``n`` of the matrix.
        batches: their number.

    Returns:
        ``(batches, n)``.
    """

    def of_batch(key: jax.Array) -> jax.Array:
        x = draw_inputs(recipe, key)

        def loss(values: jax.Array) -> jax.Array:
            y = sparse_multiply(entries.indices, values, x, (recipe.size,))
            return jnp.mean(jnp.square(y - x))

        return jax.grad(loss)(entries.values)

    if batches == 1:
        return of_batch(key)[None]
    return jax.lax.map(of_batch, jax.random.split(key, batches))


def gains_of_all(
    recipe: Problem, key: jax.Array, entries: SparseEntries, *, batches: int = 1
) -> jax.Array:
    """Measure what more weight on every cell gains: a dense gradient, ``(size, size)``.

    Args:
        recipe: the problem.
        key: draws the batches.
        entries: those of the matrix so far.
        batches: over which to average.
    """

    def of_batch(key: jax.Array) -> jax.Array:
        x = draw_inputs(recipe, key)
        y = sparse_multiply(entries.indices, entries.values, x, (recipe.size,))
        return 2 * (x - y) @ x.T / x.size

    return jax.lax.map(of_batch, jax.random.split(key, batches)).mean(axis=0)


Loss = Callable[[Problem, jax.Array, Mapping[str, jax.Array]], jax.Array]
LOSSES: dict[str, Loss] = {
    "hyperlayer": relaxed_loss,
    "reinforce": reinforce_loss,
    "rloo": choice_loss,
    "arsm": choice_loss,
    "arm": choice_loss,
}
"""By the name of the method."""


@jax.jit
def measure_on_device(tuples: ContinuousTuples, key: jax.Array) -> dict[str, jax.Array]:
    """Evaluate rounded tuples: error on fresh vectors, number of diagonal cells found."""
    size = len(tuples.values)
    x = jax.random.normal(key, (size, TEST_INSTANCES))
    y = hyperlayer_hard(tuples, x, (size,))
    row, column = round_means(tuples.means, (size, size)).T
    found = jnp.zeros(size, bool).at[row].max(row == column)
    return {"mse": jnp.mean(jnp.square(y - x)), "cells_found": jnp.sum(found)}


def measure(tuples: ContinuousTuples) -> dict[str, float]:
    """Evaluate rounded tuples on the host; see :func:`measure_on_device`.

    Args:
        tuples: ``n`` continuous tuples on n x n cells.

    Returns:
        ``mse`` over 10,000 test vectors, and ``cells_found`` of the n on the diagonal.
    """
    # An argument: with a key that it knows, XLA draws the vectors while it compiles, slowly.
    figures = jax.device_get(measure_on_device(tuples, jax.random.key(TEST_SEED)))
    return {"mse": float(figures["mse"]), "cells_found": int(figures["cells_found"])}
