"""Find a hidden wiring by one method, and measure what was found, time and memory."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.programs.process_memory import resident
from benchmarks.runner import Asked
from benchmarks.timing import compiled
from sparse_hyper_jax.train.data.wiring import Pairs, Wiring, make_wiring
from sparse_hyper_jax.train.models import wired_nodes as wired
from sparse_hyper_jax.train.recipes.wiring import WiringRecipe, start_edges

EDGES, HORIZON = 4, 5
LARGE = {"steps": 1000, "batch": 10, "probe_samples": 400}
"""Options for 5,000 nodes, so that a step and a probe take little memory too."""

CHUNK = 20
PENALTIES = {"ridge": (0.1, 1.0, 10.0, 100.0), "lasso": (0.003, 0.01, 0.03, 0.1)}
"""Ridge: added to the Gram matrix of standardised features; lasso: in units of the targets."""


class Fit(NamedTuple):
    """What a linear method has fitted."""

    weights: np.ndarray
    """``(n, p, n, d)``: of what every node shows, for every number of every node."""

    predict: Callable[[np.ndarray], np.ndarray]
    """From states ``(n, b, d)`` to the next ones."""

    seconds: float


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one method on one system."""
    data = make_wiring(
        facts["task"],
        facts["seed"],
        nodes=facts["nodes"],
        edges=2 if asked.tiny else EDGES,
        samples=facts["samples"],
    )
    if facts["method"] in ("pursuit", "known", "random", "dense"):
        return _trained(facts, asked, data)
    return _linear(facts, data)


def _trained(facts: Facts, asked: Asked, data: Wiring) -> Line:
    """Train the model of nodes; a dense one for a number of seconds."""
    method, nodes = facts["method"], facts["nodes"]
    recipe = WiringRecipe(
        task=facts["task"],
        method=method,
        nodes=nodes,
        edges=data.senders.shape[1],
        samples=facts["samples"],
        seed=facts["seed"],
        **({"steps": 60} if asked.tiny else LARGE if nodes >= 5000 else {}),
    ).settle(data)
    steps = recipe.steps
    assert steps is not None
    if method == "dense":
        steps = _affordable(recipe, data, facts["seconds"])
    program, state = _program(recipe, data, steps)
    memory = program.memory_analysis()
    key = jax.random.key(facts["seed"] + 2)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from here
    before, start = resident("VmRSS"), time.process_time()
    for number in range(-(-steps // CHUNK)):
        state = program(state, jax.random.fold_in(key, number), data.train)
    jax.block_until_ready(state)
    seconds, peak, edges = time.process_time() - start, resident("VmHWM"), state.edges
    if method == "dense":
        weigh = jax.jit(wired.importance_of)
        edges = wired.strongest(weigh(*state[:1], edges, data.train), data.senders.shape[1])
    errors = jax.jit(wired.rollout_error)(state.parameters, state.edges, data.rollout)
    loss = jax.jit(wired.loss_of)(state.parameters, state.edges, data.test)
    sizes = ("temp", "argument", "output")
    return {
        "edges_found": float(wired.share_found(edges, data.senders)),
        "relative_mse": float(loss / jnp.var(data.test.after)),
        "rollout_error": float(errors[HORIZON - 1]),
        "rollout_errors": [float(f"{error:.4g}") for error in errors],
        "steps": steps,
        "seconds": round(seconds, 3),
        "program_bytes": sum(getattr(memory, f"{size}_size_in_bytes") for size in sizes),
        "temporary_bytes": memory.temp_size_in_bytes,
        "process_bytes_raised": peak - before,
        "table_bytes": 4 * nodes**2,
    }


def _program(recipe: WiringRecipe, data: Wiring, steps: int) -> tuple[Any, wired.WiredState]:
    """Compile some steps of training, and give the state before them."""
    model, features = recipe.model(), data.rollout.shape[-1]
    optimizer = optax.adam(optax.cosine_decay_schedule(recipe.learning_rate, steps))
    keys = jax.random.split(jax.random.key(recipe.seed + 1))
    parameters = wired.init_parameters(keys[0], model, features, dense=recipe.method == "dense")
    edges = start_edges(recipe.method, keys[1], model, data)
    state = wired.start_wired(parameters, optimizer, edges)
    step = wired.make_step(model, optimizer)

    def run(state: wired.WiredState, key: jax.Array, train: Pairs) -> wired.WiredState:
        keys = jax.random.split(key, CHUNK)
        return jax.lax.scan(lambda state, key: (step(state, key, train)[0], None), state, keys)[0]

    key = jax.random.key(0)
    return compiled(run, state, key, data.train, donate_argnums=0)[0], state


def _affordable(recipe: WiringRecipe, data: Wiring, seconds: float) -> int:
    """Give the number of steps that take so many CPU seconds."""
    program, state = _program(recipe, data, CHUNK)
    state = jax.block_until_ready(program(state, jax.random.key(0), data.train))
    start = time.process_time()
    jax.block_until_ready(program(state, jax.random.key(1), data.train))
    taken = time.process_time() - start
    return CHUNK * max(1, round(seconds / taken))


def _linear(facts: Facts, data: Wiring) -> Line:
    """Fit weights of all nodes at once; the strongest of each node are the edges found."""
    kind, _, more = facts["method"].partition(" ")
    powers = 2 if more.startswith("squares") else 1
    fit = _best_fit(kind, data, powers, facts.get("seconds"), refitted=more.endswith("refit"))
    true = np.asarray(data.senders)
    found = _strongest(fit.weights, true.shape[1])
    share = np.mean([np.isin(row, own).mean() for row, own in zip(true, found, strict=True)])
    now, after = _arrays(data.test)
    loss = np.mean((fit.predict(now) - after) ** 2) / after.var()
    state, rollout = np.asarray(data.rollout[0]), np.asarray(data.rollout)
    for _ in range(HORIZON):
        state = np.clip(fit.predict(state), -9, 9)
    error = np.sqrt(np.mean((state - rollout[HORIZON]) ** 2) / rollout.var())
    return {
        "edges_found": float(share),
        "relative_mse": float(loss),
        "rollout_error": float(error),
        "seconds": round(fit.seconds, 3),
        "program_bytes": fit.weights.nbytes + data.train.now.nbytes * (1 + powers),
        "table_bytes": 4 * facts["nodes"] ** 2,
    }


def _strongest(weights: np.ndarray, count: int) -> np.ndarray:
    """Give the senders ``(n, count)`` of the largest weights."""
    size = np.linalg.norm(weights, axis=(1, 3)).T  # receivers first
    np.fill_diagonal(size, -1)
    return np.argsort(-size, axis=1)[:, :count]


def _best_fit(
    kind: str, data: Wiring, powers: int, seconds: float | None, *, refitted: bool
) -> Fit:
    """Fit with several penalties, and keep the one that predicts validation best.

    If it is refitted, then again without penalty to a node and its strongest senders alone.
    """
    (now, after), (valid_now, valid_after) = _arrays(data.train), _arrays(data.validation)
    start = time.process_time()

    def show(now: np.ndarray) -> np.ndarray:
        """Give what nodes show, ``(samples, n powers)``."""
        shown = np.concatenate([now**power for power in range(1, powers + 1)], axis=-1)
        return shown.transpose(1, 0, 2).reshape(now.shape[1], -1)

    shown, targets = show(now), after.transpose(1, 0, 2)
    mean, spread = shown.mean(0), shown.std(0) + 1e-9
    x, y = (shown - mean) / spread, targets.reshape(len(targets), -1)
    middle, unit = y.mean(0), y.std()

    def follow(weights: np.ndarray, now: np.ndarray) -> np.ndarray:
        flat = (show(now) - mean) / spread @ weights + middle
        return flat.reshape(now.shape[1], now.shape[0], -1).transpose(1, 0, 2)

    best, lowest = None, np.inf
    penalties = PENALTIES[kind]
    for penalty in penalties:
        if kind == "ridge":
            weights = _ridge(x, y - middle, penalty)
        else:
            assert seconds is not None
            weights = _lasso(x, y - middle, penalty * float(unit), seconds / len(penalties))

        predict = partial(follow, weights)
        loss = np.mean((predict(valid_now) - valid_after) ** 2)
        if loss < lowest:
            nodes = len(now)
            best, lowest = (weights.reshape(nodes, -1, nodes, y.shape[1] // nodes), predict), loss
    assert best is not None
    if refitted:
        weights = _refit(x, y - middle, best[0], data.senders.shape[1])
        best = weights, partial(follow, weights.reshape(x.shape[1], -1))
    return Fit(*best, time.process_time() - start)


def _refit(x: np.ndarray, y: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Fit every node by itself and its strongest senders, by least squares."""
    nodes, powers, _, numbers = weights.shape
    shown = x.reshape(len(x), nodes, powers)
    targets, fitted = y.reshape(len(y), nodes, numbers), np.zeros_like(weights)
    for node, senders in enumerate(_strongest(weights, count)):
        read = [node, *senders]
        own, *_ = np.linalg.lstsq(shown[:, read].reshape(len(x), -1), targets[:, node], rcond=None)
        fitted[read, :, node] = own.reshape(len(read), powers, numbers)
    return fitted


def _arrays(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(pairs.now), np.asarray(pairs.after)


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Give the weights; of more features than samples by the samples' Gram matrix."""
    samples, features = x.shape
    if features <= samples:
        return np.linalg.solve(x.T @ x + penalty * np.eye(features, dtype=x.dtype), x.T @ y)
    gram = x @ x.T + penalty * np.eye(samples, dtype=x.dtype)
    return x.T @ np.linalg.solve(gram, y)


def _lasso(x: np.ndarray, y: np.ndarray, penalty: float, seconds: float) -> np.ndarray:
    """Give the weights after so many seconds of accelerated proximal gradients."""
    end = time.process_time() + seconds
    samples = len(x)
    gram, right = x.T @ x / samples, x.T @ y / samples
    rate = 1 / np.linalg.norm(gram, 2)
    weights = ahead = np.zeros_like(right)
    momentum = 1.0
    while time.process_time() < end:
        moved = ahead - rate * (gram @ ahead - right)
        after = np.sign(moved) * np.maximum(np.abs(moved) - rate * penalty, 0)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / following * (after - weights)
        weights, momentum = after, following
    return weights
