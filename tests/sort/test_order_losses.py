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
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("n", [1, 8])
def test_order_loss_is_the_matrix_at_the_entries_of_the_right_order(n):
    labels = normal((n,), 1)

    def ours(keys, certainty):
        return order_loss(keys, labels, certainty=certainty)

    def matrix(keys, certainty):
        return dense.order_loss(keys, labels, certainty)

    with jax.enable_x64(True):
        args, tangents = (np.float64(normal((n,))), 1.7), (np.float64(normal((n,), 2)), 0.3)
        found = jax.jit(partial(dense.derivatives, ours))(args, tangents)
        wanted = jax.jit(partial(dense.derivatives, matrix))(args, tangents)
        assert_close(found, wanted, rtol=1e-8, atol=1e-9)


def test_order_loss_is_the_same_for_columns_as_for_rows():
    keys, labels = normal((8,)), normal((8,), 1)
    for axis in (0, 1):
        matrix = jax.jit(dense.order_loss, static_argnums=3)(keys, labels, 1.7, axis)
        np.testing.assert_allclose(jit_order(keys, labels, certainty=1.7), matrix, rtol=1e-5)


def test_rank_loss_is_the_scaled_square_of_rank_differences():
    n = 8
    labels = np.round(normal((n,), 1))
    wanted = stats.rankdata(labels) - 1

    def matrix(keys, certainty):
        square = jnp.square(dense.soft_ranks(keys, certainty) - wanted)
        return 6 * square.mean() / (n**2 - 1)

    def ours(keys, certainty):
        return rank_loss(keys, labels, certainty=certainty)

    with jax.enable_x64(True):
        args, tangents = (np.float64(normal((n,))), 1.7), (np.float64(normal((n,), 2)), 0.3)
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
    many = np.random.default_rng(0).permutation(2**16).astype(np.float32)
    np.testing.assert_allclose(jit_rank(many, -many, certainty=1e12), 2, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_right_order_has_the_least_loss_of_all(loss):
    values = np.array([-1.0, -0.2, 0.3, 1.1], np.float32)
    keys = np.array(list(permutations(values)))
    batched = jax.jit(jax.vmap(lambda k, c: loss(k, values, certainty=c), (0, None)))
    for certainty in (0.1, 1.0, 100.0):
        losses = np.asarray(batched(keys, certainty))
        best, *others = np.sort(losses)
        np.testing.assert_allclose(losses[0], best)
        assert others[0] > best + 1e-4


@pytest.mark.parametrize("loss", [jit_order, jit_rank])
def test_only_the_order_of_labels_matters(loss):
    keys, labels = normal((8,)), normal((8,), 1)
    expected = loss(keys, labels)
    ranks = np.argsort(np.argsort(labels)).astype(np.int32)
    for same in (np.exp(labels), 1e30 * labels, ranks, 2**30 + ranks, ranks.astype(jnp.bfloat16)):
        np.testing.assert_array_equal(loss(keys, same), expected)
    assert loss(keys, -labels) != expected


@pytest.mark.parametrize("loss", [jit_order, jit_rank])
def test_equal_labels_may_come_in_either_order(loss):
    labels = np.array([0, 1, 1, 2, 1, 0, 3, 3])
    keys = normal((8,))
    tied = keys[[5, 4, 1, 3, 2, 0, 6, 7]]
    np.testing.assert_allclose(loss(keys, labels), loss(tied, labels), rtol=1e-6)
    other = keys[[6, 1, 2, 3, 4, 5, 0, 7]]
    assert abs(float(loss(keys, labels)) - float(loss(other, labels))) > 1e-3


def test_order_loss_of_equal_labels_is_that_of_the_right_order():
    keys = normal((8,))
    for labels in (np.zeros(8, np.float32), (keys > 0).astype(np.float32)):
        np.testing.assert_allclose(jit_order(keys, labels), jit_order(keys, keys), rtol=1e-6)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("loss", [jit_order, jit_rank])
def test_lists_count_by_their_lengths(loss, shuffled):
    lengths = (1, 8, 1, 8)
    n, stops = sum(lengths), np.cumsum(lengths)
    keys, labels = normal((n,)), np.round(2 * normal((n,), 1))
    ids = np.repeat(np.array([-3, 0, 1, 9], np.int32), lengths)
    spans = [slice(stop - m, stop) for m, stop in zip(lengths, stops, strict=True)]
    alone = [float(loss(keys[s], labels[s])) for s in spans]
    expected = np.dot(lengths, alone) / n
    mix = np.random.default_rng(2).permutation(n) if shuffled else np.arange(n)
    found = loss(keys[mix], labels[mix], segment_ids=ids[mix])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_order_loss_in_mixed_precision():
    with jax.enable_x64(True):
        keys, labels = normal((8,)), np.float64(normal((8,), 1))
        wide = jit_order(keys, labels, certainty=2.0)
        found = jit_order(keys, labels, certainty=jnp.asarray(2.0, jnp.float64))
    np.testing.assert_allclose(found, wide, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_batches_and_sixteen_bits(loss):
    keys, labels = normal((3, 8)).astype(jnp.bfloat16), normal((3, 8), 1)
    batched = jax.jit(jax.vmap(loss))(keys, labels)
    one_by_one = [jax.jit(loss)(*pair) for pair in zip(keys, labels, strict=True)]
    np.testing.assert_allclose(batched, np.stack(one_by_one), rtol=1e-5)
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
    labels = np.array(labels, np.float32)
    slope = jax.jit(jax.grad(lambda keys: order_loss(keys, labels, certainty=4.0)))
    together = np.asarray(slope(np.zeros(2, np.float32)))
    np.testing.assert_allclose(together, slope(labels * 1e-4), rtol=1e-3)
    assert together[labels.argmax()] < 0


def test_labels_and_lists_may_be_constants_of_numpy():
    keys, labels, ids = jnp.array([3.0, 1, 2]), np.array([1, 0, 2]), np.array([0, 1, 0])
    for loss in (order_loss, rank_loss):
        inside = jax.jit(lambda keys, loss=loss: loss(keys, labels, segment_ids=ids))(keys)
        given = jax.jit(lambda *args, loss=loss: loss(*args[:2], segment_ids=args[2]))
        outside = given(keys, labels, ids)
        np.testing.assert_allclose(inside, outside, rtol=1e-6)
