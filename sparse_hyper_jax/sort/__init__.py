"""Sorting by learned keys, with gradients for the keys, and never an ``n x n`` matrix.

Do not learn to sort: learn a key for every element, and let the sort itself pass the gradient on.
There are two such sorts. **The soft sort** mixes elements with near keys; take this one first::

    keys (n,)   segment_ids (n,), optional: many lists in one call
       |
       v        kernel.py
    order       one exact sort, by list, then by key
    decays (n,)      exp(-certainty * gap to the key before); 0 where a list begins
       |
       |        recurrence.py: running sums that decay from place to place, up and down again,
       v        are the product with all exp(-certainty * |key - key'|) at once
    soft.py     soft_sort: the payload, mixed;  soft_ranks;  soft_top_k
    order_losses.py    order_loss, rank_loss: learn from the right order alone

**The quicksort** mixes a few permutations; its stages can be looked at, and compared with targets.
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

Everything is written for one sequence; batches come by ``jax.vmap``. The soft sort costs
``O(n log n)``, a split ``O(n * C)``. Of the quicksort read ``buckets.py`` (static geometry for any
``n``), ``candidates.py`` (proposals and weights), ``split.py`` (mixing), ``quicksort.py``, then
``losses.py`` and ``metrics.py``; ``baselines.py`` has a dense alternative, ``sampled.py`` the one
that draws a permutation instead of mixing several.

References: Prillo and Eisenschlos 2020, arXiv 2006.16038 (soft sort); Bloem 2018, arXiv 1810.09184
(learned keys, quicksort).
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
