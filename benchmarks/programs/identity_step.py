"""The training step of the identity layer: n tuples on n x n cells, a batch of 64, Adam."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import ops

BATCH = 64
SAMPLING: dict[str, Any] = {"num_global": 4, "num_local": 4, "region": (4, 4)}
OPTIMIZER = optax.adam(0.005)
Step = Callable[[Any, jax.Array], tuple[Any, Any]]
"""Maps a state and a key to the next state and the loss."""


def raw_parameters(size: int) -> dict[str, jax.Array]:
    """Draw what is learned of ``size`` tuples."""
    means_key, spreads_key = jax.random.split(jax.random.key(0))
    return {
        "means": jax.random.normal(means_key, (size, 2)),
        "spreads": jax.random.normal(spreads_key, (size,)),
    }


def bound(raw: dict[str, jax.Array]) -> ops.ContinuousTuples:
    """Bound raw parameters; all values are 1."""
    size = len(raw["spreads"])
    means, shape = raw["means"], (size, size)
    variances = ops.bound_variances(raw["spreads"], shape)
    return ops.ContinuousTuples(ops.bound_means(means, shape), variances, jnp.ones(size))


def start(parameters: Any) -> Any:
    """Give the state in which training starts."""
    return parameters, OPTIMIZER.init(parameters)


def identity_loss(
    raw: dict[str, jax.Array],
    key: jax.Array,
    *,
    multiply: Callable[..., jax.Array] = ops.hyperlayer,
    place: Callable[[jax.Array], jax.Array] = lambda x: x,
    **options: Any,
) -> jax.Array:
    """Compare a batch with its product with the layer, made by ``multiply`` with options."""
    size, (input_key, sample_key) = len(raw["spreads"]), jax.random.split(key)
    x = place(jax.random.normal(input_key, (size, BATCH)))
    y = multiply(sample_key, bound(raw), x, (size,), **SAMPLING, **options)
    return jnp.mean(jnp.square(y - x))


def make_step(loss: Callable[..., jax.Array] = identity_loss) -> Step:
    """Make a training step."""

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        parameters, moments = state
        value, gradient = jax.value_and_grad(loss)(parameters, key)
        updates, moments = OPTIMIZER.update(gradient, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), value

    return step


def make_steps(count: int, loss: Callable[..., jax.Array] = identity_loss) -> Step:
    """Make some training steps that are one dispatch."""
    step = make_step(loss)
    return lambda state, key: jax.lax.scan(step, state, jax.random.split(key, count))
