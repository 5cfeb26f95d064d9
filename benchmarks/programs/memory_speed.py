"""Time a step of a memory on grids of several sizes: what is flat in the number of cells."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, going_on, interleaved, temporary_bytes
from sparse_hyper_jax import memory

ADAM = optax.adam(1e-3)


def measure(facts: Facts, asked: Asked) -> Line:
    """Time all programs on all sizes in turn."""
    calls, needed = {}, {}
    for size in facts["cells"]:
        for name, (call, temporary) in programs(facts, size).items():
            calls[name, size] = call
            needed.setdefault(name, {})[str(size)] = temporary
    found = interleaved(calls, repeats=asked.repeats)
    taken = {name: {} for name in needed}
    for (name, size), time in found.items():
        taken[name][str(size)] = round(time, 4)
    return {"milliseconds": taken, "temporary_bytes": needed}


def programs(facts: Facts, size: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """Make the programs of one size, each with its temporary memory."""
    generator = np.random.default_rng(0)
    shape = size, size
    table = jnp.asarray(generator.normal(size=(*shape, facts["features"])), jnp.float32)
    places = jnp.asarray(generator.uniform(0, size - 1, (facts["reads"], 2)), jnp.float32)
    lazy = memory.lazy_rows(ADAM)

    def slopes(table: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Give the rows that are read, and slopes of the addresses and of these rows."""

        def loss(places: jax.Array, offsets: jax.Array) -> tuple[jax.Array, jax.Array]:
            reads = memory.grid_shares(None, places, shape)
            taken = table.reshape(-1, table.shape[-1])[reads.rows] + offsets
            y = jnp.sum(taken * reads.shares[..., None], axis=1)
            return 0.5 * jnp.sum(y**2), reads.rows

        zeros = jnp.zeros((len(places), 4, table.shape[-1]))
        found, rows = jax.grad(loss, (0, 1), has_aux=True)(places, zeros)
        return rows, *found

    def update(state: tuple[Any, Any], places: jax.Array) -> tuple[Any, Any]:
        table, moments = state
        rows, _, gradients = slopes(table, places)
        return memory.update_rows(ADAM, rows, gradients, moments, table)

    def dense(table: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.grad(lambda *its: 0.5 * jnp.sum(memory.grid_read(None, *its) ** 2), (0, 1))(
            table, places
        )

    def whole(optimizer: Any, state: tuple[Any, Any], places: jax.Array) -> tuple[Any, Any]:
        table, moments = state
        updates, moments = optimizer.update(dense(table, places)[0], moments, table)
        return optax.apply_updates(table, updates), moments

    found = {}
    for name, function in (("slopes", slopes), ("dense", dense)):
        made, _ = compiled(function, table, places)
        found[name] = partial(made, table, places), temporary_bytes(made)
    steps = {"update": update, "adam": partial(whole, ADAM), "lazy": partial(whole, lazy)}
    for name, step in steps.items():
        state = table, (ADAM if name == "adam" else lazy).init(table)
        made, _ = compiled(step, state, places, donate_argnums=0)
        found[name] = going_on(step, state, places), temporary_bytes(made)
    return found
