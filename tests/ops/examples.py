import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples

OPTIONS = (
    "num_global",
    "num_local",
    "region",
    "chunk_size",
    "density",
    "wrap",
    "sample_probability",
)
relax = jax.jit(ops.relax, static_argnums=2, static_argnames=OPTIONS[:-1])
settle = jax.jit(ops.settle, static_argnums=1, static_argnames="wrap")
hyperlayer = jax.jit(ops.hyperlayer, static_argnums=3, static_argnames=OPTIONS)
hyperlayer_hard = jax.jit(ops.hyperlayer_hard, static_argnums=2, static_argnames="wrap")


def make_tuples(count, shape, *, seed=0, variance=1.0):
    generator = np.random.default_rng(seed)
    last = np.asarray(shape) - 1
    means = generator.uniform(0, 1, (count, len(shape))) * last
    variances = variance * generator.uniform(0.5, 2.0, (count, len(shape)))
    values = generator.normal(size=count)
    return ContinuousTuples(
        *(jnp.asarray(part, jnp.float32) for part in (means, variances, values))
    )


def scatter(entries, shape):
    dense = np.zeros(shape, np.float64)
    values = np.asarray(entries.values, np.float64)
    for index, value in zip(np.asarray(entries.indices), values, strict=True):
        dense[tuple(index)] += value
    return dense


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=rtol, atol=atol),
        actual,
        expected,
    )


def all_finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def assert_names_itself_and_its_cure(call, found, expected, change):
    with pytest.raises(ValueError, match=r"^found ") as info:
        call()
    before, _, after = str(info.value).partition("; expected ")
    assert found in before
    assert expected in after.split("; ", 1)[0]
    assert change in after.split("; ", 1)[1]
