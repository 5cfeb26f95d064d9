from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.nn.image_encoder import (
    ImageEncoder,
    averages,
    margins,
    patches,
    with_coordinates,
)
from tests.folding import folded
from tests.ops.examples import assert_names_itself_and_its_cure


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def make(height=6, width=8, features=3, **options):
    """A network compiled as a whole, which takes less time than each operation on its own."""
    options = {"channels": (4,)} | options
    return nnx.jit(lambda: ImageEncoder(height, width, features, rngs=nnx.Rngs(0), **options))()


def never_run(*sizes, **options):
    """A network without numbers in it."""
    return nnx.eval_shape(lambda: make(*sizes, **options))


WINDOWS = [(3, 1), (3, 2), (6, 4), (5, 3), (1, 1), (2, 4)]
SIDES = [(5, 7), (8, 8), (11, 4)]


@folded
def gathered():
    return {
        (*sides, *window): (
            partial(patches, size=window[0], stride=window[1]),
            images(2, *sides, 3),
        )
        for sides in SIDES
        for window in WINDOWS
    }


def convolution(x, kernel, stride):
    """One window at a time."""
    size, sides = len(kernel), x.shape[1:3]
    x = np.pad(x, ((0, 0), *margins(sides, size, stride), (0, 0)))
    y = np.zeros((len(x), *(side // stride for side in sides), kernel.shape[-1]))
    for row, column in np.ndindex(*y.shape[1:3]):
        top, left = row * stride, column * stride
        y[:, row, column] = np.tensordot(x[:, top : top + size, left : left + size], kernel, 3)
    return y


@pytest.mark.parametrize(("size", "stride"), WINDOWS)
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_patches_are_a_convolution(height, width, size, stride):
    kernel = np.random.default_rng(1).normal(size=(size, size, 3, 4))
    expected = convolution(images(2, height, width, 3), kernel, stride)
    ours = np.asarray(gathered(height, width, size, stride)) @ kernel.reshape(-1, 4)
    assert ours.shape == (2, height // stride, width // stride, 4)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("coordinates", [False, True])
@pytest.mark.parametrize("inputs", [1, 3])
def test_shapes_and_sizes_of_weights(inputs, coordinates):
    encoder = make(channels=(4, 5), strides=(2, 3), inputs=inputs, coordinates=coordinates)
    kernels = [layer.kernel.shape for layer in (*encoder.convolutions, encoder.linear)]
    assert kernels == [(9 * (inputs + 2 * coordinates), 4), (16 * 4, 5), (1 * 1 * 5, 3)]
    x = images(2, 6, 8, inputs)
    call = nnx.jit(lambda encoder, x: encoder(x))
    y = call(encoder, x)
    assert y.shape == (2, 3)
    swapped = call(encoder, np.stack([x[1], np.zeros_like(x[0])]))
    np.testing.assert_allclose(swapped[0], y[1], atol=1e-6)
    if inputs == 1:
        np.testing.assert_array_equal(call(encoder, x[..., 0]), y)


def test_shrinking_averages_squares_before_all_else():
    x = images(2, 7, 9, 2)
    expected = x[:, :6, :8].reshape(2, 3, 2, 4, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(averages(jnp.asarray(x), 2), expected, atol=1e-6)
    options = {"inputs": 2, "coordinates": True}
    whole, shrunk = make(7, 9, shrink=2, **options), make(3, 4, **options)
    call = nnx.jit(lambda encoder, x: encoder(x))
    np.testing.assert_allclose(call(whole, x), call(shrunk, expected), atol=1e-5)


def test_every_channel_is_seen():
    x = images(1, 6, 8, 3)

    @nnx.jit
    def seen(encoder, x):
        return jax.value_and_grad(lambda x: jnp.abs(encoder(x)).sum())(x)

    encoder = make(inputs=3)
    (value, slopes), (other, _) = seen(encoder, x), seen(encoder, x[..., ::-1].copy())
    assert (np.abs(slopes).max(axis=(0, 1, 2)) > 1e-3).all()
    assert np.abs(value - other) > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_coordinates_are_two_more_channels(dtype):
    x = images(2, 5, 9, 3).astype(dtype)
    y = jax.jit(with_coordinates)(x)
    assert y.dtype == dtype
    y = np.asarray(y)
    np.testing.assert_array_equal(y[..., :3], x)
    np.testing.assert_array_equal(y[1, :, 4, 3], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_array_equal(y[0, 2, :, 4], np.arange(-1, 1.1, 0.25))
    assert (y[..., 3] == y[:1, :, :1, 3]).all()
    assert (y[..., 4] == y[:1, :1, :, 4]).all()
    assert np.isfinite(jax.jit(with_coordinates)(images(1, 1, 1, 1).astype(dtype))).all()


@pytest.mark.parametrize("coordinates", [False, True])
def test_with_coordinates_the_first_block_knows_where_a_pixel_lies(coordinates):
    encoder = make(12, 12, coordinates=coordinates)
    # Sum the first block over all places: only coordinates tell a spot from a moved one.
    spots = np.zeros((2, 12, 12, 1), np.float32)
    spots[0, 3, 3] = spots[1, 7, 5] = 1

    @nnx.jit
    def sums(encoder, spots):
        seen = with_coordinates(spots) if coordinates else spots
        return nnx.relu(encoder.convolutions[0](patches(seen, 3, 2))).sum(axis=(1, 2))

    one, other = np.asarray(sums(encoder, spots))
    assert (np.abs(one - other).max() > 1e-3) == coordinates


def test_mistakes_name_themselves_and_their_cure():
    encoder, colour = never_run(), never_run(inputs=3)
    for call, found, expected, change in (
        (lambda: encoder(np.zeros((2, 8, 6))), "(2, 8, 6)", "(b, 6, 8, 1) or without", "resize"),
        (lambda: encoder(np.zeros((6, 8))), "shape (6, 8)", "(b, 6, 8, 1)", "build the network"),
        (lambda: encoder(np.zeros((2, 6, 8, 3))), "(2, 6, 8, 3)", "(b, 6, 8, 1)", "resize"),
        (lambda: colour(np.zeros((2, 6, 8))), "(2, 6, 8)", "(b, 6, 8, 3)", "resize"),
        (
            lambda: never_run(strides=(2, 1)),
            "2 strides for 1 blocks",
            "one stride for each",
            "as many",
        ),
        (lambda: never_run(channels=(1, 1, 1)), "6 x 8", "sides of at least 8", "fewer channels"),
        (lambda: never_run(shrink=4), "shrinking by 4", "sides of at least 8", "larger images"),
        (lambda: never_run(shrink=0), "shrink=0", "at least 1", "static int"),
        (lambda: never_run(strides=(0,)), "strides=0", "from 1 to", "static int"),
        (lambda: never_run(inputs=0), "inputs=0", "at least 1", "static int"),
        (lambda: never_run(0), "height=0", "at least 1", "static int"),
    ):
        assert_names_itself_and_its_cure(call, found, expected, change)
