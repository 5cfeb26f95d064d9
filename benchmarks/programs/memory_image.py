"""Fit a photograph from the places of its pixels, by grids, a network, and learned addresses."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_sample_image

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax import ContinuousTuples, memory
from sparse_hyper_jax.ops import bound_means

RATES = (0.003, 0.01, 0.03)
BLOCKS, STEPS, BATCH = 10, 200, 512
FEATURES, HIDDEN, WAVES = 4, 32, 4
SIZES = {
    "grid": (36, 55),
    "decoded": (31, 46),
    "addresses": (35, 35),
    "sampled": (35, 35),
    "offsets": (29, 44),
    "keys": (32, 32),
}
"""Grids that leave every method about 6,000 numbers."""

QUERY, NEAREST = 4, 8
"""Numbers of a query for each axis; rows that a head reads by product keys."""

WIDTH = 67
"""Of the network alone, for the same reason."""

Parameters = dict[str, Any]


class Pixels(NamedTuple):
    """Places from 0 to 1 and colours of some pixels."""

    places: jax.Array
    colours: jax.Array


def measure(facts: Facts, asked: Asked) -> Line:
    """Fit one image by one method, with all rates."""
    blocks, steps = (2, 3) if asked.tiny else (BLOCKS, STEPS)
    parts = split(facts["seed"])
    model = Model(facts["method"])
    keys = jax.random.split(jax.random.key(facts["seed"]))
    start = model.init(keys[0])

    def run(rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        return fit(model, start, parts, rate, keys[1], blocks=blocks, steps=steps)

    errors, used = jax.jit(lambda rates: jax.lax.map(run, rates))(jnp.asarray(RATES))
    errors = np.asarray(errors)  # (rates, blocks, parts)
    best = np.unravel_index(np.nanargmin(errors[..., 1]), errors.shape[:2])
    training, _, test = (-10 * math.log10(error) for error in errors[best])
    line = {
        "psnr": round(test, 3),
        "training_psnr": round(training, 3),
        "rate": RATES[best[0]],
        "block": int(best[1]),
        "numbers": sum(leaf.size for leaf in jax.tree.leaves(start)),
    }
    return line if facts["method"] == "network" else line | {"used": float(used[best])}


def split(seed: int) -> list[Pixels]:
    """Give pixels for training, validation and test."""
    photograph = load_sample_image("china.jpg")[:424] / 255
    image = photograph.reshape(106, 4, 160, 4, 3).mean((1, 3))
    places = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in (106, 160)), indexing="ij"), -1)
    order = np.random.default_rng(seed).permutation(106 * 160)
    flat = [jnp.asarray(part.reshape(len(order), -1), jnp.float32) for part in (places, image)]
    cuts = np.split(order, [len(order) // 2, len(order) * 3 // 4])
    return [Pixels(*(part[chosen] for part in flat)) for chosen in cuts]


class Model:
    """One method: its parameters, colours of places, and reads of its memory."""

    def __init__(self, method: str):
        self.method = method
        self.shape = SIZES.get(method)
        self.heads = 2 if method in ("addresses", "sampled", "keys") else 1

    def init(self, key: jax.Array) -> Parameters:
        """Draw parameters; offsets begin at 0."""
        keys = jax.random.split(key, 3)
        if self.method == "network":
            return {"network": perceptron(keys[0], (4 * WAVES, WIDTH, WIDTH, 3))}
        if self.method == "grid":
            return {"table": jnp.full((*SIZES["grid"], 3), 0.5)}
        width = self.heads * FEATURES
        made: Parameters = {
            "table": 0.1 * jax.random.normal(keys[0], (*SIZES[self.method], FEATURES)),
            "decoder": perceptron(keys[1], (width, HIDDEN, 3)),
        }
        if self.method == "keys":
            size = (self.heads, 2, SIZES["keys"][0], QUERY)
            made["keys"] = jax.random.normal(jax.random.fold_in(key, 0), size) / QUERY**0.5
        if self.method != "decoded":
            numbers = 2 * self.heads * (QUERY if self.method == "keys" else 1)
            source = perceptron(keys[2], (4 * WAVES, HIDDEN, numbers))
            if self.method == "offsets":
                source[-1] = jax.tree.map(jnp.zeros_like, source[-1])
            made["source"] = source
        return made

    def addresses(self, parameters: Parameters, places: jax.Array) -> jax.Array:
        """Give addresses ``(b, heads, 2)`` in cells."""
        last = jnp.asarray(self.shape, jnp.float32) - 1
        own = places * last
        if "source" not in parameters:
            return own[:, None]
        logits = apply(parameters["source"], waves(places)).reshape(len(places), self.heads, 2)
        if self.method == "offsets":
            return own[:, None] + last * logits
        return bound_means(1.702 * logits, self.shape)

    def reads(
        self, parameters: Parameters, places: jax.Array, key: Any = None, spread: Any = None
    ) -> memory.Reads:
        """Give the reads of all heads, ``(b * heads, q)``."""
        if self.method == "keys":
            queries = apply(parameters["source"], waves(places))
            return product_reads(queries, parameters["keys"])
        addresses = self.addresses(parameters, places).reshape(-1, 2)
        if self.method != "sampled" or key is None:
            return memory.grid_shares(None, addresses, self.shape)
        tuples = ContinuousTuples(
            addresses, jnp.full(addresses.shape, 1.0) * spread**2, jnp.ones(len(addresses))
        )
        options = {"num_global": 4, "num_local": 4, "region": (8, 8)}
        return memory.grid_shares(key, tuples, self.shape, **options)

    def colours(
        self, parameters: Parameters, places: jax.Array, key: Any = None, spread: Any = None
    ) -> jax.Array:
        """Give colours ``(b, 3)``."""
        if self.method == "network":
            return apply(parameters["network"], waves(places))
        reads = self.reads(parameters, places, key, spread)
        y = memory.read_rows(parameters["table"], reads).reshape(len(places), -1)
        return apply(parameters["decoder"], y) if "decoder" in parameters else y


def product_reads(queries: jax.Array, keys: jax.Array) -> memory.Reads:
    """Find the rows whose two keys agree most with a query, for each of ``h`` heads.

    Product keys (Lample et al. 2019, https://arxiv.org/abs/1907.05242): the score of row
    ``(i, j)`` is that of key ``i`` of one half of the query and of key ``j`` of the other, so that
    the best of ``n * n`` rows are among the pairs of the best of both. Queries are normalized over
    the batch.

    Args:
        queries: ``(b, h * 2 * d)``.
        keys: ``(h, 2, n, d)``.
    """
    heads, _, count, width = keys.shape
    queries = queries.reshape(-1, heads, 2, width)
    centred = queries - jnp.mean(queries, axis=0)
    queries = centred / jnp.sqrt(jnp.mean(centred**2, axis=0) + 1e-5)
    best, at = jax.lax.top_k(jnp.einsum("bhad,hand->bhan", queries, keys), NEAREST)
    pairs = (best[:, :, 0, :, None] + best[:, :, 1, None, :]).reshape(-1, NEAREST**2)
    rows = (count * at[:, :, 0, :, None] + at[:, :, 1, None, :]).reshape(-1, NEAREST**2)
    scores, chosen = jax.lax.top_k(pairs, NEAREST)
    rows = jnp.take_along_axis(rows, chosen, axis=1)
    return memory.Reads(rows, jax.nn.softmax(scores))


def fit(
    model: Model,
    start: Parameters,
    parts: list[Pixels],
    rate: jax.Array,
    key: jax.Array,
    *,
    blocks: int,
    steps: int,
) -> tuple[jax.Array, jax.Array]:
    """Train; give the errors of all parts and the share of used cells after every block."""
    adam, total = optax.scale_by_adam(), blocks * steps

    def step(carried: Any, number: jax.Array) -> tuple[Any, None]:
        parameters, state = carried
        keys = jax.random.split(jax.random.fold_in(key, number))
        chosen = jax.random.randint(keys[0], (BATCH,), 0, len(parts[0].places))
        batch = jax.tree.map(lambda part: part[chosen], parts[0])
        done = number / total
        spread = 8.0 * 0.02**done  # in cells, from 8 to 0.16

        def loss(parameters: Parameters) -> jax.Array:
            found = model.colours(parameters, batch.places, keys[1], spread)
            return jnp.mean((found - batch.colours) ** 2)

        updates, state = adam.update(jax.grad(loss)(parameters), state)
        now = rate * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return (jax.tree.map(lambda one, two: one - now * two, parameters, updates), state), None

    def block(carried: Any, first: jax.Array) -> tuple[Any, Any]:
        carried, _ = jax.lax.scan(step, carried, first + jnp.arange(steps))
        errors = [
            jnp.mean((model.colours(carried[0], part.places) - part.colours) ** 2) for part in parts
        ]
        return carried, (jnp.stack(errors), used_share(model, carried[0], parts[0].places))

    return jax.lax.scan(block, (start, adam.init(start)), steps * jnp.arange(blocks))[1]


def used_share(model: Model, parameters: Parameters, places: jax.Array) -> jax.Array:
    """Give the share of cells that pixels of training read."""
    if model.shape is None:
        return jnp.zeros(())
    cells = math.prod(model.shape)
    return memory.usage(model.reads(parameters, places), cells).used / cells


def waves(places: jax.Array) -> jax.Array:
    """Give sines and cosines of places, of waves from the image down to an eighth of it."""
    angles = (jnp.pi * 2.0 ** jnp.arange(WAVES))[:, None] * places[:, None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], 1).reshape(len(places), -1)


def perceptron(key: jax.Array, widths: tuple[int, ...]) -> list[dict[str, jax.Array]]:
    """Draw the layers of a perceptron."""
    draw: Callable[..., jax.Array] = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, len(widths))
    return [
        {"kernel": draw(one, pair), "bias": jnp.zeros(pair[1])}
        for one, pair in zip(keys, itertools.pairwise(widths), strict=False)
    ]


def apply(layers: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    """Apply a perceptron."""
    for number, layer in enumerate(layers):
        x = x @ layer["kernel"] + layer["bias"]
        x = jax.nn.relu(x) if number < len(layers) - 1 else x
    return x
