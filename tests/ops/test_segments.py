import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from tests.ops.examples import all_finite, assert_close

SHAPE = (4, 5)
STATIC = ("num_segments", "method", "indices_are_sorted")
segment_softmax = jax.jit(ops.segment_softmax, static_argnums=2, static_argnames=STATIC[::2])
segment_normalize = jax.jit(ops.segment_normalize, static_argnums=2, static_argnames=STATIC)
METHODS = {
    "none": lambda v: v,
    "abs": np.abs,
    "relu": lambda v: np.maximum(v, 0),
    "softplus": lambda v: np.logaddexp(v, 0),
}


def sparse_matrix(scale, *, seed=0):
    # Row 2 and column 3 are empty; row 0 has a single entry.
    generator = np.random.default_rng(seed)
    cells = np.array([(0, 0), (1, 0), (1, 2), (1, 4), (3, 1), (3, 2), (3, 4)])
    return cells[generator.permutation(7)], scale * generator.normal(size=7)


def dense_softmax(cells, values, axis):
    dense = np.full(SHAPE, -np.inf)
    dense[tuple(cells.T)] = values
    top = dense.max(axis=axis, keepdims=True)
    powers = np.exp(dense - np.where(np.isfinite(top), top, 0))
    return (powers / np.maximum(powers.sum(axis=axis, keepdims=True), 1e-300))[tuple(cells.T)]


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 500.0, 1e30])
def test_softmax_equals_the_dense_one(column, scale):
    cells, values = sparse_matrix(scale)
    values = values.astype(np.float32)
    ours = segment_softmax(values, cells[:, column], SHAPE[column])
    assert_close(ours, dense_softmax(cells, values.astype(np.float64), 1 - column), rtol=1e-4)


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_normalize_equals_the_dense_one(column, method):
    cells, values = sparse_matrix(1.0, seed=1)
    ours = segment_normalize(
        values.astype(np.float32), cells[:, column], SHAPE[column], method=method
    )
    part = METHODS[method](values)
    sums = np.zeros(SHAPE[column])
    np.add.at(sums, cells[:, column], part)
    whole = sums[cells[:, column]]
    assert_close(ours, np.divide(part, whole, out=np.zeros(7), where=whole != 0), rtol=1e-4)


FUNCTIONS = {
    "softmax": segment_softmax,
    **{
        name: lambda *args, method=name, **kw: segment_normalize(*args, method=method, **kw)
        for name in METHODS
    },
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@each_function
def test_masked_entries_take_no_part(function):
    cells, values = sparse_matrix(1.0, seed=2)
    values, rows = np.abs(values).astype(np.float32), cells[:, 0]
    mask = np.array([True, False, True, True, False, True, True])
    ours = np.asarray(function(values, rows, 4, mask=mask))
    assert_close(ours[mask], function(values[mask], rows[mask], 4))
    assert (ours[~mask] == 0).all()


@each_function
def test_a_nan_in_a_masked_entry_stays_there(function):
    values = jnp.array([1.0, 2.0, jnp.nan, jnp.inf])
    mask = jnp.array([True, True, False, False])

    def first(values):
        return function(values, jnp.zeros(4, jnp.int32), 1, mask=mask)[0]

    value, grad = jax.jit(jax.value_and_grad(first))(values)
    assert all_finite((value, grad))
    assert (np.asarray(grad)[2:] == 0).all()


@each_function
def test_segments_without_kept_entries_are_zero(function):
    values, ids = jnp.array([3.0, 4.0, 5.0]), jnp.array([0, 2, 2])
    mask = jnp.array([False, True, True])
    first = jax.jit(jax.value_and_grad(lambda v: function(v, ids, 5, mask=mask)[0]))
    value, grad = first(values)
    assert value == 0
    assert not np.any(grad)


@each_function
def test_features_are_normalised_one_by_one(function):
    values = np.random.default_rng(0).uniform(size=(6, 2, 3)).astype(np.float32)
    ids, mask = np.array([0, 1, 1, 0, 2, 1]), np.array([1, 1, 0, 1, 1, 1], bool)
    together = function(values, ids, 3, mask=mask)
    alone = [function(column, ids, 3, mask=mask) for column in values.reshape(6, 6).T]
    assert_close(np.reshape(together, (6, 6)), np.stack(alone, axis=1))


@each_function
def test_sorted_ids_give_the_same(function):
    values, ids = jnp.arange(1.0, 6.0), jnp.array([0, 0, 1, 3, 3])
    assert_close(function(values, ids, 4, indices_are_sorted=True), function(values, ids, 4))


@pytest.mark.parametrize("method", ["none", "abs", "relu"])
def test_a_sum_of_zero_gives_zero_with_a_finite_gradient(method):
    values = jnp.zeros(3)
    result, grad = jax.jit(
        jax.value_and_grad(
            lambda v: segment_normalize(v, jnp.zeros(3, jnp.int32), 1, method=method).sum()
        )
    )(values)
    assert result == 0
    assert all_finite(grad)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@each_function
def test_sums_of_16_bits_are_taken_in_32(function, dtype):
    shares = function(np.ones(4096, dtype), np.zeros(4096, np.int32), 1)
    assert shares.dtype == dtype
    assert_close(np.asarray(shares, np.float32), np.full(4096, 1 / 4096))


def test_whole_numbers_give_shares():
    shares = segment_softmax(jnp.array([1, 1]), jnp.zeros(2, jnp.int32), 1)
    assert_close(shares, [0.5, 0.5])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e-30, 1.0, 40.0, 500.0, 1e30])
def test_shares_of_any_size_have_finite_slopes(method, size):
    values = jnp.array([-1.0, -1.02, 1.0, 2.0, 0.0]) * size
    ids = np.array([0, 0, 1, 1, 2])

    @jax.jit
    def run(values):
        weighted = jax.grad(
            lambda v: (segment_normalize(v, ids, 3, method=method) * jnp.arange(5.0)).sum()
        )
        return segment_normalize(values, ids, 3, method=method), weighted(values)

    shares, slopes = run(values)
    exact = np.asarray(values, np.float64)
    parts = METHODS[method](exact)
    if method == "softplus":
        # exp(v) where it would vanish
        parts[:2] = np.exp(exact[:2] - exact[0]) if size >= 40 else parts[:2]
    sums = np.bincount(ids, parts)[ids]
    expected = np.divide(parts, sums, out=np.zeros(5), where=sums != 0)
    np.testing.assert_allclose(shares, expected, rtol=1e-5, atol=1e-6)
    assert all_finite(slopes)


def test_slopes_of_very_negative_values_are_those_of_a_softmax():
    for values in ([-50.0, -51.0], [-500.0, -501.0]):
        slope = jax.grad(lambda v: segment_normalize(v, jnp.array([0, 0]), 1)[0])
        assert_close(slope(jnp.array(values)), [0.1966119, -0.1966119])


@each_function
def test_numbers_outside_are_padding(function):
    values, ids = jnp.array([1.0, 2.0, 3.0, 200.0, np.nan]), [0, 0, 1, -1, 2]
    shares, slopes = function(values, ids, 2), jax.jacobian(lambda v: function(v, ids, 2))(values)
    assert (shares[3:] == 0).all()
    assert (slopes[3:] == 0).all()
    assert (slopes[:, 3:] == 0).all()
    assert_close(shares[:3], function(values[:3], ids[:3], 2))
    assert_close(slopes[:3, :3], jax.jacobian(lambda v: function(v, ids[:3], 2))(values[:3]))


@each_function
def test_padding_at_the_end_keeps_the_order(function):
    values, ids = jnp.array([1.0, 2.0, 3.0, 4.0]), [0, 1, 1, 2]
    ours = function(values, ids, 2, indices_are_sorted=True)
    assert_close(ours, function(values, ids, 2))


@each_function
def test_nan_and_infinity_spoil_their_segment_alone(function):
    for bad in (np.nan, np.inf):
        shares = function(jnp.array([0.0, bad, 1.0]), [0, 0, 1], 2)
        assert jnp.isnan(shares[1])
        assert_close(shares[2], 1.0)
    assert jnp.isnan(segment_softmax(jnp.array([0.0, np.nan]), [0, 0], 1)).all()


def test_a_logit_of_minus_infinity_means_never():
    logits = jnp.array([1.0, -np.inf, -np.inf])
    shares, slopes = jax.value_and_grad(lambda logits: segment_softmax(logits, [0, 0, 1], 2)[0])(
        logits
    )
    assert_close(segment_softmax(logits, [0, 0, 1], 2), [1.0, 0.0, 0.0])
    assert_close(slopes, [0.0, 0.0, 0.0])
    assert shares == 1


@pytest.mark.parametrize("function", [segment_softmax, segment_normalize])
def test_what_takes_no_part_is_zero_beside_a_spoilt_segment(function):
    values, ids = jnp.array([np.nan, 1.0, 2.0, np.inf, 3.0, 1.0]), jnp.array([0, 1, -1, 2, 3, 0])
    shares = function(values, ids, 3, mask=jnp.arange(6) < 5)
    # Numbers outside are read at the first and the last segment, both of which are NaN here.
    assert_close(shares, [np.nan, 1, 0, np.nan, 0, 0])


def test_numbers_of_few_bits_are_not_compared_with_ones_that_wrap():
    """256 segments: in eight bits the last number and one, added, would be 0."""
    ids = jnp.array([0, 255, 255], jnp.uint8)
    assert_close(segment_softmax(jnp.zeros(3), ids, 256), [1, 0.5, 0.5])
