"""Glimpse attention: a network looks at an image, decides where to read, and reads there."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
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
from sparse_hyper_jax.glimpse.grids import GridName
from sparse_hyper_jax.glimpse.points import Draws, check_options
from sparse_hyper_jax.nn.image_encoder import encoder_for
from sparse_hyper_jax.nn.keys import Randomness, draw_key, keys_for
from sparse_hyper_jax.nn.options import check_finite, check_no_container, in_evaluation
from sparse_hyper_jax.nn.parameters import RawVariances
from sparse_hyper_jax.nn.placement import reshape_like, spread_like
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.nn.soft_argmax import SoftArgmax
from sparse_hyper_jax.ops import bound_variances
from sparse_hyper_jax.precision import at_least_float32

Reader = Literal["sampled", "upright", "hard", "bilinear"]
READERS = get_args(Reader)


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
        reader: how to read, see above; set the attribute to ``"hard"`` when training is over. A
            call refuses attributes that do not fit, as the constructor does.
        inputs: channels of an image.
        features: width of the preprocessing network's last hidden layer.
        channels: output channels of its convolutions; by default as many as the sides ask for.
        strides: their strides.
        coordinates: let its first convolution see where a pixel lies (CoordConv).
        shrink: let it see averages of squares of pixels of this side, which is cheaper; windows are
            read from the whole image.
        soft_argmax: above 0, move each window also to the middle of a softmax of its own over the
            last map of that network: what it learned to find at one place it finds at all. The
            number is a factor of the scores; 8 was good for large images. See :meth:`numbers`.
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

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> attention = nn.GlimpseAttention(28, 28, (4, 4), grid="box", rngs=nnx.Rngs(0))
        >>> images = jnp.zeros((2, 28, 28, 1)).at[:, 12:16, 12:16].set(1.0)
        >>> attention(images, deterministic=True).shape
        (2, 1, 4, 4, 1)
    """

    def __init__(
        self,
        height: int,
        width: int,
        window: Sequence[int],
        *,
        grid: GridName = "box",
        glimpses: int = 1,
        reader: Reader = "sampled",
        inputs: int = 1,
        features: int = 128,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        coordinates: bool = False,
        shrink: int = 1,
        soft_argmax: float = 0.0,
        variance_scale: float = 0.1,
        variance_floor: float = 0.0,
        num_global: int = 8,
        num_local: int = 8,
        region: Sequence[int] = (8, 8),
        draws: Draws = "glimpse",
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        height = checks.check_count("height", height, least=1)
        width = checks.check_count("width", width, least=1)
        self.window = checks.check_index_shape("window", window)
        check_no_container(grid=grid, reader=reader, draws=draws, deterministic=deterministic)
        check_no_container(variance_scale=variance_scale, variance_floor=variance_floor)
        check_finite("soft_argmax", soft_argmax, at_least=0)
        self.grid: GridName = grid
        self.reader: Reader = reader
        self.draws: Draws = draws
        self.glimpses = checks.check_count("glimpses", glimpses, least=1)
        self.variance_scale, self.variance_floor = variance_scale, variance_floor
        self.num_global = checks.check_count("num_global", num_global)
        self.num_local = checks.check_count("num_local", num_local)
        self.region = checks.check_index_shape("region", region)
        self.deterministic = deterministic
        self._check_options((height, width))
        self.bounded = not (reader == "bilinear" and grid == "affine")
        self.encoder = encoder_for(
            height,
            width,
            features,
            inputs=inputs,
            channels=channels,
            strides=strides,
            coordinates=coordinates,
            shrink=shrink,
            rngs=rngs,
        )
        # Zeros: every window starts upright in the middle, whatever the image.
        count = self.glimpses * GRIDS[grid].count
        zeros = nnx.initializers.zeros_init()
        self.place = nnx.Linear(
            self.encoder.features, count, kernel_init=zeros, promote_dtype=promote, rngs=rngs
        )
        cell = self.encoder.convolutions[-1].out_features
        found = {"sharpness": soft_argmax, "rngs": rngs}
        self.soft_argmax = SoftArgmax(cell, self.glimpses, **found) if soft_argmax else None
        raw_variances = jnp.zeros(self.glimpses)
        self.raw_variances = RawVariances(raw_variances) if reader != "bilinear" else None
        self.rngs = rngs.fork()

    def _check_options(self, shape: Sequence[int]) -> None:
        window = checks.check_index_shape("window", self.window)
        checks.require(len(window) == 2, f"window={window}", "(h, w)", "pass two lengths")
        checks.check_choice("grid", self.grid, tuple(GRIDS))
        checks.check_choice("reader", self.reader, READERS)
        checks.require(
            self.reader != "upright" or self.grid in UPRIGHT,
            f"reader='upright' with grid={self.grid!r}",
            f"one of the grids {UPRIGHT}",
            "use reader='sampled' for grids that turn",
        )
        check_finite("variance_scale", self.variance_scale, at_least=0)
        check_finite("variance_floor", self.variance_floor, at_least=0)
        checks.check_flag("deterministic", self.deterministic)
        check_options(
            shape,
            num_global=self.num_global,
            num_local=self.num_local,
            region=self.region,
            draws=self.draws,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.encoder.height, self.encoder.width

    def numbers(self, images: jax.Array) -> jax.Array:
        """Give the numbers of all windows, ``(b, glimpses, count of the grid)``.

        They are places, so they are computed in float32 or wider, whatever the images are. With
        ``soft_argmax`` the logit of the expected place, a share of each side, is added to the
        numbers that move a window along that side (:data:`~sparse_hyper_jax.glimpse.GRIDS`), for
        they go through a sigmoid; twice the share less 1 where a grid is not bounded.

        Raises:
            ValueError: images of another shape, or another grid or number of glimpses than those
                that the network was made for.
        """
        self._check_options(self.shape)
        grid = GRIDS[self.grid]
        checks.require(
            self.place.out_features == self.glimpses * grid.count,
            f"grid={self.grid!r} and glimpses={self.glimpses} in a network that gives "
            f"{self.place.out_features} numbers",
            f"{self.glimpses} times {grid.count} numbers",
            "make another network for another grid or number of glimpses",
        )
        images = at_least_float32(as_array("images", images))
        maps = self.encoder.maps(images)
        numbers = self.place(nnx.relu(self.encoder.features_of(maps)))
        numbers = reshape_like(numbers, (images.shape[0], self.glimpses, grid.count), images, 1)
        if self.soft_argmax is None:
            return numbers
        places = self.soft_argmax(maps)
        moved = jax.scipy.special.logit(places) if self.bounded else 2 * places - 1
        still = jnp.zeros_like(moved[..., 0])
        shifts = [still if axis is None else moved[..., axis] for axis in grid.moves]
        return numbers + jnp.stack(shifts, axis=-1)

    def corners(self, numbers: jax.Array) -> jax.Array:
        """Give the corners ``(b, glimpses, 4, 2)`` of windows from their numbers.

        Raises:
            ValueError: numbers of another shape.
        """
        self._check_options(self.shape)
        numbers = as_array("numbers", numbers)
        count = GRIDS[self.grid].count
        meaning = "(b, glimpses, count of the grid)"
        checks.check_shape("numbers", numbers, (None, self.glimpses, count), meaning)

        def one(raw: jax.Array) -> jax.Array:
            if self.bounded:
                return GRIDS[self.grid].corners(raw, self.shape)
            return affine_corners(raw, self.shape, bounded=False)

        return jax.vmap(jax.vmap(one))(numbers)

    def variances(self) -> jax.Array:
        """Give the variances ``(glimpses, 2)`` in squared pixels, for rows and columns.

        Raises:
            ValueError: the network was made with ``reader="bilinear"``, which has none.
        """
        raw = checks.require_given(
            self.raw_variances,
            "the variances of a network that was made with reader='bilinear'",
            "a reader that has them",
            "make it with reader='sampled' or reader='upright'",
        )
        return bound_variances(
            raw[...], self.shape, scale=self.variance_scale, floor=self.variance_floor
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

        Raises:
            ValueError: images or corners of another shape.
        """
        self._check_options(self.shape)
        images, corners = self._check_arrays(images, corners)
        evaluate = in_evaluation(self.deterministic, deterministic)
        random = self.reader == "sampled" and not evaluate
        num_global, num_local = (self.num_global, self.num_local) if random else (0, 0)
        keys = keys_for(draw_key(rngs, self.rngs), images, self.glimpses) if random else None

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

    def _check_arrays(self, images: Any, corners: Any) -> tuple[jax.Array, jax.Array]:
        """Return images with channels, and corners, after looking at their shapes."""
        images, corners = as_array("images", images), as_array("corners", corners)
        inputs = self.encoder.inputs
        if images.ndim == 3 and inputs == 1:
            images = images[..., None]
        meaning = f"images of {self.shape[0]} x {self.shape[1]} pixels, as the network was made for"
        checks.check_shape("images", images, (None, *self.shape, inputs), meaning)
        meaning = "(b, glimpses, 4, 2): four corners, each with its row and column"
        checks.check_shape("corners", corners, (images.shape[0], self.glimpses, 4, 2), meaning)
        return images, spread_like(corners, images)
