"""Ranked lists of different lengths: what they gain, as a metric and as a loss; correlation."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax.sort import ndcg, ndcg_loss, order_loss, rank_loss, spearman
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure
from tests.sort import numpy_oracle

C, N = 1.5, 11
GENERATOR = np.random.default_rng(0)
KEYS = GENERATOR.normal(size=N).astype(np.float32)
GAINS = np.array([3, 1, 0, 7, 1, 0, 0, 3, 0, 1, 0], np.float32)
# One of the lists has nothing to gain, as the last element is padding.
LISTS = np.array([4, 0, 0, 4, -2, 0, 9, 4, -2, 4, 9])
MASK = np.arange(N) != 4
OWN = [LISTS[MASK] == number for number in (0, 4)]


@partial(jax.jit, static_argnames="k")
def both(keys, gains, k=None, certainty=C, **lists):
    loss = ndcg_loss(keys, gains, k=k, certainty=certainty, **lists)
    return ndcg(keys, gains, k=k, **lists), loss, spearman(keys, gains, **lists)


@pytest.mark.parametrize("k", [None, 1, 3, 50])
def test_gains_of_one_list(k):
    keys, gains = KEYS.astype(np.float64), GAINS.astype(np.float64)
    metric, loss, _ = both(KEYS, GAINS, k)
    assert_close(metric, numpy_oracle.ndcg(gains[np.argsort(-keys)], gains, k), rtol=1e-5)
    placed = numpy_oracle.matrix(keys, np.ones(N), C, descending=True) @ gains
    assert_close(loss, 1 - numpy_oracle.ndcg(placed, gains, k), rtol=1e-4)


def test_gains_of_many_lists_are_their_mean():
    metric, loss, _ = both(KEYS, GAINS, 2, segment_ids=LISTS, mask=MASK)
    each = []
    for own in OWN:
        keys, gains = (part[MASK][own].astype(np.float64) for part in (KEYS, GAINS))
        soft = numpy_oracle.matrix(keys, np.ones(len(keys)), C, descending=True) @ gains
        exact = gains[np.argsort(-keys)]
        each.append([numpy_oracle.ndcg(placed, gains, 2) for placed in (exact, soft)])
    assert_close([metric, 1 - loss], list(np.mean(each, axis=0)), rtol=1e-4)


def test_a_great_certainty_is_the_metric():
    metric, loss, _ = both(KEYS, GAINS, 3, 1e5, segment_ids=LISTS)
    assert_close(loss, 1 - metric, rtol=1e-4)


def test_nothing_to_gain():
    metric, loss, _ = both(KEYS, 0 * GAINS)
    assert metric == 1
    assert loss == 0


def test_spearman_is_that_of_scipy_with_ties():
    for labels in (GAINS, KEYS**2, -KEYS):
        assert_close(both(KEYS, labels)[2], stats.spearmanr(KEYS, labels).statistic, rtol=1e-5)
    alone = [stats.spearmanr(KEYS[MASK][own], GAINS[MASK][own]).statistic for own in OWN]
    found = both(KEYS, GAINS, segment_ids=LISTS, mask=MASK)[2]
    assert_close(found, np.mean(alone), rtol=1e-5)


def test_no_order_has_no_correlation():
    assert np.isnan(both(KEYS, np.ones(N, np.float32))[2])


LOSSES = {
    "order_loss": order_loss,
    "rank_loss": rank_loss,
    "ndcg_loss": partial(ndcg_loss, k=2),
}


@partial(jax.jit, static_argnames="name")
def value_and_slopes(keys, labels, ids, mask, name):
    def loss(keys):
        return LOSSES[name](keys, labels, certainty=C, segment_ids=ids, mask=mask)

    return jax.value_and_grad(loss)(keys)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_counts_for_nothing_whatever_it_holds(name, bad):
    mask = np.arange(N) % 3 != 1
    spoilt = [np.where(mask, part, bad).astype(np.float32) for part in (KEYS, GAINS)]
    value, slopes = value_and_slopes(*spoilt, LISTS, mask, name=name)
    shorter = [part[mask] for part in (KEYS, GAINS, LISTS, mask)]
    assert_close((value, slopes[mask]), value_and_slopes(*shorter, name=name), rtol=1e-4)
    np.testing.assert_array_equal(slopes[~mask], 0)
    nothing = value_and_slopes(*spoilt, LISTS, np.zeros(N, bool), name=name)
    assert_close(nothing, (0.0, np.zeros(N)))


def test_a_nan_comes_out():
    keys = np.where(np.arange(N) == 3, np.nan, KEYS).astype(np.float32)
    assert np.isnan(both(keys, GAINS)).all()
    gains = np.where(np.arange(N) == 3, np.nan, GAINS).astype(np.float32)
    assert np.isnan(both(KEYS, gains)).all()


@pytest.mark.parametrize("function", [ndcg, ndcg_loss])
def test_mistakes_name_themselves_and_their_cure(function):
    for options, found, expected in (
        ({"k": 0}, "k=0", "an int of at least 1"),
        ({"mask": np.ones(N)}, "mask of dtype float", "flags"),
        ({"mask": [True]}, "mask of shape (1,)", "one flag per element"),
    ):
        call = partial(function, KEYS, GAINS, **options)
        assert_names_itself_and_its_cure(call, found, expected, "")
    for call in (lambda: function(KEYS, GAINS[1:]), lambda: function(KEYS, 1.0)):
        assert_names_itself_and_its_cure(call, "gains of shape", "one gain per key", "gains")
