"""Small problems whose exact gradient is known, and the ways of this library to estimate it.

Each function gives a :class:`Problem`. Costs are counted, not timed: evaluations of the loss,
entries of the sparse matrix that are multiplied forwards (not the densities of the points),
permuted copies of the payload per level, shares of the backward pass through the hidden layers,
evaluations of an expert.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import backprop
from sparse_hyper_jax.backprop import init_memory, next_memory, sparse_dense
from sparse_hyper_jax.estimators import (
    ARM,
    ARS,
    ARSM,
    REBAR,
    RLOO,
    CellChoices,
    Enumeration,
    Estimator,
    GumbelStraightThrough,
    ScoreFunction,
    Subset,
    WithoutReplacement,
    axis_choices,
    cell_choices,
    cell_expectation,
    expectation,
    score_function_loss,
    sparse_mixer,
)
from sparse_hyper_jax.ops import ContinuousTuples, log_densities, mix_values, relax
from sparse_hyper_jax.sort import draw_sort, quicksort
from sparse_hyper_jax.sort.buckets import buckets_at, to_rows
from sparse_hyper_jax.sort.candidates import all_halves, candidate_weights
from sparse_hyper_jax.sort.split import HalfPermutation, apply_split, partition
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.recipes.images import Arrays, cross_entropy, to_arrays

Estimate = Callable[[jax.Array], Any]


class Method(NamedTuple):
    """A way to estimate a gradient."""

    cost: float
    estimate: Estimate
    """Maps a key to a gradient."""


class Problem(NamedTuple):
    """An exact gradient and the methods that estimate it."""

    title: str
    cost: str
    """What is counted as cost."""

    exact: Any
    methods: dict[str, Method]


def choices() -> Problem:
    """Three variables of four classes; a function of a random table."""
    table = jax.random.normal(jax.random.key(5), (4, 4, 4))
    logits = jax.random.normal(jax.random.key(0), (3, 4))

    def of_rows(rows: jax.Array) -> jax.Array:
        # Not linear in a row, as networks are not.
        return jnp.tanh(2 * jnp.einsum("abc,a,b,c->", table, *rows)) / 2

    def hard(z: jax.Array) -> jax.Array:
        return of_rows(jax.nn.one_hot(z, 4))

    estimators: dict[str, Estimator] = {
        "score function": ScoreFunction(),
        "RLOO-2": RLOO(2),
        "RLOO-8": RLOO(8),
        "ARS": ARS(),
        "ARSM": ARSM(),
        "without replacement (8)": WithoutReplacement(8),
        "REBAR": REBAR(),
        "Gumbel straight-through": GumbelStraightThrough(),
        "uninformed subset (8)": Subset(8),
        "informed subset (8)": Subset(8, informed=True),
    }
    # An evaluation with its derivative counts three times.
    costs = {"REBAR": 7, "Gumbel straight-through": 3}
    methods = {
        name: Method(
            costs.get(name, one.evaluations(logits.shape)),
            lambda key, one=one: (
                one.estimate(key, logits, of_rows if one.relaxed else hard).gradient
            ),
        )
        for name, one in estimators.items()
    }
    exact = Enumeration().estimate(jax.random.key(0), logits, hard).gradient
    return Problem("discrete choices", "evaluations of f", exact, methods)


SHAPE = (4, 4)
CELLS = jnp.stack(jnp.meshgrid(jnp.arange(4), jnp.arange(4)), -1).reshape(-1, 2)
SAMPLING = {"num_global": 4, "num_local": 4, "region": (3, 3)}
PLACES = (
    jnp.array([[0.4, 0.7], [1.3, 1.6], [2.2, 2.9]]),
    jnp.array([[0.8, 0.6], [1.0, 1.0], [0.5, 1.2]]),
)
"""Means and variances of three tuples of value 1."""


def cells() -> Problem:
    """Three tuples on 4 x 4 cells, each of which picks a cell; they should be the diagonal.

    Exact is the gradient of the choice among all cells. Methods that choose among fewer points, or
    draw from Gaussians, are unbiased for another loss, and their bias here is the distance to it.
    """

    def method(cost: int, loss: Callable[..., jax.Array], *rest: Any) -> Method:
        return Method(cost, lambda key: jax.grad(loss)(PLACES, key, *rest))

    methods = {
        "hyperlayer, 4 + 4 points": method(36, mixed_loss, SAMPLING),
        "hyperlayer, neighbours": method(12, mixed_loss, {}),
        "hyperlayer, all cells": method(48, wholly_mixed_loss),
        "RLOO-8, all cells": method(24, picked_loss, RLOO(8), "all"),
        "RLOO-8, 4 + 4 points": method(24, picked_loss, RLOO(8), "sampled"),
        "RLOO-8, neighbours": method(24, picked_loss, RLOO(8), "neighbours"),
        "ARSM, neighbours": method(21, picked_loss, ARSM(), "neighbours"),
        "ARM, neighbours": method(6, picked_loss, ARM(), "axes"),
        "Gaussian score function (8)": method(24, gaussian_loss),
    }
    exact = jax.grad(picked_loss)(PLACES, jax.random.key(0), Enumeration(), "all")
    return Problem("tuples of a hyperlayer", "entries multiplied", exact, methods)


def matrix_error(indices: jax.Array, values: jax.Array) -> jax.Array:
    """Give the squared distance of a sparse matrix to the identity."""
    matrix = jnp.zeros(SHAPE).at[tuple(indices.T)].add(values)
    return jnp.sum(jnp.square(matrix - jnp.eye(4)))


def tuples_at(places: Any) -> ContinuousTuples:
    """Give tuples of value 1."""
    return ContinuousTuples(*places, jnp.ones(3))


def picked_loss(places: Any, key: jax.Array, estimator: Estimator, among: str) -> jax.Array:
    """Expected error when every tuple picks one cell."""
    point_key, draw_key = jax.random.split(key)
    if among == "axes":
        chosen = axis_choices(tuples_at(places), SHAPE)
    elif among == "all":
        points = jnp.broadcast_to(CELLS, (3, *CELLS.shape))
        chosen = CellChoices(points, log_densities(CELLS, *places).T)
    else:
        options = SAMPLING if among == "sampled" else {}
        chosen = cell_choices(point_key, tuples_at(places), SHAPE, **options)

    def f(classes: jax.Array) -> jax.Array:
        return matrix_error(chosen.pick(classes).reshape(3, 2), jnp.ones(3))

    return expectation(draw_key, chosen.logits, f, estimator=estimator)


def mixed_loss(places: Any, key: jax.Array, options: dict[str, Any]) -> jax.Array:
    """Error of a sampled mixture, as the hyperlayer makes it."""
    return matrix_error(*relax(key, tuples_at(places), SHAPE, **options))


def wholly_mixed_loss(places: Any, key: jax.Array) -> jax.Array:
    """Error of the mixture of all cells."""
    del key  # nothing is drawn
    return matrix_error(CELLS, mix_values(CELLS, jnp.ones(16, bool), *places, jnp.ones(3)))


def gaussian_loss(places: Any, key: jax.Array) -> jax.Array:
    """Expected error of rounded Gaussian draws."""

    def f(drawn: jax.Array) -> jax.Array:
        return matrix_error(drawn, jnp.ones(3))

    return cell_expectation(key, *places, SHAPE, f, num_samples=8)


def sorting() -> Problem:
    """Four elements by their keys; the loss is the squared error of the order."""
    keys, payload = jnp.array([0.3, -0.9, 0.8, 0.1]), jnp.eye(4)
    target = payload[jnp.array([1, 0, 3, 2])]
    certainty = 2.0

    def error(output: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(output - target))

    def mixture(keys: jax.Array, key: jax.Array, candidates: int) -> jax.Array:
        sort = quicksort(key, keys, payload, num_candidates=candidates, certainty=certainty)
        return error(sort.payload)

    def drawn(keys: jax.Array, key: jax.Array, count: int, baseline: str) -> jax.Array:
        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            result = draw_sort(key, keys, payload, certainty=certainty)
            return error(result.payload), result.log_probability

        losses = jax.vmap(one)(jax.random.split(key, count))
        return score_function_loss(*losses, baseline=baseline)

    def enumerated(keys: jax.Array) -> jax.Array:
        return sum(chance * error(result) for chance, result in all_sorts(keys, payload, certainty))

    def method(cost: int, loss: Callable[..., jax.Array], *rest: Any) -> Method:
        return Method(cost, lambda key: jax.grad(loss)(keys, key, *rest))

    methods = {
        # Of six, or four, candidates at the first level and two at the second.
        "mixture, all halvings": method(4, mixture, 16),
        "mixture, 4 candidates": method(3, mixture, 4),
        "mixture, 2 candidates": method(2, mixture, 2),
        "score function": method(1, drawn, 1, "none"),
        "RLOO-2": method(2, drawn, 2, "leave_one_out"),
        "RLOO-8": method(8, drawn, 8, "leave_one_out"),
    }
    return Problem("sorting", "permuted copies", jax.grad(enumerated)(keys), methods)


def all_sorts(keys: jax.Array, payload: jax.Array, certainty: float, level: int = 0):
    """Yield the chance and the payload of every sort that ``draw_sort`` can draw."""
    buckets = buckets_at(len(keys), level)
    if len(buckets.sizes) == len(keys):
        yield jnp.ones(()), payload
        return
    upper, kept = (jnp.asarray(array) for array in all_halves(buckets))
    weights = candidate_weights(to_rows(keys, buckets), upper, kept, buckets, certainty)
    for chosen in itertools.product(range(len(upper)), repeat=len(buckets.sizes)):
        picked = jnp.stack([upper[c, row] for row, c in enumerate(chosen)])[None]
        chance = jnp.prod(jnp.stack([weights[c, row] for row, c in enumerate(chosen)]))
        split = HalfPermutation(*partition(picked, buckets), jnp.ones((1, len(keys))))
        moved = apply_split(split, (keys, payload))
        for later, result in all_sorts(*moved, certainty, level + 1):
            yield chance * later, result


def backpropagation() -> Problem:
    """Two hidden layers on a batch of digits, a tenth of the components propagated."""
    batch = tuple(part[:50] for part in to_arrays(load_splits("digits", None, seed=0).train))
    sizes = (batch[0].shape[1], 64, 64, 10)
    keys = jax.random.split(jax.random.key(0), 3)
    kernels = [
        jax.random.normal(key, (n_out, n_in)) / jnp.sqrt(n_in)
        for key, (n_in, n_out) in zip(keys, itertools.pairwise(sizes), strict=True)
    ]

    def forgetful(sparsifier: Any, cost: float = 0.1) -> Method:
        gradient = partial(jax.grad(network_loss), kernels, (None, None))
        return Method(cost, lambda key: gradient(key, batch, sparsifier, 0.0)[:-1])

    def remembering(eta: float) -> Method:
        estimate = partial(mean_with_memory, kernels, batch=batch, eta=eta, steps=10)
        return Method(1.0, estimate)

    methods = {
        "top-k": forgetful(backprop.TopK(0.1)),
        "top-k, 3 times as many": forgetful(backprop.TopK(0.3), 0.3),
        "unified top-k": forgetful(backprop.UnifiedTopK(0.1)),
        "random": forgetful(backprop.RandomK(0.1)),
        "random, not rescaled": forgetful(backprop.RandomK(0.1, rescale=False)),
        "importance sampling": forgetful(backprop.ImportanceSampling(0.1)),
        "top-k, memory 0.8, 10 steps": remembering(0.8),
        "top-k, memory 1, 10 steps": remembering(1.0),
    }
    exact = forgetful(None).estimate(jax.random.key(0))
    return Problem("sparse backpropagation", "dense backward passes", exact, methods)


def network_loss(
    kernels: Any, memories: Any, key: jax.Array, batch: Arrays, *rule: Any
) -> jax.Array:
    """Cross-entropy; ``rule`` is a sparsifier, or None for dense layers, and eta."""
    sparsifier, eta = rule
    x, labels = batch
    layers = zip(kernels[:-1], jax.random.split(key, 2), memories, strict=True)
    for kernel, layer_key, memory in layers:
        if sparsifier is None:
            x = x @ kernel.T
        else:
            random = layer_key if sparsifier.needs_key else None
            x = sparse_dense(random, x, kernel, memory=memory, sparsifier=sparsifier, eta=eta)
        x = jax.nn.relu(x)
    return cross_entropy(x @ kernels[-1].T, labels)


def mean_with_memory(kernels: Any, key: jax.Array, *, batch: Arrays, eta: float, steps: int) -> Any:
    """Give the mean gradient of some steps with memory, from an empty one, at the same place."""

    def step(memories: Any, key: jax.Array) -> tuple[Any, Any]:
        slopes = jax.grad(network_loss, argnums=(0, 1))
        gradient, new = slopes(kernels, memories, key, batch, backprop.TopK(0.1), eta)
        return tuple(map(next_memory, memories, new)), gradient[:-1]

    start = tuple(init_memory("slot", (len(batch[0]), 64)) for _ in range(2))
    _, gradients = jax.lax.scan(step, start, jax.random.split(key, steps))
    return jax.tree.map(partial(jnp.mean, axis=0), gradients)


def experts() -> Problem:
    """Sixteen tokens, eight experts with fixed outputs, cross-entropy."""
    keys = jax.random.split(jax.random.key(3), 3)
    outputs = 2 * jax.random.normal(keys[0], (16, 8, 5))
    logits = jax.random.normal(keys[1], (16, 8))
    labels = jax.random.randint(keys[2], (16,), 0, 5)

    def token_loss(y: jax.Array, label: jax.Array) -> jax.Array:
        return -jax.nn.log_softmax(y)[label]

    def routed(logits: jax.Array, key: jax.Array, method: str, exact: bool) -> jax.Array:
        route = sparse_mixer(key, logits, method=method, exact_at_argmax=exact)
        chosen = jnp.take_along_axis(outputs, route.expert[:, None, None], axis=1)[:, 0]
        return jnp.mean(jax.vmap(token_loss)(route.gate[:, None] * chosen, labels))

    def estimated(logits: jax.Array, key: jax.Array, estimator: Estimator) -> jax.Array:
        def of_token(key, logits, outputs, label):
            gates = jax.nn.softmax(logits)

            def f(expert: jax.Array) -> jax.Array:
                return token_loss(gates[expert] * outputs[expert], label)

            return expectation(key, logits, f, estimator=estimator)

        return jnp.mean(jax.vmap(of_token)(jax.random.split(key, 16), logits, outputs, labels))

    def method(cost: int, loss: Callable[..., jax.Array], *rest: Any) -> Method:
        return Method(cost, lambda key: jax.grad(loss)(logits, key, *rest))

    methods = {
        "gate alone": method(1, routed, "gate", False),
        "first order": method(1, routed, "first_order", False),
        "midpoint": method(1, routed, "midpoint", False),
        "midpoint, whole at argmax": method(1, routed, "midpoint", True),
        "Heun": method(1, routed, "heun", False),
        "Heun, whole at argmax": method(1, routed, "heun", True),
        "RLOO-2": method(2, estimated, RLOO(2)),
        "RLOO-4": method(4, estimated, RLOO(4)),
        "score function": method(1, estimated, ScoreFunction()),
    }
    exact = jax.grad(estimated)(logits, jax.random.key(0), Enumeration())
    return Problem("choice of an expert", "experts evaluated", exact, methods)


PROBLEMS = (choices, cells, sorting, backpropagation, experts)
