"""Key networks: small convolutional networks that give every image one number to sort by."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.checks import check_count, require
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.image_encoder import ImageEncoder
from sparse_hyper_jax.nn.placement import reshape_like
from sparse_hyper_jax.nn.promotion import promote


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

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> network = nn.NumberKeyNetwork(2, height=8, width=8, rngs=nnx.Rngs(0))
        >>> sequences = jnp.zeros((5, 3, 8, 16))  # five sequences of three numbers with two digits
        >>> network(sequences).shape
        (5, 3)
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
        self.digits = check_count("digits", digits, 1)
        hidden = check_count("hidden", hidden, 1)
        self.encoder = ImageEncoder(
            height, width, features, rngs=rngs, channels=channels, strides=strides
        )
        self.mixer = nnx.Linear(
            self.digits * self.encoder.features, hidden, promote_dtype=promote, rngs=rngs
        )
        self.key = nnx.Linear(hidden, 1, promote_dtype=promote, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return keys ``(...)`` of images ``(..., h, k * w)``, for any leading axes.

        Raises:
            ValueError: images of another size.
        """
        images = as_array("images", images)
        height, width = self.encoder.height, self.encoder.width
        check_image_size(images, height, self.digits * width)
        tiles = reshape_like(images, (-1, height, self.digits, width), images, 1)
        tiles = reshape_like(jnp.moveaxis(tiles, 2, 1), (-1, height, width), images, 1)
        features = nnx.relu(self.encoder(tiles))
        features = reshape_like(features, (-1, self.mixer.in_features), images, 1)
        keys = self.key(nnx.relu(self.mixer(features)))
        lead = images.shape[:-2]
        return reshape_like(keys, lead, images, len(lead))


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
