"""Networks of event-driven random backpropagation: how they behave, what they learn and keep."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax.checks import check_count, check_number, require
from sparse_hyper_jax.entrance import as_array, check_instance, check_random_key
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.spiking.membrane_types import enter_weights


@dataclass(frozen=True, kw_only=True)
class ErbpRule:
    """How the neurons of :func:`erbp_step` behave; times in milliseconds.

    Raises:
        ValueError: a number beyond its limits, or a traced one.

    Example:
        >>> from sparse_hyper_jax.spiking import ErbpRule
        >>> ErbpRule(dt=0.5).threshold
        0.1
    """

    dt: float = 1.0
    """Length of a step."""

    tau_synapse: float = 4.0
    """In which currents decay."""

    tau_membrane: float = 1.0
    """In which potentials follow currents; at least a step."""

    tau_dendrite: float = 5.0
    """In which errors decay."""

    refractory: float = 3.9
    """After a spike, for which a neuron stays silent."""

    threshold: float = 0.1
    """Of neurons and of error neurons."""

    error_weight: float = 0.09
    """Of a spike of the label, or of the output, for the error neurons."""

    gate: float = 0.6
    """Magnitude of the current below which a neuron learns."""

    keep: float = 0.65
    """Probability with which a synapse passes a spike on."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0.0 if field.name in ("refractory", "keep", "gate") else 1e-6
            most = 1.0 if field.name == "keep" else math.inf
            check_number(field.name, value, at_least=least, at_most=most)
            require(
                not isinstance(value, Tracer),
                f"{field.name}={value!r:.80}",
                "a number that is known while tracing",
                "make the rule outside of jit, and pass it as a static argument",
            )
            object.__setattr__(self, field.name, float(value))
        require(
            self.dt <= self.tau_membrane,
            f"dt={self.dt} with tau_membrane={self.tau_membrane}",
            "a step of at most the time constant, beyond which potentials overshoot",
            "lower dt",
        )


DEFAULT_ERBP = ErbpRule()


class ErbpParameters(NamedTuple):
    """What is learned, and what is not.

    Example:
        >>> from sparse_hyper_jax.spiking import erbp_parameters
        >>> parameters = erbp_parameters(jax.random.key(0), (6, 5, 3))
        >>> [w.shape for w in parameters.weights], [g.shape for g in parameters.feedback]
        ([(6, 5), (5, 3)], [(3, 5), (3, 3)])
    """

    weights: list[jax.Array]
    """``(inputs, outputs)`` of each layer."""

    feedback: list[jax.Array]
    """``(classes, outputs)`` of each layer: how it hears of errors; constant."""


class ErbpLayer(NamedTuple):
    """What the neurons of a layer keep, each ``(outputs,)``.

    Example:
        >>> from sparse_hyper_jax.spiking import ErbpLayer
        >>> ErbpLayer._fields
        ('current', 'v', 'silent', 'error')
    """

    current: jax.Array
    v: jax.Array
    silent: jax.Array
    """Milliseconds for which it does not fire."""

    error: jax.Array
    """What of late has come through the feedback."""


class ErbpState(NamedTuple):
    """What a network keeps from step to step.

    Example:
        >>> from sparse_hyper_jax.spiking import erbp_parameters, erbp_state
        >>> state = erbp_state(erbp_parameters(jax.random.key(0), (6, 5, 3)))
        >>> len(state.layers), state.errors.shape
        (2, (2, 3))
    """

    layers: list[ErbpLayer]
    errors: jax.Array
    """``(2, classes)`` potentials of the error neurons for too few and too many spikes."""


class ErbpStep(NamedTuple):
    """What :func:`erbp_step` returns.

    Example:
        >>> from sparse_hyper_jax.spiking import ErbpStep
        >>> ErbpStep._fields
        ('parameters', 'state', 'spikes')
    """

    parameters: ErbpParameters
    state: ErbpState
    spikes: list[jax.Array]
    """``(outputs,)`` zeros and ones of every layer."""


def erbp_parameters(
    key: jax.Array, sizes: Sequence[int], *, output_feedback: float = 1.0
) -> ErbpParameters:
    """Draw first weights and the feedback, which never changes.

    ``W ~ U(+-sqrt(7 / (inputs + outputs)))``; ``G ~ U(+-sqrt(7 / (classes + units)))`` minus its
    mean over units, so that no error drives a layer as a whole; to the output each class's own.

    Args:
        key: one random key.
        sizes: inputs, units of every hidden layer, classes.
        output_feedback: strength of the feedback to the output layer.

    Returns:
        the parameters, float32.

    Raises:
        ValueError: no key, no sequence of sizes, or fewer than two.

    Reference: Kaiser et al. 2019, arXiv 1904.04805.

    Example:
        >>> from sparse_hyper_jax.spiking import erbp_parameters
        >>> feedback = erbp_parameters(jax.random.key(0), (6, 5, 3)).feedback
        >>> np.abs(feedback[0].mean(axis=1)).max().round(5).tolist(), feedback[1].tolist()
        (0.0, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    check_random_key(key)
    check_number("output_feedback", output_feedback)
    require(
        isinstance(sizes, Sequence) and not isinstance(sizes, str),
        f"sizes={sizes!r:.80}",
        "a tuple of inputs, units of every hidden layer, classes",
        "pass several sizes, for instance (6, 5, 3)",
    )
    sizes = [check_count(f"size {n}", size, least=1) for n, size in enumerate(sizes)]
    require(len(sizes) >= 2, f"sizes={sizes}", "inputs and classes at least", "pass more sizes")
    classes, weights, feedback = sizes[-1], [], []
    for n, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        own, back = jax.random.split(jax.random.fold_in(key, n))
        most = math.sqrt(7 / (inputs + outputs))
        weights.append(
            jax.random.uniform(own, (inputs, outputs), jnp.float32, minval=-most, maxval=most)
        )
        most = math.sqrt(7 / (classes + outputs))
        drawn = jax.random.uniform(back, (classes, outputs), jnp.float32, minval=-most, maxval=most)
        feedback.append(drawn - jnp.mean(drawn, axis=1, keepdims=True))
    feedback[-1] = output_feedback * jnp.eye(classes)
    return ErbpParameters(weights, feedback)


def erbp_state(parameters: ErbpParameters) -> ErbpState:
    """Give the state before the first step: all is 0.

    Args:
        parameters: see :func:`erbp_parameters`.

    Returns:
        the state.

    Raises:
        ValueError: no such parameters.

    Example:
        >>> from sparse_hyper_jax.spiking import erbp_parameters, erbp_state
        >>> erbp_state(erbp_parameters(jax.random.key(0), (6, 2))).layers[0].v.tolist()
        [0.0, 0.0]
    """
    parameters = enter_parameters(parameters)
    dtype = wide_dtype(*parameters.weights)
    layers = [ErbpLayer(*[jnp.zeros(w.shape[1], dtype)] * 4) for w in parameters.weights]
    return ErbpState(layers, jnp.zeros((2, parameters.weights[-1].shape[1]), dtype))


def enter_parameters(parameters: Any) -> ErbpParameters:
    """Return parameters whose parts are arrays that fit one another.

    Raises:
        ValueError: they do not.
    """
    check_instance("parameters", parameters, ErbpParameters)
    weights = enter_weights(parameters.weights)
    require(
        isinstance(parameters.feedback, Sequence),
        f"feedback={parameters.feedback!r:.80}",
        f"a list of {len(weights)} matrices, one for each layer",
        "pass what erbp_parameters gives",
    )
    feedback = [
        as_array(f"feedback {n}", g, "floats") for n, g in enumerate(parameters.feedback, 1)
    ]
    found = [g.shape for g in feedback]
    wanted = [(weights[-1].shape[1], w.shape[1]) for w in weights]
    require(
        found == wanted,
        f"feedback of shapes {found}",
        f"{wanted}, (classes, outputs) of each layer",
        "pass what erbp_parameters gives",
    )
    return ErbpParameters(weights, feedback)


def check_erbp_state(parameters: ErbpParameters, state: Any) -> None:
    """Raise unless a state is one of such a network.

    Raises:
        ValueError: it is not.
    """
    check_instance("state", state, ErbpState)
    found = jax.tree.map(jnp.shape, state)
    wanted = jax.tree.map(jnp.shape, erbp_state(parameters))
    require(
        found == wanted,
        f"a state of shapes {found}",
        f"{wanted}",
        "pass the state of the step before, or erbp_state(parameters)",
    )
