"""The two products of a list of entries against dense matrices, under every transform."""

import itertools
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import products
from sparse_hyper_jax.ops.products import FEWEST_FEATURES, STRIP, sddmm, spmm
from tests import folding
from tests.ops.examples import assert_close

ROWS, COLUMNS, COUNT = 5, 7, 12
FEATURES = [1, FEWEST_FEATURES - 1, FEWEST_FEATURES, 33, STRIP, 100, 130, 200]
MANY = 40


def example(*, features=MANY, count=COUNT, rows=ROWS, columns=COLUMNS, seed=0, dtype=np.float32):
    """Entries, among them some that are equal, with values, rows of one side and of the other."""
    generator = np.random.default_rng(seed)
    target, source = generator.integers(0, rows, count), generator.integers(0, columns, count)
    half = count // 4
    target[:half], source[:half] = target[half : 2 * half], source[half : 2 * half]
    shapes = ((count,), (rows, features), (columns, features))
    floats = [generator.normal(size=shape) for shape in shapes]
    if np.issubdtype(dtype, np.complexfloating):
        floats = [array + 1j * generator.normal(size=array.shape) for array in floats]
    indices = [jnp.asarray(column, jnp.int32) for column in (target, source)]
    return *indices, *(jnp.asarray(array, dtype) for array in floats)


def dense_spmm(target, source, values, x, rows=ROWS):
    matrix = jnp.zeros((rows, len(x)), values.dtype).at[target, source].add(values)
    return jnp.matmul(matrix, x, precision="highest")


def dense_sddmm(target, source, left, right):
    return jnp.einsum("tf,sf->ts", left, right, precision="highest")[target, source]


multiply = partial(spmm, out_cells=ROWS)
PAIRS = {"spmm": (multiply, dense_spmm), "sddmm": (sddmm, dense_sddmm)}
each_product = pytest.mark.parametrize("name", PAIRS)


def operands(name, **options):
    target, source, values, left, right = example(**options)
    return target, source, *((values, right) if name == "spmm" else (left, right))


def close(ours, expected, rtol=1e-4):
    assert_close(ours, expected, rtol=rtol, atol=1e-5 if rtol > 1e-8 else rtol)


@pytest.mark.parametrize(
    ("count", "features"),
    [
        *((COUNT, features) for features in FEATURES),
        *((count, features) for count in (0, 1, 500) for features in (3, 100)),
    ],
)
@each_product
def test_equals_the_dense_product(name, count, features):
    ours, dense = PAIRS[name]
    arguments = operands(name, count=count, features=features)
    result, expected = ours(*arguments), dense(*arguments)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    close(result, expected)


@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("features", [3, 100])
@pytest.mark.parametrize("layout", ["any", "sorted", "rows", "transposed"])
def test_every_layout_equals_the_dense_product_with_its_gradients(layout, features, rows):
    _, source, values, _, x = example(features=features, count=3 * rows, rows=rows)
    target = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), 3)

    def loss(product):
        return lambda values, x: jnp.sum(jnp.sin(product(target, source, values, x)))

    ours = loss(partial(spmm, out_cells=rows, layout=layout))
    dense = loss(partial(dense_spmm, rows=rows))
    results = [jax.jit(jax.value_and_grad(one, argnums=(0, 1)))(values, x) for one in (ours, dense)]
    close(*results)


@pytest.mark.parametrize("features", [3, 100])
def test_few_entries_of_many_rows_give_the_gradients_of_the_dense_product(features):
    # Where most rows are not read, the derivative runs another way.
    target, source, values, _, x = example(features=features, count=4, columns=90)
    direction = example(features=features, rows=ROWS)[3]
    results = [
        jax.jit(jax.grad(lambda v, x, f=f: jnp.vdot(direction, f(target, source, v, x)), (0, 1)))
        for f in (multiply, dense_spmm)
    ]
    close(results[0](values, x), results[1](values, x))


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("features", [3, 100])
@each_product
def test_other_dtypes_agree_to_their_precision(name, features, dtype):
    with jax.enable_x64(dtype != np.complex64):
        ours, dense = PAIRS[name]
        target, source, *floats = operands(name, features=features, dtype=dtype)
        tolerance = 1e-4 if dtype == np.complex64 else 1e-12
        assert ours(target, source, *floats).dtype == dtype
        pulled = []
        for product in (ours, dense):
            y, pull = jax.vjp(partial(product, target, source), *floats)
            pulled.append((y, pull(jnp.conj(y) * 1.5)))
        close(*pulled, rtol=tolerance)


def bent(product, target, source):
    def loss(left, right):
        y = product(target, source, left, right)
        return jnp.sum(jnp.sin(y) * jnp.cos(jnp.arange(y.size)).reshape(y.shape))

    return loss


def along(arguments):
    return tuple(jnp.cos(jnp.arange(one.size)).reshape(one.shape) for one in arguments)


def jvp(loss):
    return lambda *arguments: jax.jvp(loss, arguments, along(arguments))


def grad(loss):
    return jax.grad(loss, argnums=(0, 1))


def grad_of_grad(loss):
    def slope(*arguments):
        pairs = zip(grad(loss)(*arguments), along(arguments), strict=True)
        return sum(jnp.vdot(*pair) for pair in pairs)

    return grad(slope)


DERIVATIVES = {
    "jvp": jvp,
    "grad": grad,
    "grad of grad": grad_of_grad,
    "jvp of grad": lambda loss: jvp(grad(loss)),
    "grad of jvp": lambda loss: grad(lambda *arguments: jvp(loss)(*arguments)[1]),
    "third": lambda loss: jvp(grad_of_grad(loss)),
    "linearize": lambda loss: lambda *parts: jax.linearize(loss, *parts)[1](*along(parts)),
    "checkpoint": lambda loss: grad(jax.checkpoint(loss)),
}


@pytest.mark.parametrize("way", DERIVATIVES)
@each_product
def test_derivatives_of_every_order_and_mode_are_those_of_the_dense_product(name, way):
    target, source, *floats = operands(name)
    results = [
        jax.jit(DERIVATIVES[way](bent(product, target, source)))(*floats) for product in PAIRS[name]
    ]
    close(*results, rtol=1e-3)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("features", [2, FEWEST_FEATURES])
@each_product
def test_jacobians_are_those_of_the_dense_product(name, features, mode):
    target, source, *floats = operands(name, features=features, count=3, columns=2)
    results = [
        jax.jit(mode(partial(product, target, source), argnums=(0, 1)))(*floats)
        for product in PAIRS[name]
    ]
    close(*results)


SUBSETS = [axes for axes in itertools.product((None, 0), repeat=4) if axes != (None,) * 4]


def batched(name, axes, count=3, **options):
    """Arguments of which those with an axis are stacked from several examples."""
    examples = [operands(name, seed=seed, **options) for seed in range(count)]
    pairs = zip(zip(*examples, strict=True), axes, strict=True)
    return [parts[0] if axis is None else jnp.stack(parts, axis) for parts, axis in pairs]


def pick(arguments, axes, number):
    pairs = zip(arguments, axes, strict=True)
    return [one if axis is None else jnp.take(one, number, axis) for one, axis in pairs]


@pytest.mark.parametrize("axes", SUBSETS, ids=str)
@each_product
def test_a_batch_of_any_operands_equals_a_loop(name, axes):
    ours, dense = PAIRS[name]
    arguments = batched(name, axes)
    result = jax.vmap(ours, in_axes=axes)(*arguments)
    expected = [dense(*pick(arguments, axes, number)) for number in range(3)]
    close(result, jnp.stack(expected))


@pytest.mark.parametrize("axes", [(0, 0, 1, 2), (None, None, None, 2), (None, 1, -1, 1)], ids=str)
@pytest.mark.parametrize("out_axes", [0, -1])
@each_product
def test_batches_on_any_axis_equal_a_loop(name, axes, out_axes):
    ours, dense = PAIRS[name]
    if name == "spmm" and axes[2] == -1:
        axes = (*axes[:2], 0, axes[3])
    if (name == "sddmm" and axes[2] == 1) or axes[2] is None:
        axes = (*axes[:2], None, axes[3])
    arguments = batched(name, axes)
    result = jax.jit(jax.vmap(ours, in_axes=axes, out_axes=out_axes))(*arguments)
    expected = [dense(*pick(arguments, axes, number)) for number in range(3)]
    close(result, jnp.stack(expected, out_axes))


@pytest.mark.parametrize("layout", ["sorted", "rows"])
@pytest.mark.parametrize("axes", [(None, None, None, 0), (None, 0, 0, None), (0, 0, 0, 0)], ids=str)
def test_a_batch_keeps_its_layout(layout, axes):
    arguments = batched("spmm", axes, count=3)
    rows = jnp.repeat(jnp.arange(4, dtype=jnp.int32), COUNT // 4)
    arguments[0] = rows if axes[0] is None else jnp.stack([rows] * 3)
    product = partial(spmm, out_cells=4, layout=layout)
    result = jax.jit(jax.vmap(product, in_axes=axes))(*arguments)
    expected = [dense_spmm(*pick(arguments, axes, number), rows=4) for number in range(3)]
    close(result, jnp.stack(expected))


@each_product
def test_a_batch_of_batches_equals_a_loop(name):
    ours, dense = PAIRS[name]
    target, source, *floats = operands(name)
    scales = np.array([[1.0, 0.5, 0.25], [0.75, 0.875, 0.625]], np.float32)
    left, right = (one * scales.reshape(2, 3, *(1,) * one.ndim) for one in floats)
    moved = jnp.moveaxis(right, 1, -1)
    nested = jax.vmap(jax.vmap(ours, in_axes=(None, None, 0, -1)), in_axes=(None, None, 0, 0))
    result = jax.jit(nested)(target, source, left, moved)
    for i, j in np.ndindex(2, 3):
        close(result[i, j], dense(target, source, left[i, j], right[i, j]))


@pytest.mark.parametrize("axes", [(0, 0, 0, 0), (None, None, 0, None), (0, None, None, 0)], ids=str)
@each_product
def test_derivatives_of_a_batch_and_batches_of_derivatives_equal_a_loop(name, axes):
    ours, dense = PAIRS[name]
    arguments = batched(name, axes)

    def derivative(product, target, source, *floats):
        return grad_of_grad(bent(product, target, source))(*floats)

    result = jax.jit(jax.vmap(partial(derivative, ours), in_axes=axes))(*arguments)
    single = jax.jit(partial(derivative, dense))
    for number in range(3):
        alone = single(*pick(arguments, axes, number))
        close(jax.tree.map(lambda leaf, at=number: leaf[at], result), alone, rtol=1e-3)

    def total(product, left, right):
        batch = jax.vmap(product, in_axes=axes)(*arguments[:2], left, right)
        return jnp.sum(jnp.sin(batch) * jnp.cos(jnp.arange(batch.size)).reshape(batch.shape))

    slopes = [jax.jit(grad(partial(total, one)))(*arguments[2:]) for one in (ours, dense)]
    close(*slopes, rtol=1e-3)


def primitives(function, *arguments):
    """Count the two products in what a function runs, wherever it is nested."""
    text = str(jax.make_jaxpr(function)(*arguments).pretty_print(use_color=False))
    return {name: len(re.findall(rf"= {name}(?=[\[ ])", text)) for name in PAIRS}


def test_the_gradient_towards_x_is_not_computed_when_not_asked_for():
    target, source, values, x = operands("spmm")
    loss = bent(multiply, target, source)
    assert primitives(jax.grad(loss, argnums=0), values, x) == {"spmm": 1, "sddmm": 1}
    assert primitives(jax.grad(loss, argnums=1), values, x) == {"spmm": 2, "sddmm": 0}
    assert primitives(jax.grad(loss, argnums=(0, 1)), values, x) == {"spmm": 2, "sddmm": 1}


def test_disabled_jit_changes_nothing():
    for name, (ours, dense) in PAIRS.items():
        target, source, *floats = operands(name, features=3)
        with jax.disable_jit():
            result = grad(bent(ours, target, source))(*floats)
            batch = jax.vmap(partial(ours, target, source))(*(one[None] for one in floats))
        close(result, grad(bent(dense, target, source))(*floats))
        close(batch[0], dense(target, source, *floats))


def test_calls_of_the_same_shapes_compile_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(target, source, values, x):
        return grad(bent(multiply, target, source))(values, x)

    chex.clear_trace_counter()
    for seed in range(3):
        step(*operands("spmm", seed=seed))
    before = (spmm._cache_size(), sddmm._cache_size())
    multiply(*operands("spmm", seed=7))
    first = (spmm._cache_size(), sddmm._cache_size())
    for seed in range(3):
        multiply(*operands("spmm", seed=seed))
    assert (spmm._cache_size(), sddmm._cache_size()) == first
    assert first[0] - before[0] <= 1


def test_a_program_for_several_platforms_runs_on_this_one():
    shapes = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in operands("spmm")]

    def slopes(target, source, values, x):
        return grad(bent(multiply, target, source))(values, x)

    exported = jax.export.export(jax.jit(slopes), platforms=("cpu", "cuda"))(*shapes)
    target, source, *floats = operands("spmm")
    expected = grad(bent(dense_spmm, target, source))(*floats)
    close(exported.call(target, source, *floats), expected)


def has_loop(lowered):
    """Whether the program runs a loop: the compiled one, or, if compiling is cheap, what it is of.

    Without its expensive passes the compiler writes a scatter as a loop of its own.
    """
    if folding.apart:
        return " while(" in lowered.compile().as_text()
    return "stablehlo.while" in lowered.as_text()


@pytest.mark.parametrize("features", [FEWEST_FEATURES - 1, FEWEST_FEATURES])
@each_product
def test_one_device_runs_a_loop_where_it_pays(name, features):
    ours, _ = PAIRS[name]
    lowered = jax.jit(ours).lower(*operands(name, features=features))
    assert has_loop(lowered) == (features >= FEWEST_FEATURES)


def test_a_program_for_any_batch_runs_on_every_batch():
    target, source, values, _ = operands("spmm")
    size = jax.export.symbolic_shape("n")[0]

    def slopes(x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(multiply(target, source, values, x))))(x)

    shape = jax.ShapeDtypeStruct((COLUMNS, size), jnp.float32)
    exported = jax.export.export(jax.jit(slopes))(shape)
    for features in (1, MANY):
        x = operands("spmm", features=features)[3]
        close(exported.call(x), slopes(x))


@pytest.mark.parametrize("axes", [(0, 0, 0, 0), (None, None, 0, None), (0, None, None, 0)], ids=str)
@each_product
def test_batches_of_more_rows_than_int32_counts_equal_a_loop(monkeypatch, name, axes):
    monkeypatch.setattr(products, "LAST_INDEX", 2 * ROWS)
    ours, dense = PAIRS[name]
    # A shape that no other test has: JAX remembers how it batched a function.
    arguments = batched(name, axes, features=MANY + 1)
    function = jax.vmap(ours, in_axes=axes)
    expected = [dense(*pick(arguments, axes, number)) for number in range(3)]
    close(jax.jit(function)(*arguments), jnp.stack(expected))
    assert primitives(function, *arguments) == {"spmm": 0, "sddmm": 0}


def test_no_entries_and_no_features_have_derivatives():
    for count, features in ((0, MANY), (COUNT, 0), (0, 0)):
        for name, (ours, _) in PAIRS.items():
            target, source, *floats = operands(name, count=count, features=features)
            slopes = jax.jit(grad(bent(ours, target, source)))(*floats)
            assert [one.shape for one in slopes] == [one.shape for one in floats]
            assert all((one == 0).all() for one in slopes)
