from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples

SCALES = [0.0, *np.logspace(-12, 12, 13)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
SHAPES = {"matrix": (5, 4), "size-1 axes": (1, 1, 3), "one cell": (1, 1), "long": (60000, 2)}
KINDS = {
    "neighbours": {},
    "all kinds": {"num_global": 2, "num_local": 2},
    "chunks of one": {"num_global": 1, "chunk_size": 1},
    "circle": {"num_local": 2, "wrap": True},
    "laplace": {"density": "laplace"},
    "student_t": {"num_global": 2, "density": "student_t"},
}


def places(shape):
    """Means on integers, corners, edges, halves, in the middle; five that coincide."""
    last = np.asarray(shape, np.float32) - 1
    corner = np.where(np.arange(len(shape)) % 2 == 0, last, 0)
    edge = np.where(np.arange(len(shape)) == 0, 0, last / 2)
    inside = np.minimum(np.asarray([1.3, 2.7, 0.2])[: len(shape)], last)
    rows = [0 * last, last, corner, edge, np.floor(last / 2), np.minimum(0.5, last), inside]
    return np.stack([*rows, *[inside] * 4]).astype(np.float32)


@partial(jax.jit, static_argnames=("shape", "kind"))
def value_and_slopes(tuples, x, *, shape, kind):
    options = dict(KINDS[kind])
    if "num_local" in options:
        options["region"] = (3,) * len(shape)

    def loss(tuples, x):
        y = ops.hyperlayer(jax.random.key(0), tuples, x, shape[:1], **options)
        return jnp.square(y.astype(jnp.float32)).sum(), y

    (_, y), slopes = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(tuples, x)
    return y, slopes


def run(means, scale, shape, kind, dtype=jnp.float32):
    # 16-bit floats cannot hold the extremes: there they become 0 or the largest number.
    scale = min(scale, float(jnp.finfo(dtype).max) / 8)
    tuples = ContinuousTuples(
        means.astype(dtype),
        np.full(means.shape, scale, dtype),
        np.cos(np.arange(len(means))).astype(dtype),
    )
    x = np.cos(np.arange(np.prod(shape[1:]))).reshape(shape[1:]).astype(dtype)
    return value_and_slopes(tuples, x, shape=shape, kind=kind)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_kind_of_point_is_finite_for_every_variance(kind, scale):
    assert_finite(run(places((5, 4)), scale, (5, 4), kind))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_shape_is_finite_for_every_variance(shape, scale):
    assert_finite(run(places(shape), scale, shape, "all kinds"))


@pytest.mark.parametrize("dtype", DTYPES, ids=[np.dtype(dtype).name for dtype in DTYPES])
@pytest.mark.parametrize("scale", SCALES)
def test_every_precision_is_finite_for_every_variance(dtype, scale):
    y, (slopes, by_x) = run(places((5, 4)), scale, (5, 4), "all kinds", dtype)
    assert {y.dtype, by_x.dtype, *(leaf.dtype for leaf in slopes)} == {np.dtype(dtype)}
    values = (y, slopes.values, by_x)
    assert_finite(values)
    # A slope of a mean is up to 1 / standard deviation: beyond float16 it may not be a NaN either.
    assert not any(np.isnan(np.asarray(leaf, np.float64)).any() for leaf in slopes)
    if dtype != jnp.float16:
        assert_finite(slopes)


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("count", [1, 3])
def test_a_single_tuple_and_equal_tuples_are_finite(place, count):
    for scale in SCALES:
        means = np.repeat(places((5, 4))[place : place + 1], count, axis=0)
        assert_finite(run(means, scale, (5, 4), "all kinds"))


def test_variances_of_every_scale_side_by_side_are_finite():
    means = np.repeat(places((5, 4)), len(SCALES), axis=0)
    scales = np.tile(np.asarray(SCALES, np.float32), len(places((5, 4))))
    variances = np.stack([scales, scales[::-1]], axis=1)
    tuples = ContinuousTuples(means, variances, np.ones(len(means), np.float32))
    assert_finite(value_and_slopes(tuples, np.ones(4, np.float32), shape=(5, 4), kind="neighbours"))


@partial(jax.jit, static_argnames="options")
def relaxed_values_and_slopes(tuples, *, options):
    def loss(tuples):
        values = ops.relax(None, tuples, (16, 7, 10), **dict(options)).values
        return jnp.square(values).sum(), values

    slopes, values = jax.grad(loss, has_aux=True)(tuples)
    return values, slopes


@pytest.mark.parametrize("options", [(), (("wrap", True),), (("density", "laplace"),)])
@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e-6])
def test_narrow_tuples_anywhere_lose_no_value(options, scale):
    # Log densities of -1e11: rounding them, and twice differently, must not lead to exp(1000).
    for seed in range(10):
        means = np.random.default_rng(seed).uniform(0, 1, (11, 3)) * [15, 6, 9]
        parts = means, np.full((11, 3), scale), np.cos(np.arange(11.0))
        tuples = ContinuousTuples(*(part.astype(np.float32) for part in parts))
        values, slopes = relaxed_values_and_slopes(tuples, options=options)
        assert_finite((values, slopes))
        np.testing.assert_allclose(np.asarray(values).sum(), tuples.values.sum(), atol=1e-4)


@partial(jax.jit, static_argnames="method")
def slopes_of_raw(raw_means, raw_spreads, *, method):
    def loss(raw_means, raw_spreads):
        tuples = ContinuousTuples(
            ops.bound_means(raw_means, (5, 4), method=method),
            ops.bound_variances(raw_spreads, (5, 4)),
            jnp.ones(2),
        )
        return jnp.square(ops.hyperlayer(None, tuples, jnp.ones(4), (5,))).sum()

    return jax.value_and_grad(loss, argnums=(0, 1))(raw_means, raw_spreads)


@pytest.mark.parametrize("raw", [-1e30, -100.0, -88.0, 0.0, 17.0, 100.0, 1e30])
@pytest.mark.parametrize("method", ["sigmoid", "clamp", "modulo"])
def test_raw_parameters_of_any_size_are_finite(raw, method):
    raw_means = np.full((2, 2), raw, np.float32)
    raw_spreads = np.full(2, min(raw, 1e10), np.float32)
    assert_finite(slopes_of_raw(raw_means, raw_spreads, method=method))
