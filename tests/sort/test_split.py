import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import apply_split, half_split, reverse_split
from sparse_hyper_jax.sort.buckets import (
    bucket_means,
    bucket_sizes,
    buckets_at,
    from_rows,
    num_levels,
    to_rows,
)
from sparse_hyper_jax.sort.candidates import (
    all_halves,
    candidate_weights,
    first_occurrences,
    propose,
    upper_by_chance,
)
from sparse_hyper_jax.sort.permutations import invert
from tests.folding import folded
from tests.sort import oracle

KEY = jax.random.key(0)
OPTIONS = ("level", "num_candidates", "num_near", "hard")
jit_split = jax.jit(half_split, static_argnames=OPTIONS)
jit_apply, jit_reverse = jax.jit(apply_split), jax.jit(reverse_split)
LENGTHS = [1, 2, 3, 5, 8, 13]


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def levels_of(lengths):
    return [(n, level) for n in lengths for level in range(max(num_levels(n), 1))]


EVERY = levels_of(LENGTHS)


@pytest.mark.parametrize("n", [*LENGTHS, 150, 1000])
def test_bucket_sizes(n):
    assert num_levels(n) == int(np.ceil(np.log2(n)))
    for level in range(num_levels(n) + 1):
        sizes = bucket_sizes(n, level)
        assert sizes.sum() == n
        assert sizes.max() - sizes.min() <= 1
        assert [stop - start for start, stop in oracle.buckets(n, level)] == sizes.tolist()
    assert sizes.tolist() == [1] * n


@folded
def rows_and_back():
    def both(buckets):
        return lambda x: (from_rows(to_rows(x, buckets), buckets), bucket_means(x.T, buckets))

    return {(n, level): (both(buckets_at(n, level)), normal((3, n))) for n, level in EVERY}


@pytest.mark.parametrize(("n", "level"), EVERY)
def test_rows_and_back(n, level):
    x, (back, found) = normal((3, n)), rows_and_back(n, level)
    np.testing.assert_array_equal(back, x)
    means = [x.T[start:stop].mean(0) for start, stop in oracle.buckets(n, level)]
    np.testing.assert_allclose(found, np.stack(means), atol=1e-6)


def test_no_such_level():
    with pytest.raises(ValueError, match="an int from 0 to 3"):
        bucket_sizes(8, 4)
    with pytest.raises(ValueError, match="n=0"):
        num_levels(0)


@pytest.mark.parametrize(("n", "level"), levels_of(LENGTHS))
def test_candidates_are_permutations_inside_buckets(n, level):
    keys, x = normal((n,)), normal((n, 2), 1)
    split = jit_split(KEY, keys, x, level=level, num_candidates=5, num_near=2)[2]
    sources, destinations = np.asarray(split.sources), np.asarray(split.destinations)
    np.testing.assert_array_equal(
        np.sort(sources, axis=1), np.tile(np.arange(n), (len(sources), 1))
    )
    bucket = np.repeat(np.arange(len(bucket_sizes(n, level))), bucket_sizes(n, level))
    for source, destination in zip(sources, destinations, strict=True):
        np.testing.assert_array_equal(source[destination], np.arange(n))
        np.testing.assert_array_equal(bucket[source], bucket)
        for start, stop in oracle.buckets(n, level):
            low = (stop - start) // 2
            assert (np.diff(source[start : start + low]) > 0).all()
            assert (np.diff(source[start + low : stop]) > 0).all()
    weights = np.asarray(split.weights)
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-6)
    assert (weights >= 0).all()


@pytest.mark.parametrize(("n", "level"), levels_of([1, 2, 3, 5, 6, 8]))
@pytest.mark.parametrize("certainty", [0.0, 3.0])
def test_all_halvings_match_brute_force(n, level, certainty):
    keys, x = normal((n,)), normal((n, 3), 1)
    out_keys, out, split = jit_split(
        KEY, keys, x, level=level, num_candidates=70, certainty=certainty
    )
    matrix = oracle.split_matrix(keys, level, certainty)
    np.testing.assert_allclose(out, matrix @ np.asarray(x), atol=1e-5)
    np.testing.assert_allclose(out_keys, matrix @ np.asarray(keys), atol=1e-5)
    np.testing.assert_allclose(jit_reverse(split, x), matrix.T @ np.asarray(x), atol=1e-5)


@pytest.mark.parametrize("n", [5, 6])
def test_sampled_candidates_converge_to_brute_force(n):
    # Random proposals, not the enumeration: 300 of at most 35 find them all, and each counts once.
    buckets = buckets_at(n, 0)
    keys = to_rows(normal((n,)), buckets)
    certain = np.asarray(keys >= jnp.sort(keys)[:, n // 2][:, None])
    upper = jnp.concatenate([certain[None], upper_by_chance(KEY, 300, buckets)])
    kept = first_occurrences(upper)
    assert int(kept.sum()) == len(all_halves(buckets)[0])
    weights = candidate_weights(keys, upper, kept, buckets, 2.0)
    matrix = oracle.split_matrix(keys[0], 0, 2.0)
    # The first position of the upper half is filled by the first element that goes up.
    first_up = jnp.argmax(upper[:, 0], axis=-1)
    share = jnp.zeros(n).at[first_up].add(weights[:, 0])
    np.testing.assert_allclose(share, matrix[n // 2], atol=1e-5)


@pytest.mark.parametrize(("n", "level"), levels_of([5, 64]))
def test_random_proposals_are_balanced_and_fair(n, level):
    buckets = buckets_at(n, level)
    upper = np.asarray(upper_by_chance(KEY, 4000, buckets))
    counts = (upper & buckets.present).sum(-1)
    np.testing.assert_array_equal(counts, np.tile(buckets.sizes - buckets.lower, (4000, 1)))
    expected = ((buckets.sizes - buckets.lower) / buckets.sizes)[:, None]
    off = np.where(buckets.present, upper.mean(0) - expected, 0)
    assert np.abs(off).max() < 0.04


def test_near_proposals_follow_the_keys():
    buckets = buckets_at(32, 0)
    keys = to_rows(jnp.linspace(-1.0, 1.0, 32), buckets)
    options = {"num_candidates": 200, "certainty": 20.0}
    near, _ = propose(KEY, keys, buckets, num_near=199, **options)
    far, _ = propose(KEY, keys, buckets, num_near=0, **options)
    assert near[0].tolist() == far[0].tolist() == [[False] * 16 + [True] * 16]
    assert (near[1:] & near[0]).sum(-1).mean() > 13
    assert abs((far[1:] & near[0]).sum(-1).mean() - 8) < 0.5
    # Only elements close to the pivot change sides.
    assert near[:, :, -1].all()
    assert not near[:, :, 0].any()


def test_first_occurrences_against_numpy():
    upper = jax.random.bernoulli(KEY, 0.5, (40, 3, 5))
    kept = np.asarray(first_occurrences(upper))
    for bucket in range(3):
        _, first = np.unique(np.asarray(upper)[:, bucket], axis=0, return_index=True)
        assert np.flatnonzero(kept[:, bucket]).tolist() == sorted(first.tolist())


def test_repeated_candidates_do_not_count_twice():
    buckets = buckets_at(2, 0)
    upper = jnp.array([[[False, True]], [[True, False]], [[False, True]]])
    keys = jnp.zeros((1, 2))
    weights = candidate_weights(keys, upper, first_occurrences(upper), buckets, 1.0)
    np.testing.assert_allclose(weights[:, 0], [0.5, 0.5, 0])


def test_weights_are_the_products_of_probabilities():
    buckets = buckets_at(6, 1)
    keys = to_rows(normal((6,)), buckets)
    upper, kept = (jnp.asarray(a) for a in all_halves(buckets))
    weights = candidate_weights(keys, upper, kept, buckets, 3.0)
    pivot = jnp.sort(keys, axis=1)[:, :2].mean(axis=1, keepdims=True)
    logit = 3.0 * (keys - pivot)
    logs = jnp.where(upper, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)).sum(-1)
    np.testing.assert_allclose(weights, jax.nn.softmax(logs, axis=0), rtol=1e-5)


def test_forward_and_reverse_are_transposes():
    split = jit_split(KEY, normal((13,)), normal((13, 2)), level=1, num_candidates=5, num_near=2)[2]
    forward, backward = jit_apply(split, jnp.eye(13)), jit_reverse(split, jnp.eye(13))
    forward, backward = np.asarray(forward), np.asarray(backward)
    np.testing.assert_allclose(forward, backward.T, atol=1e-6)
    np.testing.assert_allclose(forward.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(forward.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("n", LENGTHS)
def test_hard_reverse_is_the_inverse(n):
    x = {"floats": normal((n, 2)), "ints": np.arange(n, dtype=np.int32)}
    for level in range(num_levels(n)):
        out, split = jit_split(None, normal((n,), 1), x, level=level, hard=True)[1:]
        back = jit_reverse(split, out)
        assert split.sources.shape == (1, n)
        np.testing.assert_array_equal(split.weights, 1)
        np.testing.assert_array_equal(back["floats"], x["floats"])
        np.testing.assert_array_equal(back["ints"], x["ints"])


def test_gradients_match_the_dense_product():
    split = jit_split(KEY, normal((8,)), normal((8, 2)), num_candidates=5)[2]
    x = jnp.asarray(normal((8, 2), 2))

    def sparse(weights, x):
        return jnp.sin(apply_split(split._replace(weights=weights), x)).sum()

    def dense(weights, x):
        matrices = weights[:, :, None] * jax.nn.one_hot(split.sources, 8)
        return jnp.sin(matrices.sum(0) @ x).sum()

    def derivatives(f):
        both = (0, 1)
        return jax.jit(lambda *args: (jax.grad(f, both)(*args), jax.hessian(f, both)(*args)))

    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5),
        derivatives(sparse)(split.weights, x),
        derivatives(dense)(split.weights, x),
    )


def test_first_and_second_derivatives_match_differences():
    def f(keys):
        moved = half_split(KEY, keys, jnp.cos(keys), num_candidates=4, num_near=1, certainty=1.0)
        return jnp.sin(moved[0]).sum() + jnp.square(moved[1]).sum()

    @jax.jit
    def check(keys, along):
        slope = jax.jvp(f, (keys,), (along,))[1]
        curve = jax.jvp(jax.grad(f), (keys,), (along,))[1]
        step = 1e-5 * along
        slope_difference = (f(keys + step) - f(keys - step)) / 2e-5
        above, below = jax.grad(f)(keys + step), jax.grad(f)(keys - step)
        back = jax.grad(f)(keys) @ along
        return (slope, back, slope_difference), (curve, (above - below) / 2e-5)

    with jax.enable_x64(True):
        keys = jnp.linspace(-1.0, 1.0, 7) ** 3
        (slope, back, slope_difference), (curve, curve_difference) = check(keys, jnp.cos(9 * keys))
        assert slope.dtype == jnp.float64
    np.testing.assert_allclose([slope, back], slope_difference, rtol=1e-7)
    np.testing.assert_allclose(curve, curve_difference, rtol=1e-6, atol=1e-8)


def test_invert():
    permutations = jax.vmap(lambda key: jax.random.permutation(key, 9))(jax.random.split(KEY, 4))
    np.testing.assert_array_equal(invert(permutations), jnp.argsort(permutations, axis=-1))


def test_no_square_matrix():
    # With 50,000 elements a single dense matrix would be 10 GB.
    n = 50_000
    out = jax.eval_shape(lambda k, q, x: half_split(k, q, x)[1], KEY, jnp.zeros(n), jnp.zeros(n))
    assert out.shape == (n,)
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda q: half_split(KEY, q, q)[1].sum()))(jnp.zeros(n)))
    assert f"{n},{n}" not in jaxpr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": jnp.zeros((2, 4))}, r"keys of shape \(2, 4\)"),
        ({"keys": jnp.arange(4)}, "floating-point keys"),
        ({"payload": jnp.zeros((5, 2))}, "leading axis 4"),
        ({"payload": {"a": jnp.zeros(4), "b": jnp.zeros(())}}, "leading axis 4"),
        ({"payload": jnp.arange(4)}, "hard=True"),
        ({"num_candidates": 0}, "num_candidates=0"),
        ({"num_candidates": 2.0}, "num_candidates=2.0"),
        ({"num_candidates": 3, "num_near": 3}, "fewer near candidates"),
        ({"num_near": -1}, "num_near=-1"),
        ({"certainty": jnp.ones(4)}, "certainty=Array"),
        ({"key": None}, "one random key"),
        ({"level": 5}, "an int from 0 to 2"),
    ],
)
def test_wrong_input(change, message):
    args = {"key": KEY, "keys": jnp.zeros(4), "payload": jnp.zeros((4, 2))} | change
    with pytest.raises(ValueError, match=message):
        half_split(args.pop("key"), args.pop("keys"), args.pop("payload"), **args)
