"""Train a small network to rank documents by one of several losses."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax.sort import ndcg, ndcg_loss, order_loss, rank_loss, spearman, standardise

QUERIES = {"train": 200, "validation": 100, "test": 400}
LEAST, MOST, FEATURES, HIDDEN, STEPS = 5, 40, 16, 32, 300
FIRST = 10

SOFT = {"order_loss": order_loss, "rank_loss": rank_loss, "ndcg_loss": ndcg_loss}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)


class Ranked(NamedTuple):
    """Documents of ``Q`` queries, ``MOST`` places each.

    Attributes:
        features: ``(Q, MOST, FEATURES)``.
        relevance: ``(Q, MOST)``, 0 to 4.
        mask: ``(Q, MOST)`` bool, where there is a document.
    """

    features: jax.Array
    relevance: jax.Array
    mask: jax.Array


def make_queries(key: jax.Array, count: int) -> Ranked:
    """Draw queries; what makes a document relevant is the same for all of them."""
    world = jax.random.split(jax.random.key(7), 3)
    first, second, third = (jax.random.normal(key, (FEATURES,)) / 4 for key in world)
    keys = jax.random.split(key, 4)
    features = jax.random.normal(keys[0], (count, MOST, FEATURES))
    lengths = jax.random.randint(keys[1], (count, 1), LEAST, MOST + 1)
    noise = 0.5 * jax.random.normal(keys[2], (count, MOST))
    # How good the documents of a query are at all, which says nothing about their order.
    level = jax.random.normal(keys[3], (count, 1))
    utility = jnp.sin(2 * features @ first) + (features @ second) * (features @ third)
    grades = jnp.digitize(utility + noise + level, jnp.array([-1.0, 0.0, 1.0, 2.0]))
    return Ranked(features, grades, jnp.arange(MOST) < lengths)


def score(weights: Any, features: jax.Array) -> jax.Array:
    """Give one number for each document."""
    hidden = jnp.tanh(features @ weights["in"] + weights["bias"])
    return hidden @ weights["out"]


def gains_of(queries: Ranked) -> jax.Array:
    """Give what documents are worth."""
    return 2.0**queries.relevance - 1


def flat(queries: Ranked) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Give relevance, gains, query and mask of all documents, in one list."""
    ids = jnp.broadcast_to(jnp.arange(len(queries.mask))[:, None], queries.mask.shape)
    relevance, gains = queries.relevance.reshape(-1), gains_of(queries).reshape(-1)
    return relevance, gains, ids.reshape(-1), queries.mask.reshape(-1)


def soft_loss(name: str, scores: jax.Array, queries: Ranked, certainty: jax.Array) -> jax.Array:
    """Compare orders, all queries in one call."""
    relevance, gains, ids, mask = flat(queries)
    keys = standardise(scores.reshape(-1), segment_ids=jnp.where(mask, ids, -1))
    wanted = gains if name == "ndcg_loss" else relevance
    return SOFT[name](keys, wanted, certainty=certainty, segment_ids=ids, mask=mask)


def pairwise_loss(scores: jax.Array, queries: Ranked) -> jax.Array:
    """Return the logistic loss of all pairs of different relevance (RankNet)."""

    def one(scores: jax.Array, relevance: jax.Array, mask: jax.Array) -> jax.Array:
        better = (relevance[:, None] > relevance) & mask[:, None] & mask
        losses = jax.nn.softplus(scores - scores[:, None])
        return jnp.where(better, losses, 0).sum() / jnp.maximum(better.sum(), 1)

    return jnp.mean(jax.vmap(one)(scores, queries.relevance, queries.mask))


def pointwise_loss(scores: jax.Array, queries: Ranked) -> jax.Array:
    """Return the squared error of each relevance."""
    errors = jnp.where(queries.mask, jnp.square(scores - queries.relevance), 0)
    return errors.sum() / queries.mask.sum()


def loss_of(name: str) -> tuple[Callable[..., jax.Array], list[tuple[float, float]]]:
    """Give a loss of scores, queries and certainty, and its settings: rate and certainty."""
    if name in SOFT:
        settings = list(itertools.product(RATES[1:3], (2.0, 6.0)))
        return lambda *arguments: soft_loss(name, *arguments), settings
    plain = {"pairwise logistic": pairwise_loss, "squared error": pointwise_loss}[name]
    return lambda scores, queries, _: plain(scores, queries), [(rate, 1.0) for rate in RATES]


def measure(facts: Facts, asked: Asked) -> Line:
    """Train with every setting; test the one that ranks the validation queries best."""
    loss, settings = loss_of(facts["loss"])
    keys = jax.random.split(jax.random.key(facts["seed"]), 1 + len(QUERIES))
    queries = {
        part: make_queries(key, 4 if asked.tiny else count)
        for key, (part, count) in zip(keys[1:], QUERIES.items(), strict=True)
    }
    first, last = jax.random.split(keys[0])
    weights = {
        "in": jax.random.normal(first, (FEATURES, HIDDEN)) / FEATURES**0.5,
        "bias": jnp.zeros(HIDDEN),
        "out": jax.random.normal(last, (HIDDEN,)) / HIDDEN**0.5,
    }

    @jax.jit
    def train(rate: jax.Array, certainty: jax.Array) -> Any:
        optimizer = optax.adam(rate)

        def step(state: Any, _: None) -> tuple[Any, None]:
            weights, memory = state
            slopes = jax.grad(
                lambda weights: loss(
                    score(weights, queries["train"].features), queries["train"], certainty
                )
            )(weights)
            updates, memory = optimizer.update(slopes, memory)
            return (optax.apply_updates(weights, updates), memory), None

        state = weights, optimizer.init(weights)
        return jax.lax.scan(step, state, None, length=2 if asked.tiny else STEPS)[0][0]

    @jax.jit
    def judge(weights: Any, queries: Ranked) -> tuple[jax.Array, jax.Array]:
        scores = score(weights, queries.features).reshape(-1)
        relevance, gains, ids, mask = flat(queries)
        lists = {"segment_ids": ids, "mask": mask}
        return spearman(scores, relevance, **lists), ndcg(scores, gains, k=FIRST, **lists)

    trained = [train(rate, certainty) for rate, certainty in settings]
    validation = [float(judge(weights, queries["validation"])[0]) for weights in trained]
    best = max(range(len(settings)), key=validation.__getitem__)
    correlation, gained = judge(trained[best], queries["test"])
    return {
        "learning_rate": settings[best][0],
        "certainty": settings[best][1],
        "spearman": round(float(correlation), 4),
        "ndcg": round(float(gained), 4),
    }
