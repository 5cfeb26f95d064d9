"""Recall at hidden lags, by attention at lags and by dense attention with a bias per distance."""

import time
from collections.abc import Callable
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

LARGEST_BYTES = 4 * 2**30
"""Memory of what is trained at all."""

ENOUGH = 0.94
"""Accuracy by which the time is taken."""

RATE, BIAS_RATE = 0.01, 0.1
"""Of Adam; that of biases moves each of them by about so much in a step."""

PROBED = {"pursuit": 4, "pursuit, one sequence a probe": 1}
"""Sequences that a probe looks at."""

Params = dict[str, jax.Array]


def measure(facts: Facts, asked: Asked) -> Line:
    """Train one method on sequences of one length; judge it on others.

    Args:
        facts: ``length``, ``method``, ``seed``, ``steps``; and ``seconds``, after which training
            ends.
        asked: not used.
    """
    length, method, seed = facts["length"], facts["method"], facts["seed"]
    hidden = draw_lags(seed, length)
    draw = jax.vmap(partial(make_recall, lags=jnp.asarray(hidden), length=length))
    dense = method.startswith("dense")
    taps, near = start(method, hidden, seed, length)
    attend = attend_densely if dense else partial(attend_at_lags, near=near)
    params = parameters(jax.random.key(seed), length if dense else 0)
    optimizer = make_optimizer(params)
    state, key = (params, optimizer.init(params)), jax.random.key(seed + 1000)

    train, _ = compiled(partial(run, attend, draw, optimizer), state, key, taps)
    line: Line = {"temporary_bytes": temporary_bytes(train)}
    if line["temporary_bytes"] > LARGEST_BYTES:
        return line
    sequences = PROBED.get(method, 1)
    probe = partial(pursued, draw, sequences, length // 2)
    probe = compiled(probe, params, key, taps)[0] if method in PROBED else None

    training = probing = 0.0
    steps, reached = 0, {}
    while steps < facts["steps"] and training + probing < facts.get("seconds", np.inf):
        of_steps, of_probe = jax.random.split(jax.random.fold_in(key, steps))
        if probe and steps % EVERY == 0 and not bool(taps.placed.all()):
            taps, seconds = timed(probe, state[0], of_probe, taps)
            probing += seconds
        (state, share), seconds = timed(train, state, of_steps, taps)
        training, steps = training + seconds, steps + CHUNK
        if share >= ENOUGH and not reached:
            reached = {"steps_to": steps, "seconds_to": round(training + probing, 3)}
    found = places(state[0], taps)
    sequences = draw(jax.random.split(jax.random.key(seed + 2000), max(2, 2**14 // length)))
    return (
        line
        | reached
        | {
            "accuracy": accuracy(attend, state[0], taps, sequences),
            "best_possible": round(
                float(jax.jit(best_possible)(sequences, jnp.asarray(hidden))), 5
            ),
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


def start(method: str, hidden: np.ndarray, seed: int, length: int) -> tuple[LagTaps, int]:
    """Give the taps with which a method begins, and its number of nearest lags."""
    fixed = {"hidden lags given": hidden, "random lags": draw_lags(seed + 500, length)}
    if method in fixed:
        return LagTaps(jnp.asarray(fixed[method])[None], jnp.ones((1, HIDDEN), bool)), 0
    return attention.empty_lags(1, HIDDEN), HIDDEN if method == "nearest lags" else 0


def parameters(key: jax.Array, distances: int) -> Params:
    """Draw embeddings: of keys that are said or asked for, and of values that are said or told."""
    of_keys, of_values = jax.random.split(key)
    params = {
        "keys": jax.random.normal(of_keys, (KEYS, WIDTH)) / WIDTH**0.25,
        "values": jax.random.normal(of_values, (VALUES, WIDTH)) / WIDTH**0.5,
        "sharpness": jnp.ones(()),
        "confidence": jnp.ones(()),
    }
    return params | ({"bias": jnp.zeros(distances)} if distances else {})


def make_optimizer(params: Params) -> optax.GradientTransformation:
    """Give Adam, with another rate for biases."""
    labels = {name: "bias" if name == "bias" else "other" for name in params}
    return optax.partition({"bias": optax.adam(BIAS_RATE), "other": optax.adam(RATE)}, labels)


def run(
    attend: Callable[[Params, Recall, LagTaps], jax.Array],
    draw: Callable[[jax.Array], Recall],
    optimizer: optax.GradientTransformation,
    *arguments: Any,
) -> tuple[Any, jax.Array]:
    """Train for some steps: state, key and taps to the next state, and the share right by then."""
    state, key, taps = arguments

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, moments = state
        batch = draw(jax.random.split(key, BATCH))

        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            out = attend(params, batch, taps)
            return loss_of(params, out, batch), share_right(params, out, batch)

        slopes, share = jax.grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(slopes, moments, params)
        return (optax.apply_updates(params, updates), moments), share

    state, shares = jax.lax.scan(step, state, jax.random.split(key, CHUNK))
    return state, shares.mean()


def rows(params: Params, batch: Recall) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Give query, key and value ``(b, T, 1, WIDTH)``."""
    keys, values = params["keys"], params["values"]
    query = params["sharpness"] * keys[batch.asked]
    return query[:, :, None], keys[batch.keys][:, :, None], values[batch.values][:, :, None]


def attend_at_lags(params: Params, batch: Recall, taps: LagTaps, *, near: int) -> jax.Array:
    """Attend to a few lags."""
    return attention.lag_attention(*rows(params, batch), *taps, near=near)


def attend_densely(params: Params, batch: Recall, taps: LagTaps) -> jax.Array:
    """Attend to everything before, with a learned bias for every distance."""
    bias, length = params["bias"], len(params["bias"])
    # Row t has bias[t - s] in column s: a Toeplitz matrix, without an index for each pair.
    repeated = jnp.tile(jnp.concatenate([bias, jnp.zeros(length)]), length)
    rolled = repeated[: length * (2 * length - 1)].reshape(length, 2 * length - 1)
    query, key, value = rows(params, batch)
    return jax.nn.dot_product_attention(
        query, key, value, bias=rolled[:, :length].T[None, None], is_causal=True
    )


def logits_of(params: Params, out: jax.Array) -> jax.Array:
    """Tell how likely each value is the answer."""
    return params["confidence"] * out[:, :, 0] @ params["values"].T


def loss_of(params: Params, out: jax.Array, batch: Recall) -> jax.Array:
    """Give the mean cross-entropy where there is an answer."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(params, out), batch.answers)
    return jnp.sum(losses * batch.known) / jnp.sum(batch.known)


def share_right(params: Params, out: jax.Array, batch: Recall) -> jax.Array:
    """Give the share of right answers, where there is one."""
    right = jnp.argmax(logits_of(params, out), axis=-1) == batch.answers
    return jnp.sum(right & batch.known) / jnp.sum(batch.known)


def pursued(
    draw: Callable[[jax.Array], Recall], count: int, reach: int, *arguments: Any
) -> LagTaps:
    """Place one lag by the gains of new sequences: parameters, key and taps to the next taps."""
    params, key, taps = arguments
    batch = draw(jax.random.split(key, count))
    query, key, value = rows(params, batch)
    out = attention.lag_attention(query, key, value, *taps)
    slope = jax.grad(lambda out: loss_of(params, out, batch))(out)
    gains = attention.lag_attention_gains(
        query, key, value, taps.lags, slope, placed=taps.placed, reach=reach
    )
    return attention.pursue_lags(gains.sum(0), taps)


def timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Give what a program gives, and its seconds of CPU."""
    begin = time.process_time()
    found = jax.block_until_ready(program(*arguments))
    return found, time.process_time() - begin


def places(params: Params, taps: LagTaps) -> np.ndarray:
    """Give the lags that were found: those placed, or those with the largest biases."""
    if "bias" in params:
        return np.argsort(-np.asarray(params["bias"]))[:HIDDEN]
    return np.asarray(taps.lags)[np.asarray(taps.placed)]


def accuracy(
    attend: Callable[[Params, Recall, LagTaps], jax.Array],
    params: Params,
    taps: LagTaps,
    sequences: Recall,
) -> float:
    """Give the share of right answers, two sequences at a time."""

    @jax.jit
    def share(batch: Recall) -> jax.Array:
        return share_right(params, attend(params, batch, taps), batch)

    pairs = jax.tree.map(lambda leaf: leaf.reshape(-1, 2, *leaf.shape[1:]), sequences)
    shares = [share(jax.tree.map(lambda leaf, n=n: leaf[n], pairs)) for n in range(len(pairs.keys))]
    return round(float(np.mean(shares)), 5)


def best_possible(sequences: Recall, hidden: jax.Array) -> jax.Array:
    """Give the accuracy of who knows the lags, and guesses where several of them have the key."""
    times = jnp.arange(sequences.asked.shape[1])

    def vote(lag: jax.Array) -> jax.Array:
        keys, values = (jnp.roll(said, lag, axis=1) for said in (sequences.keys, sequences.values))
        there = (keys == sequences.asked) & (times >= lag)
        return there[..., None] * jax.nn.one_hot(values, VALUES)

    votes = jax.vmap(vote)(hidden).sum(0)
    shares = votes.max(-1) / jnp.maximum(votes.sum(-1), 1)
    return jnp.sum(shares * sequences.known) / jnp.sum(sequences.known)
