"""The training step of the identity layer on meshes of several devices.

    python benchmarks/shard.py [--sizes 128 512] [--ways dist jit] [--devices 8]

One JSON line per size, mesh and way: median milliseconds of a step (batch 64, forward, gradient and
Adam), bytes of the results of each kind of exchange as the compiler plans them, and bytes of
temporary memory, both per device. The ways: ``dist`` is ``dist.hyperlayer``, ``jit`` leaves the
division of ``ops.hyperlayer`` to the compiler.

On a CPU the devices are fake: threads of one processor that share its cores. Times then show what
the exchange costs, and that it costs little; no mesh is faster than one device there. Bytes and
memory are those of real devices.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from report import Report, interleaved, read_lines

from sparse_hyper_jax import dist, ops

NAME = "shard"
BATCH = 64
SAMPLING = {"num_global": 4, "num_local": 4, "region": (4, 4)}
STEPS_PER_CALL = 10
MESHES = ((1, 1), (2, 1), (1, 2), (2, 2), (1, 4), (4, 2), (2, 4), (1, 8))
"""Lengths of ``data`` and ``tuples``."""

WAYS = ("dist", "jit")
EXCHANGES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
BYTES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4}


def steps(way: str, axes: str, size: int) -> tuple[Callable[..., Any], tuple[Any, jax.Array]]:
    """Give some training steps as one function, and what it takes, placed on the mesh."""
    mesh, shape, optimizer = dist.make_mesh(axes), (size, size), optax.adam(0.005)
    multiply = partial(dist.hyperlayer, mesh=mesh) if way == "dist" else ops.hyperlayer

    def loss(raw: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        input_key, sample_key = jax.random.split(key)
        x = dist.shard_batch(jax.random.normal(input_key, (size, BATCH)), mesh)
        means = ops.bound_means(raw["means"], shape)
        variances = ops.bound_variances(raw["spreads"], shape)
        tuples = ops.ContinuousTuples(means, variances, jnp.ones(size))
        y = multiply(sample_key, tuples, x, (size,), **SAMPLING)
        return jnp.mean(jnp.square(y - x))

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        raw, moments = state
        value, gradient = jax.value_and_grad(loss)(raw, key)
        updates, moments = optimizer.update(gradient, moments, raw)
        return (optax.apply_updates(raw, updates), moments), value

    means_key, spreads_key = jax.random.split(jax.random.key(0))
    raw = {
        "means": jax.random.normal(means_key, (size, 2)),
        "spreads": jax.random.normal(spreads_key, (size,)),
    }
    state = dist.shard_tuples((raw, optimizer.init(raw)), mesh)

    def scan(state: Any, key: jax.Array) -> Any:
        return jax.lax.scan(step, state, jax.random.split(key, STEPS_PER_CALL))

    placed = (dist.tuple_shardings(state, mesh), None)
    return jax.jit(scan, out_shardings=placed), (state, jax.random.key(1))


def exchanged_bytes(compiled: Any) -> dict[str, int]:
    """Add up the results on one device by kind of exchange; the loop's body is one step."""
    total: Counter[str] = Counter()
    pattern = rf"= (.+?) ({'|'.join(EXCHANGES)})(?:-start)?\("
    for results, kind in re.findall(pattern, compiled.as_text()):
        for dtype, lengths in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", results):
            total[kind] += BYTES[dtype] * math.prod(map(int, filter(None, lengths.split(","))))
    return dict(sorted(total.items()))


def measure(size: int, meshes: list[str], ways: list[str], repeats: int, report: Report) -> None:
    """Write the lines of one size."""
    calls, facts = {}, {}
    for axes in meshes:
        for way in ways:
            function, arguments = steps(way, axes, size)
            compiled = function.lower(*arguments).compile()
            calls[way, axes] = partial(compiled, *arguments)
            facts[way, axes] = {
                "exchanged_bytes": exchanged_bytes(compiled),
                "temporary_bytes": int(compiled.memory_analysis().temp_size_in_bytes),
            }
    times = interleaved(calls, repeats=repeats)
    for (way, axes), time in times.items():
        devices = dist.make_mesh(axes).size
        line = {"size": size, "way": way, "mesh": axes, "devices": devices}
        report.add(**line, step_ms=round(time / STEPS_PER_CALL, 3), **facts[way, axes])


def table() -> str:
    """Write milliseconds by size, and bytes at the largest size, of every way and mesh."""
    lines = read_lines(NAME)
    sizes = sorted({line["size"] for line in lines})
    head = "".join(f" n = {size}, ms |" for size in sizes)
    rows = [f"| way | mesh |{head} exchanged, KiB | memory, MiB |", "|---" * (len(sizes) + 4) + "|"]
    for way, axes in dict.fromkeys((line["way"], line["mesh"]) for line in lines):
        found = {line["size"]: line for line in lines if (line["way"], line["mesh"]) == (way, axes)}
        cells = [f"{found[size]['step_ms']:.3g}" if size in found else "-" for size in sizes]
        last = found[max(found)]
        cells.append(f"{sum(last['exchanged_bytes'].values()) / 2**10:,.0f}")
        cells.append(f"{last['temporary_bytes'] / 2**20:.2g}")
        rows.append(f"| {way} | {axes} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--devices", type=int, default=8, help="fake ones, on a CPU")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if asked.table:
        print(table())
        return
    jax.config.update("jax_num_cpu_devices", asked.devices)
    report = Report(NAME)
    for size in asked.sizes:
        fitting = [
            f"data={data},tuples={tuples}"
            for data, tuples in MESHES
            if data * tuples <= len(jax.devices()) and size % tuples == 0
        ]
        measure(size, fitting, asked.ways, asked.repeats, report)
    print(table())


if __name__ == "__main__":
    main()
