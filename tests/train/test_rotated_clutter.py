import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from sparse_hyper_jax.train.data import (
    Dataset,
    index_by_class,
    load_digits,
    make_rotated_cluttered,
)
from sparse_hyper_jax.train.data.rotated_clutter import (
    Pose,
    draw_crops,
    draw_pose,
    draw_stretch,
    lay_over,
)

SMALLEST_P = 1e-4  # keys are fixed, so that a test passes always or never

SMALL = {"canvas": 40, "distractors": 3}
# Sums of pixels, for cosines and interpolation are rounded differently on different machines.
GOLDEN_LABELS = [2, 0, 9, 1]
GOLDEN_SUMS = [94.47254, 149.98477, 129.35710, 181.17206]

draw_jit = jax.jit(
    make_rotated_cluttered,
    static_argnames=("batch", "canvas", "distractors", "max_scale", "max_aspect", "coloured"),
)


@functools.cache
def digits_index():
    return index_by_class(load_digits())


@functools.cache
def golden():
    return draw_jit(jax.random.key(0), digits_index(), batch=4, **SMALL)


def test_colours_and_types_are_alike_with_64_bits():
    index = digits_index()
    with jax.enable_x64(True):
        draw = functools.partial(make_rotated_cluttered, batch=2, coloured=True, **SMALL)
        shapes = jax.eval_shape(lambda: draw(jax.random.key(0), index))
    assert (shapes.images.shape, shapes.images.dtype) == ((2, 40, 40, 3), jnp.float32)
    assert (shapes.labels.dtype, shapes.centres.dtype) == (jnp.int32, jnp.float32)


def coded_images(count=5, height=17, width=15):
    """Images whose pixels are all different: 1 + their place in the array."""
    pixels = np.arange(1, count * height * width + 1, dtype=np.float32)
    return jnp.asarray(pixels.reshape(count, height, width))


@functools.cache
def many_crops():
    """2000 groups of 3 crops out of 5 images, never out of image 2."""
    draw = functools.partial(draw_crops, images=coded_images(), row=jnp.int32(2), count=3)
    crops, sizes = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 2000))
    return np.asarray(crops), np.asarray(sizes)


@functools.partial(jax.jit, static_argnames="canvas")
def pose_jit(keys, size, stretch, *, canvas):
    return jax.vmap(lambda key: draw_pose(key, size, stretch, canvas=canvas))(keys)


def many_poses(size, stretch, canvas, count=4000):
    keys = jax.random.split(jax.random.key(2), count)
    poses = pose_jit(keys, jnp.array(size), jnp.array(stretch), canvas=canvas)
    return jax.tree.map(np.asarray, poses)


def boxes(poses, size):
    """Smallest and largest coordinate, `(b, 2)` each, of the edges of a placed patch."""
    corners = (np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) - 0.5) * size
    placed = np.einsum("bij,cj->bci", np.linalg.inv(poses.matrices), corners)
    placed += poses.middles[:, None]
    return placed.min(axis=1), placed.max(axis=1)


def p_uniform(cells, count):
    observed = np.bincount(np.asarray(cells).ravel(), minlength=count)
    assert len(observed) == count
    return stats.chisquare(observed).pvalue


def test_golden_images():
    draw = golden()
    assert draw.labels.tolist() == GOLDEN_LABELS
    np.testing.assert_allclose(np.asarray(draw.images).sum(axis=(1, 2)), GOLDEN_SUMS, rtol=1e-4)


def test_shapes_types_and_range():
    draw = golden()
    assert (draw.images.shape, draw.images.dtype) == ((4, 40, 40), jnp.float32)
    assert (draw.labels.shape, draw.labels.dtype) == ((4,), jnp.int32)
    assert (draw.centres.shape, draw.centres.dtype) == ((4, 1, 2), jnp.float32)
    assert float(draw.images.min()) == 0.0
    assert 0.8 < float(draw.images.max()) <= 1.0


def test_same_key_same_bytes():
    again = draw_jit(jax.random.key(0), digits_index(), batch=4, **SMALL)
    other = draw_jit(jax.random.key(1), digits_index(), batch=4, **SMALL)
    jax.tree.map(np.testing.assert_array_equal, again, golden())
    for first, second in zip(golden(), other, strict=True):
        assert not np.array_equal(first, second)


def test_colours_leave_places_and_shapes_as_they_are():
    alone = {"canvas": 40, "distractors": 0, "batch": 6}
    grey, coloured = (
        draw_jit(jax.random.key(0), digits_index(), **alone, coloured=coloured)
        for coloured in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, grey[1:], coloured[1:])
    assert coloured.images.shape == (6, 40, 40, 3)
    np.testing.assert_allclose(coloured.images.max(axis=-1), grey.images, atol=1e-6)
    tints = np.array(coloured.images.sum(axis=(1, 2)))
    tints /= tints.max(axis=1, keepdims=True)
    assert len({tuple(tint) for tint in tints.round(3).tolist()}) == 6
    # Pieces have colours of their own: with them, a canvas is no multiple of one colour.
    image = draw_jit(jax.random.key(0), digits_index(), batch=1, canvas=40, coloured=True).images[0]
    assert np.linalg.matrix_rank(np.asarray(image).reshape(-1, 3), tol=1e-2) == 3


def test_colours_do_not_tell_places():
    draw = draw_jit(
        jax.random.key(0),
        digits_index(),
        **{"batch": 300, "canvas": 40, "distractors": 0, "max_scale": 1.0, "max_aspect": 1.0},
        coloured=True,
    )
    tints = np.asarray(draw.images.sum(axis=(1, 2)))
    told = np.corrcoef((tints / tints.sum(1, keepdims=True)).T, np.asarray(draw.centres[:, 0]).T)
    assert np.abs(told[:3, 3:]).max() < 0.2


def test_key_is_used_once():
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        draw_jit(key, digits_index(), batch=4, **SMALL)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.random.split(key)


@pytest.mark.minutes  # dozens of small programs
def test_same_without_jit():
    plain = make_rotated_cluttered(jax.random.key(0), digits_index(), batch=4, **SMALL)
    # Compiled as one, products and sums may be rounded once instead of twice.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), plain, golden())


def test_stretch_fills_its_range():
    draw = functools.partial(draw_stretch, max_scale=3.0, max_aspect=2.0)
    stretch = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000)))
    scale = stretch.min(axis=1)
    aspect = stretch.max(axis=1) / scale
    assert stats.kstest((scale - 1) / 2, "uniform").pvalue > SMALLEST_P
    assert stats.kstest(aspect - 1, "uniform").pvalue > SMALLEST_P
    assert p_uniform(stretch.argmax(axis=1), 2) > SMALLEST_P


def test_no_stretch_is_exact():
    draw = jax.jit(functools.partial(draw_stretch, max_scale=1.0, max_aspect=1.0))
    np.testing.assert_array_equal(draw(jax.random.key(0)), [1.0, 1.0])


@pytest.mark.parametrize(
    ("size", "stretch"), [((14, 5), (1.5, 2.0)), ((28, 28), (4.0, 2.0)), ((28, 28), (1.0, 3.9))]
)
def test_boxes_fit_and_are_placed_uniformly(size, stretch):
    # Stretched to 112x56, most digits exceed the canvas in some direction.
    poses = many_poses(size, stretch, 100)
    low, high = boxes(poses, np.array(size))
    assert low.min() > -0.5 - 1e-3
    assert high.max() < 99.5 + 1e-3
    free = 100 - (high - low)
    roomy = free > 1.0
    relative = ((low + 0.5) / np.maximum(free, 1e-3))[roomy]
    assert stats.kstest(relative, "uniform").pvalue > SMALLEST_P
    # Shrunk only if too large, only as far as needed, and with the proportions kept.
    shown = np.linalg.norm(np.linalg.inv(poses.matrices), axis=1)
    shrink = shown / stretch
    np.testing.assert_allclose(shrink[:, 0], shrink[:, 1], rtol=1e-4)
    shrunk = shrink[:, 0] < 1 - 1e-4
    np.testing.assert_allclose((high - low).max(axis=1)[shrunk], 100, rtol=1e-4)
    np.testing.assert_allclose(shrink[~shrunk], 1, rtol=1e-4)
    assert shrunk.any() == (max(size) * max(stretch) > 100)


def test_angles_are_whole_degrees_all_around():
    poses = many_poses((8, 8), (1.0, 1.0), 100)
    degrees = np.degrees(np.arctan2(poses.matrices[:, 0, 1], poses.matrices[:, 0, 0]))
    assert np.abs(degrees - np.rint(degrees)).max() < 1e-3
    assert p_uniform(np.rint(degrees).astype(int) % 360, 360) > SMALLEST_P


def test_crops_come_from_every_image_but_the_digits():
    crops, _ = many_crops()
    images = (crops[:, :, 0, 0].astype(int) - 1) // (17 * 15)
    assert set(images.ravel().tolist()) == {0, 1, 3, 4}
    assert p_uniform(np.searchsorted([0, 1, 3, 4], images), 4) > SMALLEST_P
    first, second = np.searchsorted([0, 1, 3, 4], images[:, :2]).T
    assert p_uniform(first * 4 + second, 16) > SMALLEST_P


def test_rows_and_columns_of_crops_are_independent():
    # The original script used one offset for both: its crops lie on the diagonal.
    crops, sizes = many_crops()
    rows, columns = np.divmod((crops[:, 0, 0, 0].astype(int) - 1) % (17 * 15), 15)
    room = np.array([17, 15]) - sizes
    assert np.all((rows <= room[:, 0]) & (columns <= room[:, 1]))
    assert np.any(rows == room[:, 0])
    assert np.any(columns == room[:, 1])
    relative = (np.stack([rows, columns], axis=1) + 0.5) / (room + 1)
    assert abs(stats.spearmanr(*relative.T).statistic) < 0.08
    np.testing.assert_allclose(relative.mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(relative[rows == 3].mean(axis=0)[1], 0.5, atol=0.07)


def test_crops_of_a_canvas_share_one_size():
    crops, sizes = many_crops()
    for side in (0, 1):
        assert p_uniform(sizes[:, side] - 4, 11) > SMALLEST_P
    lit = crops > 0
    np.testing.assert_array_equal(lit.any(axis=3).sum(axis=2), np.repeat(sizes[:, :1], 3, axis=1))
    np.testing.assert_array_equal(lit.any(axis=2).sum(axis=2), np.repeat(sizes[:, 1:], 3, axis=1))
    # Whole and in place: neighbours differ by 1 along a row and by the width down a column.
    flat = crops[:, 0]
    assert np.all(flat[:, 3, 3] - flat[:, 0, 0] == 3 * 15 + 3)


def test_crops_of_small_images():
    draw = jax.jit(functools.partial(draw_crops, count=2))
    crops, size = draw(jax.random.key(0), coded_images(2, 3, 8), jnp.int32(0))
    assert crops.shape == (2, 3, 3)
    assert size.tolist() == [3, 3]


def test_lay_over_against_scipy():
    generator = np.random.default_rng(0)
    canvas, patch = (generator.uniform(size=size).astype(np.float32) for size in ((60, 60), (9, 6)))
    poses = many_poses((9, 6), (3.0, 1.5), 60, count=8)
    # As wide as 10x7 pixels may reach: more pixels would change nothing, fewer would be missed.
    window = math.ceil(math.hypot(10 * 3.0, 7 * 1.5)) + 2
    lay = jax.jit(functools.partial(lay_over, window=window))
    for pose in (Pose(*parts) for parts in zip(*poses, strict=True)):
        matrix = pose.matrices.astype(np.float64)
        front = ndimage.affine_transform(
            patch.astype(np.float64),
            matrix,
            pose.centres - matrix @ pose.middles,
            output_shape=canvas.shape,
            order=1,
            mode="grid-constant",
        )
        expected = front**2 + (1 - front) * canvas
        np.testing.assert_allclose(lay(canvas, patch, pose), expected, atol=1e-4)


def test_bright_pixels_are_opaque():
    white = digits_index()._replace(images=jnp.ones((1797, 8, 8)))
    draw = draw_jit(jax.random.key(0), white, batch=4, **SMALL)
    for image, centre in zip(draw.images, np.rint(draw.centres[:, 0]).astype(int), strict=True):
        assert image[tuple(centre)] == pytest.approx(1.0, abs=1e-5)


def test_labels_rows_and_centres():
    # Alone on the canvas, image i is a square of its own brightness, squared by its mask.
    grey = np.arange(1, 13, dtype=np.float32)[:, None, None] / 12 * np.ones((1, 8, 8), np.float32)
    labels = np.repeat([0, 1, 2], [2, 7, 3])
    index = index_by_class(Dataset(grey, labels))
    rows = jnp.arange(12)[:, None]
    draw = draw_jit(jax.random.key(0), index, batch=12, canvas=50, distractors=0, rows=rows)
    images = np.asarray(draw.images)
    np.testing.assert_array_equal(draw.labels, labels)
    np.testing.assert_allclose(images.max(axis=(1, 2)), grey[:, 0, 0] ** 2, rtol=1e-5)
    for image, centre in zip(images, draw.centres[:, 0], strict=True):
        np.testing.assert_allclose(ndimage.center_of_mass(image), centre, atol=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "found batch=0"),
        ({"canvas": 0}, "found canvas=0"),
        ({"canvas": 7}, "found canvas=7 for digits of 8x8 .* at least 8; enlarge the canvas"),
        ({"distractors": -1}, "found distractors=-1"),
        ({"max_scale": 0.5}, "found max_scale=0.5; expected one number at least 1 and at most"),
        ({"max_scale": 1e40}, r"found max_scale=1e\+40; expected .* at most 1e\+06; change"),
        ({"max_scale": True}, "found max_scale=True"),
        ({"max_aspect": "2"}, "found max_aspect='2'"),
        ({"coloured": "no"}, "found coloured='no'; expected True or False"),
        ({"max_aspect": math.inf}, "found max_aspect=inf"),
        ({"rows": jnp.zeros(2, jnp.int32)}, r"found rows of shape \(2,\)"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_rotated_cluttered(
            jax.random.key(0), digits_index(), **{"batch": 2, **SMALL, **options}
        )


def test_the_largest_stretch_gives_pixels():
    options = SMALL | {"batch": 4, "max_scale": 1e6, "max_aspect": 1e6}
    images = np.asarray(draw_jit(jax.random.key(0), digits_index(), **options).images)
    assert np.all((images >= 0) & (images <= 1))


@pytest.mark.parametrize("key", [3, jax.random.split(jax.random.key(0), 2)])
def test_refuses_what_is_not_one_key(key):
    with pytest.raises(ValueError, match=r"^found key.*; expected one random key; "):
        make_rotated_cluttered(key, digits_index(), batch=4, **SMALL)


def test_refuses_a_bad_source():
    data = load_digits()
    with pytest.raises(ValueError, match="found a Dataset"):
        make_rotated_cluttered(jax.random.key(0), data, batch=2)
    single = index_by_class(Dataset(data.images[:1], np.zeros(1, np.int32)))
    with pytest.raises(ValueError, match=r"found 1 image to draw from; .*; bring more images"):
        make_rotated_cluttered(jax.random.key(0), single, batch=2)
