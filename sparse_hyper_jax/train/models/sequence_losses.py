"""How one sorted sequence is compared with its right order, by three ways to get a gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.estimators import score_function_loss
from sparse_hyper_jax.sort import (
    cross_entropy,
    draw_sort,
    order_loss,
    quicksort,
    rank_loss,
    soft_sort,
    sort_loss,
    squared_error,
    standardise,
)

LOSSES = {
    "soft": ("order", "ranks", "plain"),
    "mixture": ("plain", "means", "separate"),
    "rloo": ("plain",),
}
"""What can be compared with each method."""


def sequence_loss(
    recipe: Any,
    key: jax.Array,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    certainty: jax.Array | float,
) -> jax.Array:
    """Compare one sequence, sorted by its keys, with the order of its labels.

    The recipe has ``n``, ``method``, ``loss``, ``payload`` and the options of the methods.
    """
    keys = standardise(keys)
    if recipe.loss == "order":
        return order_loss(keys, labels, certainty=certainty)
    if recipe.loss == "ranks":
        return rank_loss(keys, labels, certainty=certainty)
    payload = jnp.eye(recipe.n) if recipe.payload == "positions" else images
    target = payload[jnp.argsort(labels, stable=True)]
    if recipe.method == "soft":
        return jnp.mean(cross_entropy(soft_sort(keys, payload, certainty=certainty), target))
    options = {"num_candidates": recipe.num_candidates, "certainty": certainty}
    if recipe.method == "mixture":
        result = quicksort(key, keys, payload, target=target, num_near=recipe.num_near, **options)
        return sort_loss(result, target, kind=recipe.loss)

    def drawn_loss(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = draw_sort(key, keys, payload, **options)
        return jnp.mean(squared_error(drawn.payload, target)), drawn.log_probability

    drawn = jax.vmap(drawn_loss)(jax.random.split(key, recipe.num_samples))
    return score_function_loss(*drawn, baseline="leave_one_out")
