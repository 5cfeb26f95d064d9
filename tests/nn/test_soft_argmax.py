"""Windows that follow what the network sees, wherever it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.glimpse import GRIDS
from sparse_hyper_jax.nn import GlimpseAttention
from sparse_hyper_jax.nn.soft_argmax import SoftArgmax

from .examples import drawn

HEIGHT, WIDTH, STRIDE = 12, 15, 3
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
SMALL = {"channels": (2,), "strides": (STRIDE,), "features": 3}


@pytest.mark.parametrize("scale", [1.0, 1e4])  # smooth, and one cell alone
def test_the_middle_of_a_softmax(scale):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    layer = drawn(lambda: SoftArgmax(5, 2, sharpness=3.0, rngs=nnx.Rngs(0)))
    layer.scores.kernel[...] = kernel = scale * layer.scores.kernel[...]
    scores = 3.0 * np.einsum("bhwc,cp->bphw", maps.astype(float), np.asarray(kernel, float))
    weights = np.exp(scores - scores.max(axis=(2, 3), keepdims=True))
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    rows, columns = (np.arange(3) + 0.5) / 3, (np.arange(4) + 0.5) / 4
    expected = [weights.sum(3) @ rows, weights.sum(2) @ columns]
    places, slopes = jax.jit(
        lambda maps: (layer(maps), jax.grad(lambda maps: layer(maps).sum())(maps))
    )(maps)
    np.testing.assert_allclose(places, np.stack(expected, axis=-1), rtol=1e-5)
    assert np.isfinite(slopes).all()
    assert (np.abs(slopes).max() > 0) == (scale == 1.0)


def spots():
    """One spot per image, each in the middle of a cell, two of them neighbours."""
    cells = np.array([[0, 0], [1, 2], [1, 3], [ROWS - 1, COLUMNS - 1]])
    images = np.zeros((len(cells), HEIGHT, WIDTH), np.float32)
    images[np.arange(len(cells)), *(STRIDE * cells.T + STRIDE // 2)] = 1.0
    return images, (cells + 0.5) / (ROWS, COLUMNS)


@pytest.mark.parametrize(
    ("grid", "reader"), [*((grid, "sampled") for grid in GRIDS), ("affine", "bilinear")]
)
def test_a_window_follows_what_it_learned_to_find(grid, reader):
    images, cells = spots()
    layer = drawn(
        lambda: GlimpseAttention(
            *(HEIGHT, WIDTH, (2, 2)),
            **{"grid": grid, "reader": reader, "soft_argmax": 2.0} | SMALL,
            rngs=nnx.Rngs(0),
        ),
        zeros=("place",),  # so that nothing else moves a window
    )
    graph, found, rest = nnx.split(layer, lambda path, _: path[0] == "soft_argmax", ...)

    @jax.jit
    def numbers_and_corners(gain):
        def numbers_of(found):
            return nnx.merge(graph, found, rest).numbers(images)

        weights = jax.tree.map(lambda leaf: jnp.full(leaf.shape, gain), found)
        numbers = numbers_of(weights)
        slopes = jax.grad(lambda found: jnp.sum(numbers_of(found)[0]))(weights)
        return numbers[:, 0], layer.corners(numbers)[:, 0], jax.tree.leaves(slopes)[0]

    numbers, corners, _ = numbers_and_corners(1e5)
    free = reader == "bilinear"
    moved = 2 * cells - 1 if free else np.log(cells / (1 - cells))
    for number, axis in enumerate(GRIDS[grid].moves):
        expected = 0.0 if axis is None else moved[:, axis]
        np.testing.assert_allclose(numbers[:, number], expected, rtol=1e-4, atol=1e-6)
    middles = np.asarray(corners).mean(axis=1)
    # Down or right in the image is down or right for the window, and one axis leaves the other.
    assert (np.diff(middles[1:3, 1]) > 0.3).all()
    np.testing.assert_allclose(middles[1, 0], middles[2, 0], rtol=1e-5)
    assert (middles[0] < middles[1:].min(axis=0)).all()
    assert (middles[-1] > middles[:-1].max(axis=0)).all()
    # Before training it finds nothing, stays in the middle, and is told where to go.
    numbers, corners, slopes = numbers_and_corners(0.0)
    np.testing.assert_allclose(numbers, np.zeros_like(numbers), atol=1e-6)
    middle = np.broadcast_to([(HEIGHT - 1) / 2, (WIDTH - 1) / 2], (len(images), 2))
    np.testing.assert_allclose(np.asarray(corners).mean(axis=1), middle, rtol=1e-5)
    assert np.isfinite(slopes).all()
    assert np.abs(slopes).max() > 0
