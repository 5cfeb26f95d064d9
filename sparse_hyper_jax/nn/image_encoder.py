"""A small convolutional network that turns an image into a vector of features."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparse_hyper_jax.checks import check_count, check_flag, require
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.placement import spread_like
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.precision import at_least_float32

SMALLEST_IMAGE, LARGEST_IMAGE = 28, 200
"""Sides of images for which :func:`encoder_for` knows a network."""


def patches(images: jax.Array, size: int, stride: int) -> jax.Array:
    """Gather square windows of pixels, of side ``size``, one every ``stride`` pixels.

    ``(b, h, w, c)`` to ``(b, h // stride, w // stride, size * size * c)``; zero outside the image,
    evenly on both sides. A linear layer on top is a strided convolution. Written this way because
    XLA compiles the gradient of a convolution inside ``lax.scan`` for a CPU to plain loops, some
    twenty times slower than the matrix product it becomes here.
    """
    sides = images.shape[1:3]
    reaches = [(side // stride - 1) * stride + 1 for side in sides]
    padded = jnp.pad(images, ((0, 0), *margins(sides, size, stride), (0, 0)))
    shifted = [
        padded[:, row : row + reaches[0] : stride, column : column + reaches[1] : stride]
        for row in range(size)
        for column in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


def window(stride: int) -> int:
    """Return the side of the windows of a convolution, half as much again as its stride."""
    return max(3, 3 * stride // 2)


def margins(sides: Sequence[int], size: int, stride: int) -> list[tuple[int, int]]:
    """Return the padding before and after each side that makes ``side // stride`` windows fit."""
    totals = [max((side // stride - 1) * stride + size - side, 0) for side in sides]
    return [(total // 2, total - total // 2) for total in totals]


def averages(images: jax.Array, side: int) -> jax.Array:
    """Average squares of pixels, ``(b, h, w, c)`` to ``(b, h // side, w // side, c)``.

    What is left over at the lower and right edges is cut off.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // side, width // side
    whole = images[:, : rows * side, : columns * side]
    return jnp.mean(whole.reshape(batch, rows, side, columns, side, channels), axis=(2, 4))


class ImageEncoder(nnx.Module):
    """Strided convolutions and one linear layer: an image to a vector of features.

    Each block is a convolution with stride ``s`` and windows of ``max(3, 3 s / 2)`` pixels, then a
    ReLU, and divides the sides by ``s``, rounding down. Strides instead of pooling, as they take
    several times fewer operations.

    Args:
        height: rows of an image.
        width: columns of an image.
        features: length of the output.
        rngs: random streams; ``params`` initialises the weights.
        channels: output channels of each block; by default two blocks, and three for images with
            sides of 16 or more.
        strides: stride of each block; by default 2 throughout.
        inputs: channels of an image.
        coordinates: let the first block see where a pixel lies: two more channels with its row and
            column, from -1 to 1 (CoordConv, Liu et al. 2018, arXiv 1807.03247).
        shrink: look at averages of squares of pixels of this side, for what does not need every
            pixel; rows and columns that fill no square are not seen.

    Raises:
        ValueError: a size below one, an image too small for the blocks, or another number of
            strides than of channels.
    """

    def __init__(
        self,
        height: int,
        width: int,
        features: int,
        *,
        rngs: nnx.Rngs,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        inputs: int = 1,
        coordinates: bool = False,
        shrink: int = 1,
    ):
        height, width = check_count("height", height, 1), check_count("width", width, 1)
        self.height, self.width = height, width
        self.features, self.inputs = (
            check_count("features", features, 1),
            check_count("inputs", inputs, 1),
        )
        self.coordinates = check_flag("coordinates", coordinates)
        self.shrink = check_count("shrink", shrink, 1)
        if channels is None:
            channels = (24, 48, 96) if min(height, width) >= 16 else (32, 64)
        channels = check_counts("channels", channels)
        self.strides = (2,) * len(channels) if strides is None else check_counts("strides", strides)
        require(
            len(self.strides) == len(channels),
            f"{len(self.strides)} strides for {len(channels)} blocks",
            "one stride for each block",
            "pass as many strides as channels",
        )
        least = self.shrink * math.prod(self.strides)
        shrunk = f" after shrinking by {self.shrink}" if self.shrink > 1 else ""
        require(
            min(height, width) >= least,
            f"images of {height} x {width} for strides {self.strides}{shrunk}",
            f"sides of at least {least}",
            "pass fewer channels, smaller strides or larger images",
        )
        check_rngs(rngs, "params")
        before = (self.inputs + 2 * self.coordinates, *channels[:-1])
        self.convolutions = nnx.List(
            nnx.Linear(window(stride) ** 2 * fan_in, fan_out, promote_dtype=promote, rngs=rngs)
            for stride, fan_in, fan_out in zip(self.strides, before, channels, strict=True)
        )
        for stride in (self.shrink, *self.strides):
            height, width = height // stride, width // stride
        self.linear = nnx.Linear(
            height * width * channels[-1], self.features, promote_dtype=promote, rngs=rngs
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encode images ``(b, h, w)`` or ``(b, h, w, inputs)`` as features, without a last ReLU.

        Returns:
            ``(b, features)``.

        Raises:
            ValueError: images of another shape.
        """
        return self.features_of(self.maps(images))

    def maps(self, images: jax.Array) -> jax.Array:
        """Give what the last block makes of images, ``(b, rows, columns, channels)``.

        Raises:
            ValueError: images of another shape.
        """
        images = as_array("images", images)
        hidden = images[..., None] if images.ndim == 3 else images
        require(
            hidden.shape[1:] == (self.height, self.width, self.inputs),
            f"images of shape {images.shape}",
            f"(b, {self.height}, {self.width}, {self.inputs})"
            + " or without the last axis" * (self.inputs == 1),
            "resize the images, or build the network for their shape",
        )
        if not jnp.issubdtype(hidden.dtype, jnp.floating):
            hidden = at_least_float32(hidden)
        if self.shrink > 1:
            hidden = averages(hidden, self.shrink)
        if self.coordinates:
            hidden = with_coordinates(hidden)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            hidden = nnx.relu(convolution(patches(hidden, window(stride), stride)))
        return hidden

    def features_of(self, maps: jax.Array) -> jax.Array:
        """Give the features ``(b, features)`` of what :meth:`maps` gives."""
        return self.linear(maps.reshape(maps.shape[0], -1))


def encoder_for(
    height: int,
    width: int,
    features: int,
    *,
    rngs: nnx.Rngs,
    channels: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    inputs: int = 1,
    coordinates: bool = False,
    shrink: int = 1,
) -> ImageEncoder:
    """Make a preprocessing network for images with sides from 28 to 200 pixels.

    Strides, unless given, are 4 and 2 so that a map of at most 8 x 8 remains of the shorter side,
    once it is shrunk; channels start at 32 and double up to 64.

    Args:
        height: rows of an image.
        width: columns of an image.
        features: length of the output.
        rngs: stream ``params``.
        channels: output channels of each block.
        strides: stride of each block.
        inputs: channels of an image.
        coordinates: let the first block see where a pixel lies (CoordConv).
        shrink: look at averages of squares of pixels of this side.

    Returns:
        the network.

    Raises:
        ValueError: a side out of range without strides of your own.
    """
    height = check_count("height", height, least=1)
    width = check_count("width", width, least=1)
    shrink = check_count("shrink", shrink, least=1)
    if strides is None:
        require(
            min(height, width) >= SMALLEST_IMAGE and max(height, width) <= LARGEST_IMAGE,
            f"images of {height} x {width} pixels",
            f"sides from {SMALLEST_IMAGE} to {LARGEST_IMAGE}",
            "pass strides and channels for other sizes, or resize the images",
        )
        # A square of averages counts as a pixel; one halving at least keeps the map small.
        halvings = max(1, (min(height, width) // shrink // 9).bit_length())
        strides = (4,) * (halvings // 3) + (2,) * (halvings - 2 * (halvings // 3))
    strides = check_counts("strides", strides)
    if channels is None:
        channels = (32, *(64,) * (len(strides) - 1))
    return ImageEncoder(
        height,
        width,
        features,
        channels=channels,
        strides=strides,
        inputs=inputs,
        coordinates=coordinates,
        shrink=shrink,
        rngs=rngs,
    )


def with_coordinates(images: jax.Array) -> jax.Array:
    """Append two channels to images ``(b, h, w, c)``: row and column, from -1 to 1."""
    sides = [jnp.linspace(-1, 1, side, dtype=images.dtype) for side in images.shape[1:3]]
    places = jnp.stack(jnp.meshgrid(*sides, indexing="ij"), axis=-1)
    places = jnp.broadcast_to(places[None], (images.shape[0], *places.shape))
    return jnp.concatenate([images, spread_like(places, images)], axis=-1)


def check_counts(name: str, counts: Sequence[int]) -> tuple[int, ...]:
    """Return what counts something in every block, as Python ints.

    Raises:
        ValueError: no blocks, or a number that counts nothing.
    """
    require(
        isinstance(counts, Sequence | np.ndarray)
        and not isinstance(counts, str)
        and len(counts) > 0,
        f"{name}={counts!r:.80}",
        "one int for each block",
        f"pass for instance {name}=(2, 2)",
    )
    return tuple(check_count(name, count, 1, most=2**31 - 1) for count in counts)
