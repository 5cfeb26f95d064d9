import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops.counts import check_counts
from sparse_hyper_jax.ops.own_points import masked_log_softmax, own_cells, own_points
from tests.folding import folded
from tests.ops.examples import all_finite, assert_close

SHAPES = [(12,), (5, 7)]


def tuples_of(shape, *, seed=0, n=6):
    generator = np.random.default_rng(seed)
    means = generator.uniform(0, np.array(shape) - 1, (n, len(shape)))
    return np.float32(means), np.float32(generator.uniform(0.3, 9, means.shape))


def draw(shape, key, means, variances, last):
    region = (4,) * len(shape)
    counts = check_counts(key, shape, 5, 3, region, global_from="density")
    return own_points(key, means, variances, shape, counts, last=last)


LAST = np.array([0, 3, 5, 11, 20, 34], np.int32)


@folded
def found():
    table = {}
    for shape in SHAPES:
        for masked in (False, True):
            rows = jax.random.key(1), *tuples_of(shape), LAST if masked else None
            table[shape, masked] = (lambda *rows, shape=shape: draw(shape, *rows), *rows)
    return table


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_shares_are_a_softmax_over_different_points_that_may_be_read(shape, masked):
    cells, logs = (np.asarray(part) for part in found(shape, masked))
    means, variances = tuples_of(shape)
    assert cells.shape == (6, 2 ** len(shape) + 8)
    for own, log, mean, variance, last in zip(cells, logs, means, variances, LAST, strict=True):
        places = np.stack(np.unravel_index(own, shape), -1)
        kept = np.zeros(len(own), bool)
        kept[np.unique(own, return_index=True)[1]] = True
        kept &= own <= last if masked else True
        assert ((log == -np.inf) == ~kept).all()
        if kept.any():
            density = np.exp(-0.5 * ((places - mean) ** 2 / variance).sum(-1))[kept]
            assert_close(np.exp(log[kept]), density / density.sum(), rtol=1e-4, atol=1e-6)


def test_settled_tuples_have_one_point():
    means = np.float32([[1.4, 2.6], [9.0, -3.0], [np.nan, 1.0], [2.5, 0.0]])
    last = np.array([40, 40, 40, 13], np.int32)
    cells, logs = jax.jit(lambda *rows: own_cells(rows[0], (5, 7), rows[1]))(means, last)
    assert cells[:, 0].tolist() == [10, 28, 1, 14]
    assert_close(logs[:, 0], [0.0, 0.0, np.nan, -np.inf])


@pytest.mark.parametrize("variance", [1e-12, 1e-3, 1.0, 1e12])
def test_finite_for_all_variances_and_at_special_places(variance):
    means = np.float32([[0.0], [2.0], [2.5], [7.0], [-4.0], [1e12], [6.999999], [3.0]])
    last = np.array([7, 7, 7, 7, 7, 7, 2, -1], np.int32)

    def total(means, variances):
        logs = draw((8,), jax.random.key(0), means, variances, last).logs
        live = logs != -jnp.inf
        return jnp.sum(jnp.where(live, jnp.exp(jnp.where(live, logs, 0)), 0) ** 2), logs

    slopes = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (value, logs), grads = slopes(means, np.full_like(means, variance))
    assert all_finite((value, grads))
    sums = np.exp(np.asarray(logs, np.float64)).sum(1)
    assert_close(sums[:6], np.ones(6), rtol=1e-5)
    assert sums[7] == 0


def test_where_nothing_is_kept_there_is_no_share_and_no_slope():
    logits = np.float32([[1.0, np.inf, -3.0], [1e30, 2.0, 3.0]])
    kept = np.array([[False] * 3, [True, True, False]])

    def of(logits):
        found = masked_log_softmax(logits, kept)
        return jnp.sum(jnp.where(kept, found, 0)), found

    slope, logs = jax.jit(jax.grad(of, has_aux=True))(logits)
    assert_close(logs, [[-np.inf] * 3, [0.0, -1e30, -np.inf]])
    assert (np.asarray(slope)[0] == 0).all()
    assert all_finite(slope)
