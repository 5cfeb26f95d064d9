import inspect
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from tests.public_functions import OPS, ROWS, Row

NAMED = {row.name: row for row in ROWS}
WITH_GRADIENT = [row.name for row in ROWS if row.exact is not None]
EXACT = [row.name for row in ROWS if row.exact]

each_row = pytest.mark.parametrize("name", NAMED)
each_gradient = pytest.mark.parametrize("name", WITH_GRADIENT)
each_exact = pytest.mark.parametrize("name", EXACT)


def is_float(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def close(actual, expected, rtol=1e-4, atol=1e-5):
    def compare(one, two):
        np.testing.assert_allclose(
            np.asarray(one, np.float64), np.asarray(two, np.float64), rtol=rtol, atol=atol
        )

    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(compare, actual, expected)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert bool(jnp.isfinite(leaf).all())


def waves(shape, phase):
    return np.sin(1.0 + phase + 2.0 * np.arange(np.prod(shape, dtype=int))).reshape(shape)


def weighed(row: Row):
    """All float outputs as one number, so that each of them has a gradient, and the outputs."""

    def total(*arguments):
        outputs = row.function(*arguments)
        leaves = filter(is_float, jax.tree.leaves(outputs))
        wide = [leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in leaves]
        waved = (leaf * waves(leaf.shape, n).astype(leaf.dtype) for n, leaf in enumerate(wide))
        return sum(part.sum() for part in waved), outputs

    return total


def value_and_gradient(row: Row):
    places = tuple(range(len(row.arguments)))
    return jax.value_and_grad(weighed(row), argnums=places, has_aux=True)


def gradient(row: Row):
    return lambda *arguments: value_and_gradient(row)(*arguments)[1]


def directions(row: Row):
    return tuple(
        waves(argument.shape, n).astype(np.float32) for n, argument in enumerate(row.arguments)
    )


def dot(one, two):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), one, two)))


@cache
def compiled(name):
    """Outputs, their weighed sum and its gradient, in one program per dtype."""
    row = NAMED[name]

    @jax.jit
    def all_of_it(*arguments):
        if row.exact is None:
            return row.function(*arguments), None, None
        (total, outputs), slopes = value_and_gradient(row)(*arguments)
        return outputs, total, slopes

    return all_of_it


@cache
def results(name, dtype="float32"):
    return compiled(name)(*(jnp.asarray(leaf, dtype) for leaf in NAMED[name].arguments))


def results_in_double(name, shift=0.0):
    """The same in float64, with the arguments moved along their directions."""
    row = NAMED[name]
    with jax.enable_x64(True):
        pairs = zip(row.arguments, directions(row), strict=True)
        moved = (jnp.asarray(a, jnp.float64) + shift * d for a, d in pairs)
        return jax.device_get(compiled(name)(*moved))


@cache
def higher_derivatives(name):
    """The tangent of the sum, and the curvature along the directions, by both orders of modes."""
    row = NAMED[name]

    def forward_over_reverse(*arguments):
        return jax.jvp(gradient(row), arguments, directions(row))[1]

    def reverse_over_reverse(*arguments):
        def along(*arguments):
            return dot(gradient(row)(*arguments), directions(row))

        return jax.grad(along, argnums=tuple(range(len(arguments))))(*arguments)

    @jax.jit
    def all_three(*arguments):
        tangent = jax.jvp(lambda *args: weighed(row)(*args)[0], arguments, directions(row))
        return tangent, forward_over_reverse(*arguments), reverse_over_reverse(*arguments)

    return all_three(*row.arguments)


def test_every_public_function_has_a_row():
    functions = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert functions == {part for row in OPS for part in row.name.split(", ")} & functions


def test_names_are_distinct():
    assert len(NAMED) == len(ROWS)


@each_row
def test_jit_changes_nothing(name):
    row = NAMED[name]
    result = row.function(*map(jnp.asarray, row.arguments))
    outputs = results(name)[0]
    assert_finite(result)
    assert jax.tree.map(jnp.result_type, result) == jax.tree.map(jnp.result_type, outputs)
    close(outputs, result)


@each_row
def test_donated_arguments_are_used_up_and_change_nothing(name):
    row = NAMED[name]

    def step(arguments):
        return row.function(*arguments), jax.tree.map(lambda leaf: leaf / 2, arguments)

    arguments = tuple(jnp.array(argument) for argument in row.arguments)
    outputs, halves = jax.jit(step, donate_argnums=0)(arguments)
    assert all(argument.is_deleted() for argument in arguments)
    close(outputs, results(name)[0])
    close(halves, tuple(argument / 2 for argument in row.arguments))


@each_gradient
def test_gradients_are_finite(name):
    assert_finite(results(name))


@each_gradient
def test_forward_mode_agrees_with_reverse_mode(name):
    _, total, slopes = results(name)
    close(higher_derivatives(name)[0], (total, dot(slopes, directions(NAMED[name]))))


@each_gradient
def test_second_derivatives_are_finite_in_both_orders_of_modes(name):
    _, forward, reverse = higher_derivatives(name)
    assert_finite((forward, reverse))
    close(forward, reverse)


@each_gradient
def test_checkpointing_changes_nothing(name):
    row = NAMED[name]
    saved = row._replace(function=jax.checkpoint(row.function))
    (total, outputs), slopes = jax.jit(value_and_gradient(saved))(*row.arguments)
    close((outputs, total, slopes), results(name))


@each_row
def test_vmap_of_vmap_equals_a_loop(name):
    row = NAMED[name]
    scales = np.array([[1.0, 0.5, 0.25], [0.75, 0.875, 0.625]], np.float32)
    batch = tuple(
        argument * scales.reshape(2, 3, *(1,) * argument.ndim) for argument in row.arguments
    )
    # The second batch axis comes last, so that vmap has to move it.
    moved = tuple(np.moveaxis(leaf, 1, -1) for leaf in batch)
    nested = jax.jit(jax.vmap(jax.vmap(row.function, in_axes=-1)))(*moved)
    for i, j in np.ndindex(2, 3):
        alone = compiled(name)(*(leaf[i, j] for leaf in batch))[0]
        close(jax.tree.map(lambda leaf, at=(i, j): leaf[at], nested), alone)


@each_row
def test_double_precision_stays_double(name):
    outputs, *_ = results_in_double(name)
    for leaf in filter(is_float, jax.tree.leaves(outputs)):
        assert leaf.dtype == np.float64
    close(outputs, results(name)[0])


@each_exact
def test_derivatives_are_those_of_the_values(name):
    step, along = 1e-4, directions(NAMED[name])
    _, low, low_slopes = results_in_double(name, -step)
    _, high, high_slopes = results_in_double(name, step)
    slopes = results_in_double(name)[2]
    close((high - low) / (2 * step), dot(slopes, along), rtol=1e-5, atol=1e-6)
    curvature = jax.tree.map(lambda one, two: (two - one) / (2 * step), low_slopes, high_slopes)
    close(curvature, higher_derivatives(name)[1], rtol=1e-3, atol=1e-3)


@each_row
def test_16_bits_in_give_the_same_to_their_precision(name):
    outputs, *_ = results(name, "bfloat16")
    expected = jnp.float32 if NAMED[name].wide else jnp.bfloat16
    for leaf in filter(is_float, jax.tree.leaves(outputs)):
        assert leaf.dtype == expected
    tolerance = 1e-4 if NAMED[name].wide else 2**-7
    close(outputs, results(name)[0], rtol=tolerance, atol=tolerance)


@each_gradient
def test_gradients_of_16_bits_are_near_those_of_32(name):
    slopes = results(name, "bfloat16")[2]
    assert {leaf.dtype for leaf in slopes} == {jnp.dtype(jnp.bfloat16)}
    close(slopes, results(name)[2], rtol=0.05, atol=0.05)
