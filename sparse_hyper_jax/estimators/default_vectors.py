"""Default vectors: constants that stand for the experts that were not chosen.

Reference: Panda et al. 2025, arXiv 2504.12463.
"""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators.routing import check_index, prepare_logits, probability_of
from sparse_hyper_jax.precision import wide_dtype


def fill_with_defaults(
    logits: jax.Array, outputs: jax.Array, index: jax.Array, defaults: jax.Array
) -> jax.Array:
    """Mix the output of the chosen expert with a constant vector for each of the others.

    ``y = sum_i pi_i (E_i(x) if i is chosen else stop(default_i))``, so that the router's gradient
    is dense: ``dy / dpi_i`` is an output, true or typical, of every expert.

    Args:
        logits: ``(..., E)``.
        outputs: ``(..., d)`` of the chosen experts.
        index: int ``(...)``, the chosen experts.
        defaults: ``(E, d)``, see :func:`update_defaults`.

    Returns:
        ``(..., d)`` in the dtype of ``outputs``.

    Raises:
        ValueError: shapes that do not agree, or an index that is no integer.

    Reference: Panda et al. 2025, arXiv 2504.12463.
    """
    logits = prepare_logits(logits)
    experts = logits.shape[-1]
    check_index(index, logits.shape[:-1])
    checks.check_shape("defaults", defaults, (experts, None), "one row for each of the logits")
    _check_outputs(outputs, index, jnp.shape(defaults)[1])
    wide = jnp.asarray(outputs, jnp.promote_types(jnp.result_type(outputs), logits.dtype))
    probabilities = jax.nn.softmax(logits)
    others = jnp.where(index[..., None] == jnp.arange(experts), 0, probabilities)
    constant = jax.lax.stop_gradient(jnp.asarray(defaults, wide.dtype))
    mixed = probability_of(logits, index)[..., None] * wide + others @ constant
    return mixed.astype(jnp.result_type(outputs))


def update_defaults(
    defaults: jax.Array, outputs: jax.Array, index: jax.Array, *, decay: float
) -> jax.Array:
    """Move every expert's default vector towards the mean of its outputs.

    ``decay default_i + (1 - decay) mean_{t : index_t = i} outputs_t``; an expert without tokens
    keeps its vector bit for bit.

    Args:
        defaults: ``(E, d)``, zeros at first.
        outputs: ``(..., d)`` of the chosen experts.
        index: int ``(...)`` in ``[0, E)``, the chosen experts.
        decay: from 0 to 1.

    Returns:
        ``(E, d)`` in the dtype of ``defaults``, without gradient.

    Raises:
        ValueError: shapes that do not agree, an index that is no integer, or a decay outside.

    Reference: Panda et al. 2025, arXiv 2504.12463.
    """
    check_decay(decay)
    checks.check_shape("defaults", defaults, (None, None), "(E, d): one row per expert")
    experts, features = jnp.shape(defaults)
    check_index(index, jnp.shape(outputs)[:-1])
    _check_outputs(outputs, index, features)
    defaults, outputs = jax.lax.stop_gradient((jnp.asarray(defaults), jnp.asarray(outputs)))
    dtype = wide_dtype(defaults, outputs)
    rows, owners = outputs.reshape(-1, features).astype(dtype), index.reshape(-1)
    count = jnp.bincount(owners, length=experts)[:, None]
    # The inner maximum keeps 0/0 out of the branch that is not taken.
    mean = jax.ops.segment_sum(rows, owners, experts) / jnp.maximum(count, 1).astype(dtype)
    moved = decay * defaults.astype(dtype) + (1 - decay) * mean
    return jnp.where(count > 0, moved.astype(defaults.dtype), defaults)


def check_decay(decay: float) -> None:
    """Raise unless ``decay`` is a share from 0 to 1."""
    checks.require(
        0 <= decay <= 1, f"decay={decay}", "a share from 0 to 1", "pass for instance decay=0.9"
    )


def _check_outputs(outputs: Any, index: jax.Array, features: int) -> None:
    wanted = (*jnp.shape(index), features)
    checks.require(
        jnp.shape(outputs) == wanted,
        f"outputs of shape {jnp.shape(outputs)} with defaults of {features} columns",
        f"{wanted}, a row for every token",
        "pass what the chosen experts put out, before the gate",
    )
