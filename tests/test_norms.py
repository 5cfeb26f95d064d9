import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.diagnostics import gradient_cosine
from sparse_hyper_jax.norms import direction, norm, unit_of
from sparse_hyper_jax.recurrent.lags import lengths

ARRAY = np.array([[3.0, -1, 2], [4, 2, -2], [0, 0, 1]], "f")
SIZES = [1e-36, 1e-25, 1e-19, 1.0, 1e19, 1e25, 1e36]


@jax.jit
def everything(array):
    """Norms of columns, their directions, and derivatives up to the third."""
    along = jnp.cos(jnp.arange(array.size, dtype=array.dtype)).reshape(array.shape)
    scaled = along * jnp.max(jnp.abs(array))

    def total(array):
        return jnp.sum(norm(array, (0,)))

    first = jax.grad(total)
    second = lambda array: jax.jvp(first, (array,), (scaled,))[1]  # noqa: E731
    third = jax.grad(lambda array: jnp.sum(second(array)))(array) * jnp.max(jnp.abs(array))
    return norm(array, (0,)), direction(array, (0,)), first(array), second(array), third


@pytest.mark.parametrize("size", SIZES)
def test_no_size_is_too_small_or_too_large(size):
    expected = everything(ARRAY)
    length, *others = everything(ARRAY * np.float32(size))
    np.testing.assert_allclose(length / np.float32(size), expected[0], rtol=1e-6)
    np.testing.assert_allclose(length / np.float32(size), np.linalg.norm(ARRAY, axis=0)[None], 1e-6)
    for got, wanted in zip(others, expected[1:], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1e-36, 1e36])
def test_constants_of_a_program_have_the_norms_of_arguments(size):
    # Compilers fold what is constant, and may put off a division until after the square.
    array = jnp.asarray(ARRAY * np.float32(size))
    of_columns, of_rows, cosine = jax.jit(
        lambda: (norm(array, (0,))[0], lengths(array), gradient_cosine(array, array))
    )()
    for got, axis in ((of_columns, 0), (of_rows, 1)):
        wanted = np.linalg.norm(ARRAY, axis=axis)
        np.testing.assert_allclose(got / np.float32(size), wanted, rtol=1e-5)
    assert cosine == pytest.approx(1, abs=1e-6)


def test_zeros_are_finite_and_what_is_not_a_number_stays():
    assert all(jnp.isfinite(part).all() for part in everything(jnp.zeros((3, 2))))
    broken = direction(jnp.array([[jnp.nan, 1.0], [2.0, 0.0]]), (0,))
    assert jnp.isnan(broken[:, 0]).all()
    assert broken[:, 1].tolist() == [1, 0]


def test_units_are_powers_of_two_with_a_reciprocal():
    sizes = jnp.array([0.0, 1.0, 0.7, 1e-37, 3e38, jnp.inf, jnp.nan])
    unit = np.asarray(unit_of(sizes))
    assert (np.frexp(unit)[0] == 0.5).all()
    assert np.isfinite(np.float32(1) / unit).all()
    np.testing.assert_array_equal(unit[[0, 5, 6]], 1)
    assert (np.asarray(sizes)[1:5] / unit[1:5] < 8).all()
