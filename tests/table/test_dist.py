"""Rows of the room ``dist``."""

from functools import cache

from sparse_hyper_jax import dist
from sparse_hyper_jax.types import ContinuousTuples
from tests.table.columns import Table
from tests.table.examples import SAMPLED, TUPLES, eighths
from tests.table.row import Room, Row

X = eighths(4, 2, seed=3)
OWN_MESH = {
    "donation": "arguments on one device are copied to the others",
    "Explicit": "the function brings a mesh of its own",
    "Auto": "the function brings a mesh of its own",
}
SECOND = {"second": "of the functions without devices, which have rows"}


@cache
def mesh():
    return dist.make_mesh("data=2,tuples=2")


def relax(key, *parts):
    return dist.relax(key, ContinuousTuples(*parts), (5, 4), mesh=mesh(), **SAMPLED)


def hyperlayer(key, means, variances, values, x):
    tuples = ContinuousTuples(means, variances, values)
    return dist.hyperlayer(key, tuples, x, (5,), mesh=mesh(), **SAMPLED)


def hyperlayer_hard(means, variances, values, x):
    tuples = ContinuousTuples(means, variances, values)
    return dist.hyperlayer_hard(tuples, x, (5,), mesh=mesh())


def placed(one, two):
    tree = dist.shard_tuples(one, mesh()), dist.shard_batch(two, mesh())
    return dist.replicate(tree, mesh())


ROWS = [
    Row("relax", relax, TUPLES, keyed=True, skips=OWN_MESH | SECOND),
    Row(
        "hyperlayer",
        hyperlayer,
        (*TUPLES, X),
        keyed=True,
        wide=False,
        skips=OWN_MESH | SECOND,
    ),
    Row(
        "hyperlayer_hard",
        hyperlayer_hard,
        (*TUPLES, X),
        wide=False,
        dropped={1: "evaluation uses no variance", 3: "no tuple reads the first number"},
        skips=OWN_MESH | SECOND,
    ),
    Row(
        "shard_tuples, shard_batch, replicate, make_mesh",
        placed,
        (TUPLES[2], X),
        wide=False,
        skips=OWN_MESH | SECOND | {"lists": "in a tree of arrays a list is a tree"},
    ),
]

PROCESSES = "of processes, not of arrays; tests/dist runs several"
EXCEPTIONS = {
    "first_does": PROCESSES,
    "first_says": PROCESSES,
    "is_first": PROCESSES,
    "join_processes": PROCESSES,
    "tuple_shardings": "says where arrays go",
}


class TestDist(Table):
    room = Room(dist, ROWS, EXCEPTIONS)
