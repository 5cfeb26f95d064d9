from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.glimpse import (
    GRIDS,
    UPRIGHT,
    affine_corners,
    bilinear,
    extract,
    extract_hard,
    extract_upright,
    grid_means,
    upright_means,
)
from sparse_hyper_jax.nn.glimpse_attention import READERS, GlimpseAttention
from sparse_hyper_jax.nn.image_encoder import encoder_for
from sparse_hyper_jax.nn.parameters import RawVariances
from sparse_hyper_jax.ops import bound_variances
from tests import folding
from tests.ops.examples import assert_names_itself_and_its_cure

from .examples import drawn

HEIGHT, WIDTH, WINDOW = SIZES = (9, 7, (3, 2))
SMALL = {"channels": (3,), "strides": (3,), "features": 4}
SMALL |= {"num_global": 1, "num_local": 1, "region": (2, 2)}
KINDS = [(grid, reader) for grid in GRIDS for reader in READERS]
KINDS = [(grid, reader) for grid, reader in KINDS if reader != "upright" or grid in UPRIGHT]
# A reader sees the corners alone. Apart: the only grid that is free for one reader.
FEW = [(grid, reader) for grid, reader in KINDS if grid == "box" or reader == "sampled"]
FEW += [("affine", "bilinear"), ("scale", "upright")]


def new(*, seeds=0, **options):
    """A layer as a call makes it, from one seed or from some by name."""
    rngs = nnx.Rngs(**seeds) if isinstance(seeds, dict) else nnx.Rngs(seeds)
    return GlimpseAttention(*SIZES, rngs=rngs, **SMALL | options)


def make(grid="box", reader="sampled", *, spread=1.0, **options):
    """A layer whose windows depend on the image, unless ``spread`` is 0."""
    options = {"grid": grid, "reader": reader, "glimpses": 2} | options
    layer = drawn(lambda: new(**options), zeros=() if spread else ("place",))
    if spread:
        kernel = np.random.default_rng(1).normal(size=layer.place.kernel.shape)
        layer.place.kernel[...] = jnp.asarray(spread * kernel, jnp.float32)
    return layer


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def never_run(**options):
    """A layer without numbers in it."""
    return nnx.eval_shape(lambda: new(**options))


def windows(layer, x, **options):
    """Call in one compiled program, which does not move the layer's own stream on."""
    graph, state = nnx.split(layer)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x, **options))(state, x)


def evaluate(reader, image, four, variances):
    """Read one window as each reader does where nothing is random."""
    if reader == "upright":
        return extract_upright(image, *upright_means(four, WINDOW), variances)
    means = grid_means(four, WINDOW)
    if reader == "sampled":
        return extract(None, image, means, variances, num_global=0, num_local=0)
    return {"hard": extract_hard, "bilinear": bilinear}[reader](image, means)


def may_train(path, variable):
    """Parameters that a gradient is asked for: of one kind all, of others those of the windows."""
    return isinstance(variable, nnx.Param) and path[0] in ("place", "raw_variances")


@pytest.mark.parametrize(("grid", "reader"), KINDS if folding.apart else FEW)
def test_every_grid_and_reader(grid, reader):
    x = images(2, HEIGHT, WIDTH, 3)
    wanted = nnx.Param if (grid, reader) == ("box", "sampled") else may_train
    graph, params, rest = nnx.split(make(grid, reader, inputs=3), wanted, ...)

    @jax.jit
    def everything(params, key):
        def loss(params):
            layer = nnx.merge(graph, params, rest)
            numbers = layer.numbers(x)
            corners, y = layer.corners(numbers), layer(x, rngs=key)
            return jnp.square(y).sum(), (y, numbers, corners, layer(x, deterministic=True))

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (y, numbers, corners, hard)), slopes = everything(params, jax.random.key(5))
    assert y.shape == hard.shape == (2, 2, *WINDOW, 3)
    assert numbers.shape == (2, 2, GRIDS[grid].count)
    assert corners.shape == (2, 2, 4, 2)
    # Training reaches every number of every window and their variances, unless it reads hard.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert (np.abs(slopes["place"]["bias"][...]) > 0).all() == (reader != "hard")
    if reader in ("sampled", "upright"):
        assert (np.abs(slopes["raw_variances"][...]) > 0).all()
    # Evaluation, one window at a time.
    free = (grid, reader) == ("affine", "bilinear")
    place = partial(affine_corners, bounded=False) if free else GRIDS[grid].corners

    @jax.jit
    def one(image, raw):
        four = place(raw, (HEIGHT, WIDTH))
        variances = bound_variances(jnp.zeros(()), (HEIGHT, WIDTH))
        return four, evaluate(reader, image, four, variances)

    numbers, hard = np.asarray(numbers), np.asarray(hard)
    for i, j in np.ndindex(2, 2):
        four, window = one(x[i], numbers[i, j])
        np.testing.assert_allclose(corners[i, j], four, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(hard[i, j], window, rtol=1e-5, atol=1e-5)
    assert np.abs(hard[0] - hard[1]).max() > 0.01


@pytest.mark.parametrize(("grid", "reader"), [("quad", "sampled"), ("affine", "bilinear")])
def test_at_first_every_window_lies_in_the_middle_whatever_the_image(grid, reader):
    @jax.jit
    def numbers_and_corners(x):
        layer = new(grid=grid, reader=reader, glimpses=2)
        numbers = layer.numbers(x)
        return numbers, layer.corners(numbers)

    numbers, corners = map(np.asarray, numbers_and_corners(images(3, HEIGHT, WIDTH)))
    np.testing.assert_array_equal(numbers, np.zeros((3, 2, GRIDS[grid].count)))
    middle = np.array([HEIGHT - 1, WIDTH - 1]) / 2
    np.testing.assert_allclose(corners.mean(axis=2), np.broadcast_to(middle, (3, 2, 2)), rtol=1e-5)
    offsets = corners - middle
    signs = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
    np.testing.assert_array_equal(np.sign(offsets), np.broadcast_to(signs, (3, 2, 4, 2)))


@pytest.mark.parametrize("draws", ["glimpse", "pixel"])
def test_samples_come_from_the_given_key_or_the_stored_stream(draws):
    layer, x = make(draws=draws), images(2, HEIGHT, WIDTH)
    x[1] = x[0]
    graph, state = nnx.split(layer)

    @jax.jit
    def given(state, x, key):
        return nnx.merge(graph, state)(x, rngs=key)

    @jax.jit
    def from_stream(state, x):
        layer = nnx.merge(graph, state)
        return layer(x), nnx.state(layer)

    one, two = (np.asarray(given(state, x, jax.random.key(seed))) for seed in (0, 1))
    assert np.abs(one - two).max() > 0.01
    stored, later = from_stream(state, x)
    following, _ = from_stream(later, x)
    np.testing.assert_array_equal(from_stream(state, x)[0], stored)
    others = [np.asarray(stored), np.asarray(following)]
    if draws == "glimpse":
        seeded = jax.jit(lambda state, x: nnx.merge(graph, state)(x, rngs=nnx.Rngs(sample=5)))
        others.append(np.asarray(seeded(state, x)))
    for number, other in enumerate(others):
        assert np.abs(one - other).max() > 0.01
        assert all(np.abs(other - before).max() > 0.01 for before in others[:number])
    # Equal images in a batch are read at different points.
    assert np.abs(one[0] - one[1]).max() > 0.01


def test_training_needs_a_stream_and_evaluation_does_not():
    layer, x = make(seeds={"params": 0}), images(1, HEIGHT, WIDTH)
    hard = windows(layer, x, deterministic=True)
    with pytest.raises(Exception, match="sample"):
        windows(layer, x)
    layer.deterministic = True
    np.testing.assert_array_equal(windows(layer, x), hard)
    sampled = windows(layer, x, deterministic=False, rngs=jax.random.key(0))
    assert np.abs(sampled - hard).max() > 0.01
    np.testing.assert_array_equal(windows(make(deterministic=True), x), hard)


def test_variances_are_learned_per_glimpse_and_scaled_by_the_image():
    layer = make(spread=0, variance_scale=0.3, variance_floor=0.5)
    assert isinstance(layer.raw_variances, RawVariances)
    layer.raw_variances[...] = raw = jnp.asarray(np.float32([-1.0, 2.0]))
    options = {"scale": 0.3, "floor": 0.5}
    expected = bound_variances(raw, (HEIGHT, WIDTH), **options)
    np.testing.assert_array_equal(layer.variances(), expected)
    assert never_run(reader="bilinear").raw_variances is None


@pytest.mark.parametrize("reader", ["sampled", "upright"])
def test_a_reader_that_has_settled_may_read_hard(reader):
    layer, x = make(reader=reader), images(2, HEIGHT, WIDTH)
    graph, state = nnx.split(layer)

    @jax.jit
    def read(state, x, raw_variances):
        layer = nnx.merge(graph, state)
        layer.raw_variances[...] = raw_variances
        return layer(x, rngs=jax.random.key(0))

    blurred, settled = (read(state, x, np.full(2, raw, np.float32)) for raw in (0.0, -30.0))
    layer.raw_variances[...] = jnp.asarray(np.full(2, -30.0, np.float32))
    if reader == "sampled":  # the other reader is never random
        np.testing.assert_allclose(windows(layer, x, deterministic=True), settled, atol=1e-5)
    layer.reader = "hard"
    np.testing.assert_allclose(windows(layer, x), settled, atol=1e-5)
    assert np.abs(blurred - settled).max() > 0.01


@pytest.mark.parametrize("side", [28, 35, 36, 40, 60, 71, 72, 100, 136, 143, 200])
def test_an_encoder_for_many_sizes_ends_in_a_small_map(side):
    for height, width in ((side, side), (side, 200), (28, side)):
        encoder = nnx.eval_shape(lambda h=height, w=width: encoder_for(h, w, 5, rngs=nnx.Rngs(0)))
        shrink = np.prod(encoder.strides)
        rows, columns = height // shrink, width // shrink
        assert 4 <= min(rows, columns) <= 8
        assert encoder.linear.kernel.shape == (rows * columns * 64, 5)


def test_an_encoder_of_ones_own():
    options = {"channels": (3, 4), "strides": (2, 3), "inputs": 2}
    encoder = nnx.eval_shape(lambda: encoder_for(9, 7, 5, rngs=nnx.Rngs(0), **options))
    assert encoder.strides == (2, 3)
    assert encoder.convolutions[0].kernel.shape == (9 * 2, 3)
    x = jax.ShapeDtypeStruct((2, 9, 7, 2), np.float32)
    assert nnx.eval_shape(lambda encoder, x: encoder(x), encoder, x).shape == (2, 5)
    options = {"strides": (2, 2, 2), "coordinates": True}
    encoder = nnx.eval_shape(lambda: encoder_for(9, 9, 5, rngs=nnx.Rngs(0), **options))
    assert [layer.kernel.shape[1] for layer in encoder.convolutions] == [32, 64, 64]
    assert encoder.convolutions[0].kernel.shape[0] == 9 * 3


def test_mistakes_name_themselves_and_their_cure():
    rngs = nnx.Rngs(0)
    for call, found, expected, change in (
        (lambda: never_run(grid="circle"), "grid='circle'", "'scale', 'box'", "choose grid"),
        (
            lambda: never_run(grid="affine", reader="upright"),
            "grid='affine'",
            "('scale', 'box')",
            "'sampled'",
        ),
        (
            lambda: never_run(grid="quad", reader="upright"),
            "grid='quad'",
            "('scale', 'box')",
            "'sampled'",
        ),
        (
            lambda: never_run(reader="soft"),
            "reader='soft'",
            "'sampled', 'upright'",
            "choose reader",
        ),
        (lambda: never_run(glimpses=0), "glimpses=0", "at least 1", "static int"),
        (lambda: never_run(region=(2, 0)), "region=(2, 0)", "ints from 1", "pass region"),
        (lambda: never_run(channels=(1, 2)), "1 strides for 2 blocks", "one stride", "as many"),
        (lambda: never_run()(images(2, 7, 9)), "(2, 7, 9)", "(b, 9, 7, 1)", "resize"),
        (lambda: encoder_for(27, 40, 5, rngs=rngs), "27 x 40", "from 28 to 200", "pass strides"),
        (lambda: encoder_for(40, 27, 5, rngs=rngs), "40 x 27", "from 28 to 200", "pass strides"),
        (lambda: encoder_for(201, 40, 5, rngs=rngs), "201 x 40", "from 28 to 200", "resize"),
        (lambda: encoder_for(40, 0, 5, rngs=rngs), "width=0", "at least 1", "static int"),
    ):
        assert_names_itself_and_its_cure(call, found, expected, change)
