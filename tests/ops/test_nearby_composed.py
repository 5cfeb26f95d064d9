"""Localities that are fitted, passed on by layers, transformed, or refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import ops
from sparse_hyper_jax.ops import Locality, fit_locality, mix_nearby
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import (
    all_finite,
    assert_close,
    assert_names_itself_and_its_cure,
    make_tuples,
)
from tests.ops.test_nearby import exact, example, loss_of, near

SHAPE = (12, 9)
SAMPLING = {"num_global": 2, "num_local": 1, "region": (3, 4)}
WIDE = Locality(12, (200,), 1e-3)


def key():
    return jax.random.key(3)


def along(tuples):
    return jax.tree.map(
        lambda leaf: np.cos(np.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), tuples
    )


relax_now = jax.jit(partial(ops.relax, shape=SHAPE), static_argnames=("locality", *SAMPLING))


@pytest.mark.parametrize(
    ("tolerance", "num_parts", "slack"), [(1e-1, 1, 1), (1e-5, 1, 1), (1e-3, 3, 1.5)]
)
def test_a_fitted_locality_suffices_and_holds_its_tolerance(tolerance, num_parts, slack):
    options = {"tolerance": tolerance, "num_parts": num_parts, "slack": slack}
    tuples = make_tuples(8, SHAPE, variance=0.3)
    locality = fit_locality(key(), tuples, SHAPE, **options, **SAMPLING)
    assert locality.tolerance == tolerance
    assert len(locality.capacities) == num_parts
    ours = relax_now(key(), tuples, locality=locality, **SAMPLING)
    alone = relax_now(key(), tuples, **SAMPLING)
    error = np.abs(np.subtract(ours.values, alone.values)).sum()
    assert error <= (2 * tolerance + 1e-5) * np.abs(tuples.values).sum()


def test_a_fitted_radius_is_the_least_that_the_widest_tuple_needs():
    tuples = make_tuples(8, (500, 400), variance=4.0)
    locality = fit_locality(None, tuples, (500, 400), tolerance=1e-3)
    count = 8 * 4

    def lacking(radius):
        return count * np.exp(-(radius**2) / (2 * np.max(tuples.variances)))

    assert lacking(locality.radius) <= 1e-3 < lacking(locality.radius - 1)


@pytest.mark.parametrize("variance", [float("inf"), float("nan")])
def test_variances_that_are_no_numbers_are_not_fitted(variance):
    tuples = make_tuples(8, SHAPE)._replace(variances=np.full((8, 2), variance, np.float32))
    assert_names_itself_and_its_cure(
        lambda: fit_locality(None, tuples, SHAPE),
        "a largest variance of",
        "finite variances",
        "bound them with bound_variances",
    )


@pytest.mark.parametrize("variance", [1e-12, 1e12])
def test_variances_of_every_scale_are_fitted(variance):
    tuples = make_tuples(8, SHAPE)._replace(variances=np.full((8, 2), variance, np.float32))
    locality = fit_locality(None, tuples, SHAPE)
    assert 1 <= locality.radius <= max(SHAPE)
    assert all_finite(relax_now(None, tuples, locality=locality).values)


@pytest.mark.parametrize(("count", "num_parts"), [(2, 3)])
def test_more_parts_than_tuples_are_no_mistake(count, num_parts):
    tuples = make_tuples(count, SHAPE)
    locality = fit_locality(None, tuples, SHAPE, num_parts=num_parts)
    assert list(locality.capacities) == sorted(locality.capacities)
    values = relax_now(None, tuples, locality=locality).values
    assert_close(np.sum(values), np.sum(tuples.values))


LAYERS = {
    "one context": SAMPLING,
    "neighbours": {},
    "chunks": {"chunk_size": 5, **SAMPLING},
    "active": {"active": (2, 6)},
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_a_wide_locality_equal_those_without(name):
    x = np.cos(np.arange(9, dtype=np.float32))

    def both(tuples, locality):
        options = LAYERS[name] | {"locality": locality}
        entries = ops.relax(key(), tuples, SHAPE, **options)
        return *entries, ops.hyperlayer(key(), tuples, x, SHAPE[:1], **options)

    both = jax.jit(both, static_argnums=1)
    tuples = make_tuples(10, SHAPE)
    (ours, *numbers), (alone, *expected) = both(tuples, WIDE), both(tuples, None)
    np.testing.assert_array_equal(ours, alone)
    assert_close(numbers, expected, rtol=1e-4)


def test_templates_with_a_wide_locality_equal_those_without():
    template = ops.make_template([[number // 2, 0] for number in range(8)], [1], chunk_size=2)
    tuples, x = make_tuples(8, (9,)), np.cos(np.arange(9, dtype=np.float32))
    layer = partial(ops.hyperlayer, None, x=x, out_shape=(4,), template=template)
    ours, alone = (jax.jit(partial(layer, locality=one)) for one in (WIDE, None))
    assert_close(ours(tuples=tuples), alone(tuples=tuples), rtol=1e-4)


def debugged(tuples, locality, **options):
    def run(tuples):
        return ops.relax(None, tuples, SHAPE, locality=locality, debug=True, **options).values

    error, values = jax.jit(checkify.checkify(run))(tuples)
    return error, values


@pytest.mark.parametrize("options", [{}, {"chunk_size": 5}], ids=str)
def test_debug_says_which_capacity_or_tolerance_did_not_suffice(options):
    tuples = make_tuples(10, SHAPE, variance=4.0)
    error, values = debugged(tuples, Locality(12, (1,), None), **options)
    with pytest.raises(checkify.JaxRuntimeError, match=r"found runs of up to .* capacities \(1,\)"):
        error.throw()
    assert np.isnan(values).any()
    error, values = debugged(tuples, Locality(1, (100,), 1e-4), **options)
    with pytest.raises(checkify.JaxRuntimeError, match=r"found a tuple .* share .* most 0.0001"):
        error.throw()
    assert np.isnan(values).any()
    error, values = debugged(tuples, WIDE, **options)
    error.throw()
    assert all_finite(values)


def test_debug_takes_a_capacity_beyond_int32():
    error, _ = debugged(make_tuples(4, SHAPE), Locality(12, (10**10,), None))
    error.throw()


def refused(**changes):
    fields = {"radius": 3, "capacities": (4,), "tolerance": None} | changes
    points, mask = jnp.zeros((1, 2), jnp.int32), jnp.ones(1, bool)
    tuples = make_tuples(3, SHAPE)
    return lambda: mix_nearby(points, mask, *tuples, shape=SHAPE, locality=Locality(**fields))


def fit(**options):
    return lambda: fit_locality(None, make_tuples(3, SHAPE), SHAPE, **options)


def relax(**options):
    return lambda: ops.relax(None, make_tuples(3, SHAPE), SHAPE, locality=WIDE, **options)


COUNT = "static int"
ASCENDING = "a tuple of at least one number, in ascending order"
ALONE = "Gaussians, whose tails are short, on axes with two ends"

# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "radius 0": (refused(radius=0), "radius=0", "an int of at least 1", COUNT),
    "float radius": (refused(radius=2.5), "radius=2.5", "an int of at least 1", COUNT),
    "no capacity": (refused(capacities=()), "capacities=()", ASCENDING, "fit_locality"),
    "one number": (refused(capacities=4), "capacities=4", ASCENDING, "put one capacity into"),
    "descending": (refused(capacities=(4, 3)), "capacities=(4, 3)", ASCENDING, "sort them"),
    "capacity 0": (refused(capacities=(0, 4)), "capacity=0", "an int of at least 1", COUNT),
    "negative": (refused(tolerance=-1.0), "tolerance=-1.0", "at least 0", "tolerance"),
    "nan": (refused(tolerance=float("nan")), "tolerance=nan", "at least 0", "tolerance"),
    "fit for 0": (fit(tolerance=0), "tolerance=0", "above 0", "tolerance"),
    "fit for nan": (fit(tolerance=float("nan")), "tolerance=nan", "above 0", "tolerance"),
    "too little slack": (fit(slack=0.5), "slack=0.5", "at least 1", "slack"),
    "endless slack": (fit(slack=float("inf")), "slack=inf", "at least 1", "slack"),
    "no parts": (fit(num_parts=0), "num_parts=0", "an int of at least 1", COUNT),
    "no key": (fit(num_global=1), "key=None with num_global=1", "a key", "pass jax.random.key"),
    "wrap": (relax(wrap=True), "wrap=True", ALONE, "leave out the locality"),
    "laplace": (relax(density="laplace"), "density='laplace'", ALONE, "leave out the locality"),
    "blocks": (relax(block_size=2), "block_size=2", ALONE, "leave out the locality"),
    "chunks": (relax(wrap=True, chunk_size=1), "wrap=True", ALONE, "leave out the locality"),
}


def test_capacities_may_be_a_list():
    assert Locality(3, [4], None).capacities == (4,)


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def small(**options):
    points, mask, tuples = example((7, 6), count=4, num_global=1, **options)
    return points, mask, tuples, Locality(7, (len(points), len(points)), None)


def test_second_derivatives_equal_those_of_all_points_in_both_orders_of_modes():
    points, mask, tuples, locality = small()
    arguments = (0, 1, 2)
    expected = jax.jit(jax.hessian(loss_of(points, mask), arguments))(*tuples)
    ours = loss_of(points, mask, (7, 6), locality)
    for outer in (jax.jacfwd, jax.jacrev):
        second = jax.jit(outer(jax.grad(ours, arguments), arguments))
        assert_close(second(*tuples), expected, rtol=1e-4, atol=1e-4)


def test_tangents_are_those_of_the_gradient_also_where_points_are_left_out():
    points, mask, tuples, _ = small()
    loss = loss_of(points, mask, (7, 6), Locality(2, (len(points),), None))
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*tuples)
    total = sum(np.vdot(one, two) for one, two in zip(slopes, along(tuples), strict=True))
    tangent = jax.jit(lambda *parts: jax.jvp(loss, parts, tuple(along(tuples)))[1])(*tuples)
    assert_close(tangent, total, rtol=1e-4)


@pytest.mark.parametrize("radius", [1, 2])
def test_gradients_are_differences_also_where_points_are_left_out(radius):
    points, mask, tuples, _ = small()
    with jax.enable_x64(True):
        tuples = jax.tree.map(lambda leaf: leaf.astype(np.float64), tuples)
        loss = jax.jit(loss_of(points, mask, (7, 6), Locality(radius, (len(points),), None)))
        slopes, step = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*tuples), 1e-6
        for place, part in enumerate(tuples):
            ahead, behind = list(tuples), list(tuples)
            ahead[place], behind[place] = (part + sign * step * np.cos(part) for sign in (1, -1))
            change = (float(loss(*ahead)) - float(loss(*behind))) / (2 * step)
            assert_close(change, np.vdot(slopes[place], np.cos(part)), rtol=1e-6, atol=1e-8)


def test_batches_over_keys_equal_a_loop_in_values_and_gradients():
    tuples, locality = make_tuples(6, SHAPE), Locality(4, (20, 60), None)

    def slopes(key):
        def loss(tuples):
            values = ops.relax(key, tuples, SHAPE, locality=locality, **SAMPLING).values
            return jnp.sum(jnp.sin(values)), values

        return jax.grad(loss, has_aux=True)(tuples)

    keys = jax.random.split(key(), 3)
    batch, single = jax.jit(jax.vmap(slopes))(keys), jax.jit(slopes)
    for number in range(3):
        one = jax.tree.map(lambda leaf, at=number: np.asarray(leaf)[at], batch)
        assert_close(one, single(keys[number]), rtol=1e-4, atol=1e-5)


def test_each_device_of_a_shard_map_mixes_its_own():
    tuples, locality = make_tuples(6, SHAPE), Locality(4, (20, 60), None)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def values(key):
        return ops.relax(key[0], tuples, SHAPE, locality=locality, **SAMPLING).values[None]

    keys = jax.random.split(key(), 4)
    spread = jax.jit(jax.shard_map(values, mesh=mesh, in_specs=P("data"), out_specs=P("data")))
    single = jax.jit(values)
    expected = np.concatenate([single(keys[number : number + 1]) for number in range(4)])
    assert_close(spread(keys), expected)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_values_are_of_32_bits_or_more(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        points, mask, tuples, locality = small()
        parts = ContinuousTuples(*(leaf.astype(dtype) for leaf in tuples))
        values = near(points, mask, parts, shape=(7, 6), locality=locality).values
        assert values.dtype == jnp.promote_types(dtype, jnp.float32)
        assert_close(values, exact(points, mask, parts))


def test_memory_is_a_block_and_grows_with_the_points_only():
    shape, count = (4096, 4096), 8192
    locality = Locality(8, (16, 64), None)

    def slopes(points, mask, *tuples):
        def loss(*tuples):
            options = {"shape": shape, "locality": locality}
            return jnp.sum(jnp.square(mix_nearby(points, mask, *tuples, **options).values))

        return jax.grad(loss, argnums=(0, 1, 2))(*tuples)

    shapes = [((4 * count, 2), jnp.int32), ((4 * count,), bool)]
    shapes += [((count, 2), jnp.float32), ((count, 2), jnp.float32), ((count,), jnp.float32)]
    arguments = [jax.ShapeDtypeStruct(*one) for one in shapes]
    needed = jax.jit(slopes).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    assert needed < 4 * count * 4 * count / 40
