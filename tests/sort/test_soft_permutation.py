from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import (
    SoftPermutation,
    apply_permutation,
    soft_argsort,
    soft_ranks,
    soft_sort,
    soft_top_k,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure
from tests.sort import numpy_oracle

N, C = 6, 1.5
WEIGHTS = np.array([1.5, 0, 2, 0.25, -3, 1], np.float32)
SOME = np.maximum(WEIGHTS, 0).astype(np.float64)


jit_sort = jax.jit(soft_sort, static_argnames=("descending", "hard", "straight_through"))


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@partial(jax.jit, static_argnames=("descending", "hard", "straight_through"))
def there_and_back(keys, payload, weights, straight_through=False, **options):
    permutation = soft_argsort(keys, certainty=C, weights=weights, **options)
    apply = partial(apply_permutation, permutation, straight_through=straight_through)
    return apply(payload), apply(payload, transpose=True), permutation


# A payload wider than the list is long is mixed by a small matrix, any other by recurrences.
@pytest.mark.parametrize("width", [2, 8])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("descending", [False, True])
def test_it_is_the_product_with_the_matrix_both_ways(width, weights, descending):
    keys, payload = normal((N,)), normal((N, width), 1)
    matrix = numpy_oracle.matrix(
        keys, np.ones(N) if weights is None else SOME, C, descending=descending
    )
    moved, back, _ = there_and_back(keys, payload, weights, descending=descending)
    assert_close(moved, matrix @ payload, atol=1e-5)
    assert_close(back, matrix.T @ payload, atol=1e-5)


def test_a_soft_sort_is_both_steps_in_one():
    keys, tree = normal((N,)), {"a": normal((N, 2), 1), "b": normal((N,), 2)}
    moved, _, permutation = there_and_back(keys, tree, None)
    assert_close(moved, jit_sort(keys, tree, certainty=C))
    np.testing.assert_array_equal(permutation.order, np.argsort(keys))
    np.testing.assert_array_equal(permutation.places, np.argsort(np.argsort(keys)))


def test_the_transpose_of_an_exact_permutation_is_its_inverse():
    keys, payload = np.array([3, 1, 2, 1]), np.arange(4)
    moved, back, permutation = there_and_back(keys, payload, None, hard=True)
    np.testing.assert_array_equal(moved, [1, 3, 2, 0])
    again = apply_permutation(permutation, moved, transpose=True)
    np.testing.assert_array_equal(again, payload)
    np.testing.assert_array_equal(back, np.argsort(moved))


def test_what_weighs_nothing_counts_for_nothing_whatever_it_holds():
    keys, payload = normal((N,)), normal((N, 2), 1)
    spoilt_keys, spoilt = keys.copy(), payload.copy()
    spoilt_keys[[1, 4]], spoilt[[1, 4]] = np.nan, np.inf

    @jax.jit
    def moved(keys, payload, weights):
        permutation = soft_argsort(keys, certainty=C, weights=weights)
        out = apply_permutation(permutation, payload)
        back = apply_permutation(permutation, out.at[-2:].set(jnp.nan), transpose=True)
        return out, back, soft_ranks(keys, weights=weights), soft_top_k(keys, 2, weights=weights)

    slope = jax.jit(
        jax.grad(lambda *args: sum(jnp.sin(part).sum() for part in moved(*args)), (0, 1, 2))
    )
    for function in (moved, slope):
        expected, found = function(keys, payload, WEIGHTS), function(spoilt_keys, spoilt, WEIGHTS)
        assert_close(found, expected)
        assert all(np.isfinite(part).all() for part in expected)
    for part in slope(spoilt_keys, spoilt, WEIGHTS):
        np.testing.assert_array_equal(np.asarray(part)[[1, 4]], 0)
    out, back, ranks, shares = moved(keys, payload, WEIGHTS)
    np.testing.assert_array_equal(out[-2:], 0)
    for part in (back, ranks, shares):
        np.testing.assert_array_equal(np.asarray(part)[[1, 4]], 0)


@jax.jit
def every(keys, payload, weights):
    options = {"certainty": C, "weights": weights}
    return (
        soft_sort(keys, payload, **options),
        soft_ranks(keys, **options),
        soft_top_k(keys, 3, **options),
    )


def test_an_element_of_weight_w_counts_as_w_equal_ones():
    keys, payload = normal((4,)), normal((4, 2), 1)
    copies = np.array([1, 3, 2, 1])
    out, ranks, shares = every(keys, payload, copies)
    many = np.repeat(np.arange(4), copies)
    out_of, ranks_of, shares_of = every(keys[many], payload[many], None)
    order = np.argsort(keys)
    ends = np.cumsum(copies[order]) - 1
    assert_close(out, np.asarray(out_of)[ends], atol=1e-5)
    starts = np.cumsum(copies) - copies
    means = [np.add.reduceat(part, starts) / copies for part in (ranks_of, shares_of)]
    assert_close([ranks, shares], means, atol=1e-5)


def test_exact_ranks_and_shares_with_weights_are_their_limit():
    keys, weights = normal((N,)), np.array([1, 2, 0.5, 1, 0, 3], np.float32)
    options = {"weights": weights, "hard": True}
    soft = every(keys * 1e4, keys, weights)[1:]
    both = jax.jit(lambda keys: (soft_ranks(keys, **options), soft_top_k(keys, 3, **options)))
    exact = both(keys)
    assert_close(soft, exact, atol=1e-5)
    assert_close(exact[1] @ weights, 3.0)


def test_descending_order_is_stable_for_every_dtype():
    for keys in (
        jnp.array([2, 1, 2, -(2**31), 2**31 - 1, 1]),
        jnp.array([1, 0, 255, 255], jnp.uint8),
        jnp.array([True, False, True]),
        jnp.array([jnp.nan, 1.0, jnp.inf, 1.0, -jnp.inf, 0.0, -0.0]),
    ):
        places = jnp.arange(len(keys))
        order = jit_sort(keys, places, descending=True, hard=True)
        expected = np.argsort(-np.asarray(keys, np.float64), kind="stable")
        np.testing.assert_array_equal(order, expected)


def test_descending_ranks_and_lists():
    keys, ids = normal((N,)), np.array([1, 0, 1, 1, 0, 1])
    options = {"certainty": C, "segment_ids": ids}

    @jax.jit
    def both(keys):
        down, up = soft_ranks(keys, descending=True, **options), soft_ranks(-keys, **options)
        out = soft_sort(keys, keys, descending=True, **options)
        return (down, out), (up, -soft_sort(-keys, -keys, **options))

    assert_close(*both(keys), atol=1e-6)


STRAIGHT = {
    "soft_sort": lambda keys, **options: soft_sort(keys, normal((N, 2), 1), **options),
    "soft_ranks": soft_ranks,
    "soft_top_k": lambda keys, **options: soft_top_k(keys, 2, **options),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_straight_through_has_the_exact_value_and_the_soft_slope(name):
    keys = normal((N,))

    @jax.jit
    def values_and_slopes(keys):
        def total(keys, **options):
            out = STRAIGHT[name](keys, certainty=C, **options)
            return (jnp.arange(1.0, 1 + out.size) @ out.ravel(), out)

        slope = jax.grad(total, has_aux=True)
        return slope(keys), slope(keys, straight_through=True), total(keys, hard=True)[1]

    (soft_slope, soft), (slope, value), exact = values_and_slopes(keys)
    np.testing.assert_array_equal(value, exact)
    assert_close(slope, soft_slope)
    assert np.abs(np.asarray(value - soft)).max() > 0.01


def test_straight_through_keeps_sixteen_bits_exact():
    payload = jnp.array([1000.5, 3.0, 0.1], jnp.bfloat16)
    out = jit_sort(jnp.array([1.0, 3.0, 2.0]), payload, straight_through=True)
    np.testing.assert_array_equal(out, payload[jnp.array([0, 2, 1])])


@pytest.mark.parametrize(
    ("call", "found", "expected", "cure"),
    [
        (lambda p: apply_permutation(jnp.eye(3), p), "permutation=", "an instance of", "change"),
        (
            lambda p: apply_permutation(soft_argsort(jnp.ones(3)), p),
            "payload leaf of shape (4,)",
            "leading axis 3",
            "front",
        ),
        (
            lambda p: apply_permutation(SoftPermutation(*[jnp.ones((2, 4))] * 5), p),
            "permutation.order of shape (2, 4)",
            "one instance",
            "reshape",
        ),
        (
            lambda p: apply_permutation(soft_argsort(p)._replace(places=jnp.ones(3)), p),
            "order of shape (4,), places of shape (3,)",
            "the same shape",
            "reshape",
        ),
        (
            lambda p: soft_argsort(p, weights=[1.0]),
            "weights of shape (1,)",
            "one weight",
            "reshape",
        ),
        (lambda p: soft_sort(p, p, weights="one"), "weights='one'", "an array", "convert"),
        (lambda p: soft_sort(p, p, descending=1), "descending=1", "True or False", "change"),
        (lambda p: soft_ranks(p, straight_through=None), "straight_through=None", "True", "change"),
        (lambda p: soft_top_k(p, 1, straight_through="no"), "straight_through=", "True", "change"),
        (lambda p: soft_sort(p, p, straight_through=1), "straight_through=1", "True", "change"),
        (
            lambda p: apply_permutation(soft_argsort(p), p, transpose="yes"),
            "transpose='yes'",
            "True or False",
            "change",
        ),
    ],
)
def test_mistakes_name_themselves_and_their_cure(call, found, expected, cure):
    assert_names_itself_and_its_cure(lambda: call(jnp.ones(4)), found, expected, cure)


def test_what_stands_at_places_of_padding_has_no_slope():
    keys, weights = normal(N), np.maximum(WEIGHTS, 0)
    slopes = jax.jit(
        jax.grad(
            lambda certainty, keys, weights, places: jnp.sin(
                apply_permutation(
                    soft_argsort(keys, certainty=certainty, weights=weights),
                    places,
                    transpose=True,
                )
            ).sum(),
            argnums=(0, 1, 2),
        )
    )
    places = normal(N, 1)
    bad = np.where(np.arange(N) < 4, places, np.nan).astype(np.float32)  # two elements of weight 0
    assert_close(slopes(C, keys, weights, bad), slopes(C, keys, weights, places))
