"""Nodes that all follow one law and receive from a few others: model, probe, training step.

``next[i] = bias[i] + own(x[i]) + sum_s message(x[senders[i, s]]) values[i, s]`` with two small
networks that all nodes share, and a matrix for every edge. The dense model has one for every pair.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import solve_triangular

from sparse_hyper_jax import conv, graph
from sparse_hyper_jax.train.data.wiring import Pairs
from sparse_hyper_jax.train.epoch_state import Metrics

Parameters = dict[str, Any]
Method = Literal["pursuit", "known", "random", "dense"]


class WiredState(NamedTuple):
    """What training changes."""

    parameters: Parameters
    optimizer: Any
    """State of the optimizer."""

    edges: graph.InEdges
    """Of the dense model: none."""

    count: jax.Array
    """Finished steps, int32."""


class WiredModel(NamedTuple):
    """Sizes, and when probes are made.

    Attributes:
        nodes: how many.
        edges: slots of each.
        hidden: units of the two shared networks.
        messages: features of what a node sends.
        batch: pairs per step.
        probe_samples: pairs of a probe.
        probe_every: steps between probes.
        probes: how many there are, those that swap included; 0 for edges that stay.
        block: senders that a probe looks at together.
    """

    nodes: int
    edges: int
    hidden: int = 16
    messages: int = 3
    batch: int = 50
    probe_samples: int = 500
    probe_every: int = 100
    probes: int = 0
    block: int = 64


def init_parameters(
    key: jax.Array, model: WiredModel, features: int, *, dense: bool = False
) -> Parameters:
    """Draw the networks; edges start with nothing, of the dense model too."""
    keys = jax.random.split(key, 2)
    many = model.nodes if dense else model.edges
    return {
        "own": _init_network(keys[0], features, model.hidden, features),
        "message": _init_network(keys[1], features, model.hidden, model.messages),
        "bias": jnp.zeros((model.nodes, features)),
        "edges": jnp.zeros((model.nodes, many, model.messages, features)),
    }


def start_wired(
    parameters: Parameters, optimizer: optax.GradientTransformation, edges: graph.InEdges
) -> WiredState:
    """Give the state before training."""
    count = jnp.zeros((), jnp.int32)
    return WiredState(parameters, optimizer.init(parameters), edges, count)


def predict(parameters: Parameters, edges: graph.InEdges, now: jax.Array) -> jax.Array:
    """Give the next states ``(n, b, d)`` of ``(n, b, d)``; without slots, from all nodes."""
    sent = _network(parameters["message"], now)
    if edges.placed.shape[1] == 0:  # dense: from every node but itself
        others = 1 - jnp.eye(len(now), dtype=now.dtype)
        weights = parameters["edges"] * others[..., None, None]
        received = jnp.einsum("ijcd,jbc->ibd", weights, sent)
    else:
        received = graph.aggregate_in_edges(edges, parameters["edges"], sent)
    return parameters["bias"][:, None] + _network(parameters["own"], now) + received


def loss_of(parameters: Parameters, edges: graph.InEdges, pairs: Pairs) -> jax.Array:
    """Give the mean squared error."""
    return jnp.mean((predict(parameters, edges, pairs.now) - pairs.after) ** 2)


def probe(
    parameters: Parameters,
    edges: graph.InEdges,
    pairs: Pairs,
    model: WiredModel,
    *,
    count: int = 1,
) -> graph.EdgeGains:
    """Give the gains of the best absent edges of every node, as many as ``count``.

    The cotangent of a squared error is the error. Without the mean of a node, or a bias that has
    not settled looks like a gain; with messages that are decorrelated, or loud ones outshout
    others.
    """
    error = _errors(parameters, edges, pairs, model.batch)
    error = error - error.mean(axis=1, keepdims=True)
    sent = _network(parameters["message"], pairs.now[:, :: max(1, len(error) // 100)])
    sent = sent.reshape(-1, sent.shape[-1])
    mean = sent.mean(axis=0)
    spread = jnp.cov(sent, rowvar=False).reshape(model.messages, model.messages)
    ridge = 1e-4 * jnp.trace(spread) * jnp.eye(model.messages) / model.messages
    root = jnp.linalg.cholesky(spread + ridge)

    def message(rows: jax.Array) -> jax.Array:
        flat = (_network(parameters["message"], rows) - mean).reshape(-1, model.messages)
        return solve_triangular(root, flat.T, lower=True).T.reshape(*rows.shape[:-1], -1)

    senders, receivers = graph.edge_list(edges)
    return graph.edge_gains(
        pairs.now,
        error,
        count,
        senders=senders,
        receivers=receivers,
        weights="matrix",
        message=message,
        block=model.block,
    )


def importance_of(parameters: Parameters, edges: graph.InEdges, pairs: Pairs) -> jax.Array:
    """Give the size of what each edge carries, without its mean; ``(n, k)``, or ``(n, n)``."""
    sent = _network(parameters["message"], pairs.now)
    sent = sent - sent.mean(axis=1, keepdims=True)
    if edges.placed.shape[1] == 0:
        second = jnp.einsum("jsc,jse->jce", sent, sent)
        values = parameters["edges"]
        size = jnp.einsum("ijcd,jce,ijed->ij", values, second, values)
        return jnp.where(jnp.eye(len(sent), dtype=bool), 0, jnp.sqrt(jnp.maximum(size, 0)))
    return graph.edge_importance(edges, parameters["edges"], sent)


def strongest(importance: jax.Array, count: int) -> graph.InEdges:
    """Give the edges of the largest importance in a table ``(n, n)``."""
    _, senders = jax.lax.top_k(importance, count)
    return graph.InEdges(senders.astype(jnp.int32), jnp.ones(senders.shape, bool))


def make_step(
    model: WiredModel, optimizer: optax.GradientTransformation
) -> Callable[[WiredState, jax.Array, Pairs], tuple[WiredState, Metrics]]:
    """Make a training step, with a probe before every so many of them."""

    def step(state: WiredState, key: jax.Array, train: Pairs) -> tuple[WiredState, Metrics]:
        probe_key, batch_key = jax.random.split(key)
        if model.probes:
            number, left = state.count // model.probe_every, state.count % model.probe_every
            due = (left == 0) & (number >= 1) & (number <= model.probes)
            swap = partial(_swap, model=model, optimizer=optimizer)
            state = jax.lax.cond(due, swap, lambda state, *_: state, state, probe_key, train)
        pairs = _draw(batch_key, train, model.batch)
        loss, slopes = jax.value_and_grad(loss_of)(state.parameters, state.edges, pairs)
        updates, moments = optimizer.update(slopes, state.optimizer, state.parameters)
        parameters: Any = optax.apply_updates(state.parameters, updates)
        return WiredState(parameters, moments, state.edges, state.count + 1), {"loss": loss}

    return step


def _swap(
    state: WiredState,
    key: jax.Array,
    train: Pairs,
    *,
    model: WiredModel,
    optimizer: optax.GradientTransformation,
) -> WiredState:
    """Fill a slot of every node; where there is none, the least important edge makes room."""
    pairs = _draw(key, train, model.probe_samples)
    few = jax.tree.map(lambda part: part[:, : model.batch], pairs)
    before = state.edges
    after = graph.swap_edges(
        before,
        importance_of(state.parameters, before, few),
        lambda edges: probe(state.parameters, edges, pairs, model),
    )
    stayed = before.placed & after.placed & (before.senders == after.senders)
    flags = jax.tree.map(lambda _: False, state.parameters) | {"edges": ~stayed}
    values = jnp.where(stayed[..., None, None], state.parameters["edges"], 0)
    parameters = state.parameters | {"edges": values}
    return WiredState(
        parameters, conv.clear_moments(optimizer, state.optimizer, flags), after, state.count
    )


def share_found(edges: graph.InEdges, true: jax.Array) -> jax.Array:
    """Give the share of the true edges ``(n, k)`` that are there."""
    there = (edges.senders[:, None] == true[..., None]) & edges.placed[:, None]
    return there.any(axis=-1).mean()


def rollout_error(parameters: Parameters, edges: graph.InEdges, rollout: jax.Array) -> jax.Array:
    """Give the error ``(H,)`` of trajectories that the model goes on with by itself.

    In standard deviations of the states: about 1.4 where nothing is known any more.
    """

    def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        # What the model would never see again does no harm to the mean.
        return (after := jnp.clip(predict(parameters, edges, state), -9, 9)), after

    _, states = jax.lax.scan(step, rollout[0], None, length=len(rollout) - 1)
    squares = jnp.mean((states - rollout[1:]) ** 2, axis=(1, 2, 3))
    return jnp.sqrt(squares / jnp.var(rollout))


def _errors(parameters: Parameters, edges: graph.InEdges, pairs: Pairs, batch: int) -> jax.Array:
    """Give errors ``(n, s, d)``, as many samples at a time as in a step: units take more room."""

    def some(part: Pairs) -> jax.Array:
        one = Pairs(part.now[:, None], part.after[:, None])
        return (predict(parameters, edges, one.now) - one.after)[:, 0]

    samples_first = jax.tree.map(lambda part: jnp.swapaxes(part, 0, 1), pairs)
    return jnp.swapaxes(jax.lax.map(some, samples_first, batch_size=batch), 0, 1)


def _draw(key: jax.Array, pairs: Pairs, count: int) -> Pairs:
    """Draw some of the pairs."""
    samples = pairs.now.shape[1]
    chosen = jax.random.choice(key, samples, (min(count, samples),), replace=False)
    return Pairs(*(part[:, chosen] for part in pairs))


def _init_network(key: jax.Array, before: int, hidden: int, after: int) -> Parameters:
    """Draw one hidden layer, beside which a linear map leads on."""
    keys = jax.random.split(key, 4)
    normal = jax.random.normal
    return {
        "in": 1.5 * normal(keys[0], (before, hidden)) / before**0.5,
        "shift": normal(keys[1], (hidden,)),
        "out": normal(keys[2], (hidden, after)) / hidden**0.5,
        "linear": normal(keys[3], (before, after)) / before**0.5,
    }


def _network(weights: Parameters, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ weights["in"] + weights["shift"])
    return hidden @ weights["out"] + x @ weights["linear"]
