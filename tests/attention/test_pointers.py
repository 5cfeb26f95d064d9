from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import attention
from sparse_hyper_jax.ops.counts import check_counts
from sparse_hyper_jax.ops.own_points import own_points
from tests.folding import folded
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

from .examples import HEADS, LENGTH, VALUE_WIDTH, sequences

POINTERS = 2
DRAWN = {"num_global": 3, "num_local": 2}
NONE = {"num_global": 0, "num_local": 0}
EVERYWHERE = np.tile(np.arange(LENGTH, dtype=np.float32), (LENGTH, HEADS, 1))
ON_A_PLANE = np.stack(np.unravel_index(EVERYWHERE.astype(int), (3, 4)), -1).astype(np.float32)


def pointers(shape=(LENGTH,), *, steps=LENGTH, seed=0):
    """Means and variances of all queries, some of which point to what is to come."""
    generator = np.random.default_rng(seed)
    size = (steps, HEADS, POINTERS, *(() if len(shape) == 1 else (len(shape),)))
    means = generator.uniform(0, np.array(shape) - 1, size) if len(size) == 4 else None
    means = generator.uniform(0, shape[0] - 1, size) if means is None else means
    return np.float32(means), np.float32(generator.uniform(0.3, 6, size))


def counts_of(key, means, variances, shape, last):
    """What every query reads, as weights of all keys: shares of its points, added up."""
    counts = check_counts(key, shape, 3, 2, (8,) * len(shape), global_from="density")
    flat = (part.reshape(-1, len(shape)) for part in (means, variances))
    cells, logs = own_points(
        key, *flat, shape, counts, last=None if last is None else np.repeat(last, HEADS * POINTERS)
    )
    steps = len(means)
    cells, shares = (part.reshape(steps, HEADS, -1) for part in (cells, jnp.exp(logs)))
    one_hot = cells[..., None] == jnp.arange(int(np.prod(shape)))
    return jnp.sum(one_hot * shares[..., None], axis=2)


def dense(query, key, value, counts):
    """Attention in which a key counts as often as ``counts`` ``(T, h, S)`` says, in NumPy."""
    shared = query.shape[1] // key.shape[1]
    key, value = (np.repeat(np.float64(rows), shared, axis=1) for rows in (key, value))
    scores = np.einsum("thd,shd->ths", query, key) / np.sqrt(query.shape[-1])
    powers = np.exp(scores - scores.max()) * np.asarray(counts, np.float64)
    total = powers.sum(-1, keepdims=True)
    weights = np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)
    return np.einsum("ths,she->the", weights, value)


CASES = {
    "with the nearest, and shared keys": ((LENGTH,), 2, {"near": 2}),
    "all of a plane": ((3, 4), 1, {"causal": False, "shape": (3, 4)}),
    "a plane in the order of reading": ((3, 4), 4, {"shape": (3, 4)}),
}


def last_of(options):
    return np.arange(LENGTH, dtype=np.int32) if options.get("causal", True) else None


@folded
def found():
    def run(shape, options, key, *rows):
        *rows, means, variances = rows
        out = attention.pointer_attention(
            key, *rows, means, variances=variances, **DRAWN, **options
        )
        return out, counts_of(key, means, variances, shape, last_of(options))

    return {
        (name,): (
            partial(run, shape, options),
            jax.random.key(4),
            *sequences(groups),
            *pointers(shape),
        )
        for name, (shape, groups, options) in CASES.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_it_is_dense_attention_in_which_keys_count_by_their_shares(case):
    _, groups, options = CASES[case]
    out, counts = found(case)
    counts = np.asarray(counts).copy()
    for t in range(LENGTH):
        for lag in range(options.get("near", 0)):
            if lag <= t:
                counts[t, :, t - lag] += 1
    assert_close(out, dense(*sequences(groups), counts), rtol=1e-4, atol=1e-5)
    if options.get("causal", True):
        assert (counts.sum(1)[np.triu_indices(LENGTH, 1)] == 0).all()


def test_pointers_to_all_positions_are_attention():
    query, key, _ = sequences()
    value = key[::-1]
    halves = np.float32(np.tile(np.arange(0.5, LENGTH, 2), (LENGTH, HEADS, 1)))

    @jax.jit
    def run(*rows):
        by = partial(attention.pointer_attention, None, *rows, **NONE)
        return (
            [jax.nn.dot_product_attention(*rows, is_causal=causal) for causal in (True, False)],
            [
                # On several axes what lies after a query is dropped.
                attention.pointer_attention_hard(*rows, ON_A_PLANE, shape=(3, 4)),
                # One pointer for each query, so wide that all of its points are alike.
                attention.pointer_attention(
                    jax.random.key(0),
                    *rows,
                    EVERYWHERE[..., :1],
                    variances=np.full_like(EVERYWHERE[..., :1], 1e12),
                    num_global=200,
                    global_from="uniform",
                ),
            ],
            [
                attention.pointer_attention_hard(*rows, EVERYWHERE, causal=False),
                # Halfway between two positions each of them has a half.
                by(halves, variances=np.full_like(halves, 2.0), causal=False),
            ],
        )

    (causal, whole), one, two = run(query, key, value)
    for result in one:
        assert_close(result, causal, rtol=1e-5, atol=1e-5)
    for result in two:
        assert_close(result, whole, rtol=1e-5, atol=1e-5)


def test_nothing_reaches_back_in_time():
    query, *_ = sequences()
    means, variances = pointers()

    def of(rows):
        # Where a query points depends on what it is, as with a source network.
        places = means + rows[..., :1]
        options = {"variances": variances * jnp.exp(rows[..., :1]), "near": 1, **DRAWN}
        key = jax.random.key(2)
        return attention.pointer_attention(key, rows, 2 * rows, rows[..., :2], places, **options)

    @jax.jit
    def run(rows, others):
        return jax.jacrev(of)(rows), of(rows), of(others)

    others = np.where(np.arange(LENGTH)[:, None, None] < 7, query, np.nan)
    slopes, before, after = run(query, others)
    reached = np.abs(slopes).sum((1, 2, 4, 5))
    assert (np.triu(reached, 1) == 0).all()
    assert (np.diag(reached) > 0).all()
    assert (np.tril(reached, -1) > 0).sum() > LENGTH
    assert (np.asarray(before)[:7] == np.asarray(after)[:7]).all()


def test_pointers_to_what_is_to_come_read_the_query_itself():
    rows, means = sequences(), np.full((LENGTH, HEADS, 1), 9.0, np.float32)

    @jax.jit
    def run(*rows):
        options = {"variances": np.full_like(means, 1e-12)}
        soft = attention.pointer_attention(jax.random.key(0), *rows, means, **options)
        return soft, attention.pointer_attention_hard(*rows, means)

    for out in run(*rows):
        assert_close(out, rows[2][np.minimum(np.arange(LENGTH), 9)], rtol=1e-5, atol=1e-6)


def test_queries_that_may_read_nothing_give_0_and_have_no_slope():
    query, key, value = sequences()
    means, variances = np.full((LENGTH, HEADS, 1), 0.25), np.full((LENGTH, HEADS, 1), 0.1)
    # What is never read may be anything.
    key[2:], value[2:] = np.nan, np.nan
    times = np.where(np.arange(LENGTH) < 9, -1, 0)

    def total(means, *rows):
        options = {"times": times, "near": 1}
        out = attention.pointer_attention(
            None, *rows, means, variances=variances, **options, **NONE
        )
        hard = attention.pointer_attention_hard(*rows, means, **options)
        return out.sum() + hard.sum(), (out, hard)

    slopes = jax.jit(jax.grad(total, (0, 1, 2, 3), has_aux=True))
    grads, outs = slopes(means, query, key, value)
    assert all_finite(grads)
    for out in outs:
        assert (out[:9] == 0).all()
        assert_close(out[9:], np.broadcast_to(value[0], (3, HEADS, VALUE_WIDTH)), rtol=1e-6)
    for slope in grads[:2]:
        assert (slope[:9] == 0).all()


def test_settled_pointers_read_what_they_are_rounded_to_and_two_count_twice():
    rows, means = sequences(2), np.float32(np.round(pointers()[0]))
    twice = np.concatenate([means, means[..., :1]], axis=-1)

    @jax.jit
    def run(*rows):
        soft = attention.pointer_attention(
            jax.random.key(0), *rows, twice, variances=np.full_like(twice, 1e-12)
        )
        return soft, attention.pointer_attention_hard(*rows, twice + 0.25)

    means = np.minimum(means, np.arange(LENGTH)[:, None, None])
    counts = (means[..., None] == np.arange(LENGTH)) * np.array([2, 1])[:, None]
    counts = counts.sum(2)
    for out in run(*rows):
        assert_close(out, dense(*rows, counts), rtol=1e-5, atol=1e-6)


def test_queries_may_stand_anywhere_among_the_keys():
    rows, (means, _) = sequences(), pointers()
    times = np.array([2, 11, -1, 5, 40])

    @jax.jit
    def run(query, key, value):
        whole = attention.pointer_attention_hard(query, key, value, means, near=2)
        inside = np.array([2, 11, 0, 5, 11])
        some = attention.pointer_attention_hard(
            query[inside], key, value, means[inside], near=2, times=times
        )
        return whole, some

    whole, some = run(*rows)
    for at, t in ((0, 2), (1, 11), (3, 5)):
        assert_close(some[at], whole[t], rtol=1e-6)
    assert (some[2] == 0).all()
    assert_close(some[4], some[1], rtol=1e-6)


def test_heads_stay_apart():
    rows, (means, variances) = sequences(), pointers()
    order = np.array([2, 0, 3, 1])

    @jax.jit
    def run(*rows):
        *rows, means, variances = rows
        options = {"variances": variances, **NONE}
        return attention.pointer_attention(None, *rows, means, **options)

    arrays = (*rows, means, variances)
    mixed = run(*(array[:, order] for array in arrays))
    assert_close(mixed, np.asarray(run(*arrays))[:, order], rtol=1e-6)


def test_a_pointer_moves_towards_what_lowers_the_loss():
    value = np.eye(LENGTH, dtype=np.float32)[:, None]
    zeros = np.zeros((LENGTH, 1, 1), np.float32)

    def wanted(mean, key):  # the last query should read position 4
        means, variances = jnp.full((LENGTH, 1, 1), mean), jnp.full((LENGTH, 1, 1), 4.0)
        out = attention.pointer_attention(key, zeros, zeros, value, means, variances=variances)
        return out[-1, 0, 4]

    keys = jax.random.split(jax.random.key(0), 200)
    slopes = jax.jit(jax.vmap(jax.vmap(jax.grad(wanted), (None, 0)), (0, None)))
    below, above = np.asarray(slopes(jnp.array([1.5, 6.5]), keys)).mean(1)
    assert below > 0.01
    assert above < -0.01


@pytest.mark.parametrize("variance", [1e-12, 1e12])
def test_finite_for_all_variances(variance):
    rows, means = sequences(), EVERYWHERE[..., :3] * np.float32([0.0, 0.5, 1.0])

    def total(means, variances, *rows):
        return attention.pointer_attention(
            jax.random.key(1), *rows, means, variances=variances
        ).sum()

    slopes = jax.jit(jax.value_and_grad(total, (0, 1, 2, 3, 4)))
    assert all_finite(slopes(means, np.full_like(means, variance), *rows))


def test_memory_is_not_that_of_all_pairs():
    length = 2**12
    rows = [jax.ShapeDtypeStruct((length, 1, 16), np.float32)] * 3
    means = jax.ShapeDtypeStruct((length, 1, 1), np.float32)

    def total(*rows):
        *rows, means, variances = rows
        key = jax.random.key(0)
        return attention.pointer_attention(key, *rows, means, variances=variances).sum()

    program = jax.jit(jax.grad(total, (0, 1, 2, 3))).lower(*rows, means, means).compile()
    points = 2 + 4 + 4
    assert program.memory_analysis().temp_size_in_bytes < 8 * 4 * length * points * 16


RIGHT = dict(zip(("query", "key", "value"), sequences(), strict=True))
RIGHT |= dict(zip(("means", "variances"), pointers(), strict=True))


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"key": np.zeros((LENGTH, 3, 3))}, "query, key and value", "(S, g, d)"),
        ({"value": np.zeros((5, HEADS, 2))}, "query, key and value", "(S, g, e)"),
        ({"query": np.zeros((2, LENGTH, HEADS, 3))}, "query, key and value", "(T, h, d)"),
        ({"means": np.zeros((LENGTH, HEADS))}, "means of shape", "(12, 4, any)"),
        ({"variances": np.zeros((LENGTH, HEADS, 1))}, "variances of shape", "(12, 4, 2)"),
        ({"shape": (3, 5)}, "shape=(3, 5) for 12 keys", "whose product"),
        ({"shape": (3, 4)}, "means of shape", "(12, 4, any, 2)"),
        ({"causal": False, "near": 1}, "causal=False with near", "neither"),
        ({"causal": False, "times": np.arange(LENGTH)}, "causal=False with times", "neither"),
        (
            {"query": np.zeros((5, HEADS, 3)), "means": np.zeros((5, HEADS, 2))},
            "5 queries",
            "as many keys",
        ),
        ({"query": np.zeros((0, HEADS, 3))}, "query, key and value", "at least 1"),
        ({"times": np.arange(5)}, "times of shape", "(12)"),
        ({"times": np.arange(12.0)}, "times of dtype", "integers"),
        ({"causal": 1}, "causal=1", "True or False"),
        ({"near": -1}, "near=-1", "at least 0"),
        ({"scale": np.nan}, "scale=nan", "one number"),
        ({"region": (3, 3)}, "region (3, 3)", "length 1"),
        ({"global_from": "all"}, "global_from='all'", "'density'"),
        ({"random_key": None}, "key=None", "a key"),
    ],
)
def test_wrong_arguments_are_told(change, found, expected):
    options = {"random_key": jax.random.key(0)} | RIGHT | change

    def call():
        jax.eval_shape(lambda: attention.pointer_attention(**options))

    assert_names_itself_and_its_cure(call, found, expected, "")


def test_the_result_has_the_dtype_of_the_values():
    rows = [jnp.asarray(rows, jnp.bfloat16) for rows in sequences()]
    means, variances = pointers()
    out = jax.eval_shape(
        lambda: attention.pointer_attention(
            jax.random.key(0), *rows, means, variances=variances.astype(jnp.bfloat16)
        )
    )
    assert out.shape == (LENGTH, HEADS, VALUE_WIDTH)
    assert out.dtype == jnp.bfloat16
