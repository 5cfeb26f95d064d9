import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from sparse_hyper_jax.ops import sparse_multiply, to_dense
from sparse_hyper_jax.types import SparseEntries
from tests.folding import folded
from tests.ops.examples import assert_close, scatter

RANKS = [
    ((), ()),
    ((), (4,)),
    ((3,), ()),
    ((3,), (4,)),
    ((2, 3), (4,)),
    ((3,), (2, 2, 2)),
    ((2, 1, 3), (2, 2, 2)),
]


def example(out_shape, in_shape, *, features=(), count=30, seed=0):
    generator = np.random.default_rng(seed)
    shape = (*out_shape, *in_shape)
    indices = generator.integers(0, shape, (count, len(shape)))
    values, x = generator.normal(size=count), generator.normal(size=(*in_shape, *features))
    return indices.astype(np.int32), values.astype(np.float32), x.astype(np.float32)


def dense_product(indices, values, x, out_shape):
    in_rank = indices.shape[1] - len(out_shape)
    shape = (*out_shape, *x.shape[:in_rank])
    matrix = jnp.zeros(shape).at[tuple(jnp.asarray(indices).T)].add(values)
    return jnp.tensordot(matrix, x, axes=in_rank)


FEATURES = [(), (2,), (2, 3)]


@folded
def products():
    return {
        (out_shape, in_shape, features): (
            partial(sparse_multiply, out_shape=out_shape),
            *example(out_shape, in_shape, features=features),
        )
        for (out_shape, in_shape), features in itertools.product(RANKS, FEATURES)
    }


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize(("out_shape", "in_shape"), RANKS)
def test_equals_the_dense_product(out_shape, in_shape, features):
    indices, values, x = example(out_shape, in_shape, features=features)
    y = products(out_shape, in_shape, features)
    matrix = scatter(SparseEntries(indices, values), (*out_shape, *in_shape))
    assert y.shape == (*out_shape, *features)
    assert_close(y, np.tensordot(matrix, x, axes=len(in_shape)), rtol=1e-4)


@pytest.mark.parametrize(("out_shape", "in_shape"), [((), (4,)), ((2, 3), (2, 2))])
def test_gradients_equal_those_of_the_dense_product(out_shape, in_shape):
    indices, values, x = example(out_shape, in_shape, features=(2,))
    direction = np.cos(np.arange(values.size, dtype=np.float32))

    def loss(product):
        return lambda values, x: jnp.sin(product(indices, values, x, out_shape)).sum()

    def first(product):
        return jax.grad(loss(product), argnums=(0, 1))

    def second(product):
        return jax.grad(lambda *args: first(product)(*args)[0] @ direction, argnums=(0, 1))

    for order in (first, second):
        ours, dense = jax.jit(order(sparse_multiply_plain)), jax.jit(order(dense_product))
        assert_close(ours(values, x), dense(values, x), rtol=1e-4, atol=1e-5)


multiply = jax.jit(
    sparse_multiply, static_argnums=3, static_argnames=("row_layout", "indices_are_sorted")
)


def sparse_multiply_plain(indices, values, x, out_shape):
    return sparse_multiply(indices, values, x, out_shape)


@pytest.mark.parametrize(("out_shape", "per_cell"), [((), 5), ((4,), 3), ((2, 3), 1)])
def test_row_layout_equals_the_scatter(out_shape, per_cell):
    cells = np.array(list(np.ndindex(out_shape)), int)
    _, values, x = example(out_shape, (6,), features=(2,), count=len(cells) * per_cell)
    inputs = np.random.default_rng(1).integers(0, 6, (len(values), 1))
    indices = np.concatenate([np.repeat(cells, per_cell, axis=0), inputs], axis=1)
    results = {
        name: multiply(indices, values, x, out_shape, **{name: True} if name else {})
        for name in ("", "row_layout", "indices_are_sorted")
    }
    assert_close(results["row_layout"], results[""])
    assert_close(results["indices_are_sorted"], results[""])


def test_row_layout_needs_no_scatter():
    indices, values, x = example((3,), (4,))
    trace = jax.make_jaxpr(lambda *args: sparse_multiply(indices, *args, (3,), row_layout=True))
    assert "scatter" not in str(trace(values, x))


def test_no_entries_give_zero():
    y = multiply(np.zeros((0, 2), np.int32), jnp.zeros(0), jnp.ones(4), (3,))
    assert_close(y, np.zeros(3))


@pytest.mark.parametrize("row_layout", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_entries_of_16_bits_are_summed_in_32(dtype, row_layout):
    count = 4096
    indices, ones = jnp.zeros((count, 2), jnp.int32), jnp.ones(count, dtype)

    @jax.jit
    def product(values, x):
        return sparse_multiply(indices, values, x, (1,), row_layout=row_layout)[0]

    x = jnp.ones(1, dtype)
    assert product(ones, x).dtype == dtype
    assert product(ones, x) == count
    assert jax.jit(jax.grad(product, argnums=1))(ones, x)[0] == count


def test_gradient_of_values_sums_features_in_32_bits():
    x = jnp.ones((1, 4096), jnp.bfloat16)

    def total(values):
        product = sparse_multiply(jnp.zeros((1, 2), jnp.int32), values, x, (1,))
        return product.astype(jnp.float32).sum()

    assert jax.jit(jax.grad(total))(jnp.ones(1, jnp.bfloat16))[0] == 4096


@pytest.mark.parametrize(
    ("x_dtype", "value_dtype", "result"),
    [
        (jnp.float32, jnp.bfloat16, jnp.float32),
        (jnp.bfloat16, jnp.float32, jnp.bfloat16),
        (jnp.int32, jnp.float32, jnp.float32),
    ],
)
def test_the_result_has_the_dtype_of_x(x_dtype, value_dtype, result):
    values, x = jnp.ones(2, value_dtype), jnp.ones(3, x_dtype)
    assert multiply(np.zeros((2, 2), np.int32), values, x, (3,)).dtype == result


def test_numpy_arrays_are_welcome_under_jit():
    indices, values, x = example((3,), (4,))
    compiled = jax.jit(lambda values: sparse_multiply(indices, values, x, (3,)))
    assert_close(compiled(values), scatter(SparseEntries(indices, values), (3, 4)) @ x)


OUTSIDE = [[-1, 0], [0, -1], [3, 0], [0, 4], [2**30, 0]]


@pytest.mark.parametrize("wrong", OUTSIDE)
def test_debug_finds_indices_outside(wrong):
    indices = jnp.array([[0, 0], wrong])

    def product(indices):
        return sparse_multiply(indices, jnp.ones(2), jnp.ones(4), (3,), debug=True)

    with pytest.raises(checkify.JaxRuntimeError, match=r"found indices .* shape \(3, 4\)"):
        product(indices)
    error, _ = jax.jit(checkify.checkify(product))(indices)
    with pytest.raises(checkify.JaxRuntimeError, match=r"found indices .* shape \(3, 4\)"):
        error.throw()


def test_debug_accepts_indices_inside():
    indices, values, x = example((3,), (4,))

    def product(indices):
        return sparse_multiply(indices, values, x, (3,), debug=True)

    error, y = jax.jit(checkify.checkify(product))(indices)
    error.throw()
    assert_close(y, product(indices))


def test_whole_numbers_stay_exact():
    cell, big = [[0, 1]], np.array([2**24 + 1], np.int32)
    y = sparse_multiply(cell, big, [0, 1], (2,))
    assert (y.dtype, y.tolist()) == (jnp.int32, [2**24 + 1, 0])
    dense = to_dense((cell, big), (2, 2))
    assert (dense.dtype, dense.tolist()) == (jnp.int32, [[0, 2**24 + 1], [0, 0]])
    small = sparse_multiply([[0, 0]] * 2, np.full(2, 100, np.int8), np.ones(1, np.uint8), (1,))
    assert (small.dtype, small.tolist()) == (jnp.int32, [200])


@pytest.mark.parametrize(("values", "x"), [([1 + 2j], [3.0]), ([2.0], [1 - 1j]), ([1j], [2])])
def test_complex_numbers_keep_both_parts(values, x):
    y = sparse_multiply([[0, 0]], values, x, (1,))
    assert y.dtype == jnp.complex64
    assert_close(y, np.multiply(values, x))
