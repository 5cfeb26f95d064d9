"""Neurons of the membrane-loss rule: how they behave, what they keep, what fits together."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_choice, check_count, check_flag, check_number, require
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.spiking.surrogates import Surrogate, check_surrogate

Mask = Literal["xor", "none"]


@dataclass(frozen=True, kw_only=True)
class MembraneRule:
    """How the neurons of :func:`membrane_loss_step` behave, and what of their error counts.

    Raises:
        ValueError: a decay or threshold beyond its limits, an unknown mask or surrogate.

    Example:
        >>> from sparse_hyper_jax.spiking import MembraneRule
        >>> MembraneRule(decay=0.5).mask
        'xor'
    """

    decay: float = 0.9
    """Share of potentials and traces that a step leaves: ``1 - dt / tau``."""

    threshold: float = 1.0
    """Where neurons fire; potentials do not rise above it."""

    mask: Mask = "xor"
    """Which outputs have an error: those whose spike is not that of the target, or all."""

    reset_traces: bool = True
    """Whether the traces in front of a layer shrink as the layer fires."""

    trace_units: int | None = None
    """By this number of neurons, at most to 0; None for those that the layer has."""

    surrogate: Surrogate = "sigmoid"
    """Slope of the hidden spikes."""

    scale: float | None = None
    """Of the slope; None for its own."""

    def __post_init__(self) -> None:
        check_number("decay", self.decay, at_least=0, at_most=1)
        check_number("threshold", self.threshold, above=0, at_most=float(np.finfo(np.float32).max))
        check_choice("mask", self.mask, ("xor", "none"))
        check_flag("reset_traces", self.reset_traces)
        if self.trace_units is not None:
            check_count("trace_units", self.trace_units, least=1)
        check_surrogate(self.surrogate, self.scale)


DEFAULT_RULE = MembraneRule()


class MembraneState(NamedTuple):
    """What the layers keep from step to step.

    Example:
        >>> from sparse_hyper_jax.spiking import membrane_state
        >>> state = membrane_state([jnp.ones((4, 3)), jnp.ones((3, 4))], batch=(2,))
        >>> [v.shape for v in state.v], [trace.shape for trace in state.traces]
        ([(2, 3), (2, 4)], [(2, 4), (2, 3)])
    """

    v: tuple[jax.Array, ...]
    """``(..., outputs)`` potentials of every layer after its reset."""

    traces: tuple[jax.Array, ...]
    """``(..., inputs)`` what came in lately, of every layer."""


class MembraneStep(NamedTuple):
    """What :func:`membrane_loss_step` returns.

    Example:
        >>> from sparse_hyper_jax.spiking import MembraneStep
        >>> MembraneStep._fields
        ('state', 'loss', 'gradient', 'spikes')
    """

    state: MembraneState
    loss: jax.Array
    """Of this step, summed over outputs, mean over the batch."""

    gradient: list[jax.Array]
    """Like the weights."""

    spikes: tuple[jax.Array, ...]
    """``(..., outputs)`` of every layer."""


class MembraneScan(NamedTuple):
    """What :func:`membrane_loss_scan` returns.

    Example:
        >>> from sparse_hyper_jax.spiking import MembraneScan
        >>> MembraneScan._fields
        ('weights', 'optimizer', 'losses', 'spikes')
    """

    weights: list[jax.Array]
    """After the last step."""

    optimizer: Any
    """State of the optimizer."""

    losses: jax.Array
    """``(T,)``, each before the update of its step."""

    spikes: tuple[jax.Array, ...]
    """``(T, ..., outputs)`` of every layer."""


def membrane_state(weights: Sequence[jax.Array], *, batch: Sequence[int] = ()) -> MembraneState:
    """Give the state before the first step: all is 0.

    Args:
        weights: one matrix ``(inputs, outputs)`` for each layer.
        batch: lengths of the axes of a batch.

    Returns:
        the state.

    Raises:
        ValueError: weights that do not follow one another, or lengths that are no counts.

    Example:
        >>> from sparse_hyper_jax.spiking import membrane_state
        >>> membrane_state([jnp.ones((4, 3))]).v[0].tolist()
        [0.0, 0.0, 0.0]
    """
    weights = enter_weights(weights)
    dtype, batch = wide_dtype(*weights), enter_batch(batch)
    v = tuple(jnp.zeros((*batch, w.shape[1]), dtype) for w in weights)
    return MembraneState(v, tuple(jnp.zeros((*batch, w.shape[0]), dtype) for w in weights))


def enter_batch(batch: Any) -> tuple[int, ...]:
    """Return the lengths of the axes of a batch, which may be empty.

    Raises:
        ValueError: no sequence of counts.
    """
    require(
        isinstance(batch, Sequence) and not isinstance(batch, str),
        f"batch={batch!r:.80}",
        "a tuple of lengths",
        "write batch=(3,) for 3 instances",
    )
    return tuple(check_count(f"batch axis {n}", size) for n, size in enumerate(batch))


def enter_weights(weights: Any) -> list[jax.Array]:
    """Return matrices of layers that follow one another.

    Raises:
        ValueError: none, no matrix, or one that does not fit the next.
    """
    require(
        isinstance(weights, Sequence) and len(weights) > 0,
        f"weights {weights!r:.80}",
        "a list of at least one matrix",
        "pass [(inputs, outputs), ...]",
    )
    arrays = [as_array(f"weights of layer {n}", w, "floats") for n, w in enumerate(weights, 1)]
    shapes = [w.shape for w in arrays]
    fit = all(len(shape) == 2 for shape in shapes) and all(
        one[1] == two[0] for one, two in itertools.pairwise(shapes)
    )
    require(fit, f"weights of shapes {shapes}", "(inputs, outputs), (outputs, ...)", "reshape them")
    return arrays


def enter(
    weights: Any, spikes: Any, target: Any, rule: MembraneRule, *, over_time: bool = False
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """Return weights, spikes and targets that fit one another.

    Raises:
        ValueError: they do not, or the rule is none.
    """
    check_instance("rule", rule, MembraneRule)
    weights = enter_weights(weights)
    spikes, target = as_array("spikes", spikes), as_array("target", target)
    sides = weights[0].shape[0], weights[-1].shape[1]
    least = 2 if over_time else 1
    require(
        spikes.ndim >= least
        and spikes.shape[:-1] == target.shape[:-1]
        and (spikes.shape[-1:], target.shape[-1:]) == ((sides[0],), (sides[1],)),
        f"spikes of shape {spikes.shape} and targets of shape {target.shape}",
        f"{'(T, ..., ' if over_time else '(..., '}{sides[0]}) and the same with {sides[1]}",
        "reshape them, or change the weights",
    )
    return weights, spikes, target


def enter_state(weights: Sequence[jax.Array], state: Any, spikes: jax.Array) -> MembraneState:
    """Return a state that fits weights and batch, in the dtype of :func:`membrane_state`.

    One of whole numbers, or of fewer bits, would round all that is computed from it.

    Raises:
        ValueError: it does not.
    """
    check_instance("state", state, MembraneState)
    found = jax.tree.map(jnp.shape, state)
    rest = jax.eval_shape(lambda: membrane_state(weights, batch=spikes.shape[:-1]))
    wanted = jax.tree.map(jnp.shape, rest)
    require(
        found == wanted,
        f"a state of shapes {found}",
        f"{wanted}",
        "pass the state of the step before, or membrane_state(weights, batch=...)",
    )
    return jax.tree.map(lambda leaf, like: as_array("state", leaf).astype(like.dtype), state, rest)
