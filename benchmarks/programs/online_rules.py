"""A stream of bits, one at a time: what gradients without a way back learn of it.

Every step shows a bit and asks for the one of ``delay`` steps before. Parameters change in every
step, by the gradient of that step's loss alone. The readout is linear and learned along with its
own exact gradient, so that only the gradient of the cell differs between the rules.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax import recurrent

RULES = {"RTRL": recurrent.rtrl, "SnAp-1": recurrent.snap1, "UORO": recurrent.uoro}
BATCH_OF_STEPS = 1_000


def gru(params: Any, h: jax.Array, x: jax.Array) -> jax.Array:
    """Step a GRU: every unit sees all others."""
    update, reset, new = jnp.split(params["input"].T @ x + params["bias"], 3)
    from_update, from_reset, from_new = jnp.split(params["state"].T @ h, 3)
    update, reset = jax.nn.sigmoid(update + from_update), jax.nn.sigmoid(reset + from_reset)
    return update * h + (1 - update) * jnp.tanh(new + reset * from_new)


def diagonal(params: Any, h: jax.Array, x: jax.Array) -> jax.Array:
    """Step units that see the input and themselves."""
    return jax.nn.sigmoid(params["decay"]) * h + jnp.tanh(params["input"].T @ x + params["bias"])


CELLS = {"GRU": gru, "diagonal": diagonal}


def start(key: jax.Array, cell: str, width: int) -> Any:
    """Draw the parameters of a cell, and a readout of zeros."""
    one, two = jax.random.split(key)
    gates = 3 if cell == "GRU" else 1
    inner = {
        "input": jax.random.normal(one, (2, gates * width)),
        "bias": jnp.zeros(gates * width),
    }
    if cell == "GRU":
        inner["state"] = jax.random.normal(two, (width, gates * width)) / width**0.5
    else:
        inner["decay"] = jnp.linspace(-2.0, 2.0, width)
    return {"cell": inner, "readout": jnp.zeros(width), "offset": jnp.zeros(())}


def entropy(readout: Any, h: jax.Array, bit: jax.Array) -> jax.Array:
    """Give the bits by which an answer is missed."""
    return optax.sigmoid_binary_cross_entropy(readout[0] @ h + readout[1], bit) / jnp.log(2.0)


class Stream(NamedTuple):
    """Where a run stands."""

    params: Any
    moments: Any
    trace: Any
    h: jax.Array
    past: jax.Array
    """Bits of the last steps, the newest last."""

    old: jax.Array
    """States before each of these, the newest last: where a way back of some steps starts."""


def shown(bit: jax.Array) -> jax.Array:
    """Code a bit as two numbers."""
    return jnp.stack([bit, 1.0 - bit])


def make_step(facts: Facts, optimizer: optax.GradientTransformation) -> Any:
    """Make the step of a rule: ``(stream, (bit, key)) -> (stream, loss)``."""
    cell, delay, rule = CELLS[facts["cell"]], facts["delay"], facts["rule"]
    elementwise = {"elementwise": True} if facts["cell"] == "diagonal" and rule == "SnAp-1" else {}

    def step(stream: Stream, drawn: tuple[jax.Array, jax.Array]) -> tuple[Stream, jax.Array]:
        bit, key = drawn
        params, past = stream.params, jnp.append(stream.past[1:], bit)
        asked = past[-1 - delay]
        readout = params["readout"], params["offset"]
        if rule in RULES:
            online = RULES[rule](cell, **elementwise)
            h, loss, slope, trace = online.step(
                stream.trace,
                params["cell"],
                stream.h,
                shown(bit),
                lambda h: entropy(readout, h, asked),
                key=key,
            )
        else:
            steps = int(rule.split()[1])

            def through(inner: Any) -> tuple[jax.Array, jax.Array]:
                h = stream.old[-steps]
                for back in range(steps, 0, -1):
                    h = cell(inner, h, shown(past[-back]))
                return entropy(readout, h, asked), h

            (loss, h), slope = jax.value_and_grad(through, has_aux=True)(params["cell"])
            # The state itself goes on with the parameters it was made with, as with the others.
            h, trace = cell(params["cell"], stream.h, shown(bit)), stream.trace
        outer = jax.grad(entropy)(readout, h, asked)
        gradient = {"cell": slope, "readout": outer[0], "offset": outer[1]}
        updates, moments = optimizer.update(gradient, stream.moments, params)
        old = jnp.concatenate([stream.old[1:], h[None]])
        params = optax.apply_updates(params, updates)
        return Stream(params, moments, trace, h, past, old), loss

    return step


def measure(facts: Facts, asked: Asked) -> Line:
    """Learn from one stream; judge by the loss of its last tenth, before each update."""
    steps, width = (200 if asked.tiny else facts["steps"]), facts["width"]
    optimizer = optax.adam(facts["rate"])
    key, bit_key, draw_key = jax.random.split(jax.random.key(facts["seed"]), 3)
    params, h = start(key, facts["cell"], width), jnp.zeros(width)
    online = RULES.get(facts["rule"], recurrent.rtrl)(CELLS[facts["cell"]])
    trace = online.init(params["cell"], h) if facts["rule"] in RULES else ()
    kept = 1 + max(facts["delay"], facts["longest"])
    stream = Stream(
        params, optimizer.init(params), trace, h, jnp.zeros(kept), jnp.zeros((kept, width))
    )
    bits = jax.random.bernoulli(bit_key, shape=(steps,)).astype(jnp.float32)
    step = make_step(facts, optimizer)
    run = jax.jit(lambda stream, bits, keys: jax.lax.scan(step, stream, (bits, keys)))
    losses, keys = [], jax.random.split(draw_key, steps)
    size = min(BATCH_OF_STEPS, steps)
    run = run.lower(stream, bits[:size], keys[:size]).compile()
    began = time.process_time()
    for first in range(0, steps, size):
        stream, loss = run(stream, bits[first : first + size], keys[first : first + size])
        losses.append(loss)
    seconds = time.process_time() - began
    losses = jnp.concatenate(losses)
    held = sum(leaf.size for leaf in jax.tree.leaves(trace))
    held = held or width * int(facts["rule"].split()[1])
    return {
        "loss": float(jnp.mean(losses[-(steps // 10) :])),
        "numbers": int(held),
        "microseconds": 1e6 * seconds / steps,
        "curve": [round(float(part), 4) for part in losses.reshape(20, -1).mean(axis=1)],
    }
