import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax.train.data import Dataset, index_by_class, load_digits, make_cluttered
from sparse_hyper_jax.train.data.canvases import cut_out

SMALLEST_P = 1e-4  # keys are fixed, so that a test passes always or never
COUNTS = (3, 12, 7, 1, 20)
"""Images of each class in the made data set: uneven."""

SMALL = {"canvas": 20, "distractors": 3, "distractor_size": 4}
GOLDEN = "50714790f5171607d3540792f4501139e46f0bf57879eb86a286ad36f9843448"

draw_jit = jax.jit(
    make_cluttered,
    static_argnames=(
        *("batch", "canvas", "distractors", "distractor_size", "border", "digits", "coloured"),
    ),
)


def flat_images(side=(5, 4)):
    """A shuffled data set whose image `i` is filled with `(i + 1) / n`."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
    grey = np.arange(1, len(labels) + 1, dtype=np.float32) / len(labels)
    return Dataset(np.broadcast_to(grey[:, None, None], (len(labels), *side)).copy(), labels)


DATA = flat_images()
INDEX = index_by_class(DATA)
ALONE = {"canvas": 9, "distractors": 0, "distractor_size": 1}


@functools.cache
def digits_index():
    return index_by_class(load_digits())


def ramp_index(side=4):
    """A blank image and one with different pixels, all above 0."""
    ramp = np.arange(1, side**2 + 1, dtype=np.float32).reshape(side, side) / side**2
    return index_by_class(Dataset(np.stack([np.zeros_like(ramp), ramp]), np.array([0, 1])))


@functools.cache
def many():
    """Single digits without clutter: what is not black is the digit."""
    return jax.tree.map(np.asarray, draw_jit(jax.random.key(1), INDEX, batch=4000, **ALONE))


@functools.cache
def crops_alone():
    """Single 2x2 crops, half of them blank, on canvases with a blank digit."""
    options = {"batch": 8000, "canvas": 6, "distractors": 1, "distractor_size": 2}
    rows = jnp.zeros((8000, 1), jnp.int32)
    draw = draw_jit(jax.random.key(2), ramp_index(), rows=rows, **options)
    return np.asarray(draw.images)


def p_uniform(cells, count):
    observed = np.bincount(np.asarray(cells).ravel(), minlength=count)
    assert len(observed) == count
    return stats.chisquare(observed).pvalue


def upper_left(images):
    """Row and column of the first pixel above 0: `(b, 2)`."""
    lit = images > 0
    return np.stack([lit.any(axis=2).argmax(axis=1), lit.any(axis=1).argmax(axis=1)], axis=1)


def test_digits_are_changed_before_they_are_added_and_nothing_else_is():
    def change(key, images):
        assert images.shape == (6, 5, 4)  # those of all canvases, one after another
        return images / 4 + jax.random.uniform(key, (6, 1, 1))

    @jax.jit
    def both(key):
        options = SMALL | {"batch": 3, "digits": 2}
        return [make_cluttered(key, INDEX, change=one, **options) for one in (None, change)]

    plain, changed = both(jax.random.key(3))
    np.testing.assert_array_equal(plain.centres, changed.centres)
    np.testing.assert_array_equal(plain.labels, changed.labels)
    differs = np.asarray(plain.images != changed.images)
    inside = np.zeros_like(differs)
    for image, centres in enumerate(np.asarray(plain.centres)):
        for row, column in (centres - (2, 1.5)).astype(int):
            inside[image, row : row + 5, column : column + 4] = True
    assert differs[inside].mean() > 0.9
    assert not differs[~inside].any()


def test_golden_bytes():
    # Sums of sixteenths are exact: these are the bytes of every device and version.
    draw = draw_jit(jax.random.key(0), digits_index(), batch=4, **SMALL)
    assert hashlib.sha256(np.asarray(draw.images).tobytes()).hexdigest() == GOLDEN
    assert draw.labels.tolist() == [2, 0, 9, 1]


def test_shapes_and_types():
    draw = draw_jit(jax.random.key(0), digits_index(), batch=4, **SMALL)
    assert (draw.images.shape, draw.images.dtype) == ((4, 20, 20), jnp.float32)
    assert (draw.labels.shape, draw.labels.dtype) == ((4,), jnp.int32)
    assert (draw.centres.shape, draw.centres.dtype) == ((4, 1, 2), jnp.float32)


@pytest.mark.minutes  # dozens of small programs
def test_same_key_same_bytes_without_jit():
    plain = make_cluttered(jax.random.key(0), digits_index(), batch=4, **SMALL)
    jitted = draw_jit(jax.random.key(0), digits_index(), batch=4, **SMALL)
    jax.tree.map(np.testing.assert_array_equal, plain, jitted)


def test_colours_are_those_of_each_piece_and_leave_places_as_they_are():
    grey, coloured = (
        draw_jit(jax.random.key(0), digits_index(), batch=6, **SMALL, coloured=coloured)
        for coloured in (False, True)
    )
    assert coloured.images.shape == (6, 20, 20, 3)
    jax.tree.map(np.testing.assert_array_equal, grey[1:], coloured[1:])
    one, other = np.asarray(grey.images), np.asarray(coloured.images)
    assert np.array_equal(one > 0, other.max(axis=-1) > 0)
    assert (other <= one[..., None]).all()
    # Where one piece lies alone its brightest channel is that of the grey canvas.
    assert np.mean(np.isclose(other.max(axis=-1), one)[one > 0]) > 0.5
    shares = other[one > 0] / other.max(axis=-1)[one > 0][:, None]
    found = {tuple(share) for share in shares.round(3).tolist()}
    assert len(found) > 6  # several colours on a canvas


def test_colours_and_types_are_alike_with_64_bits():
    with jax.enable_x64(True):
        key = jax.random.key(0)
        shapes = jax.eval_shape(lambda: make_cluttered(key, INDEX, batch=2, coloured=True, **ALONE))
        centres = np.zeros((2, 2), np.float32)
        cut = jax.eval_shape(lambda images: cut_out(images, centres, 5), shapes.images)
    assert (shapes.images.shape, shapes.images.dtype) == ((2, 9, 9, 3), jnp.float32)
    assert (shapes.labels.dtype, shapes.centres.dtype) == (jnp.int32, jnp.float32)
    assert (cut.shape, cut.dtype) == ((2, 5, 5, 3), jnp.float32)


def test_same_bytes_under_vmap():
    keys = jax.random.split(jax.random.key(3), 2)
    single = [draw_jit(key, digits_index(), batch=4, **SMALL) for key in keys]
    mapped = jax.vmap(lambda key: draw_jit(key, digits_index(), batch=4, **SMALL))(keys)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *single)
    jax.tree.map(np.testing.assert_array_equal, mapped, stacked)
    for first, second in zip(*single, strict=True):
        assert not np.array_equal(first, second)


def test_key_is_used_once():
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        draw_jit(key, INDEX, batch=2, **ALONE)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.random.split(key)


def test_inside_scan_and_compiled_once():
    traces = []

    @jax.jit
    def run(key, index):
        traces.append(1)

        def step(total, step_key):
            draw = make_cluttered(step_key, index, batch=2, **ALONE)
            return total + draw.images.sum(), draw.labels

        return jax.lax.scan(step, 0.0, jax.random.split(key, 5))

    labels = run(jax.random.key(0), INDEX)[1]
    run(jax.random.key(1), INDEX)
    assert labels.shape == (5, 2)
    assert len(traces) == 1


def test_every_source_image_is_equally_likely():
    # So that classes are as frequent as in the source, however uneven.
    draw = many()
    ids = np.rint(draw.images.max(axis=(1, 2)) * len(DATA.labels)).astype(int) - 1
    assert p_uniform(ids, len(DATA.labels)) > SMALLEST_P
    np.testing.assert_array_equal(draw.labels, DATA.labels[ids])
    shares = np.bincount(draw.labels) / len(draw.labels)
    np.testing.assert_allclose(shares, np.array(COUNTS) / sum(COUNTS), atol=0.03)


def test_centres_say_where_digits_lie():
    draw = many()
    corners = upper_left(draw.images)
    height, width = DATA.images.shape[1:]
    np.testing.assert_array_equal(draw.centres[:, 0] - corners, [[2.0, 1.5]] * 4000)
    for image, (row, column) in zip(draw.images[:50], corners[:50], strict=True):
        assert np.all(image[row : row + height, column : column + width] > 0)
        assert np.sum(image > 0) == height * width


def test_positions_are_uniform_from_edge_to_edge():
    # On a 9x9 canvas a 5x4 digit has 5 x 6 places; a 28x28 digit on 100x100 has 73 x 73.
    corners = (many().centres[:, 0] - [2.0, 1.5]).astype(int)
    assert p_uniform(corners[:, 0] * 6 + corners[:, 1], 30) > SMALLEST_P
    full = index_by_class(flat_images((28, 28)))
    draw = jax.jit(lambda key: make_cluttered(key, full, batch=20_000).centres)
    corners = np.asarray(draw(jax.random.key(5)))[:, 0] - 13.5
    for axis in (0, 1):
        assert p_uniform(corners[:, axis].astype(int), 73) > SMALLEST_P


def test_border_is_respected():
    draw = draw_jit(jax.random.key(0), INDEX, batch=300, border=2, **ALONE)
    corners = np.asarray(draw.centres)[:, 0] - [2.0, 1.5]
    # 9 pixels less twice the border leave one place vertically, two horizontally.
    assert set(corners[:, 0]) == {2.0}
    assert set(corners[:, 1]) == {2.0, 3.0}


def test_crops_lie_anywhere_and_come_from_anywhere():
    images = crops_alone()
    lit = images.max(axis=(1, 2)) > 0
    # Blank crops are allowed: half the images to cut from are blank.
    assert lit.mean() == pytest.approx(0.5, abs=0.03)
    places = upper_left(images[lit])
    assert p_uniform(places[:, 0] * 5 + places[:, 1], 25) > SMALLEST_P
    first = images[lit][np.arange(lit.sum()), places[:, 0], places[:, 1]] * 16 - 1
    rows, columns = np.divmod(first.astype(int), 4)
    assert p_uniform(rows * 3 + columns, 9) > SMALLEST_P
    # Where a crop lies says nothing about where it was cut.
    together = np.histogram2d(places[:, 0], rows, bins=(5, 3))[0]
    assert stats.chi2_contingency(together).pvalue > SMALLEST_P


def test_crops_are_whole_and_unchanged():
    ramp = np.asarray(ramp_index().images[1])
    windows = {ramp[i : i + 2, j : j + 2].tobytes() for i in range(3) for j in range(3)}
    images = crops_alone()[:200]
    for image, (row, column) in zip(images, upper_left(images), strict=True):
        if image.any():
            assert image[row : row + 2, column : column + 2].tobytes() in windows
            assert np.sum(image > 0) == 4


def test_digits_survive_the_clutter():
    index = digits_index()
    rows = jnp.arange(0, 64 * 20, 20)[:, None]
    options = {"batch": 64, "canvas": 40, "distractors": 8, "distractor_size": 4}
    draw = draw_jit(jax.random.key(0), index, rows=rows, **options)
    images = np.array(draw.images)
    assert images.min() >= 0.0
    assert images.max() == 1.0
    corners = (np.asarray(draw.centres)[:, 0] - 3.5).astype(int)
    for image, (row, column), source in zip(images, corners, rows[:, 0], strict=True):
        window = image[row : row + 8, column : column + 8]
        assert np.all(window >= index.images[source])
        window[:] = 0.0
        assert 0 < np.sum(image > 0) <= 8 * 4**2


def test_overlaps_are_added_and_clamped():
    # Canvas and images are of one size, so that everything falls on the same place.
    grey = np.float32([0.25, 0.25])[:, None, None] * np.ones((2, 3, 3), np.float32)
    index = index_by_class(Dataset(grey, np.array([0, 1])))
    options = {"batch": 2, "canvas": 3, "distractor_size": 3}
    key = jax.random.key(0)
    for distractors, digits, sum_ in ((1, 1, 0.5), (9, 2, 1.0)):
        draw = draw_jit(key, index, distractors=distractors, digits=digits, **options)
        np.testing.assert_array_equal(draw.images, np.full((2, 3, 3), sum_))


def test_several_digits():
    draw = draw_jit(jax.random.key(0), INDEX, batch=1000, digits=3, **ALONE)
    assert draw.labels.shape == (1000, 3)
    assert draw.centres.shape == (1000, 3, 2)
    corners = (np.asarray(draw.centres) - [2.0, 1.5]).astype(int)
    cells = corners[..., 0] * 6 + corners[..., 1]
    for one, other in ((0, 1), (1, 2)):
        assert p_uniform(cells[:, one], 30) > SMALLEST_P
        assert np.mean(cells[:, one] == cells[:, other]) == pytest.approx(1 / 30, abs=0.02)
    for image, places in zip(draw.images[:20], corners[:20], strict=True):
        covered = np.zeros((9, 9), bool)
        for row, column in places:
            covered[row : row + 5, column : column + 4] = True
        np.testing.assert_array_equal(np.asarray(image) > 0, covered)


def test_rows_show_each_image_once():
    count = len(DATA.labels)
    rows = jnp.arange(count)[:, None]
    draw = draw_jit(jax.random.key(0), INDEX, batch=count, rows=rows, **ALONE)
    np.testing.assert_array_equal(draw.labels, np.sort(DATA.labels))
    shown = np.asarray(draw.images).max(axis=(1, 2))
    np.testing.assert_array_equal(shown, INDEX.images[:, 0, 0])


def test_rows_in_parts_of_one_compiled_map():
    parts = jnp.arange(42).reshape(-1, 6, 1)
    keys = jax.random.split(jax.random.key(0), len(parts))

    def labels(part):
        return make_cluttered(part[0], INDEX, batch=6, rows=part[1], **ALONE).labels

    np.testing.assert_array_equal(
        jax.lax.map(labels, (keys, parts)).ravel(), np.sort(DATA.labels)[:42]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "found batch=0"),
        ({"canvas": 0}, "found canvas=0"),
        ({"distractors": -1}, "found distractors=-1"),
        ({"distractor_size": 0}, "found distractor_size=0"),
        ({"digits": 0}, "found digits=0"),
        ({"border": -1}, "found border=-1"),
        ({"canvas": 4}, "found canvas=4 for digits of 5x4 .* at least 5; enlarge the canvas"),
        ({"border": 3}, "canvas=9 .* border=3; expected a canvas of at least 11"),
        ({"distractor_size": 5}, "distractor_size=5 for images of 5x4; .* at most 4 pixels; lower"),
        ({"rows": jnp.zeros(2, jnp.int32)}, r"found rows of shape \(2,\); expected .* \(2, 1\)"),
        ({"rows": jnp.zeros((2, 1))}, "rows of type float32; expected integers from 0 to n - 1"),
        ({"rows": jnp.array([[0], [-1]])}, "rows from -1 to 0; expected places from 0 to 42"),
        ({"coloured": "no"}, "^found coloured='no'; expected True or False"),
        ({"rows": jnp.array([[43], [1]])}, "rows from 1 to 43; expected places from 0 to 42"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_cluttered(jax.random.key(0), INDEX, **{"batch": 2, **ALONE, **options})


@pytest.mark.parametrize("key", [3, jax.random.split(jax.random.key(0), 2)])
def test_refuses_what_is_not_one_key(key):
    with pytest.raises(ValueError, match=r"^found key.*; expected one random key; "):
        make_cluttered(key, INDEX, batch=2, **ALONE)


def test_a_traced_row_outside_is_the_nearest_for_image_and_label_alike():
    @jax.jit
    def draw(rows):
        drawn = make_cluttered(jax.random.key(0), INDEX, batch=4, rows=rows, **ALONE)
        return drawn.images, drawn.labels

    for outside, nearest in zip(
        draw(np.array([[-1], [43], [2**31 - 1], [7]])),
        draw(np.array([[0], [42], [42], [7]])),
        strict=True,
    ):
        np.testing.assert_array_equal(outside, nearest)


def test_rows_may_have_fewer_bits_than_the_number_of_images():
    many = INDEX._replace(images=jnp.tile(INDEX.images, (7, 1, 1)))
    found = jax.eval_shape(
        lambda: make_cluttered(jax.random.key(0), many, batch=1, rows=jnp.uint8([[3]]), **ALONE)
    )
    assert found.labels.shape == (1,)


def test_refuses_a_bad_source():
    with pytest.raises(ValueError, match=r"found a Dataset .*index_by_class\(dataset\)"):
        make_cluttered(jax.random.key(0), DATA, batch=2)
    flat = INDEX._replace(images=INDEX.images.reshape(43, 20))
    with pytest.raises(ValueError, match=r"index.images of shape \(43, 20\)"):
        make_cluttered(jax.random.key(0), flat, batch=2)
