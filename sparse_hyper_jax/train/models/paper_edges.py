"""Edges that the words of papers ask for: words, topics, words filled in; nearest, pursued."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import graph
from sparse_hyper_jax.train.data.citations import Citations

RIDGE = 1e-2
"""Of the fit of a paper by those that it receives from, whose rows have length 1; and of the fit
of words by others, beside the number of their papers."""


def word_rows(data: Citations) -> np.ndarray:
    """Give rows ``(n, words)`` of length 1, in which rare words weigh more."""
    rows = np.zeros((data.nodes, data.words), np.float32)
    rows[data.paper, data.word] = 1
    return _of_length_one(rows * np.log(data.nodes / np.maximum(rows.sum(axis=0), 1)))


def topic_rows(rows: np.ndarray, topics: int) -> np.ndarray:
    """Give rows ``(n, topics)`` of length 1: words that occur in the same papers count as alike.

    The leading singular vectors of the rows of words: latent semantic analysis, Deerwester et al.
    1990.
    """
    _, vectors = np.linalg.eigh(rows.T @ rows)
    return _of_length_one(rows @ vectors[:, : -topics - 1 : -1])


def denoised_rows(data: Citations, corruption: float) -> np.ndarray:
    """Give rows ``(n, words)`` of how much every word is expected in a paper, less the mean.

    The denoiser is trained on all papers, without labels: each word is told from a paper's words,
    of which a share ``corruption`` is left out at random,

        W = argmin E sum_papers ||x - W (keep * x, 1)||^2 + RIDGE ||W||^2,
        row = tanh(W (x, 1)) - mean,

    in closed form, as if on infinitely many corrupted papers: the marginalised denoising
    autoencoder, Chen et al. 2012. Words that stand for each other become alike, so that papers
    may be near that share none. Rows have no common length; those of their topics have.
    """
    ones = np.zeros((data.nodes, data.words + 1))
    ones[data.paper, data.word], ones[:, -1] = 1, 1
    together = ones.T @ ones
    kept = np.append(np.full(data.words, 1 - corruption), 1)
    seen = together * np.outer(kept, kept)
    np.fill_diagonal(seen, kept * np.diag(together) + RIDGE)
    weights = np.linalg.solve(seen, (together * kept)[:-1].T)
    rows = np.tanh(ones @ weights)
    return (rows - rows.mean(axis=0)).astype(np.float32)


def nearest_papers(rows: np.ndarray, count: int) -> np.ndarray:
    """Give edges ``(2, n count)`` from the papers of the largest cosine.

    They are the edges of the largest gain if nothing is explained yet.
    """
    found = jax.jit(lambda x: graph.edge_gains(x, -x, count))(jnp.asarray(rows))
    return _listed(found.senders, found.gains > 0)


def pursued_papers(rows: np.ndarray, count: int) -> np.ndarray:
    """Give edges ``(2, n count)`` that pursuit places to explain each paper's words by others'.

    Of the loss ``||sum_s v_is x[s] - x[i]||^2``, whose values ``v`` are fitted anew before every
    probe: a paper is chosen for the words that those before it lack.
    """

    @jax.jit
    def place(edges: graph.InEdges, x: jax.Array) -> graph.InEdges:
        def error_of(node: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            senders, placed, own = node
            read = jnp.where(placed[:, None], x[senders], 0)
            gram = read @ read.T + RIDGE * jnp.eye(count)
            return jnp.linalg.solve(gram, read @ own) @ read - own

        # Some papers at a time: the words of all senders of all papers would fill the memory.
        error = jax.lax.map(error_of, (*edges, x), batch_size=64)
        senders, receivers = graph.edge_list(edges)
        gains = graph.edge_gains(x, error, senders=senders, receivers=receivers)
        return graph.place_edges(edges, gains, min_z=0.0)

    edges, x = graph.empty_edges(len(rows), count), jnp.asarray(rows)
    for _ in range(count):
        edges = place(edges, x)
    return _listed(edges.senders, edges.placed)


def _listed(senders: jax.Array, placed: jax.Array) -> np.ndarray:
    """Give the edges that are there, ``(2, E)``."""
    nodes = np.broadcast_to(np.arange(len(senders))[:, None], senders.shape)
    kept = np.asarray(placed)
    return np.stack([np.asarray(senders)[kept], nodes[kept]])


def _of_length_one(rows: np.ndarray) -> np.ndarray:
    """Divide rows by their lengths, but rows of zeros."""
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(sizes > 0, sizes, 1)
