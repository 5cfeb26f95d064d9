"""Toy problems with a known expectation, and what draws many estimates of its gradient.

A problem is a table: ``f(z) = table[z_1, ..., z_K]``. For estimators that differentiate ``f`` it is
relaxed to rows: the table contracted with all of them, which is linear in every row, plus a bend
that is 0 at one-hot rows.
"""

import itertools
from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.estimators import (
    AR,
    ARM,
    ARS,
    ARSM,
    REBAR,
    RELAX,
    RLOO,
    Enumeration,
    Estimate,
    Estimator,
    GumbelStraightThrough,
    ScoreFunction,
    StraightThrough,
    Subset,
    WithoutReplacement,
)

KEY = jax.random.key(0)
DRAWS = 200_000
BLOCK = 10_000


class Problem(NamedTuple):
    """Logits ``(K, C)`` and the values of ``f`` at all ``C ** K`` joint choices."""

    logits: np.ndarray
    table: np.ndarray


class Case(NamedTuple):
    """An estimator with what it promises; ``classes`` is None where it takes any number."""

    estimator: Estimator
    unbiased: bool
    relaxed: bool = False
    classes: int | None = None


def make_problem(variables: int, classes: int, *, spread=1.0, banned=(), seed=0) -> Problem:
    """Multiples of 1/8 with all sums exact in float32; ``banned`` are places in the logits."""
    generator = np.random.default_rng(100 * seed + 10 * variables + classes)
    logits = np.round(8 * spread * generator.normal(size=(variables, classes))) / 8
    for place in banned:
        logits[place] = -np.inf
    table = np.round(8 * generator.normal(size=(classes,) * variables)) / 8 + 1
    return Problem(logits.astype(np.float32), table.astype(np.float32))


def unequal(problem: Problem) -> Problem:
    """Probabilities from 0.98 to less than 0.001 in every row, in another order in each."""
    variables, classes = problem.logits.shape
    row = np.array([3.5, -0.5, -2.5, -3.0, -3.25], np.float32)[:classes]
    return Problem(np.stack([np.roll(row, place) for place in range(variables)]), problem.table)


PROBLEMS = {
    "one variable": make_problem(1, 5),
    "two variables": make_problem(2, 4),
    "two, one class banned": make_problem(2, 4, banned=[(0, 1), (1, 3)]),
    "two, very different": unequal(make_problem(2, 4)),
    "three variables": make_problem(3, 2),
}


def surrogate(z: jax.Array) -> jax.Array:
    """A control variate without any relation to the problem."""
    return jnp.sum(jnp.tanh(z) * (1 + jnp.arange(z.size, dtype=z.dtype).reshape(z.shape))) / z.size


CASES = {
    "ScoreFunction": Case(ScoreFunction(2), True),
    "RLOO": Case(RLOO(3), True),
    "AR": Case(AR(), True),
    "ARS": Case(ARS(2), True),
    "ARSM": Case(ARSM(), True),
    "ARSM, each alone": Case(ARSM(joint=False), True),
    "ARM": Case(ARM(), True, classes=2),
    "WithoutReplacement": Case(WithoutReplacement(3), True),
    "REBAR": Case(REBAR(), True, relaxed=True),
    "RELAX": Case(RELAX(surrogate), True),
    "StraightThrough": Case(StraightThrough(), False, relaxed=True),
    "GumbelStraightThrough": Case(GumbelStraightThrough(), False, relaxed=True),
    "Subset": Case(Subset(3), False),
    "Subset, informed": Case(Subset(3, informed=True), False),
    "Enumeration": Case(Enumeration(), True),
}


def fits(case: Case, problem: Problem) -> bool:
    return case.classes in (None, problem.logits.shape[1])


def objective(estimator: Estimator, table: jax.Array, bend: float = 0.0):
    """Give ``f`` as an estimator wants it, of classes ``(K,)`` or of rows ``(K, C)``."""

    def hard(choice: jax.Array) -> jax.Array:
        return jnp.asarray(table)[tuple(choice)]

    def relaxed(rows: jax.Array) -> jax.Array:
        contracted = jnp.asarray(table)
        for row in rows:
            contracted = jnp.tensordot(row, contracted, 1, precision="highest")
        return contracted + bend * jnp.sum(jnp.square(rows) - rows)

    return relaxed if estimator.relaxed else hard


@partial(jax.jit, static_argnames="estimator")
def estimate(estimator: Estimator, problem: Problem, key: jax.Array = KEY, bend: float = 0.0):
    f = objective(estimator, problem.table, bend)
    return estimator.estimate(key, problem.logits, f)


@partial(jax.jit, static_argnames="estimator")
def _draw(estimator, problem, keys, bend):
    return jax.vmap(lambda key: estimate(estimator, problem, key, bend))(keys)


@cache
def keys_of(block: int) -> jax.Array:
    return jax.random.split(jax.random.fold_in(KEY, block), BLOCK)


def draw_block(estimator: Estimator, problem: Problem, *, block=0, bend=0.0) -> Estimate:
    """Give ``BLOCK`` independent estimates, from ``keys_of(block)``.

    Tests of single estimates take them from here, too: one program per estimator and shape, since
    compiling takes longer than running.
    """
    drawn = _draw(estimator, problem, keys_of(block), bend)
    return Estimate(*(np.asarray(part, np.promote_types(part.dtype, np.int64)) for part in drawn))


def draws(estimator: Estimator, problem: Problem, *, count=DRAWS, bend=0.0):
    """Give values ``(count,)`` and gradients ``(count, K, C)`` as float64."""
    blocks = [draw_block(estimator, problem, block=n, bend=bend) for n in range(count // BLOCK)]
    return tuple(np.concatenate([block[part] for block in blocks]) for part in range(2))


def mean_and_error(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the mean over the first axis and its standard error."""
    return sample.mean(0), sample.std(0, ddof=1) / np.sqrt(len(sample))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def choices(variables: int, classes: int) -> list[tuple[int, ...]]:
    """List all joint choices, in the order of a flattened table."""
    return list(itertools.product(range(classes), repeat=variables))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Give the probability of every joint choice, in the order of :func:`choices`."""
    rows = softmax(logits)
    return np.array([np.prod(rows[range(len(rows)), list(z)]) for z in choices(*logits.shape)])


def exact(problem: Problem) -> tuple[float, np.ndarray]:
    """Sum over all choices by hand: the expectation and its gradient ``(K, C)``."""
    rows = softmax(problem.logits)
    value, gradient = 0.0, np.zeros_like(rows)
    masses = probabilities(problem.logits)
    for z, mass in zip(choices(*rows.shape), masses, strict=True):
        value += mass * problem.table[z]
        gradient += mass * problem.table[z] * (np.eye(rows.shape[1])[list(z)] - rows)
    return value, gradient


def chance_of_set(members: Sequence[int], before: Sequence[int], masses: np.ndarray) -> float:
    """Give the chance that the draws after ``before`` are ``members`` in any order."""
    total = 0.0
    for order in itertools.permutations(members):
        left, chance = 1 - sum(masses[one] for one in before), 1.0
        for one in order:
            chance, left = chance * masses[one] / left, left - masses[one]
        total += chance
    return total


@cache
def ordered_draws(count: int, masses: tuple[float, ...]) -> dict[tuple[int, ...], float]:
    """Give the probability of every sequence of ``count`` distinct draws."""
    found = {}
    for order in itertools.permutations(range(len(masses)), count):
        left, chance = 1.0, 1.0
        for one in order:
            chance, left = chance * masses[one] / left, left - masses[one]
        found[order] = chance
    return found
