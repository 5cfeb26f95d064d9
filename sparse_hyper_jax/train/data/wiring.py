"""Networks with a hidden wiring: coupled chaotic maps, or springs, and what they do in time.

Every node receives from ``k`` others with weights between a half and one and a half of their mean;
nobody tells which. In ``maps`` a node follows ``f(x) = 1 - 1.9 x^2``, and nodes move nearly
together, so a linear reader of states hardly tells a sender from others. ``springs`` are linear,
and linear methods are right.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import graph

Task = Literal["maps", "springs"]

CURVATURE, COUPLING, MAP_NOISE = 1.9, 0.4, 0.02
TIME, STIFFNESS, DAMPING, KICK = 0.2, 1.0, 1.0, 0.2
BURN_IN = 60
LENGTH = 25
"""Steps of a trajectory; the next one starts from another state."""

FEATURES = {"maps": 1, "springs": 2}
"""Numbers of a state of a node: the value of a map; place and speed of a mass."""


class Pairs(NamedTuple):
    """States of all nodes at some times, and one step later.

    Attributes:
        now: ``(n, T, d)``.
        after: ``(n, T, d)``.
    """

    now: jax.Array
    after: jax.Array


class Wiring(NamedTuple):
    """A network that is to be found, and what can be seen of it.

    Attributes:
        senders: int32 ``(n, k)``, the hidden wiring.
        train: as many pairs as asked for.
        validation: other trajectories.
        test: other trajectories.
        rollout: ``(H + 1, n, R, d)``, ``R`` trajectories without noise.
    """

    senders: jax.Array
    train: Pairs
    validation: Pairs
    test: Pairs
    rollout: jax.Array


def make_wiring(
    task: Task, seed: int, *, nodes: int, edges: int, samples: int, horizon: int = 10
) -> Wiring:
    """Draw a wiring and trajectories.

    Args:
        task: which system.
        seed: of wiring and trajectories.
        nodes: how many.
        edges: how many come into each node.
        samples: pairs to train on; validation and test have a quarter of that.
        horizon: steps of the rollouts.
    """
    keys = jax.random.split(jax.random.key(seed), 6)
    senders = _draw_senders(keys[0], nodes, edges)
    weights = jax.random.uniform(keys[1], (nodes, edges), minval=0.5, maxval=1.5)
    weights = weights / weights.sum(axis=1, keepdims=True)
    step = partial(_STEPS[task], graph.InEdges(senders, jnp.ones(senders.shape, bool)), weights)
    parts = [
        _pairs(step, key, nodes, FEATURES[task], count)
        for key, count in zip(keys[2:5], (samples, samples // 4, samples // 4), strict=True)
    ]
    test = parts[2].now[:, ::LENGTH][:, :16]

    def without_noise(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return (after := step(state, jnp.zeros_like(state))), after

    _, later = jax.jit(lambda start: jax.lax.scan(without_noise, start, None, horizon))(test)
    train, validation, held_out = parts
    rollout = jnp.concatenate([test[None], later])
    return Wiring(senders, train, validation, held_out, rollout)


def _draw_senders(key: jax.Array, nodes: int, edges: int) -> jax.Array:
    """Draw distinct senders of every node, none of them itself."""

    def one(node: jax.Array, key: jax.Array) -> jax.Array:
        # Of n - 1 others, those from the node on are one further.
        drawn = jax.random.choice(key, nodes - 1, (edges,), replace=False)
        return jnp.sort(drawn + (drawn >= node)).astype(jnp.int32)

    return jax.lax.map(lambda each: one(*each), (jnp.arange(nodes), jax.random.split(key, nodes)))


def _pairs(step: partial, key: jax.Array, nodes: int, features: int, samples: int) -> Pairs:
    """Run trajectories side by side; give pairs of states, trajectory by trajectory."""
    count = -(-samples // LENGTH)
    key, first = jax.random.split(key)
    start = jax.random.uniform(first, (nodes, count, features), minval=-1.0, maxval=1.0)

    def one(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return step(state, jax.random.normal(key, state.shape)), state

    def run(start: jax.Array, key: jax.Array) -> jax.Array:
        _, states = jax.lax.scan(one, start, jax.random.split(key, BURN_IN + LENGTH + 1))
        return states[BURN_IN:]

    states = jnp.moveaxis(jax.jit(run)(start, key), 0, 2)  # (n, count, LENGTH + 1, d)
    now, after = (
        part.reshape(nodes, count * LENGTH, features)[:, :samples]
        for part in (states[:, :, :-1], states[:, :, 1:])
    )
    return Pairs(now, after)


def _map_step(
    edges: graph.InEdges, weights: jax.Array, state: jax.Array, noise: jax.Array
) -> jax.Array:
    """Move maps ``(n, b, 1)`` on."""
    own = 1 - CURVATURE * state**2
    coupled = graph.aggregate_in_edges(edges, weights, own)
    return jnp.clip((1 - COUPLING) * own + COUPLING * coupled + MAP_NOISE * noise, -1, 1)


def _spring_step(
    edges: graph.InEdges, weights: jax.Array, state: jax.Array, noise: jax.Array
) -> jax.Array:
    """Move masses ``(n, b, 2)`` on: they are tied to their senders, and to their own place."""
    place, speed = state[..., :1], state[..., 1:]
    pulled = STIFFNESS * (graph.aggregate_in_edges(edges, weights, place) - place)
    speed = speed + TIME * (pulled - place - DAMPING * speed) + KICK * noise[..., 1:]
    return jnp.concatenate([place + TIME * speed, speed], axis=-1)


_STEPS = {"maps": _map_step, "springs": _spring_step}
