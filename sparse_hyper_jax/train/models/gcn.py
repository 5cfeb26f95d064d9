"""A graph convolution network of two layers for papers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import graph
from sparse_hyper_jax.train.data.citations import Citations
from sparse_hyper_jax.train.epoch_state import Metrics

Parameters = dict[str, jax.Array]


class Papers(NamedTuple):
    """What every step takes.

    Attributes:
        words: entries of the rows of words, each row of sum 1: word, paper, value.
        edges: normalised, with loops.
        labels: ``(n,)``.
        train: numbers of papers.
        validation: likewise.
    """

    words: graph.WeightedEdges
    edges: graph.WeightedEdges
    labels: jax.Array
    train: jax.Array
    validation: jax.Array


class GCNState(NamedTuple):
    """What training changes, and what was best on validation."""

    parameters: Parameters
    optimizer: Any
    best: Parameters
    accuracy: jax.Array
    """Of the best parameters, on validation."""

    loss: jax.Array
    """Theirs too, for equal accuracies."""


def init_gcn(key: jax.Array, words: int, hidden: int, classes: int) -> Parameters:
    """Draw weights as Glorot does."""
    keys = jax.random.split(key)
    draw = jax.nn.initializers.glorot_uniform()
    return {
        "one": draw(keys[0], (words, hidden)),
        "one_bias": jnp.zeros(hidden),
        "two": draw(keys[1], (hidden, classes)),
        "two_bias": jnp.zeros(classes),
    }


def gcn_logits(
    parameters: Parameters, papers: Papers, key: jax.Array | None = None, dropout: float = 0.0
) -> jax.Array:
    """Give logits ``(n, classes)``; with a key, words and units are dropped."""
    nodes = papers.labels.shape[0]
    values, keep = papers.words.values, 1 - dropout
    keys = (None, None) if key is None else jax.random.split(key)

    def dropped(key: jax.Array | None, x: jax.Array) -> jax.Array:
        if key is None or not dropout:
            return x
        return jnp.where(jax.random.bernoulli(key, keep, x.shape), x / keep, 0)

    words = papers.words._replace(values=dropped(keys[0], values))
    sums = graph.aggregate(*words, parameters["one"], num_nodes=nodes)
    hidden = jax.nn.relu(graph.aggregate(*papers.edges, sums) + parameters["one_bias"])
    hidden = dropped(keys[1], hidden)
    return graph.aggregate(*papers.edges, hidden @ parameters["two"]) + parameters["two_bias"]


def make_step(
    optimizer: optax.GradientTransformation, *, dropout: float, weight_decay: float
) -> Callable[[GCNState, jax.Array, Papers], tuple[GCNState, Metrics]]:
    """Make a step on all papers, which also keeps the parameters that validate best."""

    def loss_of(parameters: Parameters, key: jax.Array, papers: Papers) -> jax.Array:
        logits = gcn_logits(parameters, papers, key, dropout)
        decay = 0.5 * weight_decay * jnp.sum(parameters["one"] ** 2)
        return _cross_entropy(logits, papers.labels, papers.train) + decay

    def step(state: GCNState, key: jax.Array, papers: Papers) -> tuple[GCNState, Metrics]:
        loss, slopes = jax.value_and_grad(loss_of)(state.parameters, key, papers)
        updates, moments = optimizer.update(slopes, state.optimizer, state.parameters)
        parameters: Any = optax.apply_updates(state.parameters, updates)
        logits = gcn_logits(parameters, papers)
        accuracy = accuracy_of(logits, papers.labels, papers.validation)
        ends = _cross_entropy(logits, papers.labels, papers.validation)
        better = (accuracy > state.accuracy) | ((accuracy == state.accuracy) & (ends < state.loss))

        def chosen(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda one, other: jnp.where(better, one, other), new, old)

        best, accuracy, ends = chosen(
            (parameters, accuracy, ends), (state.best, state.accuracy, state.loss)
        )
        return GCNState(parameters, moments, best, accuracy, ends), {"loss": loss}

    return step


def start_gcn(parameters: Parameters, optimizer: optax.GradientTransformation) -> GCNState:
    """Give the state before training."""
    lowest = jnp.full((), -1.0), jnp.full((), jnp.inf)
    # Arrays of their own: the state is given away.
    return GCNState(
        parameters, optimizer.init(parameters), jax.tree.map(jnp.array, parameters), *lowest
    )


def accuracy_of(logits: jax.Array, labels: jax.Array, papers: jax.Array | np.ndarray) -> jax.Array:
    """Give the share of these papers whose class is told."""
    return jnp.mean((jnp.argmax(logits[papers], axis=1) == labels[papers]).astype(jnp.float32))


def make_papers(data: Citations, edges: np.ndarray) -> Papers:
    """Normalise rows of words, and edges ``(2, E)`` in both directions."""
    lengths = np.maximum(np.bincount(data.paper, minlength=data.nodes), 1)
    values = (1 / lengths[data.paper]).astype(np.float32)
    words = graph.WeightedEdges(*map(jnp.asarray, (data.word, data.paper, values)))
    senders, receivers = np.concatenate([edges, edges[::-1]], axis=1).astype(np.int32)
    weighted = jax.jit(lambda *lists: graph.gcn_normalize(*lists, num_nodes=data.nodes))(
        senders, receivers
    )
    return Papers(words, weighted, *map(jnp.asarray, (data.labels, data.train, data.validation)))


def _cross_entropy(logits: jax.Array, labels: jax.Array, papers: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits[papers], labels[papers])
    return jnp.mean(losses)
