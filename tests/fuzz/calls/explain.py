"""Calls of ``explain``."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import explain, graph, ops
from tests.fuzz import draw
from tests.fuzz.calls.parts import SHAPE, entries, tuples
from tests.fuzz.wrong import Call, array, count, function, shape, thing, tree


def positions(rng, count=3, *, rank=2):
    """Known ones; as many as one likes."""
    good = rng.integers(0, 9, (count, rank))
    return array(good, "integers", lengths=False, bad=(good[:0], good[:, :0]))


def describe_tuples(rng):
    bad = (np.ones(3), np.ones((2, 5, 4)), np.ones((1, 4)))
    sizes = array(np.ones(4), optional=True, ranks=False, bad=bad)
    arguments = {"tuples": tuples(rng, 3), "shape": shape(SHAPE), "input_sizes": sizes}
    return Call("explain.describe_tuples", explain.describe_tuples, arguments, 2)


def describe_taps(rng):
    good = ops.Taps(rng.integers(0, 7, (3, 1)).astype(np.int32), rng.random(3) < 0.5)
    bad = [
        good._replace(positions=good.positions[:, 0]),
        good._replace(positions=good.positions * 1.0),
        good._replace(positions=None),
        good._replace(placed=good.placed[1:]),
        good._replace(placed=good.placed.astype(np.int32)),
        good._replace(placed="placed"),
        good.positions,
        ops.Taps,
    ]
    arguments = {
        "taps": thing(good, *bad, family="taps"),
        "weights": array(draw.reals(rng, (3, 2, 4)), ranks=False),
        "input_sizes": array(np.ones(2), optional=True),
    }
    return Call("explain.describe_taps", explain.describe_taps, arguments, 2)


def describe_edges(rng):
    good = graph.InEdges(rng.integers(0, 4, (4, 2)).astype(np.int32), rng.random((4, 2)) < 0.7)
    bad = [
        good._replace(senders=good.senders[:, 0]),
        good._replace(senders=good.senders * 1.0),
        good._replace(senders=None),
        good._replace(placed=good.placed[1:]),
        good._replace(placed=good.placed.astype(np.int32)),
        good._replace(placed="placed"),
        good.senders,
        graph.InEdges,
    ]
    arguments = {"edges": thing(good, *bad, family="edges")}
    if rng.random() < 0.5:
        arguments["values"] = array(draw.reals(rng, (4, 2)))
        arguments["h"] = array(draw.reals(rng, (4, 3)), ranks=False)
    else:
        arguments["values"] = array(draw.reals(rng, (4, 2, 3, 1)))
        arguments["h"] = array(draw.reals(rng, (4, 3)), ranks=False, last=True)
    return Call("explain.describe_edges", explain.describe_edges, arguments, 3)


def effective_points(rng):
    arguments = {"proportions": array(np.full((4, 3), 0.25), lengths=False)}
    return Call("explain.effective_points", explain.effective_points, arguments, 1)


def to_edges(rng):
    arguments = {
        "entries": entries(rng, 3),
        "output_shape": shape(SHAPE[:1]),
        "input_shape": shape(SHAPE[1:]),
    }
    return Call("explain.to_edges", explain.to_edges, arguments, 3)


def ablate(rng):
    bad = [lambda v: v, lambda v: None, lambda v: "x", lambda v: {"l": 1.0}]
    bad += [lambda v: jnp.sum(v) * 1j, lambda v: jnp.sum(v) > 0, lambda v: (jnp.sum(v), 1.0)]
    arguments = {
        "loss": function(jnp.sum, *bad),
        "values": array(draw.reals(rng, (3, 2)), ranks=False, lengths=False, bad=(2.0,)),
        "batch_size": count(2, 1),
    }
    return Call("explain.ablate", explain.ablate, arguments, 2)


def matching(rng):
    if rng.random() < 0.5:
        runs = rng.integers(0, 9, (2, 3, 1))
        bad = (runs[:, :0], runs[:0])
        arguments = {"runs": array(runs, "integers", lengths=False, bad=bad)}
        call = Call("explain.agreement", explain.agreement, arguments, 1, eager=True)
    else:
        arguments = {"one": positions(rng), "other": positions(rng, 4)}
        call = Call("explain.match_positions", explain.match_positions, arguments, 2, eager=True)
    arguments["within"] = count(1, 0)
    return call


def write_description(rng):
    taps = ops.Taps(jnp.array([[5], [2]]), jnp.array([True, True]))
    found = explain.describe_taps(taps, jnp.array([1.0, -3.0]))
    bad = [tuple(found), found.positions, explain.Description, "text"]
    bad += [found._replace(order=None), found._replace(positions=found.values)]
    names = [("a", "b"), (), 3, {"a": 1}, object(), "lags", (None,), (3,)]
    arguments = {
        "description": thing(found, *bad, family="description"),
        "axes": tree(("lag",), *names, family="names"),
        "most": count(2, 1),
    }
    name = "explain.write_description"
    return Call(name, explain.write_description, arguments, 1, eager=True)


CALLS = (
    describe_tuples,
    describe_taps,
    describe_edges,
    effective_points,
    to_edges,
    ablate,
    ablate,
    matching,
    write_description,
)
