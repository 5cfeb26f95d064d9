from functools import cache
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import AR, ARM, ARS, ARSM, Enumeration, pseudo_actions
from sparse_hyper_jax.estimators.arsm import draw_log_pi
from tests.estimators.examples import (
    BLOCK,
    CASES,
    KEY,
    PROBLEMS,
    Problem,
    draw_block,
    estimate,
    fits,
    keys_of,
    make_problem,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

FEW = 4
CLASSES = [2, 3, 4, 7, 10]
TWO = PROBLEMS["two variables"]
BINARY = PROBLEMS["three variables"]
BANNED = PROBLEMS["two, one class banned"]

each_case = pytest.mark.parametrize("name", CASES)
# Estimates that compare values of f with each other only.
COMPARING = ["RLOO", "ARS", "ARSM", "ARSM, each alone", "ARM", "WithoutReplacement"]


def of(problem, name):
    return problem if fits(CASES[name], problem) else BINARY


def naive_pseudo_actions(log_pi, logits, pairs):
    """Exchange, run the race, and take the first of equal winners."""
    winners = []
    for first, second in pairs:
        exchanged = np.array(log_pi)
        exchanged[:, [first, second]] = exchanged[:, [second, first]]
        winners.append(np.argmin(exchanged - logits, axis=1))
    return np.array(winners)


def naive_gradient(problem, log_pi, *, joint=True, references=None):
    """Write out the double sum over classes and references, one exchange at a time."""
    logits, table = problem
    variables, classes = logits.shape
    pi, true = np.exp(np.float64(log_pi)), naive_pseudo_actions(log_pi, logits, [(0, 0)])[0]
    references = range(classes) if references is None else references
    gradient = np.zeros((variables, classes))
    for k in range(variables):
        for j in references:
            actions = naive_pseudo_actions(log_pi, logits, [(c, j) for c in range(classes)])
            if not joint:
                actions = np.where(np.arange(variables) == k, actions, true)
            values = np.array([np.float64(table[tuple(action)]) for action in actions])
            weight = (1 - classes * pi[k, j]) / len(references)
            gradient[k] += (values - values.mean()) * weight
    return gradient


@jax.jit
def _simplex(keys, logits):
    return jax.vmap(draw_log_pi, (0, None))(keys, logits)


def simplex(problem):
    """Draw ``log pi`` as ARSM does, for the first estimates of a block."""
    return np.asarray(_simplex(keys_of(0)[:FEW], problem.logits))


@cache
def all_exchanges(classes):
    """Give 50 races without ties, 200 with many, and the winners after all exchanges."""
    generator = np.random.default_rng(classes)
    log_pi = np.log(generator.dirichlet(np.ones(classes), 50))
    logits = generator.normal(size=(50, classes))
    # Few distinct numbers, whose differences are exact: most races end in a tie.
    tied = generator.integers(0, 3, (2, 200, classes))
    log_pi, logits = (
        np.concatenate(both).astype(np.float32) for both in zip((log_pi, logits), tied, strict=True)
    )
    pairs = np.stack(np.indices((classes, classes)), -1).reshape(-1, 2)
    return log_pi, logits, pairs, jax.jit(pseudo_actions)(log_pi, logits, pairs)


@pytest.mark.parametrize("classes", CLASSES)
def test_pseudo_actions_are_the_winners_after_an_exchange(classes):
    log_pi, logits, pairs, actions = all_exchanges(classes)
    assert actions.dtype == jnp.int32
    np.testing.assert_array_equal(actions, naive_pseudo_actions(log_pi, logits, pairs))
    # Ties went to the lower class, as those of argmin.
    race = log_pi - logits
    assert ((race == race.min(1, keepdims=True)).sum(1) > 1)[50:].mean() > 0.2


@pytest.mark.parametrize("classes", CLASSES)
def test_table_is_symmetric_with_the_true_action_on_its_diagonal(classes):
    log_pi, logits, _, actions = all_exchanges(classes)
    table = np.asarray(actions).reshape(classes, classes, -1)
    np.testing.assert_array_equal(table, table.swapaxes(0, 1))
    true = np.argmin(log_pi - logits, axis=1)
    np.testing.assert_array_equal(np.diagonal(table).T, np.broadcast_to(true, table.shape[1:]))


def test_a_pair_with_a_class_outside_changes_nothing():
    log_pi, logits, _, _ = all_exchanges(4)
    pairs = np.array([[0, 0], [-1, 2], [1, 4], [3, -1000], [2**31 - 1, 0]])
    actions = np.asarray(jax.jit(pseudo_actions)(log_pi, logits, pairs))
    assert (actions == actions[0]).all()


@pytest.mark.parametrize("name", ["AR", "ARS", "ARSM", "ARSM, each alone"])
def test_banned_classes_never_win(name):
    samples = draw_block(CASES[name].estimator, BANNED).samples
    for variable, others in enumerate(([0, 2, 3], [0, 1, 2])):
        assert np.unique(samples[..., variable]).tolist() == others


def test_a_point_on_the_simplex_is_uniform():
    pi = np.exp(np.float64(draw_log_pi(KEY, jnp.zeros((20_000, 3)))))
    assert_close(pi.sum(1), np.ones(20_000))
    # Each entry has the law Beta(1, 2): mean 1/3, variance 1/18.
    assert (np.abs(pi.mean(0) - 1 / 3) < 4 * np.sqrt(1 / 18 / 20_000)).all()
    assert_close(pi.var(0), np.full(3, 1 / 18), rtol=0.03)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_arsm_is_the_double_sum_written_out(problem, joint):
    drawn = draw_block(ARSM(joint=joint), problem).gradient
    for gradient, log_pi in zip(drawn, simplex(problem), strict=False):
        expected = naive_gradient(problem, log_pi, joint=joint)
        expected[np.isneginf(problem.logits)] = 0
        assert_close(gradient, expected, atol=3e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_ars_is_the_sum_over_some_references(count):
    log_pi = _simplex(jax.random.split(KEY)[:1], TWO.logits)[0]
    gradient = estimate(ARS(count), TWO).gradient
    candidates = [
        naive_gradient(TWO, log_pi, references=references)
        for references in combinations(range(4), count)
    ]
    assert sum(np.allclose(gradient, one, atol=3e-6) for one in candidates) == 1


def test_ars_with_all_references_is_arsm():
    arsm = estimate(ARSM(), TWO, jax.random.split(KEY)[0])
    ars = estimate(ARS(4), TWO)
    assert_close(ars.gradient, arsm.gradient, atol=2e-6)


def test_ar_is_its_formula():
    value, gradient, samples = (part[:FEW] for part in draw_block(AR(), TWO))
    log_pi = simplex(TWO)
    assert_close(gradient, value[:, None, None] * (1 - 4 * np.exp(log_pi)))
    np.testing.assert_array_equal(samples[:, 0], np.argmin(log_pi - TWO.logits, axis=-1))


@pytest.mark.parametrize("estimator", [ARM(), ARSM()], ids=str)
def test_with_two_classes_it_is_the_formula_of_arm(estimator):
    drawn = draw_block(estimator, BINARY)
    for gradient, samples, log_pi in zip(*drawn[1:], simplex(BINARY), strict=False):
        true, exchanged = naive_pseudo_actions(log_pi, BINARY.logits, [(0, 0), (0, 1)])
        change = BINARY.table[tuple(exchanged)] - BINARY.table[tuple(true)]
        first = change * (np.exp(log_pi[:, 0]) - 0.5)
        assert_close(gradient, np.stack([first, -first], -1))
        np.testing.assert_array_equal(samples, [true, exchanged])


@each_case
def test_classes_sum_to_zero(name):
    gradient = draw_block(CASES[name].estimator, of(TWO, name), bend=0.7).gradient
    assert np.abs(gradient.sum(-1)).max() < 1e-6 * max(1, np.abs(gradient).max())


@each_case
def test_a_constant_in_the_logits_changes_nothing(name):
    problem = of(TWO, name)
    moved = Problem(problem.logits + 8, problem.table)
    one, two = (draw_block(CASES[name].estimator, each, bend=0.7) for each in (problem, moved))
    # A draw may differ where two classes of its race are equal but for rounding.
    same = (one.samples == two.samples).all((1, 2))
    assert same.mean() > 0.999
    for first, second in zip(one[:2], two[:2], strict=True):
        assert_close(first[same], second[same], rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize("name", COMPARING)
def test_a_constant_in_f_changes_only_the_value(name):
    problem = of(TWO, name)
    # Sums of the table's eighths and this constant are exact.
    moved = Problem(problem.logits, problem.table + 1024)
    one, two = (draw_block(CASES[name].estimator, each) for each in (problem, moved))
    assert_close(two.value - one.value, np.full(BLOCK, 1024), atol=1e-3)
    assert_close(two.gradient, one.gradient)


@pytest.mark.parametrize("name", ["ScoreFunction", "AR"])
def test_a_constant_in_f_changes_what_has_no_baseline(name):
    moved = Problem(TWO.logits, TWO.table + 16)
    one, two = (draw_block(CASES[name].estimator, each) for each in (TWO, moved))
    assert np.abs(one.gradient - two.gradient).max() > 1


@pytest.mark.parametrize("name", COMPARING)
def test_a_constant_f_gives_exactly_zero(name):
    logits, table = of(TWO, name)
    constant = Problem(logits, np.full_like(table, 3.3))
    value, gradient, _ = draw_block(CASES[name].estimator, constant)
    assert_close(value, np.full(BLOCK, 3.3))
    assert not gradient.any()


@pytest.mark.parametrize("name", ["RLOO", "ARS", "ARSM", "ARSM, each alone"])
def test_peaked_logits_give_mostly_exact_zeros(name):
    peaked = Problem(8 * np.eye(2, 4, dtype=np.float32), TWO.table)
    gradient = draw_block(CASES[name].estimator, peaked).gradient
    assert (gradient == 0).all((1, 2)).mean() > 0.9


def test_one_class_has_no_gradient():
    alone = make_problem(2, 1)
    for estimator in (ARS(1), ARSM(), Enumeration()):
        value, gradient, _ = estimate(estimator, alone)
        assert_close(value, alone.table[0, 0])
    assert_close(gradient, np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("estimator", "shape", "count"),
    [
        (AR(), (3, 5), 1),
        (ARS(), (3, 5), 5),
        (ARS(2), (3, 5), 9),
        (ARSM(), (3, 5), 11),
        (ARSM(joint=False), (3, 5), 31),
        (ARSM(joint=False), (2, 3, 5), 61),
        (ARSM(), (5,), 11),
        (ARM(), (7, 2), 2),
    ],
    ids=str,
)
def test_evaluations_are_counted(estimator, shape, count):
    assert estimator.evaluations(shape) == count
    drawn = jax.eval_shape(lambda: estimator.estimate(KEY, jnp.zeros(shape), jnp.sum))
    assert drawn.samples.shape == (count, *shape[:-1])


@pytest.mark.parametrize(
    ("call", "found", "expected", "change"),
    [
        (lambda: estimate(ARM(), TWO), "4 classes for ARM", "two", "take ARSM"),
        (lambda: ARS(0), "num_references=0", "an int of at least 1", "a static int"),
        (
            lambda: estimate(ARS(5), TWO),
            "num_references=5 for 4 classes",
            "at most as many as classes",
            "lower num_references, or take ARSM",
        ),
        (
            lambda: ARSM().estimate(KEY, jnp.zeros((2, 5000)), jnp.sum),
            "ARSM has too much to evaluate",
            "at most 1048576 evaluations",
            "RLOO",
        ),
    ],
)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
