"""Ablation, agreement, spread and edges against what NumPy computes one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import SparseEntries, explain, ops
from tests.ops.examples import assert_names_itself_and_its_cure


@pytest.mark.parametrize("batch_size", [1, 2])
def test_ablation_is_the_loss_without_each_row(batch_size):
    generator = np.random.default_rng(0)
    x, y, weights = (generator.normal(size=shape) for shape in ((9, 4), (9, 2), (4, 2)))
    weights[2] = 0.0

    def loss(weights, x=x, y=y, mean=np.mean):
        return mean((x @ weights - y) ** 2)

    found = jax.jit(
        lambda weights: explain.ablate(
            lambda weights: loss(weights, jnp.asarray(x), y, jnp.mean),
            weights,
            batch_size=batch_size,
        )
    )(weights)
    rows = [np.where(np.arange(4)[:, None] == row, 0.0, weights) for row in range(4)]
    exact = [loss(one) - loss(weights) for one in rows]
    np.testing.assert_allclose(found.exact, exact, rtol=1e-4, atol=1e-5)
    slope = 2 * x.T @ (x @ weights - y) / y.size
    np.testing.assert_allclose(found.first_order, -np.sum(slope * weights, 1), rtol=1e-4, atol=1e-5)
    assert found.exact[2] == found.first_order[2] == 0


@pytest.mark.parametrize("batch_size", [1, 2])
def test_nothing_is_worth_nothing(batch_size):
    found = explain.ablate(jnp.sum, np.zeros((0, 2)), batch_size=batch_size)
    assert found.exact.shape == found.first_order.shape == (0,)
    found = explain.ablate(jnp.sum, np.zeros((2, 0)), batch_size=batch_size)
    assert found.exact.tolist() == found.first_order.tolist() == [0, 0]


def best_matching(one, other, within):
    """Try all assignments: most pairs, then least distance."""
    far = np.abs(one[:, None] - other[None]).max(-1)
    best = (0, 0)
    for columns in itertools.permutations(range(len(other)), len(one)):
        pairs = [far[row, column] for row, column in enumerate(columns)]
        pairs = [distance for distance in pairs if distance <= within]
        best = min(best, (-len(pairs), sum(pairs)))
    return -best[0], best[1]


def test_matching_is_the_best_of_all_assignments():
    generator = np.random.default_rng(2)
    ones = generator.integers(0, 7, (40, 3, 2))
    others = generator.integers(0, 7, (40, 5, 2))

    for one, other in zip(ones, others, strict=True):
        there = explain.match_positions(one, other, within=2)
        back = explain.match_positions(other, one, within=2)
        count, distance = best_matching(one, other, 2)
        rows = np.flatnonzero(there.partner >= 0)
        partners = there.partner[rows]
        assert len(rows) == len(set(partners)) == count == np.sum(back.partner >= 0)
        assert np.abs(one[rows] - other[partners]).max(-1, initial=0).sum() == distance
        np.testing.assert_allclose([there.share, back.share], count / 5)


def test_agreement_is_symmetric_and_full_with_itself():
    runs = np.random.default_rng(3).integers(0, 30, (4, 5, 1))
    runs[1] = runs[0][::-1] + 1
    shares = explain.agreement(runs)
    np.testing.assert_array_equal(shares, shares.T)
    np.testing.assert_array_equal(np.diag(shares), 1.0)
    assert shares[0, 1] == 1.0
    far = explain.agreement(runs + 100 * np.arange(4)[:, None, None])
    np.testing.assert_array_equal(far, np.eye(4))
    fewer = explain.agreement([runs[0], runs[1][:2], runs[0][:1]])
    np.testing.assert_allclose(fewer[0], [1, 2 / 5, 1 / 5])


def test_effective_points_of_real_proportions():
    means, variances = np.array([[2.0], [1.3]]), np.array([[1e-12], [1e12]])
    shares = jax.jit(ops.proportions)(np.arange(5)[:, None], np.ones(5, bool), means, variances)
    np.testing.assert_allclose(explain.effective_points(shares), [1.0, 5.0], rtol=1e-5)
    slope = jax.jit(jax.grad(lambda shares: explain.effective_points(shares).sum()))(shares)
    assert np.isfinite(slope).all()


def test_edges_are_the_matrix_by_flat_cells():
    generator = np.random.default_rng(4)
    values = jnp.asarray(generator.normal(size=30), jnp.float32)
    entries = SparseEntries(jnp.asarray(generator.integers(-1, [3, 4, 4], (30, 3))), values)
    senders, receivers, weights = map(np.asarray, explain.to_edges(entries, (2, 3), (4,)))
    real = senders >= 0
    assert np.all(weights[~real] == 0)
    assert np.all(receivers[~real] == -1)
    dense = np.zeros((6, 4), np.float32)
    np.add.at(dense, (receivers[real], senders[real]), weights[real])
    np.testing.assert_allclose(dense.reshape(2, 3, 4), ops.to_dense(entries, (2, 3, 4)), rtol=1e-6)


WRONG = {
    "a loss of two": (
        lambda: explain.ablate(lambda v: v, np.ones(2)),
        ("loss", "one number", "sum"),
    ),
    "a loss of text": (
        lambda: explain.ablate(lambda v: "x", np.ones(2)),
        ("loss='x'", "floats", ""),
    ),
    "a complex loss": (
        lambda: explain.ablate(lambda v: jnp.sum(v) * 1j, np.ones(2)),
        ("loss of dtype complex64", "floats", ""),
    ),
    "no row": (lambda: explain.ablate(jnp.sum, 1.0), ("shape ()", "row", "(k, ...)")),
    "two ranks": (
        lambda: explain.match_positions([[1]], [[1, 2]]),
        ("rank 1 and of rank 2", "same rank", "same layer"),
    ),
    "costs beyond float32": (
        lambda: explain.match_positions([[1], [2]], [[1], [2]], within=2**23 - 1),
        ("within=8388607 and 2 positions", "2**24", "lower within"),
    ),
    "floats": (lambda: explain.match_positions([[1.5]], [[1]]), ("float", "integers", "")),
    "traced": (
        lambda: jax.eval_shape(explain.agreement, jnp.zeros((2, 2, 1), int)),
        ("runs traced", "known", "outside of jax.jit"),
    ),
    "no runs": (lambda: explain.agreement([[1, 2]]), ("shape (2,)", "(s, k, r)", "stack")),
    "runs of two ranks": (
        lambda: explain.agreement([[[1]], [[1, 2]]]),
        ("ranks 1, 2", "same rank", "same layer"),
    ),
    "an empty run": (
        lambda: explain.agreement([[[1]], np.zeros((0, 1), int)]),
        ("runs[1] of shape (0, 1)", "(s, k, r)", "stack"),
    ),
    "one axis": (lambda: explain.effective_points([1.0]), ("shape (1,)", "(P, k)", "proportions")),
    "another rank": (
        lambda: explain.to_edges(SparseEntries(jnp.zeros((1, 2), int), jnp.ones(1)), (2, 2), (2,)),
        ("indices", "3", ""),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told(case):
    call, words = WRONG[case]
    assert_names_itself_and_its_cure(call, *words)
