"""Value and gradient of a quadratic form by every estimator, for a batch of instances."""

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax.estimators import (
    ARS,
    ARSM,
    REBAR,
    RLOO,
    Estimator,
    GumbelStraightThrough,
    ScoreFunction,
    Subset,
    WithoutReplacement,
)

BATCH = 64
WIDTH = 32
ESTIMATORS: dict[str, Estimator] = {
    "ScoreFunction": ScoreFunction(),
    "RLOO(4)": RLOO(4),
    "RLOO(16)": RLOO(16),
    "ARS": ARS(),
    "ARSM": ARSM(),
    "WithoutReplacement(4)": WithoutReplacement(4),
    "Subset(5)": Subset(5),
    "REBAR": REBAR(),
    "GumbelStraightThrough": GumbelStraightThrough(),
}


def quadratic_form(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Give ``|x W|^2 / K`` for rows ``(K, C)``, flattened to ``x``."""
    return jnp.sum(jnp.square(rows.reshape(-1) @ weights)) / len(rows)


def flops(variables: int, classes: int) -> int:
    """Count the operations of one evaluation: the product, then squares and their sum."""
    return 2 * variables * classes * WIDTH + 2 * WIDTH


def estimates(
    estimator: Estimator, keys: jax.Array, logits: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Give values ``(64,)`` and gradients ``(64, K, C)``."""

    def f(z: jax.Array) -> jax.Array:
        rows = z if estimator.relaxed else jax.nn.one_hot(z, logits.shape[-1])
        return quadratic_form(weights, rows)

    return jax.vmap(lambda key, logits: estimator.estimate(key, logits, f)[:2])(keys, logits)


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Measure all estimators, which take turns, on arguments from fixed seeds."""
    variables, classes = facts["variables"], facts["classes"]
    key = jax.random.key(variables * classes)
    logits = jax.random.normal(key, (BATCH, variables, classes))
    weights = jax.random.normal(jax.random.fold_in(key, 1), (variables * classes, WIDTH))
    arguments = (jax.random.split(key, BATCH), logits, weights)
    programs = {
        name: compiled(partial(estimates, estimator), *arguments)[0]
        for name, estimator in ESTIMATORS.items()
    }
    calls = {name: partial(program, *arguments) for name, program in programs.items()}
    times = interleaved(calls, repeats=asked.repeats)
    return [
        {
            "estimator": name,
            "batch": BATCH,
            "evaluations": estimator.evaluations((variables, classes)),
            "flops_per_evaluation": flops(variables, classes),
            "milliseconds": round(times[name], 4),
            "temporary_bytes": temporary_bytes(programs[name]),
        }
        for name, estimator in ESTIMATORS.items()
    ]
