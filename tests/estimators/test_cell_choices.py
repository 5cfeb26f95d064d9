import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import (
    ARM,
    RLOO,
    Enumeration,
    axis_choices,
    cell_choices,
    expectation,
)
from sparse_hyper_jax.ops import ContinuousTuples, proportions
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

SHAPE = (4, 5)
TUPLES = ContinuousTuples(
    jnp.array([[0.3, 1.7], [2.0, 4.0], [1.6, 0.5]]),
    jnp.array([[0.5, 1.0], [1.0, 1.0], [2.0, 0.3]]),
    jnp.ones(3),
)
KEYS = jax.random.split(jax.random.key(3), 4000)
TABLE = np.random.default_rng(1).normal(size=(*SHAPE, *SHAPE, *SHAPE)).astype(np.float32)


def loss_of(cells):
    return jnp.asarray(TABLE)[tuple(cells.reshape(-1))]


@jax.jit
def both_kinds(tuples):
    """Choices among whole cells and axis by axis, with the shares of each."""
    choices = cell_choices(None, tuples, SHAPE), axis_choices(tuples, SHAPE)
    return choices, [jax.nn.softmax(one.logits) for one in choices]


def neighbour_law(mean, variance):
    """Cells around a mean and their odds, by hand."""
    axes = []
    for place, spread, size in zip(mean, variance, SHAPE, strict=True):
        cells = sorted({int(np.floor(place)), min(int(np.floor(place)) + 1, size - 1)})
        axes.append([(cell, np.exp(-((cell - place) ** 2) / (2 * spread))) for cell in cells])
    law = {(a, b): p * q for (a, p), (b, q) in itertools.product(*axes)}
    return {cell: odds / sum(law.values()) for cell, odds in law.items()}


def test_neighbours_have_the_odds_of_their_densities():
    (choices, _), (shares, _) = both_kinds(TUPLES)
    assert choices.points.shape == (3, 4, 2)
    means, variances = np.asarray(TUPLES.means, float), np.asarray(TUPLES.variances, float)
    for j in range(3):
        law = neighbour_law(means[j], variances[j])
        found = {}
        for cell, share in zip(choices.points[j].tolist(), shares[j], strict=True):
            found[tuple(cell)] = found.get(tuple(cell), 0) + share
        assert found == pytest.approx(law, abs=1e-6)


@pytest.mark.parametrize("density", ["gaussian", "laplace", "student_t"])
@pytest.mark.parametrize("wrap", [False, True])
def test_odds_are_the_proportions_of_a_context_of_one_tuple(density, wrap):
    sampling = {"num_global": 3, "num_local": 2, "region": (3, 3), "wrap": wrap}
    period = SHAPE if wrap else None

    @jax.jit
    def shares_and_proportions(tuples):
        choices = cell_choices(KEYS[0], tuples, SHAPE, density=density, **sampling)
        assert choices.points.shape == (3, 9, 2)

        def alone(points, logits, mean, variance):
            finite, tuples = jnp.isfinite(logits), (mean[None], variance[None])
            return proportions(points, finite, *tuples, density=density, period=period)[:, 0]

        expected = jax.vmap(alone)(choices.points, choices.logits, *tuples[:2])
        return jax.nn.softmax(choices.logits), expected

    assert_close(*shares_and_proportions(TUPLES), atol=1e-6)


def test_a_repeated_point_is_no_class():
    (choices, _), _ = both_kinds(TUPLES)
    # The mean of the second tuple sits on a cell at the end of an axis.
    assert np.isneginf(choices.logits).sum(axis=1).tolist() == [0, 2, 0]


def test_no_cell_belongs_to_a_class_outside():
    (choices, _), _ = both_kinds(TUPLES)
    picked = choices.pick([1, -1, 4])
    assert picked.tolist() == [choices.points[0, 1].tolist(), [-1, -1], [-1, -1]]


def test_axes_have_the_law_of_neighbours():
    (whole, axes), (shares, by_axis) = both_kinds(TUPLES)
    assert axes.points.shape == (6, 2, 1)
    by_axis = np.reshape(by_axis, (3, 2, 2))
    product = np.einsum("ka,kb->kab", by_axis[:, 0], by_axis[:, 1]).reshape(3, 4)
    assert_close(product, shares, atol=1e-6)
    bits = np.array([0, 1, 0, 0, 1, 1])
    corners = np.array([1, 0, 3])
    assert (axes.pick(bits).reshape(3, 2) == whole.pick(corners)).all()


def expected_loss(tuples, key, estimator, kind):
    make = axis_choices if kind == "axes" else lambda *rest: cell_choices(None, *rest)
    choices = make(tuples, SHAPE)

    def f(z):
        return loss_of(choices.pick(z).reshape(3, 2))

    return expectation(key, choices.logits, f, estimator=estimator)


slope = jax.jit(jax.value_and_grad(expected_loss), static_argnums=(2, 3))


def test_both_kinds_have_the_same_expectation_and_gradient():
    slopes = [slope(TUPLES, KEYS[0], Enumeration(), kind) for kind in ("whole", "axes")]
    assert_close(slopes[0], slopes[1], atol=1e-5)
    assert np.abs(slopes[0][1].means).max() > 0.05


@pytest.mark.parametrize(("estimator", "kind"), [(RLOO(2), "whole"), (ARM(), "axes")])
def test_gradients_of_means_and_variances_are_unbiased(estimator, kind):
    exact = slope(TUPLES, KEYS[0], Enumeration(), kind)[1]
    estimate = jax.jit(jax.vmap(lambda key: slope(TUPLES, key, estimator, kind)[1]))(KEYS)
    for field in ("means", "variances"):
        drawn, wanted = np.asarray(getattr(estimate, field)), getattr(exact, field)
        error = drawn.std(0) / len(KEYS) ** 0.5
        assert (np.abs(drawn.mean(0) - wanted) < 4 * error + 1e-6).all()


@pytest.mark.parametrize("variance", [1e-12, 1e12])
def test_extreme_variances_are_finite(variance):
    tuples = TUPLES._replace(variances=np.full((3, 2), variance, np.float32))
    for kind in ("whole", "axes"):
        assert all_finite(slope(tuples, KEYS[0], RLOO(2), kind)[1])


MISTAKES = {
    "no key": (
        lambda: cell_choices(None, TUPLES, SHAPE, num_global=1),
        "key=None",
        "a key",
        "pass jax.random.key",
    ),
    "another rank": (
        lambda: axis_choices(TUPLES, (4, 5, 6)),
        "means of shape (3, 2)",
        "a last axis of length 3",
        "change the shape",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
