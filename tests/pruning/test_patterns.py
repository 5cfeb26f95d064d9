import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.pruning import Blocks, Channels, NofM, Unstructured, magnitude_masks
from tests.ops.examples import assert_names_itself_and_its_cure
from tests.pruning.examples import array, largest

mask_jit = jax.jit(lambda pattern, scores, kept: pattern.mask(scores, kept), static_argnums=0)


def by_units(scores, places, kept, score):
    """Keep the units of largest score, the first ones of equals."""
    mask = np.zeros(scores.shape, bool)
    order = sorted(range(len(places)), key=lambda i: (-score(np.abs(scores[places[i]])), i))
    for unit in order[:kept]:
        mask[places[unit]] = True
    return mask


def blocks(shape, height, width):
    *lead, rows, columns = shape
    starts = itertools.product(
        *(range(length) for length in lead), range(0, rows, height), range(0, columns, width)
    )
    return [
        (*start[:-2], slice(start[-2], start[-2] + height), slice(start[-1], start[-1] + width))
        for start in starts
    ]


@pytest.mark.parametrize("by", ["mean", "max"])
@pytest.mark.parametrize(
    ("shape", "block"), [((4, 6), (2, 3)), ((4, 6), (1, 2)), ((3, 4, 4), (2, 2)), ((4, 4), (4, 4))]
)
def test_blocks(shape, block, by):
    scores, pattern = array(*shape), Blocks(block, by)
    places = blocks(shape, *block)
    assert pattern.units(shape) == len(places)
    for kept in range(len(places) + 1):
        expected = by_units(scores, places, kept, getattr(np, by))
        assert np.array_equal(mask_jit(pattern, scores, kept), expected), kept


def test_blocks_by_mean_and_by_max_differ():
    scores = np.array([[3, 0, 2, 2]], "f")
    assert Blocks((1, 2), "max").mask(scores, 1).tolist() == [[True, True, False, False]]
    assert Blocks((1, 2), "mean").mask(-scores, 1).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(("shape", "axis"), [((4, 3), -1), ((4, 3), 0), ((2, 3, 4), 1), ((5,), 0)])
def test_channels(shape, axis):
    scores, pattern = array(*shape), Channels(axis)
    assert pattern.units(shape) == shape[axis]
    before = (slice(None),) * (axis % len(shape))
    places = [(*before, unit) for unit in range(shape[axis])]
    for kept in range(shape[axis] + 1):
        expected = by_units(scores, places, kept, lambda part: np.sum(part**2))
        assert np.array_equal(mask_jit(pattern, scores, kept), expected), kept


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [
        (NofM(), (3, 8)),
        (NofM(1, 2, axis=0), (4, 3)),
        (NofM(2, 3, axis=1), (2, 6, 2)),
        (NofM(0, 4), (4,)),
        (NofM(4, 4), (2, 4)),
    ],
)
def test_n_of_m(pattern, shape):
    scores = np.round(array(*shape))
    assert pattern.units(shape) == scores.size
    moved = np.moveaxis(scores, pattern.axis, -1)
    expected = np.zeros(moved.shape, bool)
    for row in np.ndindex(moved.shape[:-1]):
        for start in range(0, moved.shape[-1], pattern.m):
            group = moved[row][start : start + pattern.m]
            expected[row][start : start + pattern.m] = largest([group], pattern.n)[0]
    expected = np.moveaxis(expected, -1, pattern.axis)
    for kept in [0, scores.size // 2, scores.size - 1]:
        assert np.array_equal(mask_jit(pattern, scores, kept), expected)
    assert mask_jit(pattern, scores, scores.size).all()


def test_single_entries():
    scores = np.round(array(3, 4))
    assert Unstructured().units((3, 4)) == 12
    for kept in range(13):
        (expected,) = largest([scores], kept)
        assert np.array_equal(mask_jit(Unstructured(), scores, kept), expected)


def test_patterns_of_whole_trees():
    weights = {"kernel": array(4, 6), "second": array(8, 3, seed=1)}
    masks = magnitude_masks(weights, {"kernel": 0.5, "second": 0.26}, pattern=Blocks((2, 3)))
    for name, kept in [("kernel", 2), ("second", 1)]:
        places = blocks(weights[name].shape, 2, 3)
        assert np.array_equal(masks[name], by_units(weights[name], places, kept, np.mean))


def test_means_of_16_bits_are_compared_in_32():
    """In bfloat16 the mean of 1, 1, 1, 1.0078 is 1."""
    scores = jnp.ones((2, 4), jnp.bfloat16).at[0, 2].set(1 + 2**-7)
    assert Blocks((2, 2)).mask(scores, 1).tolist() == [[False, False, True, True]] * 2


@pytest.mark.parametrize("size", [1e-30, 1e-25, 1e25, 1e38])
@pytest.mark.parametrize("pattern", [Channels(), Blocks((4, 1))])
def test_squares_and_sums_neither_overflow_nor_vanish(pattern, size):
    scores = np.float32(size) * np.array([1, 3, 2], "f") * np.ones((4, 3), "f")
    assert pattern.mask(scores, 1)[0].tolist() == [False, True, False]
    assert pattern.mask(scores, 2)[0].tolist() == [False, True, True]


@pytest.mark.parametrize("pattern", [Channels(), Blocks((4, 1)), Blocks((4, 1), by="max")])
def test_nan_comes_first_and_infinity_before_numbers(pattern):
    scores = np.ones((4, 4), "f")
    scores[1, 2], scores[2, 1] = np.nan, -np.inf
    assert pattern.mask(scores, 2)[0].tolist() == [False, True, True, False]


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
@pytest.mark.parametrize("spec", [jax.P(None, "d"), jax.P("d")])
def test_patterns_of_what_is_spread_over_a_mesh(kind, spec):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    scores = array(4, 8)
    placed = jax.device_put(scores, jax.NamedSharding(mesh, spec))
    patterns = [Unstructured(), Blocks((2, 2)), Channels(), Channels(0), NofM(), NofM(axis=0)]
    masks = jax.jit(lambda scores: [one.mask(scores, 2) for one in patterns])(placed)
    for one, mask in zip(patterns, masks, strict=True):
        assert np.array_equal(mask, one.mask(scores, 2)), one
        if kind == "Explicit":
            assert mask.sharding.is_equivalent_to(placed.sharding, 2)


FLAT, SQUARE = np.ones(8, "f"), np.ones((6, 6), "f")
MISTAKES = {
    "a vector": (lambda: Blocks().mask(FLAT, 1), "shape (8,)", "lengths that divide", "select="),
    "rows": (lambda: Blocks((4, 3)).units((6, 6)), "blocks of shape (4, 3)", "divide", "blocks"),
    "columns": (lambda: Blocks((3, 4)).mask(SQUARE, 1), "shape (6, 6)", "divide", "select="),
    "empty blocks": (lambda: Blocks((0, 4)), "shape=0", "at least 1", "pass a static int"),
    "a score": (lambda: Blocks(by="sum"), "by='sum'", "'mean', 'max'", "choose by"),
    "no axis": (lambda: Channels(2).mask(SQUARE, 1), "axis=2", "an axis", "change axis"),
    "no axis below": (lambda: Channels(-3).units((6, 6)), "axis=-3", "an axis", "change axis"),
    "groups": (lambda: NofM().mask(SQUARE, 1), "2 of 4 on axis -1", "multiple of 4", "select="),
    "group axis": (lambda: NofM(axis=1).units((8,)), "axis=1 of", "an axis", "change axis"),
    "n over m": (lambda: NofM(3, 2), "m=2", "at least 3", "pass a static int"),
    "an axis in words": (lambda: Channels("last").units((8,)), "'last'", "an axis", "change axis"),
    "no pair": (lambda: Blocks(4), "shape=4", "a height and a width", "shape=(4, 4)"),
    "negative n": (lambda: NofM(-1, 2), "n=-1", "at least 0", "pass a static int"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
