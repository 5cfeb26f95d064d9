import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import order_loss, rank_loss, soft_ranks, soft_sort, soft_top_k
from tests.ops.examples import assert_names_itself_and_its_cure


@pytest.mark.parametrize(
    ("change", "found", "expected", "cure"),
    [
        ({"keys": jnp.zeros((2, 4))}, "keys of shape (2, 4)", "one key per element", "reshape"),
        ({"keys": jnp.zeros(())}, "keys of shape ()", "one key per element", "reshape"),
        ({"keys": jnp.zeros(0)}, "no element", "one or more", "leave the sort out"),
        ({"keys": jnp.arange(4)}, "keys of dtype int32", "floating-point keys", "hard=True"),
        (
            {"certainty": jnp.ones(4)},
            "certainty=Array([1.",
            "one number above 0",
            "change certainty",
        ),
        (
            {"segment_ids": jnp.zeros(3, int)},
            "segment_ids of shape (3,)",
            "list of each",
            "reshape",
        ),
        ({"segment_ids": jnp.zeros(4)}, "segment_ids of dtype float32", "integers", "convert"),
    ],
)
def test_wrong_keys_or_options(change, found, expected, cure):
    options = {"keys": jnp.zeros(4)} | change
    keys = options.pop("keys")
    for call in (
        lambda: soft_sort(keys, None, **options),
        lambda: soft_ranks(keys, **options),
        lambda: soft_top_k(keys, 2, **options),
        lambda: order_loss(keys, jnp.zeros(keys.shape), **options),
        lambda: rank_loss(keys, jnp.zeros(keys.shape), **options),
    ):
        assert_names_itself_and_its_cure(call, found, expected, cure)


@pytest.mark.parametrize("k", [-1, 2.0, True, None])
def test_wrong_k(k):
    for hard in (False, True):
        assert_names_itself_and_its_cure(
            lambda hard=hard: soft_top_k(jnp.zeros(4), k, hard=hard),
            f"k={k!r}",
            "an int of at least 0",
            "as k",
        )


def test_wrong_payload():
    for payload, found, expected, cure in (
        (jnp.zeros((5, 4)), "payload leaf of shape (5, 4)", "leading axis 4", "to the front"),
        (jnp.zeros(()), "payload leaf of shape ()", "leading axis 4", "to the front"),
        (jnp.arange(4), "payload leaf of dtype int32", "floating-point payload", "hard=True"),
    ):
        assert_names_itself_and_its_cure(
            lambda payload=payload: soft_sort(jnp.zeros(4), {"x": payload}), found, expected, cure
        )


@pytest.mark.parametrize("certainty", [0.0, -1.0, float("nan")])
def test_certainty_is_above_zero(certainty):
    with pytest.raises(ValueError, match="certainty"):
        soft_sort(jnp.zeros(3), jnp.zeros(3), certainty=certainty)


def test_a_list_with_no_more_than_k_is_taken_whole():
    np.testing.assert_allclose(soft_top_k(jnp.arange(3.0), 2**40), 1)
