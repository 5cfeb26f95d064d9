"""All components at work at once, each on a batch of its own, as on an assembly line."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import (
    as_array,
    check_function,
    check_instance,
    check_optimizer_state,
)
from sparse_hyper_jax.local.associated import Component, check_component, component_losses


class PipelinedSteps(NamedTuple):
    """What :func:`pipelined_steps` returns.

    Example:
        >>> from sparse_hyper_jax.local import PipelinedSteps
        >>> PipelinedSteps._fields
        ('parameters', 'states', 'association', 'reconstruction')
    """

    parameters: list[Any]
    """Of the components, after the last batch."""

    states: list[Any]
    """Of their optimizers."""

    association: jax.Array
    """``(n, L)`` losses ``A_l`` of batch and component, before the batch's update."""

    reconstruction: jax.Array
    """``(n, L)`` losses ``R_l``."""


def pipelined_steps(
    makes: Sequence[Callable[[Any], Component]],
    parameters: Sequence[Any],
    states: Sequence[optax.OptState],
    xs: jax.Array,
    targets: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
) -> PipelinedSteps:
    """Train on ``n`` batches in ``n + L - 1`` slots, in each of which components work side by side.

    In slot ``k`` component ``l`` works on batch ``k - l + 1``: it takes what the component below
    has put out in the slot before, puts out its own, computed before its update, and is updated by
    its own losses. Since no gradient comes back, nothing has to wait: parameters and losses are
    those of ``n`` steps one after another, each by the gradient of
    :func:`~sparse_hyper_jax.local.associated_losses`, which take ``n L`` slots.

    It is one :func:`jax.lax.scan` over slots. On one device it saves no time; it says that the
    schedule is right, and what is passed from part to part where components have devices of their
    own.

    Args:
        makes: ``L`` functions of a component's parameters that give its four functions.
        parameters: ``L`` trees.
        states: ``L`` states, ``optimizer.init`` of each tree.
        xs: ``(n, b, ...)`` the batches, in order.
        targets: ``(n, b, ...)`` their targets.
        optimizer: updates every component by itself. For one rate per half of a component see
            :func:`optax.partition`, with a :class:`~sparse_hyper_jax.local.Component` of labels.

    Returns:
        parameters, states, and the losses of each batch.

    Raises:
        ValueError: lists of unequal length; parameters that are no floats; no batch; no optimizer;
            or what :func:`~sparse_hyper_jax.local.associated_losses` raises.

    Reference: Kao and Chen 2021, arXiv 1906.05560, section on pipelines.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.local import Component, pipelined_steps
        >>> make = lambda scale: Component(*[lambda x: scale * x] * 4)
        >>> xs, sgd, start = jnp.ones((4, 2, 1)), optax.sgd(0.1), [jnp.array(0.5)] * 3
        >>> states = [sgd.init(one) for one in start]
        >>> done = pipelined_steps([make] * 3, start, states, xs, xs, optimizer=sgd)
        >>> done.association.shape, len(done.parameters)
        ((4, 3), 3)
    """
    xs, targets = as_array("xs", xs), as_array("targets", targets)
    check_instance("optimizer", optimizer, optax.GradientTransformation)
    _check(makes, parameters, states, xs, targets)
    for own, state in zip(parameters, states, strict=True):
        check_optimizer_state(state, optimizer.init, own)
    count, depth = len(xs), len(makes)

    def work(number: int, parameters: Any, state: Any, s: jax.Array, t: jax.Array) -> Any:
        """One component on one batch: what it puts out, then what it has become."""

        def loss_of(parameters: Any) -> tuple[jax.Array, Any]:
            component = check_component(makes[number](parameters), number + 1)
            new_s, new_t, losses = component_losses(component, s, t, number=number + 1)
            return losses[0] + losses[1], (jax.lax.stop_gradient((new_s, new_t)), losses)

        gradient, (outputs, losses) = jax.grad(loss_of, has_aux=True)(parameters)
        updates, state = optimizer.update(gradient, state, parameters)
        return outputs, losses, (optax.apply_updates(parameters, updates), state)

    def slot(carry: Any, now: jax.Array) -> tuple[Any, Any]:
        learned, passed = carry
        first = jax.tree.map(lambda leaf: leaf[jnp.minimum(now, count - 1)], (xs, targets))
        new_learned, new_passed, seen = [], [], []
        for number, (own, inputs) in enumerate(zip(learned, [first, *passed], strict=True)):
            outputs, losses, changed = work(number, *own, *inputs)
            busy = (now >= number) & (now < number + count)
            keep = jax.tree.map(lambda new, old, busy=busy: jnp.where(busy, new, old), changed, own)
            new_learned.append(keep)
            new_passed.append(outputs)
            seen.append(losses)
        return (new_learned, new_passed[:-1]), jnp.stack([jnp.stack(pair) for pair in seen])

    learned = jax.tree.map(jnp.asarray, list(zip(parameters, states, strict=True)))
    carry = (learned, _empty(work, learned, xs[0], targets[0]))
    (learned, _), losses = jax.lax.scan(slot, carry, jnp.arange(count + depth - 1))
    # Component l saw batch j in slot j + l.
    at = np.arange(count)[:, None] + np.arange(depth)
    association, reconstruction = jnp.moveaxis(losses[at, np.arange(depth)], -1, 0)
    trees, states = zip(*learned, strict=True)
    return PipelinedSteps(list(trees), list(states), association, reconstruction)


def _empty(work: Callable[..., Any], learned: Sequence[Any], x: Any, target: Any) -> list[Any]:
    """What lies on the line before the first batch, between the components: zeros."""
    between, inputs = [], (x, target)
    for number, own in enumerate(learned):
        inputs, *_ = jax.eval_shape(
            lambda *given, number=number: work(number, *given), *own, *inputs
        )
        between.append(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs))
    return between[:-1]


def _check(makes: Any, parameters: Any, states: Any, xs: jax.Array, targets: jax.Array) -> None:
    lists = {"makes": makes, "parameters": parameters, "states": states}
    for name, given in lists.items():
        require(
            isinstance(given, Sequence) and not isinstance(given, str | bytes),
            f"{name}={given!r:.80}",
            "a list of one for every component",
            f"pass [one, ...] as {name}",
        )
    lengths = {name: len(given) for name, given in lists.items()}
    require(
        len(set(lengths.values())) == 1 and len(makes) > 0,
        ", ".join(f"{length} {name}" for name, length in lengths.items()),
        "one of each for every component, at least one",
        "make the lists equally long",
    )
    for number, make in enumerate(makes, start=1):
        check_function(f"make of component {number}", make)
        for leaf in jax.tree.leaves(parameters[number - 1]):
            as_array(f"a parameter of component {number}", leaf, "floats")
    require(
        xs.ndim > 0 and targets.ndim > 0 and len(xs) == len(targets) > 0,
        f"xs of shape {xs.shape} and targets of shape {targets.shape}",
        "the same number of batches on the first axis, at least one",
        "stack the batches",
    )
