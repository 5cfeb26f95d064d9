import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.data import make_recall
from tests.ops.examples import assert_names_itself_and_its_cure

LAGS = np.array([3, 40])


def drawn(seed=0, **options):
    return jax.tree.map(
        np.asarray, make_recall(jax.random.key(seed), LAGS, **({"length": 4000} | options))
    )


def test_every_answer_lies_at_one_of_the_lags_with_the_key_that_is_asked_for():
    recall = drawn()
    t = np.arange(4000)
    fits = [
        (recall.keys[t - u] == recall.asked) & (recall.values[t - u] == recall.answers) & (t >= u)
        for u in LAGS
    ]
    assert (fits[0] | fits[1])[recall.known].all()
    # Each of the lags as often as the other, up to five standard deviations.
    assert abs(fits[0][40:].mean() - fits[1][40:].mean()) < 0.08
    assert not recall.known[:3].any()
    assert recall.known[40:].all()


def test_neither_content_nor_position_tells_the_answer():
    recall = drawn()
    counts = np.zeros((32, 8))
    np.add.at(counts, (recall.asked[40:], recall.answers[40:]), 1)
    # Uniform given the key: a statistic of 224 degrees of freedom, mean 224, deviation 21.
    expected = counts.sum(1, keepdims=True) / 8
    assert ((counts - expected) ** 2 / expected).sum() < 330
    same = [np.mean(recall.values[40 - u : -u] == recall.answers[40:]) for u in (*LAGS, 7)]
    assert np.allclose(same, [0.5 + 0.5 / 8] * 2 + [1 / 8], atol=0.04)


def test_numbers_lie_in_their_ranges():
    recall = drawn(keys=5, values=3)
    assert set(recall.keys) == set(recall.asked) == set(range(5))
    assert set(recall.values) == set(recall.answers) == set(range(3))


def test_wrong_arguments_are_told():
    key, refuse = jax.random.key(0), assert_names_itself_and_its_cure
    refuse(lambda: make_recall(0, LAGS, length=9), "key=0", "random key", "")
    refuse(lambda: make_recall(key, LAGS / 2, length=9), "lags", "integers", "")
    refuse(lambda: make_recall(key, jnp.zeros(0, int), length=9), "no lags", "at least one", "")
    refuse(lambda: make_recall(key, LAGS, length=0), "length=0", "from 1 to", "")
    for name in ("keys", "values"):
        for count in (0, 2**31):
            refuse(
                lambda name=name, count=count: make_recall(key, LAGS, length=9, **{name: count}),
                f"{name}={count}",
                "from 1 to 2147483647",
                name,
            )


@pytest.mark.parametrize("lags", [[0], [-3, 2], [100], [8, 9], np.array([2**32 - 1], np.uint32)])
def test_known_lags_that_find_nothing_are_told(lags):
    def call():
        return make_recall(jax.random.key(0), lags, length=8)

    found = f"lags from {np.min(lags)} to {np.max(lags)}, with length=8"
    assert_names_itself_and_its_cure(call, found, "from 1 on", "raise length")
    assert_names_itself_and_its_cure(jax.jit(call), found, "from 1 on", "raise length")


def test_lags_beyond_the_length_and_traced_ones_find_what_there_is():
    draw = jax.jit(lambda lags: make_recall(jax.random.key(0), lags, length=8).known)
    assert draw(jnp.array([7])).tolist() == [False] * 7 + [True]
    assert not draw(jnp.array([0])).any()
    known = np.asarray(draw(jnp.array([1, 100])))
    assert not known[0]
    assert known.any()
    most = jax.jit(lambda: make_recall(jax.random.key(0), [1, 100], length=8, keys=2**31 - 1))()
    assert np.array_equal(most.known, known)
    assert (most.keys >= 0).all()
