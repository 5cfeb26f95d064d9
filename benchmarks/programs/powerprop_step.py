"""Training steps of a perceptron, plain and reparametrised."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import going_on, interleaved
from sparse_hyper_jax.reparam import Reparametrization, powerprop, scale_by_power_jacobian
from sparse_hyper_jax.train.models.perceptron import make_perceptron

STEPS = 10
OPTIMIZERS = {"sgd": optax.sgd(0.1), "adam": optax.adam(1e-3)}
VARIANTS: dict[str, Reparametrization] = {
    **{f"alpha {alpha:g}": powerprop(alpha) for alpha in (2.0, 3.0, 4.0, 5.0, 2.5, 2.3)},
    "groups, alpha 2": powerprop(2.0, axes=(0,)),
}


def steps_of(
    reparam: Reparametrization | None,
    optimizer: optax.GradientTransformation,
    sizes: tuple[int, ...],
    batch: int,
    *,
    chained: bool = False,
) -> Callable[[], Any]:
    """Compile ten training steps; the function that comes back goes on where it stopped."""
    apply, weights = make_perceptron(sizes, seed=0)
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(keys[0], (STEPS, batch, sizes[0]))
    labels = jax.random.randint(keys[1], (STEPS, batch), 0, sizes[-1])
    theta = weights if reparam is None else reparam.to_theta(weights)
    to_weights = (lambda theta: theta) if reparam is None else reparam.to_weights

    def loss_of(weights: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = apply(weights, images)
        return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels))

    def step(state: tuple[Any, Any], given: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        theta, moments = state
        if chained:
            gradient = jax.grad(loss_of)(to_weights(theta), *given)
        else:
            gradient = jax.grad(lambda theta: loss_of(to_weights(theta), *given))(theta)
        updates, moments = optimizer.update(gradient, moments, theta)
        return (optax.apply_updates(theta, updates), moments), None

    def steps(state: Any, *batches: jax.Array) -> Any:
        return jax.lax.scan(step, state, batches)[0]

    return going_on(steps, (theta, optimizer.init(theta)), images, labels)


def measure(facts: Facts, asked: Asked) -> Line:
    """Time the steps of one optimizer, plain ones and reparametrised ones in turn."""
    width, batch, optimizer = facts["width"], facts["batch"], OPTIMIZERS[facts["optimizer"]]
    sizes = (784, width, width, width, 10)
    make = partial(steps_of, sizes=sizes, batch=batch)
    chain = optax.chain(scale_by_power_jacobian(2.0), optimizer)
    functions = {
        "plain": make(None, optimizer),
        "plain again": make(None, optimizer),
        **{variant: make(reparam, optimizer) for variant, reparam in VARIANTS.items()},
        "chained, alpha 2": make(powerprop(2.0), chain, chained=True),
    }
    times = interleaved(functions, repeats=asked.repeats)
    plain = times["plain"]
    others = {name: time for name, time in times.items() if name != "plain"}
    return {
        "milliseconds": {name: round(time / STEPS, 3) for name, time in times.items()},
        "overhead": {name: round(time / plain - 1, 4) for name, time in others.items()},
    }
