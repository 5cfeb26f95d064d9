"""What readers of windows leave of a wave, and of a zone plate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.antialiasing import STEP
from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax.glimpse import bilinear, extract, extract_upright

Read = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps a key and an image to a window."""


def reader(facts: Facts) -> Read:
    """Give a reader of a window that leaves no margin and skips ``stride`` pixels at a time."""
    stride, size = facts["stride"], facts["window"]
    axis = stride * jnp.arange(size) + (stride - 1) / 2
    means = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), axis=-1)
    variances = jnp.full(2, (facts["deviation"] * stride) ** 2)
    region = (3 * stride, 3 * stride)
    return {
        "bilinear": lambda key, image: bilinear(image, means),
        "upright": lambda key, image: extract_upright(image, axis, axis, variances),
        "sampled": lambda key, image: extract(key, image, means, variances, region=region),
    }[facts["reader"]]


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure the amplitude that is left at every frequency; and read the zone plate."""
    read, pixels = reader(facts), facts["stride"] * facts["window"]
    places, middle = jnp.arange(pixels), slice(1, -1)  # beside the edge a Gaussian is cut off

    def amplitude(frequency: jax.Array) -> jax.Array:
        """By a sine and a cosine across the image, so that the phase does not count."""
        angle = 2 * jnp.pi * frequency / facts["stride"] * places
        waves = jnp.stack([jnp.sin(angle), jnp.cos(angle)])
        images = jnp.broadcast_to(waves[:, None], (2, pixels, pixels))
        keys = jax.random.split(jax.random.key(0), 2)
        windows = jax.vmap(read)(keys, images)[:, middle, middle]
        return jnp.sqrt(jnp.mean(jnp.square(windows)) / jnp.mean(jnp.square(waves)))

    shares = jax.jit(lambda all_of_them: jax.lax.map(amplitude, all_of_them))(
        STEP * jnp.arange(facts["frequencies"])
    )
    square = jnp.square(places[:, None]) + jnp.square(places[None])
    plate = jnp.cos(jnp.pi * square / (1.25 * facts["stride"] * pixels))
    zones = np.asarray(read(jax.random.key(0), plate))
    return {
        "amplitudes": [round(float(share), 4) for share in shares],
        "zones": np.round(127.5 * (zones + 1)).astype(int).tolist(),
    }
