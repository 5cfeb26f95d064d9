import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import neural_sort


def test_known_small_matrices():
    # Keys 0 and 1: rows are softmax((-0 - 1, -1 - 1)) and softmax((0 - 1, 1 - 1)).
    high, low = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))
    np.testing.assert_allclose(
        neural_sort(jnp.array([0.0, 1.0])), [[high, low], [low, high]], rtol=1e-6
    )
    # The example of the paper's figure in ascending order: keys 9, 1, 5, 2 give rows 1, 2, 5, 9.
    matrix = neural_sort(jnp.array([9.0, 1.0, 5.0, 2.0]), temperature=0.01)
    expected = [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]]
    np.testing.assert_allclose(matrix, expected, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 32])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_rows_sum_to_one(n, temperature):
    keys = jax.random.normal(jax.random.key(n), (n,))
    matrix = neural_sort(keys, temperature=temperature)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
    assert (matrix >= 0).all()
    assert sorted(jnp.argmax(matrix, axis=1).tolist()) == list(range(n))
    np.testing.assert_array_equal(jnp.argmax(matrix, axis=1), jnp.argsort(keys))


def test_limits_and_gradient():
    keys = jnp.array([0.3, -1.2, 2.0, 0.9])
    sharp = neural_sort(keys, temperature=1e-3) @ keys
    np.testing.assert_allclose(sharp, jnp.sort(keys), atol=1e-5)
    np.testing.assert_allclose(neural_sort(keys, temperature=1e6), 0.25, atol=1e-4)
    slope = jax.grad(lambda k, t: neural_sort(k, temperature=t)[0] @ k, (0, 1))(keys, 0.5)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in slope)
    assert neural_sort(keys.astype(jnp.bfloat16)).dtype == jnp.float32


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"keys of shape \(2, 3\)"):
        neural_sort(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="temperature=Array"):
        neural_sort(jnp.zeros(3), temperature=jnp.ones(3))
