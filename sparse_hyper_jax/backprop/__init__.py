"""Sparse backpropagation: propagate a few components of each cotangent, remember the rest.

    cotangent g ----> corrected a = g + m ----> choice ----> propagated s = S(a) ----> dx, dW
     (rows, n)             (rows, n)         sparsifiers.py      (rows, c)            dense.py
                               ^                                    |
                               '------ memory m' = eta (a - s) <----'      memory.py

``sparse_dense`` is a dense layer with such a backward pass, smaller products included;
``sparsify_cotangent`` puts it after any operation. A sparsifier says what is propagated. The memory
is an ordinary argument: its gradient is its next value (:func:`next_memory`), so that state leaves
the backward pass without any side effect::

    gradient, following = jax.grad(loss, argnums=(0, 1))(parameters, memory)
    memory = next_memory(memory, following)

A memory is in units of the cotangent: a mean or a sum for the loss, the batch size and loss scaling
change what it means, so start a new one when they change. Keep it out of the optimizer, of weight
decay, of gradient clipping and of averages over devices or microbatches, and do not pad batches:
a memory belongs to one call of one layer on one batch. Inside ``shard_map`` it needs
``check_vma=True``, the default, which adds up what the devices contribute. What holds for all
functions is on the page Rules of the documentation.
"""

from sparse_hyper_jax.largest import top_k_mask
from sparse_hyper_jax.backprop.choice import Choice, Sparsifier, sparsify
from sparse_hyper_jax.backprop.sparsifiers import (
    BlockTopK,
    CandidateTopK,
    ImportanceSampling,
    RandomK,
    Threshold,
    TopK,
    UnifiedRandomK,
    UnifiedTopK,
)
from sparse_hyper_jax.backprop.adaptive import AdaptiveLadder, AdaptiveTopK
from sparse_hyper_jax.backprop.memory import (
    Memory,
    init_memory,
    next_memory,
    share_of_units_used,
)
from sparse_hyper_jax.backprop.cotangent import sparsify_cotangent
from sparse_hyper_jax.backprop.compact import CompactGradient, add_compact, empty_compact
from sparse_hyper_jax.backprop.dense import sparse_dense
from sparse_hyper_jax.backprop.error_feedback import ErrorFeedbackState, error_feedback

__all__ = [
    "AdaptiveLadder",
    "AdaptiveTopK",
    "BlockTopK",
    "CandidateTopK",
    "Choice",
    "CompactGradient",
    "ErrorFeedbackState",
    "ImportanceSampling",
    "Memory",
    "RandomK",
    "Sparsifier",
    "Threshold",
    "TopK",
    "UnifiedRandomK",
    "UnifiedTopK",
    "add_compact",
    "empty_compact",
    "error_feedback",
    "init_memory",
    "next_memory",
    "share_of_units_used",
    "sparse_dense",
    "sparsify",
    "sparsify_cotangent",
    "top_k_mask",
]
