"""The multiply and the training step on an accelerator, against the memory's own speed.

    python benchmarks/gpu.py [--smoke]

One JSON line per claim. ``copy``: bytes per second of a device-to-device copy, read and written.
``multiply``: milliseconds of ``W x`` and of its gradients for a batch of 64, and the bytes that the
entries, the rows that they gather and the output take, per second and as a share of the copy's
speed. ``step``: milliseconds of a training step of the identity layer. On a CPU it stops, because
the other scripts are for that; ``--smoke`` runs it anyway, with small sizes and without a file.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import stages
from multiply import make_entries
from report import Report, interleaved

from sparse_hyper_jax.ops import sparse_multiply

BATCH = 64
FULL = {
    "copied": 2**28,
    "multiply": [(10**5, 10**6), (10**6, 10**7), (10**6, 3 * 10**7)],
    "steps": [64, 256, 1024, 4096, 16384],
}
SMOKE = {"copied": 2**20, "multiply": [(1_000, 10_000)], "steps": [64]}


def copy_speed(count: int, repeats: int) -> float:
    """Measure bytes per second that a copy of ``count`` floats reads and writes."""
    array = jnp.arange(count, dtype=jnp.float32)
    # Plus one: a copy of nothing but itself would be left out.
    copy = jax.jit(lambda array: array + 1)
    milliseconds = interleaved({"copy": partial(copy, array)}, repeats=repeats)["copy"]
    return 8 * count / (milliseconds / 1e3)


def multiply_bytes(size: int, count: int) -> int:
    """Count what a product has to move: indices, values, gathered rows and the output."""
    return 12 * count + 4 * BATCH * (count + size)


def multiply_calls(size: int, count: int) -> dict[str, Callable[[], Any]]:
    """Give the forward product and the one with its gradients."""
    entries = make_entries(size, count, seed=size)
    x = jax.random.normal(jax.random.key(0), (size, BATCH))

    def product(values: jax.Array, x: jax.Array) -> jax.Array:
        return sparse_multiply(entries.indices, values, x, (size,), indices_are_sorted=True)

    def loss(values: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(product(values, x)))

    gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    arguments = (entries.values, x)
    return {
        "forward": partial(jax.jit(product), *arguments),
        "gradient": partial(gradients, *arguments),
    }


def measure(settings: dict[str, Any], repeats: int, add: Callable[..., None]) -> None:
    """Measure everything and hand over the lines."""
    speed = copy_speed(settings["copied"], repeats)
    add(claim="copy", bytes=8 * settings["copied"], bytes_per_second=speed)
    for size, count in settings["multiply"]:
        times = interleaved(multiply_calls(size, count), repeats=repeats)
        moved = multiply_bytes(size, count) / (times["forward"] / 1e3)
        line = {"claim": "multiply", "size": size, "entries": count, "batch": BATCH}
        line |= {f"{name}_ms": round(time, 4) for name, time in times.items()}
        add(**line, bytes_per_second=moved, share_of_copy=round(moved / speed, 3))
    for size in settings["steps"]:
        count = 20
        steps = jax.jit(partial(stages.training_steps, size, count))
        time = interleaved({"step": partial(steps, *stages.initial(size))}, repeats=repeats)["step"]
        add(claim="step", size=size, milliseconds=round(time / count, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes, on any device, no file")
    parser.add_argument("--repeats", type=int, default=10)
    asked = parser.parse_args()
    if asked.smoke:
        measure(SMOKE, 2, lambda **line: print(line))
        return
    if jax.default_backend() == "cpu":
        parser.error("found a CPU; expected a GPU or TPU; use stages.py and multiply.py here")
    report = Report("gpu")
    measure(FULL, asked.repeats, report.add)


if __name__ == "__main__":
    main()
