"""Signals and volumes beside images, and what lies outside of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sparse_hyper_jax import glimpse
from sparse_hyper_jax.glimpse import bilinear, box_corners, box_means, extract_hard, grid_means
from sparse_hyper_jax.glimpse.padding import reflected
from sparse_hyper_jax.glimpse.points import draw_points
from tests.glimpse.examples import key, uniform
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

SHAPES = {1: (9,), 2: (5, 6), 3: (4, 5, 3)}
REGIONS = {1: (4,), 2: (3, 4), 3: (2, 3, 2)}
MODES = {"zeros": "grid-constant", "border": "nearest", "reflection": "mirror"}
SAMPLED = {"num_global": 3, "num_local": 2}


def means_of(rank, *, outside=0.0):
    last = np.array(SHAPES[rank]) - 1.0
    return uniform(7, rank, low=-outside, high=1 + outside, seed=rank) * np.float32(last)


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("rank", SHAPES)
def test_interpolation_is_that_of_scipy(rank, padding):
    image, means = uniform(*SHAPES[rank], 2), means_of(rank, outside=2.2)
    expected = [
        ndimage.map_coordinates(image[..., channel], means.T, order=1, mode=MODES[padding])
        for channel in (0, 1)
    ]
    assert_close(bilinear(image, means, padding=padding, rank=rank), np.stack(expected, -1), 1e-4)
    assert_close(bilinear(image[..., 0], means, padding=padding, rank=rank), expected[0], 1e-4)


def naive(image, points, means, variances):
    """Shares of different points by density, one output pixel at a time, in float64."""
    rank, y = means.shape[-1], []
    for n, mean in enumerate(np.float64(means)):
        cells = np.array(
            list(
                dict.fromkeys(
                    tuple(int(cell[min(n, len(cell) - 1)]) for cell in point.cells)
                    for point in points
                )
            )
        )
        logits = -0.5 * np.sum((cells - mean) ** 2 / variances, axis=1)
        shares = np.exp(logits - logits.max())
        values = np.float64(image)[tuple(cells.T)]
        y.append(shares @ values.reshape(len(cells), -1) / shares.sum())
    return np.stack(y).reshape(len(means), *image.shape[rank:])


@pytest.mark.parametrize("draws", glimpse.DRAWS)
@pytest.mark.parametrize("rank", [1, 3])
def test_windows_of_signals_and_volumes_are_those_of_a_loop(rank, draws):
    image, means = uniform(*SHAPES[rank], 2), means_of(rank)
    variances = np.linspace(0.5, 2.0, rank).astype(np.float32)
    options = SAMPLED | {"region": REGIONS[rank], "draws": draws}
    points = draw_points(key(), [*means.T], SHAPES[rank], **options)
    assert len(points) == 2**rank + 5
    found = glimpse.extract(key(), image, means, variances, rank=rank, **options)
    assert_close(found, naive(image, points, means, variances), rtol=1e-4)
    for cell, size in zip(zip(*(p.cells for p in points), strict=True), SHAPES[rank], strict=True):
        assert all(np.all((np.asarray(part) >= 0) & (np.asarray(part) < size)) for part in cell)


def test_points_of_a_volume_are_kept_once_each():
    means, shape = means_of(3), SHAPES[3]
    options = {"num_global": 9, "num_local": 7, "region": (2, 9, 2), "draws": "pixel"}
    points = draw_points(key(), [*means.T], shape, **options)
    cells = np.stack([np.stack(np.broadcast_arrays(*point.cells)) for point in points])
    kept = np.stack([np.broadcast_to(point.kept, len(means)) for point in points])
    for n, mean in enumerate(means):
        listed = [tuple(cell) for cell in cells[:, :, n].tolist()]
        assert kept[:, n].tolist() == [cell not in listed[:i] for i, cell in enumerate(listed)]
        about = [{int(np.floor(place)), int(np.ceil(place))} for place in mean]
        assert set(itertools.product(*about)) <= set(listed[:8])


def test_a_long_signal_is_drawn_from_to_its_end():
    (cells,), _ = draw_points(
        key(),
        [np.float32([0.0] * 64)],
        (2**20,),
        num_global=1,
        num_local=0,
        region=(8,),
        draws="pixel",
    )[-1]
    assert 0 <= int(cells.min()) < 2**18 < 3 * 2**18 < int(cells.max()) < 2**20


@pytest.mark.parametrize("rank", SHAPES)
def test_the_nearest_pixel_of_any_rank(rank):
    image, means = uniform(*SHAPES[rank], 2), means_of(rank, outside=0.4)
    last = np.array(SHAPES[rank]) - 1
    nearest = tuple(np.clip(np.round(means), 0, last).astype(int).T)
    assert np.array_equal(extract_hard(image, means, rank=rank), image[nearest])
    inside = np.asarray(reflected(jnp.asarray(means.T), SHAPES[rank])).T
    mirrored = tuple(np.round(inside).astype(int).T)
    assert np.array_equal(
        extract_hard(image, means, rank=rank, padding="reflection"), image[mirrored]
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_reflection_repeats_what_numpy_pads(size):
    row = np.arange(size)
    period = np.pad(row, 3 * size, mode="reflect") if size > 1 else np.zeros(7, int)
    places = np.arange(len(period)) - (len(period) - size) // 2
    assert np.array_equal(reflected(jnp.float32(places)[None], (size,))[0], period)


def test_reflected_windows_are_those_of_the_image_put_together_with_its_mirror_image():
    image = uniform(5, 6)
    wide = np.pad(image, 5, mode="reflect")
    means = uniform(6, 2, low=-3.0, high=7.0, seed=2)
    variances = np.float32([0.7, 1.3])
    found, slope = jax.value_and_grad(
        lambda m: jnp.sum(
            glimpse.extract(
                None, image, m, variances, num_global=0, num_local=0, padding="reflection"
            )
        )
    )(means)
    expected, wide_slope = jax.value_and_grad(
        lambda m: jnp.sum(glimpse.extract(None, wide, m + 5, variances, num_global=0, num_local=0))
    )(means)
    assert_close(found, expected, rtol=1e-4)
    assert_close(slope, wide_slope, rtol=1e-3, atol=1e-5)


def test_on_the_mirror_the_slope_is_that_of_the_inside():
    slopes = jax.vmap(jax.grad(lambda p: reflected(p[None], (5,))[0]))(jnp.float32([0, 2, 4, 4.5]))
    assert slopes.tolist() == [1, 1, 1, -1]
    for padding in ("border", "reflection"):
        grad = jax.grad(lambda m, p=padding: jnp.sum(bilinear(uniform(5, 6), m, padding=p)))
        assert all_finite(grad(jnp.float32([[0, 0], [4, 5], [-1, 9]])))


@pytest.mark.parametrize("raw", [np.zeros(4), np.float32([0.3, -1.0, 2.0, 0.1])])
def test_a_box_of_an_image_is_the_grid_of_its_corners(raw):
    raw = np.float32(raw)
    found = box_means(raw, (7, 11), (3, 4))
    assert_close(found, grid_means(box_corners(raw, (7, 11)), (3, 4)), rtol=1e-5, atol=1e-5)


def test_a_box_of_a_volume_is_evenly_filled():
    raw = np.float32([0.0, 1.0, -2.0, 0.5, 0.25, 0.75])
    means = np.asarray(box_means(raw, (5, 9, 3), (2, 4, 1)))
    edges = 1 / (1 + np.exp(-(raw + np.tile([-1, 1], 3)))) * np.repeat([4, 8, 2], 2)
    for d, h, w in np.ndindex(2, 4, 1):
        expected = [np.linspace(*edges[:2], 2)[d], np.linspace(*edges[2:4], 4)[h], edges[4:].mean()]
        assert_close(means[d, h, w], np.float32(expected), rtol=1e-5)


IMAGE, MEANS = np.ones((5, 6), np.float32), np.ones((2, 2), np.float32)
MISTAKES = {
    "an unknown padding": (
        lambda: bilinear(IMAGE, MEANS, padding="wrap"),
        "padding='wrap'",
        "one of 'zeros', 'border', 'reflection'",
        "choose padding",
    ),
    "zeros where there are none": (
        lambda: extract_hard(IMAGE, MEANS, padding="zeros"),
        "padding='zeros'",
        "one of 'border', 'reflection'",
        "choose padding",
    ),
    "four axes": (lambda: bilinear(IMAGE, MEANS, rank=4), "rank=4", "from 1 to 3", "rank"),
    "a signal read as an image": (
        lambda: extract_hard(IMAGE[0], MEANS),
        "an image of shape (6,)",
        "(H, W) or (H, W, C)",
        "pass one image",
    ),
    "places of an image in a volume": (
        lambda: bilinear(IMAGE[None], MEANS, rank=3),
        "means of shape (2, 2)",
        "a last axis of length 3",
        "give means",
    ),
    "a region of another rank": (
        lambda: glimpse.extract(key(), IMAGE[0], MEANS[:, :1], [1.0], rank=1, region=(2, 2)),
        "region=(2, 2)",
        "(width)",
        "pass one length, as (8,)",
    ),
    "too many cells": (
        lambda: jax.eval_shape(
            lambda image: glimpse.extract(key(), image, np.ones((1, 3)), np.ones(3), rank=3),
            jax.ShapeDtypeStruct((2000, 2000, 2000), jnp.float32),
        ),
        "8000000000 cells",
        "fewer than 2**31",
        "split",
    ),
    "edges of another box": (
        lambda: box_means(np.zeros(4), (5,), (2,)),
        "raw of shape (4,)",
        "two edges for each axis",
        "reshape raw",
    ),
    "a window of another rank": (
        lambda: box_means(np.zeros(2), (5,), (2, 2)),
        "window=(2, 2)",
        "1 lengths",
        "change window",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
