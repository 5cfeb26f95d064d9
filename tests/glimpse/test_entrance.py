"""What the readers of windows take, and what is told in three parts before anything is read."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.ndimage import map_coordinates

from sparse_hyper_jax.glimpse import (
    GRIDS,
    Grid,
    affine_corners,
    bilinear,
    box_corners,
    extract,
    extract_hard,
    extract_upright,
    grid_means,
    upright_means,
)
from sparse_hyper_jax.glimpse.extract import FAR
from tests.glimpse.examples import SAMPLED, key, uniform
from tests.ops.examples import all_finite, assert_names_itself_and_its_cure

IMAGE, MEANS, ONES = uniform(5, 6), uniform(2, 3, 2, high=4.0), jnp.ones(2)
RUBBISH = [None, "image", {"x": 1}, [[1.0], [2.0, 3.0]], jnp.ones((5, 6), complex)]


def sampled(image=IMAGE, means=MEANS, variances=ONES, key=None, **options):
    options = {"num_global": 0, "num_local": 0} | options
    return extract(key, image, means, variances, **options)


READERS = {
    "extract": sampled,
    "extract_hard": lambda image=IMAGE, means=MEANS: extract_hard(image, means),
    "bilinear": lambda image=IMAGE, means=MEANS: bilinear(image, means),
    "extract_upright": lambda image=IMAGE: extract_upright(image, ONES, ONES, ONES),
}
OTHERS = {
    "means": (sampled, extract_hard, bilinear),
    "variances": (sampled,),
    "rows": (lambda rows: extract_upright(IMAGE, rows, ONES, ONES),),
    "raw": tuple(partial(grid.corners, shape=(5, 6)) for grid in GRIDS.values()),
    "corners": (partial(grid_means, window=(2, 2)), partial(upright_means, window=(2, 2))),
}


@pytest.mark.parametrize("image", RUBBISH)
@pytest.mark.parametrize("name", READERS)
def test_images_are_real_numbers(name, image):
    call = partial(READERS[name], image)
    assert_names_itself_and_its_cure(call, "image", "real numbers", "convert image")


@pytest.mark.parametrize("wrong", RUBBISH)
@pytest.mark.parametrize("name", OTHERS)
def test_places_and_numbers_of_windows_are_real_numbers(name, wrong):
    for function in OTHERS[name]:
        if function in (extract_hard, bilinear):
            call = partial(function, IMAGE, wrong)
        else:
            call = partial(function, **{name: wrong})
        assert_names_itself_and_its_cure(call, name, "real numbers", f"convert {name}")


# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "a seed": (lambda: sampled(key=0), "key=0", "one random key", "jax.random.key"),
    "keys": (
        lambda: sampled(key=jax.random.split(key(), 3), num_local=1),
        "keys of shape (3,)",
        "one random key",
        "jax.vmap",
    ),
    "one side": (lambda: sampled(region=8), "region=8", "a tuple of ints", "pass region"),
    "a flag as count": (lambda: sampled(num_local=True), "num_local=True", "an int", "static"),
    "draws": (lambda: sampled(draws=None), "draws=None", "'glimpse', 'pixel'", "choose draws"),
    "bounded": (
        lambda: affine_corners(jnp.zeros(6), (5, 6), bounded="no"),
        "bounded='no'",
        "True or False",
        "change bounded",
    ),
    "a grid of none": (lambda: Grid(0, box_corners), "count=0", "at least 1", "count"),
    **{
        f"moves={moves}": (partial(Grid, 4, box_corners, moves), "for 4 numbers", "each", "moves=")
        for moves in ((0, 1), (0, 1, 2, None), "0101")
    },
    "a grid of a name": (
        lambda: Grid(4, "box"),
        "corners='box'",
        "a function",
        "pass a function as corners",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])


def test_sizes_of_numpy_are_taken():
    counts = {"num_global": np.int64(1), "num_local": np.prod([1, 1]), "region": np.array([3, 4])}
    window = jax.eval_shape(lambda: sampled(key=key(), **counts))
    assert window.shape == (2, 3)
    assert Grid(np.int64(4), box_corners).count == 4
    corners = jax.eval_shape(lambda: box_corners([0.0] * 4, np.array([5, 6])))
    assert corners.shape == (4, 2)


def slopes_of_all(image, means, variances):
    def total(read):
        return lambda *arguments: read(*arguments).sum()

    upright = extract_upright, (image, means[:, 0], means[:, 1], variances)
    several = {
        "extract": (partial(extract, key(), **SAMPLED), (image, means, variances)),
        "upright": upright,
        "bilinear": (bilinear, (image, means)),
        "map_coordinates": (
            lambda image, means: map_coordinates(image, list(means.T), order=1, mode="constant"),
            (image, means),
        ),
        "hard": (extract_hard, (image, means)),
    }
    return {
        name: jax.value_and_grad(total(read), tuple(range(1, len(arguments))))(*arguments)
        for name, (read, arguments) in several.items()
    }


every_reader = jax.jit(slopes_of_all)


@pytest.mark.parametrize("place", [[np.nan, 1], [1, np.nan], [np.inf, 1], [1, -np.inf]])
def test_what_is_nowhere_is_nan_as_in_map_coordinates(place):
    found = every_reader(IMAGE, np.array([place], np.float32), ONES)
    assert np.isnan([found[name][0] for name in ("bilinear", "map_coordinates")]).all()
    assert np.isnan(found["bilinear"][1][0]).all()
    nan = np.isnan(place).any()
    for name in ("extract", "upright", "hard"):
        assert np.isnan(found[name][0]) == nan
    assert np.isnan(found["extract"][1][0]).any() == nan


@pytest.mark.parametrize("place", [-np.inf, -1e30, -1e20, -FAR, -1e9, 1e9, 1e20, 3e38, np.inf])
def test_far_outside_the_edge_is_read_with_finite_slopes(place):
    edge = IMAGE[0 if place < 0 else -1, 2]
    for variance in (1e-12, 1e-6, 1.0, 1e3):
        means = np.array([[place, 2.0]], np.float32)
        found = every_reader(IMAGE, means, jnp.array([variance, 1e-12]))
        for name in ("extract", "upright", "hard"):
            np.testing.assert_allclose(found[name][0], edge, rtol=1e-6)
            assert all_finite(found[name])
        # Every row but that of the edge has a share of exactly 0.
        for slopes in (found["extract"][1], found["upright"][1]):
            np.testing.assert_array_equal(slopes[-1][0], 0)
            np.testing.assert_array_equal(np.ravel(slopes[0])[0], 0)


def test_a_whole_image_has_no_nan_to_give():
    pixels = jnp.arange(30, dtype=jnp.uint8).reshape(5, 6)
    found = jax.jit(extract_hard)(pixels, jnp.array([[jnp.nan, 2.0], [1.0, 1.0]]))
    np.testing.assert_array_equal(found, [2, 7])


def test_double_places_are_filled_in_double():
    with jax.enable_x64(True):
        means = jax.jit(lambda corners: grid_means(corners, (4, 7)))(jnp.eye(4, 2) * 1e3)
        assert means.dtype == np.float64
        down = np.arange(4) / 3
        np.testing.assert_allclose(means[:, 0, 0], 1e3 * (1 - down), rtol=1e-14, atol=1e-10)


def readers_of_a_batch(key, image, means):
    return {
        "extract": extract(key, image, means, ONES, draws="pixel", **SAMPLED),
        "upright": extract_upright(image, means[..., 0].ravel(), means[..., 1].ravel(), ONES),
        "hard": extract_hard(image, means),
        "bilinear": bilinear(image, means),
        "grid": grid_means(box_corners(means.ravel()[:4], (5, 6)), (3, 2)),
    }


def test_the_batch_may_be_symbolic():
    (batch,) = jax.export.symbolic_shape("b")
    like = [jax.ShapeDtypeStruct((batch, *leaf.shape), jnp.float32) for leaf in (IMAGE, MEANS)]
    keys = jax.random.split(key(), 2)
    program = jax.jit(jax.vmap(readers_of_a_batch))
    exported = jax.export.export(program)(jax.ShapeDtypeStruct((batch,), keys.dtype), *like)
    example = keys, uniform(2, 5, 6), uniform(2, 2, 3, 2, high=4.0)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        jax.device_get(exported.call(*example)),
        jax.device_get(program(*example)),
    )


def test_the_sides_of_an_image_are_known():
    (side,) = jax.export.symbolic_shape("s")

    def call():
        image = jax.ShapeDtypeStruct((side, 6), jnp.float32)
        jax.export.export(jax.jit(sampled))(image)

    assert_names_itself_and_its_cure(call, "shape (s, 6)", "sides that are known", "symbolic batch")


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_an_image_for_the_whole_batch_may_stay_on_every_device(kind):
    def of_means(means):
        return readers_of_a_batch(key(), IMAGE, means), jax.grad(
            lambda means: extract(key(), IMAGE, means, ONES, **SAMPLED).sum()
        )(means)

    def of_image(image):
        return readers_of_a_batch(key(), image, MEANS)

    both = jax.jit(jax.vmap(lambda means, image: (of_means(means), of_image(image))))
    arguments = uniform(8, 2, 3, 2, high=4.0), uniform(8, 5, 6)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    alone = jax.device_get(both(*arguments))
    with jax.set_mesh(mesh):
        spread = both(*jax.device_put(arguments, jax.NamedSharding(mesh, jax.P("d"))))
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
            jax.device_get(spread),
            alone,
        )
