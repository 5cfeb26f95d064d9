from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.glimpse import (
    GRIDS,
    UPRIGHT,
    affine_corners,
    box_corners,
    extract_hard,
    grid_means,
    quad_corners,
    scale_corners,
    upright_means,
)
from tests.ops.examples import all_finite, assert_names_itself_and_its_cure

unbounded = partial(affine_corners, bounded=False)
CORNERS = {name: (grid.count, grid.corners) for name, grid in GRIDS.items()}
EVERY = CORNERS | {"affine, unbounded": (6, unbounded)}
SHAPES = [(9, 9), (6, 11), (1, 5), (1, 1)]
UNIT = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])

each_family = pytest.mark.parametrize("name", EVERY)
each_bounded = pytest.mark.parametrize("name", CORNERS)


def sigmoid(raw):
    return 1 / (1 + np.exp(-np.asarray(raw, np.float64)))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rectangle(top, bottom, left, right):
    return jnp.array([[top, left], [top, right], [bottom, right], [bottom, left]], jnp.float32)


# Where a fresh window begins and ends, as a share of the image.
STARTS = {name: sigmoid([-1, 1]) for name in ("scale", "box", "quad")}
STARTS |= {"affine": sigmoid([-0.8, 0.8]), "affine, unbounded": np.array([0.3, 0.7])}


@each_family
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fresh_window_lies_upright_in_the_middle(name, shape):
    count, corners = EVERY[name]
    fresh = corners(jnp.zeros(count), shape)
    edges = [(size - 1) * STARTS[name] for size in shape]
    np.testing.assert_allclose(fresh, rectangle(*edges[0], *edges[1]), rtol=1e-5, atol=1e-6)
    # Output pixel (i, j) reads row i and column j of an even grid: nothing is turned or mirrored.
    rows, columns = (np.linspace(*edge, size) for edge, size in zip(edges, (4, 3), strict=True))
    expected = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    np.testing.assert_allclose(grid_means(fresh, (4, 3)), expected, rtol=1e-5, atol=1e-6)


def test_the_formulas_for_any_numbers():
    raw, shape = normal(8), (6, 11)
    last = np.array(shape) - 1
    edges = last[[0, 0, 1, 1]] * sigmoid(raw[:4] + np.array([-1, 1, -1, 1]))
    np.testing.assert_allclose(box_corners(raw[:4], shape), rectangle(*edges), rtol=1e-5)
    quad = last * sigmoid(raw.reshape(4, 2) + UNIT)
    np.testing.assert_allclose(quad_corners(raw, shape), quad, rtol=1e-5)
    affine = raw[:6].reshape(2, 3)
    places = UNIT @ (affine[:, :2] + 0.4 * np.eye(2)).T
    bounded = last * sigmoid(2 * places + affine[:, 2])
    np.testing.assert_allclose(affine_corners(raw[:6], shape), bounded, rtol=1e-5)
    free = (places + affine[:, 2] + 1) / 2 * last
    np.testing.assert_allclose(unbounded(raw[:6], shape), free, rtol=1e-5)
    side = sigmoid(raw[2] + np.log(1 / (1 / np.diff(sigmoid([-1, 1])) - 1)))
    low = (1 - side) * sigmoid(raw[:2])
    scaled = rectangle(low[0], low[0] + side[0], low[1], low[1] + side[0]) * last
    np.testing.assert_allclose(scale_corners(raw[:3], shape), scaled, rtol=1e-5)


@each_bounded
@pytest.mark.parametrize("shape", SHAPES)
def test_corners_never_leave_the_image(name, shape):
    count, corners = EVERY[name]
    signs = np.sign(normal(50, count, seed=1))
    raw = np.concatenate([normal(50, count), 5 * signs, 18 * signs, 1000 * signs])
    found = np.asarray(jax.vmap(lambda raw: corners(raw, shape))(raw))
    assert (found >= 0).all()
    assert (found <= np.array(shape) - 1).all()


def test_a_scaled_window_keeps_the_proportions_of_the_image():
    raw = 3 * normal(100, 3)
    shares = np.asarray(jax.vmap(lambda raw: scale_corners(raw, (6, 11)))(raw)) / [5, 10]
    low, high = shares[:, 0], shares[:, 2]
    np.testing.assert_allclose((high - low)[:, 0], (high - low)[:, 1], atol=1e-6)
    np.testing.assert_array_equal(shares[:, 1], np.stack([low[:, 0], high[:, 1]], axis=1))
    np.testing.assert_array_equal(shares[:, 3], np.stack([high[:, 0], low[:, 1]], axis=1))
    order = np.argsort(raw[:, 2])
    assert (np.diff((high - low)[order, 0]) > -1e-6).all()
    assert (high > low).all()


def test_edges_of_a_box_may_change_places():
    image = np.arange(63.0).reshape(9, 7)

    def window(*raw):
        corners = box_corners(jnp.array(raw), image.shape)
        return extract_hard(image, grid_means(corners, (4, 3)))

    upright = window(0.0, 0.0, 0.0, 0.0)
    np.testing.assert_array_equal(window(2.0, -2.0, 0.0, 0.0), upright[::-1])
    np.testing.assert_array_equal(window(0.0, 0.0, 2.0, -2.0), upright[:, ::-1])


@pytest.mark.parametrize("corners", [affine_corners, unbounded])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_an_affine_map_turns_the_window(corners, quarters):
    # The identity is 0: what is learned is added to 0.4 times the unit matrix.
    turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), quarters)
    raw = jnp.array(np.column_stack([0.4 * (turn - np.eye(2)), [0, 0]]).ravel(), jnp.float32)
    upright, turned = corners(jnp.zeros(6), (9, 9)), corners(raw, (9, 9))
    np.testing.assert_allclose(turned, np.roll(upright, -quarters, axis=0), atol=1e-5)
    image = normal(9, 9)
    expected = np.rot90(extract_hard(image, grid_means(upright, (3, 3))), quarters)
    np.testing.assert_array_equal(extract_hard(image, grid_means(turned, (3, 3))), expected)


def test_an_unbounded_affine_map_may_leave_the_image():
    raw = jnp.array([0.0, 0, 2, 0, 0, -2])
    np.testing.assert_allclose(
        unbounded(raw, (5, 11)).mean(axis=0) - unbounded(0 * raw, (5, 11)).mean(axis=0), [4, -10]
    )
    inside = affine_corners(raw, (5, 11))
    assert ((inside > 0) & (inside < jnp.array([4, 10]))).all()


@pytest.mark.parametrize("window", [(2, 2), (5, 3), (12, 7)])
def test_the_outermost_points_are_the_corners(window):
    corners = 10 * normal(4, 2)
    means = np.asarray(grid_means(corners, window))
    assert means.shape == (*window, 2)
    outermost = means[[0, 0, -1, -1], [0, -1, -1, 0]]
    np.testing.assert_array_equal(outermost, corners)
    down, across = (np.linspace(0, 1, size)[:, None] for size in window)
    left, right = (corners[i] + down * (corners[j] - corners[i]) for i, j in ((0, 3), (1, 2)))
    expected = left[:, None] + across * (right - left)[:, None]
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)


def test_a_single_point_lies_in_the_middle():
    corners = normal(4, 2)
    np.testing.assert_allclose(grid_means(corners, (1, 1))[0, 0], corners.mean(axis=0), atol=1e-6)
    row = grid_means(corners, (1, 3))
    expected = [(corners[0] + corners[3]) / 2, corners.mean(axis=0), (corners[1] + corners[2]) / 2]
    np.testing.assert_allclose(row[0], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(28, 28), (9, 40), (1, 5), (100, 3)])
def test_a_window_of_the_whole_image_is_at_every_pixel(shape):
    means = grid_means(rectangle(0, shape[0] - 1, 0, shape[1] - 1), shape)
    expected = np.moveaxis(np.indices(shape), 0, -1)
    np.testing.assert_allclose(means, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.round(means), expected)


@pytest.mark.parametrize("name", UPRIGHT)
@pytest.mark.parametrize("window", [(4, 3), (1, 5), (1, 1)])
def test_upright_means_are_the_rows_and_columns_of_the_grid(name, window):
    count, corners = EVERY[name]
    found = corners(normal(count), (6, 11))
    rows, columns = upright_means(found, window)
    expected = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    np.testing.assert_allclose(grid_means(found, window), expected, rtol=1e-6)


@each_family
@pytest.mark.parametrize("shape", [(6, 11), (1, 1)])
def test_gradients_are_finite_however_large_the_numbers(name, shape):
    count, corners = EVERY[name]
    raw = np.array([0.0, 1, -1, 40, -40, 1000, -1000], np.float32)[:, None] * np.ones(count)

    @jax.jit
    @jax.vmap
    def slopes(raw):
        return jax.jacrev(lambda raw: grid_means(corners(raw, shape), (3, 2)))(raw)

    found = slopes(raw.astype(np.float32))
    assert all_finite(found)
    # Every number moves a fresh window, unless it has nowhere to go.
    moved = np.abs(found[0]).reshape(-1, count).max(axis=0)
    assert (moved > 0.1).all() if shape == (6, 11) else (moved == 0).all()


@each_family
def test_mistakes_in_numbers_name_themselves_and_their_cure(name):
    count, corners = EVERY[name]
    for call, found, expected, change in (
        (lambda: corners(jnp.zeros(5), (6, 6)), "raw of shape (5,)", f"({count})", "reshape raw"),
        (lambda: corners(jnp.zeros((1, count)), (6, 6)), "(1, ", f"({count})", "reshape raw"),
        (lambda: corners(jnp.zeros(count), (6, 0)), "shape=(6, 0)", "ints from 1", "pass shape"),
        (lambda: corners(jnp.zeros(count), (6, 6, 1)), "(6, 6, 1)", "(height, width)", "sides"),
    ):
        assert_names_itself_and_its_cure(call, found, expected, change)


def test_mistakes_in_windows_name_themselves_and_their_cure():
    corners = jnp.zeros((4, 2))
    for call, found, expected, change in (
        (lambda: grid_means(jnp.zeros((2, 4)), (3, 3)), "(2, 4)", "(4, 2)", "reshape corners"),
        (lambda: grid_means(corners, (3, 0)), "window=(3, 0)", "ints from 1", "pass window"),
        (lambda: grid_means(corners, 3), "window=3", "a tuple of ints", "pass window"),
        (lambda: upright_means(corners, (3,)), "window=(3,)", "(height, width)", "two lengths"),
    ):
        assert_names_itself_and_its_cure(call, found, expected, change)
