"""Backpropagation within a budget of memory: what to keep, and what to compute again.

The way of a function::

    fn, shapes
      |        program.py    traced; calls opened; views belong to whoever reads them
      v        graph.py      a node per equation, with its bytes and operations (costs.py)
    graph
      |        families.py   lower sets: sets of nodes with all that they depend on
      |        chains.py     the best chain of them under a budget, by a dynamic programme
      v        plan.py
    plans     from plain backpropagation to the least memory
      |        segments.py   one checkpoint for every segment (barriers.py)
      |        measure.py    compiled bytes, or live.py: bytes by following the equations, of the
      |        gradients.py  gradient that counts
      v        choice.py     the first plan, from the cheapest on, that keeps to the budget
    checkpoint.py    budgeted_checkpoint: the function again; report.py prints and draws

``budgeted_checkpoint(loss, 0.5)`` is ``loss`` with a gradient that takes half the memory, or an
error that names the least possible. A stack of equal layers is better scanned with a checkpointed
body than written out and planned; a single large layer gains nothing by either.

Reference: Kusumoto, Inoue, Watanabe, Akiba and Koyama 2019, arXiv 1905.11722.
"""

from sparse_hyper_jax.remat.checkpoint import Budgeted, budgeted_checkpoint
from sparse_hyper_jax.remat.measure import Measured, measure
from sparse_hyper_jax.remat.plan import Plan, plan

__all__ = ["Budgeted", "Measured", "Plan", "budgeted_checkpoint", "measure", "plan"]
