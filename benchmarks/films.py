"""The film of the page on glimpses: windows find their digits while they learn where to look.

    python -m benchmarks.films --mnist DIR      writes docs/glimpses.gif

Some test images above, below each of them what its window reads there; blue where the digit is
named right, red where it is not. Without ``--mnist`` it shows the bundled digits.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.lines import ROOT
from benchmarks.recipes import recipe_of
from benchmarks.runner import Asked

if TYPE_CHECKING:
    from sparse_hyper_jax.train.recipes.glimpse import GlimpseRecipe

PIECE = 20
"""Steps of one compiled scan: frames lie between them."""

RIGHT, WRONG, INK = (33, 102, 172), (178, 24, 43), (60, 60, 60)
ZOOM, GAP, LINE = 2, 8, 18


class Scene(NamedTuple):
    """What one frame shows."""

    step: int
    """Steps trained so far."""

    images: np.ndarray
    """``(n, H, W)`` in [0, 1]."""

    corners: np.ndarray
    """``(n, g, 4, 2)`` rows and columns, see :meth:`GlimpseAttention.corners`."""

    windows: np.ndarray
    """``(n, g, h, w)``."""

    right: np.ndarray
    """``(n,)``: whether the digit is named right."""


def scenes(recipe: "GlimpseRecipe", moments: Sequence[int], count: int) -> Iterator[Scene]:
    """Train, and look at ``count`` test images after some numbers of steps.

    Args:
        recipe: how to train; a scene beyond its steps would be one of a rate of zero.
        moments: multiples of ``PIECE``, in order.
        count: how many images.
    """
    import jax
    import jax.numpy as jnp

    from sparse_hyper_jax.train.dispatch import dispatcher
    from sparse_hyper_jax.train.recipes.glimpse import rebuild

    canvases = recipe.load()
    plan = recipe.settle(canvases).plan(canvases)
    images, labels = canvases.show("test", count)
    leaves, structure = jax.tree.flatten(plan.state)
    dispatch = dispatcher(plan.step, structure, tuple(leaf.sharding for leaf in leaves))

    @jax.jit
    def look(parameters: Any) -> tuple[jax.Array, ...]:
        model = rebuild(recipe, canvases, parameters)
        corners = model.attention.corners(model.attention.numbers(images))
        windows = model.attention.read(images, corners, deterministic=True)
        right = jnp.argmax(model.head(windows), axis=1) == labels
        return images, corners, windows[..., 0], right

    state, done, key = plan.state, 0, jax.random.key(recipe.seed)
    for moment in moments:
        while done < moment:
            state, _ = dispatch(state, key, jnp.uint32(done), plan.constants, length=PIECE)
            done += PIECE
        yield Scene(done, *map(np.asarray, look(state.parameters)))


def frame(scene: Scene) -> Image.Image:
    """Draw one scene: images with the outlines of their windows, windows below, the step."""
    count, height, width = scene.images.shape
    glimpses, low, wide = scene.windows.shape[1:]
    column = ZOOM * max(width, wide) + GAP
    size = (column * count + GAP, ZOOM * (height + glimpses * low) + (2 + glimpses) * GAP + LINE)
    drawn = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(drawn)
    for number in range(count):
        left, colour = GAP + number * column, RIGHT if scene.right[number] else WRONG
        drawn.paste(grey(scene.images[number]), (left, GAP))
        for glimpse, quad in enumerate(scene.corners[number]):
            # Corners count from the middle of a pixel.
            points = [(left + ZOOM * (x + 0.5), GAP + ZOOM * (y + 0.5)) for y, x in quad]
            pen.line([*points, points[0]], fill=colour, width=2)
            top = (2 + glimpse) * GAP + ZOOM * (height + glimpse * low)
            drawn.paste(grey(scene.windows[number, glimpse]), (left, top))
            box = (left - 1, top - 1, left + ZOOM * wide, top + ZOOM * low)
            pen.rectangle(box, outline=colour)
    font = ImageFont.load_default(13)
    pen.text((GAP, size[1] - LINE), f"after {scene.step:,} steps", fill=INK, font=font)
    return drawn


def grey(pixels: np.ndarray) -> Image.Image:
    """Draw bright pixels dark, enlarged."""
    levels = (255 * (1 - np.clip(pixels, 0, 1))).astype(np.uint8)
    return Image.fromarray(levels.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))


def save(frames: Sequence[Image.Image], path: Path) -> None:
    """Write frames as a film that starts again; the first and the last stay for a while."""
    few = [one.quantize(32, dither=Image.Dither.NONE) for one in frames]
    times = [900, *[110] * (len(few) - 2), 2500]
    few[0].save(path, save_all=True, append_images=few[1:], duration=times, loop=0, optimize=True)


def moments(steps: int, count: int) -> list[int]:
    """Choose after how many steps to look: often at first, when windows move most."""
    shares = np.linspace(0, 1, count) ** 2
    return sorted({int(PIECE * round(share * steps / PIECE)) for share in shares})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the film."""
    parser = argparse.ArgumentParser("python -m benchmarks.films", description=__doc__)
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="folder of the four MNIST files")
    parser.add_argument("--steps", type=int, default=1_200, help="training steps")
    parser.add_argument("--frames", type=int, default=50, help="about as many frames")
    parser.add_argument("--images", type=int, default=5, help="test images")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "glimpses.gif")
    given = parser.parse_args(arguments)
    options = {"steps": given.steps, "warped": "digit", "shrink": 2}
    options |= {"data": "mnist"} if given.mnist else {}
    recipe = recipe_of("glimpse", Asked(mnist=given.mnist), **options)
    looked = scenes(recipe, moments(given.steps, given.frames), given.images)
    save([frame(scene) for scene in looked], given.out)


if __name__ == "__main__":
    main()
