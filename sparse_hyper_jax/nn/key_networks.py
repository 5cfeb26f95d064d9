"""Key networks: small convolutional networks that give every image one number to sort by."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.checks import check_count, require


def patches(images: jax.Array) -> jax.Array:
    """Gather the 3x3 surroundings of every pixel, ``(b, h, w, c)`` to ``(b, h, w, 9 * c)``.

    Zero outside the image. A linear layer on top is a 3x3 convolution with padding "SAME". Written
    this way because XLA compiles the gradient of a convolution inside ``lax.scan`` for a CPU to
    plain loops, some twenty times slower than the matrix product it becomes here.
    """
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)


def max_pool(images: jax.Array) -> jax.Array:
    """Take maxima over 2x2 windows, ``(b, h, w, c)`` to ``(b, h // 2, w // 2, c)``.

    By a reshape, whose gradient is elementwise; an odd last row or column is dropped.
    """
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


class ImageEncoder(nnx.Module):
    """Convolutions and one linear layer: a grey image to a vector of features.

    Each block is a 3x3 convolution, ReLU and 2x2 max pooling, so the sides shrink by
    ``2 ** len(channels)``: two blocks suit 8x8 (leaving 2x2) and 28x28 (leaving 7x7).

    Args:
        height: rows of an image.
        width: columns of an image.
        features: length of the output.
        rngs: random streams; ``params`` initialises the weights.
        channels: output channels of each block.

    Raises:
        ValueError: a size below one, or an image too small for the blocks.
    """

    def __init__(
        self,
        height: int,
        width: int,
        features: int,
        *,
        rngs: nnx.Rngs,
        channels: Sequence[int] = (16, 32),
    ):
        sizes = {"height": height, "width": width, "features": features}
        for name, size in sizes.items():
            check_count(name, size, 1)
        shrink = 2 ** len(channels)
        require(
            min(height, width) >= shrink,
            f"images of {height} x {width} for {len(channels)} poolings",
            f"sides of at least {shrink}",
            "pass fewer channels or larger images",
        )
        self.height, self.width, self.features = height, width, features
        inputs = (1, *channels[:-1])
        self.convolutions = nnx.List(
            nnx.Linear(9 * before, after, rngs=rngs)
            for before, after in zip(inputs, channels, strict=True)
        )
        flat = (height // shrink) * (width // shrink) * channels[-1]
        self.linear = nnx.Linear(flat, features, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encode images ``(b, h, w)`` as features ``(b, features)``, without a last ReLU."""
        hidden = images[..., None]
        for convolution in self.convolutions:
            hidden = max_pool(nnx.relu(convolution(patches(hidden))))
        return self.linear(hidden.reshape(len(images), -1))


class DigitKeyNetwork(nnx.Module):
    """A key for every image of one digit: encoder, ReLU, linear.

    The scale of the keys is free; :func:`~sparse_hyper_jax.sort.standardise` them per sequence.

    Args:
        height: rows of an image.
        width: columns of an image.
        rngs: random streams; ``params`` initialises the weights.
        channels: output channels of the convolutional blocks.
        hidden: width of the layer before the key.

    Raises:
        ValueError: a size below one, or an image too small for the blocks.

    Reference: Bloem 2018, arXiv 1810.09184.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        channels: Sequence[int] = (16, 32),
        hidden: int = 64,
    ):
        self.encoder = ImageEncoder(height, width, hidden, rngs=rngs, channels=channels)
        self.key = nnx.Linear(hidden, 1, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return keys ``(...)`` of images ``(..., h, w)``, for any leading axes.

        Raises:
            ValueError: images of another size.
        """
        check_image_size(images, self.encoder.height, self.encoder.width)
        flat = images.reshape(-1, *images.shape[-2:])
        keys = self.key(nnx.relu(self.encoder(flat)))
        return keys.reshape(images.shape[:-2])


class NumberKeyNetwork(nnx.Module):
    """A key for every image of several digits side by side.

    One encoder reads all digits, each on its own; their features, in order, go through a small
    perceptron to one key, which can weigh hundreds above tens above ones.

    Args:
        digits: digits in an image, ``k``.
        height: rows of an image.
        width: columns of one digit; an image has ``k * width``.
        rngs: random streams; ``params`` initialises the weights.
        channels: output channels of the convolutional blocks.
        features: numbers that describe one digit.
        hidden: width of the perceptron's hidden layer.

    Raises:
        ValueError: a size below one, or an image too small for the blocks.

    Reference: Bloem 2018, arXiv 1810.09184.
    """

    def __init__(
        self,
        digits: int,
        height: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        channels: Sequence[int] = (16, 32),
        features: int = 32,
        hidden: int = 128,
    ):
        check_count("digits", digits, 1)
        self.digits = digits
        self.encoder = ImageEncoder(height, width, features, rngs=rngs, channels=channels)
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
