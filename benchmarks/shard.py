"""The training step of the identity layer on meshes of several devices.

One line per size, mesh and way: median milliseconds of a step (batch 64, forward, gradient and
Adam), bytes of the results of each kind of exchange as the compiler plans them, and bytes of
temporary memory, both per device. The ways: ``dist`` is ``dist.hyperlayer``, ``jit`` leaves the
division of ``ops.hyperlayer`` to the compiler.

On a CPU the devices are fake: threads of one processor that share its cores. Times then show what
the exchange costs, and that it costs little; no mesh is faster than one device there. Bytes and
memory are those of real devices.
"""

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, one, table

DEVICES = 8


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Make the devices before there are others, then measure."""
    import jax

    jax.config.update("jax_num_cpu_devices", DEVICES)
    return program("shard")(facts, asked)


def write(lines: Lines) -> str:
    """Write milliseconds by size, and bytes at the largest size, of every way and mesh."""
    sizes = sorted(lines.each("size"))
    largest = {"size": sizes[-1]}
    columns = [
        *(Column(f"n = {size}, ms", "step_ms", one(".3g"), {"size": size}) for size in sizes),
        Column("exchanged, KiB", exchanged, one(",.0f"), largest),
        Column("memory, MiB", lambda line: line["temporary_bytes"] / 2**20, one(".2g"), largest),
    ]
    places = dict.fromkeys((line["way"], line["mesh"]) for line in lines)
    return table(
        ["way", "mesh"],
        ((place, lines.where(way=place[0], mesh=place[1])) for place in places),
        columns,
    )


def exchanged(line: Line) -> float:
    """Give the KiB of all exchanges."""
    return sum(line["exchanged_bytes"].values()) / 2**10


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(size=[128, 512]),
    measure=measure,
    tiny=[{"size": 8}],
    table=write,
    repeats=10,
)
