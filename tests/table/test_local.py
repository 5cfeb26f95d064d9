"""Rows of the room ``local``."""

import numpy as np
import optax

from sparse_hyper_jax import local
from tests.table.columns import Table
from tests.table.examples import eighths
from tests.table.row import Room, Row

ROWS_, UNITS, CODES = 3, 2, 2
X, TARGET = eighths(ROWS_, UNITS), eighths(ROWS_, CODES, seed=1)
FACTORS = np.array([0.5, -1.0, 0.25, 2.0], np.float32)
SGD = optax.sgd(0.5)


def component(factors):
    """Exact in 16 bits for two components."""
    return local.Component(*(lambda x, n=n: factors[n] * x for n in range(4)))


def losses(factors, x, target):
    found = local.associated_losses([component(factors)] * 2, x, target)
    return found.association, found.reconstruction


def predicted(factors, x):
    parts = [component(factors)] * 2
    return local.associated_predict(parts, x, exit_at=1)


def line(factors, xs, targets):
    trees, states = [factors, factors], [SGD.init(factors)] * 2
    done = local.pipelined_steps([component] * 2, trees, states, xs, targets, optimizer=SGD)
    return done.association, done.reconstruction


LISTS = {"lists": "parameters reach the component as they are, through its functions"}

ROWS = [
    Row(
        "associated_losses, Component, AssociatedLosses",
        losses,
        (FACTORS, X, TARGET),
        exact=False,
        skips=LISTS,
    ),
    Row("associated_predict", predicted, (FACTORS, X), wide=False, skips=LISTS),
    Row(
        "pipelined_steps, PipelinedSteps",
        line,
        (FACTORS, X[None], TARGET[None]),
        exact=None,
        skips=LISTS,
    ),
]


class TestLocal(Table):
    room = Room(local, ROWS, {})
