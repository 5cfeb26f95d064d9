"""Calls of ``memory``."""

import numpy as np
import optax

from sparse_hyper_jax import memory
from tests.fuzz import draw
from tests.fuzz.calls.parts import SHAPE, reals, tuples
from tests.fuzz.wrong import Call, array, choice, count, flag, key, number, shape, thing, tree

V, M, K, D, MOST = 4, 6, 2, 3, 2**31 - 1


def table(rng, *, lengths=False):
    bad = np.float32(1), np.ones(3, np.float32), np.ones((0, D), np.float32)
    return array(reals(rng, M, D), ranks=False, lengths=lengths, bad=bad)


def pair(rng, kind, first, second, family):
    """A named tuple of integers and reals ``first`` and ``second`` by ``V`` and ``K``."""
    good = kind(rng.integers(0, M, (V, K)).astype(np.int32), reals(rng, V, K))
    bad = [
        good._replace(**{first: getattr(good, first) * 1.0}),
        good._replace(**{first: getattr(good, first)[:, :1]}),
        good._replace(**{first: None}),
        good._replace(**{second: getattr(good, second)[1:]}),
        good._replace(**{second: second}),
        good[:1],
        good[1],
        kind,
    ]
    return thing(good, *bad, family=family)


def reads(rng):
    return pair(rng, memory.Reads, "rows", "shares", "reads")


def words(rng):
    return pair(rng, memory.WordRows, "rows", "values", "words")


def sampling(rng):
    return {"num_global": count(2), "num_local": count(1), "region": shape((3, 2))}


def grid_read(rng):
    cells = array(
        reals(rng, *SHAPE, D), lengths=False, bad=(np.ones((2,) * 6, np.float32), np.float32(1))
    )
    if rng.random() < 0.5:
        arguments = {"key": key(), "table": cells, "addresses": tuples(rng, 3)} | sampling(rng)
        return Call("memory.grid_read", memory.grid_read, arguments, 3)
    places = array(reals(rng, 3, 2), ranks=False, lengths=False, last=True)
    arguments = {"key": key(optional=True), "table": cells, "addresses": places}
    arguments |= {"evaluate": choice("interpolate", optional=True)}
    return Call("memory.grid_read", memory.grid_read, arguments, 3)


def grid_shares(rng):
    arguments = {"key": key(), "addresses": tuples(rng, 3), "shape": shape(SHAPE)} | sampling(rng)
    return Call("memory.grid_shares", memory.grid_shares, arguments, 3)


def read_rows(rng):
    arguments = {"table": table(rng), "reads": reads(rng)}
    return Call("memory.read_rows", memory.read_rows, arguments, 2)


def usage(rng):
    arguments = {"reads": reads(rng), "num_rows": count(M, 1, MOST)}
    return Call("memory.usage", memory.usage, arguments, 2)


def hash_rows(rng):
    arguments = {"key": key(), "num_words": count(V, 1), "num_rows": count(M, 1, MOST)}
    arguments |= {"count": count(K, 1, M)}
    return Call("memory.hash_rows", memory.hash_rows, arguments, 4)


def ids(rng):
    return array(draw.segments(rng, 5, V), "integers", ranks=False, lengths=False)


def word_reads(rng):
    return Call("memory.word_reads", memory.word_reads, {"words": words(rng), "ids": ids(rng)}, 2)


def embed(rng):
    arguments = {"table": table(rng), "words": words(rng), "ids": ids(rng)}
    return Call("memory.embed", memory.embed, arguments, 3)


def row_gains(rng):
    arguments = {"table": array(reals(rng, M, D), lengths=False, last=True)}
    arguments |= {"cotangent": array(reals(rng, V, D), last=True)}
    arguments |= {"rows": array(draw.segments(rng, V * K, M).reshape(V, K), "integers")}
    arguments |= {"count": count(2, 1), "positive": flag(False), "unit_rows": flag(True)}
    arguments |= {"block": count(3, 1)}
    return Call("memory.row_gains", memory.row_gains, arguments, 4)


def row_importance(rng):
    arguments = {"words": words(rng), "table": array(reals(rng, M, D), lengths=False)}
    return Call("memory.row_importance", memory.row_importance, arguments, 2)


def relocate_rows(rng):
    rows = rng.integers(-1, M, (V, 2)).astype(np.int32)
    good = memory.RowGains(rows, reals(rng, V, 2), np.ones(V, np.float32))
    bad = [
        good._replace(rows=good.rows * 1.0),
        good._replace(rows=good.rows[:, :1]),
        good._replace(gains=good.gains[0]),
        good._replace(gains="gains"),
        good._replace(noise=good.noise[1:]),
        good._replace(noise=None),
        tuple(good)[:2],
        good.gains,
        memory.RowGains,
    ]
    arguments = {"words": words(rng), "gains": thing(good, *bad, family="gains")}
    arguments |= {"importance": array(reals(rng, V, K), last=True)}
    arguments |= {"min_z": number(2.0, optional=True)}
    arguments |= {"max_share": number(0.2, -0.1, 1.5, optional=True)}
    return Call("memory.relocate_rows", memory.relocate_rows, arguments, 3)


def inner():
    bad = (optax.adam, 0.1, None, {"adam": 1}, "adam", np.ones(2))
    return thing(optax.adam(0.1), *bad, family="optimizer")


def lazy_rows(rng):
    params = {"table": reals(rng, M, D)}
    bad = ({"table": "x"}, {"table": np.float32(1)}, {"table": object()}, {"table": 1j})

    def use(inner, params):
        return memory.lazy_rows(inner).init(params)

    arguments = {"inner": inner(), "params": tree(params, *bad)}
    return Call("memory.lazy_rows", use, arguments, 2)


def update_rows(rng):
    optimizer, rows = optax.adam(0.1), draw.segments(rng, 5, M)
    numbers = reals(rng, M, D)
    good = memory.lazy_rows(optimizer).init(numbers)
    bad = (None, 3, optimizer.init(numbers), memory.lazy_rows(optimizer).init(numbers[1:]), numbers)
    arguments = {"inner": inner(), "rows": array(rows, "integers")}
    arguments |= {"gradients": array(reals(rng, 5, D), last=True)}
    arguments |= {"state": tree(good, *bad, family="state")}
    arguments |= {"table": array(numbers, last=True)}
    return Call("memory.update_rows", memory.update_rows, arguments, 5)


CALLS = (
    grid_read,
    grid_read,
    grid_shares,
    read_rows,
    usage,
    hash_rows,
    word_reads,
    embed,
    row_gains,
    row_importance,
    relocate_rows,
    lazy_rows,
    update_rows,
)
