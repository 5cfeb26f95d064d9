"""Rows of the room ``memory``."""

import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import memory
from sparse_hyper_jax.types import ContinuousTuples
from tests.table.columns import Table
from tests.table.examples import (
    MEANS,
    SAMPLED,
    SHAPE,
    VALUES,
    VARIANCES,
    between,
    distinct,
    eighths,
    integers,
)
from tests.table.row import Room, Row

TABLE = distinct(*SHAPE, 2)
READ_ROWS = np.array([[1, 2, 3], [0, 4, 2]], np.int32)
WORD_ROWS = np.array([[0, 1], [2, 0], [3, 2]], np.int32)
SMALL = distinct(4, 2, seed=1)
SLOPES = distinct(3, 2, seed=2)
WORD_VALUES = distinct(3, 2, seed=3)
INNER = optax.sgd(0.125, momentum=0.5)
"""Adam of optax itself promotes its counts to floats, which strict promotion forbids."""

UNREAD = {0: "no read needs the first cell"}
NAMES = "rows are integers; what is NaN moves nothing"
IN_A_TREE = {"lists": "in a tree of parameters a list is a tree"}
STEP = {"exact": None, "wide": False}


def drawn(key, table, *tuples):
    return memory.grid_read(key, table, ContinuousTuples(*tuples), **SAMPLED)


def stepped(gradient, table):
    optimizer = memory.lazy_rows(INNER)
    return optimizer.update(gradient, optimizer.init(table), table)[0]


def by_rows(rows, gradients, table):
    state = memory.lazy_rows(INNER).init(jnp.zeros((4, 2), jnp.asarray(table).dtype))
    return memory.update_rows(INNER, rows, gradients, state, table)[0]


ROWS = [
    Row("grid_read, tuples", drawn, (TABLE, MEANS, VARIANCES, VALUES), keyed=True),
    *(
        Row(
            f"grid_read, {evaluate}",
            lambda table, places, evaluate=evaluate: memory.grid_read(
                None, table, places, evaluate=evaluate
            ),
            (TABLE, between(2, 3, 2)),
            dropped=UNREAD if evaluate == "round" else {},
        )
        for evaluate in memory.EVALUATIONS
    ),
    Row(
        "grid_shares",
        lambda places: memory.grid_shares(None, places, (4, 3, 2)),
        (np.float32([[0.625, 1.375, 0.375], [-1.25, 2.125, 0.625]]),),
    ),
    Row(
        "read_rows, Reads",
        lambda table, rows, shares: memory.read_rows(table, memory.Reads(rows, shares)),
        (SMALL, READ_ROWS, eighths(2, 3)),
        outside={1: (4,)},
    ),
    Row(
        "usage, Usage",
        lambda rows, shares: memory.usage(memory.Reads(rows, shares), 5),
        (READ_ROWS, eighths(2, 3, low=0.5)),
        outside={0: (5,)},
    ),
    Row(
        "embed",
        lambda table, rows, values, ids: memory.embed(table, (rows, values), ids),
        (SMALL, WORD_ROWS, WORD_VALUES, integers(1, 0, 1, 2)),
        outside={1: (4,), 3: (3,)},
    ),
    Row(
        "word_reads, WordRows",
        lambda values, ids: memory.word_reads(memory.WordRows(WORD_ROWS, values), ids),
        (WORD_VALUES, integers(1, 0, 1, 2)),
        wide=False,
        outside={1: (3,)},
    ),
    Row(
        "row_gains, RowGains",
        lambda table, cotangent, rows: memory.row_gains(table, cotangent, rows, 2, block=3),
        (SMALL, SLOPES, WORD_ROWS),
        exact=False,
        outside={2: (4,)},
    ),
    Row(
        "row_importance",
        lambda rows, values, table: memory.row_importance((rows, values), table),
        (WORD_ROWS, WORD_VALUES, SMALL),
        outside={0: (4,)},
    ),
    Row(
        "relocate_rows",
        lambda values, gains, importance: memory.relocate_rows(
            (WORD_ROWS, values),
            memory.RowGains(integers(2, 3, 0)[:, None], gains, np.ones(3, np.float32)),
            importance,
        ),
        (WORD_VALUES, np.float32([[2.0], [3.0], [-1.0]]), distinct(3, 2, seed=5)),
        exact=None,
        wide=False,
        dropped={1: NAMES, 2: NAMES},
    ),
    Row(
        "lazy_rows",
        stepped,
        (SMALL, distinct(4, 2, seed=4)),
        dropped={1: "the update depends on the gradient alone"},
        skips=IN_A_TREE,
        **STEP,
    ),
    Row(
        "update_rows",
        by_rows,
        (integers(1, 1, 3), distinct(3, 2, seed=6), SMALL),
        outside={0: (4,)},
        **STEP,
    ),
]

EXCEPTIONS = {
    "EVALUATIONS": "a tuple of names, each of which a row tries",
    "hash_rows": "draws integers from counts and a key alone",
}


class TestMemory(Table):
    room = Room(memory, ROWS, EXCEPTIONS)
