"""Rotated and scaled digits in clutter that is rotated and scaled in the same way.

The flow: key -> crops of other images -> each turned, stretched and placed -> laid over one another
-> the digit over them all.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from sparse_hyper_jax.checks import check_count, check_flag, check_number, require
from sparse_hyper_jax.entrance import check_random_key
from sparse_hyper_jax.train.data.cluttered import (
    ClutteredImages,
    check_source,
    choose_rows,
    colour_keys,
    draw_colours,
    labels_of,
)
from sparse_hyper_jax.train.data.sequences import ClassIndex

CROP_SIDES = (4, 14)
"""Shortest and longest side of a distractor before scaling, in pixels."""

LARGEST_STRETCH = 1e6
"""Largest of each limit: their product with any side stays far within float32."""


class Pose(NamedTuple):
    """Where a patch lies on the canvas: canvas pixel ``p`` shows its point ``A (p - m) + c``.

    Attributes:
        matrices: ``(..., 2, 2)`` float32, ``A``: from canvas to patch offsets, in (row, column).
        middles: ``(..., 2)`` float32, ``m``: middle of the patch on the canvas.
        centres: ``(..., 2)`` float32, ``c``: middle of the patch in its own pixels.
    """

    matrices: jax.Array
    middles: jax.Array
    centres: jax.Array


def draw_stretch(key: jax.Array, *, max_scale: float, max_aspect: float) -> jax.Array:
    """Draw ``(2,)`` float32, by what rows and columns grow: a scale, and an aspect on one axis."""
    size_key, axis_key = jax.random.split(key)
    limits = jnp.array([max_scale, max_aspect], jnp.float32)
    scale, aspect = jax.random.uniform(size_key, (2,), jnp.float32, minval=1.0, maxval=limits)
    along_rows = jax.random.bernoulli(axis_key, jnp.float32(0.5))
    return scale * jnp.where(jnp.array([along_rows, ~along_rows]), aspect, 1.0)


def draw_pose(key: jax.Array, size: jax.Array, stretch: jax.Array, *, canvas: int) -> Pose:
    """Turn a stretched patch by a random whole degree, and place its bounding box uniformly.

    A box larger than the canvas is shrunk to fit, keeping its proportions.

    Args:
        key: typed key.
        size: ``(2,)`` height and width of the patch, in its own pixels.
        stretch: ``(2,)`` canvas pixels per pixel of the patch, along its rows and columns.
        canvas: side of the canvas.

    Returns:
        The pose, without leading axes.
    """
    angle_key, place_key = jax.random.split(key)
    angle = jax.random.randint(angle_key, (), 0, 360, jnp.int32) * jnp.float32(math.pi / 180)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    tall, wide = size * stretch
    box = jnp.stack([abs(cos) * tall + abs(sin) * wide, abs(sin) * tall + abs(cos) * wide])
    shrink = jnp.minimum(1.0, canvas / box.max())
    free = canvas - shrink * box
    middle = (canvas - 1) / 2 + free * jax.random.uniform(place_key, (2,), jnp.float32, -0.5, 0.5)
    turn = jnp.stack([cos, sin, -sin, cos]).reshape(2, 2)
    return Pose(turn / (shrink * stretch)[:, None], middle, (size - 1) / 2)


def draw_crops(
    key: jax.Array, images: jax.Array, row: jax.Array, *, count: int
) -> tuple[jax.Array, jax.Array]:
    """Cut rectangles of one random size out of other images than ``row``.

    Args:
        key: typed key.
        images: ``(n, h, w)``, 2 or more.
        row: the image not to cut from.
        count: how many crops.

    Returns:
        ``(count, s, s)`` crops in the upper left corner of squares with 0 elsewhere, and ``(2,)``
        int32, their height and width.
    """
    total, *sides = images.shape
    low, high = (min(side, *sides) for side in CROP_SIDES)
    row_key, size_key, corner_key = jax.random.split(key, 3)
    # A rank among the others: those from the excluded row on are one further.
    ranks = jax.random.randint(row_key, (count,), 0, total - 1, dtype=jnp.int32)
    others = ranks + (ranks >= row)
    size = jax.random.randint(size_key, (2,), low, high + 1, dtype=jnp.int32)
    last = jnp.array(sides, jnp.int32) - size
    corners = jax.random.randint(corner_key, (count, 2), 0, last + 1, dtype=jnp.int32)
    steps = jnp.arange(high)
    inside = (steps[:, None] < size[0]) & (steps < size[1])

    def crop(other: jax.Array, corner: jax.Array) -> jax.Array:
        # What lies past the edge lies outside the crop, too.
        rows, columns = corner[0] + steps[:, None], corner[1] + steps
        pixels = images.at[other, rows, columns].get(mode="clip")
        return jnp.where(inside, pixels, 0.0)

    return jax.vmap(crop)(others, corners), size


def lay_over(
    canvas: jax.Array,
    patch: jax.Array,
    pose: Pose,
    colour: jax.Array | None = None,
    *,
    window: int,
) -> jax.Array:
    """Lay a patch over a canvas, bright pixels opaque: ``out = f * f + (1 - f) * canvas``.

    ``f`` is the patch resampled bilinearly in its pose, with 0 outside.

    Args:
        canvas: ``(H, H)``, or with channels ``(H, H, C)`` if there is a colour.
        patch: ``(h, w)`` in ``[0, 1]``.
        pose: without leading axes.
        colour: ``(C,)``, by which a coloured patch is multiplied where it is laid.
        window: side of the square around the middle, cut at the edges, that the patch may reach:
            no other pixel is touched, which halves the time.

    Returns:
        as ``canvas``.
    """
    corner = jnp.round(pose.middles - (window - 1) / 2).astype(jnp.int32)
    corner = jnp.clip(corner, 0, len(canvas) - window)
    offsets = jnp.arange(window) + (corner - pose.middles)[:, None]
    rows, columns = offsets[0][:, None], offsets[1][None, :]
    # Written out: a matrix product may run in reduced precision on an accelerator.
    matrix = pose.matrices[:, :, None, None]
    points = matrix[:, 0] * rows + matrix[:, 1] * columns + pose.centres[:, None, None]
    front = map_coordinates(patch, list(points), order=1, mode="constant", cval=0.0)
    shown, start, sides = front, (*corner,), (window, window)
    if colour is not None:
        front = front[:, :, None]
        shown, start, sides = front * colour, (*start, np.int32(0)), (*sides, len(colour))
    behind = jax.lax.dynamic_slice(canvas, start, sides)
    return jax.lax.dynamic_update_slice(canvas, front * shown + (1.0 - front) * behind, start)


def _window(shape: Sequence[int], canvas: int, max_scale: float, max_aspect: float) -> int:
    """Return the side of a square that holds a patch in any pose."""
    # A bilinear patch fades out over one pixel on each side; rounding moves the window by a half.
    tall, wide = (max_scale * (side + 1) for side in shape)
    reach = max(math.hypot(tall * max_aspect, wide), math.hypot(tall, wide * max_aspect))
    return min(canvas, math.ceil(reach) + 2)


def _draw_image(
    key: jax.Array,
    row: jax.Array,
    *,
    images: jax.Array,
    canvas: int,
    distractors: int,
    max_scale: float,
    max_aspect: float,
    coloured: bool,
) -> tuple[jax.Array, jax.Array]:
    """Draw one canvas ``(canvas, canvas, ...)``, and the middle ``(2,)`` of its digit."""
    stretch_key, crop_key, poses_key, digit_key = jax.random.split(key, 4)
    stretch = draw_stretch(stretch_key, max_scale=max_scale, max_aspect=max_aspect)
    pose = functools.partial(draw_pose, stretch=stretch, canvas=canvas)
    window = functools.partial(_window, canvas=canvas, max_scale=max_scale, max_aspect=max_aspect)
    crops, size = draw_crops(crop_key, images, row, count=distractors)
    poses = jax.vmap(pose, in_axes=(0, None))(jax.random.split(poses_key, distractors), size)
    side = window(crops.shape[1:])

    black = jnp.zeros((canvas, canvas, 3) if coloured else (canvas, canvas), jnp.float32)
    colours, own = None, None
    if coloured:
        of_crops, of_digit = colour_keys(key)
        colours, own = draw_colours(of_crops, (distractors,)), draw_colours(of_digit, ())

    def step(image: jax.Array, piece: tuple[Any, ...]) -> tuple[jax.Array, None]:
        return lay_over(image, *piece, window=side), None

    clutter, _ = jax.lax.scan(step, black, (crops, poses, colours))
    digit = images[row]
    digit_pose = pose(digit_key, jnp.array(digit.shape, jnp.int32))
    image = lay_over(clutter, digit, digit_pose, own, window=window(digit.shape))
    return image, digit_pose.middles


# Called outside jit, this would compile as more than a hundred small programs.
@functools.partial(
    jax.jit, static_argnames=("canvas", "distractors", "max_scale", "max_aspect", "coloured")
)
def _draw_batch(
    key: jax.Array, images: jax.Array, rows: jax.Array, **options: float
) -> tuple[jax.Array, jax.Array]:
    """Draw canvases ``(b, canvas, canvas, ...)``, and the middles ``(b, 2)`` of their digits."""
    draw = functools.partial(_draw_image, images=images, **options)
    drawn, middles = jax.vmap(draw)(jax.random.split(key, len(rows)), rows)
    # Bilinear weights may sum to a rounding error more than 1.
    return jnp.minimum(drawn, 1.0), middles


def make_rotated_cluttered(
    key: jax.Array,
    index: ClassIndex,
    *,
    batch: int,
    canvas: int = 100,
    distractors: int = 10,
    max_scale: float = 2.0,
    max_aspect: float = 2.0,
    rows: jax.Array | None = None,
    coloured: bool = False,
) -> ClutteredImages:
    """Hide one rotated, scaled digit among rotated, scaled pieces of other images.

    For each canvas: a scale from ``U(1, max_scale)`` and, on rows or columns by a coin, an aspect
    from ``U(1, max_aspect)``; one size of crop, each side from 4 to 14 pixels. Crops, then the
    digit, are stretched by these, turned by whole degrees of their own, and laid over what is
    there, ``out = f * f + (1 - f) * behind``. Crops come from any place of any image but the
    digit's. A bounding box too large for the canvas is shrunk to fit; its place is uniform.

    Resampling is bilinear, without a filter, which suits enlarging; the original script used
    bicubic.

    Args:
        key: typed key; the same key gives the same images.
        index: from :func:`index_by_class`, ``n`` images of ``(h, w)``, 2 or more.
        batch: how many canvases.
        canvas: side of each, in pixels.
        distractors: crops on each, 0 or more.
        max_scale: the largest scale, from 1 to a million.
        max_aspect: the largest further growth along one axis, from 1 to a million.
        rows: ``(batch, 1)`` integers, which source images to show, as in :func:`make_cluttered`.
        coloured: the digit and every crop has a colour of its own, as there; ``f * f`` is
            multiplied by it.

    Returns:
        The canvases, with labels ``(batch,)`` and centres ``(batch, 1, 2)``.

    Raises:
        ValueError: a size out of range, a canvas smaller than the images, fewer than two images,
            bad ``rows``, a ``coloured`` that is no bool, or not one key.

    Example:
        >>> from sparse_hyper_jax.train import data
        >>> index = data.index_by_class(data.load_digits())
        >>> hidden = data.make_rotated_cluttered(jax.random.key(0), index, batch=2, canvas=32)
        >>> hidden.images.shape, hidden.labels.shape
        ((2, 32, 32), (2,))
    """
    check_random_key(key)
    coloured = check_flag("coloured", coloured)
    check_count("batch", batch, 1)
    check_count("canvas", canvas, 1)
    check_count("distractors", distractors)
    for name, limit in (("max_scale", max_scale), ("max_aspect", max_aspect)):
        check_number(name, limit, at_least=1.0, at_most=LARGEST_STRETCH)
    check_source(index, canvas=canvas)
    require(
        len(index.images) > 1,
        "1 image to draw from",
        "2 or more: clutter comes from other images than the digit",
        "bring more images",
    )
    row_key, image_key = jax.random.split(key)
    rows = choose_rows(row_key, index, rows, batch=batch, digits=1)
    options = {"canvas": canvas, "distractors": distractors}
    limits = {"max_scale": float(max_scale), "max_aspect": float(max_aspect)}
    images, middles = _draw_batch(
        image_key, index.images, rows[:, 0], **options, **limits, coloured=coloured
    )
    return ClutteredImages(images, labels_of(index, rows), middles[:, None])
