import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import DENSITIES, dense_relaxation, relax, to_dense
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import assert_close, make_tuples

SHAPE = (4, 5)


def test_equals_the_sum_over_all_cells():
    tuples = make_tuples(3, SHAPE)
    cells = np.stack(np.indices(SHAPE), axis=-1)
    expected = np.zeros(SHAPE)
    for mean, variance, value in zip(*(np.asarray(part) for part in tuples), strict=True):
        density = np.exp(-0.5 * ((cells - mean) ** 2 / variance).sum(-1))
        expected += value * density / density.sum()
    assert_close(dense_relaxation(tuples, SHAPE), expected)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("wrap", [False, True])
def test_value_is_conserved(density, wrap):
    tuples = make_tuples(3, SHAPE, variance=2.0)
    dense = dense_relaxation(tuples, SHAPE, density=density, wrap=wrap)
    assert dense.shape == SHAPE
    assert_close(dense.sum(), tuples.values.sum(), rtol=1e-4)


def test_on_a_circle_an_edge_is_like_the_middle():
    def tensor(place):
        tuples = ContinuousTuples(jnp.array([[place]]), jnp.ones((1, 1)), jnp.ones(1))
        return dense_relaxation(tuples, (8,), wrap=True)

    assert_close(jnp.roll(tensor(3.0), 4), tensor(7.0))
    assert_close(jnp.roll(tensor(3.25), 5), tensor(0.25))


def test_samples_approach_it_as_their_number_grows():
    tuples = make_tuples(3, SHAPE, variance=3.0)
    keys = jax.random.split(jax.random.key(0), 50)
    weights = jnp.cos(jnp.arange(20.0)).reshape(SHAPE)

    def both(tensor):
        def loss(tuples):
            dense = tensor(tuples)
            return (weights * dense).sum(), dense

        (_, dense), grads = jax.value_and_grad(loss, has_aux=True)(tuples)
        return (dense, *grads)

    @jax.jit
    def exact():
        return both(lambda tuples: dense_relaxation(tuples, SHAPE))

    def error(num_global):
        def sampled(key):
            return both(
                lambda tuples: to_dense(relax(key, tuples, SHAPE, num_global=num_global), SHAPE)
            )

        means = jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.jit(jax.vmap(sampled))(keys))
        return np.array([np.abs(one - two).max() for one, two in zip(means, exact(), strict=True)])

    few, some, many = error(1), error(8), error(200)
    assert (few > 1.5 * some).all()
    assert (some > 1.5 * many).all()
    # 600 draws from 20 cells: every cell is there, and the estimate is exact.
    assert (many < 1e-4).all()
