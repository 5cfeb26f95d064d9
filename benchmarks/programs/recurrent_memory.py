"""Value and gradient of a recurrence by several scans: memory and time."""

import importlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax.recurrent import checkpointed_scan

ROWS, UNITS = 64, 64
Scan = Callable[..., tuple[Any, Any]]


def gru(params: dict[str, jax.Array], h: jax.Array, x: jax.Array) -> jax.Array:
    """Read one step, ``(rows, units)``."""
    read, wrote = x @ params["input"], h @ params["state"]
    reset, update = (
        jax.nn.sigmoid(read[:, part] + wrote[:, part])
        for part in (slice(0, UNITS), slice(UNITS, 2 * UNITS))
    )
    candidate = jnp.tanh(read[:, 2 * UNITS :] + reset * wrote[:, 2 * UNITS :])
    return (1 - update) * candidate + update * h


def scans(length: int) -> dict[str, Scan]:
    """Name all scans that are installed."""

    def body(f: Any, init: Any, xs: Any) -> tuple[Any, Any]:
        return jax.lax.scan(jax.checkpoint(f, prevent_cse=False), init, xs)

    found: dict[str, Scan] = {
        "plain scan": jax.lax.scan,
        "checkpointed body": body,
        "checkpointed_scan": checkpointed_scan,
    }
    if find_spec("equinox"):
        scan = importlib.import_module("equinox.internal").scan
        for name, count in (("root of T", None), ("8", min(8, length))):
            found[f"Equinox, {name} checkpoints"] = partial(
                scan, kind="checkpointed", checkpoints=count
            )
    return found


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Measure all scans of one length, and check that their gradients agree."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "input": jax.random.normal(keys[0], (UNITS, 3 * UNITS)) / UNITS**0.5,
        "state": jax.random.normal(keys[1], (UNITS, 3 * UNITS)) / UNITS**0.5,
    }
    xs = jax.random.normal(keys[2], (facts["length"], ROWS, UNITS))

    def loss(scan: Scan, params: dict[str, jax.Array], xs: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = gru(params, h, x)
            return h, jnp.sum(h**2)

        return jnp.sum(scan(step, jnp.zeros((ROWS, UNITS)), xs)[1])

    programs = {
        name: compiled(jax.value_and_grad(partial(loss, scan)), params, xs)[0]
        for name, scan in scans(facts["length"]).items()
    }
    calls = {name: partial(one, params, xs) for name, one in programs.items()}
    times = interleaved(calls, repeats=asked.repeats)
    _, exact = calls["plain scan"]()
    return [
        {
            "scan": name,
            "temporary_bytes": temporary_bytes(one),
            "gradient_ms": round(times[name], 3),
            "largest_error": largest_error(calls[name]()[1], exact),
        }
        for name, one in programs.items()
    ]


def largest_error(gradient: Any, exact: Any) -> float:
    """Give the largest error of an entry, relative to the largest entry of its array."""
    errors = jax.tree.map(
        lambda one, two: jnp.max(jnp.abs(one - two)) / jnp.max(jnp.abs(two)), gradient, exact
    )
    return float(max(jax.tree.leaves(errors)))
