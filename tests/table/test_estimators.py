"""Rows of the room ``estimators``."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import estimators
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import ContinuousTuples
from tests.table.columns import Table
from tests.table.examples import MEANS, SAMPLED, SHAPE, TUPLES, VARIANCES, eighths, integers
from tests.table.row import Room, Row

LOGITS = eighths(2, 2, low=-1.0, high=1.0)
TOKENS = eighths(5, 3, seed=1)
OUTPUTS = eighths(5, 2, seed=2)
DEFAULTS = eighths(3, 2, seed=3)
INDEX = integers(0, 2, 1, 0, 2)
CHOICES = integers([0, 1], [2, 0], [1, 2], [0, 2], [2, 1])


def expected(estimator):
    """The expectation of a function with a parameter, of classes (2,) or rows (2, 2)."""

    def value(key, logits, parameter):
        first, second = at_least_float32(parameter)

        def f(z):
            return jnp.sum(jnp.sin(z.astype(first.dtype) + first)) * second

        return estimators.expectation(key, logits, f, estimator=estimator)

    return value


def surrogate(z):
    return jnp.sum(jax.nn.softmax(z) ** 2)


EVERY = {
    "ScoreFunction": estimators.ScoreFunction(2),
    "RLOO": estimators.RLOO(2),
    "AR": estimators.AR(),
    "ARS": estimators.ARS(),
    "ARSM": estimators.ARSM(),
    "ARM": estimators.ARM(),
    "REBAR": estimators.REBAR(),
    "RELAX": estimators.RELAX(surrogate),
    "StraightThrough": estimators.StraightThrough(),
    "GumbelStraightThrough": estimators.GumbelStraightThrough(),
    "Subset": estimators.Subset(2),
    "WithoutReplacement": estimators.WithoutReplacement(2),
}


def cells(key, means, variances, values):
    tuples = ContinuousTuples(means, variances, values)
    choices = estimators.cell_choices(key, tuples, SHAPE, **SAMPLED)
    return choices.points, jnp.exp(choices.logits), choices.pick(jnp.zeros(4, jnp.int32))


def axes(means, variances, values):
    choices = estimators.axis_choices(ContinuousTuples(means, variances, values), SHAPE)
    return choices.points, choices.logits


def score(key, means, variances):
    def loss(cells):
        return jnp.sum(cells)

    return estimators.cell_expectation(key, means, variances, SHAPE, loss)


ROWS = [
    *(
        Row(
            f"expectation, {name}",
            expected(estimator),
            (LOGITS, eighths(2, seed=4)),
            keyed=True,
            redraws=True,
            exact=False,
        )
        for name, estimator in EVERY.items()
    ),
    Row(
        "expectation, Enumeration",
        lambda *arguments: expected(estimators.Enumeration())(jax.random.key(0), *arguments),
        (LOGITS, eighths(2, seed=4)),
    ),
    Row(
        "cell_choices",
        cells,
        TUPLES,
        keyed=True,
        dropped={2: "values are not used"},
    ),
    Row("axis_choices", axes, TUPLES, dropped={2: "values are not used"}),
    Row("balance_loss", estimators.balance_loss, (TOKENS, INDEX), outside={1: (3,)}),
    Row(
        "balance_loss, router_z_loss, of two choices",
        lambda logits, index: (
            estimators.balance_loss(logits, index),
            estimators.router_z_loss(logits, index),
        ),
        (TOKENS, CHOICES),
        outside={1: (3,)},
    ),
    Row("top_route", lambda logits: tuple(estimators.top_route(logits)), (TOKENS,)),
    Row(
        "top_route, k=2",
        lambda logits, bias: tuple(estimators.top_route(logits, k=2, bias=bias, renormalise=True)),
        (TOKENS, eighths(3, seed=10)),
        exact=False,
    ),
    Row(
        "within_capacity, Placed",
        lambda index, priority: tuple(
            estimators.within_capacity(index, num_experts=3, capacity=2, priority=priority)
        ),
        (CHOICES, eighths(5, 2, seed=11)),
        exact=None,
        outside={0: (3,)},
        dropped="the outputs are numbers of experts and places",
    ),
    Row(
        "load_report, LoadReport",
        lambda index: tuple(estimators.load_report(index, 3)),
        (CHOICES,),
        exact=None,
        outside={0: (3,)},
        skips={"x64": "integers alone count as float32"},
    ),
    Row(
        "update_router_bias",
        lambda bias, load: estimators.update_router_bias(bias, load, rate=0.125),
        (eighths(3, seed=10), np.float32([2, 0, 4])),
        exact=False,
    ),
    *(
        Row(
            f"sparse_mixer, {method}",
            lambda key, logits, method=method: tuple(
                estimators.sparse_mixer(key, logits, method=method)
            ),
            (TOKENS,),
            keyed=True,
            redraws=True,
            exact=False,
        )
        for method in ("midpoint", "heun")
    ),
    Row(
        "fill_with_defaults",
        estimators.fill_with_defaults,
        (TOKENS, OUTPUTS, INDEX, DEFAULTS),
        wide=False,
        exact=False,
        outside={2: (3,)},
    ),
    Row(
        "update_defaults",
        lambda *arguments: estimators.update_defaults(*arguments, decay=0.5),
        (DEFAULTS, OUTPUTS, INDEX),
        wide=False,
        exact=False,
        outside={2: (3,)},
    ),
    Row(
        "perturb_given_winner",
        estimators.perturb_given_winner,
        (-eighths(5, 3, low=0.5, high=2.0), INDEX),
        keyed=True,
        redraws=True,
        outside={1: (3,)},
    ),
    Row(
        "pseudo_actions",
        estimators.pseudo_actions,
        (-eighths(3, 4, low=0.125, high=2.0, seed=5), eighths(3, 4, seed=6), integers([0, 1])),
        exact=None,
        dropped="the outputs are numbers of classes",
        outside={2: (4,)},
    ),
    Row(
        "sample_cells",
        lambda key, means, variances: estimators.sample_cells(key, means, variances, SHAPE),
        (MEANS, VARIANCES),
        redraws=True,
        keyed=True,
        exact=False,
    ),
    Row(
        "sample_without_replacement",
        lambda key, logits: estimators.sample_without_replacement(key, logits, 3),
        (eighths(2, 3, seed=7),),
        redraws=True,
        keyed=True,
    ),
    Row(
        "cell_expectation",
        score,
        (MEANS, VARIANCES),
        keyed=True,
        redraws=True,
        exact=False,
    ),
    Row(
        "sample_relaxed",
        lambda key, logits: estimators.sample_relaxed(key, logits, temperature=0.5),
        (eighths(2, 3, seed=7),),
        redraws=True,
        keyed=True,
    ),
    Row(
        "relaxed_log_prob",
        lambda rows, logits: estimators.relaxed_log_prob(rows, logits, temperature=0.5),
        (-eighths(2, 3, low=0.5, high=2.0, seed=5), eighths(2, 3, seed=7)),
    ),
    Row(
        "reparametrise",
        lambda sample, mean: estimators.reparametrise(
            sample, lambda z: jax.nn.sigmoid(z - at_least_float32(mean))
        ),
        (eighths(4, seed=8), eighths(4, seed=9)),
        wide=False,
        exact=False,
    ),
    Row(
        "subset_log_prob",
        lambda mask, logits: estimators.subset_log_prob(mask, logits, 2),
        (np.float32([1, 0, 0, 1]), eighths(4, seed=7)),
    ),
    Row("subset_marginals", lambda logits: estimators.subset_marginals(logits, 2), (eighths(4),)),
    Row(
        "sample_subset",
        lambda key, logits: estimators.sample_subset(key, logits, 2),
        (eighths(4, seed=7),),
        redraws=True,
        keyed=True,
        exact=False,
    ),
    Row(
        "score_function_loss",
        lambda losses, logs: estimators.score_function_loss(losses, logs, baseline="leave_one_out"),
        (eighths(4, seed=8), eighths(4, seed=9)),
        exact=False,
    ),
]

EXCEPTIONS = {
    "ESTIMATORS": "a table of names, each of whose classes has a row",
    "CellChoices": "a type",
    "Estimate": "a type",
    "Estimator": "a base class",
    "Route": "a type",
}

MARKS = {}


class TestEstimators(Table):
    room = Room(estimators, ROWS, EXCEPTIONS, MARKS)
