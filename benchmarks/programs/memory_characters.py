"""Predict the next character from two trigrams, by embeddings of different kinds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.programs.memory_image import apply, perceptron
from benchmarks.runner import Asked
from sparse_hyper_jax import conv, memory
from sparse_hyper_jax.train.data.text import bundled_text

RATES = (0.001, 0.003, 0.01)
BLOCKS, STEPS, BATCH = 10, 150, 256
FEATURES, NARROW, HIDDEN, SLOTS = 32, 3, 64, 2
PROBED = 8_192
"""Places of the training text that a probe looks at."""

Parameters = dict[str, Any]


class Places(NamedTuple):
    """Trigrams before some characters, and these."""

    words: jax.Array
    """int32 ``(n, 2)``: the last three characters, and the three before these."""

    targets: jax.Array


class Data(NamedTuple):
    """The text."""

    parts: list[Places]
    words: int
    characters: int


def measure(facts: Facts, asked: Asked) -> Line:
    """Train one method, with all rates."""
    blocks, steps = (2, 3) if asked.tiny else (BLOCKS, STEPS)
    data, method = read(), facts["method"]
    keys = jax.random.split(jax.random.key(facts["seed"]))
    start, rows = init(keys[0], method, data)

    def run(rate: jax.Array) -> jax.Array:
        return train(method, (start, rows), data, rate, keys[1], blocks=blocks, steps=steps)

    bits = np.asarray(jax.jit(lambda rates: jax.lax.map(run, rates))(jnp.asarray(RATES)))
    best = np.unravel_index(np.nanargmin(bits[..., 1]), bits.shape[:2])
    training, _, test = bits[best]
    return {
        "bits": round(float(test), 4),
        "training_bits": round(float(training), 4),
        "rate": RATES[best[0]],
        "block": int(best[1]),
        "words": data.words,
        "numbers": sum(leaf.size for leaf in jax.tree.leaves(start["embedding"])),
    }


def read() -> Data:
    """Cut the text into places for training, validation and test."""
    characters, text = np.unique(list(bundled_text()), return_inverse=True)
    grams = np.stack([text[:-2], text[1:-1], text[2:]], 1)
    names, words = np.unique(grams, axis=0, return_inverse=True)
    ends = np.arange(5, len(text) - 1)
    words = words.reshape(-1)
    all_of = Places(np.stack([words[ends - 2], words[ends - 5]], 1), text[ends + 1])
    cuts = [len(ends) * cut // 20 for cut in (18, 19)]
    parts = zip(*(np.split(part.astype(np.int32), cuts) for part in all_of), strict=True)
    return Data([Places(*map(jnp.asarray, part)) for part in parts], len(names), len(characters))


def init(key: jax.Array, method: str, data: Data) -> tuple[Parameters, jax.Array]:
    """Draw parameters, and rows where there are any: as many numbers as a narrow one has."""
    keys, count, scale = jax.random.split(key, 4), data.words, FEATURES**-0.5
    budget = NARROW * (count + FEATURES)
    rows = jnp.zeros((count, 0), jnp.int32)
    if method == "dense":
        embedding = {"table": scale * jax.random.normal(keys[0], (count, FEATURES))}
    elif method == "narrow":
        embedding = {
            "table": jax.random.normal(keys[0], (count, NARROW)),
            "matrix": scale * NARROW**-0.5 * jax.random.normal(keys[1], (NARROW, FEATURES)),
        }
    else:
        slots = 1 if method == "one row" else SLOTS
        own = 0 if method == "one row" else slots * count
        number = (budget - own) // FEATURES
        rows = memory.hash_rows(keys[2], count, number, slots)
        embedding = {"table": scale * jax.random.normal(keys[0], (number, FEATURES))}
        if own:
            embedding["values"] = slots**-0.5 * jax.random.normal(keys[1], (count, slots))
    network = perceptron(keys[3], (2 * FEATURES, HIDDEN, data.characters))
    return {"embedding": embedding, "network": network}, rows


def embed(embedding: Parameters, rows: jax.Array, words: jax.Array) -> jax.Array:
    """Give embeddings ``(*batch, d)``."""
    if "matrix" in embedding:
        return embedding["table"][words] @ embedding["matrix"]
    if not rows.shape[1]:
        return embedding["table"][words]
    values = embedding.get("values", jnp.ones(rows.shape))
    return memory.embed(embedding["table"], memory.WordRows(rows, values), words)


def loss(parameters: Parameters, rows: jax.Array, places: Places, offsets: Any = None) -> jax.Array:
    """Give bits per character; offsets ``(V, d)`` of embeddings are for a probe."""
    vectors = embed(parameters["embedding"], rows, places.words)
    vectors = vectors if offsets is None else vectors + offsets[places.words]
    logits = apply(parameters["network"], vectors.reshape(len(vectors), -1))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, places.targets)
    return jnp.mean(losses) / math.log(2)


def train(
    method: str,
    start: tuple[Parameters, jax.Array],
    data: Data,
    rate: jax.Array,
    key: jax.Array,
    *,
    blocks: int,
    steps: int,
) -> jax.Array:
    """Train; give the bits of all parts after every block."""
    kinds = {name: "other" if name == "matrix" else "rows" for name in start[0]["embedding"]}
    labels = {"embedding": kinds, "network": "other"}
    adam = optax.scale_by_adam()
    optimizer = optax.partition({"rows": memory.lazy_rows(adam), "other": adam}, labels)

    def step(carried: Any, number: jax.Array) -> tuple[Any, None]:
        parameters, rows, state = carried
        own = jax.random.fold_in(key, number)
        chosen = jax.random.randint(own, (BATCH,), 0, len(data.parts[0].targets))
        batch = jax.tree.map(lambda part: part[chosen], data.parts[0])
        updates, state = optimizer.update(jax.grad(loss)(parameters, rows, batch), state)
        parameters = jax.tree.map(lambda one, two: one - rate * two, parameters, updates)
        return (parameters, rows, state), None

    def block(carried: Any, first: jax.Array) -> tuple[Any, jax.Array]:
        carried, _ = jax.lax.scan(step, carried, first + jnp.arange(steps))
        bits = jnp.stack([loss(*carried[:2], part) for part in data.parts])
        if method == "relocated":
            carried = relocate(optimizer, carried, data, jax.random.fold_in(key, first + 2**20))
        return carried, bits

    carried = *start, optimizer.init(start[0])
    return jax.lax.scan(block, carried, steps * jnp.arange(blocks))[1]


def relocate(
    optimizer: Any, carried: tuple[Parameters, jax.Array, Any], data: Data, key: jax.Array
) -> tuple[Parameters, jax.Array, Any]:
    """Exchange one row of every word by gains on a part of the text."""
    parameters, rows, state = carried
    chosen = jax.random.randint(key, (PROBED,), 0, len(data.parts[0].targets))
    batch = jax.tree.map(lambda part: part[chosen], data.parts[0])
    cotangent = jax.grad(loss, 3)(parameters, rows, batch, jnp.zeros((data.words, FEATURES)))
    embedding = parameters["embedding"]
    words = memory.WordRows(rows, embedding["values"])
    gains = memory.row_gains(embedding["table"], cotangent, rows)
    importance = memory.row_importance(words, embedding["table"])
    after = memory.relocate_rows(words, gains, importance, min_z=2.0, max_share=0.25)
    fresh = jax.tree.map(lambda _: False, parameters)
    fresh["embedding"]["values"] = after.rows != rows
    parameters = {**parameters, "embedding": {**embedding, "values": after.values}}
    return parameters, after.rows, conv.clear_moments(optimizer, state, fresh)
