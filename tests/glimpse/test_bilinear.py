from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.ndimage import map_coordinates

from sparse_hyper_jax.glimpse import bilinear, extract_hard, extract_upright
from tests.glimpse.examples import naive_everywhere, uniform
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

SHAPE = (5, 7)
IMAGE = uniform(*SHAPE, low=1.0, high=2.0)


def theirs(image, means):
    return map_coordinates(image, list(jnp.moveaxis(means, -1, 0)), order=1, mode="constant")


def around(*window, seed=0):
    """Places inside and up to three pixels outside of the image."""
    return uniform(*window, 2, seed=seed) * (np.array(SHAPE) + 5) - 3


@pytest.mark.parametrize("window", [(), (9,), (40, 50)])
def test_values_are_those_of_map_coordinates(window):
    means = around(*window)
    y = jax.jit(bilinear)(IMAGE, means)
    assert y.shape == window
    np.testing.assert_allclose(y, jax.jit(theirs)(IMAGE, means), atol=1e-5)


def test_pixels_edges_and_halves_are_exact_and_there_is_nothing_outside():
    rows, columns = (np.arange(-2, size + 1.5, 0.5) for size in SHAPE)
    means = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    y = bilinear(IMAGE, means)
    np.testing.assert_allclose(y, theirs(IMAGE, means), rtol=1e-6)
    np.testing.assert_array_equal(y[4:-4:2, 4:-4:2], IMAGE)
    np.testing.assert_allclose(y[3, 4:-4:2], IMAGE[0] / 2)
    np.testing.assert_allclose(y[4:-4:2, -4], IMAGE[:, -1] / 2)
    np.testing.assert_array_equal(y[:3], 0)
    np.testing.assert_array_equal(y[:, -3:], 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7)])
def test_an_image_of_one_row(shape):
    image, means = uniform(*shape), around(30)
    np.testing.assert_allclose(bilinear(image, means), theirs(image, means), atol=1e-6)


def test_derivatives_are_those_of_map_coordinates():
    def derivatives(read):
        def loss(image, means):
            return jnp.sin(3 * read(image, means)).sum()

        slopes = jax.grad(loss, (0, 1))
        directions = uniform(*SHAPE, seed=1), uniform(60, 2, low=-1, seed=2)

        def both(*arguments):
            return slopes(*arguments), jax.jvp(slopes, arguments, directions)[1]

        return jax.jit(both)(IMAGE, around(60))

    ours = derivatives(bilinear)
    assert_close(ours, derivatives(theirs), rtol=1e-4, atol=1e-4)
    assert (jnp.abs(ours[0][1]) > 1e-3).any()


def test_infinitely_far_is_nothing_too():
    means = jnp.array([[-1e30, 2], [1e30, 1e9], [2.5, -1e12]])
    value, slopes = jax.value_and_grad(lambda means: bilinear(IMAGE, means).sum())(means)
    assert value == 0
    np.testing.assert_array_equal(slopes, 0)


@pytest.mark.parametrize("read", ["bilinear", "upright"])
def test_channels_are_read_alike(read):
    image = uniform(*SHAPE, 3)
    one = partial(bilinear, means=around(4, 2))
    if read == "upright":
        options = {"rows": uniform(4, high=4.0), "columns": uniform(2, high=6.0)}
        one = partial(extract_upright, variances=jnp.array([0.5, 2.0]), **options)
    alone = jnp.stack([one(channel) for channel in np.moveaxis(image, -1, 0)], axis=-1)
    assert one(image).shape == (4, 2, 3)
    np.testing.assert_allclose(one(image), alone, rtol=1e-6, atol=1e-6)
    assert one(image.astype(jnp.bfloat16)).dtype == jnp.float32


def grid(rows, columns):
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)


@pytest.mark.parametrize("shape", [SHAPE, (1, 6), (*SHAPE, 2)])
@pytest.mark.parametrize("variances", [(1e-4, 0.3), (2.0, 0.5), (30.0, 1e4)])
def test_upright_shares_are_those_among_all_pixels(shape, variances):
    image = uniform(*shape)
    # The means may lie outside the image, also far outside.
    rows, columns = np.array([0.0, 1.3, 2, 2.6, 8.4]), np.array([-40.2, 0.1, 5.8])
    expected = naive_everywhere(image, grid(rows, columns), variances)
    y = extract_upright(image, rows, columns, jnp.array(variances))
    assert y.shape == (5, 3, *shape[2:])
    np.testing.assert_allclose(y, expected, rtol=1e-4)


def test_upright_variances_from_none_to_infinite():
    rows, columns = jnp.array([-0.4, 1.2, 3.9]), jnp.array([0.0, 6.4])
    means = grid(rows, columns)
    sharp = extract_upright(IMAGE, rows, columns, jnp.zeros(2))
    np.testing.assert_array_equal(sharp, extract_hard(IMAGE, means))
    blurred = extract_upright(IMAGE, rows, columns, jnp.full(2, 1e12))
    np.testing.assert_allclose(blurred, np.full((3, 2), IMAGE.mean()), rtol=1e-5)

    def loss(image, rows, columns, variances):
        y = extract_upright(image, rows, columns, variances)
        return jnp.sin(y).sum(), extract_upright(jnp.ones(SHAPE), rows, columns, variances)

    slopes = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))
    special = jnp.array([-30.0, 0, 0.5, 2, 4, 6])
    for variance in (0.0, 1e-12, 1e-6, 1.0, 1e6, 1e12):
        found, ones = slopes(IMAGE, special, special, jnp.full(2, variance))
        assert all_finite(found)
        np.testing.assert_allclose(ones, 1, rtol=1e-5)


V = jnp.ones(2)
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "image": (lambda: bilinear(np.ones(5), around(3)), "shape (5,)", "(H, W)", "one image"),
    "batch": (lambda: bilinear(np.ones((2, 5, 7, 1)), around(3)), "(2, ", "(H, W, C)", "jax.vmap"),
    "means": (lambda: bilinear(IMAGE, np.ones(3)), "means of shape (3,)", "length 2", "last axis"),
    "upright image": (
        lambda: extract_upright(np.ones(5), V, V, V),
        "image of shape (5,)",
        "(H, W)",
        "jax.vmap",
    ),
    "rows": (lambda: extract_upright(IMAGE, around(2), V, V), "rows of shape", "(h,)", "rows"),
    "columns": (
        lambda: extract_upright(IMAGE, V, 1.0, V),
        "columns of shape ()",
        "(w,)",
        "columns",
    ),
    "variances": (lambda: extract_upright(IMAGE, V, V, np.ones(3)), "(3,)", "(2,)", "variances"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
