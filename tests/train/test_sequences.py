import functools
import itertools
from math import comb, perm

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax.train.data import (
    Dataset,
    distinct_numbers,
    index_by_class,
    make_sequences,
    render,
)

COUNTS = (3, 1, 7, 2, 40, 5, 1, 9, 4, 6)
"""Images of each class in the made data set: very uneven."""

HEIGHT, WIDTH = 2, 3
SMALLEST_P = 1e-4  # keys are fixed, so that a test passes always or never


def traceable(counts=COUNTS, seed=0):
    """A shuffled data set whose image `i` is filled with `i`."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.ones((len(labels), HEIGHT, WIDTH)) * np.arange(len(labels))[:, None, None]
    return Dataset(images.astype(np.float32), labels.astype(np.int32))


DATA = traceable()
INDEX = index_by_class(DATA)
KEY = jax.random.key(0)

draw_jit = jax.jit(make_sequences, static_argnames=("batch", "length", "digits", "distinct"))
render_jit = jax.jit(render, static_argnames="digits")


@functools.cache
def many(digits, distinct):
    """One large draw, shared by the tests because compiling it is what takes time."""
    key = jax.random.key(4)
    draw = draw_jit(key, INDEX, batch=4000, length=10, digits=digits, distinct=distinct)
    return jax.tree.map(np.asarray, draw)


def digit_labels(images, dataset=DATA):
    """Read back from the pixels which class stands in each place: `(..., digits)`."""
    strip = np.asarray(images)[..., 0, :]
    whole = strip.reshape(*strip.shape[:-1], -1, WIDTH)
    assert np.all(whole == whole[..., :1])
    return dataset.labels[whole[..., 0].astype(int)]


def p_uniform(cells, count):
    observed = np.bincount(np.asarray(cells).ravel(), minlength=count)
    assert len(observed) == count
    return stats.chisquare(observed).pvalue


def test_index_groups_every_image_once():
    np.testing.assert_array_equal(INDEX.counts, COUNTS)
    np.testing.assert_array_equal(INDEX.starts, np.cumsum([0, *COUNTS[:-1]]))
    rows = np.asarray(INDEX.images)[:, 0, 0].astype(int)
    np.testing.assert_array_equal(np.sort(rows), np.arange(sum(COUNTS)))
    np.testing.assert_array_equal(DATA.labels[rows], np.repeat(np.arange(10), COUNTS))
    assert INDEX.starts.dtype == INDEX.counts.dtype == jnp.int32


def test_index_refuses_a_gap():
    huge = Dataset(np.zeros((2, 2, 2), np.float32), np.array([0, 2**31 - 1], np.int32))
    with pytest.raises(ValueError, match=r"no image of classes \[1, 2\] among 2"):
        index_by_class(huge)
    with pytest.raises(ValueError, match=r"no image of classes \[1, 3\] among 3"):
        index_by_class(Dataset(np.zeros((3, 2, 2), np.float32), np.array([0, 2, 4])))
    with pytest.raises(ValueError, match="found a label -1"):
        index_by_class(Dataset(np.zeros((2, 2, 2), np.float32), np.array([-1, 0])))
    with pytest.raises(ValueError, match="expected at least one"):
        index_by_class(Dataset(np.zeros((0, 2, 2), np.float32), np.zeros(0, np.int32)))


@pytest.mark.parametrize(("digits", "distinct"), [(1, True), (2, True), (3, False)])
def test_shapes_types_and_rendered_labels(digits, distinct):
    draw = many(digits, distinct)
    assert draw.images.shape == (4000, 10, HEIGHT, digits * WIDTH)
    assert (draw.images.dtype, draw.labels.dtype) == (np.float32, np.int32)
    # The most significant digit stands left: reading the classes gives the label.
    read = digit_labels(draw.images) @ 10 ** np.arange(digits)[::-1]
    np.testing.assert_array_equal(read, draw.labels)


def test_render_one_number():
    # One image per class makes the result certain; 407 shows leading digits and a zero.
    plain = traceable((1,) * 10)
    index = index_by_class(plain)
    image = render_jit(jax.random.key(0), index, jnp.array(407), digits=4)
    places = [int(np.flatnonzero(plain.labels == digit)[0]) for digit in (0, 4, 0, 7)]
    np.testing.assert_array_equal(image, np.tile(np.repeat(places, WIDTH), (HEIGHT, 1)))


@pytest.mark.parametrize("number", [-1, 100])
def test_known_numbers_of_other_digits_are_refused(number):
    message = (
        rf"^found numbers from .*{number}.*; expected numbers from 0 to 99, .*; .*raise digits"
    )
    with pytest.raises(ValueError, match=message):
        render(jax.random.key(0), INDEX, jnp.array([7, number]), digits=2)


@pytest.mark.parametrize(
    ("numbers", "digits", "message"),
    [
        ([1], 11, "found digits=11 with 10 classes; expected a first digit .*; use fewer"),
        ([0], 0, "found digits=0; expected an int of at least 1"),
        ([0], -1, "found digits=-1; expected an int of at least 1"),
        ([7.9], 1, "found numbers of dtype float32; expected integers"),
        (np.array([True]), 1, "found numbers of dtype bool; expected integers"),
    ],
)
def test_render_refuses(numbers, digits, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        render(jax.random.key(0), INDEX, numbers, digits=digits)


def test_render_takes_a_list_and_small_ints():
    shape = jax.eval_shape(lambda key: render(key, INDEX, [7, 407], digits=np.int8(3)), KEY).shape
    assert shape == (2, HEIGHT, 3 * WIDTH)


@pytest.mark.parametrize("key", [0, jax.random.split(jax.random.key(0), 2)])
@pytest.mark.parametrize(
    "draw",
    [
        lambda key: make_sequences(key, INDEX, batch=2, length=3),
        lambda key: render(key, INDEX, jnp.array([1]), digits=1),
        lambda key: distinct_numbers(key, count=5, length=2),
    ],
)
def test_refuses_what_is_not_one_key(draw, key):
    with pytest.raises(ValueError, match=r"^found key.*; expected one random key; "):
        draw(key)


def test_refuses_a_flag_in_words():
    with pytest.raises(ValueError, match=r"^found distinct='no'; expected True or False; "):
        make_sequences(KEY, INDEX, batch=2, length=5, distinct="no")


def test_small_ints_count_as_those_of_python():
    # 10**3 is more than an int8 holds.
    options = {"batch": 2, "length": 3, "digits": np.int8(3)}
    shapes = jax.eval_shape(lambda key: make_sequences(key, INDEX, **options), KEY)
    assert shapes.images.shape == (2, 3, HEIGHT, 3 * WIDTH)


def test_rows_of_an_image_stay_upright():
    # Images side by side, not stacked: row i of the strip is row i of each digit.
    pixels = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    index = index_by_class(Dataset(pixels, np.array([0, 1])))
    strip = np.asarray(render_jit(jax.random.key(0), index, jnp.array([2]), digits=2))
    np.testing.assert_array_equal(strip[0], np.concatenate([pixels[1], pixels[0]], axis=1))


@pytest.mark.parametrize("digits", [1, 2])
def test_a_sequence_has_no_number_twice(digits):
    in_order = np.sort(many(digits, True).labels, axis=1)
    assert np.all(np.diff(in_order, axis=1) > 0)


@pytest.mark.parametrize(("count", "length"), [(100, 100), (2**31 - 1, 30)])
def test_distinct_numbers_up_to_the_largest(count, length):
    keys = jax.random.split(jax.random.key(1), 16)
    draw = jax.jit(jax.vmap(functools.partial(distinct_numbers, count=count, length=length)))
    in_order = np.sort(draw(keys), axis=1)
    assert np.all(np.diff(in_order, axis=1) > 0)
    assert in_order.min() >= 0
    assert 0.9 * (count - 1) < in_order.max() < count


def test_repeats_happen_unless_distinct():
    # Ten free draws out of a thousand numbers are all different with this probability.
    different = perm(1000, 10) / 1000**10
    in_order = np.sort(many(3, False).labels, axis=1)
    repeated = np.mean(np.any(np.diff(in_order, axis=1) == 0, axis=1))
    assert repeated == pytest.approx(1 - different, abs=0.013)


@pytest.mark.parametrize(("count", "length"), [(5, 3), (4, 4), (7, 1), (1, 1)])
def test_every_ordered_choice_is_equally_likely(count, length):
    keys = jax.random.split(jax.random.key(2), 12_000)
    draw = jax.jit(jax.vmap(functools.partial(distinct_numbers, count=count, length=length)))
    rows = np.asarray(draw(keys))
    cells = {row: cell for cell, row in enumerate(itertools.permutations(range(count), length))}
    assert len(cells) == perm(count, length)
    if count > 1:
        assert p_uniform([cells[tuple(row)] for row in rows.tolist()], len(cells)) > SMALLEST_P
    else:
        assert np.all(rows == 0)


def test_subsets_of_classes_are_uniform():
    subsets = {frozenset(s): i for i, s in enumerate(itertools.combinations(range(10), 3))}
    assert len(subsets) == comb(10, 3)
    cells = [subsets[frozenset(row[:3])] for row in many(1, True).labels.tolist()]
    assert p_uniform(cells, 120) > SMALLEST_P


@pytest.mark.parametrize(("digits", "distinct"), [(1, True), (2, True), (3, False)])
def test_each_position_is_uniform(digits, distinct):
    labels = many(digits, distinct).labels
    for position in (0, 4, 9):
        assert p_uniform(labels[:, position], 10**digits) > SMALLEST_P


@pytest.mark.parametrize("distinct", [True, False])
def test_images_of_a_class_are_uniform_and_never_of_another(distinct):
    # Given the number: the image may not depend on the bits that chose it.
    draw = many(1, distinct)
    ids = draw.images[:, :, 0, 0].astype(int)
    for digit in (0, 2, 4):
        members = np.flatnonzero(DATA.labels == digit)
        drawn = ids[draw.labels == digit]
        assert set(drawn.tolist()) == set(members.tolist())
        assert p_uniform(np.searchsorted(members, drawn), COUNTS[digit]) > SMALLEST_P


def test_uneven_classes_use_every_image():
    # With other than ten classes, the numbers are written in that base.
    counts = (1, 50, 2)
    data = traceable(counts)
    index = index_by_class(data)
    draw = draw_jit(jax.random.key(6), index, batch=400, length=9, digits=2, distinct=False)
    base = len(counts)
    np.testing.assert_array_equal(digit_labels(draw.images, data) @ [base, 1], draw.labels)
    assert p_uniform(draw.labels, base**2) > SMALLEST_P
    assert len(np.unique(np.asarray(draw.images))) == sum(counts)


def test_equal_digits_get_images_of_their_own():
    # Neither places of one number nor equal numbers may share their randomness.
    draw = many(3, False)
    chosen = draw.images[draw.labels // 10 == 44][:, 0]
    left, middle = chosen[:, 0], chosen[:, WIDTH]
    assert len(left) > 300
    assert np.mean(left == middle) == pytest.approx(1 / COUNTS[4], abs=0.03)
    assert len(np.unique(left)) == len(np.unique(middle)) == COUNTS[4]


def test_same_key_same_bytes_also_under_vmap():
    options = {"batch": 4000, "length": 10, "digits": 2, "distinct": True}
    keys = jax.random.split(jax.random.key(8), 2)
    single = [draw_jit(key, INDEX, **options) for key in keys]
    again = draw_jit(keys[0], INDEX, **options)
    mapped = jax.jit(jax.vmap(functools.partial(make_sequences, **options), in_axes=(0, None)))
    jax.tree.map(np.testing.assert_array_equal, again, single[0])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *single)
    jax.tree.map(np.testing.assert_array_equal, mapped(keys, INDEX), stacked)
    assert not np.array_equal(single[0].labels, single[1].labels)


@pytest.mark.minutes  # dozens of small programs
def test_same_bytes_without_jit():
    options = {"batch": 2, "length": 3, "digits": 2}
    plain = make_sequences(jax.random.key(9), INDEX, **options)
    jitted = draw_jit(jax.random.key(9), INDEX, **options)
    jax.tree.map(np.testing.assert_array_equal, plain, jitted)


def test_inside_scan_and_compiled_once():
    traces = []

    @jax.jit
    def run(key, index):
        traces.append(1)

        def step(carry, step_key):
            draw = draw_jit(step_key, index, batch=2, length=4)
            return carry + draw.images.sum(), draw.labels

        return jax.lax.scan(step, 0.0, jax.random.split(key, 5))

    labels = run(jax.random.key(0), INDEX)[1]
    other = run(jax.random.key(1), INDEX)[1]
    assert labels.shape == (5, 2, 4)
    assert len(traces) == 1
    assert not np.array_equal(labels, other)


@pytest.mark.parametrize(("digits", "length"), [(1, 11), (2, 101)])
def test_more_different_numbers_than_there_are(digits, length):
    message = f"found length={length} .* out of {10**digits}; expected .*; .*distinct=False"
    options = {"batch": 2, "length": length, "digits": digits}
    with pytest.raises(ValueError, match=message):
        make_sequences(jax.random.key(0), INDEX, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "found batch=0"),
        ({"length": 0}, "found length=0"),
        ({"digits": 0}, "found digits=0"),
        ({"digits": 10}, "fewer than 2\\*\\*31 numbers"),
        ({"digits": 10, "distinct": False}, "fewer than 2\\*\\*31 numbers"),
    ],
)
def test_refuses_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        make_sequences(jax.random.key(0), INDEX, **{"batch": 2, "length": 3, **options})


def test_refuses_a_data_set_that_is_not_indexed():
    with pytest.raises(ValueError, match=r"found a Dataset .*index_by_class\(dataset\)"):
        make_sequences(jax.random.key(0), DATA, batch=2, length=3)


def test_distinct_numbers_checks_its_count():
    with pytest.raises(ValueError, match="fewer than 2"):
        distinct_numbers(jax.random.key(0), count=2**31, length=2)
