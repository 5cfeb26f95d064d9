"""Time and memory of a training step against the number of tuples: n tuples on n x n cells.

    python benchmarks/scaling.py            measure and draw
    python benchmarks/scaling.py --table    only print the table

One JSON line per way and size: median milliseconds of a step (batch 64, 4 global and 4 local points
per tuple, forward, gradient and Adam), bytes of temporary memory as the compiler plans them, and
seconds of compilation. The ways: the table of proportions at once, in blocks, nearby points only
(radius and capacities by ``fit_locality``, for the wide tuples at the start of training, of which
each may miss a thousandth), and for comparison a dense n x n matrix that is learned.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from report import Report, interleaved, read_lines

from sparse_hyper_jax import ops

NAME = "scaling"
FIGURE = Path(__file__).parent.parent / "docs" / "scaling.png"
BATCH = 64
SAMPLING = {"num_global": 4, "num_local": 4, "region": (4, 4)}
LARGEST = {"table at once": 2**10, "blocks": 2**13, "nearby": 2**17, "dense matrix": 2**13}
COLOURS = {
    "table at once": "#fd8d3c",
    "blocks": "#4292c6",
    "nearby": "#005a32",
    "dense matrix": "#969696",
}
OPTIMIZER = optax.adam(0.005)

Problem = tuple[Any, Callable[[Any, jax.Array], jax.Array]]
"""Initial parameters, and the loss of parameters and a key."""


def bound(size: int, raw: dict[str, jax.Array]) -> ops.ContinuousTuples:
    """Bound raw parameters; all values are 1."""
    shape = (size, size)
    means = ops.bound_means(raw["means"], shape)
    return ops.ContinuousTuples(
        means, ops.bound_variances(raw["spreads"], shape), jnp.ones(len(means))
    )


def sparse_problem(way: str, size: int) -> Problem:
    """Learn the identity with as many tuples as it has rows."""
    means_key, spreads_key, fit_key = jax.random.split(jax.random.key(0), 3)
    raw = {
        "means": jax.random.normal(means_key, (size, 2)),
        "spreads": jax.random.normal(spreads_key, (size,)),
    }
    options: dict[str, Any] = {"block_size": size} if way == "table at once" else {}
    if way == "nearby":
        # Little room: these tuples hardly move while they are timed.
        fitted = ops.fit_locality(fit_key, bound(size, raw), (size, size), slack=1.1, **SAMPLING)
        options = {"locality": fitted}

    def loss(raw: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        input_key, sample_key = jax.random.split(key)
        x = jax.random.normal(input_key, (size, BATCH))
        y = ops.hyperlayer(sample_key, bound(size, raw), x, (size,), **SAMPLING, **options)
        return jnp.mean(jnp.square(y - x))

    return raw, loss


def dense_problem(size: int) -> Problem:
    """Learn the identity as a dense matrix."""

    def loss(matrix: jax.Array, key: jax.Array) -> jax.Array:
        x = jax.random.normal(key, (size, BATCH))
        return jnp.mean(jnp.square(matrix @ x - x))

    return jnp.zeros((size, size)), loss


def measure(way: str, size: int, report: Report) -> None:
    """Write the line of one way and size."""
    start = time.perf_counter()
    parameters, loss = dense_problem(size) if way == "dense matrix" else sparse_problem(way, size)
    fit_seconds = time.perf_counter() - start

    def step(parameters: Any, moments: Any, key: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(parameters, key)
        updates, moments = OPTIMIZER.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, value

    arguments = (parameters, OPTIMIZER.init(parameters), jax.random.key(1))
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    state = [*arguments[:2], None]

    def advance() -> jax.Array:
        state[:] = compiled(*state[:2], arguments[2])
        return state[2]

    repeats = max(3, min(20, 2**15 // size))
    milliseconds = interleaved({"step": advance}, repeats=repeats)["step"]
    if not np.isfinite(float(state[2])):
        raise FloatingPointError(f"found a loss of {state[2]} with {way} at n={size}")
    report.add(
        way=way,
        size=size,
        milliseconds=round(milliseconds, 3),
        temporary_bytes=int(compiled.memory_analysis().temp_size_in_bytes),
        compile_seconds=round(compile_seconds, 2),
        fit_seconds=round(fit_seconds, 2),
    )


def sizes_of(way: str) -> list[int]:
    """Give powers of two, and a round number for the way that gets so far."""
    powers = [2**power for power in range(4, LARGEST[way].bit_length())]
    return sorted([*powers, 100_000]) if way == "nearby" else powers


def lines_of(way: str) -> list[dict[str, Any]]:
    """Read the lines of one way, smallest size first."""
    return sorted(
        (line for line in read_lines(NAME) if line["way"] == way), key=lambda line: line["size"]
    )


def exponent(way: str, quantity: str) -> float:
    """Fit the power of n with which a quantity grows over the last four sizes."""
    points = [(line["size"], line[quantity]) for line in lines_of(way)][-4:]
    sizes, numbers = np.log(np.array(points)).T
    return float(np.polyfit(sizes, numbers, 1)[0])


def rounded(number: float) -> str:
    """Write two or three digits that count, without an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def table() -> str:
    """Write milliseconds and MiB of every way at chosen sizes, and how they grow."""
    shown = (2**8, 2**10, 2**12, 2**13, 100_000)
    head = "".join(f" n = {size:,} |" for size in shown)
    rows = [f"| way |{head} time | memory |", "|---" * (len(shown) + 3) + "|"]
    for way in LARGEST:
        lines = {line["size"]: line for line in lines_of(way)}
        cells = [
            f"{rounded(lines[n]['milliseconds'])} ms, "
            f"{rounded(lines[n]['temporary_bytes'] / 2**20)} MiB"
            if n in lines
            else "-"
            for n in shown
        ]
        powers = [f"n^{exponent(way, name):.1f}" for name in ("milliseconds", "temporary_bytes")]
        rows.append(f"| {way} | {' | '.join([*cells, *powers])} |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw time and memory against the number of tuples."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for way, colour in COLOURS.items():
        lines = lines_of(way)
        sizes = [line["size"] for line in lines]
        style = {"color": colour, "marker": "o", "markersize": 3.5, "label": way}
        axes[0].plot(sizes, [line["milliseconds"] for line in lines], **style)
        axes[1].plot(sizes, [line["temporary_bytes"] / 2**20 for line in lines], **style)
    names = ("milliseconds per training step", "temporary memory, MiB")
    for one, name in zip(axes, names, strict=True):
        one.set_xscale("log", base=2)
        one.set(yscale="log", xlabel="tuples n, on n x n cells", ylabel=name)
        one.grid(visible=True, color="0.9", linewidth=0.6)
        one.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--draw", action="store_true", help="print the table and draw")
    asked = parser.parse_args()
    if not (asked.table or asked.draw):
        report = Report(NAME)
        for way in LARGEST:
            for size in sizes_of(way):
                measure(way, size, report)
    print(table())
    if not asked.table:
        draw().savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
