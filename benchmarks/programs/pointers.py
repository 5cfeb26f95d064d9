"""Addresses told by a number: pointers that a network makes, against dense attention.

Every step of a sequence holds ``BITS`` random bits, and names by one real number how far back the
bits lie that it is to repeat: ``lag / (reach - 1)`` for a lag from 0 to ``reach - 1``. Bits have
nothing to do with each other, so a wrong address is no better for being near.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, temporary_bytes
from sparse_hyper_jax import attention

BITS, PAIRS, HIDDEN, WIDTH = 8, 6, 32, 32
"""Bits of a step, Fourier pairs of a number, hidden units, and features of a dense query or key."""

CHUNK = 50
"""Steps that run as one program."""

Params = dict[str, jax.Array]

BUILT: dict[Any, Any] = {}
"""Compiled programs."""


class Batch(NamedTuple):
    """Sequences.

    Attributes:
        bits: ``(b, T, BITS)``, -1 or 1.
        lags: ``(b, T)``, how far back the answer of every step lies.
        known: ``(b, T)``, whether it lies inside of the sequence.
    """

    bits: jax.Array
    lags: jax.Array
    known: jax.Array


@dataclass(frozen=True)
class Method:
    """What is trained, and how."""

    rate: float = 0.01
    """Of Adam, in the beginning."""

    falls: bool = True
    """Whether the rate falls as the spread does, to a hundredth at the least."""

    spreads: tuple[float, float] = (32.0, 0.4)
    """Standard deviation of pointers in steps, first and last; between them it falls by the same
    factor in every step of training."""

    held: float = 0.1
    """Penalty of a pointer that leads one spread beyond the lags that there are."""

    wide: float = 0.2
    """Share of pointers, drawn anew in every step, whose spread has not fallen as far as that of
    the others, but to somewhere between: so an address that was lost is found again."""

    points: tuple[int, int] = (4, 4)
    """Global and local points."""

    global_from: str = "density"
    dense: bool = False


@dataclass(frozen=True)
class Task:
    """What is trained on how many sequences of which length."""

    method: Method
    length: int
    batch: int


METHODS = {
    "pointers": Method(),
    "pointers, none wide": Method(wide=0.0),
    "pointers, none wide, not held": Method(wide=0.0, held=0.0),
    "pointers, none wide, constant rate": Method(wide=0.0, falls=False),
    "pointers, uniform points": Method(global_from="uniform"),
    "dense, told the position": Method(dense=True),
}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train one method, or time one of its steps."""
    if facts["part"] == "cost":
        return cost(facts, asked)
    return train(facts)


def train(facts: Facts) -> Line:
    """Train one method on sequences of one length; judge it on others.

    Args:
        facts: ``length``, ``method``, ``seed``, ``batch``, ``steps``; and ``seconds``, in which
            training ends, whatever its steps.
    """
    task = Task(METHODS[facts["method"]], facts["length"], facts["batch"])
    params = parameters(jax.random.key(facts["seed"]), task.method)
    state, key = (params, optimizer().init(params)), jax.random.key(facts["seed"] + 1000)
    program = built(advance, task, state, key, jnp.zeros(2))
    judged = built(judge, task, params, key)
    limit, of_judge = facts.get("seconds", math.inf), jax.random.key(facts["seed"] + 2000)
    seconds, steps, curve = 0.0, 0, []
    while steps < facts["steps"] and seconds < limit:
        span = jnp.array([steps, steps + CHUNK], jnp.float32) / facts["steps"]
        begin = time.process_time()
        state, loss = jax.block_until_ready(program(state, jax.random.fold_in(key, steps), span))
        seconds, steps = seconds + time.process_time() - begin, steps + CHUNK
        if steps % (10 * CHUNK) == 0:
            exact, _ = judged(state[0], of_judge)
            curve.append([steps, round(float(loss), 4), round(float(exact), 4)])
    keys = jax.random.split(of_judge, 8)
    exact, near = np.mean([judged(state[0], key) for key in keys], axis=0)
    return {
        "exact": round(float(exact), 5),
        "within_2": round(float(near), 5),
        "steps_done": steps,
        "training_seconds": round(seconds, 3),
        "curve": curve,
    }


def cost(facts: Facts, asked: Asked) -> Line:
    """Time a step of training for each query."""
    task = Task(METHODS[facts["method"]], facts["length"], facts["batch"])
    params = parameters(jax.random.key(0), task.method)
    state, key, span = (params, optimizer().init(params)), jax.random.key(1), jnp.full(2, 0.5)
    program, _ = compiled(partial(advance, task, count=1), state, key, span)
    times = []
    while len(times) < asked.repeats + 2:
        begin = time.process_time()
        jax.block_until_ready(program(state, key, span))
        times.append(time.process_time() - begin)
    queries = task.batch * task.length
    return {
        "microseconds_per_query": round(1e6 * float(np.median(times[2:])) / queries, 4),
        "temporary_bytes_per_query": round(temporary_bytes(program) / queries, 1),
    }


def built(function: Callable[..., Any], task: Task, *arguments: Any) -> Any:
    """Compile a program, once for all seeds."""
    name = function, task
    if name not in BUILT:
        BUILT[name] = compiled(partial(function, task), *arguments)[0]
    return BUILT[name]


def optimizer() -> optax.GradientTransformation:
    """Give Adam without a rate, which comes later."""
    return optax.scale_by_adam()


def parameters(key: jax.Array, method: Method) -> Params:
    """Draw the network: from Fourier features of a number to a lag, or to a query."""
    keys, inputs = jax.random.split(key, 3), 1 + 2 * PAIRS
    outputs = WIDTH if method.dense else 1

    def draw(key: jax.Array, *size: int) -> jax.Array:
        return jax.random.normal(key, size) / math.sqrt(size[0])

    network = {
        "first": draw(keys[0], inputs, HIDDEN),
        "first_bias": jnp.zeros(HIDDEN),
        "last": draw(keys[1], HIDDEN, outputs),
        "last_bias": jnp.zeros(outputs),
        "confidence": jnp.ones(()),
    }
    return network | ({"keys": draw(keys[2], inputs, WIDTH)} if method.dense else {})


def fourier(numbers: jax.Array) -> jax.Array:
    """Give features ``(..., 1 + 2 * PAIRS)`` of numbers from 0 to 1."""
    angles = numbers[..., None] * jnp.pi * 2.0 ** jnp.arange(PAIRS)
    return jnp.concatenate([numbers[..., None], jnp.sin(angles), jnp.cos(angles)], axis=-1)


def network(params: Params, features: jax.Array) -> jax.Array:
    """Apply two layers."""
    hidden = jax.nn.relu(features @ params["first"] + params["first_bias"])
    return hidden @ params["last"] + params["last_bias"]


def draw_batch(key: jax.Array, task: Task) -> Batch:
    """Draw sequences: lags below half of the length."""
    length, batch = task.length, task.batch
    of_bits, of_lags = jax.random.split(key)
    bits = jax.random.rademacher(of_bits, (batch, length, BITS), jnp.float32)
    lags = jax.random.randint(of_lags, (batch, length), 0, length // 2)
    return Batch(bits, lags, lags <= jnp.arange(length)[None])


def pointed(params: Params, batch: Batch) -> jax.Array:
    """Give the positions ``(b, T)`` to which pointers point."""
    length = batch.lags.shape[1]
    numbers = batch.lags / (length // 2 - 1)
    back = (length // 2 - 1) * (0.5 + network(params, fourier(numbers))[..., 0])
    return jnp.arange(length)[None] - back


def outside(params: Params, batch: Batch, spread: jax.Array) -> jax.Array:
    """Tell how far pointers lead beyond what they may, in spreads, squared, in the mean.

    A Gaussian that an end cuts off gets sharper beyond that end: without this nothing holds it.
    """
    length = batch.lags.shape[1]
    back = jnp.arange(length)[None] - pointed(params, batch)
    return jnp.mean(((back - jnp.clip(back, 0, length // 2 - 1)) / spread) ** 2)


def dense_scores(params: Params, batch: Batch) -> jax.Array:
    """Give the scores of all pairs ``(b, T, T)``: queries know the position of their answer."""
    length = batch.lags.shape[1]
    times = jnp.arange(length)
    wanted = network(params, fourier((times[None] - batch.lags) / length))
    keys = fourier(times / length) @ params["keys"]
    scores = wanted @ keys.T
    return jnp.where(times[:, None] >= times[None], scores, -jnp.inf)


def attend(
    method: Method, params: Params, batch: Batch, key: jax.Array, spread: jax.Array
) -> jax.Array:
    """Read bits ``(b, T, BITS)``."""
    if method.dense:
        return jax.nn.softmax(dense_scores(params, batch), axis=-1) @ batch.bits
    means = pointed(params, batch)[..., None, None]
    nothing = jnp.zeros((batch.bits.shape[1], 1, 1))
    num_global, num_local = method.points

    def one(key: jax.Array, bits: jax.Array, means: jax.Array) -> jax.Array:
        of_points, of_width, of_share = jax.random.split(key, 3)
        size, wide = means.shape, method.wide
        back = jax.random.uniform(of_share, size) * jax.random.bernoulli(of_width, wide, size)
        return attention.pointer_attention(
            of_points,
            nothing,
            nothing,
            bits[:, None],
            means,
            variances=(spread * (method.spreads[0] / spread) ** back) ** 2,
            num_global=num_global,
            num_local=num_local,
            global_from=method.global_from,  # type: ignore[arg-type]
        )[:, 0]

    return jax.vmap(one)(jax.random.split(key, len(means)), batch.bits, means)


def loss_of(params: Params, out: jax.Array, batch: Batch) -> jax.Array:
    """Give the mean cross-entropy of a bit, in nats, where there is an answer."""
    places = jnp.maximum(jnp.arange(out.shape[1])[None] - batch.lags, 0)
    answers = jnp.take_along_axis(batch.bits, places[..., None], axis=1)
    losses = jax.nn.softplus(-4 * params["confidence"] * out * answers).mean(-1)
    return jnp.sum(losses * batch.known) / jnp.sum(batch.known)


def advance(
    task: Task, state: Any, key: jax.Array, span: jax.Array, *, count: int = CHUNK
) -> tuple[Any, jax.Array]:
    """Train for some steps, from one share of all steps to another."""
    method = task.method
    first, last = method.spreads

    def step(state: Any, now: Any) -> tuple[Any, jax.Array]:
        (params, moments), (key, share) = state, now
        of_batch, of_points = jax.random.split(key)
        drawn = draw_batch(of_batch, task)
        spread = first * (last / first) ** share

        def loss(params: Params) -> jax.Array:
            out = attend(method, params, drawn, of_points, spread)
            held = 0 if method.dense else method.held * outside(params, drawn, spread)
            return loss_of(params, out, drawn) + held

        value, slopes = jax.value_and_grad(loss)(params)
        updates, moments = optimizer().update(slopes, moments, params)
        rate = -method.rate * (jnp.maximum(spread / first, 0.01) if method.falls else 1)
        params = jax.tree.map(lambda leaf, update: leaf + rate * update, params, updates)
        return (params, moments), value

    shares = span[0] + (span[1] - span[0]) * jnp.arange(count) / count
    state, losses = jax.lax.scan(step, state, (jax.random.split(key, count), shares))
    return state, losses.mean()


def judge(task: Task, params: Params, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the shares of exact addresses, and of those at most two steps off, where known."""
    drawn = draw_batch(key, task)
    times = jnp.arange(task.length)[None]
    if task.method.dense:
        found = jnp.argmax(dense_scores(params, drawn), axis=-1)
    else:
        found = jnp.clip(jnp.round(pointed(params, drawn)), 0, times)
    off = jnp.abs(found - (times - drawn.lags))
    known = drawn.known / drawn.known.sum()
    return jnp.sum((off < 0.5) * known), jnp.sum((off < 2.5) * known)
