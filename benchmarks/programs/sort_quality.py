"""Train a key network with the loss of any differentiable sort."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.recipes import recipe_of
from benchmarks.runner import Asked
from benchmarks.sort_quality import TESTED
from sparse_hyper_jax.sort import exact_match, standardise
from sparse_hyper_jax.train.data import ClassIndex, make_sequences
from sparse_hyper_jax.train.recipes.sort import TEST_SEED, Keys, make_model, make_step

EVERY = 250
TEST, VALIDATION, PART = 1_000, 250, 50
"""Sequences of the longest kind; cut into pieces, they give more of the shorter ones."""

OURS: dict[str, dict[str, Any]] = {
    "order_loss": {},
    "quicksort": {"method": "mixture", "loss": "separate"},
}
"""What the recipe itself does."""

Matrix = Callable[[jax.Array, float], jax.Array]
"""Maps keys ``(n,)`` and a certainty to a relaxed permutation matrix, rows in ascending order."""


def matrix_of(method: str) -> Matrix:
    """Give a relaxation of softjax that makes a matrix."""
    import softjax

    options = {"method": method.removeprefix("softjax "), "standardize": False}
    return lambda keys, c: softjax.argsort(keys, axis=0, softness=1 / c, **options)


def entry_loss(
    matrix: Matrix,
    key: jax.Array,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    certainty: float,
) -> jax.Array:
    """Return the cross-entropy of a relaxed permutation at the true one's entries."""
    relaxed = matrix(standardise(keys), certainty)
    chosen = relaxed[jnp.arange(len(keys)), jnp.argsort(labels)]
    # Hardly bounded, so that entries next to zero keep their gradient.
    return -jnp.mean(jnp.log(jnp.maximum(chosen, 1e-37)))


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once; give validation along the way, and test accuracy at several lengths."""
    method, options = facts["method"], {name: facts[name] for name in facts if name != "method"}
    # Peers have no learned certainty, and too few steps are made to need warps.
    options |= {"learn_certainty": False, "warp": 0.0, "channels": (16, 32, 64)}
    recipe = recipe_of("sort", asked, data="mnist", **options, **OURS.get(method, {}))
    parts = recipe.load()
    keys_of, state = make_model(recipe, parts["train"].images.shape[1:])
    loss = None if method in OURS else partial(entry_loss, matrix_of(method))
    step = make_step(recipe, keys_of, loss)

    @jax.jit
    def steps(state: Any, keys: jax.Array, index: Any) -> Any:
        return jax.lax.scan(lambda state, key: step(state, key, index), state, keys)[0]

    right = jax.jit(partial(shares_right, keys_of, recipe.digits), static_argnums=2)
    every, curve = min(EVERY, recipe.steps), []
    keys = jax.random.split(jax.random.key(recipe.seed), (recipe.steps // every, every))
    for number, some in enumerate(keys):
        state = steps(state, some, parts["train"])
        shares = right(state.parameters.network, parts["validation"], VALIDATION)
        curve.append([(number + 1) * every, round(float(shares[str(recipe.n)]), 4)])
    test = right(state.parameters.network, parts["test"], TEST)
    test = {n: round(float(share), 4) for n, share in test.items()}
    return {"curve": curve, "validation": curve[-1][1], "test": test}


def shares_right(
    keys_of: Keys, digits: int, network: Any, index: ClassIndex, count: int
) -> dict[str, jax.Array]:
    """Give the share of sequences sorted exactly, of each length, from the same numbers."""

    def part(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        size = {"batch": PART, "length": max(TESTED), "digits": digits}
        sequences = make_sequences(key, index, **size)
        return keys_of(network, sequences.images), sequences.labels

    keys, labels = jax.lax.map(part, jax.random.split(jax.random.key(TEST_SEED), count // PART))
    # Any piece of a random sequence of different numbers is one, too.
    return {
        str(n): jnp.mean(exact_match(keys.reshape(-1, n), labels.reshape(-1, n))) for n in TESTED
    }
