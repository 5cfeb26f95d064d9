"""Keys standardised list by list; for one list see the quicksort's tests."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import standardise
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

IDS = np.array([3, -1, 3, 7, -1, 3, 3, 0])
by_list = jax.jit(standardise)


def keys_of(seed=0):
    return np.random.default_rng(seed).normal(size=8).astype(np.float32)


def standardised(keys):
    centred = np.asarray(keys, np.float64) - np.mean(keys, dtype=np.float64)
    spread = np.sqrt(np.mean(centred**2))
    return centred / (spread if spread else 1)


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1e-12, 0), (1e30, 0), (1, 1000)])
def test_every_list_has_mean_zero_and_variance_one(scale, shift):
    keys = (keys_of() * np.float32(scale) + np.float32(shift)).astype(np.float32)
    found = np.asarray(by_list(keys, segment_ids=IDS))
    for number in set(IDS.tolist()):
        own = number == IDS
        assert_close(found[own], standardised(keys[own]), rtol=1e-4, atol=1e-5)


def test_equal_keys_are_zeros_with_finite_slopes():
    def loss(keys):
        return (standardise(keys, segment_ids=IDS) * jnp.arange(8.0)).sum()

    keys = np.where(IDS == 3, 5, keys_of()).astype(np.float32)
    slopes = np.asarray(jax.jit(jax.grad(loss))(keys))
    assert np.isfinite(slopes).all()
    np.testing.assert_array_equal(by_list(keys, segment_ids=IDS)[IDS == 3], 0)


def test_a_nan_spoils_its_own_list_only():
    keys = np.where(np.arange(8) == 4, np.nan, keys_of()).astype(np.float32)
    found = np.asarray(by_list(keys, segment_ids=IDS))
    np.testing.assert_array_equal(np.isnan(found), IDS == -1)


def test_slopes_are_those_of_each_list_alone():
    weights = np.arange(1.0, 9).astype(np.float32)

    @jax.jit
    @jax.grad
    def slopes(keys):
        return jnp.sin(standardise(keys, segment_ids=IDS)) @ weights

    def alone(keys, weights):
        return jax.grad(lambda keys: jnp.sin(standardise(keys)) @ weights)(keys)

    keys = keys_of()
    own = IDS == 3
    assert_close(slopes(keys)[own], jax.jit(alone)(keys[own], weights[own]), atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "ids", "found", "expected", "cure"),
    [
        (np.ones((2, 8), np.float32), IDS, "keys of shape (2, 8)", "beside segment_ids", "reshape"),
        (keys_of(), IDS[1:], "segment_ids of shape (7,)", "the list of each", "reshape"),
        (keys_of(), np.ones(8), "segment_ids of dtype float", "integers", "convert"),
    ],
)
def test_mistakes_name_themselves_and_their_cure(keys, ids, found, expected, cure):
    call = partial(standardise, keys, segment_ids=ids)
    assert_names_itself_and_its_cure(call, found, expected, cure)
