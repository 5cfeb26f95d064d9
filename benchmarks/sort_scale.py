"""Time and memory of differentiable sorts, forward and gradient, against the number of elements.

    python benchmarks/sort_scale.py            measure (needs idle cores; pip install -e ".[peers]")
    python benchmarks/sort_scale.py --draw     print the tables and draw

Keys and a payload of 16 numbers per element are sorted in ascending order; the gradient goes to
both. The peer, where it is installed, is softjax: two methods, a matrix each. (ott-jax is left out:
its transport of 256 elements was not done after 40 seconds.) Each method goes up to the size at
which it would take more than ``LIMIT_GIB``, or ``LIMIT_SECONDS`` to compile, or (by a guess)
minutes to run. Memory is what the compiled program needs beyond its inputs and outputs; times are
medians of interleaved calls.
"""

import argparse
import importlib.util
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from report import Report, interleaved, read_lines

from sparse_hyper_jax.sort import soft_sort

NAME = "sort_scale"
FIGURE = Path(__file__).parent.parent / "docs" / "sort_scale.png"
WIDTH, CERTAINTY = 16, 10.0
EXPONENTS = (4, 8, 10, 12, 14, 17, 20)
RATIO = {one: 2 ** (then - one) for one, then in itertools.pairwise(EXPONENTS)}
LIMIT_GIB, LIMIT_SECONDS = 4.0, 30.0
COLOURS = ("#b2182b", "#f4a582", "#2166ac", "#92c5de", "#4d9221", "#b8e186", "#762a83", "#888888")

Sort = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Maps a random key, keys ``(n,)`` and a payload ``(n, width)`` to the sorted payload."""


def methods() -> dict[str, Sort]:
    """Name everything that can be measured here."""
    found: dict[str, Sort] = {
        "soft_sort": lambda _, keys, payload: soft_sort(keys, payload, certainty=CERTAINTY),
    }
    if importlib.util.find_spec("softjax"):
        found |= {f"softjax {name}": softjax_sort(name) for name in SOFTJAX}
    return found


SOFTJAX = ("softsort", "neuralsort")
# Not its transport, "ot": the linear solver in its gradient fails at this softness.


def softjax_sort(method: str) -> Sort:
    """Sort by the permutation matrix of softjax."""
    import softjax

    def sort(_: jax.Array, keys: jax.Array, payload: jax.Array) -> jax.Array:
        options = {"softness": 1 / CERTAINTY, "method": method, "standardize": False}
        return softjax.argsort(keys, axis=0, **options) @ payload

    return sort


def compiled(sort: Sort, *arguments: jax.Array) -> tuple[Any, float]:
    """Compile value and gradient of a sort; give them and the seconds that took."""

    def loss(keys: jax.Array, payload: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(sort(key, keys, payload)))

    start = time.perf_counter()
    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments).compile()
    return program, time.perf_counter() - start


def problem(*shape: int, width: int = WIDTH) -> tuple[jax.Array, ...]:
    """Draw keys ``shape``, a payload with one more axis, and a random key."""
    keys = jax.random.normal(jax.random.key(0), shape)
    return keys, jax.random.normal(jax.random.key(1), (*shape, width)), jax.random.key(2)


def measure(report: Report) -> None:
    """Time every method at every size that it can do."""
    alive = methods()
    for exponent in EXPONENTS:
        arguments = problem(2**exponent)
        programs: dict[str, Callable[[], Any]] = {}
        facts: dict[str, dict[str, float]] = {}
        for name, sort in list(alive.items()):
            program, seconds = compiled(sort, *arguments)
            size = program.memory_analysis().temp_size_in_bytes
            if size > LIMIT_GIB * 2**30:
                del alive[name]
                report.add(method=name, n=2**exponent, bytes=size, milliseconds=None)
                continue
            facts[name] = {"bytes": size, "compile_seconds": round(seconds, 2)}
            programs[name] = partial(program, *arguments)
        repeats = 3 if exponent >= 16 else 9
        for name, milliseconds in interleaved(programs, repeats=repeats).items():
            line = {"n": 2**exponent, "milliseconds": round(milliseconds, 4)}
            report.add(method=name, **line, **facts[name])
            # A matrix of the next size takes the square of its ratio to this one.
            slow = RATIO.get(exponent, 1) ** 2 * milliseconds > 4e3 * LIMIT_SECONDS
            if slow or facts[name]["compile_seconds"] > LIMIT_SECONDS:
                del alive[name]


def measure_images(report: Report) -> None:
    """Time the sort of batches of images: 64 sequences of 128 images with 784 pixels."""
    keys, images, key = problem(64, 128, width=784)

    def loss(sort: Sort) -> Callable[..., jax.Array]:
        return lambda keys, images, key: jnp.sum(
            jnp.square(jax.vmap(lambda *one: sort(key, *one))(keys, images))
        )

    # Images are data: the gradient goes to the keys, as in training a key network.
    chosen = {name: sort for name, sort in methods().items() if name in IMAGE_METHODS}
    programs = {name: jax.jit(jax.value_and_grad(loss(sort))) for name, sort in chosen.items()}
    times = interleaved(
        {
            name: lambda program=program: program(keys, images, key)
            for name, program in programs.items()
        },
        repeats=5,
    )
    for name, milliseconds in times.items():
        shape = {"batch": 64, "n": 128, "width": 784}
        report.add(method=name, **shape, milliseconds=round(milliseconds, 2))


IMAGE_METHODS = ("soft_sort", "softjax softsort")


def lines_of(method: str) -> list[dict[str, Any]]:
    """Read what was measured of a method along the sizes."""
    lines = [line for line in read_lines(NAME) if "batch" not in line]
    return [line for line in lines if line["method"] == method and line["milliseconds"]]


def measured() -> list[str]:
    """List the methods there are lines of, in the order of measuring."""
    return list(dict.fromkeys(line["method"] for line in read_lines(NAME)))


def exponent(method: str) -> float:
    """Fit the power of ``n`` with which time grows, from 2**12 on."""
    points = [(line["n"], line["milliseconds"]) for line in lines_of(method) if line["n"] >= 2**12]
    if len(points) < 2:
        return float("nan")
    sizes, times = np.log(np.array(points)).T
    return float(np.polyfit(sizes, times, 1)[0])


def table() -> str:
    """Write milliseconds and MiB of every method at chosen sizes."""
    shown = (2**8, 2**12, 2**17, 2**20)
    head = "".join(f" n = 2^{n.bit_length() - 1} |" for n in shown)
    rows = [f"| method |{head} grows as |", "|---" * (len(shown) + 2) + "|"]
    for method in measured():
        lines = {line["n"]: line for line in lines_of(method)}
        cells = [
            f"{lines[n]['milliseconds']:,.1f} ms, {lines[n]['bytes'] / 2**20:,.1f} MiB"
            if n in lines
            else "-"
            for n in shown
        ]
        power = exponent(method)
        grows = "-" if np.isnan(power) else f"n^{power:.2f}"
        rows.append(f"| {method} | {' | '.join(cells)} | {grows} |")
    return "\n".join(rows)


def image_table() -> str:
    """Write the milliseconds of the sort of images."""
    rows = ["| method | batch 64, n = 128, width 784 |", "|---|---|"]
    for line in read_lines(NAME):
        if "batch" in line:
            rows.append(f"| {line['method']} | {line['milliseconds']:,.0f} ms |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw time and memory against the number of elements."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for method, colour in zip(measured(), COLOURS, strict=False):
        lines = lines_of(method)
        sizes = [line["n"] for line in lines]
        style = {"color": colour, "marker": "o", "markersize": 3.5}
        style["linewidth"] = 2.4 if method == "soft_sort" else 1.2
        axes[0].plot(sizes, [line["milliseconds"] for line in lines], label=method, **style)
        axes[1].plot(sizes, [max(line["bytes"], 1) / 2**20 for line in lines], **style)
    for one, name in zip(axes, ("milliseconds", "MiB beyond inputs and outputs"), strict=True):
        one.set(xscale="log", yscale="log", xlabel="elements", ylabel=name)
        one.grid(visible=True, color="0.9", linewidth=0.6)
        one.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only print the tables")
    parser.add_argument("--draw", action="store_true", help="print the tables and draw")
    asked = parser.parse_args()
    if not (asked.table or asked.draw):
        report = Report(NAME)
        measure(report)
        measure_images(report)
    print(table(), image_table(), sep="\n\n")
    if asked.draw:
        draw().savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
