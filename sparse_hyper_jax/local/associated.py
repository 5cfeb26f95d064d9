"""Associated learning: components that learn to associate encoded inputs with encoded targets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import as_array, check_function
from sparse_hyper_jax.precision import at_least_float32


class Component(NamedTuple):
    """Four functions of one array with a leading batch axis, or four modules.

    The same tuple also holds what belongs to the four: their parameters, or labels of these for
    :func:`optax.partition`.

    Example:
        >>> from sparse_hyper_jax.local import Component
        >>> part = Component(forward=jnp.tanh, bridge=jnp.sin, encode=jnp.exp, decode=jnp.log)
        >>> part.decode(part.encode(jnp.ones(2))).round(3).tolist()
        [1.0, 1.0]
    """

    forward: Any
    """From the component's input ``s_(l-1)`` to its output ``s_l``."""

    bridge: Any
    """From ``s_l`` to a guess of ``t_l``."""

    encode: Any
    """From the target ``t_(l-1)`` to ``t_l``; of training alone."""

    decode: Any
    """From ``t_l`` back to ``t_(l-1)``."""


class AssociatedLosses(NamedTuple):
    """What :func:`associated_losses` returns.

    Example:
        >>> from sparse_hyper_jax.local import AssociatedLosses
        >>> losses = AssociatedLosses(jnp.array([1.0, 2.0]), jnp.array([0.5, 0.5]), jnp.ones(3))
        >>> float(losses.total)
        4.0
    """

    association: jax.Array
    """``(L,)`` ``A_l``, at least float32; depends on ``forward_l`` and ``bridge_l`` alone."""

    reconstruction: jax.Array
    """``(L,)`` ``R_l``, at least float32; depends on ``encode_l`` and ``decode_l`` alone."""

    output: jax.Array
    """``s_L``, from which no gradient flows back."""

    @property
    def total(self) -> jax.Array:
        """The sum of all; its gradient is that of every loss for its own component."""
        return jnp.sum(self.association) + jnp.sum(self.reconstruction)


def associated_losses(
    components: Sequence[Component], x: jax.Array, target: jax.Array
) -> AssociatedLosses:
    """Give the losses of all components; none has a gradient for another component.

    With ``s_0 = x``, ``t_0 = target`` and ``sg`` a stopped gradient, for ``l = 1, ..., L``::

        s_l = forward_l(sg s_(l-1))            A_l = mean (bridge_l(s_l) - sg t_l)^2
        t_l = encode_l(sg t_(l-1))             R_l = mean (decode_l(t_l) - sg t_(l-1))^2

    So one gradient of ``A_1 + R_1 + ... + A_L + R_L`` is the gradients of all of them, and a
    component whose gradient is noisy disturbs no other. There is none for ``x`` and ``target``.

    Args:
        components: the ``L`` components, from the input to the output.
        x: ``(b, ...)`` the input, as ``forward`` of the first component takes it.
        target: ``(b, ...)`` floats or whole numbers, as its ``encode`` takes them: for classes
            their one-hot vectors.

    Returns:
        the losses, and the output of the last ``forward``.

    Raises:
        ValueError: no component; a part that is no function, or whose output is no array; a
            ``bridge`` or a ``decode`` whose output has not the shape of what it is compared with.

    Reference: Kao and Chen 2021, arXiv 1906.05560.

    Example:
        >>> from sparse_hyper_jax.local import Component, associated_losses
        >>> def half(x):
        ...     return x / 2
        >>> part = Component(half, half, half, half)
        >>> losses = associated_losses([part], jnp.ones(4), jnp.ones(4))
        >>> losses.association.tolist(), losses.reconstruction.tolist()
        ([0.0625], [0.5625])
    """
    components = check_components(components)
    s, t = as_array("x", x), as_array("target", target)
    found = []
    for number, component in enumerate(components, start=1):
        s, t, losses = component_losses(component, s, t, number=number)
        found.append(losses)
    association, reconstruction = jnp.stack([jnp.stack(pair) for pair in found], axis=1)
    return AssociatedLosses(association, reconstruction, jax.lax.stop_gradient(s))


def associated_predict(
    components: Sequence[Component], x: jax.Array, *, exit_at: int | None = None
) -> jax.Array:
    """Predict the target: forward to a component, over its bridge, and decode on the way back.

    ``decode_1(... decode_l(bridge_l(forward_l(... forward_1(x)))))``, for ``l`` the last component
    or the one at which to leave. No ``encode`` takes part, and of the bridges one: the others are
    needed in training alone.

    Args:
        components: see :func:`associated_losses`.
        x: ``(b, ...)`` the input.
        exit_at: number of the component at which to leave, from 1; by default the last.

    Returns:
        the prediction, in the form of the target.

    Raises:
        ValueError: see :func:`associated_losses`; or an exit beyond the components.

    Reference: Kao and Chen 2021, arXiv 1906.05560.

    Example:
        >>> from sparse_hyper_jax.local import Component, associated_predict
        >>> plus, minus = lambda x: x + 1, lambda x: x - 1
        >>> parts = [Component(plus, plus, plus, minus)] * 3
        >>> [associated_predict(parts, jnp.zeros(1), exit_at=n).tolist() for n in (1, 3)]
        [[1.0], [1.0]]
    """
    components = check_components(components)
    last = len(components) if exit_at is None else checks.check_count("exit_at", exit_at, least=1)
    require(
        last <= len(components),
        f"exit_at={exit_at} of {len(components)} components",
        "the number of one of them, counted from 1",
        "lower it, or leave it out",
    )
    x = as_array("x", x)
    for number in range(1, last + 1):
        x = _output(components[number - 1], "forward", x, number)
    x = _output(components[last - 1], "bridge", x, last)
    for number in range(last, 0, -1):
        x = _output(components[number - 1], "decode", x, number)
    return x


def component_losses(
    component: Component, s: jax.Array, t: jax.Array, *, number: int
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """Give outputs and losses of one component, whose inputs send no gradient back."""
    s, t = jax.lax.stop_gradient((s, t))
    new_s = _output(component, "forward", s, number)
    new_t = _output(component, "encode", t, number)
    association = _distance(component, "bridge", new_s, new_t, number)
    reconstruction = _distance(component, "decode", new_t, t, number)
    return new_s, new_t, (association, reconstruction)


def check_components(components: Any) -> tuple[Component, ...]:
    """Return the components as a tuple of what can be called."""
    require(
        isinstance(components, Sequence) and len(components) > 0,
        f"components {components!r:.80}",
        "a list of at least one Component",
        "pass [Component(forward, bridge, encode, decode), ...]",
    )
    return tuple(check_component(one, number) for number, one in enumerate(components, start=1))


def check_component(component: Any, number: int) -> Component:
    """Return a component if all four of its parts can be called."""
    require(
        isinstance(component, Component),
        f"component {number} of type {type(component).__name__}",
        "a Component",
        "pass Component(forward, bridge, encode, decode)",
    )
    for name, part in zip(component._fields, component, strict=True):
        check_function(f"{name} of component {number}", part)
    return component


def _output(component: Component, part: str, x: jax.Array, number: int) -> jax.Array:
    """Give what a part makes of its input, which has to be one array."""
    return as_array(f"the output of {part} of component {number}", getattr(component, part)(x))


def _distance(
    component: Component, part: str, x: jax.Array, truth: jax.Array, number: int
) -> jax.Array:
    guess, truth = _output(component, part, x, number), jax.lax.stop_gradient(truth)
    require(
        guess.shape == truth.shape,
        f"an output of shape {guess.shape} from the {part} of component {number}",
        f"{truth.shape}, the shape of what it is compared with",
        "change its number of units",
    )
    guess, truth = at_least_float32(guess), at_least_float32(truth)
    dtype = jnp.promote_types(guess.dtype, truth.dtype)
    return jnp.mean(jnp.square(guess.astype(dtype) - truth.astype(dtype)))
