"""What keeps a router from sending all tokens to the same experts, and its logits small.

Two losses, and a bias of the choice (not of the gate) that is moved by what was counted, and by no
gradient.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.estimators.routing import check_index, chosen_expert, prepare_logits
from sparse_hyper_jax.precision import at_least_float32


def balance_loss(logits: jax.Array, index: jax.Array) -> jax.Array:
    """Punish a router that gives some experts more tokens than others.

    ``E sum_i f_i P_i`` with ``f_i`` the share of the tokens that go to expert i (constant in the
    gradient) and ``P_i`` the mean of ``pi_i``: 1 if the router is uniform, E if it always takes the
    same expert with certainty. Where a token has several experts, each counts.

    Args:
        logits: ``(..., E)``, all leading axes tokens.
        index: int ``(...)`` or ``(..., k)``, the experts they went to; a number outside of
            ``[0, E)`` marks padding, and a token without any expert is padding as a whole.

    Returns:
        scalar in float32 or wider; 0 if all tokens are padding.

    Raises:
        ValueError: no tokens, no experts, an index of another shape or dtype, or with more choices
            than experts.

    Reference: Fedus et al. 2021, arXiv 2101.03961.

    Example:
        >>> from sparse_hyper_jax.estimators import balance_loss
        >>> even, one_sided = jnp.zeros((4, 2)), jnp.tile(jnp.array([9.0, 0.0]), (4, 1))
        >>> print(balance_loss(even, [0, 1, 0, 1]), balance_loss(one_sided, [0, 0, 0, 0]).round(2))
        1.0 2.0
    """
    logits = prepare_logits(logits)
    index = check_choices(index, logits.shape)
    experts, every = logits.shape[-1], tuple(range(logits.ndim - 1))
    _check_tokens(logits)
    chosen = chosen_expert(index, experts)
    if index.ndim == logits.ndim:
        chosen = jnp.sum(chosen, axis=-2, dtype=jnp.int32)
    inside = jnp.any(chosen, axis=-1, keepdims=True)
    probabilities = jnp.where(inside, jax.nn.softmax(jnp.where(inside, logits, 0)), 0)
    # The maxima keep 0/0 out: without tokens all sums are 0.
    tokens = jnp.maximum(jnp.sum(inside, dtype=jnp.int32), 1).astype(logits.dtype)
    load = jnp.sum(chosen, axis=every, dtype=jnp.int32)
    share = load.astype(logits.dtype) / jnp.maximum(jnp.sum(load), 1).astype(logits.dtype)
    return experts * jnp.sum(share * (jnp.sum(probabilities, axis=every) / tokens))


def router_z_loss(logits: jax.Array, index: jax.Array | None = None) -> jax.Array:
    """Punish large logits of a router, whose softmax is exact in no short format.

    ``mean_t (log sum_i exp s_ti)^2``.

    Args:
        logits: ``(..., E)``, all leading axes tokens; each needs one of finite logit.
        index: int ``(...)`` or ``(..., k)``, the experts they went to, where some tokens are
            padding: all their numbers lie outside of ``[0, E)``.

    Returns:
        scalar in float32 or wider; 0 if all tokens are padding.

    Raises:
        ValueError: no tokens, no experts, an index of another shape or dtype, or with more choices
            than experts.

    Reference: Zoph et al. 2022, "ST-MoE", arXiv 2202.08906.

    Example:
        >>> from sparse_hyper_jax.estimators import router_z_loss
        >>> small, large = router_z_loss(jnp.zeros((4, 2))), router_z_loss(jnp.full((4, 2), 9.0))
        >>> print(f"{small:.2f} {large:.2f}")
        0.48 93.96
    """
    logits = prepare_logits(logits)
    _check_tokens(logits)
    inside = jnp.ones(logits.shape[:-1], bool)
    if index is not None:
        index = check_choices(index, logits.shape)
        inside = jnp.any(chosen_expert(index, logits.shape[-1]), axis=-1)
        inside = jnp.any(inside, axis=-1) if index.ndim == logits.ndim else inside
    # What padding holds goes before it is used: its slopes are 0, also beside NaN.
    sums = jax.nn.logsumexp(jnp.where(inside[..., None], logits, 0), axis=-1)
    tokens = jnp.maximum(jnp.sum(inside, dtype=jnp.int32), 1).astype(logits.dtype)
    return jnp.sum(jnp.where(inside, jnp.square(sums), 0)) / tokens


def update_router_bias(
    bias: jax.Array, load: jax.Array, *, rate: float | jax.Array = 0.001
) -> jax.Array:
    """Move the bias of a router's choices towards an even load: no loss, and no gradient.

    ``bias_i + rate sign(mean_j load_j - load_i)``, then the mean is taken off, which no choice
    depends on.

    Args:
        bias: ``(E,)``, zeros at first; see :func:`~sparse_hyper_jax.estimators.top_route`.
        load: ``(E,)``, tokens of every expert in the last batch: before any were dropped.
        rate: at least 0, in units of probability; may be traced.

    Returns:
        ``(E,)`` in float32 or wider, without gradient.

    Raises:
        ValueError: shapes that differ, or a negative rate.

    Reference: Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy for
    Mixture-of-Experts", arXiv 2408.15664 (without the mean taken off).

    Example:
        >>> from sparse_hyper_jax.estimators import top_route, update_router_bias
        >>> logits, bias = jnp.array([[2.0, 1.0], [2.0, 1.5], [2.0, 1.9]]), jnp.zeros(2)
        >>> for _ in range(50):
        ...     load = jnp.bincount(top_route(logits, bias=bias).expert, length=2)
        ...     bias = update_router_bias(bias, load, rate=0.01)
        >>> sorted(load.tolist())  # without the bias expert 0 had all three
        [1, 2]
    """
    checks.check_number("rate", rate, at_least=0)
    bias, load = as_array("bias", bias), as_array("load", load)
    checks.check_shape("bias", bias, (None,), "(E,): one number per expert")
    checks.check_shape("load", load, bias.shape, "the shape of bias")
    bias, load = jax.lax.stop_gradient((at_least_float32(bias), at_least_float32(load)))
    # As whole numbers, so that an even load is seen as one.
    error = jnp.sum(load) - len(load) * load
    moved = bias + jnp.asarray(rate, bias.dtype) * jnp.sign(error).astype(bias.dtype)
    return moved - jnp.mean(moved)


def _check_tokens(logits: jax.Array) -> None:
    checks.require(
        math.prod(logits.shape[:-1]) > 0,
        f"logits of shape {logits.shape}",
        "at least one token",
        "leave out the loss",
    )


def check_choices(index: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return the experts of tokens as an array, one integer for every token, or several.

    Args:
        index: as it was passed.
        shape: that of the logits, ``(..., E)``.

    Raises:
        ValueError: another shape, more choices than experts, or no integers.
    """
    index = as_array("index", index, "integers")
    *tokens, experts = shape
    several = index.ndim == len(shape) and index.shape[-1] > 0
    if several and index.shape[:-1] == tuple(tokens):
        checks.require(
            index.shape[-1] <= experts,
            f"index of shape {index.shape} for logits of shape {shape}",
            f"at most {experts} different experts per token",
            "give logits their axis of tokens, or choose fewer",
        )
    return check_index(index, (*tokens, index.shape[-1]) if several else tuple(tokens))
