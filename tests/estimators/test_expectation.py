from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import estimators
from sparse_hyper_jax.estimators import (
    ARSM,
    ESTIMATORS,
    RELAX,
    RLOO,
    Enumeration,
    Estimate,
    Estimator,
    GumbelStraightThrough,
    ScoreFunction,
    Subset,
    WithoutReplacement,
    expectation,
)
from tests.estimators.examples import (
    CASES,
    KEY,
    PROBLEMS,
    Problem,
    chance_of_set,
    draw_block,
    estimate,
    fits,
    keys_of,
    objective,
    probabilities,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

TWO = PROBLEMS["two variables"]
BANNED = PROBLEMS["two, one class banned"]
TRACES = Counter()

# Each class once: what is tested here does not depend on the options.
NAMES = [name for name in CASES if ", " not in name]

each_case = pytest.mark.parametrize("name", NAMES)


def of(name):
    return TWO if fits(CASES[name], TWO) else PROBLEMS["three variables"]


@partial(jax.jit, static_argnums=0)
def loss_and_slopes(estimator, parameter, problem, key):
    """Differentiate twice the expectation of ``parameter ** 2 * table[z]``."""
    TRACES[estimator] += 1

    def loss(parameter, logits):
        f = objective(estimator, problem.table)
        return 2 * expectation(key, logits, lambda z: parameter**2 * f(z), estimator=estimator)

    return jax.value_and_grad(loss, argnums=(0, 1))(parameter, problem.logits)


def first_of_block(name):
    """Estimate at parameter 0.5, with the first key of the block."""
    logits, table = of(name)
    block = draw_block(CASES[name].estimator, Problem(logits, np.float32(0.25) * table))
    return Estimate(*(part[0] for part in block))


def shares_of_samples(estimator, samples, logits):
    """What each evaluation counts in the value, written out."""
    masses = probabilities(logits)[np.ravel_multi_index(samples.T, logits.shape[1:] * len(logits))]
    if isinstance(estimator, Subset | Enumeration):
        return masses / masses.sum()
    if isinstance(estimator, WithoutReplacement):
        places = range(len(masses))
        ratios = [
            chance_of_set([one for one in places if one != s], [s], masses) for s in places
        ] / np.float64(chance_of_set(places, [], masses))
        return masses * ratios
    return np.full(len(samples), 1 / len(samples))


@each_case
def test_parameters_of_f_get_their_ordinary_gradient(name):
    problem, samples = of(name), first_of_block(name).samples
    value, (slope, _) = loss_and_slopes(CASES[name].estimator, 0.5, problem, keys_of(0)[0])
    # By hand, with the samples held fixed; the slope of 2 parameter ** 2 is 4 parameter.
    shares = shares_of_samples(CASES[name].estimator, samples, problem.logits)
    mean = shares @ np.float64(problem.table)[tuple(samples.T)]
    assert_close((value, slope), (0.5 * mean, 2 * mean), rtol=1e-4, atol=2e-6)


@each_case
def test_logits_get_the_gradient_of_the_estimate(name):
    value, (_, slope) = loss_and_slopes(CASES[name].estimator, 0.5, of(name), keys_of(0)[0])
    drawn = first_of_block(name)
    assert_close((value, slope), (2 * drawn.value, 2 * drawn.gradient), rtol=1e-4, atol=2e-6)


@each_case
def test_other_keys_and_logits_do_not_compile_again(name):
    estimator, problem = CASES[name].estimator, of(name)
    loss_and_slopes(estimator, 0.5, problem, KEY)
    before = TRACES[estimator]
    for seed in range(3):
        other = Problem(problem.logits + seed, problem.table - seed)
        loss_and_slopes(estimator, 0.1 * seed, other, jax.random.key(seed))
    assert TRACES[estimator] == before


@pytest.mark.parametrize("name", [name for name in NAMES if fits(CASES[name], BANNED)])
def test_banned_classes_have_a_gradient_of_zero(name):
    for seed in range(5):
        key = jax.random.key(seed)
        value, slopes = loss_and_slopes(CASES[name].estimator, 0.7, BANNED, key)
        assert all_finite((value, slopes))
        assert not slopes[1][np.isneginf(BANNED.logits)].any()
        assert slopes[1].shape == (2, 4)


# Few of them: without jit each of their operations compiles alone.
@pytest.mark.parametrize("name", ["RLOO", "ARSM", "REBAR"])
def test_jit_changes_nothing(name):
    estimator, problem = CASES[name].estimator, of(name)
    block = draw_block(estimator, problem)
    alone = estimator.estimate(keys_of(0)[0], problem.logits, objective(estimator, problem.table))
    np.testing.assert_array_equal(block.samples[0], alone.samples)
    assert_close((block.value[0], block.gradient[0]), alone[:2], atol=2e-6)
    assert alone.samples.dtype == jnp.int32
    assert alone.gradient.dtype == jnp.float32


@each_case
def test_vmap_over_keys_equals_a_loop(name):
    logits, table = of(name)
    block = draw_block(CASES[name].estimator, Problem(logits, np.float32(0.25) * table))
    for n, key in enumerate(keys_of(0)[:5]):
        value, (_, slope) = loss_and_slopes(CASES[name].estimator, 0.5, of(name), key)
        assert_close((value, slope), (2 * block.value[n], 2 * block.gradient[n]), atol=3e-6)


@pytest.mark.parametrize("estimator", [RLOO(), ARSM()], ids=str)
def test_vmap_over_instances_equals_a_loop(estimator):
    batch = Problem(*(np.stack([part, 2 * part, part[::-1]]) for part in TWO))
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(partial(loss_and_slopes, estimator), (None, 0, 0))(0.7, batch, keys)
    for n, key in enumerate(keys):
        one = Problem(batch.logits[n], batch.table[n])
        alone = loss_and_slopes(estimator, 0.7, one, key)
        assert_close(jax.tree.map(lambda leaf, at=n: leaf[at], together), alone, atol=2e-6)


def count_ones(estimator):
    """Take classes or rows with any leading axes; linear in rows of two classes."""
    if estimator.relaxed:
        return lambda rows: jnp.sum(rows[..., 1])
    return lambda z: jnp.sum(z == 1)


@each_case
@pytest.mark.parametrize("shape", [(2,), (2, 3, 2), (1, 1, 2)])
def test_variables_may_have_any_axes(name, shape):
    estimator = CASES[name].estimator
    if isinstance(estimator, WithoutReplacement | Subset) and shape != (2, 3, 2):
        estimator = type(estimator)(2)
    given = []

    def f(z):
        given.append(z.shape)
        return count_ones(estimator)(z)

    drawn = jax.eval_shape(lambda: estimator.estimate(KEY, jnp.zeros(shape), f))
    assert set(given) == {shape if estimator.relaxed else shape[:-1]}
    assert drawn.value.shape == ()
    assert drawn.gradient.shape == shape
    assert drawn.samples.shape[1:] == shape[:-1]


@pytest.mark.parametrize("name", ["RLOO", "REBAR"])
def test_axes_of_variables_are_only_a_shape(name):
    estimator = CASES[name].estimator
    logits = jax.random.normal(KEY, (2, 3, 2))
    weights = jnp.arange(6.0)

    def f(z):
        picked = z[..., 1] if estimator.relaxed else z == 1
        return jnp.sum(picked.reshape(-1) * weights)

    rows, axes = (
        jax.jit(lambda logits: estimator.estimate(KEY, logits, f))(given)
        for given in (logits.reshape(6, 2), logits)
    )
    np.testing.assert_array_equal(axes.samples.reshape(-1, 6), rows.samples)
    assert_close((axes.value, axes.gradient.reshape(6, 2)), rows[:2])


@each_case
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bit_logits_keep_their_dtype_and_the_value_is_wider(name, dtype):
    estimator, problem = CASES[name].estimator, of(name)
    # The table's eighths and a loss of 16 bits, as of a network of 16 bits.
    f = objective(estimator, problem.table.astype(dtype))

    def loss(logits):
        return expectation(KEY, logits, lambda z: f(z).astype(dtype), estimator=estimator)

    value, slope = jax.eval_shape(jax.value_and_grad(loss), problem.logits.astype(dtype))
    assert value.dtype == jnp.float32
    assert slope.dtype == dtype


@pytest.mark.parametrize("name", ["RLOO", "ARSM"])
def test_16_bit_logits_count_as_32(name):
    estimator = CASES[name].estimator
    # Eighths are the same in both.
    narrow = estimate(estimator, Problem(TWO.logits.astype(jnp.bfloat16), TWO.table))
    assert_close(narrow, estimate(estimator, TWO))


@pytest.mark.parametrize("name", ["RLOO", "Enumeration", "GumbelStraightThrough"])
def test_f_may_count_if_it_is_not_differentiated(name):
    estimator = CASES[name].estimator

    def count(z):
        return jnp.sum((z[..., 1] if CASES[name].relaxed else z == 1) > 0.5)

    if CASES[name].relaxed:
        assert_names_itself_and_its_cure(
            lambda: estimator.estimate(KEY, TWO.logits, count),
            "f that returns int32",
            "floats",
            "make it smooth",
        )
        return
    whole = estimator.estimate(KEY, TWO.logits, count)
    real = estimator.estimate(KEY, TWO.logits, lambda z: count(z).astype(jnp.float32))
    assert whole.value.dtype == jnp.float32
    assert_close(whole, real)


def test_every_estimator_without_own_functions_has_a_name():
    named = (getattr(estimators, name) for name in estimators.__all__)
    kinds = {one for one in named if isinstance(one, type) and issubclass(one, Estimator)}
    assert {type(one) for one in ESTIMATORS.values()} == kinds - {Estimator, RELAX}
    assert len(set(ESTIMATORS.values())) == len(ESTIMATORS)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_name_stands_for_the_default_options(name):
    logits = jnp.array([[0.5, -0.25], [0.125, 1.0], [0.0, 0.5]])
    f = count_ones(ESTIMATORS[name])
    one, two = (
        jax.make_jaxpr(lambda x, by=by: expectation(KEY, x, f, estimator=by))(logits)
        for by in (name, type(ESTIMATORS[name])() if "informed" not in name else ESTIMATORS[name])
    )
    assert str(one) == str(two)


def test_a_loss_falls_by_its_gradients():
    def loss(logits, key):
        f = objective(RLOO(), TWO.table)
        return expectation(key, logits, f, estimator=RLOO(8))

    def step(logits, key):
        return logits - 0.2 * jax.grad(loss)(logits, key), None

    keys = jax.random.split(KEY, 500)
    logits = jax.jit(lambda start: jax.lax.scan(step, start, keys)[0])(jnp.zeros((2, 4)))
    assert estimate(Enumeration(), Problem(logits, TWO.table)).value < np.sort(TWO.table.flat)[1]


def gives_three(logits, **options):
    return expectation(KEY, logits, lambda z: jnp.ones(3), **options)


@each_case
def test_f_that_is_no_scalar_is_refused(name):
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(
            partial(gives_three, estimator=CASES[name].estimator), of(name).logits
        ),
        "f that returns shape (3,)",
        "a scalar, the loss of one choice",
        "jax.vmap over the whole",
    )


@pytest.mark.parametrize(
    ("call", "found", "expected", "change"),
    [
        (
            lambda: gives_three(TWO.logits, estimator="reinforce"),
            "estimator='reinforce'",
            "one of 'score_function', 'rloo'",
            "choose estimator",
        ),
        (lambda: gives_three(jnp.float32(1)), "logits of shape ()", "(..., C)", "the last axis"),
        (lambda: gives_three(jnp.zeros((0, 3))), "logits of shape (0, 3)", "(..., C)", "classes"),
        (lambda: gives_three(jnp.zeros((3, 0))), "logits of shape (3, 0)", "C >= 1", "classes"),
        (
            lambda: gives_three(jnp.zeros((11, 4)), estimator=Enumeration()),
            "Enumeration has too much to evaluate",
            "at most 1048576 evaluations",
            "such as RLOO",
        ),
        (lambda: ScoreFunction(0), "num_samples=0", "at least 1", "static int"),
        (lambda: RLOO(1), "num_samples=1", "at least 2", "static int"),
        (lambda: RLOO(True), "num_samples=True", "an int", "static int"),
        (lambda: GumbelStraightThrough(0), "temperature=0", "one number at least", "temperature"),
    ],
)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
