import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sparse_hyper_jax.train.data import augment, draw_affine, warp

NONE = {"rotate": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "noise": 0.0}
MAPS = {"rotate": 10.0, "scale": 0.1, "shear": 0.1, "shift": 0.5}
IDENTITY = np.tile(np.eye(2, dtype=np.float32), (4, 1, 1))
draw_jit = jax.jit(
    draw_affine, static_argnums=1, static_argnames=("rotate", "scale", "shear", "shift")
)
NO_SHIFT = np.zeros((4, 2), np.float32)


def random_images(height, width, seed=0):
    """Four images; tests share shapes, for each is compiled."""
    return np.random.default_rng(seed).uniform(size=(4, height, width)).astype(np.float32)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (28, 28), (1, 1)])
def test_no_magnitude_is_the_exact_identity(size):
    images = random_images(*size)
    np.testing.assert_array_equal(augment(jax.random.key(1), images, **NONE), images)


def test_no_magnitude_is_the_exact_identity_under_jit():
    images = random_images(7, 5)
    function = jax.jit(functools.partial(augment, **NONE))
    np.testing.assert_array_equal(function(jax.random.key(1), images), images)


@pytest.mark.parametrize("down", [-2, 0, 3])
@pytest.mark.parametrize("right", [-1, 0, 2])
def test_whole_shifts_move_the_content(down, right):
    images = random_images(7, 5)
    moved = warp(images, IDENTITY, NO_SHIFT + np.float32([down, right]))
    expected = ndimage.shift(images, (0, down, right), order=0, cval=0.0)
    np.testing.assert_array_equal(moved, expected)


def test_half_shift_is_the_mean_of_two_pixels():
    images = random_images(7, 5)
    moved = warp(images, IDENTITY, NO_SHIFT + np.float32([0, 0.5]))
    padded = np.pad(images, ((0, 0), (0, 0), (1, 0)))
    np.testing.assert_allclose(moved, (padded[..., :-1] + padded[..., 1:]) / 2, rtol=1e-6)


@pytest.mark.parametrize("size", [7, 8])
def test_quarter_turn(size):
    # Output offset (row, column) reads the input at (column, -row): content turns clockwise.
    images = random_images(size, size)
    quarter = np.tile(np.float32([[0, -1], [1, 0]]), (4, 1, 1))
    turned = warp(images, quarter, NO_SHIFT)
    np.testing.assert_array_equal(turned, np.rot90(images, -1, axes=(1, 2)))


@pytest.mark.parametrize("seed", range(3))
def test_warp_against_scipy(seed):
    images = random_images(7, 5, seed)
    matrices, shifts = draw_jit(
        jax.random.key(seed), 4, rotate=40.0, scale=0.4, shear=0.5, shift=2.0
    )
    centre = np.array([3.0, 2.0])
    warped = np.asarray(warp(images, matrices, shifts))
    matrices, shifts = np.asarray(matrices, np.float64), np.asarray(shifts)
    for image, matrix, shift, ours in zip(images, matrices, shifts, warped, strict=True):
        offset = centre - shift - matrix @ centre
        oracle = ndimage.affine_transform(
            image.astype(np.float64), matrix, offset, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(ours, oracle, atol=1e-5)


def test_drawn_maps_stay_in_range_and_fill_it():
    matrices, shifts = draw_jit(
        jax.random.key(0), 4000, rotate=30.0, scale=0.2, shear=0.3, shift=1.5
    )
    # A is a rotation times [[1, s], [0, 1]] / z: read the three numbers back.
    a, b, c, d = np.asarray(matrices, np.float64).reshape(-1, 4).T
    zoom = (a * d - b * c) ** -0.5
    angle = np.degrees(np.arctan2(c, a))
    slant = (a * b + c * d) * zoom**2
    for drawn, middle, reach in (
        (zoom, 1.0, 0.2),
        (angle, 0.0, 30.0),
        (slant, 0.0, 0.3),
        (shifts[:, 0], 0.0, 1.5),
        (shifts[:, 1], 0.0, 1.5),
    ):
        relative = (np.asarray(drawn) - middle) / reach
        assert np.abs(relative).max() < 1 + 1e-5
        assert relative.max() > 0.99
        assert relative.min() < -0.99
        # A uniform variable on [-1, 1] has mean 0 and variance 1/3.
        assert abs(relative.mean()) < 0.05
        assert relative.var() == pytest.approx(1 / 3, abs=0.02)


def test_drawn_maps_are_of_32_bits_with_64_too():
    with jax.enable_x64(True):
        maps = jax.eval_shape(
            lambda: draw_affine(jax.random.key(0), 4, rotate=9.0, scale=0.1, shear=0.1, shift=1.0)
        )
    assert [one.dtype for one in maps] == [jnp.float32, jnp.float32]


@pytest.mark.parametrize("name", ["rotate", "scale", "shear", "shift"])
def test_each_magnitude_alone_changes_the_images(name):
    images = random_images(8, 8)
    size = 20.0 if name == "rotate" else 0.5
    result = np.asarray(augment(jax.random.key(0), images, **{**NONE, name: size}))
    for before, after in zip(images, result, strict=True):
        assert np.abs(before - after).max() > 1e-3


def test_rotation_keeps_the_middle():
    images = random_images(7, 5)
    result = np.asarray(augment(jax.random.key(0), images, **{**NONE, "rotate": 90.0}))
    np.testing.assert_allclose(result[:, 3, 2], images[:, 3, 2], rtol=1e-6)


def test_every_image_gets_its_own_map():
    images = np.broadcast_to(random_images(8, 8)[:1], (4, 8, 8))
    result = np.asarray(augment(jax.random.key(0), images))
    assert len(np.unique(result.reshape(4, -1), axis=0)) == 4


def test_outside_is_background():
    # Shrinking an all-white image to half uncovers a black frame.
    half = np.asarray(warp(np.ones((4, 7, 7), np.float32), 2 * IDENTITY, NO_SHIFT))
    np.testing.assert_array_equal(half[:, 2:5, 2:5], 1.0)
    assert half.sum() == 4 * 9


@pytest.mark.parametrize("noise", [0.05, 3.0])
def test_noise_is_gaussian_and_clipped(noise):
    grey = np.full((4, 28, 28), 0.5, np.float32)
    result = np.asarray(augment(jax.random.key(3), grey, **{**NONE, "noise": noise}))
    assert result.min() >= 0.0
    assert result.max() <= 1.0
    assert np.mean(result[0] == result[1]) < 0.6
    if noise < 0.1:
        assert result.std() == pytest.approx(noise, rel=0.03)
        assert result.mean() == pytest.approx(0.5, abs=0.002)
    else:
        assert np.mean((result == 0) | (result == 1)) > 0.8


def test_values_stay_between_those_of_the_image():
    images = 0.25 + 0.5 * random_images(8, 8)
    result = augment(jax.random.key(0), images, rotate=45.0, scale=0.5, shear=0.5, shift=3.0)
    assert np.min(result) >= 0.0
    assert np.max(result) <= images.max() + 1e-6


def test_same_key_same_bytes_and_jit():
    images = random_images(8, 8)
    function = functools.partial(augment, noise=0.1)
    first, again = (function(jax.random.key(2), images) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(jax.jit(function)(jax.random.key(2), images), first, atol=1e-6)
    other = np.asarray(function(jax.random.key(3), images))
    assert np.abs(other - np.asarray(first)).max() > 0.01


def test_vmap_over_leading_axis():
    images = np.stack([random_images(8, 8, seed) for seed in (0, 1)])
    keys = jax.random.split(jax.random.key(0), 2)
    batched = jax.jit(jax.vmap(augment))(keys, images)
    for key, given, got in zip(keys, images, batched, strict=True):
        np.testing.assert_allclose(got, augment(key, given), atol=1e-6)


@pytest.mark.parametrize(("dtype", "noise"), [(jnp.bfloat16, 0.1), (jnp.float16, 0.0)])
def test_type_is_kept(dtype, noise):
    images = random_images(8, 8).astype(dtype)
    function = functools.partial(augment, noise=noise)
    assert jax.eval_shape(function, jax.random.key(0), images).dtype == dtype


@pytest.mark.parametrize(
    "options",
    [
        *({"rotate": -1.0}, {"rotate": float("nan")}, {"rotate": 1e300}, {"rotate": "10"}),
        *({"scale": 1.0}, {"scale": 2.0}, {"shear": -0.1}, {"shear": True}, {"shift": np.nan}),
        {"noise": -1e-9},
    ],
)
def test_refuses_bad_magnitudes(options):
    (name,) = options
    message = f"^found {name}=.*; expected one number at least 0 and .*; change {name}"
    with pytest.raises(ValueError, match=message):
        augment(jax.random.key(0), jnp.zeros((1, 8, 8)), **options)
    if name != "noise":
        with pytest.raises(ValueError, match=message):
            draw_affine(jax.random.key(0), 2, **MAPS | options)


@pytest.mark.parametrize("batch", [-1, 2.0, True])
def test_draw_affine_refuses_a_bad_batch(batch):
    with pytest.raises(ValueError, match=f"^found batch={batch}; expected an int of at least 0; "):
        draw_affine(jax.random.key(0), batch, **MAPS)


def test_the_largest_magnitudes_give_maps():
    matrices, shifts = draw_jit(
        jax.random.key(0), 4, rotate=1e6, scale=1 - 1e-6, shear=1e6, shift=1e6
    )
    assert np.isfinite(matrices).all()
    assert np.isfinite(shifts).all()


@pytest.mark.parametrize("key", [3, jax.random.split(jax.random.key(0), 2)])
def test_refuses_what_is_not_one_key(key):
    for draw in (
        lambda: augment(key, jnp.zeros((1, 8, 8))),
        lambda: draw_affine(key, 2, **MAPS),
    ):
        with pytest.raises(ValueError, match=r"^found key.*; expected one random key; "):
            draw()


def test_refuses_bad_images():
    with pytest.raises(ValueError, match=r"images of shape \(8, 8\)"):
        augment(jax.random.key(0), np.zeros((8, 8), np.float32))
    with pytest.raises(ValueError, match="images of type uint8"):
        augment(jax.random.key(0), np.zeros((1, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="matrices of shape"):
        warp(np.zeros((2, 8, 8), np.float32), IDENTITY[:1], NO_SHIFT[:2])
    with pytest.raises(ValueError, match="shifts of shape"):
        warp(np.zeros((1, 8, 8), np.float32), IDENTITY[:1], NO_SHIFT[:2])
