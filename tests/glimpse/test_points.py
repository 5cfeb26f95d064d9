import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax.glimpse import DRAWS
from sparse_hyper_jax.glimpse.points import draw_points
from tests.glimpse.examples import key, places, points_of

each_draw = pytest.mark.parametrize("draws", DRAWS)

LEAST_P = 1e-3


def anywhere(count, shape):
    """Means inside an image: between cells, on cells, half-way, and at the edges."""
    last = np.array(shape) - 1.0
    generator = np.random.default_rng(0)
    free = generator.uniform(0, last, (count, 2))
    return np.concatenate([free, np.round(2 * free) / 2, 0 * free[:1], last[None]])


def assert_uniform(counts):
    assert len(counts) == 1 or stats.chisquare(np.ravel(counts)).pvalue > LEAST_P


@each_draw
@pytest.mark.parametrize(
    ("shape", "region"), [((6, 5), (3, 4)), ((6, 5), (1, 9)), ((1, 7), (2, 2)), ((1, 1), (8, 8))]
)
def test_points_lie_inside_and_each_is_kept_once(shape, region, draws):
    means = anywhere(15, shape)
    options = {"num_global": 9, "num_local": 7, "region": region, "draws": draws}
    rows, columns, kept = points_of(key(), means, shape, **options)
    assert rows.dtype == columns.dtype == np.int32
    assert kept.shape == rows.shape == columns.shape == (4 + 7 + 9, len(means))
    for pixel, mean in enumerate(means):
        cells = list(zip(rows[:, pixel].tolist(), columns[:, pixel].tolist(), strict=True))
        assert set(cells) <= set(np.ndindex(shape))
        first = [cell not in cells[:place] for place, cell in enumerate(cells)]
        np.testing.assert_array_equal(kept[:, pixel], first)
        about = [{int(np.floor(place)), int(np.ceil(place))} for place in mean]
        assert set(itertools.product(*about)) <= set(cells[:4])


@each_draw
@pytest.mark.parametrize("region", [(3, 4), (2, 1), (8, 8)])
def test_local_points_fill_a_region_about_the_mean_that_never_leaves_the_image(region, draws):
    shape = (6, 5)
    means = anywhere(4, shape)
    options = {"num_global": 0, "num_local": 3, "region": region, "draws": draws}

    @jax.jit
    @jax.vmap
    def draw(key):
        cells, kept = draw_points(key, [*jnp.asarray(means).T], shape, **options)[4]
        return (*cells, kept)

    rows, columns, _ = draw(jax.random.split(key(), 600))
    for axis, cells in enumerate((rows, columns)):
        size, side = shape[axis], min(region[axis], shape[axis])
        lows = np.clip(np.round(means[:, axis] - (side - 1) / 2), 0, size - side)
        offsets = np.asarray(cells).reshape(600, -1) - lows
        for column in offsets.T:
            assert_uniform([np.sum(column == offset) for offset in range(side)])
        assert offsets.min() == 0
        assert offsets.max() == side - 1


def test_global_points_reach_every_cell_alike():
    shape = (5, 7)
    means = places(3500, shape=shape)
    options = {"num_global": 2, "num_local": 0, "draws": "pixel"}
    rows, columns, _ = points_of(key(), means, shape, **options)
    first, second = rows[4:] * 7 + columns[4:]
    assert_uniform(np.bincount(first, minlength=35))
    assert_uniform(np.bincount(second, minlength=35))
    # Points of a pixel, and points of neighbouring pixels, know nothing of each other.
    table = np.zeros((35, 35))
    np.add.at(table, (first, second), 1)
    np.add.at(table, (first[1:], first[:-1]), 1)
    assert stats.chi2_contingency(table).pvalue > LEAST_P


def test_pixels_of_a_glimpse_share_global_points_and_the_offsets_of_local_ones():
    shape, means = (40, 40), 10 + 20 * places(30, shape=(2, 2))
    options = {"num_global": 3, "num_local": 3, "region": (5, 6)}
    cells = {
        draws: np.stack(points_of(key(), means, shape, draws=draws, **options)[:2], axis=-1)
        for draws in DRAWS
    }
    lows = np.round(means - [2, 2.5])
    for draws, count in (("glimpse", 1), ("pixel", 30)):
        for point in cells[draws][7:]:
            assert (len(np.unique(point, axis=0)) > 1) == (count > 1)
        for point in cells[draws][4:7]:
            assert (len(np.unique(point - lows, axis=0)) > 1) == (count > 1)
