from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import glimpse, ops
from sparse_hyper_jax.glimpse import DRAWS, extract_hard, extract_upright
from sparse_hyper_jax.types import ContinuousTuples
from tests.glimpse.examples import (
    SAMPLED,
    extract,
    key,
    naive_everywhere,
    naive_sampled,
    places,
    points_of,
    uniform,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

NONE = {"num_global": 0, "num_local": 0}
SHAPE, WINDOW = (5, 6), (2, 3)
IMAGE, MEANS = uniform(*SHAPE), places(*WINDOW, shape=SHAPE)
VARIANCES = uniform(*WINDOW, 2, low=0.3, high=3.0)

each_draw = pytest.mark.parametrize("draws", DRAWS)


@pytest.mark.parametrize(
    ("shape", "window", "draws"),
    [((5, 6), (2, 3), "glimpse"), ((5, 6, 3), (4,), "pixel"), ((2, 1), (), "glimpse")],
)
def test_every_pixel_is_a_mixture_of_its_different_points(shape, window, draws):
    image, variances = uniform(*shape), uniform(*window, 2, low=0.3, high=3.0)
    means = uniform(*window, 2) * (np.array(shape[:2]) - 1)
    options = {"num_global": 2, "num_local": 2, "region": (3, 4), "draws": draws}
    y = extract(key(), image, means, variances, **options)
    points = points_of(key(), means, shape[:2], **options)
    assert y.shape == (*window, *shape[2:])
    np.testing.assert_allclose(y, naive_sampled(image, points, means, variances), rtol=1e-5)


def test_one_variance_per_axis_stands_for_all_pixels():
    two = jnp.array([0.5, 2.0])
    every = extract(key(), IMAGE, MEANS, jnp.broadcast_to(two, MEANS.shape), **SAMPLED)
    np.testing.assert_array_equal(extract(key(), IMAGE, MEANS, two, **SAMPLED), every)


def test_without_extra_points_it_is_a_templated_hyperlayer():
    count = len(MEANS.reshape(-1, 2))
    flat = MEANS.reshape(count, 2), VARIANCES.reshape(count, 2), np.ones(count, np.float32)
    rows = [[number, 0, 0] for number in range(count)]
    template = ops.make_template(rows, (1, 2), chunk_size=1)

    @jax.jit
    def both(image, means, variances):
        tuples = ContinuousTuples(means, variances, jnp.ones(count))
        general = ops.hyperlayer(None, tuples, image, (count,), template=template)
        return general, glimpse.extract(None, image, means, variances, **NONE)

    assert_close(*both(IMAGE, *flat[:2]))


def plain(points, image, means, variances):
    """The same by a softmax over an axis of points: ``means`` are ``(*window, 2)``."""
    rows, columns, kept = (part.reshape(-1, *means.shape[:-1]) for part in points)
    offsets = jnp.stack([rows, columns], axis=-1) - means
    logits = jnp.where(kept, -0.5 * (offsets**2 / variances).sum(-1), -jnp.inf)
    shares = jax.nn.softmax(logits, axis=0)
    return jnp.einsum("p...,p...c->...c", shares, image[rows, columns])


def test_first_and_second_derivatives_are_those_of_a_softmax():
    points = points_of(key(), MEANS, SHAPE)
    arguments = uniform(*SHAPE, 2), MEANS, VARIANCES
    directions = tuple(uniform(*leaf.shape, low=-1, seed=1) for leaf in arguments)
    everything = (0, 1, 2)

    def derivatives(read):
        def loss(*arguments):
            return jnp.sin(3 * read(*arguments)).sum()

        def all_of_them(*arguments):
            slopes = jax.grad(loss, everything)
            # Alone, so that the tangents of the others are symbolic zeros.
            alone = [jax.grad(loss, place)(*arguments) for place in everything]
            forward = jax.jvp(slopes, arguments, directions)[1]
            return slopes(*arguments), alone, forward

        return jax.jit(all_of_them)(*arguments)

    with jax.enable_x64(True):
        arguments, directions = (
            tuple(jnp.asarray(leaf, jnp.float64) for leaf in leaves)
            for leaves in (arguments, directions)
        )
        ours = derivatives(partial(glimpse.extract, key(), **SAMPLED))
        theirs = derivatives(partial(plain, points))
        assert jax.tree.leaves(ours)[0].dtype == jnp.float64
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [(3, 4), (9,)])
def test_with_small_variances_it_reads_the_nearest_pixels(window):
    image, means = uniform(*SHAPE, 2), places(*window, shape=SHAPE)
    nearest = np.round(means).astype(int)
    hard = extract_hard(image, means)
    np.testing.assert_array_equal(hard, image[nearest[..., 0], nearest[..., 1]])
    soft = extract(key(), image, means, jnp.full(2, 1e-4), **SAMPLED)
    np.testing.assert_allclose(soft, hard, rtol=1e-6)
    further = extract(key(), image, means, jnp.full(2, 0.5), **SAMPLED)
    assert np.abs(further - hard).max() > 0.1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8])
def test_whole_means_cut_out_a_window_exactly(dtype):
    image = jnp.asarray(100 * uniform(7, 8, 3), dtype)
    means = np.stack(np.meshgrid(np.arange(2.0, 6), np.arange(1.0, 8), indexing="ij"), axis=-1)
    hard = extract_hard(image, means)
    assert hard.dtype == dtype
    np.testing.assert_array_equal(hard, image[2:6, 1:8])
    soft = extract(key(), image, means, jnp.full(2, 1e-12), **SAMPLED)
    assert soft.dtype == jnp.float32
    np.testing.assert_array_equal(soft, image[2:6, 1:8].astype(jnp.float32))


def test_hard_means_beyond_the_image_read_its_edge_and_have_no_gradient():
    means = jnp.array([[-3.0, 2], [1.5, 99], [jnp.inf, -jnp.inf]])
    expected = [IMAGE[0, 2], IMAGE[2, 5], IMAGE[4, 0]]
    np.testing.assert_array_equal(extract_hard(IMAGE, means), expected)
    slopes = jax.grad(lambda means: extract_hard(IMAGE, means).sum())(jnp.asarray(MEANS))
    np.testing.assert_array_equal(slopes, 0)


@each_draw
def test_channels_are_read_at_the_same_points(draws):
    image = uniform(*SHAPE, 3)
    read = partial(extract, key(), means=MEANS, variances=VARIANCES, draws=draws, **SAMPLED)
    alone = jnp.stack([read(channel) for channel in np.moveaxis(image, -1, 0)], axis=-1)
    np.testing.assert_allclose(read(image), alone, rtol=1e-6)


@jax.jit
def value_and_slopes(image, means, variances):
    def loss(image, means, variances):
        y = glimpse.extract(key(), image, means, variances, **SAMPLED)
        return jnp.sin(y).sum(), y

    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(image, means, variances)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (4, 3)])
@pytest.mark.parametrize("variance", [0.0, 1e-12, 1e-6, 1e-2, 1.0, 1e6, 1e12])
def test_finite_for_all_variances_and_at_special_places(shape, variance):
    # On integers, half-way, at all edges, and where rounding has put a mean just outside.
    sides = [np.r_[np.arange(0, size - 0.6, 0.5), -1e-7, (size - 1) * (1 + 2e-7)] for size in shape]
    means = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    means = np.resize(means, (100, 2)).astype(np.float32)
    image = uniform(*shape, low=1.0, high=2.0)
    (_, y), slopes = value_and_slopes(image, means, jnp.full(2, variance, jnp.float32))
    assert all_finite((y, slopes))
    assert (y >= image.min() - 1e-6).all()
    assert (y <= image.max() + 1e-6).all()
    # Shares add up to 1: what all pixels read together is what all pixels give away.
    np.testing.assert_allclose(slopes[0].sum(), jnp.cos(y).sum(), rtol=1e-4, atol=1e-4)


def test_a_region_larger_than_the_image_is_the_image():
    small = extract(key(), IMAGE, MEANS, VARIANCES, **SAMPLED | {"region": SHAPE})
    large = extract(key(), IMAGE, MEANS, VARIANCES, **SAMPLED | {"region": (99, 7)})
    np.testing.assert_array_equal(small, large)


def test_more_global_points_come_closer_to_all_pixels():
    image, variances, weights = uniform(3, 4), jnp.array([1.0, 2.0]), jnp.array([[1.0, -2], [3, 1]])
    rows, columns = jnp.array([0.3, 1.6]), jnp.array([0.8, 2.3])
    means = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
    exact = extract_upright(image, rows, columns, variances)
    np.testing.assert_allclose(exact, naive_everywhere(image, means, variances), rtol=1e-5)

    def both(read):
        def loss(rows, columns, variances):
            y = read(rows, columns, variances)
            return (weights * y).sum(), y

        slopes, y = jax.grad(loss, (0, 1, 2), has_aux=True)(rows, columns, variances)
        return (y, *slopes)

    def error(num_global):
        def sampled(key):
            def read(rows, columns, variances):
                means = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
                options = {"num_global": num_global, "num_local": 0}
                return glimpse.extract(key, image, means, variances, **options)

            return both(read)

        keys = jax.random.split(key(), 300)
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.jit(jax.vmap(sampled))(keys))
        return np.array([np.abs(one - two).max() for one, two in zip(mean, upright, strict=True)])

    upright = jax.jit(lambda: both(partial(extract_upright, image)))()
    assert (error(0) > 2 * error(8)).all()


def test_every_window_of_a_batch_has_its_own_key():
    images, keys = uniform(3, *SHAPE), jax.random.split(key(), 3)
    read = partial(glimpse.extract, means=MEANS, variances=VARIANCES, **SAMPLED)
    batch = jax.jit(jax.vmap(read))(keys, images)
    for key_, image, window in zip(keys, images, batch, strict=True):
        alone = extract(key_, image, means=MEANS, variances=VARIANCES, **SAMPLED)
        np.testing.assert_allclose(window, alone, rtol=1e-6)
    others = extract(keys[1], images[0], MEANS, VARIANCES, **SAMPLED)
    assert np.abs(others - batch[0]).max() > 1e-4


def read(image=IMAGE, means=MEANS, variances=(1.0, 1.0), key=None, **options):
    return glimpse.extract(key, image, means, jnp.asarray(variances), **(NONE | options))


# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "a batch": (lambda: read(np.ones((2, 5, 6, 1))), "(2, 5, 6, 1)", "(H, W, C)", "jax.vmap"),
    "a vector": (lambda: extract_hard(np.ones(5), MEANS), "shape (5,)", "(H, W)", "one image"),
    "no pixels": (lambda: read(np.ones((0, 5))), "shape (0, 5)", "(H, W)", "one image"),
    "large": (lambda: read(np.ones((2**15, 1))), "32768 x 1", "sides below 32768", "tiles"),
    "means": (
        lambda: read(means=np.ones((2, 3))),
        "means of shape (2, 3)",
        "length 2",
        "last axis",
    ),
    "variances": (lambda: read(variances=np.ones((3, 2))), "(3, 2)", "(2, 3, 2)", "per axis"),
    "variance": (lambda: read(variances=1.0), "variances of shape ()", "(2,)", "per axis"),
    "no key": (lambda: read(num_local=1), "key=None with num_global=0", "a key", "jax.random.key"),
    "negative": (lambda: read(num_global=-1), "num_global=-1", "at least 0", "static int"),
    "fraction": (lambda: read(num_local=0.5), "num_local=0.5", "an int", "static int"),
    "draws": (lambda: read(draws="image"), "draws='image'", "'glimpse', 'pixel'", "choose draws"),
    "region": (lambda: read(region=(3,)), "region=(3,)", "(height, width)", "two lengths"),
    "no region": (lambda: read(region=(3, 0)), "region=(3, 0)", "ints from 1", "pass region"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
