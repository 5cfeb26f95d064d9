"""The bias of one split of four keys by drawn halvings."""

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax.sort import half_split

DRAWS, CERTAINTY = 100_000, 2.0


def measure(facts: Facts, asked: Asked) -> Line:
    """Compare the mean split with that of all six halvings."""
    keys, draws = jax.random.normal(jax.random.key(0), (4,)), jax.random.key(1)

    def split(key: jax.Array, candidates: int, near: int) -> jax.Array:
        options = {"num_candidates": candidates, "num_near": near, "certainty": CERTAINTY}
        return half_split(key, keys, jnp.eye(4), **options)[1]

    exact = split(draws, 6, 0)
    one = partial(split, candidates=facts["num_candidates"], near=facts["num_near"])
    count = 2 if asked.tiny else DRAWS
    drawn = jax.jit(jax.vmap(one))(jax.random.split(draws, count))
    length = jnp.linalg.norm(exact)
    bias = jnp.linalg.norm(drawn.mean(0) - exact) / length
    noise = jnp.sqrt(jnp.sum(drawn.var(0)) / count) / length
    return {"error": round(float(bias), 4), "noise": round(float(noise), 4)}
