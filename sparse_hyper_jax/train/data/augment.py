"""Small random affine warps of images, drawn anew at every step inside ``jit``."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from sparse_hyper_jax.checks import check_count, check_number, check_shape, require
from sparse_hyper_jax.entrance import check_random_key

LARGEST_MAGNITUDE = 1e6
"""Far beyond what keeps anything of an image, and far within float32."""


# Called outside jit, the gathers below would compile as some thirty small programs.
@jax.jit
def warp(images: jax.Array, matrices: jax.Array, shifts: jax.Array) -> jax.Array:
    """Resample each image along an affine map about its centre, bilinearly, with 0 outside.

    Output pixel ``p`` shows the input at ``A (p - c) + c - t``, where ``c = ((h, w) - 1) / 2``.

    Args:
        images: ``(b, h, w)`` float, or ``(b, h, w, C)``: all channels are warped alike.
        matrices: ``(b, 2, 2)`` float, ``A``: from output to input offsets, in (row, column).
        shifts: ``(b, 2)`` float, ``t``: pixels by which the content moves down and right when ``A``
            is the identity.

    Returns:
        as ``images``.

    Raises:
        ValueError: a wrong shape, or images that are no floats.

    Example:
        >>> from sparse_hyper_jax.train.data import warp
        >>> images = jnp.zeros((1, 3, 3)).at[0, 1, 1].set(1.0)
        >>> warp(images, matrices=jnp.eye(2)[None], shifts=jnp.array([[0.0, 1.0]]))[0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    _check_images(images)
    check_shape("matrices", matrices, (images.shape[0], 2, 2), "(b, 2, 2): one map per image")
    check_shape("shifts", shifts, (images.shape[0], 2), "(b, 2): one shift per image")
    require(
        jnp.issubdtype(images.dtype, jnp.floating),
        f"images of type {images.dtype}",
        "floats, which can hold what lies between two pixels",
        "divide the pixels by their largest value",
    )
    rows, columns = images.shape[1:3]
    grid = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"))
    # Halves are exact in floating point, so that the identity map reads every pixel unchanged.
    centre = jnp.array([(rows - 1) / 2, (columns - 1) / 2], jnp.float32)
    offsets = grid - centre[:, None, None]

    def one(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
        # Written out: a matrix product may run in reduced precision on an accelerator.
        turned = matrix[:, 0, None, None] * offsets[0] + matrix[:, 1, None, None] * offsets[1]
        source = turned + (centre - shift)[:, None, None]
        return map_coordinates(image, list(source), order=1, mode="constant", cval=0.0)

    if images.ndim == 4:
        one = jax.vmap(one, in_axes=(2, None, None), out_axes=2)
    return jax.vmap(one)(images, matrices, shifts)


def _check_images(images: jax.Array) -> None:
    """Raise ValueError unless there is one image per row, with channels or without."""
    shape = (None, None, None) if images.ndim != 4 else (None, None, None, None)
    check_shape("images", images, shape, "(b, h, w) or (b, h, w, C): one image per row")


def draw_affine(
    key: jax.Array, batch: int, *, rotate: float, scale: float, shear: float, shift: float
) -> tuple[jax.Array, jax.Array]:
    """Draw the maps of :func:`warp`: a rotation, a zoom and a shear, then a shift.

    ``A = [[cos a, -sin a], [sin a, cos a]] [[1, s], [0, 1]] / z`` with ``a``, ``s``, ``z`` and the
    two shifts uniform and independent.

    Args:
        key: typed key.
        batch: how many maps.
        rotate: the angle ``a`` is within plus or minus this, in degrees.
        scale: the zoom ``z`` is within 1 plus or minus this.
        shear: ``s`` is within plus or minus this, pixels per pixel.
        shift: each shift is within plus or minus this, in pixels.

    Returns:
        ``(batch, 2, 2)`` matrices and ``(batch, 2)`` shifts, float32.

    Raises:
        ValueError: a negative ``batch``, a magnitude that is negative or more than a million,
            ``scale`` of 1 or more, or not one key.

    Example:
        >>> from sparse_hyper_jax.train.data import draw_affine
        >>> matrices, shifts = draw_affine(
        ...     jax.random.key(0), 2, rotate=10.0, scale=0.1, shear=0.1, shift=0.5
        ... )
        >>> matrices.shape, shifts.shape
        ((2, 2, 2), (2, 2))
    """
    check_random_key(key)
    batch = check_count("batch", batch)
    _check_magnitudes(rotate=rotate, scale=scale, shear=shear, shift=shift)
    reach = jnp.array([math.radians(rotate), scale, shear, shift, shift], jnp.float32)
    draws = reach * jax.random.uniform(key, (batch, 5), jnp.float32, minval=-1.0, maxval=1.0)
    angle, zoom, slant = draws[:, 0], 1.0 + draws[:, 1], draws[:, 2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    entries = jnp.stack([cos, slant * cos - sin, sin, slant * sin + cos], axis=-1)
    return (entries / zoom[:, None]).reshape(batch, 2, 2), draws[:, 3:]


def _check_magnitudes(**magnitudes: float) -> None:
    """Raise ValueError unless each is from 0 to the largest, and ``scale`` below 1."""
    for name, size in magnitudes.items():
        if name == "scale":
            # A zoom of 0 or less would be a division by 0, or a mirror.
            check_number(name, size, at_least=0.0, below=1.0)
        else:
            check_number(name, size, at_least=0.0, at_most=LARGEST_MAGNITUDE)


def augment(
    key: jax.Array,
    images: jax.Array,
    *,
    rotate: float = 10.0,
    scale: float = 0.1,
    shear: float = 0.1,
    shift: float = 0.5,
    noise: float = 0.0,
) -> jax.Array:
    """Warp every image by its own small random affine map, and add noise if wanted.

    The magnitudes are static numbers; with all of them 0 the images come back bit for bit.

    Args:
        key: typed key.
        images: ``(b, h, w)`` float in ``[0, 1]``, or with channels, ``(b, h, w, C)``.
        rotate: largest angle, in degrees.
        scale: largest relative change of size, below 1.
        shear: largest slant, in pixels per pixel.
        shift: largest shift along each axis, in pixels; the default suits 8x8 images, 2 those of
            28x28.
        noise: standard deviation of the Gaussian noise added to each pixel; the sum is clipped to
            ``[0, 1]``.

    Returns:
        as ``images``.

    Raises:
        ValueError: a wrong shape or type, a magnitude that is negative or more than a million,
            ``scale`` of 1 or more, or not one key.

    Example:
        >>> from sparse_hyper_jax.train.data import augment
        >>> images = jnp.zeros((2, 8, 8)).at[:, 3:5, 3:5].set(1.0)
        >>> augment(jax.random.key(0), images, noise=0.1).shape
        (2, 8, 8)
    """
    _check_images(images)
    check_random_key(key)
    _check_magnitudes(rotate=rotate, scale=scale, shear=shear, shift=shift, noise=noise)
    affine_key, noise_key = jax.random.split(key)
    maps = draw_affine(
        affine_key, images.shape[0], rotate=rotate, scale=scale, shear=shear, shift=shift
    )
    warped = warp(images, *maps)
    if noise == 0.0:
        return warped
    added = noise * jax.random.normal(noise_key, images.shape, images.dtype)
    return jnp.clip(warped + added, 0.0, 1.0)
