import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import variance_log_mean, variance_norm
from tests.ops.examples import all_finite, assert_close

VARIANCES = jnp.array([[0.5, 2.0], [1.0, 4.0], [0.1, 0.3]])


def test_values_follow_the_formulas():
    assert_close(variance_log_mean(VARIANCES), -np.log(np.mean(VARIANCES)))
    assert_close(variance_norm(VARIANCES), np.linalg.norm(VARIANCES))


def test_a_step_downhill_widens_or_settles():
    assert (jax.grad(variance_log_mean)(VARIANCES) < 0).all()
    assert (jax.grad(variance_norm)(VARIANCES) > 0).all()


@pytest.mark.parametrize("penalty", [variance_log_mean, variance_norm])
@pytest.mark.parametrize("scale", [0.0, *np.logspace(-12, 12, 5)])
def test_any_scale_is_finite(penalty, scale):
    variances = jnp.full((3, 2), scale, jnp.float32)
    assert all_finite(jax.value_and_grad(penalty)(variances))


def test_sums_of_16_bits_are_taken_in_32():
    ones = jnp.ones((64, 64), jnp.bfloat16)
    assert_close((variance_norm(ones), variance_log_mean(ones)), (64.0, 0.0))


def test_the_norm_of_what_has_no_square_in_float32():
    for scale in (1e-30, 1e-20, 1e25, 1e37):
        variances = scale * np.array([3.0, 4.0], np.float32)
        norm, slopes = jax.value_and_grad(variance_norm)(variances)
        assert_close(norm / scale, 5.0)
        assert_close(slopes, [0.6, 0.8])


@pytest.mark.parametrize("penalty", [variance_log_mean, variance_norm])
def test_nan_comes_out(penalty):
    assert jnp.isnan(penalty([1.0, np.nan]))
