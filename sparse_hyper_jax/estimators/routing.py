"""Gradients for a router that sends every token to one of several experts.

A router with logits ``s`` gives expert D of E the probability ``pi_D = softmax(s)_D``, draws one
and weights its output: ``h_D = pi_D E_D(x)``. The gradient of the expected loss has two parts::

    grad E_D[l(h_D)] = sum_D l(h_D) grad pi_D  +  sum_D pi_D l'(h_D) . E_D grad pi_D
                              grad0                           grad1

Ordinary training keeps grad1, the gradient of the gate, and drops grad0. Since the ``grad pi_D``
sum to 0, ``l(h_D) - l(0)`` may stand for ``l(h_D)`` in grad0: ``l(0)`` is the control. That
difference is an integral along the ray from 0 to ``h_D``, and a quadrature needs the derivative of
the loss at no more than two of its points: rays are walked by scaling the gate.

An expert's number outside of ``[0, E)`` marks a token as padding, which counts for nothing. A token
with a logit of NaN or plus infinity gets a gate of NaN, whatever its expert. See the page Rules of
the documentation.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.precision import at_least_float32


class Route(NamedTuple):
    """Where tokens go: multiply the output of the expert by the gate.

    Example:
        >>> from sparse_hyper_jax.estimators import Route
        >>> outputs = jnp.array([[[1.0], [10.0]], [[2.0], [20.0]]])  # two tokens, by both experts
        >>> route = Route(expert=jnp.array([1, 0]), gate=jnp.array([0.5, 0.75]))
        >>> (route.gate[:, None] * outputs[jnp.arange(2), route.expert]).tolist()
        [[5.0], [1.5]]
    """

    expert: jax.Array
    """int32 ``(...)``, which one each token goes to."""

    gate: jax.Array
    """``(...)``, its weight, in float32 for 16-bit logits."""


class Rule(NamedTuple):
    """A quadrature along the ray, one point drawn at random."""

    factor: float
    """Total weight of grad0 and grad1: the slope of the gate in units of that of ``pi_D``."""

    scale: float
    """Where the gate is not whole, its value in units of ``pi_D``."""

    whole: float
    """Probability that the gate is whole, ``pi_D``."""


RoutingRule = Literal["gate", "first_order", "midpoint", "heun"]
RULES: dict[RoutingRule, Rule] = {
    "gate": Rule(1.0, 1.0, 1.0),
    "first_order": Rule(2.0, 1.0, 1.0),
    "midpoint": Rule(2.0, 1 / 2, 1 / 2),
    # 1/4 at h and 3/4 at h/3 for grad0, and 1 at h for grad1: 5/4 and 3/4 of 2.
    "heun": Rule(2.0, 1 / 3, 5 / 8),
}
"""Methods of :func:`sparse_mixer`."""


def sparse_mixer(
    key: jax.Array,
    logits: jax.Array,
    *,
    method: RoutingRule = "midpoint",
    exact_at_argmax: bool = True,
    jitter: float | jax.Array | None = None,
) -> Route:
    """Draw an expert for each token, with a gate whose gradient trains the router.

    ``D ~ pi``, and the gate has the value ``c pi_D`` and the slope ``f grad pi_D``::

        gate = stop(c pi_D) + f (pi_D - stop(pi_D))

    With the control ``l(0)`` (see the module), its expected gradient is grad0 + grad1 if the loss
    along every ray from 0 to ``pi_D E_D`` is a polynomial of the degree

    ================  =====  ============================================  =======================
    method            f      c                                             exact up to degree
    ================  =====  ============================================  =======================
    ``gate``          1      1                                             grad1 alone
    ``first_order``   2      1                                             1
    ``midpoint``      2      1/2 with probability 1/2, else 1              2
    ``heun``          2      1/3 with probability 3/8, else 1              3
    ================  =====  ============================================  =======================

    That holds for the logits alone: where ``c < 1``, the experts (and all that follows) see a
    smaller output in training than in evaluation, and so do their gradients.

    Args:
        key: a typed key.
        logits: ``(..., E)``. An expert of logit -inf is never drawn; each token needs one of
            finite logit.
        method: one of the table.
        exact_at_argmax: where the drawn expert is the most probable one, the gate is whole, as in
            evaluation (the authors' choice; of first order there). False gives the degrees of the
            table.
        jitter: ignore experts with ``(max_j s_j - s_i) / max(|s_i|, max_j s_j) > 2 jitter``; ``pi``
            is then the softmax over the others. The authors take 0.1; None keeps all. A number
            may be traced.

    Returns:
        expert and gate ``(...)``.

    Raises:
        ValueError: no key, logits without experts, an unknown method, a flag that is none, or a
            negative jitter.

    Reference: Liu et al. 2023, arXiv 2310.00811 (midpoint); Liu et al. 2024, arXiv 2409.12136
    (Heun's third-order method).

    Example:
        >>> from sparse_hyper_jax.estimators import sparse_mixer
        >>> losses = jnp.array([1.0, 3.0])  # at expert 0 and 1, in units of the gate
        >>> def loss(logits, key):
        ...     route = sparse_mixer(key, logits, exact_at_argmax=False)
        ...     return route.gate * losses[route.expert]
        >>> keys = jax.random.split(jax.random.key(0), 4000)
        >>> slope = jnp.mean(jax.vmap(jax.grad(loss), (None, 0))(jnp.zeros(2), keys), axis=0)
        >>> bool(jnp.allclose(slope, jnp.array([-0.5, 0.5]), atol=0.1))  # that of sum_i pi_i^2 l_i
        True
    """
    check_random_key(key)
    checks.check_choice("method", method, tuple(RULES))
    exact_at_argmax = checks.check_flag("exact_at_argmax", exact_at_argmax)
    check_jitter(jitter)
    logits = prepare_logits(logits)
    if jitter is not None:
        logits = jnp.where(_near_the_top(logits, jitter), logits, -jnp.inf)
    draw_key, coin_key = jax.random.split(key)
    index = jax.random.categorical(draw_key, jax.lax.stop_gradient(logits)).astype(jnp.int32)
    rule = RULES[method]
    whole = jax.random.bernoulli(coin_key, rule.whole, index.shape)
    if exact_at_argmax:
        whole |= index == jnp.argmax(logits, axis=-1)
    chosen = probability_of(logits, index)
    value = jax.lax.stop_gradient(jnp.where(whole, 1.0, rule.scale).astype(chosen.dtype) * chosen)
    # The difference is 0 and its gradient that of the probability.
    return Route(index, value + rule.factor * (chosen - jax.lax.stop_gradient(chosen)))


def top_route(
    logits: jax.Array,
    *,
    k: int | None = None,
    bias: jax.Array | None = None,
    renormalise: bool = False,
) -> Route:
    """Send each token to its most probable expert or experts: evaluation, or ordinary training.

    ``D = argmax_i s_i``, ``gate = pi_D`` with its ordinary gradient; with ``k``, the ``k`` largest,
    in falling order.

    Args:
        logits: ``(..., E)``.
        k: how many experts of each token; None for one, without an axis of its own.
        bias: ``(E,)``, added to the probabilities where experts are chosen, and only there: gates
            and gradients know nothing of it. See
            :func:`~sparse_hyper_jax.estimators.update_router_bias`. An expert of logit -inf stays
            without tokens as long as there are ``k`` others.
        renormalise: divide the gates of a token by their sum.

    Returns:
        expert and gate, ``(...)`` or ``(..., k)``.

    Raises:
        ValueError: logits without experts, ``k`` out of range, or a bias of another shape.

    Reference: Shazeer et al. 2017, arXiv 1701.06538; Fedus et al. 2021, arXiv 2101.03961; Wang et
    al. 2024, arXiv 2408.15664, for the bias.

    Example:
        >>> from sparse_hyper_jax.estimators import top_route
        >>> logits = jnp.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
        >>> route = top_route(logits)
        >>> print(route.expert, np.asarray(route.gate).round(2))
        [1 0] [0.67 0.91]
        >>> route = top_route(logits, k=2, renormalise=True)
        >>> print(route.expert.tolist(), np.asarray(route.gate[0]).round(2))
        [[1, 2], [0, 1]] [0.73 0.27]
    """
    logits = prepare_logits(logits)
    count = None if k is None else checks.check_count("k", k, least=1, most=logits.shape[-1])
    renormalise = checks.check_flag("renormalise", renormalise)
    scores = logits if bias is None else _biased(logits, bias)
    if count is None:
        index = jnp.argmax(scores, axis=-1).astype(jnp.int32)[..., None]
    else:
        index = jax.lax.top_k(jax.lax.stop_gradient(scores), count)[1].astype(jnp.int32)
    if renormalise:
        gate = jax.nn.softmax(jnp.take_along_axis(logits, index, axis=-1))
    else:
        gate = jnp.take_along_axis(jax.nn.softmax(logits), index, axis=-1)
    if bias is not None:  # NaN decides nothing, and the gate has to tell
        gate = jnp.where(jnp.any(jnp.isnan(scores), axis=-1, keepdims=True), jnp.nan, gate)
    return Route(index, gate) if count is not None else Route(index[..., 0], gate[..., 0])


def check_jitter(jitter: float | jax.Array | None) -> None:
    """Raise unless ``jitter`` is None or a number of at least 0, as far as it is known."""
    if jitter is not None:
        checks.check_number("jitter", jitter, at_least=0)


def prepare_logits(logits: Any) -> jax.Array:
    """Give logits in float32 or wider after checking that there are experts."""
    logits = as_array("logits", logits)
    checks.require(
        logits.ndim >= 1 and logits.shape[-1] >= 1,
        f"logits of shape {logits.shape}",
        "(..., E) with at least one expert",
        "give logits a last axis with one number per expert",
    )
    return at_least_float32(logits)


def probability_of(logits: jax.Array, index: jax.Array) -> jax.Array:
    """Give the probability of each token's expert, ``(...)``."""
    return jnp.take_along_axis(jax.nn.softmax(logits), index[..., None], axis=-1)[..., 0]


def chosen_expert(index: jax.Array, experts: int) -> jax.Array:
    """Mark each token's expert among all, ``(..., E)``; none, if its number is outside."""
    # At least 32 bits: in 8, the number 256 would be 0.
    index = index if index.dtype.itemsize >= 4 else index.astype(jnp.int32)
    numbers = jnp.arange(experts, dtype=index.dtype).reshape((1,) * index.ndim + (experts,))
    return index[..., None] == numbers


def _near_the_top(logits: jax.Array, jitter: float | jax.Array) -> jax.Array:
    logits = jax.lax.stop_gradient(logits)
    top = jnp.max(logits, axis=-1, keepdims=True)
    size = jnp.maximum(jnp.abs(logits), top)
    # The size is 0 only where logit and maximum are 0, and so is their distance. An infinite one
    # belongs to an expert that has no probability to lose.
    regular = (logits != -jnp.inf) & (size != 0)
    distance = jnp.where(regular, top - logits, 0) / jnp.where(regular, size, 1)
    least = 2 * jnp.asarray(jitter, logits.dtype)
    return ~(distance > least)  # not <=, so that NaN stays to be seen


def _biased(logits: jax.Array, bias: Any) -> jax.Array:
    """Give what experts are chosen by: the probability and the bias, -inf where none may be."""
    bias = as_array("bias", bias)
    checks.check_shape("bias", bias, (logits.shape[-1],), "(E,): one number per expert")
    logits, bias = jax.lax.stop_gradient((logits, bias.astype(logits.dtype)))
    scores = jax.nn.softmax(logits) + bias.reshape((1,) * (logits.ndim - 1) + bias.shape)
    return jnp.where(jnp.isneginf(logits), -jnp.inf, scores)


def check_index(index: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return the experts of tokens as an array, one integer for every token.

    Raises:
        ValueError: another shape, or no integers.
    """
    index = as_array("index", index, "integers")
    checks.require(
        index.shape == shape,
        f"index of shape {index.shape}",
        f"integers of shape {shape}, the expert of every token",
        "pass the expert of the Route",
    )
    return index
