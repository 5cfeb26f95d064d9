"""Learn a sparse matrix, cells and values, from random vectors and their products."""

import dataclasses
import time
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.free_values import EVERY, SETTINGS, SIZES
from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax.ops import (
    ContinuousTuples,
    SparseEntries,
    bound_means,
    bound_variances,
    hyperlayer,
    hyperlayer_hard,
    invert_means,
    relax,
    relocate,
    settle,
    sparse_multiply,
)

BATCH, TESTS, EXACT = 64, 10_000, 1e-6
SAMPLING: dict[str, Any] = {"num_global": 4, "num_local": 4, "region": (4, 4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How it is learned."""

    size: int = 64
    """Rows and columns."""

    tuples_per_entry: int = 1
    sample_probability: float = 1.0
    steps: int = 3_000
    learning_rate: float = 0.005
    """Of means and spreads; values learn twice as fast."""

    rounded_from: float = 1.0
    """Share of the steps from which on all passes are rounded ones: only values learn."""

    relocate_every: int = 0
    """Steps between moves of surplus tuples, and of those that carry little; 0 for never."""

    little: float = 0.0
    """Sizes of values below that are little."""

    lost: float = 0.25
    """Variance, in units of the size, from which on a tuple is lost."""

    relocation_points: int = 4
    """Points per tuple drawn from all cells when tuples move."""

    moved_spread: float = 0.0
    """Raw spread of a tuple that was moved."""


class State(NamedTuple):
    """What training changes."""

    raw: dict[str, jax.Array]
    moments: optax.OptState
    count: jax.Array


def draw_matrix(kind: str, size: int, seed: int) -> SparseEntries:
    """Draw what is to be learned: values of sizes from 0.5 to 1.5, with both signs."""
    rng = np.random.default_rng(seed)
    if kind == "permutation":
        cells = np.stack([np.arange(size), rng.permutation(size)], axis=1)
    else:
        flat = rng.choice(size**2, 2 * size, replace=False)
        cells = np.stack(np.divmod(flat, size), axis=1)
    values = rng.uniform(0.5, 1.5, len(cells)) * rng.choice([-1, 1], len(cells))
    return SparseEntries(jnp.asarray(cells, jnp.int32), jnp.asarray(values, jnp.float32))


def tuples_of(raw: dict[str, jax.Array], size: int) -> ContinuousTuples:
    """Bound raw parameters."""
    shape = (size, size)
    variances = bound_variances(raw["spreads"], shape)
    return ContinuousTuples(bound_means(raw["means"], shape), variances, raw["values"])


def start(training: Training, optimizer: Any, matrix: SparseEntries, seed: int) -> State:
    """Draw all parameters from a standard normal, as the layers do."""
    count = training.tuples_per_entry * len(matrix.values)
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"means": (count, 2), "spreads": (count,), "values": (count,)}
    raw = {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return State(raw, optimizer.init(raw), jnp.zeros((), jnp.int32))


def optimizer_of(training: Training) -> optax.GradientTransformation:
    """Give Adam with a faster rate for values."""
    faster = optax.stateless(lambda updates, _: updates | {"values": 2 * updates["values"]})
    return optax.chain(optax.adam(training.learning_rate), faster)


def move_surplus(
    training: Training, key: jax.Array, state: State, x: jax.Array, target: jax.Array
) -> State:
    """Move up to one tuple in sixteen to sampled cells where weight of any sign gains most."""
    shape, tuples = (training.size, training.size), tuples_of(state.raw, training.size)
    entries = relax(key, tuples, shape, **SAMPLING | {"num_global": training.relocation_points})

    def loss(values: jax.Array) -> jax.Array:
        y = sparse_multiply(entries.indices, values, x, shape[:1])
        return jnp.mean(jnp.square(y - target))

    gains = jnp.abs(jax.grad(loss)(entries.values))
    # On a wrong cell a value comes to 0, so its gradient tells nothing.
    narrow = jnp.all(tuples.variances < 0.15, axis=1)
    chosen, cells, moved = relocate(
        tuples,
        entries,
        gains,
        shape,
        limit=max(1, len(tuples.values) // 16),
        leaving=jnp.where(narrow, training.little - jnp.abs(tuples.values), 0),
        lost=training.lost,
    )

    def write(leaf: jax.Array, new: jax.Array | float) -> jax.Array:
        keep = moved.reshape(-1, *(1,) * (leaf.ndim - 1))
        return leaf.at[chosen].set(jnp.where(keep, new, leaf[chosen]), unique_indices=True)

    fresh = {"means": invert_means(cells, shape), "spreads": training.moved_spread, "values": 0.0}
    moments = jax.tree.map(lambda leaf: write(leaf, 0.0) if leaf.ndim else leaf, state.moments)
    raw = {name: write(leaf, fresh[name]) for name, leaf in state.raw.items()}
    return State(raw, moments, state.count)


@cache
def compiled(training: Training) -> Any:
    """Compile ``EVERY`` steps, once for all seeds."""
    optimizer, size = optimizer_of(training), training.size

    def step(state: State, key: jax.Array, matrix: SparseEntries) -> State:
        input_key, sample_key, move_key = jax.random.split(key, 3)
        late = state.count >= training.rounded_from * training.steps
        probability = jnp.where(late, 0.0, training.sample_probability)
        x = jax.random.normal(input_key, (size, BATCH))
        target = sparse_multiply(matrix.indices, matrix.values, x, (size,))

        def loss(raw: dict[str, jax.Array]) -> jax.Array:
            options = SAMPLING | {"sample_probability": probability}
            y = hyperlayer(sample_key, tuples_of(raw, size), x, (size,), **options)
            return jnp.mean(jnp.square(y - target))

        updates, moments = optimizer.update(jax.grad(loss)(state.raw), state.moments, state.raw)
        state = State(optax.apply_updates(state.raw, updates), moments, state.count + 1)
        if not training.relocate_every:
            return state
        due = (state.count % training.relocate_every == 0) & ~late
        move = partial(move_surplus, training, move_key, state, x, target)
        return jax.lax.cond(due, move, lambda: state)

    def advance(state: State, key: jax.Array, matrix: SparseEntries) -> State:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, state.count + jnp.arange(EVERY))
        return jax.lax.scan(lambda state, key: (step(state, key, matrix), None), state, keys)[0]

    return jax.jit(advance), optimizer


@partial(jax.jit, static_argnames="size")
def evaluate(
    raw: dict[str, jax.Array], matrix: SparseEntries, key: jax.Array, *, size: int
) -> dict[str, jax.Array]:
    """Compare the rounded matrix with the true one, on fresh vectors and cell by cell."""
    tuples, shape = tuples_of(raw, size), (size, size)
    x = jax.random.normal(key, (size, TESTS))
    y = hyperlayer_hard(tuples, x, (size,))
    target = sparse_multiply(matrix.indices, matrix.values, x, (size,))
    dense = [
        jnp.zeros(shape).at[tuple(entries.indices.T)].add(entries.values)
        for entries in (settle(tuples, shape), matrix)
    ]
    found = (jnp.abs(dense[0] - dense[1]) < 0.01) & (dense[1] != 0)
    return {"mse": jnp.mean(jnp.square(y - target)), "cells_found": jnp.sum(found)}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once; give the curve and the final figures."""
    training = Training(size=SIZES[facts["matrix"]], **SETTINGS[facts["setting"]])
    if asked.tiny:
        training = dataclasses.replace(training, steps=2 * EVERY)
    return train(training, facts["matrix"], facts["seed"])


def train(training: Training, kind: str, seed: int) -> Line:
    """See :func:`measure`."""
    (advance, optimizer), matrix = compiled(training), draw_matrix(kind, training.size, seed)
    state, seconds = start(training, optimizer, matrix, seed), []
    key = jax.random.fold_in(jax.random.key(seed), 1)
    # An argument: with a key that it knows, XLA draws the vectors while it compiles, slowly.
    test_key = jax.random.key(2**31 - 1)
    judge = partial(evaluate, matrix=matrix, key=test_key, size=training.size)
    figures = [jax.device_get(judge(state.raw))]
    for _ in range(0, training.steps, EVERY):
        begun = time.perf_counter()
        state = jax.block_until_ready(advance(state, key, matrix))
        seconds.append(time.perf_counter() - begun)
        figures.append(jax.device_get(judge(state.raw)))
    errors = [float(figure["mse"]) for figure in figures]
    inexact = [number for number, error in enumerate(errors) if error >= EXACT]
    exact_from = EVERY * (max(inexact, default=-1) + 1)
    return {
        "tuples": len(state.raw["values"]),
        "entries": len(matrix.values),
        "steps": training.steps,
        "test_mse": errors[-1],
        "test_cells_found": int(figures[-1]["cells_found"]),
        "exact_from_step": exact_from if exact_from <= training.steps else None,
        "milliseconds_per_step": round(1e3 * float(np.median(seconds[1:])) / EVERY, 4),
        "curve": {"every": EVERY, "mse": [float(f"{error:.4g}") for error in errors]},
    }
