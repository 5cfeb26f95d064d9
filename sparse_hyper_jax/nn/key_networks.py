"""Key networks: small convolutional networks that give every image one number to sort by."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.checks import check_count, require


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


class ImageEncoder(nnx.Module):
    """Strided convolutions and one linear layer: a grey image to a vector of features.

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
    ):
        sizes = {"height": height, "width": width, "features": features}
        for name, size in sizes.items():
            check_count(name, size, 1)
        if channels is None:
            channels = (24, 48, 96) if min(height, width) >= 16 else (32, 64)
        if strides is None:
            strides = [2] * len(channels)
        require(
            len(strides) == len(channels),
            f"{len(strides)} strides for {len(channels)} blocks",
            "one stride for each block",
            "pass as many strides as channels",
        )
        for name, counts in (("channels", channels), ("strides", strides)):
            for count in counts:
                check_count(name, count, 1)
        shrink = math.prod(strides)
        require(
            min(height, width) >= shrink,
            f"images of {height} x {width} for strides {tuple(strides)}",
            f"sides of at least {shrink}",
            "pass fewer channels, smaller strides or larger images",
        )
        self.height, self.width, self.features = height, width, features
        self.strides = tuple(strides)
        inputs = (1, *channels[:-1])
        self.convolutions = nnx.List(
            nnx.Linear(window(stride) ** 2 * before, after, rngs=rngs)
            for stride, before, after in zip(strides, inputs, channels, strict=True)
        )
        for stride in strides:
            height, width = height // stride, width // stride
        self.linear = nnx.Linear(height * width * channels[-1], features, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encode images ``(b, h, w)`` as features ``(b, features)``, without a last ReLU."""
        hidden = images[..., None]
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            hidden = nnx.relu(convolution(patches(hidden, window(stride), stride)))
        return self.linear(hidden.reshape(len(images), -1))


class NumberKeyNetwork(nnx.Module):
    """A key for every image of a number, of one digit or several side by side.

    One encoder reads all digits, each on its own; their features, in order, go through a small
    perceptron to one key, which can weigh hundreds above tens above ones.

    The scale of the keys is free; :func:`~sparse_hyper_jax.sort.standardise` them per sequence.

    Args:
        digits: digits in an image, ``k``.
        height: rows of an image.
        width: columns of one digit; an image has ``k * width``.
        rngs: random streams; ``params`` initialises the weights.
        channels: output channels of the convolutional blocks, see :class:`ImageEncoder`.
        strides: their strides.
        features: numbers that describe one digit.
        hidden: width of the perceptron's hidden layer.

    Raises:
        ValueError: a size below one, an image too small for the blocks, or another number of
            strides than of channels.

    Reference: Bloem 2018, arXiv 1810.09184.
    """

    def __init__(
        self,
        digits: int,
        height: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        features: int = 64,
        hidden: int = 128,
    ):
        check_count("digits", digits, 1)
        self.digits = digits
        blocks = {"channels": channels, "strides": strides}
        self.encoder = ImageEncoder(height, width, features, rngs=rngs, **blocks)
        self.mixer = nnx.Linear(digits * features, hidden, rngs=rngs)
        self.key = nnx.Linear(hidden, 1, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return keys ``(...)`` of images ``(..., h, k * w)``, for any leading axes.

        Raises:
            ValueError: images of another size.
        """
        height, width = self.encoder.height, self.encoder.width
        check_image_size(images, height, self.digits * width)
        tiles = images.reshape(-1, height, self.digits, width)
        tiles = jnp.moveaxis(tiles, 2, 1).reshape(-1, height, width)
        features = nnx.relu(self.encoder(tiles)).reshape(-1, self.digits * self.encoder.features)
        keys = self.key(nnx.relu(self.mixer(features)))
        return keys.reshape(images.shape[:-2])


def check_image_size(images: jax.Array, height: int, width: int) -> None:
    """Raise unless the last two axes of ``images`` are ``(height, width)``.

    Raises:
        ValueError: another size, or fewer than two axes.
    """
    require(
        images.shape[-2:] == (height, width),
        f"images of shape {images.shape}",
        f"(..., {height}, {width}): grey images without a channel axis",
        "resize the images, or build the network for their size",
    )
