"""Glimpse attention: a network looks at an image, decides where to read, and reads there."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.glimpse import (
    GRIDS,
    UPRIGHT,
    affine_corners,
    bilinear,
    extract,
    extract_hard,
    extract_upright,
    grid_means,
    upright_means,
)
from sparse_hyper_jax.glimpse.points import check_options
from sparse_hyper_jax.nn.image_encoder import ImageEncoder
from sparse_hyper_jax.nn.keys import Randomness, draw_key
from sparse_hyper_jax.nn.parameters import RawVariances
from sparse_hyper_jax.ops import bound_variances

READERS = ("sampled", "upright", "hard", "bilinear")

SMALLEST_IMAGE, LARGEST_IMAGE = 28, 200


class GlimpseAttention(nnx.Module):
    """Read windows of an image at places that depend on it.

    ``preprocessing network -> a few numbers per glimpse -> corners -> window``. All weights start
    such that every window lies upright in the middle of the image. Readers:

    * ``"sampled"``: :func:`~sparse_hyper_jax.glimpse.extract` with one learned variance per
      glimpse; evaluation reads the four neighbours of each pixel, by density.
    * ``"upright"``: :func:`~sparse_hyper_jax.glimpse.extract_upright`, the same without randomness,
      for the grids ``"box"`` and ``"scale"``, also in evaluation.
    * ``"hard"``: :func:`~sparse_hyper_jax.glimpse.extract_hard`, the nearest pixels, through which
      no place is learned: for a network that was trained by another reader, and settled.
    * ``"bilinear"``: a spatial transformer, also in evaluation; its affine grid is not bounded.

    Args:
        height: rows of an image.
        width: columns of an image.
        window: ``(h, w)`` of a glimpse.
        grid: ``"scale"``, ``"box"``, ``"affine"`` or ``"quad"``, see
            :data:`~sparse_hyper_jax.glimpse.GRIDS`.
        glimpses: windows per image.
        reader: how to read, see above; set the attribute to ``"hard"`` when training is over.
        inputs: channels of an image.
        features: width of the preprocessing network's last hidden layer.
        channels: output channels of its convolutions; by default :func:`encoder_for` chooses.
        strides: their strides.
        coordinates: let its first convolution see where a pixel lies (CoordConv).
        variance_scale: see ``scale`` of :func:`~sparse_hyper_jax.ops.bound_variances`.
        variance_floor: least variance, in squared pixels.
        num_global: see :func:`~sparse_hyper_jax.glimpse.extract`.
        num_local: see there.
        region: see there.
        draws: see there.
        deterministic: evaluate instead of train.
        rngs: stream ``params`` for the weights, ``sample`` for the samples.

    Raises:
        ValueError: an option that does not fit.

    References: Bloem 2018, arXiv 1810.09184; Jaderberg et al. 2015, arXiv 1506.02025 (bilinear).
    """

    def __init__(
        self,
        height: int,
        width: int,
        window: Sequence[int],
        *,
        grid: str = "box",
        glimpses: int = 1,
        reader: str = "sampled",
        inputs: int = 1,
        features: int = 128,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        coordinates: bool = False,
        variance_scale: float = 0.1,
        variance_floor: float = 0.0,
        num_global: int = 8,
        num_local: int = 8,
        region: Sequence[int] = (8, 8),
        draws: str = "glimpse",
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        self.window = checks.check_index_shape("window", window)
        checks.require(len(self.window) == 2, f"window={window}", "(h, w)", "pass two lengths")
        checks.check_choice("grid", grid, tuple(GRIDS))
        checks.check_choice("reader", reader, READERS)
        checks.check_count("glimpses", glimpses, least=1)
        checks.require(
            reader != "upright" or grid in UPRIGHT,
            f"reader='upright' with grid={grid!r}",
            f"one of the grids {UPRIGHT}",
            "use reader='sampled' for grids that turn",
        )
        self.grid, self.reader, self.glimpses = grid, reader, glimpses
        self.bounded = not (reader == "bilinear" and grid == "affine")
        self.encoder = encoder_for(
            height,
            width,
            features,
            inputs=inputs,
            channels=channels,
            strides=strides,
            coordinates=coordinates,
            rngs=rngs,
        )
        # Zeros: every window starts upright in the middle, whatever the image.
        count = glimpses * GRIDS[grid].count
        zeros = nnx.initializers.zeros_init()
        self.place = nnx.Linear(features, count, kernel_init=zeros, rngs=rngs)
        self.raw_variances = RawVariances(jnp.zeros(glimpses)) if reader != "bilinear" else None
        self.variance_scale, self.variance_floor = variance_scale, variance_floor
        check_options(
            (height, width), num_global=num_global, num_local=num_local, region=region, draws=draws
        )
        self.num_global, self.num_local = num_global, num_local
        self.region, self.draws = tuple(region), draws
        self.deterministic = deterministic
        self.rngs = rngs.fork() if hasattr(rngs, "fork") else rngs

    def numbers(self, images: jax.Array) -> jax.Array:
        """Give the numbers of all windows, ``(b, glimpses, count of the grid)``."""
        features = nnx.relu(self.encoder(images))
        return self.place(features).reshape(len(images), self.glimpses, GRIDS[self.grid].count)

    def corners(self, numbers: jax.Array) -> jax.Array:
        """Give the corners ``(b, glimpses, 4, 2)`` of windows from their numbers."""
        shape = (self.encoder.height, self.encoder.width)

        def one(raw: jax.Array) -> jax.Array:
            if self.bounded:
                return GRIDS[self.grid].corners(raw, shape)
            return affine_corners(raw, shape, bounded=False)

        return jax.vmap(jax.vmap(one))(numbers)

    def variances(self) -> jax.Array:
        """Give the variances ``(glimpses, 2)`` in squared pixels, for rows and columns."""
        shape = (self.encoder.height, self.encoder.width)
        raw = checks.require_given(
            self.raw_variances,
            "the variances of a network that was made with reader='bilinear'",
            "a reader that has them",
            "make it with reader='sampled' or reader='upright'",
        )
        return bound_variances(
            raw[...], shape, scale=self.variance_scale, floor=self.variance_floor
        )

    def __call__(
        self,
        images: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> jax.Array:
        """Read the windows of a batch of images.

        Args:
            images: ``(b, H, W)`` or ``(b, H, W, inputs)``.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.

        Returns:
            ``(b, glimpses, h, w, inputs)``.

        Raises:
            ValueError: images of another shape.
        """
        corners = self.corners(self.numbers(images))
        return self.read(images, corners, deterministic=deterministic, rngs=rngs)

    def read(
        self,
        images: jax.Array,
        corners: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> jax.Array:
        """Read the windows with the given corners; see :meth:`__call__`.

        Args:
            images: ``(b, H, W)`` or ``(b, H, W, inputs)``.
            corners: ``(b, glimpses, 4, 2)`` in index units.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream.

        Returns:
            ``(b, glimpses, h, w, inputs)``.
        """
        images = images.reshape(*images.shape[:3], -1)
        evaluate = self.deterministic if deterministic is None else deterministic
        random = self.reader == "sampled" and not evaluate
        num_global, num_local = (self.num_global, self.num_local) if random else (0, 0)
        keys = None
        if random:
            keys = jax.random.split(draw_key(rngs, self.rngs), (len(images), self.glimpses))

        def one(
            key: jax.Array | None, image: jax.Array, four: jax.Array, variances: jax.Array | None
        ) -> jax.Array:
            if variances is None:
                read = bilinear if self.reader == "bilinear" else extract_hard
                return read(image, grid_means(four, self.window))
            if self.reader == "upright":
                return extract_upright(image, *upright_means(four, self.window), variances)
            return extract(
                key,
                image,
                grid_means(four, self.window),
                variances,
                num_global=num_global,
                num_local=num_local,
                region=self.region,
                draws=self.draws,
            )

        variances = self.variances() if self.reader in ("sampled", "upright") else None
        each_window = jax.vmap(one, in_axes=(0, None, 0, 0))
        return jax.vmap(each_window, in_axes=(0, 0, 0, None))(keys, images, corners, variances)


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
) -> ImageEncoder:
    """Make a preprocessing network for images with sides from 28 to 200 pixels.

    Strides, unless given, are 4 and 2 so that a map of at most 8 x 8 remains of the shorter side;
    channels start at 32 and double up to 64.

    Args:
        height: rows of an image.
        width: columns of an image.
        features: length of the output.
        rngs: stream ``params``.
        channels: output channels of each block.
        strides: stride of each block.
        inputs: channels of an image.
        coordinates: let the first block see where a pixel lies (CoordConv).

    Returns:
        the network.

    Raises:
        ValueError: a side out of range without strides of your own.
    """
    for name, side in (("height", height), ("width", width)):
        checks.check_count(name, side, least=1)
    if strides is None:
        checks.require(
            min(height, width) >= SMALLEST_IMAGE and max(height, width) <= LARGEST_IMAGE,
            f"images of {height} x {width} pixels",
            f"sides from {SMALLEST_IMAGE} to {LARGEST_IMAGE}",
            "pass strides and channels for other sizes, or resize the images",
        )
        halvings = (min(height, width) // 9).bit_length()
        strides = [4] * (halvings // 3) + [2] * (halvings - 2 * (halvings // 3))
    if channels is None:
        channels = [32, *[64] * (len(strides) - 1)]
    return ImageEncoder(
        height,
        width,
        features,
        channels=channels,
        strides=strides,
        inputs=inputs,
        coordinates=coordinates,
        rngs=rngs,
    )
