"""Digits in clutter (Mnih et al., 2014): a large canvas, mostly empty, with one thing to find.

The flow: key -> crops of random images, added -> whole digits, added -> canvases and labels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax.checks import check_count, check_flag, check_shape, require
from sparse_hyper_jax.entrance import check_random_key
from sparse_hyper_jax.train.data.sequences import ClassIndex, check_index


class ClutteredImages(NamedTuple):
    """A batch of canvases with digits somewhere in them.

    Attributes:
        images: ``(batch, canvas, canvas)`` float32 in ``[0, 1]``, 0 is background; ``(batch,
            canvas, canvas, 3)``, red, green and blue, if they are coloured.
        labels: int32, the class of the digit ``(batch,)``, or of each of several ``(batch,
            digits)``.
        centres: ``(batch, digits, 2)`` float32, row and column of the middle of each digit, in
            pixels from the middle of the first pixel: for plots and tests, not to learn from.

    Example:
        >>> from sparse_hyper_jax.train.data import index_by_class, load_digits, make_cluttered
        >>> index = index_by_class(load_digits())
        >>> hidden = make_cluttered(jax.random.key(0), index, batch=2, canvas=32, digits=3)
        >>> jax.tree.map(jnp.shape, hidden)
        ClutteredImages(images=(2, 32, 32), labels=(2, 3), centres=(2, 3, 2))
    """

    images: jax.Array
    labels: jax.Array
    centres: jax.Array


def check_source(index: ClassIndex, *, canvas: int, border: int = 0) -> None:
    """Check that there are images to draw from and that each fits onto the canvas.

    Raises:
        ValueError: no :class:`ClassIndex`, images of a wrong rank, or larger than the canvas.
    """
    check_index(index)
    height, width = index.images.shape[1:]
    require(
        max(height, width) + 2 * border <= canvas,
        f"canvas={canvas} for digits of {height}x{width} with border={border}",
        f"a canvas of at least {max(height, width) + 2 * border}",
        "enlarge the canvas or narrow the border",
    )


def choose_rows(
    key: jax.Array, index: ClassIndex, rows: jax.Array | None, *, batch: int, digits: int
) -> jax.Array:
    """Draw which source image each digit is, all equally likely, unless ``rows`` says it.

    Returns:
        ``(batch, digits)`` integers, places in ``index.images``.

    Raises:
        ValueError: ``rows`` of a wrong shape or type, or, where they are known, outside.
    """
    shape, last = (batch, digits), len(index.images) - 1
    if rows is None:
        return jax.random.randint(key, shape, 0, last + 1, dtype=jnp.int32)
    check_shape("rows", rows, shape, "(batch, digits): one source image per digit")
    require(
        jnp.issubdtype(rows.dtype, jnp.integer),
        f"rows of type {rows.dtype}",
        "integers from 0 to n - 1",
        "pass places in index.images, for instance jnp.arange(n).reshape(-1, batch, 1)[part]",
    )
    if not isinstance(rows, Tracer):
        known = np.asarray(rows)
        require(
            known.size == 0 or (known.min() >= 0 and known.max() <= last),
            f"rows from {known.min()} to {known.max()}" if known.size else "no rows",
            f"places from 0 to {last}, one for each image",
            "lower rows, or pass an index of more images",
        )
    # Clipped once: an image and its label are read in ways that treat what is outside differently.
    return jnp.clip(rows, 0, min(last, jnp.iinfo(rows.dtype).max))


def labels_of(index: ClassIndex, rows: jax.Array) -> jax.Array:
    """Return the classes ``(batch,)`` or ``(batch, digits)`` of rows ``(batch, digits)``."""
    # Images are grouped by class: the last class that starts at or before an image is its own.
    labels = jnp.searchsorted(index.starts, rows, side="right").astype(jnp.int32) - 1
    return labels[:, 0] if rows.shape[1] == 1 else labels


def _draw_corners(
    key: jax.Array, shape: tuple[int, int], *, low: int, high: tuple[int, int]
) -> jax.Array:
    """Draw corners ``(*shape, 2)``, each row and column uniform from ``low`` to ``high``."""
    return jax.random.randint(key, (*shape, 2), low, jnp.array(high, jnp.int32) + 1, jnp.int32)


def _draw_crops(key: jax.Array, images: jax.Array, shape: tuple[int, int], size: int) -> jax.Array:
    """Cut squares ``(*shape, size, size)`` out of random images at random places."""
    row_key, corner_key = jax.random.split(key)
    count, height, width = images.shape
    rows = jax.random.randint(row_key, shape, 0, count, dtype=jnp.int32)
    corners = _draw_corners(corner_key, shape, low=0, high=(height - size, width - size))

    def crop(row: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(images, (row, *corner), (1, size, size))[0]

    return jax.vmap(jax.vmap(crop))(rows, corners)


def colour_keys(key: jax.Array) -> jax.Array:
    """Give keys for the colours of crops and of digits, of a key that is split into four.

    ``fold_in(key, n)`` may be the n-th of the keys into which it is split: colours drawn with one
    of those would tell places. Four is none of them.
    """
    return jax.random.split(jax.random.fold_in(key, 4))


def draw_colours(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Draw bright colours ``(*shape, 3)``: uniform numbers over the largest of each three."""
    parts = 1 - jax.random.uniform(key, (*shape, 3), jnp.float32)  # none is 0
    return parts / parts.max(axis=-1, keepdims=True)


def _add(canvases: jax.Array, patches: jax.Array, corners: jax.Array) -> jax.Array:
    """Add patches to canvases, one after another, then clamp to 1.

    Windows are updated in place, so that the work is that of the patches and not of the canvas:
    on a CPU a fifth of the time of products with one-hot matrices at 100x100. In turn, for then
    overlapping patches are summed in the same order, hence to the same bytes, on every device.

    Args:
        canvases: ``(b, H, W)``, or with channels ``(b, H, W, C)``.
        patches: ``(b, k, h, w)``, or ``(b, k, h, w, C)``.
        corners: ``(b, k, 2)`` integers.

    Returns:
        as ``canvases``.
    """
    # Typed as corners are: under jax_enable_x64 a bare 0 is an int64, and places have one type.
    channels = (np.zeros((), corners.dtype),) * (canvases.ndim - 3)

    def step(canvas: jax.Array, piece: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        patch, corner = piece
        start = (*corner, *channels)
        window = jax.lax.dynamic_slice(canvas, start, patch.shape)
        return jax.lax.dynamic_update_slice(canvas, window + patch, start), None

    def fill(canvas: jax.Array, patches: jax.Array, corners: jax.Array) -> jax.Array:
        return jax.lax.scan(step, canvas, (patches, corners))[0]

    return jnp.minimum(jax.vmap(fill)(canvases, patches, corners), 1.0)


def make_cluttered(
    key: jax.Array,
    index: ClassIndex,
    *,
    batch: int,
    canvas: int = 100,
    distractors: int = 8,
    distractor_size: int = 8,
    border: int = 0,
    digits: int = 1,
    rows: jax.Array | None = None,
    change: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    coloured: bool = False,
) -> ClutteredImages:
    """Hide whole digits among pieces of others, at random places of a black canvas.

    ``image = min(1, min(1, sum of crops) + sum of digits)``. Every source image is equally likely
    as a digit, so that classes are as frequent as in the source. Crops come from random images and
    places of them, blank ones included, and lie anywhere; digits lie anywhere inside the border.
    Each is placed on its own: crops and also several digits may overlap.

    Pass one set's images only, and no canvas shares a pixel with another set. For a fixed test set
    that shows each image once, keep the key and pass the rows part by part, for 10,000 canvases of
    100x100 would take 400 MB::

        parts = jnp.arange(n).reshape(-1, 100, 1)
        keys = jax.random.split(jax.random.key(0), len(parts))
        jax.lax.map(lambda part: score(make_cluttered(part[0], index, batch=100, rows=part[1])),
                    (keys, parts))

    Args:
        key: typed key; the same key gives the same bytes.
        index: from :func:`index_by_class`, ``n`` images of ``(h, w)``.
        batch: how many canvases.
        canvas: side of each, in pixels.
        distractors: crops on each, 0 or more.
        distractor_size: side of the square crops, in pixels.
        border: digits keep this many pixels away from the edges.
        digits: whole digits on each canvas.
        rows: ``(batch, digits)`` integers, which source images to show, in the order of
            ``index.images``; random ones if left out. Crops are random in any case.
        change: ``change(key, images)`` is applied to the digits ``(batch * digits, h, w)`` before
            they are added, and keeps their shape: for instance a small warp, at a fraction of what
            warping canvases takes.
        coloured: every digit and every crop has a colour of its own, three uniform numbers over
            the largest of them, by which its pixels are multiplied.

    Returns:
        The canvases, with labels and places of the digits.

    Raises:
        ValueError: a size out of range, a canvas too small for a digit, crops larger than the
            images, bad ``rows``, a ``coloured`` that is no bool, or not one key.

    References:
        Mnih, Heess, Graves and Kavukcuoglu, "Recurrent models of visual attention", 2014.

    Example:
        >>> from sparse_hyper_jax.train.data import index_by_class, load_digits, make_cluttered
        >>> index = index_by_class(load_digits())
        >>> hidden = make_cluttered(jax.random.key(0), index, batch=2, canvas=32)
        >>> hidden.images.shape, hidden.labels.shape, hidden.centres.shape
        ((2, 32, 32), (2,), (2, 1, 2))
    """
    check_random_key(key)
    coloured = check_flag("coloured", coloured)
    counts = {"batch": batch, "canvas": canvas, "distractor_size": distractor_size}
    for name, size in {**counts, "digits": digits}.items():
        check_count(name, size, 1)
    check_count("distractors", distractors)
    check_count("border", border)
    check_source(index, canvas=canvas, border=border)
    height, width = index.images.shape[1:]
    require(
        distractor_size <= min(height, width),
        f"distractor_size={distractor_size} for images of {height}x{width}",
        f"crops of at most {min(height, width)} pixels",
        "lower distractor_size",
    )
    row_key, digit_key, crop_key, clutter_key = jax.random.split(key, 4)
    rows = choose_rows(row_key, index, rows, batch=batch, digits=digits)
    last = (canvas - height - border, canvas - width - border)
    corners = _draw_corners(digit_key, (batch, digits), low=border, high=last)
    crops = _draw_crops(crop_key, index.images, (batch, distractors), distractor_size)
    furthest = canvas - distractor_size
    places = _draw_corners(clutter_key, (batch, distractors), low=0, high=(furthest, furthest))
    black = jnp.zeros((batch, canvas, canvas), jnp.float32)
    whole = index.images[rows]
    if change:
        flat = change(jax.random.fold_in(digit_key, 1), whole.reshape(-1, height, width))
        whole = flat.reshape(whole.shape)
    if coloured:
        black = jnp.zeros((*black.shape, 3), jnp.float32)
        keys = colour_keys(key)
        crops, whole = (
            patches[..., None] * draw_colours(key, patches.shape[:2])[:, :, None, None]
            for patches, key in zip((crops, whole), keys, strict=True)
        )
    images = _add(_add(black, crops, places), whole, corners)
    # Halves are exact in floating point.
    centres = corners + jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    return ClutteredImages(images, labels_of(index, rows), centres)
