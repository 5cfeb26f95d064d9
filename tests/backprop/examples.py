from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import backprop
from sparse_hyper_jax.backprop import init_memory, sparse_dense, sparsify_cotangent

KEY = jax.random.key(0)
ROWS, N, N_IN = 4, 8, 5

RANDOM = {
    "RandomK": backprop.RandomK(3),
    "RandomK, unscaled": backprop.RandomK(3, rescale=False),
    "UnifiedRandomK": backprop.UnifiedRandomK(3),
    "UnifiedRandomK, unscaled": backprop.UnifiedRandomK(3, rescale=False),
    "ImportanceSampling": backprop.ImportanceSampling(3),
}
ADAPTIVE = {
    "AdaptiveTopK": backprop.AdaptiveTopK(0.1, 0.6),
    "AdaptiveLadder": backprop.AdaptiveLadder(0.1, 0.6),
}
FIXED = {
    "TopK": backprop.TopK(3),
    "UnifiedTopK": backprop.UnifiedTopK(3),
    "CandidateTopK": backprop.CandidateTopK(2, 4),
    "BlockTopK": backprop.BlockTopK(4, block=2),
    "Threshold": backprop.Threshold(0.7),
}
COLUMNS = {
    name: (FIXED | RANDOM)[name]
    for name in ("UnifiedTopK", "CandidateTopK", "BlockTopK", "UnifiedRandomK")
}
SPARSIFIERS = FIXED | RANDOM | ADAPTIVE
# Those that drop or keep a component, without a factor.
MASKING = {
    name: one
    for name, one in SPARSIFIERS.items()
    if name not in ("RandomK", "UnifiedRandomK", "ImportanceSampling")
}
# With as many components as there are.
WHOLE = {
    "TopK": backprop.TopK(N),
    "TopK, share": backprop.TopK(1.0),
    "UnifiedTopK": backprop.UnifiedTopK(N),
    "CandidateTopK": backprop.CandidateTopK(N, N),
    "BlockTopK": backprop.BlockTopK(N, block=4),
    "RandomK": backprop.RandomK(N),
    "UnifiedRandomK": backprop.UnifiedRandomK(N),
    "ImportanceSampling": backprop.ImportanceSampling(N),
    "Threshold": backprop.Threshold(0.0),
    "AdaptiveTopK": backprop.AdaptiveTopK(1.0, 1.0),
    "AdaptiveLadder": backprop.AdaptiveLadder(1.0, 1.0),
}

OPTIONS = ("sparsifier", "eta", "select_on", "event_ndim")


@partial(jax.jit, static_argnames=OPTIONS)
def pull(key, cotangent, memory, **options):
    def identity(y, memory):
        return sparsify_cotangent(key, y, memory, **options)

    return jax.vjp(identity, jnp.zeros_like(cotangent), memory)[1](cotangent)


@partial(jax.jit, static_argnames=("sparsifier", "eta", "select_on", "dense_bias", "layout"))
def layer_gradients(key, arrays, cotangent, memory=None, **options):
    def layer(arrays, memory):
        return sparse_dense(key, *arrays, memory=memory, **options)

    return jax.vjp(layer, arrays, memory)[1](cotangent)


def random_array(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def layer_arrays(rows=ROWS, seed=0, dtype=np.float32):
    shapes = ((rows, N_IN), (N, N_IN), (N,))
    return tuple(
        random_array(*shape, seed=100 * seed + number, dtype=dtype)
        for number, shape in enumerate(shapes)
    )


def memory_for(sparsifier, kind="slot", shape=(ROWS, N), dtype=jnp.float32):
    peak = type(sparsifier).needs_peak
    kind = "none" if sparsifier.unbiased else kind
    return init_memory(kind, shape, adaptive=peak, count=True, dtype=dtype)


def largest(sizes, k):
    mask = np.zeros(sizes.shape, bool)
    first = np.argsort(-sizes, axis=-1, kind="stable")[..., :k]
    np.put_along_axis(mask, first, True, -1)
    return mask


def most(matrix, k):
    return np.broadcast_to(largest(np.abs(matrix).sum(0), k), matrix.shape)


def largest_among(matrix, k, candidates):
    return largest(np.where(most(matrix, candidates), np.abs(matrix), -1), k)


def best_blocks(matrix, blocks, block):
    squares = (matrix**2).sum(0).reshape(-1, block).sum(-1)
    return np.broadcast_to(np.repeat(largest(squares, blocks), block), matrix.shape)


# What is marked, in plain numpy.
BY_NUMPY = {
    "TopK": lambda matrix: largest(np.abs(matrix), 3),
    "UnifiedTopK": lambda matrix: most(matrix, 3),
    "CandidateTopK": lambda matrix: largest_among(matrix, 2, 4),
    "BlockTopK": lambda matrix: best_blocks(matrix, 2, 2),
    "Threshold": lambda matrix: np.abs(matrix) > 0.7,
}
