"""Computing again inside of a branch that is always taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat.barriers import always_taken
from tests.remat.examples import KEY, X, dots, dropout, trees
from tests.remat.test_checkpoint import DEEP, lean_of
from tests.remat.test_segments import cut


@pytest.mark.parametrize("name", ["dots", "dropout", "trees"])
def test_the_same_gradients(name):
    fn, args, numbers = {
        "dots": (dots, DEEP, (0, 1)),
        "dropout": (dropout, (KEY, X), (1,)),
        "trees": (trees, ([X, {"b": X[0]}], (X, X)), (0, 1)),
    }[name]
    lean = cut(fn, args, barrier="cond")

    def gradient(fn):
        def total(*args):
            return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(fn(*args)))

        return jax.grad(total, argnums=numbers)

    def compare(one, two):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6 * np.abs(two).max())

    found, expected = jax.jit(lambda *args: (gradient(lean)(*args), gradient(fn)(*args)))(*args)
    jax.tree.map(compare, found, expected)


def test_the_branch_is_in_the_gradient_and_not_in_the_value():
    lean = lean_of(dots, barrier="cond")
    assert " cond[" in str(jax.make_jaxpr(jax.grad(lean))(*DEEP))
    assert " cond[" not in str(jax.make_jaxpr(lean)(*DEEP))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_slopes_of_every_dtype_and_whole_numbers(dtype):
    x = jnp.asarray([0.5, -0.25, jnp.inf], dtype)

    def body(x, n):
        return x * x * n.astype(x.dtype), n + 1

    def total(body):
        return lambda x: jnp.sum(jnp.real(body(x, jnp.arange(3))[0]).astype(jnp.float32))

    ways = total(always_taken(body)), total(body)
    found, expected = jax.jit(lambda x: [jax.grad(one)(x) for one in ways])(x)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert found.dtype == x.dtype


def test_bodies_without_slopes():
    none = always_taken(lambda n: (n + 1,))
    np.testing.assert_array_equal(jax.jit(none)(np.arange(3))[0], [1, 2, 3])
    empty = always_taken(lambda x: (jnp.sin(x),))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(empty(x)[0])))(np.zeros((0, 2), np.float32))
    assert slope.shape == (0, 2)


def test_second_derivatives_backwards_but_none_forwards():
    lean = remat.budgeted_checkpoint(
        lambda x: jnp.sum(jnp.sin(jnp.sin(jnp.sin(x))) ** 2),
        1.0,
        objective="memory",
        measure=False,
        barrier="cond",
    )
    assert len(lean.plan(X[0]).chain) > 1

    def plain(x):
        return jnp.sum(jnp.sin(jnp.sin(jnp.sin(x))) ** 2)

    def twice(fn):
        return jax.grad(lambda x: jnp.sum(jax.grad(fn)(x) ** 2))

    both = jax.jit(lambda x: (twice(lean)(x), twice(plain)(x)))
    np.testing.assert_allclose(*both(X[0]), rtol=1e-5)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lean, (X[0],), (X[0],))


def test_rows_that_are_spread_over_devices():
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))

    def loss(weights, x):
        for _ in range(4):
            x = jnp.tanh(x @ weights)
        return jnp.sum(x)

    weights, x = 0.5 * jnp.eye(4), jnp.ones((8, 4))
    expected = jax.jit(jax.grad(loss))(weights, x)
    with jax.set_mesh(mesh):
        spread = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.P("rows")))
        lean = lean_of(loss, barrier="cond")
        assert len(lean.plan(weights, spread).chain) > 1
        found = jax.jit(jax.grad(lean))(weights, spread)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
