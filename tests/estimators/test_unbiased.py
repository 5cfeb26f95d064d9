import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import estimators
from sparse_hyper_jax.estimators import (
    ARSM,
    ESTIMATORS,
    Enumeration,
    Estimator,
    GumbelStraightThrough,
    StraightThrough,
    Subset,
    WithoutReplacement,
)
from sparse_hyper_jax.estimators.estimator import draw
from tests.estimators.examples import (
    CASES,
    DRAWS,
    KEY,
    PROBLEMS,
    Problem,
    choices,
    draws,
    estimate,
    exact,
    fits,
    make_problem,
    mean_and_error,
    objective,
    softmax,
)
from tests.folding import stacked
from tests.ops.examples import assert_close

# All of them on two variables; on the other shapes those whose formula depends on the shape.
ALSO = {
    "one variable": ("RLOO", "AR", "ARS", "ARSM", "WithoutReplacement"),
    "three variables": ("ScoreFunction", "ARM", "ARSM, each alone", "RELAX"),
}
UNBIASED = [
    (name, problem)
    for name, case in CASES.items()
    for problem in PROBLEMS
    if case.unbiased
    and name != "Enumeration"
    and fits(case, PROBLEMS[problem])
    and name in ALSO.get(problem, CASES)
]

each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def deviations(sample, expected):
    """Distances from the exact figure in standard errors; rounding alone counts as none."""
    mean, error = mean_and_error(sample)
    return np.abs(mean - expected) / (error + 1e-6)


@each_problem
def test_enumeration_is_the_sum_written_out(problem):
    value, gradient, samples = estimate(Enumeration(), problem)
    assert_close((value, gradient), exact(problem))
    assert samples.tolist() == [list(choice) for choice in choices(*problem.logits.shape)]


@each_problem
def test_enumeration_is_what_autodiff_makes_of_the_sum(problem):
    def explicit_sum(logits):
        total = jnp.asarray(problem.table)
        for row in jax.nn.softmax(logits):
            total = jnp.tensordot(row, total, 1, precision="highest")
        return total

    expected = jax.jit(jax.value_and_grad(explicit_sum))(problem.logits)
    assert_close(estimate(Enumeration(), problem)[:2], expected)


@pytest.mark.parametrize("name", CASES)
def test_flags_are_those_of_the_table(name):
    assert CASES[name].estimator.relaxed == CASES[name].relaxed


def test_every_estimator_is_in_the_table():
    named = (getattr(estimators, name) for name in estimators.__all__)
    kinds = {one for one in named if isinstance(one, type) and issubclass(one, Estimator)}
    assert {type(case.estimator) for case in CASES.values()} == kinds - {Estimator}
    assert {type(one) for one in ESTIMATORS.values()} <= kinds


@pytest.mark.parametrize(("name", "problem"), UNBIASED)
def test_mean_of_value_and_gradient_is_exact(name, problem):
    # A bend, which is 0 at every choice, makes the relaxed f other than linear in its rows.
    sample = draws(CASES[name].estimator, PROBLEMS[problem], bend=0.7)
    for drawn, expected in zip(sample, exact(PROBLEMS[problem]), strict=True):
        assert deviations(drawn, expected).max() < 4
    # The bound means something: nowhere is it as wide as the gradient itself.
    assert mean_and_error(sample[1])[1].max() < 0.1 * np.abs(exact(PROBLEMS[problem])[1]).max()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.unbiased])
def test_biased_ones_miss_the_gradient(name):
    problem = PROBLEMS["two variables"]
    _, gradient = draws(CASES[name].estimator, problem, bend=0.7, count=20_000)
    assert deviations(gradient, exact(problem)[1]).max() > 10


@pytest.mark.parametrize("informed", [False, True])
def test_a_subset_misses_the_value_too(informed):
    # One variable of classes 0 to 4 with f = 1 at the likeliest and 0 elsewhere: two classes drawn
    # uniformly hold it in 2 of 5 draws, and in all of them if informed.
    problem = Problem(np.array([[2.0, 0, 0, 0, 0]], np.float32), np.eye(5, dtype=np.float32)[0])
    value, _ = draws(Subset(2, informed=informed), problem, count=20_000)
    share = np.exp(2) / (np.exp(2) + 1)
    expected = share if informed else 0.4 * share
    assert deviations(value, expected) < 4
    assert deviations(value, exact(problem)[0]) > 10


@pytest.mark.parametrize(("name", "informed"), [("one variable", False), ("three variables", True)])
def test_a_subset_of_everything_is_exact(name, informed):
    problem = PROBLEMS[name]
    drawn = estimate(Subset(problem.table.size, informed=informed), problem)
    assert_close(drawn[:2], exact(problem), atol=2e-6)


@pytest.mark.parametrize("problem", [one for one in PROBLEMS.values() if len(one.logits) == 2])
def test_straight_through_is_unbiased_for_what_is_linear_in_every_row(problem):
    value, gradient = draws(StraightThrough(), problem)
    expected_value, expected = exact(problem)
    assert deviations(value, expected_value) < 4
    assert deviations(gradient, expected).max() < 4


def test_straight_through_is_exact_for_what_is_linear():
    costs, logits = make_problem(3, 4).logits, make_problem(3, 4, seed=1).logits

    @jax.jit
    def both(logits):
        estimate = StraightThrough().estimate(KEY, logits, lambda rows: jnp.sum(costs * rows))
        return estimate.gradient, jax.grad(lambda x: jnp.sum(costs * jax.nn.softmax(x)))(logits)

    assert_close(*both(logits))


def test_the_error_falls_with_the_root_of_the_draws():
    problem = PROBLEMS["two variables"]
    _, gradient = draws(CASES["ARSM"].estimator, problem)
    few, many = (
        np.sqrt(np.mean((gradient.reshape(-1, size, 2, 4).mean(1) - exact(problem)[1]) ** 2))
        for size in (20, 320)
    )
    assert 3.6 < few / many < 4.4


def test_objectives_agree_on_choices():
    problem = PROBLEMS["two variables"]
    hard, relaxed = (
        jax.jit(objective(CASES[name].estimator, problem.table, 0.7)) for name in ("RLOO", "REBAR")
    )
    for choice in np.ndindex(4, 4):
        rows = np.eye(4, dtype=np.float32)[list(choice)]
        assert_close(relaxed(rows), hard(np.array(choice)))
    assert DRAWS >= 2e5


def test_a_banned_class_is_never_drawn_among_many():
    # Cumulative sums of float32 may step up where a probability is 0.
    generator = np.random.default_rng(3)
    for classes, count in ((100, 200_000), (250, 200_000), (5000, 2000)):
        logits = generator.normal(size=(1, classes)).astype(np.float32)
        banned = generator.random((1, classes)) < 0.5
        logits[banned] = -np.inf
        drawn = np.asarray(jax.jit(draw, static_argnums=2)(KEY, logits, count))
        assert not banned[0, drawn].any()
        assert len(np.unique(drawn)) > 0.3 * min(classes, 1000)


def test_a_constant_in_the_logits_rounds_no_noise_away():
    logits = np.array([[0.5, -1.0, 0.25]], np.float32)
    for estimator in (ARSM(), GumbelStraightThrough()):
        f = (lambda z: jnp.sum(jnp.sin(z * 2.0))) if estimator.relaxed else (lambda z: z[0] * 1.0)
        keys = jax.random.split(jax.random.key(0), 2000)

        def gradients(x, estimator=estimator, f=f, keys=keys):
            return jax.vmap(lambda key: estimator.estimate(key, x, f).gradient)(keys)

        run = jax.jit(gradients)
        np.testing.assert_array_equal(run(logits), run(logits + np.float32(2.0**20)))


LAWLESS = ["rloo", "arsm", "without_replacement", "enumeration"]


@stacked
def without_a_law():
    def estimate(name):
        return lambda logits: ESTIMATORS[name].estimate(KEY, logits, lambda z: jnp.sum(z) * 1.0)

    functions = {name: estimate(name) for name in LAWLESS}
    return {
        (name, bad): (functions[name], np.full((2, 3), bad, np.float32))
        for name, bad in itertools.product(LAWLESS, ["-inf", "nan"])
    }


@pytest.mark.parametrize("name", LAWLESS)
@pytest.mark.parametrize("bad", ["-inf", "nan"])
def test_logits_without_a_law_give_no_number(name, bad):
    estimate = without_a_law(name, bad)
    assert np.isnan(estimate.value)
    # Where a logit is -inf the gradient may be a number.
    assert bad == "-inf" or np.isnan(estimate.gradient).all()


def test_peaked_logits_keep_sampling_without_replacement_unbiased():
    logits, table = np.array([[15.0, 0, 0.3, -0.4]], np.float32), jnp.array([1.0, 5.0, -3.0, 2.0])

    def f(z):
        return table[z[0]]

    wanted = jax.jit(lambda logits: Enumeration().estimate(KEY, logits, f).gradient)(logits)
    estimator, total = WithoutReplacement(3), np.zeros((1, 4))
    # All sets of three, each with the chance of its draws, in float64.
    p = softmax(logits[0])
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.jit(jax.vmap(lambda key: estimator.estimate(key, logits, f)))(keys)
    by_set = {}
    for samples, gradient in zip(
        np.asarray(drawn.samples), np.asarray(drawn.gradient), strict=True
    ):
        by_set[frozenset(samples[:, 0].tolist())] = gradient
    for members, gradient in by_set.items():
        chance = 0.0
        for a, b, c in itertools.permutations(members):
            left = p.sum() - p[a] if a else p[1:].sum()
            after = sum(p[i] for i in range(4) if i not in (a, b))
            chance += p[a] * p[b] / left * p[c] / after
        total += chance * gradient
    assert {0} <= frozenset.intersection(*by_set)
    assert_close(total, wanted, rtol=1e-2)
