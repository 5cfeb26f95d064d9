"""Edges of the nearby mix and of the products: long axes, few tuples, free batches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from sparse_hyper_jax.ops import (
    ContinuousTuples,
    Locality,
    fit_locality,
    hyperlayer,
    mix_nearby,
    mix_values,
    sparse_multiply,
)
from tests.ops.examples import assert_close, make_tuples

SHAPE = (9, 11)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_tuples_than_capacities(count):
    tuples = make_tuples(count, SHAPE, variance=1.0)
    key = jax.random.key(0)
    locality = fit_locality(key, tuples, SHAPE, num_global=3)
    assert len(locality.capacities) <= count
    x = np.ones((SHAPE[1], 2), np.float32)

    @jax.jit
    def both(tuples):
        ways = (None, Locality(11, (7 * count,) * 4, None))
        return [hyperlayer(key, tuples, x, SHAPE[:1], num_global=3, locality=way) for way in ways]

    assert_close(*both(tuples))


def test_what_does_not_suffice_spoils_the_gradient_too():
    tuples = make_tuples(8, SHAPE, variance=1.0)

    def loss(tuples):
        options = {"num_global": 3, "locality": Locality(2, (1,), None)}
        y = hyperlayer(jax.random.key(0), tuples, jnp.ones(SHAPE[1]), SHAPE[:1], **options)
        return jnp.sum(jnp.square(y))

    value, gradient = jax.jit(jax.value_and_grad(loss))(tuples)
    assert np.isnan(value)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        ((2**31 - 1,), 1),
        ((5, 2**31 - 1), 1),
        ((2**31 - 1, 2**31 - 2), 1),
        ((10, 10), 2**31 - 1),
        ((2**20, 2**20), 3),
    ],
)
def test_long_axes_and_radii(shape, radius):
    points = np.array([[0] * len(shape), *[[size - 1 for size in shape]] * 2], np.int32)
    means = np.array([[0.0] * len(shape), [4.0] * len(shape)], np.float32)
    tuples = (means, np.full_like(means, 0.5), np.array([2.0, 3.0], np.float32))
    mask = np.array([True, True, False])

    @jax.jit
    def both(points, mask, *tuples):
        locality = Locality(radius, (3,), None)
        near = mix_nearby(points, mask, *tuples, shape=shape, locality=locality)
        return near, mix_values(points, mask, *tuples)

    near, plain = both(points, mask, *tuples)
    seen = 2.0 if radius < 4 else 5.0
    assert_close(near.values, [seen, 0.0, 0.0] if max(shape) > 10 else plain, rtol=1e-5)


def test_a_tuple_that_sees_nothing_is_reported():
    points = jnp.array([[9, 9], [9, 8]])
    tuples = (jnp.zeros((1, 2)), jnp.full((1, 2), 0.5), jnp.ones(1))
    locality = Locality(3, (4,), None)
    mix = jax.jit(partial(mix_nearby, shape=(10, 10), locality=locality))
    near = mix(points, jnp.ones(2, bool), *tuples)
    assert near.neglected == jnp.inf


def test_variances_that_are_no_numbers_cannot_be_fitted():
    tuples = ContinuousTuples(jnp.zeros((2, 1)), jnp.full((2, 1), jnp.nan), jnp.ones(2))
    with pytest.raises(ValueError, match=r"found a largest variance of nan.*finite"):
        fit_locality(None, tuples, (5,))


def test_programs_are_exported_for_any_batch():
    indices = jnp.array([[0, 1], [2, 0], [2, 1]])
    values = jnp.arange(1.0, 4.0)
    (batch,) = export.symbolic_shape("b")
    product = jax.jit(lambda x: sparse_multiply(indices, values, x, (3,)))
    exported = export.export(product)(jax.ShapeDtypeStruct((2, batch), jnp.float32))
    for count in (1, 40):
        x = np.random.default_rng(0).normal(size=(2, count)).astype(np.float32)
        assert_close(exported.call(x), product(x))


def test_instances_whose_cells_no_int32_counts_keep_apart():
    def product(indices, values, x):
        return sparse_multiply(indices, values, x, (2**26,))

    shapes = [((64, 3, 2), jnp.int32), ((64, 3), jnp.float32), ((64, 5, 1), jnp.float32)]
    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    text = str(jax.make_jaxpr(jax.vmap(product))(*arguments))
    assert "out_cells" not in text  # the primitive, whose block diagonal would have 2**32 rows


@pytest.mark.parametrize(("in_cells", "features"), [(0, 40), (4, 0), (4, 40)])
def test_empty_sides(in_cells, features):
    indices, values = jnp.zeros((0, 2), jnp.int32), jnp.zeros(0)
    x = jnp.ones((3, in_cells, features))
    y = jax.jit(jax.vmap(lambda x: sparse_multiply(indices, values, x, (5,))))(x)
    np.testing.assert_array_equal(y, np.zeros((3, 5, features)))
    rows = sparse_multiply(indices, values, x[0], (5,), row_layout=True)
    np.testing.assert_array_equal(rows, np.zeros((5, features)))
