import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

from sparse_hyper_jax.ops import from_bcoo, to_bcoo, to_dense
from sparse_hyper_jax.types import SparseEntries
from tests.ops.examples import assert_close, make_tuples, relax, scatter


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
