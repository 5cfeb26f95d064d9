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
    """What training on a resident data set changes, epoch by epoch.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.train.epoch_state import start_state
        >>> state = start_state({"kernel": jnp.ones((64, 10))}, optax.sgd(0.1), images=5)
        >>> int(state.count), state.order.tolist()
        (0, [0, 1, 2, 3, 4])
    """

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
    """Give the state before training on so many images.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.train.epoch_state import start_state
        >>> state = start_state({"kernel": jnp.ones((64, 10))}, optax.sgd(0.1), images=5)
        >>> int(state.count), state.order.tolist()
        (0, [0, 1, 2, 3, 4])
    """
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

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.train.epoch_state import next_state, start_state
        >>> sgd = optax.sgd(0.5)
        >>> state = start_state({"bias": jnp.ones(2)}, sgd, images=5)
        >>> state = next_state(state, {"bias": jnp.ones(2)}, sgd, state.order)
        >>> state.parameters["bias"].tolist(), int(state.count)
        ([0.5, 0.5], 1)
    """
    updates, moments = optimizer.update(gradient, state.optimizer, state.parameters, **extra)
    parameters = optax.apply_updates(state.parameters, updates)
    return EpochState(parameters, moments, order, state.count + 1, slots)
