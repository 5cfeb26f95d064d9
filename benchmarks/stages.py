"""Time and memory of each arrow and of the whole training step of the identity layer.

    python benchmarks/stages.py [--sizes 16 64 256 1024 4096]

One JSON line per size and stage: median milliseconds of the forward pass and of forward and
gradient, bytes of temporary memory as the compiler plans them, and for whole steps, many of which
are one dispatch, seconds of compilation and the peak memory of a process that does nothing else.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from report import Report, interleaved, read_lines, temporary_bytes

from sparse_hyper_jax import ops

NAME = "stages"
BATCH = 64
SAMPLING = {"num_global": 4, "num_local": 4, "region": (4, 4)}
SIZES = (16, 64, 128, 256, 512, 1024, 2048, 4096)
STEPS_PER_CALL = 20
LARGEST_TABLE = 512
"""Largest size whose whole table of proportions is timed; the steps never hold it."""


def inputs(size: int) -> dict[str, Any]:
    """Make what the stages take, from fixed seeds."""
    shape = (size, size)
    keys = jax.random.split(jax.random.key(0), 4)
    raw = {
        "means": jax.random.normal(keys[0], (size, 2)),
        "spreads": jax.random.normal(keys[1], (size,)),
    }
    means = ops.bound_means(raw["means"], shape)
    points = ops.sample_tuples(keys[2], means, shape, **SAMPLING).reshape(-1, 2)
    return {
        "raw": raw,
        "key": keys[2],
        "tuples": ops.ContinuousTuples(
            means, ops.bound_variances(raw["spreads"], shape), jnp.ones(size)
        ),
        "points": points,
        "mask": ops.first_occurrence(points, shape),
        "entries": jax.random.normal(keys[3], (len(points),)),
        "x": jax.random.normal(keys[3], (size, BATCH)),
    }


def stages(size: int) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], bool]]:
    """Name every stage: function, arguments, and whether it has a gradient."""
    shape, given = (size, size), inputs(size)
    tuples, points, mask = given["tuples"], given["points"], given["mask"]

    def bounds(raw: dict[str, jax.Array]) -> Any:
        return ops.bound_means(raw["means"], shape), ops.bound_variances(raw["spreads"], shape)

    def sample(means: jax.Array) -> jax.Array:
        return ops.sample_tuples(given["key"], means, shape, **SAMPLING)

    def multiply(values: jax.Array, x: jax.Array) -> jax.Array:
        return ops.sparse_multiply(points, values, x, (size,))

    def proportions(means: jax.Array, variances: jax.Array) -> jax.Array:
        return ops.proportions(points, mask, means, variances)

    named = {
        "bounds": (bounds, (given["raw"],), True),
        "sample": (sample, (tuples.means,), False),
        "duplicates": (lambda points: ops.first_occurrence(points, shape), (points,), False),
        "proportions": (proportions, (tuples.means, tuples.variances), True),
        "mix": (lambda *tuples: ops.mix_values(points, mask, *tuples), tuple(tuples), True),
        "multiply": (multiply, (given["entries"], given["x"]), True),
    }
    return {k: v for k, v in named.items() if k != "proportions" or size <= LARGEST_TABLE}


def gradient_of(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Give value and gradient of the sum of squares of the outputs."""

    def scalar(*arguments: Any) -> jax.Array:
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(function(*arguments)))

    return jax.value_and_grad(scalar, argnums=tuple(range(count)))


def training_steps(size: int, count: int, state: Any, key: jax.Array) -> Any:
    """Run ``count`` training steps: batch 64, forward, gradient and Adam."""
    shape, optimizer = (size, size), optax.adam(0.005)

    def loss(raw: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        input_key, sample_key = jax.random.split(key)
        x = jax.random.normal(input_key, (size, BATCH))
        means = ops.bound_means(raw["means"], shape)
        variances = ops.bound_variances(raw["spreads"], shape)
        tuples = ops.ContinuousTuples(means, variances, jnp.ones(size))
        y = ops.hyperlayer(sample_key, tuples, x, (size,), **SAMPLING)
        return jnp.mean(jnp.square(y - x))

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        raw, moments = state
        value, gradient = jax.value_and_grad(loss)(raw, key)
        updates, moments = optimizer.update(gradient, moments, raw)
        return (optax.apply_updates(raw, updates), moments), value

    return jax.lax.scan(step, state, jax.random.split(key, count))


def initial(size: int) -> tuple[Any, jax.Array]:
    """Give the state and the key of :func:`training_steps`."""
    raw = inputs(size)["raw"]
    return (raw, optax.adam(0.005).init(raw)), jax.random.key(1)


def print_peak(size: int) -> None:
    """Train a little and print the peak memory of this process in bytes."""
    jax.block_until_ready(jax.jit(partial(training_steps, size, 2))(*initial(size)))
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure(size: int, repeats: int, report: Report) -> None:
    """Write the lines of one size."""
    for name, (function, arguments, has_gradient) in stages(size).items():
        timed = {"forward": jax.jit(function)}
        if has_gradient:
            timed["gradient"] = jax.jit(gradient_of(function, len(arguments)))
        calls = {kind: partial(call, *arguments) for kind, call in timed.items()}
        times = interleaved(calls, repeats=repeats)
        last = gradient_of(function, len(arguments)) if has_gradient else function
        report.add(
            size=size,
            stage=name,
            forward_ms=round(times["forward"], 4),
            gradient_ms=round(times["gradient"], 4) if has_gradient else None,
            temporary_bytes=temporary_bytes(last, *arguments),
        )
    count = max(1, min(STEPS_PER_CALL, 4096 // size))
    start = time.perf_counter()
    step = jax.jit(partial(training_steps, size, count)).lower(*initial(size)).compile()
    compile_seconds = time.perf_counter() - start
    calls = {"step": partial(step, *initial(size))}
    milliseconds = interleaved(calls, repeats=max(5, repeats // 4))["step"] / count
    peak = subprocess.run(
        [sys.executable, __file__, "--peak", str(size)], capture_output=True, text=True, check=True
    )
    report.add(
        size=size,
        stage="training step",
        gradient_ms=round(milliseconds, 4),
        compile_seconds=round(compile_seconds, 2),
        temporary_bytes=int(step.memory_analysis().temp_size_in_bytes),
        process_peak_bytes=int(peak.stdout),
    )


def table() -> str:
    """Write what a training step takes, by size."""
    lines = [line for line in read_lines(NAME) if line["stage"] == "training step"]
    named = {
        "n": [f"{line['size']:,}" for line in lines],
        "milliseconds": [f"{line['gradient_ms']:.3g}" for line in lines],
        "temporary memory, MiB": [f"{line['temporary_bytes'] / 2**20:.3g}" for line in lines],
        "peak of the process, MiB": [f"{line['process_peak_bytes'] / 2**20:.0f}" for line in lines],
        "seconds of compilation": [f"{line['compile_seconds']:.1f}" for line in lines],
    }
    rows = [f"| {name} | {' | '.join(cells)} |" for name, cells in named.items()]
    return "\n".join([rows[0], "|---" * (len(lines) + 1) + "|", *rows[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--peak", type=int, help="print the peak memory at this size and stop")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if asked.peak:
        print_peak(asked.peak)
        return
    if not asked.table:
        report = Report(NAME)
        for size in asked.sizes:
            measure(size, asked.repeats, report)
    print(table())


if __name__ == "__main__":
    main()
