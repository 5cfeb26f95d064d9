import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.spiking import SURROGATES, spike, surrogate_slope
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

AREAS = {"sigmoid": 1, "superspike": 2 / 5, "arctan": 1, "triangle": 1, "boxcar": 1}
HEIGHTS = {"sigmoid": 5 / 4, "superspike": 1, "arctan": 5 / 2, "triangle": 1 / 5, "boxcar": 1 / 5}
FAR = np.array([-1e4, -1.0, 0.0, 1.0, 1e4], np.float32)


@pytest.fixture(scope="module")
def slopes():
    """Of all surrogates with the scale 5, on a grid that is finest about 0, from -1e4 to 1e4."""
    grid = np.sinh(np.linspace(-1, 1, 40_001) * np.arcsinh(1e4 * 50)) / 50

    def of_all(u):
        return {name: surrogate_slope(u, surrogate=name, scale=5.0) for name in SURROGATES}

    return grid, {
        name: np.asarray(one) for name, one in jax.jit(of_all)(jnp.asarray(grid, "float32")).items()
    }


@pytest.mark.parametrize("name", SURROGATES)
def test_areas_and_heights_are_those_of_the_table(name, slopes):
    grid, found = slopes
    area = np.sum((found[name][1:] + found[name][:-1]) / 2 * np.diff(grid))
    np.testing.assert_allclose(area, AREAS[name], rtol=2e-3)
    np.testing.assert_allclose(found[name][len(grid) // 2], HEIGHTS[name], rtol=1e-6)
    assert (found[name] >= 0).all()
    np.testing.assert_allclose(found[name], found[name][::-1], rtol=1e-5, atol=1e-9)


@pytest.fixture(scope="module")
def derivatives():
    """Values, tangents and gradients of spikes at FAR, and what a scan of them gives."""

    def of(name):
        def fire(u):
            return spike(u, surrogate=name, scale=2.0)

        def summed(u):
            return jax.lax.scan(lambda total, one: (total + fire(one), None), 0.0, u)[0]

        u = jnp.asarray(FAR)
        forward = jax.jvp(fire, (u,), (jnp.ones_like(u),))[1]
        return {
            "value": fire(u),
            "jvp": forward,
            "vjp": jax.vjp(fire, u)[1](jnp.ones_like(u))[0],
            "scan": jax.grad(summed)(u),
            "vmap": jax.vmap(jax.grad(fire))(u),
            "slope": surrogate_slope(u, surrogate=name, scale=2.0),
            "of the scale": jax.grad(lambda b: fire_of(name, b, u).sum())(2.0),
        }

    def fire_of(name, scale, u):
        return spike(u, surrogate=name, scale=scale)

    return jax.device_get(jax.jit(lambda: {name: of(name) for name in SURROGATES})())


@pytest.mark.parametrize("name", SURROGATES)
def test_a_spike_is_exact_and_its_slope_the_same_in_all_modes(name, derivatives):
    found = derivatives[name]
    np.testing.assert_array_equal(found["value"], [0, 0, 1, 1, 1])
    for mode in ("jvp", "vjp", "scan", "vmap"):
        assert np.isfinite(found[mode]).all()
        assert_close(found[mode], found["slope"])
    assert found["of the scale"] == 0


def test_the_step_is_in_the_dtype_of_its_argument_and_nan_stays():
    halves = spike(jnp.array([-1.0, 0.0, jnp.nan], jnp.bfloat16))
    assert halves.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(halves, np.float32), [0, 1, np.nan])
    assert spike(jnp.array([-1, 2])).tolist() == [0.0, 1.0]
    assert surrogate_slope(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32


def test_no_slope_is_nan_at_the_largest_scale():
    @jax.jit
    def slopes(u):
        return [surrogate_slope(u, surrogate=name, scale=1e38) for name in SURROGATES]

    assert not np.isnan(slopes(jnp.array([-1.0, 0.0, 1.0]))).any()


@pytest.mark.parametrize("function", [spike, surrogate_slope])
@pytest.mark.parametrize(
    ("options", "found", "expected"),
    [
        ({"surrogate": "tanh"}, "surrogate='tanh'", "'superspike'"),
        ({"scale": 0.0}, "scale=0.0", "at least 1e-06"),
        ({"scale": float("nan")}, "scale=nan", "at least 1e-06"),
        ({"scale": float("inf")}, "scale=inf", "at most 1e+38"),
        ({"scale": 1e39}, "scale=1e+39", "at most 1e+38"),
        ({"scale": "wide"}, "scale='wide'", "one number"),
    ],
)
def test_wrong_options_are_told(function, options, found, expected):
    assert_names_itself_and_its_cure(lambda: function(jnp.ones(2), **options), found, expected, "")


def test_a_potential_is_real():
    assert_names_itself_and_its_cure(lambda: spike(None), "u=None", "real numbers", "")
    assert_names_itself_and_its_cure(lambda: spike(1j * jnp.ones(2)), "complex", "real", "")


@pytest.mark.parametrize("surrogate", ["triangle", "boxcar"])
def test_a_slope_beyond_float16_leaves_zero_what_is_zero(surrogate):
    u = jnp.zeros(3, jnp.float16)
    weights = jnp.array([0, 1, 2**-8], jnp.float16)
    _, back = jax.vjp(lambda u: spike(u, surrogate=surrogate, scale=1e-6), u)
    np.testing.assert_allclose(back(weights)[0], [0, np.inf, 3906], rtol=1e-3)
