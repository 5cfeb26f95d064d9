"""Where the recipe ``glimpse`` gets its images: canvases made in every step, or ready-made ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.nn.glimpse_attention import LARGEST_IMAGE, SMALLEST_IMAGE
from sparse_hyper_jax.train.data import (
    ClassIndex,
    Dataset,
    augment,
    index_by_class,
    load_cluttered,
    load_splits,
    make_cluttered,
    make_rotated_cluttered,
)

if TYPE_CHECKING:
    from sparse_hyper_jax.train.recipes.glimpse import GlimpseRecipe

EVALUATED = 10_000
PART = 100
EVALUATION_SEED = 2**31 - 1


@dataclass(frozen=True)
class Canvases:
    """Images for training and for evaluation.

    Attributes:
        side: of an image, in pixels.
        window: side of a glimpse.
        classes: number of classes.
        parts: ``"train"``, ``"validation"`` and ``"test"``: what :attr:`draw` and :attr:`make`
            take, resident on the device.
        draw: ``draw(key, source, batch)`` gives a random batch, warped, of images and labels.
        make: ``make(key, source, rows)`` gives fixed images and labels, one for each row.
    """

    side: int
    window: int
    classes: int
    parts: Mapping[str, Any]
    draw: Callable[[jax.Array, Any, int], tuple[jax.Array, jax.Array]]
    make: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, jax.Array]]

    def over(self, source: Any, score: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
        """Score fixed images, evenly spread over the source, 10,000 at most; part by part."""
        size = len(jax.tree.leaves(source)[0])
        part = min(PART, size)
        rows = _spread(min(size, EVALUATED) // part * part, size).reshape(-1, part)
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


def load_canvases(recipe: "GlimpseRecipe") -> Canvases:
    """Read the images that the recipe names and say how batches are made of them."""
    return _ready_made(recipe) if recipe.data == "cluttered" else _generated(recipe)


def _generated(recipe: "GlimpseRecipe") -> Canvases:
    splits = load_splits(recipe.data, recipe.data_dir, seed=recipe.seed, download=recipe.download)
    small = recipe.data == "digits"
    parts = {
        name: index_by_class(_enlarge(part, 2) if small else part)
        for name, part in splits._asdict().items()
    }
    digit = max(parts["train"].images.shape[1:])
    side = recipe.canvas or (32 if small else 60)
    least = max(digit, SMALLEST_IMAGE)
    checks.require(
        least <= side <= LARGEST_IMAGE,
        f"canvas={side} for digits of {digit} pixels",
        f"a side from {least} to {LARGEST_IMAGE}",
        "pass another --canvas",
    )
    options: dict[str, Any] = {"canvas": side, "distractors": recipe.distractors}
    if not recipe.rotated:
        options["distractor_size"] = recipe.distractor_size or (5 if small else 8)
    generate = make_rotated_cluttered if recipe.rotated else make_cluttered

    def draw(key: jax.Array, index: ClassIndex, batch: int) -> tuple[jax.Array, jax.Array]:
        draw_key, warp_key = jax.random.split(key)
        drawn = generate(draw_key, index, batch=batch, **options)
        return _warp(recipe, warp_key, drawn.images, shift=0.0), drawn.labels

    def make(key: jax.Array, index: ClassIndex, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = generate(key, index, batch=len(rows), rows=rows[:, None], **options)
        return drawn.images, drawn.labels

    classes = len(parts["train"].counts)
    return Canvases(side, recipe.window or digit, classes, parts, draw, make)


def _enlarge(dataset: Dataset, times: int) -> Dataset:
    """Repeat pixels: 8x8 digits would be lost on the smallest canvas that the networks take."""
    images = dataset.images.repeat(times, axis=1).repeat(times, axis=2)
    return Dataset(images, dataset.labels)


def _ready_made(recipe: "GlimpseRecipe") -> Canvases:
    splits = load_cluttered(recipe.data_dir)
    parts = {name: jax.tree.map(jnp.asarray, part) for name, part in splits._asdict().items()}
    side = parts["train"].images.shape[1]
    checks.require(
        recipe.canvas in (None, side) and not recipe.rotated,
        f"canvas={recipe.canvas} and rotated={recipe.rotated} with data='cluttered'",
        f"the ready-made images of {side}x{side} as they are",
        "leave out --canvas and --rotated, or make canvases from --data mnist",
    )

    def draw(key: jax.Array, source: Any, batch: int) -> tuple[jax.Array, jax.Array]:
        row_key, warp_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (batch,), 0, len(source.labels), jnp.int32)
        images, labels = make(row_key, source, rows)
        return _warp(recipe, warp_key, images, shift=4.0), labels

    def make(key: jax.Array, source: Any, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        return source.images[rows], source.labels[rows]

    return Canvases(side, recipe.window or 28, 10, parts, draw, make)


def _warp(recipe: "GlimpseRecipe", key: jax.Array, images: jax.Array, *, shift: float) -> jax.Array:
    if not recipe.warp:
        return images
    small = 0.1 * recipe.warp
    return augment(
        key,
        images,
        rotate=10 * recipe.warp,
        scale=small,
        shear=small,
        shift=shift * recipe.warp,
    )
