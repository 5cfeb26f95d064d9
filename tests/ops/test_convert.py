import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

from sparse_hyper_jax.ops import from_bcoo, from_dense, sparse_multiply, to_bcoo, to_dense
from sparse_hyper_jax.types import SparseEntries
from tests.ops.examples import (
    assert_close,
    assert_names_itself_and_its_cure,
    make_tuples,
    relax,
    scatter,
)


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_to_dense_adds_equal_indices(shape):
    entries = relax(jax.random.key(0), make_tuples(4, shape), shape, num_global=6)
    assert_close(to_dense(entries, shape), scatter(entries, shape))


def test_a_scalar_tensor_is_the_sum():
    entries = SparseEntries(jnp.zeros((3, 0), jnp.int32), jnp.array([1.0, 2.0, 4.0]))
    assert_close(to_dense(entries, ()), 7.0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_entries_of_16_bits_are_summed_in_32(dtype):
    entries = SparseEntries(jnp.ones((4096, 2), jnp.int32), jnp.ones(4096, dtype))
    dense = to_dense(entries, (2, 2))
    assert dense.dtype == dtype
    assert dense[1, 1] == 4096


def test_bcoo_holds_the_same_matrix_and_comes_back():
    shape = (4, 3)
    entries = relax(jax.random.key(0), make_tuples(5, shape), shape, num_global=3)
    matrix = to_bcoo(entries, shape)
    assert matrix.nse == len(entries.values)
    assert_close(matrix.todense(), scatter(entries, shape))
    assert_close(from_bcoo(matrix), entries)
    assert_close(matrix @ jnp.arange(3.0), scatter(entries, shape) @ np.arange(3))


def test_padding_of_bcoo_becomes_zero_inside():
    padded = jnp.array([[0, 1], [2, 2], [2, 2]])
    entries = from_bcoo(sparse.BCOO((jnp.array([2.0, 9.0, 0.0]), padded), shape=(2, 2)))
    assert entries.indices.dtype == jnp.int32
    assert (entries.indices < 2).all()
    assert_close(to_dense(entries, (2, 2)), [[0.0, 2.0], [0.0, 0.0]])


@pytest.mark.parametrize(("data", "indices"), [((2, 3), (2, 3, 1)), ((3, 4), (3, 1))])
def test_batch_and_dense_axes_are_an_error(data, indices):
    matrix = sparse.BCOO((jnp.ones(data), jnp.zeros(indices, jnp.int32)), shape=(2, 4))
    with pytest.raises(ValueError, match="one without batch and dense axes"):
        from_bcoo(matrix)


def pruned(*shape, seed=0):
    """Numbers, and which of them are kept: one of these is 0."""
    generator = np.random.default_rng(seed)
    dense, mask = generator.normal(size=shape).astype("f"), generator.random(shape) < 0.4
    mask[(-1,) * len(shape)] = True
    dense[(-1,) * len(shape)] = 0
    return dense, mask


@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 4, 5)])
def test_masked_weights_become_entries_in_order(shape):
    dense, mask = pruned(*shape)
    entries = from_dense(dense, mask=mask)
    assert np.array_equal(entries.indices, np.argwhere(mask))
    assert np.array_equal(entries.values, dense[mask])
    assert entries.indices.dtype == np.int32
    assert np.array_equal(to_dense(entries, shape), np.where(mask, dense, 0))
    # Without a mask, zeros are no entries.
    assert np.array_equal(from_dense(dense).indices, np.argwhere(dense))


def test_they_multiply_as_the_masked_matrix_and_as_bcoo():
    kernel, mask = pruned(6, 5)
    x = np.random.default_rng(1).normal(size=(3, 6)).astype("f")
    expected = x @ np.where(mask, kernel, 0)
    entries = from_dense(kernel.T, mask=mask.T)
    got = sparse_multiply(*entries, x.T, (5,), indices_are_sorted=True)
    assert_close(got.T, expected)
    assert_close(jnp.asarray(x) @ to_bcoo(from_dense(kernel, mask=mask), (6, 5)), expected)


def test_a_count_pads_under_jit_and_tells_what_it_cannot_hold():
    dense, mask = pruned(4, 6)
    number = int(mask.sum())
    take = jax.jit(from_dense, static_argnames="count")
    entries = take(dense, mask=mask, count=number + 3)
    assert np.array_equal(entries.indices[number:], [[4, 6]] * 3)
    assert not entries.values[number:].any()
    assert np.array_equal(to_dense(entries, (4, 6)), np.where(mask, dense, 0))
    matrix = to_bcoo(entries, (4, 6))
    assert np.array_equal(matrix.todense(), np.where(mask, dense, 0))
    assert jnp.isnan(take(dense, mask=mask, count=number - 1).values).all()


def test_gradients_reach_what_is_kept():
    dense, mask = pruned(4, 6)
    slope = jax.grad(lambda dense: jnp.sum(jnp.sin(from_dense(dense, mask=mask).values)))(dense)
    np.testing.assert_allclose(slope, np.where(mask, np.cos(dense), 0), rtol=1e-6)


DENSE, MASK = pruned(4, 6)
MISTAKES = {
    "a scalar": (lambda: from_dense(1.0), "shape ()", "at least one axis", "give it an axis"),
    "a shape": (lambda: from_dense(DENSE, mask=MASK.T), "(6, 4)", "the same shape", "reshape"),
    "numbers": (lambda: from_dense(DENSE, mask=DENSE), "float32", "flags", "convert mask"),
    "too few": (lambda: from_dense(DENSE, count=2), "count=2", "from 23 to 24", "pass a static"),
    "traced": (
        lambda: jax.eval_shape(from_dense, DENSE),
        "a traced mask without a count",
        "a static number",
        "pass count=",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
