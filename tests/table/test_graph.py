"""Rows of the room ``graph``."""

import numpy as np

from sparse_hyper_jax import graph
from tests.table.columns import Table
from tests.table.examples import distinct, eighths, integers
from tests.table.row import Room, Row

NODES, FEATURES, SLOTS = 5, 2, 2
H = eighths(NODES, FEATURES)
SENDERS = integers(1, 2, 0, 3, 4)
RECEIVERS = integers(0, 0, 1, 3, 2)
POSITIVE = eighths(5, low=0.5, high=2.0, seed=1)
IN_EDGES = np.array([[1, 2], [0, 3], [4, 4], [0, 1], [2, 3]], np.int32)
PLACED = np.array([[True, True], [True, False], [True, True], [False, False], [True, True]])
COTANGENT = distinct(NODES, FEATURES, seed=2)
LOUD = distinct(NODES, FEATURES, seed=3)
NAMES = "slots are integers and flags; what is NaN places and drops nothing"

ROWS = [
    Row(
        "aggregate",
        graph.aggregate,
        (SENDERS, RECEIVERS, POSITIVE, H),
        outside={0: (NODES,), 1: (NODES,)},
    ),
    Row(
        "aggregate_in_edges, InEdges",
        lambda senders, values, h: graph.aggregate_in_edges((senders, PLACED), values, h),
        (IN_EDGES, eighths(NODES, SLOTS, seed=1), H),
        outside={0: (NODES,)},
    ),
    Row(
        "aggregate_in_edges, matrices",
        lambda senders, values, h: graph.aggregate_in_edges((senders, PLACED), values, h),
        (IN_EDGES, eighths(NODES, SLOTS, FEATURES, 3, seed=1), H),
        outside={0: (NODES,)},
    ),
    Row(
        "gcn_normalize, WeightedEdges",
        lambda senders, receivers, values: (
            graph.gcn_normalize(senders, receivers, values, num_nodes=NODES).values
        ),
        (SENDERS, RECEIVERS, POSITIVE),
        outside={0: (NODES,), 1: (NODES,)},
    ),
    Row(
        "edge_softmax",
        lambda logits, senders, receivers: graph.edge_softmax(
            logits, senders, receivers, num_nodes=NODES
        ),
        (eighths(5, seed=1), SENDERS, RECEIVERS),
        wide=False,
        outside={1: (NODES,), 2: (NODES,)},
    ),
    Row(
        "edge_gains, EdgeGains",
        lambda h, cotangent, senders, receivers: graph.edge_gains(
            h, cotangent, 2, senders=senders, receivers=receivers, block=2
        ),
        (LOUD, COTANGENT, SENDERS, RECEIVERS),
        exact=False,
        outside={2: (NODES,), 3: (NODES,)},
    ),
    Row(
        "edge_gains, matrices",
        lambda h, cotangent: graph.edge_gains(
            h, cotangent, 2, weights="matrix", unit_senders=True, block=3
        ),
        (distinct(NODES, 2, 2, seed=4), distinct(NODES, 2, 1, seed=5)),
        exact=False,
    ),
    Row(
        "place_edges",
        lambda gains, names: graph.place_edges(
            (IN_EDGES, PLACED), graph.EdgeGains(names, gains, np.ones(NODES, np.float32)), 1
        ),
        (distinct(NODES, 3, seed=6), np.tile(integers(3, 1, 0), (NODES, 1))),
        exact=None,
        dropped=NAMES,
        outside={1: (NODES,)},
        skips={"outside": "a candidate that is no node is none: the tests of the room try it"},
    ),
    Row(
        "drop_edges",
        lambda importance: graph.drop_edges((IN_EDGES, PLACED), importance),
        (distinct(NODES, SLOTS, seed=7),),
        exact=None,
        dropped=NAMES,
    ),
    Row(
        "swap_edges",
        lambda importance, h, cotangent: graph.swap_edges(
            (IN_EDGES, PLACED), importance, lambda edges: graph.edge_gains(h, cotangent, 1)
        ),
        (distinct(NODES, SLOTS, seed=7), LOUD, COTANGENT),
        exact=None,
        dropped=NAMES,
    ),
    Row(
        "edge_importance",
        lambda senders, values, h: graph.edge_importance((senders, PLACED), values, h),
        (IN_EDGES, distinct(NODES, SLOTS, seed=8), LOUD),
        outside={0: (NODES,)},
    ),
    Row(
        "edge_list",
        lambda senders: graph.edge_list((senders, PLACED)),
        (IN_EDGES,),
        exact=None,
        outside={0: (NODES,)},
    ),
    Row(
        "order_nodes",
        lambda senders, receivers: graph.order_nodes(senders, receivers, num_nodes=4, steps=50),
        (integers(0, 1, 2), integers(1, 2, 3)),
        exact=None,
        outside={0: (4,), 1: (4,)},
    ),
    Row(
        "order_by_features",
        graph.order_by_features,
        (distinct(4, 2, seed=9),),
        exact=None,
        dropped="an order of integers",
    ),
]

EXCEPTIONS = {
    "empty_edges": "makes zeros of given lengths",
    "NEW_WEIGHTS": "a tuple of names, each of which a test of the room tries",
}


class TestGraph(Table):
    room = Room(graph, ROWS, EXCEPTIONS)
