from functools import partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax.sort import order_loss, rank_loss
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure
from tests.sort import dense

LOSSES = (order_loss, rank_loss)
jit_order = jax.jit(order_loss)
jit_rank = jax.jit(rank_loss)


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("n", [1, 8])
def test_order_loss_is_the_matrix_at_the_entries_of_the_right_order(n):
    labels = normal((n,), 1)

    def ours(keys, certainty):
        return order_loss(keys, labels, certainty=certainty)

    def matrix(keys, certainty):
        return dense.order_loss(keys, labels, certainty)

    with jax.enable_x64(True):
        args, tangents = (normal((n,)), 1.7), (normal((n,), 2), 0.3)
        found = jax.jit(partial(dense.derivatives, ours))(args, tangents)
        wanted = jax.jit(partial(dense.derivatives, matrix))(args, tangents)
        assert_close(found, wanted, rtol=1e-8, atol=1e-9)


def test_order_loss_is_the_same_for_columns_as_for_rows():
    keys, labels = normal((8,)), normal((8,), 1)
    for axis in (0, 1):
        matrix = dense.order_loss(keys, labels, 1.7, axis)
        np.testing.assert_allclose(jit_order(keys, labels, certainty=1.7), matrix, rtol=1e-5)


def test_rank_loss_is_the_scaled_square_of_rank_differences():
    n = 8
    labels = jnp.round(normal((n,), 1))
    wanted = stats.rankdata(labels) - 1

    def matrix(keys, certainty):
        square = jnp.square(dense.soft_ranks(keys, certainty) - wanted)
        return 6 * square.mean() / (n**2 - 1)

    def ours(keys, certainty):
        return rank_loss(keys, labels, certainty=certainty)

    with jax.enable_x64(True):
        args, tangents = (normal((n,)), 1.7), (normal((n,), 2), 0.3)
        found, expected = (
            jax.jit(partial(dense.derivatives, function))(args, tangents)
            for function in (ours, matrix)
        )
        # Scales of lists are single-precision numbers.
        assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_rank_loss_is_one_minus_spearmans_correlation():
    for seed in range(5):
        keys, labels = normal((8,), seed), normal((8,), seed + 10)
        expected = 1 - stats.spearmanr(keys, labels).statistic
        np.testing.assert_allclose(jit_rank(keys, labels, certainty=1e6), expected, rtol=1e-5)


def test_rank_loss_of_the_right_and_of_the_reverse_order():
    for keys in (normal((8,)), normal((2**16,))):
        np.testing.assert_allclose(jit_rank(keys, keys, certainty=1e12), 0, atol=1e-6)
    keys = normal((8,))
    np.testing.assert_allclose(jit_rank(keys, -keys, certainty=1e12), 2, rtol=1e-6)
    # Distinct keys, as equal ones share their ranks.
    many = jax.random.permutation(jax.random.key(0), jnp.arange(2.0**16))
    np.testing.assert_allclose(jit_rank(many, -many, certainty=1e12), 2, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_right_order_has_the_least_loss_of_all(loss):
    values = jnp.array([-1.0, -0.2, 0.3, 1.1])
    keys = jnp.array(list(permutations(values)))
    for certainty in (0.1, 1.0, 100.0):
        losses = jax.jit(jax.vmap(lambda k, c: loss(k, values, certainty=c), (0, None)))(
            keys, certainty
        )
        best, *others = jnp.sort(losses)
        np.testing.assert_allclose(losses[0], best)
        assert others[0] > best + 1e-4


@pytest.mark.parametrize("loss", [jit_order, jit_rank])
def test_only_the_order_of_labels_matters(loss):
    keys, labels = normal((8,)), normal((8,), 1)
    expected = loss(keys, labels)
    ranks = jnp.argsort(jnp.argsort(labels))
    for same in (jnp.exp(labels), 1e30 * labels, ranks, 2**30 + ranks, ranks.astype(jnp.bfloat16)):
        np.testing.assert_array_equal(loss(keys, same), expected)
    assert loss(keys, -labels) != expected


@pytest.mark.parametrize("loss", [jit_order, jit_rank])
def test_equal_labels_may_come_in_either_order(loss):
    labels = jnp.array([0, 1, 1, 2, 1, 0, 3, 3])
    keys = normal((8,))
    tied = keys.at[jnp.array([1, 2, 4, 0, 5])].set(keys[jnp.array([4, 1, 2, 5, 0])])
    np.testing.assert_allclose(loss(keys, labels), loss(tied, labels), rtol=1e-6)
    other = keys.at[jnp.array([0, 6])].set(keys[jnp.array([6, 0])])
    assert abs(loss(keys, labels) - loss(other, labels)) > 1e-3


def test_order_loss_of_equal_labels_is_that_of_the_right_order():
    keys = normal((8,))
    for labels in (jnp.zeros(8), (keys > 0).astype(jnp.float32)):
        np.testing.assert_allclose(jit_order(keys, labels), jit_order(keys, keys), rtol=1e-6)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("loss", [jit_order, jit_rank])
def test_lists_count_by_their_lengths(loss, shuffled):
    lengths = (1, 8, 1, 8)
    n, stops = sum(lengths), np.cumsum(lengths)
    keys, labels = normal((n,)), jnp.round(2 * normal((n,), 1))
    ids = jnp.repeat(jnp.array([-3, 0, 1, 9]), jnp.array(lengths))
    spans = [slice(stop - m, stop) for m, stop in zip(lengths, stops, strict=True)]
    expected = sum(m * loss(keys[s], labels[s]) for m, s in zip(lengths, spans, strict=True)) / n
    mix = jax.random.permutation(jax.random.key(2), n) if shuffled else jnp.arange(n)
    found = loss(keys[mix], labels[mix], segment_ids=ids[mix])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_order_loss_in_mixed_precision():
    with jax.enable_x64(True):
        keys, labels = normal((8,)).astype(jnp.float32), normal((8,), 1)
        wide = jit_order(keys, labels, certainty=2.0)
        found = jit_order(keys, labels, certainty=jnp.asarray(2.0, jnp.float64))
    np.testing.assert_allclose(found, wide, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_batches_and_sixteen_bits(loss):
    keys, labels = normal((3, 8)).astype(jnp.bfloat16), normal((3, 8), 1)
    batched = jax.jit(jax.vmap(loss))(keys, labels)
    one_by_one = [jax.jit(loss)(*pair) for pair in zip(keys, labels, strict=True)]
    np.testing.assert_allclose(batched, jnp.stack(one_by_one), rtol=1e-5)
    assert batched.dtype == jnp.float32


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
def test_labels_of_another_shape(loss, shape):
    def call():
        loss(jnp.zeros(4), jnp.zeros(shape))

    assert_names_itself_and_its_cure(
        call, f"labels of shape {shape}", "one label per key", "labels"
    )


@pytest.mark.parametrize("labels", [[0, 1], [1, 0]])
def test_the_gradient_of_equal_keys_is_the_one_towards_the_right_order(labels):
    slope = jax.grad(lambda keys: order_loss(keys, jnp.array(labels), certainty=4.0))
    apart = jnp.array(labels) * 1e-4
    np.testing.assert_allclose(slope(jnp.zeros(2)), slope(apart), rtol=1e-3)
    assert slope(jnp.zeros(2))[labels.index(1)] < 0


def test_labels_and_lists_may_be_constants_of_numpy():
    keys, labels, ids = jnp.array([3.0, 1, 2]), np.array([1, 0, 2]), np.array([0, 1, 0])
    for loss in (order_loss, rank_loss):
        inside = jax.jit(lambda keys, loss=loss: loss(keys, labels, segment_ids=ids))(keys)
        outside = loss(keys, jnp.asarray(labels), segment_ids=jnp.asarray(ids))
        np.testing.assert_allclose(inside, outside, rtol=1e-6)
