"""What the method is for: a gradient towards what a window does not see yet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.glimpse import (
    GRIDS,
    UPRIGHT,
    bilinear,
    extract,
    extract_upright,
    grid_means,
    upright_means,
)

SIDE, WINDOW, VARIANCES = 12, (3, 3), jnp.array([9.0, 9.0])
# A fresh window reads between rows and columns 2 and 9 (bilinear: no others than 2, 3, 5, 6, 8, 9).
SPOTS = np.array([[11, 5], [0, 6], [5, 0], [6, 11], [11, 11], [0, 10]])
OUTWARDS = SPOTS - (SIDE - 1) / 2

each_grid = pytest.mark.parametrize("grid", GRIDS)


def slopes(grid, read):
    """Gradients for the numbers of a fresh window, one per spot, of a loss that rewards light."""

    def loss(raw, spot):
        image = jnp.zeros((SIDE, SIDE)).at[spot[0], spot[1]].set(1.0)
        return -read(image, GRIDS[grid].corners(raw, image.shape)).sum()

    count = GRIDS[grid].count
    of_spots = jax.vmap(jax.grad(loss), in_axes=(None, 0))
    return np.asarray(jax.jit(of_spots)(jnp.zeros(count), SPOTS))


def assert_moves_towards_the_spots(grid, slopes):
    def middle(raw):
        return GRIDS[grid].corners(raw, (SIDE, SIDE)).mean(axis=0)

    move = jax.vmap(lambda slope: jax.jvp(middle, (0 * slope,), (-slope,))[1])(slopes)
    along = (np.asarray(move) * OUTWARDS).sum(axis=1)
    lengths = np.linalg.norm(move, axis=1) * np.linalg.norm(OUTWARDS, axis=1)
    assert (along > 0.9 * lengths).all()
    assert (lengths > 1e-3).all()


@pytest.mark.parametrize(
    ("grid", "draws"), [*((grid, "glimpse") for grid in GRIDS), ("box", "pixel")]
)
def test_global_points_pull_a_window_towards_a_spot_out_of_its_reach(grid, draws):
    def read(image, corners):
        def one(key):
            means = grid_means(corners, WINDOW)
            options = {"num_global": 4, "num_local": 0, "draws": draws}
            return extract(key, image, means, VARIANCES, **options)

        return jax.vmap(one)(jax.random.split(jax.random.key(0), 300)).mean(axis=0)

    assert_moves_towards_the_spots(grid, slopes(grid, read))


@pytest.mark.parametrize("grid", UPRIGHT)
def test_shares_among_all_pixels_do_so_too(grid):
    def read(image, corners):
        return extract_upright(image, *upright_means(corners, WINDOW), VARIANCES)

    assert_moves_towards_the_spots(grid, slopes(grid, read))


@each_grid
def test_bilinear_sampling_does_not_feel_it(grid):
    def read(image, corners):
        return bilinear(image, grid_means(corners, WINDOW))

    np.testing.assert_array_equal(slopes(grid, read), 0)


@each_grid
def test_neighbours_alone_do_not_feel_it(grid):
    def read(image, corners):
        means = grid_means(corners, WINDOW)
        return extract(None, image, means, VARIANCES, num_global=0, num_local=0)

    np.testing.assert_array_equal(slopes(grid, read), 0)
