"""A small scorer of the elements of lists, trained by one of several losses."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax.sort import ndcg, ndcg_loss, order_loss, rank_loss, spearman, standardise

FIRST = 10
"""Places that count in NDCG."""

GRADES, HIDDEN, EVERY = 5, 32, 20
RATES = (3e-3, 1e-2, 3e-2)
CERTAINTIES, DECAYS = (3.0, 10.0), (0.0, 1e-2)


class Lists(NamedTuple):
    """Elements of all lists, one after the other, and the same in rows of equal length."""

    features: Any
    grades: Any
    ids: Any
    rows: Any
    """int ``(lists, longest)``, numbers of elements, and -1."""


class Setting(NamedTuple):
    """What is tuned."""

    rate: float
    certainty: float
    decay: float


def settings_of(loss: str) -> list[Setting]:
    """Give the six that a loss may try."""
    if loss in SOFT:
        return [Setting(rate, certainty, 0.0) for rate in RATES for certainty in CERTAINTIES]
    return [Setting(rate, 1.0, decay) for rate in RATES for decay in DECAYS]


def measure(facts: Facts, asked: Asked) -> Line:
    """Train with every setting, choose by validation, and test."""
    parts = split(facts["data"], facts["seed"], tiny=asked.tiny)
    run, best = trainer(facts["loss"], facts["steps"]), {"validation": -np.inf}
    for setting in settings_of(facts["loss"]):
        judged = run(jax.random.key(facts["seed"]), setting, parts)
        validation, test = (np.asarray(one) for one in judged)
        scores = validation.mean(axis=1)  # of Spearman and NDCG
        number = int(np.nanargmax(scores))
        if scores[number] > best["validation"]:
            best = {
                "validation": round(float(scores[number]), 5),
                "spearman": round(float(test[number, 0]), 5),
                "ndcg": round(float(test[number, 1]), 5),
                "step": (number + 1) * EVERY,
                **setting._asdict(),
            }
    return best


def split(data: str, seed: int, *, tiny: bool) -> list[Lists]:
    """Give lists for training, validation and testing; their lengths are those of every seed."""
    lengths = np.random.default_rng(0)
    numbers = np.random.default_rng([seed, 1])
    counts = (4, 4, 4) if tiny else {"generated": (150, 50, 300), "diabetes": (100, 40, 40)}[data]
    longest = 6 if tiny else {"generated": 41, "diabetes": 16}[data]
    if data == "diabetes":

        def drawn(pool: tuple[np.ndarray, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
            some = numbers.choice(len(pool[1]), size, replace=False)
            return pool[0][some], pool[1][some]

        return [
            lists_of([drawn(pool, size) for size in lengths.integers(5, longest, count)])
            for pool, count in zip(patients(numbers), counts, strict=True)
        ]
    weights = np.random.default_rng([seed, 2]).normal(size=(4, 16)) / 4
    return [
        lists_of([made(numbers, weights, size) for size in lengths.integers(5, longest, count)])
        for count in counts
    ]


def made(numbers: np.random.Generator, weights: np.ndarray, size: int) -> tuple[Any, Any]:
    """Draw the elements of a list about a middle of their own, and what they are worth."""
    x = numbers.normal(size=16) + numbers.normal(size=(size, 16))
    one, two, three, four = weights @ x.T
    worth = np.sin(2 * one) + two + three * four + 0.3 * numbers.normal(size=size)
    return x, worth


def patients(numbers: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Part scikit-learn's diabetes patients into three, none of whom is in two of them."""
    from sklearn.datasets import load_diabetes

    bunch: Any = load_diabetes()
    x, y = bunch.data, bunch.target
    x, order = (x - x.mean(axis=0)) / x.std(axis=0), numbers.permutation(len(y))
    return [(x[part], y[part]) for part in np.split(order, [265, 350])]


def lists_of(lists: list[tuple[np.ndarray, np.ndarray]]) -> Lists:
    """Grade elements from 0 to 4 within their list, and put lists one after the other."""
    sizes = [len(worth) for _, worth in lists]
    grades = [np.argsort(np.argsort(worth)) * GRADES // len(worth) for _, worth in lists]
    starts = np.cumsum([0, *sizes[:-1]])
    rows = np.full((len(lists), max(sizes)), -1)
    for number, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        rows[number, :size] = start + np.arange(size)
    return Lists(
        np.concatenate([x for x, _ in lists]).astype(np.float32),
        np.concatenate(grades).astype(np.int32),
        np.repeat(np.arange(len(lists)), sizes).astype(np.int32),
        rows.astype(np.int32),
    )


def pointwise(scores: jax.Array, lists: Lists, certainty: float | jax.Array) -> jax.Array:
    """Regress on the grades."""
    return jnp.mean(jnp.square(scores - (lists.grades - (GRADES - 1) / 2)))


def pairwise(scores: jax.Array, lists: Lists, certainty: float | jax.Array) -> jax.Array:
    """Give the logistic loss of all pairs of a list whose grades differ (RankNet)."""
    rows, there = jnp.maximum(lists.rows, 0), lists.rows >= 0
    score, grade = scores[rows], jnp.where(there, lists.grades[rows], -1)
    better = (grade[:, :, None] > grade[:, None]) & there[:, None]
    losses = jax.nn.softplus(score[:, None] - score[:, :, None])
    return jnp.sum(jnp.where(better, losses, 0)) / jnp.maximum(jnp.sum(better), 1)


def gains(lists: Lists) -> jax.Array:
    """Give what an element is worth."""
    return 2.0**lists.grades - 1


def soft(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Compare softly sorted scores, of one scale, within lists."""

    def value(scores: jax.Array, lists: Lists, certainty: float | jax.Array) -> jax.Array:
        keys = standardise(scores, segment_ids=lists.ids)
        return loss(keys, lists, certainty=certainty, segment_ids=lists.ids)

    return value


SOFT = {
    "rank_loss": soft(lambda keys, lists, **options: rank_loss(keys, lists.grades, **options)),
    "order_loss": soft(lambda keys, lists, **options: order_loss(keys, lists.grades, **options)),
    "ndcg_loss": soft(
        lambda keys, lists, **options: ndcg_loss(keys, gains(lists), k=FIRST, **options)
    ),
}
LOSSES = {"pointwise": pointwise, "pairwise": pairwise} | SOFT


@cache
def trainer(loss: str, steps: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Compile the training once for all rates and seeds.

    It gives Spearman's correlation and NDCG of validation and test lists after every ``EVERY``
    steps.
    """
    optimizer = optax.inject_hyperparams(optax.adamw)

    def run(key: jax.Array, setting: Setting, parts: list[Lists]) -> tuple[jax.Array, jax.Array]:
        train_set, validation, test = parts
        made = optimizer(learning_rate=setting.rate, weight_decay=setting.decay)
        width = train_set.features.shape[1]
        keys, he = jax.random.split(key), jax.nn.initializers.he_normal()
        params = {
            "first": he(keys[0], (width, HIDDEN)),
            "bias": jnp.zeros(HIDDEN),
            "last": he(keys[1], (HIDDEN, 1)),
        }

        def scores(params: dict[str, jax.Array], lists: Lists) -> jax.Array:
            hidden = jax.nn.relu(lists.features @ params["first"] + params["bias"][None])
            return (hidden @ params["last"])[:, 0]

        def judge(params: dict[str, jax.Array], lists: Lists) -> jax.Array:
            keys, ids = scores(params, lists), lists.ids
            order = spearman(keys, lists.grades, segment_ids=ids)
            return jnp.stack([order, ndcg(keys, gains(lists), k=FIRST, segment_ids=ids)])

        def objective(params: dict[str, jax.Array]) -> jax.Array:
            return LOSSES[loss](scores(params, train_set), train_set, setting.certainty)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            updates, state = made.update(jax.grad(objective)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        def stretch(carry: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            carry, _ = jax.lax.scan(step, carry, None, length=EVERY)
            return carry, (judge(carry[0], validation), judge(carry[0], test))

        _, judged = jax.lax.scan(
            stretch, (params, made.init(params)), None, length=max(steps // EVERY, 1)
        )
        return judged

    return jax.jit(run)
