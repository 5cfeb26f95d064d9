"""What was learned: which connections there are, what each is worth, and whether to believe it.

Positions are read off what was trained, and judged by what the loss and other runs say of them::

    tuples, taps   describe.py     describe_tuples, describe_taps    where, how sure, how large
    edges              |           describe_edges                    from whom, how large
         |         table.py        write_description                 the same as a text
    loss           ablation.py     ablate                            what each one is worth
    other runs     agreement.py    match_positions, agreement        what would be found again
    points         spread.py       effective_points                  how far from decided
         |
    other tools    edges.py        to_edges

A dense array and BCOO come from ``ops.to_dense`` and ``ops.to_bcoo``, a dense kernel from
``conv.lag_kernel`` and ``conv.offset_kernel``, the gain of every absent lag from
``conv.lag_gains``. Positions are not importance: a connection may have the value 0. And one run is
an anecdote: where inputs resemble each other, so do positions.
"""

from sparse_hyper_jax.explain.ablation import Ablation, ablate
from sparse_hyper_jax.explain.agreement import Matching, agreement, match_positions
from sparse_hyper_jax.explain.describe import (
    Description,
    describe_edges,
    describe_taps,
    describe_tuples,
)
from sparse_hyper_jax.explain.edges import Edges, to_edges
from sparse_hyper_jax.explain.spread import effective_points
from sparse_hyper_jax.explain.table import write_description

__all__ = [
    "Ablation",
    "Description",
    "Edges",
    "Matching",
    "ablate",
    "agreement",
    "describe_edges",
    "describe_taps",
    "describe_tuples",
    "effective_points",
    "match_positions",
    "to_edges",
    "write_description",
]
