from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort.recurrence import decaying_sums, decaying_sums_ahead
from tests.ops.examples import assert_close
from tests.sort import dense


@pytest.fixture(params=["row by row", "in parallel"])
def form(request, monkeypatch):
    def choose(*args, cpu, default):
        return (cpu if request.param == "row by row" else default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    jax.clear_caches()  # or what was traced for the other form would serve this one


def numbers(shape, seed=0):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1.1, maxval=1.1)


def both(decays, inputs):
    return decaying_sums(decays, inputs), decaying_sums_ahead(decays, inputs)


def both_dense(decays, inputs):
    matrix = jnp.linalg.inv(jnp.eye(len(decays)) - jnp.diag(decays[1:], -1))
    return jnp.tensordot(matrix, inputs, 1), jnp.tensordot(matrix.T, inputs, 1)


@pytest.mark.usefixtures("form")
def test_known_sums():
    decays, inputs = jnp.array([9.0, 0.5, 0.0, 2.0]), jnp.array([1.0, 2, 3, 4])
    assert_close(jax.jit(both)(decays, inputs), ([1, 2.5, 3, 10], [2, 2, 11, 4]), rtol=0, atol=0)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("shape", [(1, 3), (6, 2, 2)])
def test_values_and_derivatives_are_those_of_the_inverse_matrix(shape):
    with jax.enable_x64(True):
        args = numbers(shape[:1]), numbers(shape, 1)
        tangents = numbers(shape[:1], 2), numbers(shape, 3)
        ours, theirs = (
            jax.jit(partial(dense.derivatives, function))(args, tangents)
            for function in (both, both_dense)
        )
        assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("axes", [(0, 0), (None, 2), (0, None)])
def test_batches(axes):
    decays = numbers((3, 5) if axes[0] == 0 else (5,))
    inputs = numbers({0: (3, 5, 2), None: (5, 2), 2: (5, 2, 3)}[axes[1]], 1)
    ours = jax.jit(jax.vmap(both, axes))(decays, inputs)
    assert_close(ours, jax.jit(jax.vmap(both_dense, axes))(decays, inputs), atol=1e-5)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 2), ("cuda", 0), ("tpu", 0)])
def test_only_processors_go_row_by_row(platform, loops):
    traced = jax.jit(both).trace(jnp.ones(8), jnp.ones((8, 2)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.while") == loops


@pytest.mark.usefixtures("form")
def test_many_rows():
    n = 3000
    sums, ahead = jax.jit(both)(jnp.full(n, 0.9), jnp.ones(n))
    np.testing.assert_allclose(sums, 10 * (1 - 0.9 ** np.arange(1, n + 1)), rtol=1e-5)
    np.testing.assert_allclose(ahead, sums[::-1], rtol=1e-5)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_decay_of_zero_starts_anew_whatever_came_before(value):
    decays = jnp.array([0, 0.5, value, 0, 0.5, 0.5]).at[2].set(jnp.nan)
    inputs = jnp.array([1.0, 1, value, 1, 1, 1])
    sums, ahead = jax.jit(both)(decays, inputs)
    np.testing.assert_array_equal(sums[3:], [1, 1.5, 1.75])
    np.testing.assert_array_equal(ahead[3:], [1.75, 1.5, 1])
    np.testing.assert_array_equal(sums[:2], [1, 1.5])


@pytest.mark.usefixtures("form")
def test_a_million_numbers_are_added_exactly():
    sums = jax.jit(decaying_sums)(jnp.ones(2**20), jnp.full(2**20, 0.1))
    np.testing.assert_allclose(sums, 0.1 * np.arange(1, 2**20 + 1), rtol=3e-7)
