"""Recall at hidden lags, by attention at lags and by dense attention with a bias per distance."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, temporary_bytes
from sparse_hyper_jax import attention
from sparse_hyper_jax.attention import LagTaps
from sparse_hyper_jax.train.data import Recall, make_recall

KEYS, VALUES, WIDTH, HIDDEN, BATCH = 32, 8, 32, 4, 2
CHUNK, EVERY = 5, 25
"""Steps that run as one program, and from one probe to the next."""

RATE, BIAS_RATE = 0.01, 0.1
"""Of Adam; that of biases moves each of them by about so much in a step."""

LARGEST_BYTES = 4 * 2**30
"""Memory of what is trained at all."""

ENOUGH = 0.94
"""Accuracy by which the time is taken."""

Params = dict[str, jax.Array]

BUILT: dict[Any, Any] = {}
"""Compiled programs."""


@dataclass(frozen=True)
class Method:
    """What is trained, and how it comes by its lags."""

    lags: str = "pursued"
    """``pursued``, ``given``, ``random``, ``nearest``; ``all`` is dense, with a learned bias."""

    sequences: int = 4
    """How many a probe looks at."""

    directions: int | None = None
    """Of the cotangent, for gains of matrices; None for gains of values as they are."""

    separate: bool = False
    """Whether what is asked for and what is told has embeddings of its own."""


METHODS = {
    "pursuit": Method(),
    "pursuit, one sequence a probe": Method(sequences=1),
    "hidden lags given": Method("given"),
    "random lags": Method("random"),
    "nearest lags": Method("nearest"),
    "dense, learned bias": Method("all"),
    "dense, learned bias, same seconds": Method("all"),
    "separate embeddings: pursuit": Method(separate=True),
    "separate embeddings: pursuit by matrices": Method(directions=8, separate=True),
}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train one method on sequences of one length; judge it on others.

    Args:
        facts: ``length``, ``method``, ``seed``, ``steps``; and ``seconds``, after which training
            ends.
        asked: not used.
    """
    length, seed, method = facts["length"], facts["seed"], METHODS[facts["method"]]
    hidden = draw_lags(seed, length)
    taps = start(method, hidden, seed, length)
    params = parameters(jax.random.key(seed), method, length)
    state, key = (params, make_optimizer(params).init(params)), jax.random.key(seed + 1000)
    trained = built(train, (length,), state, key, hidden, taps)
    line: Line = {"temporary_bytes": temporary_bytes(trained)}
    if line["temporary_bytes"] > LARGEST_BYTES:
        return line
    probed = None
    if method.lags == "pursued":
        options = length, method.sequences, method.directions
        probed = built(probe, options, params, key, hidden, taps)

    training = probing = 0.0
    steps, reached = 0, {}
    while steps < facts["steps"] and training + probing < facts.get("seconds", np.inf):
        of_steps, of_probe = jax.random.split(jax.random.fold_in(key, steps))
        if probed and steps % EVERY == 0 and not bool(taps.placed.all()):
            taps, seconds = timed(probed, state[0], of_probe, hidden, taps)
            probing += seconds
        (state, share), seconds = timed(trained, state, of_steps, hidden, taps)
        training, steps = training + seconds, steps + CHUNK
        if share >= ENOUGH and not reached:
            reached = {"steps_to": steps, "seconds_to": round(training + probing, 3)}
    keys = jax.random.split(jax.random.key(seed + 2000), max(1, 2**14 // length // BATCH))
    judged = built(judge, (length,), state[0], key, hidden, taps)
    accuracy, best = np.mean([judged(state[0], own, hidden, taps) for own in keys], axis=0)
    found = places(state[0], taps)
    return (
        line
        | reached
        | {
            "accuracy": round(float(accuracy), 5),
            "best_possible": round(float(best), 5),
            "found": int(np.isin(hidden, found).sum()),
            "lags": sorted(map(int, found)),
            "hidden": sorted(map(int, hidden)),
            "steps_done": steps,
            "training_seconds": round(training, 3),
            "probing_seconds": round(probing, 3),
        }
    )


def draw_lags(seed: int, length: int) -> np.ndarray:
    """Draw different lags below half of the length."""
    lags = np.arange(1, length // 2)
    return np.random.default_rng(seed).choice(lags, HIDDEN, replace=False).astype(np.int32)


def start(method: Method, hidden: np.ndarray, seed: int, length: int) -> LagTaps:
    """Give the taps with which a method begins."""
    fixed = {
        "given": hidden,
        "random": draw_lags(seed + 500, length),
        "nearest": np.arange(HIDDEN, dtype=np.int32),
    }
    if method.lags in fixed:
        return LagTaps(jnp.asarray(fixed[method.lags])[None], jnp.ones((1, HIDDEN), bool))
    return attention.empty_lags(1, HIDDEN)


def parameters(key: jax.Array, method: Method, length: int) -> Params:
    """Draw embeddings: of keys that are said and asked for, of values that are said and told."""
    tables = {"keys": (KEYS, 0.25), "values": (VALUES, 0.5)}
    if method.separate:
        tables |= {"asked": (KEYS, 0.25), "told": (VALUES, 0.5)}
    drawn = {
        name: jax.random.normal(own, (count, WIDTH)) / WIDTH**power
        for own, (name, (count, power)) in zip(
            jax.random.split(key, len(tables)), tables.items(), strict=True
        )
    }
    drawn |= {"sharpness": jnp.ones(()), "confidence": jnp.ones(())}
    return drawn | ({"bias": jnp.zeros(length)} if method.lags == "all" else {})


def make_optimizer(params: Params) -> optax.GradientTransformation:
    """Give Adam, with another rate for biases."""
    labels = {name: "bias" if name == "bias" else "other" for name in params}
    return optax.partition({"bias": optax.adam(BIAS_RATE), "other": optax.adam(RATE)}, labels)


def built(function: Callable[..., Any], static: tuple[Any, ...], *arguments: Any) -> Any:
    """Compile a program, once for all seeds."""
    name = function, static, jax.tree.structure(arguments)
    if name not in BUILT:
        BUILT[name] = compiled(partial(function, *static), *arguments)[0]
    return BUILT[name]


def timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Give what a program gives, and its seconds of CPU."""
    begin = time.process_time()
    found = jax.block_until_ready(program(*arguments))
    return found, time.process_time() - begin


def train(
    length: int, state: Any, key: jax.Array, hidden: jax.Array, taps: LagTaps
) -> tuple[Any, jax.Array]:
    """Train for some steps; give the next state, and the share of right answers meanwhile."""
    optimizer = make_optimizer(state[0])

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, moments = state
        batch = draw(key, BATCH, hidden, length)

        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            out = attend(params, batch, taps)
            return loss_of(params, out, batch), share_right(params, out, batch)

        slopes, share = jax.grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(slopes, moments, params)
        return (optax.apply_updates(params, updates), moments), share

    state, shares = jax.lax.scan(step, state, jax.random.split(key, CHUNK))
    return state, shares.mean()


def probe(
    length: int,
    sequences: int,
    directions: int | None,
    *arguments: Any,
) -> LagTaps:
    """Place one lag by the gains of new sequences: parameters, key, hidden lags, taps to taps."""
    params, key, hidden, taps = arguments
    batch = draw(key, sequences, hidden, length)
    query, key, value = rows(params, batch)
    out = attention.lag_attention(query, key, value, *taps)
    slope = jax.grad(lambda out: loss_of(params, out, batch))(out)
    return attention.probe_attention(
        query, key, value, slope, taps, reach=length // 2, directions=directions
    )


def judge(
    length: int, params: Params, key: jax.Array, hidden: jax.Array, taps: LagTaps
) -> tuple[jax.Array, jax.Array]:
    """Give the accuracy on new sequences, and the best one that is possible there."""
    batch = draw(key, BATCH, hidden, length)
    return share_right(params, attend(params, batch, taps), batch), best_possible(batch, hidden)


def draw(key: jax.Array, count: int, hidden: jax.Array, length: int) -> Recall:
    """Draw new sequences."""
    keys = jax.random.split(key, count)
    return jax.vmap(lambda key: make_recall(key, hidden, length=length))(keys)


def attend(params: Params, batch: Recall, taps: LagTaps) -> jax.Array:
    """Attend to a few lags, or to everything before with a learned bias for every distance."""
    query, key, value = rows(params, batch)
    if "bias" not in params:
        return attention.lag_attention(query, key, value, *taps)
    bias, length = params["bias"], len(params["bias"])
    # Row t has bias[t - s] in column s: a Toeplitz matrix, without an index for each pair.
    repeated = jnp.tile(jnp.concatenate([bias, jnp.zeros(length)]), length)
    rolled = repeated[: length * (2 * length - 1)].reshape(length, 2 * length - 1)
    return jax.nn.dot_product_attention(
        query, key, value, bias=rolled[:, :length].T[None, None], is_causal=True
    )


def rows(params: Params, batch: Recall) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Give query, key and value ``(b, T, 1, WIDTH)``."""
    query = params["sharpness"] * params.get("asked", params["keys"])[batch.asked]
    key, value = params["keys"][batch.keys], params["values"][batch.values]
    return query[:, :, None], key[:, :, None], value[:, :, None]


def logits_of(params: Params, out: jax.Array) -> jax.Array:
    """Tell how likely each value is the answer."""
    return params["confidence"] * out[:, :, 0] @ params.get("told", params["values"]).T


def loss_of(params: Params, out: jax.Array, batch: Recall) -> jax.Array:
    """Give the mean cross-entropy where there is an answer."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(params, out), batch.answers)
    return jnp.sum(losses * batch.known) / jnp.sum(batch.known)


def share_right(params: Params, out: jax.Array, batch: Recall) -> jax.Array:
    """Give the share of right answers, where there is one."""
    right = jnp.argmax(logits_of(params, out), axis=-1) == batch.answers
    return jnp.sum(right & batch.known) / jnp.sum(batch.known)


def best_possible(batch: Recall, hidden: jax.Array) -> jax.Array:
    """Give the accuracy of who knows the lags, and guesses where several of them have the key."""
    times = jnp.arange(batch.asked.shape[1])

    def vote(lag: jax.Array) -> jax.Array:
        keys, values = (jnp.roll(said, lag, axis=1) for said in (batch.keys, batch.values))
        there = (keys == batch.asked) & (times >= lag)
        return there[..., None] * jax.nn.one_hot(values, VALUES)

    votes = jax.vmap(vote)(hidden).sum(0)
    shares = votes.max(-1) / jnp.maximum(votes.sum(-1), 1)
    return jnp.sum(shares * batch.known) / jnp.sum(batch.known)


def places(params: Params, taps: LagTaps) -> np.ndarray:
    """Give the lags that were found: those placed, or those with the largest biases."""
    if "bias" in params:
        return np.argsort(-np.asarray(params["bias"]))[:HIDDEN]
    return np.asarray(taps.lags)[np.asarray(taps.placed)]
