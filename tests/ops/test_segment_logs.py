import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from sparse_hyper_jax import ops
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

IDS = np.array([0, 2, 2, 0, -1, 2, 4])
MASK = np.array([True, True, False, True, True, True, True])
KEPT = MASK & (IDS >= 0) & (IDS < 4)


@jax.jit
def both(logits):
    sums = ops.segment_logsumexp(logits, IDS, 4, mask=MASK)
    return sums, ops.segment_log_softmax(logits, IDS, 4, mask=MASK)


def logits_of(scale):
    return (scale * np.random.default_rng(0).normal(size=(7, 3))).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 500.0, 1e30])
def test_they_equal_those_of_scipy(scale):
    logits = logits_of(scale)
    sums, shares = both(logits)
    for number in (0, 2):
        own = KEPT & (number == IDS)
        part = logits[own].astype(np.float64)
        assert_close(sums[number], logsumexp(part, axis=0), rtol=1e-5)
        assert_close(shares[own], log_softmax(part, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(sums[1], -np.inf)
    np.testing.assert_array_equal(np.asarray(shares)[~KEPT], 0)


def test_nearly_equal_large_logits_keep_their_digits():
    logits = np.float32(1e7) + np.array([0, 1, 3], np.float32)
    found = ops.segment_log_softmax(logits, np.zeros(3, int), 1)
    assert_close(found, log_softmax(np.array([0.0, 1, 3])), rtol=1e-5)


@jax.jit
@jax.grad
def slopes(logits):
    sums, shares = both(logits)
    return jnp.where(jnp.isfinite(sums), sums, 0).sum() + jnp.sin(shares).sum()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_padding_counts_for_nothing_whatever_it_holds(bad):
    logits = logits_of(1.0)
    spoilt = np.where(KEPT[:, None], logits, bad).astype(np.float32)
    assert_close(both(spoilt), both(logits))
    assert_close(slopes(spoilt), slopes(logits))
    np.testing.assert_array_equal(np.asarray(slopes(spoilt))[~KEPT], 0)


def test_minus_infinity_means_never_and_a_nan_spoils_its_segment():
    logits = np.array([0.5, -np.inf, 1, np.nan, 2, -np.inf], np.float32)
    ids = np.array([0, 0, 1, 1, 2, 3])
    sums = ops.segment_logsumexp(logits, ids, 4)
    np.testing.assert_array_equal(sums, [0.5, np.nan, 2, -np.inf])
    shares = ops.segment_log_softmax(logits, ids, 4)
    np.testing.assert_array_equal(shares, [0, -np.inf, np.nan, np.nan, 0, -np.inf])


def test_a_nan_spoils_its_segment_as_it_does_that_of_a_softmax():
    logits, ids = np.array([np.nan, -np.inf, 1, -np.inf], np.float32), [0, 0, 1, 1]
    shares = ops.segment_log_softmax(logits, ids, 2)
    np.testing.assert_array_equal(shares, [np.nan, np.nan, 0, -np.inf])
    np.testing.assert_array_equal(ops.segment_softmax(logits, ids, 2), np.exp(shares))


def test_sixteen_bits_are_summed_in_float32():
    ones = jnp.zeros(5000, jnp.bfloat16)
    sums = ops.segment_logsumexp(ones, np.zeros(5000, int), 1)
    assert sums.dtype == jnp.float32
    assert_close(sums, [np.log(5000)], rtol=1e-5)
    assert ops.segment_log_softmax(ones, np.zeros(5000, int), 1).dtype == jnp.bfloat16


@pytest.mark.parametrize("function", [ops.segment_logsumexp, ops.segment_log_softmax])
def test_mistakes_name_themselves_and_their_cure(function):
    assert_names_itself_and_its_cure(
        lambda: function(jnp.ones(3), [0, 1], 2),
        "segment_ids of shape (2,)",
        "one segment per entry",
        "reshape",
    )
