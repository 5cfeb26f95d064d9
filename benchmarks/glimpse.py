"""Time and memory of reading windows from images, forward and gradient.

    python benchmarks/glimpse.py            measure (needs idle cores)
    python benchmarks/glimpse.py --table    print the table

A batch of 64 images of 100 x 100 pixels; gradients for the boxes and for the variances. The sampled
readers use 8 local and 8 global points per pixel, 20 points with the neighbours. Times are medians
of interleaved calls; memory is what the compiled program needs beyond its inputs and outputs.
"""

import argparse
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from report import Report, interleaved, read_lines

from sparse_hyper_jax.glimpse import (
    bilinear,
    box_corners,
    extract,
    extract_upright,
    grid_means,
    upright_means,
)
from sparse_hyper_jax.ops import ContinuousTuples, hyperlayer, make_template

NAME = "glimpse"
BATCH, SIDE, REPEATS = 64, 100, 15
SHAPES = ((1, 32, 1), (8, 12, 1), (1, 32, 3))
"""Glimpses, side of a window, channels."""

Reader = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""Maps key, image, corners and variances to a window."""


def readers(side: int, channels: int) -> dict[str, Reader]:
    """Name the ways to read a window."""
    window = (side, side)

    def sampled(draws: str) -> Reader:
        return lambda key, image, corners, variances: extract(
            key, image, grid_means(corners, window), variances, draws=draws
        )

    found: dict[str, Reader] = {
        "bilinear (4 pixels, no variance)": lambda _, image, corners, variances: bilinear(
            image, grid_means(corners, window)
        ),
        "extract_upright (all pixels)": lambda _, image, corners, variances: extract_upright(
            image, *upright_means(corners, window), variances
        ),
        "extract, draws='glimpse'": sampled("glimpse"),
        "extract, draws='pixel'": sampled("pixel"),
    }
    if channels == 1:
        found["ops.hyperlayer"] = partial(general, side)
    return found


def general(
    side: int, key: jax.Array, image: jax.Array, corners: jax.Array, variances: jax.Array
) -> jax.Array:
    """Read a window by the general hyperlayer, one tuple per pixel."""
    count = side * side
    means = grid_means(corners, (side, side)).reshape(count, 2)
    tuples = ContinuousTuples(means, jnp.broadcast_to(variances, (count, 2)), jnp.ones(count))
    rows = [[number, 0, 0] for number in range(count)]
    template = make_template(rows, (1, 2), chunk_size=1)
    options = {"num_global": 8, "num_local": 8, "region": (8, 8)}
    return hyperlayer(key, tuples, image, (count,), template=template, **options)


def problem(glimpses: int, side: int, channels: int) -> tuple[jax.Array, ...]:
    """Draw a key, boxes, variances, images and a gradient for the windows."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (SIDE, SIDE) if channels == 1 else (SIDE, SIDE, channels)
    boxes = 0.3 * jax.random.normal(keys[0], (BATCH, glimpses, 4))
    images = jax.random.uniform(keys[1], (BATCH, *shape))
    size = (BATCH, glimpses, side * side * channels)
    return keys[2], boxes, jnp.full((glimpses, 2), 5.0), images, jax.random.normal(keys[3], size)


def gradient(reader: Reader) -> Callable[..., tuple[jax.Array, ...]]:
    """Make value and gradient of a linear function of the windows."""

    def loss(
        key: jax.Array,
        boxes: jax.Array,
        variances: jax.Array,
        images: jax.Array,
        slopes: jax.Array,
    ) -> jax.Array:
        def read(
            key: jax.Array, image: jax.Array, box: jax.Array, variance: jax.Array
        ) -> jax.Array:
            return reader(key, image, box_corners(box, (SIDE, SIDE)), variance)

        windows = jax.vmap(jax.vmap(read, (0, None, 0, 0)), (0, 0, 0, None))
        keys = jax.random.split(key, boxes.shape[:2])
        return jnp.sum(slopes * windows(keys, images, boxes, variances).reshape(slopes.shape))

    return jax.value_and_grad(loss, argnums=(1, 2))


def measure(report: Report) -> None:
    """Time every reader for every shape."""
    for glimpses, side, channels in SHAPES:
        arguments = problem(glimpses, side, channels)
        programs = {
            name: jax.jit(gradient(reader)).lower(*arguments).compile()
            for name, reader in readers(side, channels).items()
        }
        calls = {name: partial(program, *arguments) for name, program in programs.items()}
        times = interleaved(calls, repeats=REPEATS)
        for name, milliseconds in times.items():
            size = programs[name].memory_analysis().temp_size_in_bytes
            shape = {"glimpses": glimpses, "window": side, "channels": channels}
            report.add(
                reader=name, **shape, milliseconds=round(milliseconds, 2), mebibytes=size >> 20
            )


def table() -> str:
    """Write milliseconds, their ratio to bilinear sampling, and MiB."""
    names = [
        f"{glimpses} of {side} x {side}" + (f", {channels} channels" if channels > 1 else "")
        for glimpses, side, channels in SHAPES
    ]
    rows = [f"| reader | {' | '.join(names)} |", "|---" * (len(SHAPES) + 1) + "|"]
    lines = read_lines(NAME)
    for reader in dict.fromkeys(line["reader"] for line in lines):
        cells = []
        for shape in SHAPES:
            same = [
                line
                for line in lines
                if (line["glimpses"], line["window"], line["channels"]) == shape
            ]
            found = [line for line in same if line["reader"] == reader]
            if not found:
                cells.append("-")
                continue
            ratio = found[0]["milliseconds"] / same[0]["milliseconds"]
            size = f"{found[0]['mebibytes']} MiB"
            cells.append(f"{found[0]['milliseconds']:.1f} ms (x {ratio:.1f}), {size}")
        rows.append(f"| {reader} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only print the table")
    if not parser.parse_args().table:
        measure(Report(NAME))
    print(table())


if __name__ == "__main__":
    main()
