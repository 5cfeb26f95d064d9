"""Graphs whose edges are given or learned: sums over edges, and the gain of every absent edge.

For ``n`` nodes with ``F`` features, edges as lists of ``E`` senders and receivers (those of jraph),
or as ``k`` slots for incoming edges of every node::

    given edges      normalize.py    gcn_normalize, edge_softmax      values (E,)
         |           aggregate.py    aggregate                        (E,), (n, F) -> (n, F)
    learned edges    in_edges.py     InEdges: senders, placed         (n, k)
         |           aggregate.py    aggregate_in_edges               (n, k), (n, F) -> (n, F)
    output                           its cotangent                    (n, F)
         |           gains.py        edge_gains                       the best c of n per node,
         |                                                            block by block, no n x n
    better edges     place.py        place_edges, drop_edges          (n, c) -> slots
                                     swap_edges                       both, with a probe between
    order of nodes   order.py        order_nodes, order_by_features   where neighbours are to be
                                                                      alike: for Gaussians

A number of a node says nothing about its neighbours in number, so a position among nodes has no
slope: edges are placed by exact gains, not moved by gradients.
"""

from sparse_hyper_jax.graph.aggregate import aggregate, aggregate_in_edges
from sparse_hyper_jax.graph.gains import EdgeGains, edge_gains
from sparse_hyper_jax.graph.in_edges import InEdges, edge_list, empty_edges
from sparse_hyper_jax.graph.normalize import WeightedEdges, edge_softmax, gcn_normalize
from sparse_hyper_jax.graph.order import order_by_features, order_nodes
from sparse_hyper_jax.graph.place import drop_edges, edge_importance, place_edges, swap_edges
from sparse_hyper_jax.graph.probed import NEW_WEIGHTS

__all__ = [
    "NEW_WEIGHTS",
    "EdgeGains",
    "InEdges",
    "WeightedEdges",
    "aggregate",
    "aggregate_in_edges",
    "drop_edges",
    "edge_gains",
    "edge_importance",
    "edge_list",
    "edge_softmax",
    "empty_edges",
    "gcn_normalize",
    "order_by_features",
    "order_nodes",
    "place_edges",
    "swap_edges",
]
