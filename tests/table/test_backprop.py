"""Rows of the room ``backprop``."""

import jax

from sparse_hyper_jax import backprop
from sparse_hyper_jax.precision import wide_dtype
from tests.table.columns import Table
from tests.table.examples import distinct, eighths
from tests.table.row import Room, Row

# Also its columns, and its pairs of columns, are all of different size.
COTANGENT = distinct(3, 8, seed=3)
X = eighths(3, 4, seed=1)
KERNEL = eighths(8, 4, seed=2)
BIAS = eighths(8, seed=3)

EVERY = {
    "TopK": backprop.TopK(3),
    "UnifiedTopK": backprop.UnifiedTopK(3),
    "CandidateTopK": backprop.CandidateTopK(2, 4),
    "BlockTopK": backprop.BlockTopK(4, block=2),
    "Threshold": backprop.Threshold(0.7),
}
RANDOM = {
    "RandomK": backprop.RandomK(3),
    "UnifiedRandomK": backprop.UnifiedRandomK(3),
    "ImportanceSampling": backprop.ImportanceSampling(3),
}
ADAPTIVE = {
    "AdaptiveTopK": backprop.AdaptiveTopK(0.1, 0.6),
    "AdaptiveLadder": backprop.AdaptiveLadder(0.1, 0.6, num_rungs=2),
}
REVERSE = {
    "jvp": "the documentation says: reverse mode only",
    "second": "the documentation says: first derivatives only",
}
A_STEP = {"lists": "the row differentiates, which is not possible by lists"}


def choosing(sparsifier):
    return lambda cotangent: backprop.sparsify(None, cotangent, sparsifier)


def choosing_at_random(sparsifier):
    return lambda key, cotangent: backprop.sparsify(key, cotangent, sparsifier)


def remembering(sparsifier):
    """A backward pass and the memory after it."""

    def step(x, kernel, bias):
        wide = wide_dtype(x)
        memory = backprop.init_memory("slot", (3, 8), adaptive=True, count=True, dtype=wide)

        def loss(x, kernel, bias, memory):
            y = backprop.sparse_dense(None, x, kernel, bias, memory, sparsifier=sparsifier)
            return (y * COTANGENT.astype(y.dtype)).sum(dtype=wide)

        *slopes, gradient = jax.grad(loss, (0, 1, 2, 3))(x, kernel, bias, memory)
        memory = backprop.next_memory(memory, gradient)
        used = backprop.share_of_units_used(memory)
        return *slopes, *(leaf.astype(x.dtype) for leaf in (memory.residue, memory.peak, used))

    return step


def compactly(x, kernel):
    sparsifier = backprop.UnifiedTopK(3)

    def loss(compact):
        y = backprop.sparse_dense(None, x, kernel, sparsifier=sparsifier, compact=compact)
        return (y * COTANGENT.astype(y.dtype)).sum(dtype=wide_dtype(y))

    compact = backprop.empty_compact(kernel, sparsifier)
    return backprop.add_compact(kernel, jax.grad(loss)(compact), -0.125)


def fed_back(sparsifier):
    def update(key, one, two):
        transformation = backprop.error_feedback(sparsifier, key=key)
        first, state = transformation.update(one, transformation.init(one))
        return first, transformation.update(two, state)[0]

    return update


def layer(key, x, kernel, bias):
    return backprop.sparse_dense(key, x, kernel, bias, sparsifier=backprop.ImportanceSampling(2))


def backwards(key, y):
    def loss(y):
        z = backprop.sparsify_cotangent(key, y, sparsifier=backprop.UnifiedRandomK(2))
        return (z.astype(wide_dtype(z)) ** 2).sum()

    return jax.grad(loss)(y)


ROWS = [
    *(
        Row(
            f"sparsify, {name}",
            choosing(one),
            (COTANGENT,),
            wide=False,
        )
        for name, one in EVERY.items()
    ),
    *(
        Row(
            f"sparsify, {name}",
            choosing_at_random(one),
            (COTANGENT,),
            redraws=True,
            keyed=True,
            wide=False,
            exact=name != "ImportanceSampling",
        )
        for name, one in RANDOM.items()
    ),
    *(
        Row(
            f"sparse_dense, {name}, init_memory, next_memory, share_of_units_used",
            remembering(one),
            (X, KERNEL, BIAS),
            wide=False,
            dropped={2: "no slope depends on the bias"},
            exact=None,
            skips=A_STEP,
        )
        for name, one in ADAPTIVE.items()
    ),
    Row(
        "sparse_dense",
        layer,
        (X, KERNEL, BIAS),
        keyed=True,
        wide=False,
        exact=False,
        skips=REVERSE,
    ),
    Row(
        "sparsify_cotangent",
        backwards,
        (COTANGENT,),
        keyed=True,
        wide=False,
        exact=None,
        skips=A_STEP,
    ),
    Row("empty_compact, add_compact", compactly, (X, KERNEL), wide=False, exact=None, skips=A_STEP),
    Row(
        "error_feedback",
        fed_back(backprop.RandomK(23, rescale=False)),
        (COTANGENT, distinct(3, 8, seed=4)),
        redraws=True,
        keyed=True,
        wide=False,
        exact=None,
        skips={"lists": "in a tree of updates a list is a tree"},
    ),
    Row(
        "top_k_mask",
        lambda array: backprop.top_k_mask(array, 3),
        (COTANGENT,),
        exact=None,
        dropped="the output is a mask",
    ),
]

EXCEPTIONS = {
    "Choice": "a type",
    "CompactGradient": "a type",
    "ErrorFeedbackState": "a type",
    "Memory": "a type",
    "Sparsifier": "a base class",
}


class TestBackprop(Table):
    room = Room(backprop, ROWS, EXCEPTIONS)
