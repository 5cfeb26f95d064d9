"""The products of a mixture of experts, forward and gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax.nn import Mixture

ROOM = 1.25
METHODS: dict[str, dict[str, Any]] = {
    "all": {"product": "all"},
    "ragged": {"product": "ragged"},
    "slots": {"product": "slots", "capacity_factor": ROOM},
}


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Time and weigh all of them at one number of experts."""
    tokens = jax.random.normal(jax.random.key(0), (facts["tokens"], facts["features"]))
    programs, lines = {}, {}
    for name, options in METHODS.items():
        mixture = Mixture(
            facts["features"],
            facts["hidden"],
            facts["features"],
            facts["experts"],
            router="top",
            num_chosen=facts["chosen"],
            rngs=nnx.Rngs(0),
            **options,
        )
        graph, parameters, rest = nnx.split(mixture, nnx.Param, ...)

        def loss(
            parameters: nnx.State, tokens: jax.Array, graph: Any = graph, rest: Any = rest
        ) -> jax.Array:
            return jnp.mean(jnp.square(nnx.merge(graph, parameters, rest)(tokens).y))

        program, seconds = compiled(jax.value_and_grad(loss), parameters, tokens)
        programs[name] = partial(program, parameters, tokens)
        lines[name] = {"bytes": temporary_bytes(program), "compile_seconds": round(seconds, 2)}
    times = interleaved(programs, repeats=asked.repeats)
    return [{"method": name, "milliseconds": round(times[name], 3)} | lines[name] for name in lines]
