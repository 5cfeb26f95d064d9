"""What callers pass: lists, counts of NumPy, numbers that follow a schedule, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import (
    ARS,
    ARSM,
    REBAR,
    RELAX,
    RLOO,
    CellChoices,
    Enumeration,
    GumbelStraightThrough,
    ScoreFunction,
    Subset,
    WithoutReplacement,
    axis_choices,
    balance_loss,
    cell_choices,
    cell_expectation,
    expectation,
    fill_with_defaults,
    perturb_given_winner,
    pseudo_actions,
    sample_cells,
    sample_without_replacement,
    score_function_loss,
    sparse_mixer,
    top_route,
    update_defaults,
)
from sparse_hyper_jax.estimators.beam import _search
from tests.estimators.examples import CASES, KEY
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

LOGITS = np.float32([[0.5, -0.25, 0.125], [0.0, 0.75, -0.5]])
TUPLES = (np.float32([[0.25, 1.5]]), np.float32([[0.5, 0.75]]), np.float32([1.0]))


def total(z):
    return jnp.sum(z * 1.0)


def expect(**changed):
    arguments = {"key": KEY, "logits": LOGITS, "f": total, "estimator": RLOO()} | changed
    estimator = arguments.pop("estimator")
    return jax.eval_shape(lambda: expectation(*arguments.values(), estimator=estimator))


def choose(**changed):
    arguments = {"key": KEY, "tuples": TUPLES, "shape": (3, 4)} | changed
    return jax.eval_shape(lambda: cell_choices(**arguments))


def cells(**changed):
    arguments = {"key": KEY, "means": TUPLES[0], "variances": TUPLES[1], "shape": (3, 4)} | changed
    f = arguments.pop("f", total)
    options = {name: arguments.pop(name) for name in ("num_samples", "baseline") if name in changed}
    return jax.eval_shape(lambda: cell_expectation(*arguments.values(), f, **options))


def route(**changed):
    arguments = {"key": KEY, "logits": LOGITS} | changed
    return jax.eval_shape(lambda: sparse_mixer(**arguments))


def defaults(**changed):
    arguments = {"defaults": np.ones((3, 2)), "outputs": np.ones((4, 2)), "index": [0, 1, 2, 0]}
    arguments |= {"decay": 0.5} | changed
    return jax.eval_shape(lambda: update_defaults(**arguments))


MISTAKES = {
    "the class of one": (lambda: expect(estimator=RLOO), "estimator=<class", "Estimator"),
    "an estimator that is a number": (lambda: expect(estimator=3), "estimator=3", "an instance"),
    "no estimator": (lambda: expect(estimator=None), "estimator=None", "of Estimator"),
    "f that returns a dict": (lambda: expect(f=lambda z: {"loss": total(z)}), "f returned", "real"),
    "f that returns nothing": (lambda: expect(f=lambda z: None), "what f returned=None", "real"),
    "f of complex numbers": (lambda: expect(f=lambda z: total(z) * 1j), "complex64", "real"),
    "a relaxed f of complex numbers": (
        lambda: expect(f=lambda z: total(z) * 1j, estimator=REBAR()),
        "complex64",
        "real",
    ),
    "f that is no function": (lambda: expect(f=3), "f=3", "a function"),
    "no key": (lambda: expect(key=None), "key=None", "one random key"),
    "a seed": (lambda: expect(key=0), "key=0", "one random key"),
    "a seed of floats": (lambda: expect(key=0.5, estimator=Enumeration()), "key=0.5", "one random"),
    "many keys": (lambda: expect(key=jax.random.split(KEY)), "keys of shape (2,)", "one random"),
    "no logits": (lambda: expect(logits=None), "logits=None", "an array"),
    "ragged logits": (lambda: expect(logits=[[1.0], [1.0, 2.0]]), "logits=[[1.0]", "an array"),
    "logits that are text": (lambda: expect(logits="ab"), "logits='ab'", "an array"),
    "complex logits": (lambda: expect(logits=LOGITS * 1j), "complex", "real numbers"),
    "a tree of logits": (lambda: expect(logits={"a": LOGITS}), "logits={'a'", "an array"),
    "a temperature below the normal numbers": (
        lambda: GumbelStraightThrough(1e-38),
        "temperature=1e-38",
        "at least 1.17549e-38",
    ),
    "a temperature of zero": (lambda: REBAR(0), "temperature=0", "at least"),
    "an infinite temperature": (lambda: REBAR(np.inf), "temperature=inf", "at most"),
    "a temperature that is text": (lambda: GumbelStraightThrough("1"), "temperature='1'", "one"),
    "a concrete negative temperature": (lambda: REBAR(jnp.array(-1.0)), "temperature=", "at least"),
    "several temperatures": (lambda: REBAR(jnp.ones(2)), "temperature=", "one number"),
    "a scale that is text": (lambda: REBAR(0.5, "1"), "scale='1'", "one number"),
    "a scale that is not a number": (lambda: RELAX(total, np.nan), "scale=nan", "one number"),
    "a surrogate that is no function": (lambda: RELAX(0.5), "surrogate=0.5", "a function"),
    "a fraction of a sample": (lambda: ScoreFunction(2.5), "num_samples=2.5", "an int"),
    "a count that is true": (lambda: ARS(True), "num_references=True", "an int"),
    "a flag that is text": (lambda: Subset(2, informed="no"), "informed='no'", "True or False"),
    "another flag that is text": (lambda: ARSM(joint="no"), "joint='no'", "True or False"),
    "too many for the weights": (lambda: WithoutReplacement(13), "num_samples=13", "2 to 12"),
    "tuples that are an array": (lambda: choose(tuples=np.ones((1, 2))), "tuples=", "Continuous"),
    "tuples without values": (lambda: choose(tuples=TUPLES[:2]), "tuples=", "ContinuousTuples"),
    "a circle that is text": (lambda: choose(wrap="no"), "wrap='no'", "True or False"),
    "a seed for points": (lambda: choose(key=0, num_global=1), "key=0", "one random key"),
    "axes of no tuples": (lambda: axis_choices(None, (3, 4)), "tuples=None", "ContinuousTuples"),
    "classes of floats": (
        lambda: CellChoices(jnp.zeros((2, 3, 1), jnp.int32), jnp.zeros((2, 3))).pick([0.5, 1.0]),
        "classes of dtype float32",
        "integers",
    ),
    "cells of a seed": (lambda: cells(key=0), "key=0", "one random key"),
    "cells of one sample": (lambda: cells(num_samples=1), "losses of 1 draws", "at least 2"),
    "an unknown baseline": (lambda: cells(baseline=True), "baseline=True", "one of 'none'"),
    "a loss of many numbers": (lambda: cells(f=lambda z: z), "shape (1, 2)", "a scalar"),
    "means that are text": (lambda: cells(means="ab"), "means='ab'", "an array"),
    "a loss that is a number": (lambda: cells(f=0.5), "f=0.5", "a function"),
    "complex losses": (
        lambda: score_function_loss(np.ones(2) * 1j, np.ones(2)),
        "losses of dtype complex",
        "real numbers",
    ),
    "no losses": (lambda: score_function_loss([], []), "losses of 0 draws", "at least 1"),
    "a seed for experts": (lambda: route(key=7), "key=7", "one random key"),
    "a jitter that is text": (lambda: route(jitter="0.1"), "jitter='0.1'", "at least 0"),
    "a concrete negative jitter": (lambda: route(jitter=jnp.array(-1.0)), "jitter=", "at least 0"),
    "a flag of experts": (lambda: route(exact_at_argmax=1), "exact_at_argmax=1", "True or False"),
    "experts of nothing": (lambda: top_route(None), "logits=None", "an array"),
    "a decay that is no number": (lambda: defaults(decay=None), "decay=None", "one number"),
    "a decay that is nan": (lambda: defaults(decay=np.nan), "decay=nan", "at least 0"),
    "experts of floats": (lambda: defaults(index=[0.0] * 4), "index of dtype float32", "integers"),
    "outputs that are ragged": (lambda: defaults(outputs=[[1], [1, 2]]), "outputs=[[1]", "array"),
    "winners of another length": (
        lambda: perturb_given_winner(KEY, LOGITS, [0]),
        "winners of shape (1,)",
        "one class per variable",
    ),
    "pairs of three": (
        lambda: pseudo_actions(LOGITS, LOGITS, [[0, 1, 2]]),
        "pairs of shape (1, 3)",
        "two classes",
    ),
    "logits of another shape": (
        lambda: pseudo_actions(LOGITS, LOGITS[:1], [[0, 1]]),
        "logits of shape (1, 3)",
        "the shape of log_pi",
    ),
    "no variables": (
        lambda: sample_without_replacement(KEY, np.zeros((0, 3)), 1),
        "logits of shape (0, 3)",
        "at least one variable",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected):
    assert_names_itself_and_its_cure(call, found, expected, "")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (ScoreFunction, "num_samples"),
        (RLOO, "num_samples"),
        (ARS, "num_references"),
        (Subset, "num_samples"),
        (WithoutReplacement, "num_samples"),
    ],
)
def test_counts_may_come_from_numpy(make, field):
    estimator = make(np.prod([1, 2]))
    assert type(getattr(estimator, field)) is int
    assert estimator == make(2)
    expect(estimator=estimator)


def test_other_counts_may_come_from_numpy():
    two = np.int64(2)
    choices, _ = jax.eval_shape(lambda: sample_without_replacement(KEY, LOGITS, two))
    assert choices.shape == (2, 2)
    cells(num_samples=two)
    assert choose(num_global=two).points.shape == (1, 6, 2)


def test_whole_numbers_count_as_float32():
    def every(x):
        return [
            expectation(KEY, x, total, estimator=ScoreFunction(2)),
            sample_without_replacement(KEY, x, 3)[1],
            perturb_given_winner(KEY, x, [0, 1]),
            score_function_loss(x[0], x[1], baseline="leave_one_out"),
            top_route(x).gate,
            balance_loss(x, [0, 2]),
            fill_with_defaults(x, x, [0, 2], np.ones((3, 3))),
            update_defaults(x, x, [0, 1], decay=0.25),
            sample_cells(KEY, x, np.ones((2, 3)), (3, 3, 3))[1],
        ]

    one = np.eye(2, 3)
    real, *whole = jax.jit(
        lambda: [every(one.astype(dtype)) for dtype in (np.float32, bool, np.uint8)]
    )()
    for other in whole:
        assert_close(other, real)
        assert {leaf.dtype for leaf in other} == {jnp.dtype(jnp.float32)}


def test_temperatures_and_scales_follow_a_schedule_without_compiling_again():
    traces = []

    @jax.jit
    def run(temperatures):
        def step(carry, temperature):
            traces.append(temperature)
            estimators = GumbelStraightThrough(temperature), REBAR(temperature, 2 * temperature)
            return carry, [
                jax.grad(lambda x, one=one: expectation(KEY, x, total_of_rows, estimator=one))(
                    LOGITS
                )
                for one in estimators
            ]

        return jax.lax.scan(step, 0, temperatures)[1]

    soft, rebar = run(jnp.array([0.5, 1.0, 2.0]))
    count = len(traces)
    again, _ = run(jnp.array([1.0, 2.0, 4.0]))
    assert len(traces) == count
    assert_close(soft[1:], again[:2])
    assert np.ptp(soft, axis=0).max() > 1e-3 < np.ptp(rebar, axis=0).max()


def total_of_rows(rows):
    return jnp.sum(jnp.sin(rows * jnp.arange(1.0, 4.0)))


def test_jitters_and_decays_follow_a_schedule():
    logits = jnp.array([[1.0, 0.9, -0.5]] * 64)
    outputs = jnp.ones((4, 2))

    def step(carry, numbers):
        jitter, decay = numbers
        experts = sparse_mixer(KEY, logits, jitter=jitter).expert
        return carry, (experts, update_defaults(jnp.zeros((1, 2)), outputs, [0] * 4, decay=decay))

    numbers = jnp.array([[0.0, 0.25], [0.1, 0.5], [10.0, 1.0]])
    experts, moved = jax.jit(lambda n: jax.lax.scan(step, 0, (n[:, 0], n[:, 1]))[1])(numbers)
    assert [len(np.unique(row)) for row in experts] == [1, 2, 3]
    assert_close(moved[:, 0, 0], [0.75, 0.5, 0.0])


@pytest.mark.parametrize("name", CASES)
def test_strict_promotion_at_any_number_of_variables(name):
    estimator = CASES[name].estimator
    if isinstance(estimator, WithoutReplacement | Subset):
        estimator = type(estimator)(2)

    def loss(logits):
        narrow = jnp.bfloat16(2)
        return expectation(
            KEY, logits, lambda z: jnp.sum(z.astype(narrow.dtype)) * narrow, estimator=estimator
        )

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for shape in ((2,), (1, 2), (2, 3, 2)):
            value, slope = jax.eval_shape(jax.value_and_grad(loss), jnp.zeros(shape, jnp.float16))
            assert (value.dtype, slope.dtype) == (jnp.float32, jnp.float16)


@pytest.mark.parametrize("name", CASES)
def test_double_precision_of_f_alone_is_kept(name):
    def loss(logits):
        return expectation(
            KEY, logits, lambda z: jnp.sum(z.astype(float)), estimator=CASES[name].estimator
        )

    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        value, slope = jax.eval_shape(jax.value_and_grad(loss), jnp.zeros((2, 2, 2), jnp.float32))
    assert (value.dtype, slope.dtype) == (jnp.float64, jnp.float32)


def test_a_batch_of_any_size_is_exported_once():
    def losses(keys, logits):
        def one(key, logits):
            return expectation(jax.random.wrap_key_data(key), logits, total, estimator=RLOO(2))

        return jax.vmap(one)(keys, logits)

    (batch,) = jax.export.symbolic_shape("b")
    shapes = (
        jax.ShapeDtypeStruct((batch, 2), jnp.uint32),
        jax.ShapeDtypeStruct((batch, 2, 3), jnp.float32),
    )
    exported = jax.export.export(jax.jit(losses))(*shapes)
    keys, logits = jax.random.key_data(jax.random.split(KEY, 5)), jnp.stack([LOGITS] * 5)
    assert_close(exported.call(keys, logits), jax.jit(losses)(keys, logits))


def test_drawing_outside_of_jit_compiles_once():
    sample_without_replacement(KEY, LOGITS, 3)
    count = _search._cache_size()
    sample_without_replacement(jax.random.key(1), 2 * LOGITS, 3)
    assert _search._cache_size() == count


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_classes_of_few_bits_are_counted_as_such(dtype):
    """In 8 bits 256 is 0: then every class would lie outside."""
    logits = jnp.log(jnp.full((1, 256), 1 / 256))
    winners = np.array([2], dtype)
    assert jnp.argmax(perturb_given_winner(KEY, logits, winners)[0]) == 2
    points = jnp.arange(256)[None, :, None]
    assert CellChoices(points, logits).pick(winners).tolist() == [[2]]
    race = jnp.arange(256.0)[None]
    exchanged = pseudo_actions(race, jnp.zeros((1, 256)), np.array([[0, 200]], dtype))
    assert exchanged.tolist() == [[200]]


def test_padding_is_zero_beside_a_default_that_is_not_a_number():
    defaults = jnp.full((2, 3), jnp.nan)
    y = fill_with_defaults(jnp.zeros((2, 2)), jnp.ones((2, 3)), np.array([-1, 0]), defaults)
    assert (y[0] == 0).all()
    assert jnp.isnan(y[1]).all()
