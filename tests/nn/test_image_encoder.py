import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.nn.image_encoder import (
    ImageEncoder,
    margins,
    patches,
    with_coordinates,
)
from tests.ops.examples import assert_names_itself_and_its_cure


def images(*shape, seed=0):
    return jax.random.uniform(jax.random.key(seed), shape)


def make(height=6, width=8, features=3, **options):
    options = {"channels": (4,), "rngs": nnx.Rngs(0)} | options
    return ImageEncoder(height, width, features, **options)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (6, 4), (5, 3), (1, 1), (2, 4)])
@pytest.mark.parametrize(("height", "width"), [(5, 7), (8, 8), (11, 4)])
def test_patches_are_a_convolution(height, width, size, stride):
    x = images(2, height, width, 3)
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 4))
    expected = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        margins((height, width), size, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[:, : height // stride, : width // stride]
    ours = patches(x, size, stride) @ kernel.reshape(-1, 4)
    assert ours.shape == (2, height // stride, width // stride, 4)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("coordinates", [False, True])
@pytest.mark.parametrize("inputs", [1, 3])
def test_shapes_and_sizes_of_weights(inputs, coordinates):
    encoder = make(channels=(4, 5), strides=(2, 3), inputs=inputs, coordinates=coordinates)
    kernels = [layer.kernel.shape for layer in (*encoder.convolutions, encoder.linear)]
    assert kernels == [(9 * (inputs + 2 * coordinates), 4), (16 * 4, 5), (1 * 1 * 5, 3)]
    x = images(2, 6, 8, inputs)
    y = encoder(x)
    assert y.shape == (2, 3)
    np.testing.assert_allclose(encoder(x[1:])[0], y[1], atol=1e-6)
    if inputs == 1:
        np.testing.assert_array_equal(encoder(x[..., 0]), y)


def test_every_channel_is_seen():
    encoder, x = make(inputs=3), images(1, 6, 8, 3)
    slopes = jax.grad(lambda x: jnp.abs(encoder(x)).sum())(x)
    assert (jnp.abs(slopes).max(axis=(0, 1, 2)) > 1e-3).all()
    assert jnp.abs(encoder(x) - encoder(x[..., ::-1])).max() > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_coordinates_are_two_more_channels(dtype):
    x = images(2, 5, 9, 3).astype(dtype)
    y = with_coordinates(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[..., :3], x)
    np.testing.assert_array_equal(y[1, :, 4, 3], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_array_equal(y[0, 2, :, 4], np.arange(-1, 1.1, 0.25))
    assert (y[..., 3] == y[:1, :, :1, 3]).all()
    assert (y[..., 4] == y[:1, :1, :, 4]).all()
    assert jnp.isfinite(with_coordinates(images(1, 1, 1, 1))).all()


@pytest.mark.parametrize("coordinates", [False, True])
def test_with_coordinates_the_first_block_knows_where_a_pixel_lies(coordinates):
    encoder = make(12, 12, coordinates=coordinates)
    # Sum the first block over all places: only coordinates tell a spot from a moved one.
    first = encoder.convolutions[0]
    spots = jnp.zeros((2, 12, 12, 1)).at[0, 3, 3].set(1.0).at[1, 7, 5].set(1.0)
    seen = with_coordinates(spots) if coordinates else spots
    sums = nnx.relu(first(patches(seen, 3, 2))).sum(axis=(1, 2))
    assert (jnp.abs(sums[0] - sums[1]).max() > 1e-3) == coordinates


def test_mistakes_name_themselves_and_their_cure():
    encoder, colour = make(), make(inputs=3)
    for call, found, expected, change in (
        (lambda: encoder(jnp.zeros((2, 8, 6))), "(2, 8, 6)", "(b, 6, 8, 1) or without", "resize"),
        (lambda: encoder(jnp.zeros((6, 8))), "shape (6, 8)", "(b, 6, 8, 1)", "build the network"),
        (lambda: encoder(jnp.zeros((2, 6, 8, 3))), "(2, 6, 8, 3)", "(b, 6, 8, 1)", "resize"),
        (lambda: colour(jnp.zeros((2, 6, 8))), "(2, 6, 8)", "(b, 6, 8, 3)", "resize"),
        (lambda: make(strides=(2, 1)), "2 strides for 1 blocks", "one stride for each", "as many"),
        (lambda: make(channels=(1, 1, 1)), "6 x 8", "sides of at least 8", "fewer channels"),
        (lambda: make(strides=(0,)), "strides=0", "at least 1", "static int"),
        (lambda: make(inputs=0), "inputs=0", "at least 1", "static int"),
        (lambda: make(0), "height=0", "at least 1", "static int"),
    ):
        assert_names_itself_and_its_cure(call, found, expected, change)
