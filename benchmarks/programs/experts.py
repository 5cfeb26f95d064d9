"""The error of the expected gradient of a router, by enumeration."""

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax.estimators.routing import RULES, Rule

DEGREES = {"linear": 1, "quadratic": 2, "cubic": 3, "quartic": 4}


def measure(facts: Facts, asked: Asked) -> Line:
    """Give the medians over random problems."""
    keys = jax.random.split(jax.random.key(0), facts["problems"])
    one = partial(gradient_errors, RULES[facts["method"]], DEGREES[facts["loss"]])
    names = ("error_of_grad0", "error")
    return {n: float(jnp.median(e)) for n, e in zip(names, jax.vmap(one)(keys), strict=True)}


def gradient_errors(rule: Rule, degree: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the error of the expected gradient in units of grad0 and of the whole gradient."""
    keys = jax.random.split(key, 5)
    logits, outputs = jax.random.normal(keys[0], (8,)), jax.random.normal(keys[1], (8, 4))
    planes = jax.random.normal(keys[2], (6, 4))
    shifts, weights = (jax.random.normal(one, (6,)) for one in keys[3:])

    def loss(h: jax.Array) -> jax.Array:
        return jnp.sum(weights * (planes @ h - shifts) ** degree)

    def losses(gates: jax.Array) -> jax.Array:
        return jax.vmap(lambda gate, output: loss(gate * output))(gates, outputs)

    def expectation(logits: jax.Array) -> jax.Array:
        probabilities = jax.nn.softmax(logits)
        return probabilities @ losses(probabilities)

    def estimate(logits: jax.Array, rule: Rule) -> jax.Array:
        probabilities = jax.nn.softmax(logits)
        fixed = jax.lax.stop_gradient(probabilities)
        slope = rule.factor * (probabilities - fixed)
        coins = ((rule.whole, 1.0), (1 - rule.whole, rule.scale))
        return sum(chance * (fixed @ losses(scale * fixed + slope)) for chance, scale in coins)

    exact = jax.grad(expectation)(logits)
    dropped = exact - jax.grad(estimate)(logits, RULES["gate"])
    error = jnp.linalg.norm(jax.grad(estimate)(logits, rule) - exact)
    return error / jnp.linalg.norm(dropped), error / jnp.linalg.norm(exact)
