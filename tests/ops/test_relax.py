import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import assert_close, make_tuples, relax, scatter, settle

SHAPE = (5, 4)
SAMPLED = {"num_global": 3, "num_local": 2, "region": (2, 2)}
KEY = jax.random.key(5)


def part(tuples, chosen):
    return ContinuousTuples(*(leaf[chosen] for leaf in tuples))


@pytest.mark.parametrize("options", [{}, {"chunk_size": 1}, {"chunk_size": 3}, {"wrap": True}])
@pytest.mark.parametrize("variance", [1e-12, 1.0, 1e12])
def test_value_is_conserved_and_repeated_points_get_none(options, variance):
    tuples = make_tuples(6, SHAPE, variance=variance)
    indices, values = relax(KEY, tuples, SHAPE, **SAMPLED, **options)
    assert indices.shape == (6 * 9, 2)
    assert indices.dtype == jnp.int32
    contexts = 6 // options.get("chunk_size", 6)
    totals = tuples.values.reshape(contexts, -1).sum(axis=1)
    assert_close(values.reshape(contexts, -1).sum(axis=1), totals, rtol=1e-4)
    for rows, shares in zip(
        np.asarray(indices).reshape(contexts, -1, 2), values.reshape(contexts, -1), strict=True
    ):
        first = np.unique(rows, axis=0, return_index=True)[1]
        assert (np.delete(np.asarray(shares), first) == 0).all()


def test_chunks_of_one_are_independent_tuples():
    tuples = make_tuples(4, SHAPE)
    chunked = relax(KEY, tuples, SHAPE, chunk_size=1, **SAMPLED)
    keys = jax.random.split(KEY, 4)
    alone = [relax(keys[j], part(tuples, slice(j, j + 1)), SHAPE, **SAMPLED) for j in range(4)]
    assert_close(chunked, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *alone))


def test_one_chunk_is_the_shared_context():
    tuples = make_tuples(4, SHAPE)
    shared = relax(KEY, tuples, SHAPE, **SAMPLED)
    assert_close(relax(KEY, tuples, SHAPE, chunk_size=4, **SAMPLED), shared)


def test_tuples_share_points_within_their_chunk_only():
    # Tuple 0 has all the value; tuple 1 is far away, and wide enough to be felt from there.
    tuples = ContinuousTuples(
        jnp.array([[0.5], [40.5]]), jnp.full((2, 1), 1e6), jnp.array([1.0, 0.0])
    )
    together = scatter(relax(None, tuples, (50,), chunk_size=2), (50,))
    apart = scatter(relax(None, tuples, (50,), chunk_size=1), (50,))
    assert_close(together[[0, 1, 40, 41]], np.full(4, 0.25), rtol=1e-3)
    assert_close(apart[[0, 1, 40, 41]], [0.5, 0.5, 0, 0], rtol=1e-3)


def test_without_random_points_a_key_changes_nothing():
    tuples = make_tuples(4, SHAPE)
    for chunk_size in (2, 4):
        with_key = relax(KEY, tuples, SHAPE, chunk_size=chunk_size)
        assert_close(relax(None, tuples, SHAPE, chunk_size=chunk_size), with_key)


def test_the_same_key_gives_the_same_and_another_key_another():
    tuples = make_tuples(4, SHAPE)
    first, again, other = (
        relax(key, tuples, SHAPE, **SAMPLED) for key in (KEY, KEY, jax.random.key(6))
    )
    assert (first.indices == again.indices).all()
    assert (first.values == again.values).all()
    assert (first.indices != other.indices).any()


@pytest.mark.parametrize("wrap", [False, True])
def test_settled_tuples_are_rounded_and_add_up(wrap):
    means = jnp.array([[2.4, 1.0], [1.6, 1.4], [4.4, 2.6], [4.6, 3.4]])
    tuples = ContinuousTuples(means, jnp.ones((4, 2)), jnp.array([1.0, 2.0, 4.0, 8.0]))
    dense = scatter(settle(tuples, SHAPE, wrap=wrap), SHAPE)
    assert dense[2, 1] == 3
    assert dense[4, 3] == 4 + (0 if wrap else 8)
    assert dense[0, 3] == (8 if wrap else 0)
    assert dense.sum() == 15


@pytest.mark.parametrize("density", ["gaussian", "laplace"])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2, "wrap": True}])
def test_settled_is_the_limit_of_small_variance(density, options):
    tuples = make_tuples(6, SHAPE, variance=1e-12)
    soft = relax(KEY, tuples, SHAPE, density=density, num_global=3, **options)
    hard = settle(tuples, SHAPE, wrap=options.get("wrap", False))
    assert_close(scatter(soft, SHAPE), scatter(hard, SHAPE), atol=1e-5)


@pytest.mark.parametrize("density", ["gaussian", "laplace", "student_t"])
def test_tuples_on_integers_are_settled_already(density):
    means = jnp.array([[0.0, 0.0], [4.0, 3.0], [2.0, 1.0], [2.0, 1.0]])
    tuples = make_tuples(4, SHAPE, variance=1e-12)._replace(means=means)
    soft = relax(KEY, tuples, SHAPE, density=density, num_global=3)
    assert_close(scatter(soft, SHAPE), scatter(settle(tuples, SHAPE), SHAPE), atol=1e-5)


def test_settling_gives_gradient_to_values_only():
    def total(tuples):
        return jnp.sin(settle(tuples, SHAPE).values).sum()

    tuples = make_tuples(3, SHAPE)
    grads = jax.grad(total)(tuples)
    assert (grads.means == 0).all()
    assert (grads.variances == 0).all()
    assert_close(grads.values, jnp.cos(tuples.values))


@jax.jit
def relax_two(tuples, start):
    return ops.relax(KEY, tuples, SHAPE, active=(start, 2), **SAMPLED)


@pytest.mark.parametrize("start", [0, 2, 4])
def test_active_tuples_are_relaxed_and_others_settled(start):
    tuples = make_tuples(6, SHAPE)
    inside = np.arange(start, start + 2)
    soft = scatter(relax(KEY, part(tuples, inside), SHAPE, **SAMPLED), SHAPE)
    hard = scatter(settle(part(tuples, np.setdiff1d(np.arange(6), inside)), SHAPE), SHAPE)
    assert_close(scatter(relax_two(tuples, start), SHAPE), soft + hard)


def test_only_active_tuples_get_a_gradient():
    weights = jnp.cos(jnp.arange(2 * 9 + 6.0))
    slopes = jax.jit(jax.grad(lambda tuples: relax_two(tuples, 2).values @ weights))
    for leaf in slopes(make_tuples(6, SHAPE)):
        assert (leaf[:2] == 0).all()
        assert (leaf[2:4] != 0).any()
        assert (leaf[4:] == 0).all()


def test_on_a_circle_a_shift_of_everything_shifts_the_tensor():
    tuples = make_tuples(3, SHAPE, variance=3.0)
    moved = tuples._replace(means=jnp.mod(tuples.means + jnp.array([2.0, 3.0]), jnp.array(SHAPE)))
    options = {"num_local": 40, "region": SHAPE, "wrap": True}
    dense, shifted = (
        scatter(relax(KEY, each, SHAPE, **options), SHAPE) for each in (tuples, moved)
    )
    assert_close(np.roll(dense, (2, 3), axis=(0, 1)), shifted, rtol=1e-4, atol=1e-5)


def test_plain_triples_of_lists_are_welcome():
    triple = ([[1.5, 2.0]], [[1.0, 1.0]], [3.0])
    for sparse in (relax(None, triple, SHAPE), settle(triple, SHAPE)):
        assert_close(sparse.values.sum(), 3.0)


def test_all_chunk_sizes_agree_on_well_separated_narrow_tuples():
    means = jnp.array(list(itertools.product([2.3, 12.6], [3.4, 13.3])))
    tuples = ContinuousTuples(means, jnp.full((4, 2), 0.1), jnp.arange(1.0, 5.0))
    dense = [
        scatter(relax(None, tuples, (16, 16), chunk_size=size), (16, 16)) for size in (1, 2, 4)
    ]
    assert_close(dense[0], dense[1])
    assert_close(dense[0], dense[2])


def test_a_mean_of_nan_spoils_the_value_of_its_tuple_and_no_other():
    tuples = make_tuples(3, SHAPE)
    tuples = tuples._replace(means=tuples.means.at[1, 0].set(np.nan))

    def total(values):
        entries = settle(tuples._replace(values=values), SHAPE)
        return entries.values.sum(), entries.values

    slopes, values = jax.grad(total, has_aux=True)(tuples.values)
    for numbers in (values, slopes):
        assert jnp.isnan(numbers).tolist() == [False, True, False]
    assert jnp.isnan(ops.hyperlayer_hard(tuples, np.ones(4), (5,))).any()


def test_between_two_cells_relax_gives_half_and_settle_all():
    halfway = ([[2.5]], [[1e-12]], [1.0])
    entries = ops.relax(None, halfway, (5,))
    assert_close((entries.indices[:, 0], entries.values), ([2, 3], [0.5, 0.5]))
    settled = ops.settle(halfway, (5,))
    assert_close((settled.indices[:, 0], settled.values), ([2], [1.0]))


@pytest.mark.parametrize("start", [-5, -1, 0, 2, 3, 7, 2**31 - 1])
def test_of_a_traced_range_only_what_lies_inside_counts(start):
    tuples, size = make_tuples(4, SHAPE), 2
    slopes, entries = from_traced_range(start, tuples)
    inside = [number for number in range(4) if start <= number < start + size]
    assert np.flatnonzero(np.abs(slopes.means).sum(axis=1)).tolist() == inside
    assert_close(scatter(entries, SHAPE).sum(), tuples.values.sum())
    if not inside:
        assert_close(scatter(entries, SHAPE), scatter(settle(tuples, SHAPE), SHAPE))


@jax.jit
def from_traced_range(start, tuples):
    def loss(tuples):
        entries = ops.relax(KEY, tuples, SHAPE, active=(start, 2), num_global=2)
        weights = jnp.cos(jnp.arange(len(entries.values), dtype=jnp.float32))
        return (entries.values * weights).sum(), entries

    return jax.grad(loss, has_aux=True)(tuples)
