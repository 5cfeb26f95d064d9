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
    soft_permutation.py   soft_argsort; apply_permutation: to any payload, forwards and back
    soft.py               soft_sort: the payload, mixed;  soft_ranks;  soft_top_k
    quantiles.py          soft_quantile, soft_median, soft_min, soft_max, soft_largest
    order_losses.py       order_loss, rank_loss: learn from the right order alone
    ranking.py            ndcg_loss, ndcg: from what elements are worth, first places first

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
``losses.py``; ``sampled.py`` draws a permutation instead of mixing several. ``standard.py`` brings
keys to one scale, ``metrics.py`` judges orders, ``baselines.py`` has a dense alternative.

References: Prillo and Eisenschlos 2020, arXiv 2006.16038 (soft sort); Bloem 2018, arXiv 1810.09184
(learned keys, quicksort).
"""

from sparse_hyper_jax.sort.baselines import neural_sort
from sparse_hyper_jax.sort.losses import cross_entropy, sort_loss, squared_error
from sparse_hyper_jax.sort.metrics import element_match, exact_match, spearman
from sparse_hyper_jax.sort.order_losses import order_loss, rank_loss
from sparse_hyper_jax.sort.quantiles import (
    soft_largest,
    soft_max,
    soft_median,
    soft_min,
    soft_quantile,
)
from sparse_hyper_jax.sort.quicksort import Sorted, quicksort
from sparse_hyper_jax.sort.ranking import ndcg, ndcg_loss
from sparse_hyper_jax.sort.sampled import Drawn, draw_sort
from sparse_hyper_jax.sort.soft import soft_ranks, soft_sort, soft_top_k
from sparse_hyper_jax.sort.soft_permutation import (
    SoftPermutation,
    apply_permutation,
    soft_argsort,
)
from sparse_hyper_jax.sort.split import HalfPermutation, apply_split, half_split, reverse_split
from sparse_hyper_jax.sort.standard import standardise

__all__ = [
    "Drawn",
    "HalfPermutation",
    "SoftPermutation",
    "Sorted",
    "apply_permutation",
    "apply_split",
    "cross_entropy",
    "draw_sort",
    "element_match",
    "exact_match",
    "half_split",
    "ndcg",
    "ndcg_loss",
    "neural_sort",
    "order_loss",
    "quicksort",
    "rank_loss",
    "reverse_split",
    "soft_argsort",
    "soft_largest",
    "soft_max",
    "soft_median",
    "soft_min",
    "soft_quantile",
    "soft_ranks",
    "soft_sort",
    "soft_top_k",
    "sort_loss",
    "spearman",
    "squared_error",
    "standardise",
]
