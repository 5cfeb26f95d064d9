"""The multiply and the training step, against a copy from device memory to device memory."""

from functools import cache, partial

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.programs.identity_step import BATCH, make_steps, raw_parameters, start
from benchmarks.programs.multiply import gradients, make_entries
from benchmarks.runner import Asked
from benchmarks.timing import interleaved
from sparse_hyper_jax.ops import sparse_multiply

COPIED, TINY_COPIED = 2**28, 2**20
STEPS_PER_CALL = 20


@cache
def copy_speed(count: int, repeats: int) -> float:
    """Measure bytes per second that a copy of ``count`` floats reads and writes."""
    # Plus one: a copy of nothing but itself would be left out.
    copy = partial(jax.jit(lambda array: array + 1), jnp.arange(count, dtype=jnp.float32))
    return 8 * count / (interleaved({"copy": copy}, repeats=repeats)["copy"] / 1e3)


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one claim."""
    size, count = facts.get("size", 0), TINY_COPIED if asked.tiny else COPIED
    speed = copy_speed(count, asked.repeats)
    if facts["claim"] == "copy":
        return {"bytes": 8 * count, "bytes_per_second": speed}
    if facts["claim"] == "multiply":
        return multiply(size, facts["entries"], speed, asked.repeats)
    steps = jax.jit(make_steps(STEPS_PER_CALL))
    call = partial(steps, start(raw_parameters(size)), jax.random.key(1))
    milliseconds = interleaved({"step": call}, repeats=asked.repeats)["step"]
    return {"milliseconds": round(milliseconds / STEPS_PER_CALL, 4)}


def multiply(size: int, count: int, speed: float, repeats: int) -> Line:
    """Time products, and compare what they move: indices, values, gathered rows and the output."""
    entries = make_entries(size, count, seed=size)
    arguments = (entries.values, jax.random.normal(jax.random.key(0), (size, BATCH)))

    def product(values: jax.Array, x: jax.Array) -> jax.Array:
        return sparse_multiply(entries.indices, values, x, (size,), indices_are_sorted=True)

    programs = {"forward": jax.jit(product), "gradient": jax.jit(gradients(product))}
    calls = {name: partial(program, *arguments) for name, program in programs.items()}
    times = interleaved(calls, repeats=repeats)
    moved = (12 * count + 4 * BATCH * (count + size)) / (times["forward"] / 1e3)
    return {
        **{f"{name}_ms": round(time, 4) for name, time in times.items()},
        "bytes_per_second": moved,
        "share_of_copy": round(moved / speed, 3),
    }
