"""Time a step of a memory on grids of several sizes: what is flat in the number of cells."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import ROOT, Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, going_on, temporary_bytes
from sparse_hyper_jax import memory
from sparse_hyper_jax.ops import bound_means

ADAM, PIXELS, HEADS = optax.adam(1e-3), 784, 4

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Lets Linux keep arrays in pages of 2 MiB; the C library reads it once, when a process starts."""


def measure(facts: Facts, asked: Asked) -> Line:
    """Time all programs, in a process of its own where that decides on the pages of its memory."""
    if facts.get("pages") != "large":
        return timed(facts, asked.repeats)
    command = [sys.executable, "-m", __name__, json.dumps(facts), str(asked.repeats)]
    environment = os.environ | LARGE_PAGES
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(ended.stdout.splitlines()[-1])


def timed(facts: Facts, repeats: int) -> Line:
    """Time all programs on all sizes in turn."""
    calls, needed = {}, {}
    for size in facts["cells"]:
        for name, (call, temporary) in programs(facts, size).items():
            calls[name, size] = call
            needed.setdefault(name, {})[str(size)] = temporary
    found = in_turn(calls, repeats=repeats)
    taken = {name: {} for name in needed}
    for (name, size), milliseconds in found.items():
        taken[name][str(size)] = round(milliseconds, 4)
    return {"milliseconds": taken, "temporary_bytes": needed}


def in_turn(calls: dict[Any, Callable[[], Any]], *, repeats: int) -> dict[Any, float]:
    """Give median milliseconds of CPU time, which other processes hardly lengthen."""
    taken: dict[Any, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 2):
        for place in np.random.default_rng(number).permutation(len(calls)):
            name, call = list(calls.items())[place]
            start = time.process_time()
            jax.block_until_ready(call())
            if number >= 2:  # after two for warming up
                taken[name].append(1e3 * (time.process_time() - start))
    return {name: median(times) for name, times in taken.items()}


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

    def autoencode(state: tuple[Any, ...], images: jax.Array) -> tuple[Any, ...]:
        """Step an encoder, the memory of four heads, and a decoder."""
        networks, its, table, moments = state

        def loss(networks: Any, offsets: jax.Array) -> tuple[jax.Array, jax.Array]:
            hidden = jax.nn.relu(images @ networks["into"])
            logits = (hidden @ networks["address"]).reshape(-1, 2)
            reads = memory.grid_shares(None, bound_means(1.702 * logits, shape), shape)
            taken = table.reshape(-1, table.shape[-1])[reads.rows] + offsets
            y = jnp.sum(taken * reads.shares[..., None], axis=1).reshape(len(images), -1)
            return jnp.mean((y @ networks["out"] - images) ** 2), reads.rows

        zeros = jnp.zeros((len(images) * HEADS, 4, table.shape[-1]))
        (slopes, gradients), rows = jax.grad(loss, (0, 1), has_aux=True)(networks, zeros)
        updates, its = ADAM.update(slopes, its)
        table, moments = memory.update_rows(ADAM, rows, gradients, moments, table)
        return optax.apply_updates(networks, updates), its, table, moments

    found = {}
    for name, function in (("slopes", slopes), ("dense", dense)):
        made, _ = compiled(function, table, places)
        found[name] = partial(made, table, places), temporary_bytes(made)
    steps = {"update": update, "adam": partial(whole, ADAM), "lazy": partial(whole, lazy)}
    for name, step in steps.items():
        state = table, (ADAM if name == "adam" else lazy).init(table)
        made, _ = compiled(step, state, places, donate_argnums=0)
        found[name] = going_on(step, state, places), temporary_bytes(made)
    widths = {"into": (PIXELS, 128), "address": (128, 2 * HEADS)}
    widths["out"] = HEADS * facts["features"], PIXELS
    networks = {
        name: jnp.asarray(generator.normal(size=pair) * pair[0] ** -0.5, jnp.float32)
        for name, pair in widths.items()
    }
    state = networks, ADAM.init(networks), table, lazy.init(table)
    images = jnp.asarray(generator.normal(size=(facts["reads"] // HEADS, PIXELS)), jnp.float32)
    made, _ = compiled(autoencode, state, images, donate_argnums=0)
    found["autoencode"] = going_on(autoencode, state, images), temporary_bytes(made)
    return found


if __name__ == "__main__":
    print(json.dumps(timed(json.loads(sys.argv[1]), int(sys.argv[2]))))
