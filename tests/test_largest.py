import logging
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.backprop import TopK, sparsify, top_k_mask
from sparse_hyper_jax.pruning import NofM, keep_largest
from tests.backprop.examples import random_array
from tests.ops.examples import assert_names_itself_and_its_cure

SHAPE = (6, 11)


@contextmanager
def compilations():
    """Collect the names of programs that are compiled."""
    names = []

    class Collect(logging.Handler):
        def emit(self, record):
            if "Finished XLA compilation" in record.getMessage():
                names.append(record.getMessage())

    logger, handler = logging.getLogger("jax"), Collect()
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.removeHandler(handler)


DTYPES = ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64"]
mask_of = jax.jit(top_k_mask)


def by_lax(array, k):
    mask = np.zeros(array.shape, bool)
    # 8-bit floats are not sorted by XLA; converting them keeps their order.
    wide = array.astype(jnp.float32) if array.dtype.itemsize == 1 else array
    np.put_along_axis(mask, np.asarray(jax.lax.top_k(jnp.abs(wide), k)[1]), True, -1)
    return mask


def awkward(dtype):
    array = random_array(*SHAPE, dtype=np.float64)
    array[1] = np.round(array[1])
    array[2] = 0
    array[3] = [-2, 2] * 5 + [-0.0]
    array[4, [2, 7]] = np.nan, -np.inf
    array[5, 3:] = np.nan
    return jnp.asarray(array, jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_top_k_for_every_budget(dtype):
    with jax.enable_x64(dtype == "float64"):
        array = awkward(dtype)
        for k in range(SHAPE[1] + 1):
            assert (mask_of(array, k) == by_lax(array, k)).all(), k


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_agrees_with_top_k_from_the_smallest_number_to_the_largest(dtype):
    with jax.enable_x64(dtype == "float64"):
        limits = np.finfo(dtype)
        tiny, huge = limits.smallest_subnormal, limits.max
        row = np.array([0, tiny, 2 * tiny, -tiny, limits.tiny, 1, -huge, huge, np.inf], dtype)
        # Below the least normal number all may count as zero.
        for k, marked in [(1, [8]), (2, [6, 8]), (3, [6, 7, 8]), (5, [4, 5, 6, 7, 8])]:
            assert np.flatnonzero(mask_of(row, k)).tolist() == marked


@pytest.mark.parametrize("k", [0, 1, 4, 11])
def test_a_static_budget_marks_exactly_k(k):
    array = awkward("float32")
    mask = top_k_mask(array, k)
    assert (mask.sum(-1) == k).all()
    assert (mask == by_lax(array, k)).all()


def test_the_first_of_equals_are_marked():
    assert top_k_mask(jnp.array([1.0, -2, 2, 2, -2]), 3).tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert top_k_mask(jnp.zeros(4), 2).tolist() == [True, True, False, False]


def test_the_budget_may_differ_from_row_to_row():
    array = awkward("float32")
    budgets = np.array([0, 1, 3, 5, 10, 11])
    expected = [by_lax(row, k) for row, k in zip(array, budgets.tolist(), strict=True)]
    assert (mask_of(array, budgets) == np.stack(expected)).all()
    assert (jax.vmap(top_k_mask)(array, jnp.asarray(budgets)) == np.stack(expected)).all()


def test_leading_axes_are_rows():
    array = random_array(2, 3, 4)
    assert (mask_of(array, 2) == by_lax(jnp.asarray(array), 2)).all()
    assert mask_of(array, np.array([[1], [2]])).sum(-1).tolist() == [[1] * 3, [2] * 3]


def test_lists_and_counts_of_numpy():
    assert top_k_mask([1.0, -2.0, 0.5], np.int64(2)).tolist() == [True, True, False]
    assert top_k_mask([[1.0, 2.0], [4.0, 3.0]], [1, 2]).tolist() == [[False, True], [True, True]]


def test_numbers_of_an_array_outside_count_as_none_or_all():
    assert mask_of(jnp.ones((2, 3)), jnp.array([-1, 9])).sum(-1).tolist() == [0, 3]


def test_calls_outside_of_jit_compile_once():
    """Loops made anew at each call would be compiled anew."""
    array = jnp.asarray(random_array(5, 13))  # of a shape that no other test has
    calls = [
        lambda: top_k_mask(array, 4),
        lambda: sparsify(None, array, TopK(4)),
        lambda: NofM(2, 4).mask(array[:, :12], 30),
        lambda: keep_largest([array], 7),
    ]
    for call in calls:
        call()
        with compilations() as compiled:
            call()
            call()
        assert compiled == []


def test_a_vector_may_be_empty():
    assert top_k_mask(jnp.zeros((3, 0)), 0).shape == (3, 0)


MISTAKES = {
    "a scalar": (lambda: top_k_mask(jnp.float32(1), 1), "shape ()", "(..., n)", "an axis"),
    "integers": (lambda: top_k_mask(jnp.arange(3), 1), "int32", "floats", "convert array"),
    "too many": (lambda: top_k_mask(jnp.ones(3), 4), "k=4", "from 0 to 3", "pass a static"),
    "negative": (lambda: top_k_mask(jnp.ones(3), -1), "k=-1", "from 0 to 3", "pass a static"),
    "a share": (lambda: top_k_mask(jnp.ones(3), 0.5), "k=0.5", "an int", "pass a static int"),
    "a part": (lambda: top_k_mask(jnp.ones(3), jnp.array(1.7)), "k=Array(1.7", "an int", "pass a"),
    "parts": (
        lambda: top_k_mask(jnp.ones((2, 3)), [1.0, 2.0]),
        "k of dtype",
        "integers",
        "convert",
    ),
    "more rows": (
        lambda: top_k_mask(jnp.ones((2, 3)), jnp.arange(3)),
        "k of shape (3,)",
        "one for each row",
        "reshape k",
    ),
    "nothing": (lambda: top_k_mask(None, 1), "array=None", "an array", "convert array"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_budgets_of_64_bits_do_not_wrap():
    values = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    with jax.enable_x64(True):
        found = top_k_mask(values, np.array([2**32 + 1, -(2**40) + 1]))
        traced = jax.jit(lambda k: top_k_mask(values, k))(np.int64(2**32 + 1))
    np.testing.assert_array_equal(found, [[True] * 3, [False] * 3])
    assert np.all(traced)
