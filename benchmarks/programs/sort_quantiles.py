"""Values read off softly sorted keys, with their gradient."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax.sort import soft_largest, soft_quantile, soft_sort

LEVELS = 0.05, 0.25, 0.5, 0.75, 0.95
LARGEST, LISTS = 10, 1000

Read = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps keys ``(n,)`` and the list of each to some values."""


def methods() -> dict[str, Read]:
    """Name what is compared; the first is the measure of the others."""
    return {
        "soft_sort": lambda keys, ids: soft_sort(keys, keys),
        "soft_quantile, 5": lambda keys, ids: soft_quantile(keys, jnp.array(LEVELS)),
        f"soft_largest, {LARGEST}": lambda keys, ids: soft_largest(keys, LARGEST),
        "soft_sort, 1000 lists": lambda keys, ids: soft_sort(keys, keys, segment_ids=ids),
        "soft_quantile, 5, 1000 lists": lambda keys, ids: soft_quantile(
            keys, jnp.array(LEVELS), segment_ids=ids, num_segments=LISTS
        ),
        "jnp.quantile, 5 (exact)": lambda keys, ids: jnp.quantile(keys, jnp.array(LEVELS)),
    }


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Time and weigh all of them at one size."""
    n = facts["n"]
    keys = jax.random.normal(jax.random.key(0), (n,))
    ids = jax.random.randint(jax.random.key(1), (n,), 0, LISTS)
    programs, lines = {}, {}
    for name, read in methods().items():

        def loss(keys: jax.Array, ids: jax.Array, read: Read = read) -> jax.Array:
            return jnp.sum(jnp.square(read(keys, ids)))

        program, seconds = compiled(jax.value_and_grad(loss), keys, ids)
        programs[name] = partial(program, keys, ids)
        lines[name] = {"bytes": temporary_bytes(program), "compile_seconds": round(seconds, 2)}
    times = interleaved(programs, repeats=asked.repeats)

    def line(name: str) -> Line:
        # Lists are compared with a sort of lists.
        sort = "soft_sort, 1000 lists" if "lists" in name else "soft_sort"
        ratio = times[name] / times[sort]
        return {"method": name, "milliseconds": round(times[name], 4), "ratio": round(ratio, 4)}

    return [line(name) | rest for name, rest in lines.items()]
