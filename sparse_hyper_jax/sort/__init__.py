"""Sorting by learned keys: gradients reach the keys through a mixture of a few permutations.

Do not learn to sort: learn a key for every element, and let the sort itself pass the gradient on.
A quicksort of ``n`` elements makes ``L = ceil(log2 n)`` splits. Each one moves the larger half of
every bucket into its upper positions. Which half that is, is a discrete choice; so a few balanced
choices are tried at once and mixed, weighted by how well they agree with the keys::

    keys (n,)    payload (n, ...)                               target (n, ...), in order
       |               |                                               |
       |        stages[0] = input                               targets[0]  <- compare with stages
       v               v                                               ^
    split at level 0: one bucket of n                           pulled back by the transpose
       upper    (C, n)   C balanced proposals, the certain one first   |
       weights  (C, n)   softmax over C of certainty * sum of upper keys
       sources  (C, n)   each proposal as a stable partition           |
       v               v                                               |
    keys (n,)    stages[1] (n, ...)                             targets[1] (n, ...)
       v               v                                               ^
      ...             ...        levels 1 .. L - 1: 2, 4, .. buckets  ...
       v               v                                               |
    keys (n,)    stages[L] (n, ...) = sorted payload            targets[L] = target

Everything is written for one sequence; batches come by ``jax.vmap``. Nothing is ``n x n``: a split
costs ``O(n * C)``. Read ``buckets.py`` (static geometry for any ``n``), ``candidates.py``
(proposals and weights), ``split.py`` (mixing), ``quicksort.py``, then ``losses.py`` and
``metrics.py``; ``baselines.py`` has the dense alternative, ``sampled.py`` the one that draws a
permutation instead of mixing several.

Reference: Bloem 2018, arXiv 1810.09184.
"""

from sparse_hyper_jax.sort.baselines import neural_sort
from sparse_hyper_jax.sort.losses import cross_entropy, sort_loss, squared_error
from sparse_hyper_jax.sort.metrics import element_match, exact_match
from sparse_hyper_jax.sort.order_losses import order_loss, rank_loss
from sparse_hyper_jax.sort.quicksort import Sorted, quicksort, standardise
from sparse_hyper_jax.sort.sampled import Drawn, draw_sort
from sparse_hyper_jax.sort.soft import soft_ranks, soft_sort, soft_top_k
from sparse_hyper_jax.sort.split import HalfPermutation, apply_split, half_split, reverse_split

__all__ = [
    "Drawn",
    "HalfPermutation",
    "Sorted",
    "apply_split",
    "cross_entropy",
    "draw_sort",
    "element_match",
    "exact_match",
    "half_split",
    "neural_sort",
    "order_loss",
    "quicksort",
    "rank_loss",
    "reverse_split",
    "soft_ranks",
    "soft_sort",
    "soft_top_k",
    "sort_loss",
    "squared_error",
    "standardise",
]
