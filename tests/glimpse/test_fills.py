"""Homographies against the linear system that defines them, thin plates against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from sparse_hyper_jax.glimpse import box_corners, grid_means, thin_plate_means
from tests.glimpse.examples import uniform
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

UNIT = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], float)
QUADS = {
    "trapezium": [[0, 3], [0, 5], [4, 8], [4, 0]],
    "turned": [[2, 1], [1.5, 6], [7, 5], [5, 2]],
    "mirrored": [[2, 6], [1.5, 1], [5, 2], [7, 5]],
    "parallelogram": [[0, 0], [1, 4], [4, 5], [3, 1]],
}


def homography(corners, window):
    """Solve for the eight numbers of the map, in float64."""
    rows = []
    for (u, v), (y, x) in zip(UNIT, corners, strict=True):
        rows.append([u, v, 1, 0, 0, 0, -u * y, -v * y, y])
        rows.append([0, 0, 0, u, v, 1, -u * x, -v * x, x])
    system = np.array(rows, float)
    numbers = np.append(np.linalg.solve(system[:, :8], system[:, 8]), 1).reshape(3, 3)
    grid = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in window), indexing="ij"), -1)
    mapped = np.concatenate([grid, np.ones((*window, 1))], -1) @ numbers.T
    return mapped[..., :2] / mapped[..., 2:]


@pytest.mark.parametrize("name", QUADS)
def test_perspective_is_the_homography_of_the_corners(name):
    corners = np.float32(QUADS[name])
    found = grid_means(corners, (4, 5), perspective=True)
    assert_close(found, homography(corners, (4, 5)), rtol=1e-4, atol=1e-4)
    corner_points = np.asarray(found)[[0, 0, -1, -1], [0, -1, -1, 0]]
    assert_close(corner_points, corners, atol=1e-5)
    flat = np.abs(np.asarray(grid_means(corners, (4, 5))) - np.asarray(found)).max()
    assert (flat < 1e-5) == (name == "parallelogram")


@pytest.mark.parametrize(
    "corners", [np.zeros((4, 2)), [[0, 0], [1, 1], [3, 3], [2, 2]], np.full((4, 2), 1e-25)]
)
def test_corners_on_a_line_are_mixed_bilinearly(corners):
    corners = np.float32(corners)

    def places(corners):
        return grid_means(corners, (3, 3), perspective=True)

    assert_close(places(corners), grid_means(corners, (3, 3)), atol=1e-6)
    assert all_finite(jax.grad(lambda c: jnp.sum(places(c) ** 2))(corners))


@pytest.mark.parametrize(("grid", "window"), [((3, 3), (5, 4)), ((2, 4), (6, 1)), ((2, 2), (3, 3))])
def test_thin_plates_are_those_of_scipy(grid, window):
    controls = uniform(*grid, 2, high=9.0)
    knots, points = (
        np.stack(np.meshgrid(*(np.linspace(0, 1, n) if n > 1 else [0.5] for n in sizes),
                             indexing="ij"), -1).reshape(-1, 2)
        for sizes in (grid, window)
    )  # fmt: skip
    plate = RBFInterpolator(knots, controls.reshape(-1, 2), kernel="thin_plate_spline", degree=1)
    found = thin_plate_means(controls, window)
    assert_close(found, plate(points).reshape(*window, 2), rtol=1e-4, atol=1e-4)


def test_a_plate_passes_through_its_controls_and_is_flat_if_they_are():
    controls = uniform(3, 4, 2, high=9.0)
    assert_close(thin_plate_means(controls, (3, 4)), controls, rtol=1e-4, atol=1e-4)
    corners = box_corners(np.float32([0.1, 0.4, -0.2, 1.0]), (9, 12))
    flat = thin_plate_means(grid_means(corners, (3, 4)), (7, 5))
    assert_close(flat, grid_means(corners, (7, 5)), rtol=1e-4, atol=1e-4)


MISTAKES = {
    "a flag that is none": (
        lambda: grid_means(np.zeros((4, 2)), (2, 2), perspective="yes"),
        "perspective='yes'",
        "True or False",
        "change perspective",
    ),
    "one row of controls": (
        lambda: thin_plate_means(np.zeros((1, 3, 2)), (2, 2)),
        "controls of shape (1, 3, 2)",
        "two or more down and across",
        "the four corners",
    ),
    "a list of controls": (
        lambda: thin_plate_means(np.zeros((4, 2)), (2, 2)),
        "controls of shape (4, 2)",
        "(a, b, 2)",
        "reshape controls",
    ),
    "a window of one axis": (
        lambda: thin_plate_means(np.zeros((2, 2, 2)), (2,)),
        "window=(2,)",
        "(height, width)",
        "pass two lengths",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
