"""Cluttered images for training and evaluation: made in every step, or ready-made ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.nn.image_encoder import LARGEST_IMAGE, SMALLEST_IMAGE
from sparse_hyper_jax.train.data.augment import augment
from sparse_hyper_jax.train.data.cluttered import ClutteredImages, make_cluttered
from sparse_hyper_jax.train.data.dataset import Dataset, Splits
from sparse_hyper_jax.train.data.rotated_clutter import make_rotated_cluttered
from sparse_hyper_jax.train.data.sequences import ClassIndex, index_by_class

Warped = Literal["image", "digit"]
"""What random warps bend."""

EVALUATED = 10_000
PART = 100
EVALUATION_SEED = 2**31 - 1


@dataclass(frozen=True)
class Canvases:
    """Images for training and for evaluation.

    Attributes:
        side: of a canvas, in pixels.
        window: side of a glimpse.
        classes: number of classes.
        channels: of an image: 3 if it is coloured, whose last axis they are, else 1, without axis.
        parts: ``"train"``, ``"validation"`` and ``"test"``: what :attr:`draw` and :attr:`make`
            take, resident on the device.
        draw: ``draw(key, source, batch)`` gives a random batch, warped, of images and labels.
        make: ``make(key, source, rows)`` gives fixed images and labels, one for each row.
    """

    side: int
    window: int
    classes: int
    channels: int
    parts: Mapping[str, Any]
    draw: Callable[[jax.Array, Any, int], tuple[jax.Array, jax.Array]]
    make: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, jax.Array]]

    def over(self, source: Any, score: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
        """Score fixed images, evenly spread over the source, 10,000 at most; part by part.

        Parts have one size, so that a source of more than 100 images may lose fewer than there are
        parts: 198 of 199 are scored.
        """
        size = len(jax.tree.leaves(source)[0])
        count = min(size, EVALUATED)
        parts = -(-count // PART)
        rows = _spread(count // parts * parts, size).reshape(parts, -1)
        keys = jax.random.split(jax.random.key(EVALUATION_SEED), len(rows))
        return jax.lax.map(lambda part: score(*self.make(part[0], source, part[1])), (keys, rows))

    def show(self, part: str, count: int) -> tuple[jax.Array, jax.Array]:
        """Make a few fixed images, evenly spread over a part, with their labels."""
        source = self.parts[part]
        size = len(jax.tree.leaves(source)[0])
        rows = _spread(count, size)
        return self.make(jax.random.key(EVALUATION_SEED), source, rows)


def _spread(count: int, size: int) -> jax.Array:
    """Choose ``count`` of ``size`` rows from first to last: sources may be ordered by class."""
    return jnp.asarray(np.arange(count) * size // count, jnp.int32)


def make_canvases(
    splits: Splits,
    *,
    small: bool = False,
    canvas: int | None = None,
    window: int | None = None,
    distractors: int = 4,
    distractor_size: int | None = None,
    rotated: bool = False,
    coloured: bool = False,
    warp: float = 0.0,
    warped: Warped = "image",
    given: bool = False,
    missed: float = 0.0,
) -> Canvases:
    """Say how batches of canvases are made of digits.

    Args:
        splits: single digits.
        small: whether they have 8x8 pixels, to be enlarged.
        canvas: side of an image, by default 60, or 32 for small digits.
        window: side of a glimpse, by default that of a digit.
        distractors: pieces of digits on every canvas.
        distractor_size: their side, by default 8, or 5 for small digits; none if rotated.
        rotated: rotate and scale digits and distractors at random.
        coloured: give digits and distractors random colours.
        warp: strength of random warps of training images, see :func:`warp_canvases`.
        warped: whether whole images are warped, or digits alone before they are put on a canvas.
        given: images are the windows about the digits, cut out of the canvases: what attention
            would read that always finds them. A warp of the image is one of the window then.
        missed: standard deviation, in pixels, of how far these windows lie off, along each axis.

    Raises:
        ValueError: the canvas does not hold a digit, or is larger than the networks take.
    """
    parts = {
        name: index_by_class(_enlarge(part, 2) if small else part)
        for name, part in splits._asdict().items()
    }
    digit = max(parts["train"].images.shape[1:])
    side = _side((32 if small else 60) if canvas is None else canvas, digit)
    options: dict[str, Any] = {"canvas": side, "distractors": distractors, "coloured": coloured}
    if not rotated:
        options["distractor_size"] = distractor_size or (5 if small else 8)
    generate = partial(make_rotated_cluttered if rotated else make_cluttered, **options)
    looked = window or digit
    checks.require(
        not given or looked <= side,
        f"--window {looked} cut out of --canvas {side}",
        "a window that the canvas holds",
        "pass a smaller --window or a larger --canvas",
    )
    seen = partial(_window, side=looked, missed=missed) if given else _whole
    bend = partial(warp_canvases, strength=warp, shift=0.0)
    once = {"change": bend} if warped == "digit" and warp else {}

    def draw(key: jax.Array, index: ClassIndex, batch: int) -> tuple[jax.Array, jax.Array]:
        draw_key, warp_key, *more = jax.random.split(key, 3 if missed else 2)
        drawn = generate(draw_key, index, batch=batch, **once)
        images = seen(drawn, *more)
        return images if once else bend(warp_key, images), drawn.labels

    def make(key: jax.Array, index: ClassIndex, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        draw_key, *more = jax.random.split(key) if missed else (key,)
        drawn = generate(draw_key, index, batch=len(rows), rows=rows[:, None])
        return seen(drawn, *more), drawn.labels

    classes = len(parts["train"].counts)
    return Canvases(side, looked, classes, 3 if coloured else 1, parts, draw, make)


def _whole(drawn: ClutteredImages, *unused: jax.Array) -> jax.Array:
    return drawn.images


def _window(
    drawn: ClutteredImages, key: jax.Array | None = None, *, side: int, missed: float
) -> jax.Array:
    """Cut out the window about each digit; with a key, off by ``missed`` pixels."""
    centres = drawn.centres[:, 0]
    if key is not None:
        centres += missed * jax.random.normal(key, centres.shape, centres.dtype)
    return cut_out(drawn.images, centres, side)


def _side(side: int, digit: int) -> int:
    """Return the side of a canvas.

    Raises:
        ValueError: it does not hold a digit, or is larger than the networks take.
    """
    least = max(digit, SMALLEST_IMAGE)
    checks.require(
        least <= side <= LARGEST_IMAGE,
        f"--canvas {side} for digits of {digit} pixels",
        f"a side from {least} to {LARGEST_IMAGE}",
        "pass another --canvas",
    )
    return side


def cut_out(images: jax.Array, centres: jax.Array, side: int) -> jax.Array:
    """Cut squares out of images, ``(b, H, W, ...)`` to ``(b, side, side, ...)``.

    About the centres ``(b, 2)``, moved inside of the image where they would reach over an edge.
    """
    corners = jnp.round(centres - (side - 1) / 2).astype(jnp.int32)
    # Negative places would count from the far edge.
    corners = jnp.clip(corners, 0, jnp.array(images.shape[1:3], jnp.int32) - side)
    channels = images.shape[3:]

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (*corner, *(np.int32(0) for _ in channels))
        return jax.lax.dynamic_slice(image, start, (side, side, *channels))

    return jax.vmap(cut)(images, corners)


def _enlarge(dataset: Dataset, times: int) -> Dataset:
    """Repeat pixels: 8x8 digits would be lost on the smallest canvas that the networks take."""
    images = dataset.images.repeat(times, axis=1).repeat(times, axis=2)
    return Dataset(images, dataset.labels)


def ready_canvases(splits: Splits, *, window: int | None = None, warp: float = 0.0) -> Canvases:
    """Say how batches are drawn from cluttered images as they are.

    Args:
        splits: cluttered images.
        window: side of a glimpse, by default 28.
        warp: strength of random warps of training images, see :func:`warp_canvases`.
    """
    parts = {name: jax.tree.map(jnp.asarray, part) for name, part in splits._asdict().items()}

    def draw(key: jax.Array, source: Any, batch: int) -> tuple[jax.Array, jax.Array]:
        row_key, warp_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (batch,), 0, len(source.labels), jnp.int32)
        images, labels = make(row_key, source, rows)
        return warp_canvases(warp_key, images, strength=warp, shift=4.0), labels

    def make(key: jax.Array, source: Any, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        return source.images[rows], source.labels[rows]

    return Canvases(parts["train"].images.shape[1], window or 28, 10, 1, parts, draw, make)


def warp_canvases(key: jax.Array, images: jax.Array, *, strength: float, shift: float) -> jax.Array:
    """Warp whole images: times ``strength`` 10 degrees, 10 % of size and slant, and the shift."""
    if not strength:
        return images
    small = 0.1 * strength
    return augment(
        key, images, rotate=10 * strength, scale=small, shear=small, shift=shift * strength
    )
