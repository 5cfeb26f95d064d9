"""Calls of ``graph``."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import graph
from tests.fuzz import draw
from tests.fuzz.calls.parts import reals
from tests.fuzz.wrong import Call, array, choice, count, flag, function, number, thing, tree

N, E, F, K, MOST = 4, 6, 3, 2, 2**31 - 1


def lists(rng):
    """Edges as two lists of nodes."""
    numbers = {name: draw.segments(rng, E, N) for name in ("senders", "receivers")}
    return {name: array(nodes, "integers") for name, nodes in numbers.items()}


def number_of_nodes(*, optional=False):
    return {"num_nodes": count(N, 1, MOST, optional=optional)}


def slots(rng):
    """Edges in slots, and what is none of these."""
    good = graph.InEdges(rng.integers(0, N, (N, K)).astype(np.int32), rng.random((N, K)) < 0.5)
    bad = [
        good._replace(senders=good.senders[0]),
        good._replace(senders=good.senders * 1.0),
        good._replace(senders=None),
        good._replace(placed=good.placed[:, 1:]),
        good._replace(placed=good.placed.astype(np.int32)),
        good._replace(placed="placed"),
        (good.senders,),
        good.senders,
        graph.InEdges,
    ]
    return thing(good, *bad, family="edges")


def nodes(rng, *, lengths=True):
    """Features of nodes; more axes are more features."""
    bad = (jnp.zeros((0, F)), np.float32(1))
    return array(reals(rng, N, F), ranks=False, lengths=lengths, bad=bad)


def aggregate(rng):
    values = array(reals(rng, E), optional=True)
    arguments = lists(rng) | {"values": values, "h": nodes(rng, lengths=False)}
    arguments |= number_of_nodes(optional=True)
    return Call("graph.aggregate", graph.aggregate, arguments, 4)


def aggregate_in_edges(rng):
    values = array(reals(rng, N, K), last=True, optional=True)
    arguments = {"edges": slots(rng), "values": values, "h": nodes(rng)}
    return Call("graph.aggregate_in_edges", graph.aggregate_in_edges, arguments, 3)


def gcn_normalize(rng):
    arguments = lists(rng) | {"values": array(np.abs(reals(rng, E)), optional=True)}
    arguments |= number_of_nodes() | {"self_loops": flag(True)}
    return Call("graph.gcn_normalize", graph.gcn_normalize, arguments, 3)


def edge_softmax(rng):
    arguments = {"logits": array(reals(rng, E, 2), ranks=False)} | lists(rng)
    arguments |= number_of_nodes() | {"self_loops": flag(False)}
    arguments["mask"] = array(rng.random(E) < 0.7, "flags", optional=True)
    return Call("graph.edge_softmax", graph.edge_softmax, arguments, 3)


def edge_gains(rng):
    arguments = {name: array(reals(rng, N, F), last=True) for name in ("h", "cotangent")}
    arguments |= {"count": count(2, 1)}
    there = {name: array(draw.segments(rng, E, N), "integers") for name in lists(rng)}
    arguments |= there | {"weights": choice("positive")}
    if rng.random() < 0.5:
        arguments |= {"output": array(reals(rng, N, F), last=True, optional=True)}
    else:
        arguments |= {"unit_senders": flag(True)}
    if rng.random() < 0.5:
        bad = (3, "sum", {"f": 1}, np.ones(3), lambda rows: rows[..., :1], lambda rows: "rows")
        bad += (lambda rows: None, lambda rows: rows[:1], jnp.sum)
        message = tree(lambda rows: 2 * rows, *bad, family="function")
        arguments |= {"message": message}
    arguments |= {"self_loops": flag(False), "block": count(3, 1)}
    arguments["allowed"] = array(rng.random(N) < 0.7, "flags", optional=True)
    return Call("graph.edge_gains", graph.edge_gains, arguments, 3)


def empty_edges(rng):
    arguments = number_of_nodes() | {"count": count(K)}
    return Call("graph.empty_edges", graph.empty_edges, arguments, 2)


def edge_list(rng):
    return Call("graph.edge_list", graph.edge_list, {"edges": slots(rng)}, 1)


def found(rng):
    """Gains of edges, and what is none of these."""
    senders = rng.integers(-1, N, (N, 2)).astype(np.int32)
    good = graph.EdgeGains(senders, reals(rng, N, 2), np.ones(N, np.float32))
    bad = [
        good._replace(senders=good.senders * 1.0),
        good._replace(senders=good.senders[:, :1]),
        good._replace(gains=good.gains[0]),
        good._replace(gains="gains"),
        good._replace(noise=good.noise[1:]),
        good._replace(noise=None),
        tuple(good)[:2],
        good.gains,
        graph.EdgeGains,
    ]
    return good, bad


def importance(rng):
    return {"importance": array(reals(rng, N, K), last=True)}


def min_z():
    return {"min_z": number(2.0, optional=True)}


def place_edges(rng):
    good, bad = found(rng)
    arguments = {"edges": slots(rng), "gains": thing(good, *bad, family="gains")}
    arguments |= {"count": count(1)} | min_z()
    return Call("graph.place_edges", graph.place_edges, arguments, 3)


def drop_edges(rng):
    arguments = {"edges": slots(rng)} | importance(rng) | {"count": count(1)}
    return Call("graph.drop_edges", graph.drop_edges, arguments, 3)


def swap_edges(rng):
    good, bad = found(rng)
    bad = [lambda edges, one=one: one for one in (*bad, None, "gains")]
    arguments = {"edges": slots(rng)} | importance(rng)
    arguments |= {"gains": function(lambda edges: good, *bad)} | min_z()
    return Call("graph.swap_edges", graph.swap_edges, arguments, 3)


def edge_importance(rng):
    values = array(reals(rng, N, K), last=True)
    arguments = {"edges": slots(rng), "values": values, "h": nodes(rng)}
    return Call("graph.edge_importance", graph.edge_importance, arguments, 3)


def order_nodes(rng):
    arguments = lists(rng) | number_of_nodes() | {"steps": count(3, 1)}
    return Call("graph.order_nodes", graph.order_nodes, arguments, 2)


def order_by_features(rng):
    features = array(reals(rng, N, F), lengths=False)
    return Call("graph.order_by_features", graph.order_by_features, {"features": features}, 1)


CALLS = (
    aggregate,
    aggregate_in_edges,
    gcn_normalize,
    edge_softmax,
    edge_gains,
    edge_gains,
    empty_edges,
    edge_list,
    place_edges,
    drop_edges,
    swap_edges,
    edge_importance,
    order_nodes,
    order_by_features,
)
