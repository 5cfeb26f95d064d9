"""What training changes, and one update of it; of a resident data set also the place in it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax.train.data.epochs import first_order

Metrics = dict[str, jax.Array]
"""Scalars that a training step tells."""


class TrainState(NamedTuple):
    """What training on data that are made anew in every step changes."""

    parameters: Any
    optimizer: Any
    """State of the optimizer."""


class EpochState(NamedTuple):
    """What training on a resident data set changes, epoch by epoch."""

    parameters: Any
    optimizer: Any
    """State of the optimizer."""

    order: jax.Array
    """Training images in the order of this epoch, int32."""

    count: jax.Array
    """Finished steps, int32."""

    slots: Any = ()
    """What a model keeps between steps beside its parameters."""


def start_state(
    parameters: Any, optimizer: optax.GradientTransformation, images: int, *, slots: Any = ()
) -> EpochState:
    """Give the state before training on so many images."""
    count = jnp.zeros((), jnp.int32)
    return EpochState(parameters, optimizer.init(parameters), first_order(images), count, slots)


def next_state(
    state: EpochState,
    gradient: Any,
    optimizer: optax.GradientTransformation | optax.GradientTransformationExtraArgs,
    order: jax.Array,
    *,
    slots: Any = (),
    **extra: Any,
) -> EpochState:
    """Give the state after a step.

    Args:
        state: the one before.
        gradient: of the loss, as the optimizer takes it.
        optimizer: from gradients to updates of the parameters.
        order: of the images in this epoch.
        slots: what the model keeps for the next step.
        extra: further arguments of the optimizer's update.
    """
    updates, moments = optimizer.update(gradient, state.optimizer, state.parameters, **extra)
    parameters = optax.apply_updates(state.parameters, updates)
    return EpochState(parameters, moments, order, state.count + 1, slots)
