from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import (
    apply_permutation,
    ndcg_loss,
    soft_argsort,
    soft_largest,
    soft_max,
    soft_median,
    soft_min,
    soft_quantile,
    soft_sort,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure
from tests.sort import numpy_oracle

C, LEVELS = 1.5, np.array([0, 0.1, 0.5, 0.77, 1], np.float32)
KEYS = np.random.default_rng(0).normal(size=9).astype(np.float32)
WEIGHTS = np.array([1, 2, 0, 0.5, 1, 3, -1, 1, 0.25], np.float32)
LISTS = np.array([0, 2, 0, -1, 2, 0, 3, 2, 4])

STATIC = ("num_segments", "hard", "straight_through")
quantiles = jax.jit(soft_quantile, static_argnames=STATIC)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_values_are_those_of_the_matrix(weights):
    plain = np.ones(9) if weights is None else np.maximum(weights, 0).astype(np.float64)
    expected = [numpy_oracle.soft_quantile(KEYS, plain, q, C) for q in LEVELS]
    assert_close(quantiles(KEYS, LEVELS, certainty=C, weights=weights), expected, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 5, 1000])
def test_exact_quantiles_are_those_of_numpy(n):
    keys = np.round(np.random.default_rng(n).normal(size=n), 2).astype(np.float32)
    expected = np.quantile(keys.astype(np.float64), LEVELS.astype(np.float64))
    assert_close(quantiles(keys, LEVELS, hard=True), expected, rtol=1e-4)
    assert_close(quantiles(keys, LEVELS, certainty=1e6), expected, rtol=1e-4)


def test_every_list_for_itself():
    options = {"segment_ids": LISTS, "num_segments": 4, "certainty": C}
    found = quantiles(KEYS, LEVELS.reshape(5, 1), **options)
    assert found.shape == (4, 5, 1)
    for number in (0, 2, 3):
        own = KEYS[number == LISTS]
        assert_close(found[number][:, 0], quantiles(own, LEVELS, certainty=C), rtol=1e-4)
    np.testing.assert_array_equal(found[1], 0)


@jax.jit
def named(keys, ids):
    options = {"certainty": C}
    lists = options | {"segment_ids": ids, "num_segments": 4, "weights": WEIGHTS > 0}
    return {
        "of lists": [function(keys, **lists) for function in (soft_min, soft_median, soft_max)],
        "quantiles": soft_quantile(keys, np.array([0, 0.5, 1]), **lists),
        "least": soft_min(keys, **options),
        "sorted": soft_sort(keys, keys, descending=True, **options),
        "largest": soft_largest(keys, 4, **options),
        "exact": soft_largest(keys, 3, hard=True),
        "straight": soft_largest(keys, 3, straight_through=True),
        "largest of lists": soft_largest(keys, 2, segment_ids=ids, num_segments=4, **options),
        "soft": jax.value_and_grad(lambda keys: soft_quantile(keys, 0.3, **options))(keys),
        "both": jax.value_and_grad(
            lambda keys: soft_quantile(keys, 0.3, straight_through=True, **options)
        )(keys),
    }


def test_named_quantiles():
    found = named(KEYS, LISTS)
    assert_close(np.stack(found["of lists"], axis=1), found["quantiles"])
    shares = np.exp(-C * KEYS.astype(np.float64))
    assert_close(found["least"], shares @ KEYS / shares.sum(), rtol=1e-4)


def test_the_largest_are_the_first_places_of_the_descending_sort():
    found = named(KEYS, LISTS)
    assert_close(found["largest"], found["sorted"][:4])
    lists = found["largest of lists"]
    assert lists.shape == (4, 2)
    for number in (0, 2):
        own = KEYS[number == LISTS]
        rows = numpy_oracle.matrix(own, np.ones(len(own)), C, descending=True)
        assert_close(lists[number], (rows @ own)[:2], rtol=1e-4)
    np.testing.assert_array_equal(lists[1], 0)
    assert_close(lists[3], [KEYS[6], 0])
    np.testing.assert_array_equal(found["exact"], np.sort(KEYS)[:-4:-1])
    np.testing.assert_array_equal(found["straight"], found["exact"])


def test_straight_through_has_the_exact_value_and_the_soft_slope():
    found = named(KEYS, LISTS)
    assert_close(found["both"][0], np.quantile(KEYS, 0.3))
    assert_close(found["both"][1], found["soft"][1])
    assert abs(found["both"][0] - found["soft"][0]) > 0.01


def test_derivatives_of_both_orders_are_those_of_the_values():
    def total(keys, q, weights, certainty):
        options = {"weights": weights, "certainty": certainty}
        return jnp.sin(3 * soft_quantile(keys, q, **options)).sum()

    with jax.enable_x64(True):
        generator = np.random.default_rng(1)
        point = KEYS.astype(np.float64), np.array([0.2, 0.63]), generator.uniform(1, 2, 9), C
        along = jax.tree.map(lambda part: generator.normal(size=np.shape(part)), point)
        step = 1e-6

        @jax.jit
        @jax.vmap
        def derivatives(move):
            def value(move):
                return total(*jax.tree.map(lambda part, way: part + move * way, point, along))

            def slope(move):
                return jax.jvp(value, (move,), (1.0,))

            (here, first), (_, second) = jax.jvp(slope, (move,), (1.0,))
            return here, first, second, jax.grad(value)(move)

        value, first, second, reverse = derivatives(np.array([-step, 0, step]))
        np.testing.assert_allclose(first[1], (value[2] - value[0]) / (2 * step), rtol=1e-6)
        np.testing.assert_allclose(second[1], (first[2] - first[0]) / (2 * step), rtol=1e-5)
        np.testing.assert_allclose(reverse, first, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_counts_for_nothing_whatever_it_holds(bad):
    padding = (LISTS < 0) | (LISTS > 3) | (WEIGHTS <= 0)
    keys = np.where(padding, bad, KEYS).astype(np.float32)

    @jax.jit
    def values_and_slopes(keys):
        options = {"segment_ids": LISTS, "num_segments": 4, "weights": WEIGHTS}
        read = lambda keys: jnp.append(  # noqa: E731
            soft_quantile(keys, LEVELS, **options).ravel(), soft_largest(keys, 2, **options)
        )
        return read(keys), jax.grad(lambda keys: jnp.sin(read(keys)).sum())(keys)

    values, slopes = values_and_slopes(keys)
    assert_close((values, slopes), values_and_slopes(KEYS))
    np.testing.assert_array_equal(np.asarray(slopes)[padding], 0)


@pytest.mark.parametrize("way", [{}, {"hard": True}, {"straight_through": True}])
def test_a_nan_spoils_its_own_list_only(way):
    keys = np.where(np.arange(9) == 1, np.nan, KEYS).astype(np.float32)
    lists = {"segment_ids": LISTS, "num_segments": 4}
    found = quantiles(keys, np.array([0, 0.4, 1]), **lists, **way)
    np.testing.assert_array_equal(np.isnan(found).T, [[False, False, True, False]] * 3)
    # Three elements: the exact ones have two numbers beside the NaN, and would show them.
    found = soft_largest(keys, 3, **lists, **way)
    np.testing.assert_array_equal(np.isnan(found).T, [[False, False, True, False]] * 3)


def test_ties_have_finite_slopes():
    keys = np.repeat(np.array([1.0, 1.0, 2.0], np.float32), 3)
    slopes = jax.jit(
        lambda keys: [
            jax.grad(lambda keys, hard=hard: soft_median(keys, hard=hard))(keys)
            for hard in (False, True)
        ]
    )(keys)
    np.testing.assert_allclose(np.sum(slopes, axis=1), 1, rtol=1e-5)


def test_no_memory_beyond_the_list():
    n = 2**17
    keys, ids = (jax.ShapeDtypeStruct((n,), dtype) for dtype in (jnp.float32, jnp.int32))

    def loss(keys, gains, ids):
        read = soft_quantile(keys, LEVELS, segment_ids=ids, num_segments=100)
        back = apply_permutation(soft_argsort(keys, segment_ids=ids), gains, transpose=True)
        return jnp.sum(read) + jnp.sin(back).sum() + ndcg_loss(keys, gains, k=9, segment_ids=ids)

    program = jax.jit(jax.value_and_grad(loss)).lower(keys, keys, ids).compile()
    # 100 numbers for each element; a matrix would be 64 GiB.
    assert program.memory_analysis().temp_size_in_bytes < 100 * 4 * n


@pytest.mark.parametrize(
    ("change", "found", "expected", "cure"),
    [
        ({"q": 1.5}, "q=", "numbers from 0 to 1", "divide"),
        ({"q": [0.5, np.nan]}, "q=", "numbers from 0 to 1", "divide"),
        ({"q": None}, "q=None", "an array of real numbers", "convert q"),
        (
            {"segment_ids": [0] * 9},
            "without num_segments",
            "the static number",
            "pass num_segments",
        ),
        ({"num_segments": 3}, "num_segments=3 without", "both or none", "segment_ids"),
        (
            {"num_segments": 0, "segment_ids": [0] * 9},
            "num_segments=0",
            "an int from 1",
            "static int",
        ),
        ({"weights": np.ones(3)}, "weights of shape (3,)", "one weight per element", "reshape"),
        ({"keys": np.arange(9)}, "keys of dtype int", "floating-point keys", "hard=True"),
    ],
)
def test_mistakes_name_themselves_and_their_cure(change, found, expected, cure):
    options = {"keys": KEYS, "q": 0.5} | change
    call = partial(soft_quantile, options.pop("keys"), options.pop("q"), **options)
    assert_names_itself_and_its_cure(call, found, expected, cure)


def test_how_many_are_the_largest():
    for k in (0, 10, 2.0):
        call = partial(soft_largest, KEYS, k)
        assert_names_itself_and_its_cure(call, f"k={k}", "an int from 1 to 9", "static int")


def test_an_option_of_another_name_is_refused():
    for read in (partial(soft_largest, k=2), soft_median, soft_min, soft_max):
        with pytest.raises(TypeError, match="unexpected keyword argument 'certainity'"):
            read(KEYS, certainity=1.0)
