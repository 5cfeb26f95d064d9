from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax.sort import (
    order_loss,
    rank_loss,
    soft_ranks,
    soft_sort,
    soft_top_k,
    standardise,
)
from tests.ops.examples import all_finite, assert_close
from tests.sort import dense

jit_standardise = jax.jit(standardise)
jit_sort = jax.jit(soft_sort, static_argnames="hard")
jit_ranks = jax.jit(soft_ranks, static_argnames="hard")
jit_top_k = jax.jit(soft_top_k, static_argnames=("k", "hard"))

LENGTHS = (1, 6, 1, 6)


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def split_lists(array, lengths):
    stops = np.cumsum(lengths)
    return [array[stop - n : stop] for n, stop in zip(lengths, stops, strict=True)]


def everything(keys, payload, certainty):
    sort = partial(soft_sort, certainty=certainty)
    ranks = soft_ranks(keys, certainty=certainty)
    return sort(keys, payload), ranks, soft_top_k(keys, 2, certainty=certainty)


def everything_dense(keys, payload, certainty):
    ranks, shares = dense.soft_ranks(keys, certainty), dense.soft_top_k(keys, 2, certainty)
    return dense.soft_sort(keys, payload, certainty), ranks, shares


# A payload wider than the list is long is mixed by a small matrix, any other by recurrences.
@pytest.mark.parametrize("width", [2, 7])
def test_values_and_derivatives_are_those_of_the_matrix(width):
    n = 5

    def example(seed):
        shapes = (n,), (n, width), ()
        keys, payload, log = (np.float64(normal(one, seed + at)) for at, one in enumerate(shapes))
        return keys, payload, np.exp(log)

    with jax.enable_x64(True):
        ours, theirs = (
            jax.jit(partial(dense.derivatives, function))(example(0), example(9))
            for function in (everything, everything_dense)
        )
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_single_precision_gradients_are_those_of_the_matrix(n):
    args = normal((n,)), {"a": normal((n, 2), 1)}, 2.0

    def slopes(sort):
        def total(*args):
            return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(sort(*args)))

        return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(*args)

    ours = slopes(lambda keys, payload, c: soft_sort(keys, payload, certainty=c))
    assert_close(ours, slopes(dense.soft_sort), rtol=1e-4, atol=1e-5)


def test_trees_and_trailing_axes():
    keys, payload = normal((7,)), {"a": normal((7, 2, 3), 1), "b": (normal((7,), 2), None)}
    out = jit_sort(keys, payload, certainty=2.0)
    assert_close(out, jax.jit(dense.soft_sort)(keys, payload, 2.0), atol=1e-5)
    assert jit_sort(keys, normal((7, 0)), certainty=2.0).shape == (7, 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits_accumulate_in_float32(dtype):
    keys = normal((300,)).astype(dtype)
    x = np.random.default_rng(0).uniform(size=(300, 2)).astype(dtype)
    out = jit_sort(keys, {"x": x}, certainty=0.01)["x"]
    wide = jit_sort(keys.astype(np.float32), {"x": x.astype(np.float32)}, certainty=0.01)["x"]
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, wide.astype(dtype))
    assert jax.eval_shape(soft_ranks, keys).dtype == jnp.float32
    assert jax.eval_shape(partial(soft_top_k, k=2), keys).dtype == jnp.float32


@pytest.mark.parametrize(
    ("keys", "payload", "certainty"),
    [
        ("float64", "float32", None),
        ("float64", "bfloat16", None),
        ("float32", "float32", "float64"),
    ],
)
def test_mixed_precision_keeps_the_payloads_dtype(keys, payload, certainty):
    with jax.enable_x64(True):
        certainty = 2.0 if certainty is None else jnp.asarray(2.0, certainty)
        x = np.arange(4).astype(payload)
        out = jit_sort(-np.arange(4).astype(keys), x, certainty=certainty)
        assert out.dtype == payload
        expected = jax.jit(dense.soft_sort)(-np.arange(4.0), np.arange(4.0), 2.0)
        np.testing.assert_allclose(np.asarray(out, float), expected, rtol=1e-2)


def test_batches():
    keys, x, certainty = normal((3, 4)), normal((4, 2), 1), jnp.array([0.5, 1, 2])
    ours = jax.jit(jax.vmap(everything, (0, None, 0)))(keys, x, certainty)
    theirs = jax.jit(jax.vmap(everything_dense, (0, None, 0)))(keys, x, certainty)
    assert_close(ours, theirs, atol=1e-5)


@partial(jax.jit, static_argnames="hard")
def all_three(keys, payload, segment_ids=None, *, hard):
    options = {"certainty": 2.0, "segment_ids": segment_ids, "hard": hard}
    ranks, shares = soft_ranks(keys, **options), soft_top_k(keys, 2, **options)
    return soft_sort(keys, payload, **options), ranks, shares


@pytest.mark.parametrize("hard", [False, True])
def test_lists_in_one_call_are_sorted_one_by_one(hard):
    n = sum(LENGTHS)
    keys, x = normal((n,)), normal((n, 2), 1)
    keys[:4] *= 1e30
    lists = zip(split_lists(keys, LENGTHS), split_lists(x, LENGTHS), strict=True)
    one_by_one = [all_three(*pair, hard=hard) for pair in lists]
    places, *elements = (np.concatenate(parts) for parts in zip(*one_by_one, strict=True))
    ids = np.repeat(np.array([-7, 0, 5, 2**31 - 1], np.int32), LENGTHS)
    for mix in (np.arange(n), np.random.default_rng(2).permutation(n)):
        moved = all_three(keys[mix], x[mix], ids[mix], hard=hard)
        assert_close(list(moved), [places, *(part[mix] for part in elements)], atol=1e-5)


@jax.jit
def gradient_within_lists(keys, payload, ids):
    def first_list(keys, payload):
        return jnp.sin(soft_sort(keys, payload, segment_ids=ids)[:3]).sum()

    return jax.grad(first_list, (0, 1))(keys, payload)


def test_no_gradient_from_list_to_list():
    to_keys, to_payload = gradient_within_lists(
        jnp.array([0.3, -1, 0, 0.1, 5, -1e30]), normal((6,)), jnp.array([0, 0, 0, 1, 1, 1])
    )
    for slope in (np.asarray(to_keys), np.asarray(to_payload)):
        np.testing.assert_array_equal(slope[3:], 0)
        assert (np.abs(slope[:3]) > 1e-5).all()


@pytest.mark.parametrize("where", [0, 2, 5])
def test_a_nan_key_spoils_its_own_list_only(where):
    ids, keys = np.array([0, 0, 1, 1, 2, 2]), normal((6,))
    keys[where] = np.nan
    for out in everything_in_lists(keys, normal((6,), 1), ids):
        np.testing.assert_array_equal(np.isnan(out), ids == ids[where])


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_payload_that_is_not_finite_spoils_its_own_list_only(value):
    ids, payload = np.array([0, 0, 1, 1, 2, 2]), normal((6,), 1)
    payload[2] = value
    out = everything_in_lists(normal((6,)), payload, ids)[0]
    assert np.isfinite(np.asarray(out)[ids != 1]).all()


@jax.jit
def everything_in_lists(keys, payload, ids):
    lists = {"segment_ids": ids}
    shares = soft_top_k(keys, 1, **lists)
    return soft_sort(keys, payload, **lists), soft_ranks(keys, **lists), shares


@pytest.mark.parametrize("step", [1.0, 1e-3])
def test_hard_is_the_stable_order_for_every_length(step):
    lengths = np.arange(1, 201)
    ids = np.repeat(lengths, lengths)
    keys = np.round(normal(ids.shape) / np.float32(step)) * np.float32(step)
    orders = [np.argsort(part, kind="stable") for part in split_lists(keys, lengths)]
    out = jit_sort(keys, np.arange(len(ids)), segment_ids=ids, hard=True)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    np.testing.assert_array_equal(np.asarray(out) - starts, np.concatenate(orders))
    ranks = jit_ranks(keys, segment_ids=ids, hard=True)
    np.testing.assert_array_equal(ranks, np.concatenate([np.argsort(o) for o in orders]))
    assert ranks.dtype == jnp.int32
    mixed = np.random.default_rng(0).permutation(ids)
    out = jit_sort(keys, np.arange(len(ids)), segment_ids=mixed, hard=True)
    np.testing.assert_array_equal(out, np.lexsort((keys, mixed)))


@pytest.mark.parametrize("n", [1, 2, 3, 5000, 100_000])
def test_hard_is_the_stable_order_of_one_list(n):
    for keys in (np.round(3 * normal((n,))), normal((n,))):
        out = jit_sort(keys, np.arange(n), hard=True)
        np.testing.assert_array_equal(out, np.argsort(keys, kind="stable"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_hard_with_special_keys(dtype):
    keys = jnp.array([jnp.nan, 1, jnp.inf, -jnp.inf, jnp.nan, 1, -0.0, 0, jnp.inf, -3])
    if jnp.issubdtype(dtype, jnp.integer):
        least, most = jnp.iinfo(dtype).min, jnp.iinfo(dtype).max
        keys = jnp.array([3, 1, most, least, 3, most, 0, 1, 1, 2])
    keys = keys.astype(dtype)
    out = jit_sort(keys, {"keys": keys, "i": jnp.arange(10)}, hard=True)
    np.testing.assert_array_equal(out["i"], jnp.argsort(keys, stable=True))
    np.testing.assert_array_equal(out["keys"].astype(float), jnp.sort(keys).astype(float))
    assert out["keys"].dtype == dtype


def test_great_certainty_is_hard():
    keys, payload = normal((40,)), {"a": normal((40, 2), 1)}
    soft = jit_sort(keys, payload, certainty=1e6)
    assert_close(soft, jit_sort(keys, payload, hard=True), atol=1e-5)
    np.testing.assert_allclose(jit_ranks(keys, certainty=1e6), jit_ranks(keys, hard=True))
    shares = jit_top_k(keys, 7, certainty=1e6)
    np.testing.assert_allclose(shares, jit_top_k(keys, 7, hard=True), atol=1e-6)


def test_small_certainty_is_the_mean():
    keys, payload = normal((40,)), {"a": normal((40, 2), 1)}
    mean = payload["a"].mean(0)
    out = jit_sort(keys, payload, certainty=1e-6)["a"]
    np.testing.assert_allclose(out, np.broadcast_to(mean, (40, 2)), atol=1e-5)
    np.testing.assert_allclose(jit_ranks(keys, certainty=1e-6), 19.5, atol=1e-3)
    np.testing.assert_allclose(jit_top_k(keys, 7, certainty=1e-6), 7 / 40, rtol=1e-4)


def test_standardised_keys_may_be_rescaled_and_shifted():
    keys, payload = normal((40,)), {"a": normal((40, 2), 1)}
    for moved in (300 * keys + 1000, 1e-6 * keys):
        out = jit_sort(jit_standardise(moved), payload)
        assert_close(out, jit_sort(jit_standardise(keys), payload), atol=2e-3)
    other = jit_sort(np.float32(0.1) * keys, payload)
    assert np.abs(np.subtract(other["a"], out["a"])).max() > 0.1


def test_equal_keys_share_their_places_evenly():
    keys = jnp.array([2.0, 1, 2, 1, 2])
    low, high = [0, 1 / 2, 0, 1 / 2, 0], [1 / 3, 0, 1 / 3, 0, 1 / 3]
    out = jit_sort(keys, jnp.eye(5), certainty=1e3)
    np.testing.assert_allclose(out, [low, low, high, high, high], rtol=1e-6)
    np.testing.assert_allclose(jit_ranks(keys, certainty=1e3), [3, 0.5, 3, 0.5, 3], rtol=1e-6)
    shares = jit_top_k(keys, 1, certainty=1e3)
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 0, 1 / 3], rtol=1e-6)


KEYS = {
    "normal": normal((8,)),
    "equal": np.full(8, 0.1),
    "ties": [1.0, 0, 1, 1, 0, 2, 2, 2],
    "far": 1e30 * np.array([1.0, -1, 0, 0, 1, -1, 0.5, 1]),
    "mixed": [1e8, 0, -1e8, 1, 1, 5e-8, 2, 1e30],
    "infinite": [np.inf, 0, -np.inf, np.inf, 1, -np.inf, 1e38, 0],
    "one": np.ones(1),
    "5000": normal((5000,)),
    "5000 ties": np.round(normal((5000,))),
}
KEYS = {name: np.asarray(keys, np.float32) for name, keys in KEYS.items()}


@jax.jit
def values_and_gradients(keys, payload, labels, certainty):
    n = len(keys)

    # Finite only if every one of the functions is.
    def total(keys, payload, certainty):
        options = {"certainty": certainty}
        return (
            jnp.sin(soft_sort(keys, payload, **options)).sum()
            + jnp.sin(soft_ranks(keys, **options)).sum()
            + jnp.sin(soft_top_k(keys, 3, **options)).sum()
            + order_loss(keys, labels, **options)
            + rank_loss(keys, labels, **options)
        )

    ones = soft_sort(keys, jnp.ones(n), certainty=certainty)
    return jax.value_and_grad(total, (0, 1, 2))(keys, payload, certainty), ones


@pytest.mark.parametrize("certainty", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", KEYS)
def test_finite_gradients_and_weights_that_sum_to_one(name, certainty):
    keys = KEYS[name]
    payload, labels = normal(keys.shape, 1), normal(keys.shape, 2)
    values, ones = values_and_gradients(keys, payload, labels, certainty)
    assert all_finite(values)
    np.testing.assert_allclose(ones, 1, rtol=1e-5)


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_of_many_elements_are_accurate(ties):
    keys = np.random.default_rng(0).uniform(size=2**16).astype(np.float32)
    keys = np.round(1000 * keys) if ties else keys
    ranks = jit_ranks(keys, certainty=1e12)
    np.testing.assert_allclose(ranks, stats.rankdata(keys) - 1, rtol=0, atol=1e-3)


def test_blurred_ranks_of_many_elements_are_as_in_double_precision():
    keys = normal((2**16,))
    ranks = jit_ranks(keys, certainty=2.0**12)
    with jax.enable_x64(True):
        exact = np.asarray(jit_ranks(keys.astype(np.float64), certainty=2.0**12))
    assert np.abs(exact - np.argsort(np.argsort(keys))).max() > 2
    np.testing.assert_allclose(ranks, exact, rtol=0, atol=1e-2)


@pytest.mark.parametrize("hard", [False, True])
def test_shares_add_up(hard):
    keys = normal((8,))
    options = {"certainty": 1e6, "hard": hard}
    for k, total in ((0, 0), (3, 3), (9, 8)):
        shares = jit_top_k(keys, k, **options)
        assert shares.dtype == jnp.float32
        np.testing.assert_allclose(np.sum(shares), total, rtol=1e-6)
    np.testing.assert_allclose(jit_top_k(keys, 9, certainty=0.1), 1, rtol=1e-6)


def test_of_equal_keys_hard_shares_go_to_the_later():
    keys = jnp.array([1.0, 2, 1, 2, 0, 1, 2, 1])
    np.testing.assert_array_equal(jit_top_k(keys, 2, hard=True), [0, 0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(jit_top_k(keys, 5, hard=True), [0, 1, 0, 1, 0, 1, 1, 1])


def test_elements_at_the_boundary_get_the_gradient():
    def shares(keys):
        return soft_top_k(keys, 3, certainty=2.0)

    slopes = np.asarray(jax.jit(jax.jacobian(shares))(jnp.arange(8.0)))
    raises = np.diagonal(slopes)
    # The last one left out and the first one taken: a larger key of its own helps each.
    assert (raises[4:6] > 0.1).all()
    assert (np.abs(raises[[0, 1, 7]]) < 0.01).all()
    assert slopes[4, 5] < -0.1
    assert slopes[5, 4] < -0.1


def test_memory_of_a_gradient_is_a_few_payloads_and_no_matrix():
    n, width = 4096, 16

    def loss(keys, payload, certainty):
        return jnp.square(soft_sort(keys, payload, certainty=certainty)).mean()

    slopes = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    lowered = slopes.lower(jnp.zeros(n), jnp.zeros((n, width)), 10.0)
    size = lowered.compile().memory_analysis().temp_size_in_bytes
    payloads, float32 = 8, 4
    assert size < payloads * n * width * float32 < n * n * float32 / 16
