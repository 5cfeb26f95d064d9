from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import conv
from sparse_hyper_jax.ops.counts import check_counts
from sparse_hyper_jax.ops.own_points import own_points
from tests.folding import folded
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

CHANNELS, OUT, TAPS = 2, 3, 2
NONE = {"num_global": 0, "num_local": 0}


def inputs(sides, *, stride=1, own=False, seed=0):
    """``x``, weights, offsets some of which lead outside, and variances."""
    generator = np.random.default_rng(seed)
    cells = tuple(-(-size // stride) for size in sides)
    pair = (2,) if len(sides) == 2 else ()
    offsets = generator.uniform(-4, 4, (*cells, TAPS, *pair))
    arrays = (
        generator.normal(size=(*sides, CHANNELS)),
        generator.normal(size=(TAPS, CHANNELS) if own else (TAPS, CHANNELS, OUT)),
        offsets,
        generator.uniform(0.2, 4, offsets.shape),
    )
    return tuple(np.float32(array) for array in arrays)


def expected(x, weights, shares):
    """Mix what is read by ``shares`` ``(*cells, k, *sides + 2)``, zeros around x, in NumPy."""
    rank = x.ndim - 1
    padded = np.pad(x, [(1, 1)] * rank + [(0, 0)])
    reads = np.tensordot(shares, padded, rank)
    if weights.ndim == 2:
        return (reads * weights).sum(-2)
    return np.tensordot(reads, weights, 2)


def settled(x, offsets, stride, causal):
    """Shares of the nearest cells."""
    sides = np.array(x.shape[:-1])
    rank = len(sides)
    shares = np.zeros((*offsets.shape[: rank + 1], *(sides + 2)))
    for place in np.ndindex(*offsets.shape[: rank + 1]):
        centre = stride * np.array(place[:rank])
        cell = np.clip(np.round(centre + np.atleast_1d(offsets[place])), -1, sides).astype(int)
        cell = np.minimum(cell, centre) if causal else cell
        shares[(*place, *(cell + 1))] = 1
    return shares


CASES = {
    "a strided sequence, causal": ((9,), {"stride": 2, "causal": True}),
    "a strided plane": ((5, 4), {"stride": 3}),
    "channels by themselves": ((9,), {"own": True}),
}


def split(options):
    options = dict(options)
    return options.pop("own", False), options


@folded
def found():
    table = {}
    for name, (sides, given) in CASES.items():
        own, options = split(given)
        arrays = inputs(sides, stride=options.get("stride", 1), own=own)

        def run(key, *arrays, options=options, sides=sides):
            x, weights, offsets, variances = arrays
            hard = conv.adaptive_conv_hard(x, weights, offsets, **options)
            soft = conv.adaptive_conv(key, x, weights, offsets, variances, **options)
            return hard, soft, shares_of(key, offsets, variances, sides, **options)

        table[name,] = (run, jax.random.key(3), *arrays)
    return table


def shares_of(key, offsets, variances, sides, *, stride=1, causal=False):
    """Shares of all cells, from the points that the function draws."""
    rank, padded = len(sides), tuple(size + 2 for size in sides)
    counts = check_counts(key, padded, 2, 2, (8,) * rank, global_from="density")
    cells = offsets.shape[:rank]
    centres = np.moveaxis(np.indices(cells), 0, -1)[..., None, :] * stride + 1
    means = offsets.reshape(*cells, TAPS, rank) + np.float32(centres)
    last = np.repeat(centres[..., 0].reshape(-1), TAPS).astype(np.int32) if causal else None
    flat = means.reshape(-1, rank), variances.reshape(-1, rank)
    points, logs = own_points(key, *flat, padded, counts, last=last)
    one_hot = points[..., None] == jnp.arange(int(np.prod(padded)))
    return jnp.sum(one_hot * jnp.exp(logs)[..., None], axis=1).reshape(*cells, TAPS, *padded)


@pytest.mark.parametrize("case", CASES)
def test_it_reads_by_shares_and_in_the_limit_at_the_nearest_cells(case):
    sides, given = CASES[case]
    own, options = split(given)
    stride, causal = options.get("stride", 1), options.get("causal", False)
    x, weights, offsets, _ = inputs(sides, stride=stride, own=own)
    hard, soft, shares = found(case)
    assert_close(
        hard, expected(x, weights, settled(x, offsets, stride, causal)), rtol=1e-4, atol=1e-5
    )
    assert_close(soft, expected(x, weights, np.asarray(shares)), rtol=1e-4, atol=1e-5)


def test_with_whole_offsets_that_all_share_it_is_a_convolution_at_lags_or_offsets():
    x, weights, *_ = inputs((9,))
    plane, lags, places = inputs((4, 5))[0], np.array([0, 3]), np.array([[0, 1], [-2, -1]])
    by_step = np.float32(np.tile(-lags, (9, 1)))
    by_cell = np.float32(np.tile(places, (4, 5, 1, 1)))

    @jax.jit
    def run(x, plane, weights):
        key, none = jax.random.key(0), partial(np.full_like, fill_value=1e-12)
        return (
            (
                conv.lag_conv(x, weights, lags),
                conv.adaptive_conv_hard(x, weights, by_step),
                conv.adaptive_conv(key, x, weights, by_step, none(by_step), causal=True),
            ),
            (
                conv.offset_conv(plane, weights, places),
                conv.adaptive_conv_hard(plane, weights, by_cell),
                conv.adaptive_conv(key, plane, weights, by_cell, none(by_cell)),
            ),
        )

    for right, *others in run(x, plane, weights):
        for other in others:
            assert_close(other, right, rtol=1e-5, atol=1e-5)


def test_between_two_cells_it_interpolates_and_outside_there_is_nothing():
    x, weights = np.float32([[10.0], [20.0], [40.0]]), np.ones((1, 1, 1), np.float32)
    halves = np.float32([[-0.5], [0.5], [0.5]])
    far = np.float32([[-1e6], [5.0], [np.nan]])

    @jax.jit
    def run(x, weights):
        of = partial(conv.adaptive_conv, None, x, weights, **NONE)
        return (
            of(halves, np.ones_like(halves)),
            of(far, np.ones_like(far)),
            conv.adaptive_conv_hard(x, weights, far),
        )

    between, *outside = run(x, weights)
    assert_close(between[:, 0], [5.0, 30.0, 20.0])
    for one in outside:
        assert_close(one[:, 0], [0.0, 0.0, np.nan])


def test_nothing_reaches_back_in_time():
    x, weights, offsets, variances = inputs((9,))

    def of(x):
        places = offsets + x[:, :1]
        return conv.adaptive_conv(
            jax.random.key(1), x, weights, places, variances * jnp.exp(x[:, :1]), causal=True
        )

    @jax.jit
    def run(x, other):
        return jax.jacrev(of)(x), of(x), of(other)

    other = np.where(np.arange(9)[:, None] < 5, x, np.nan)
    slopes, before, after = run(x, other)
    reached = np.abs(slopes).sum((1, 3))
    assert (np.triu(reached, 1) == 0).all()
    assert (np.tril(reached, -1) > 0).any()
    assert (np.asarray(before)[:5] == np.asarray(after)[:5]).all()


@pytest.mark.parametrize("variance", [1e-12, 1e12])
def test_finite_for_all_variances_and_at_special_places(variance):
    x, weights, *_ = inputs((8,))
    offsets = np.float32(
        [[0, 0.5], [-1, -1.5], [7, 9], [-3, -2], [0, 1e7], [0.5, 0.5]] + [[1, 2]] * 2
    )

    def total(*arrays):
        return conv.adaptive_conv(jax.random.key(0), *arrays).sum()

    slopes = jax.jit(jax.value_and_grad(total, (0, 1, 2, 3)))
    assert all_finite(slopes(x, weights, offsets, np.full_like(offsets, variance)))


def test_an_offset_moves_towards_what_lowers_the_loss():
    x, weights = np.eye(12, dtype=np.float32)[:, 4:5], np.ones((1, 1, 1), np.float32)

    def read(offset, key):  # the last step should read the fourth
        offsets, variances = jnp.full((12, 1), offset), jnp.full((12, 1), 4.0)
        return conv.adaptive_conv(key, x, weights, offsets, variances, causal=True)[-1, 0]

    keys = jax.random.split(jax.random.key(0), 200)
    slopes = jax.jit(jax.vmap(jax.vmap(jax.grad(read), (None, 0)), (0, None)))
    below, above = np.asarray(slopes(jnp.array([-9.5, -4.5]), keys)).mean(1)
    assert below > 0.01
    assert above < -0.01


RIGHT = dict(zip(("x", "weights", "offsets", "variances"), inputs((9,)), strict=True))
PLANE = dict(zip(("x", "weights", "offsets", "variances"), inputs((4, 5)), strict=True))


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"x": np.zeros((2, 3, 9, 2))}, "x of shape", "(T, C), or (H, W, C)"),
        ({"offsets": np.zeros((8, 2))}, "offsets of shape", "(9, any)"),
        ({"offsets": np.zeros((9, 0))}, "offsets of shape", "at least one"),
        ({"stride": 2}, "offsets of shape", "(5, any)"),
        ({"stride": 0}, "stride=0", "at least 1"),
        ({"variances": np.zeros((9, 1))}, "variances of shape", "(9, 2)"),
        ({"weights": np.zeros((3, 2, 3))}, "weights of shape", "(2, 2, O)"),
        (PLANE | {"causal": True}, "causal=True for planes", "a sequence"),
        (PLANE | {"offsets": np.zeros((4, 5, 2))}, "offsets of shape", "(4, 5, any, 2)"),
        ({"region": (3, 3)}, "region (3, 3)", "length 1"),
        ({"key": None}, "key=None", "a key"),
        ({"global_from": "all"}, "global_from='all'", "'density'"),
    ],
)
def test_wrong_arguments_are_told(change, found, expected):
    options = {"key": jax.random.key(0)} | RIGHT | change

    def call():
        jax.eval_shape(lambda: conv.adaptive_conv(**options))

    assert_names_itself_and_its_cure(call, found, expected, "")
