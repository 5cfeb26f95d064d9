"""Ways to read windows from a batch of images, forward and gradient."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax.glimpse import (
    bilinear,
    box_corners,
    extract,
    extract_upright,
    grid_means,
    upright_means,
)
from sparse_hyper_jax.ops import ContinuousTuples, hyperlayer, make_template

BATCH, SIDE = 64, 100

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
        key: jax.Array, boxes: jax.Array, variances: jax.Array, images: jax.Array, slopes: jax.Array
    ) -> jax.Array:
        def read(
            key: jax.Array, image: jax.Array, box: jax.Array, variance: jax.Array
        ) -> jax.Array:
            return reader(key, image, box_corners(box, (SIDE, SIDE)), variance)

        windows = jax.vmap(jax.vmap(read, (0, None, 0, 0)), (0, 0, 0, None))
        keys = jax.random.split(key, boxes.shape[:2])
        return jnp.sum(slopes * windows(keys, images, boxes, variances).reshape(slopes.shape))

    return jax.value_and_grad(loss, argnums=(1, 2))


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Time every reader for one shape of the windows."""
    glimpses, side, channels = (facts[name] for name in ("glimpses", "window", "channels"))
    arguments = problem(glimpses, side, channels)
    programs = {
        name: compiled(gradient(reader), *arguments)[0]
        for name, reader in readers(side, channels).items()
    }
    calls = {name: partial(program, *arguments) for name, program in programs.items()}
    return [
        {
            "reader": name,
            "milliseconds": round(milliseconds, 2),
            "mebibytes": temporary_bytes(programs[name]) >> 20,
        }
        for name, milliseconds in interleaved(calls, repeats=asked.repeats).items()
    ]
