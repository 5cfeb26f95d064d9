"""Default vectors: constants that stand for the experts that were not chosen.

Reference: Panda et al. 2025, arXiv 2504.12463.
"""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.estimators.routing import check_index, chosen_expert, prepare_logits
from sparse_hyper_jax.ops.inside import clip_inside
from sparse_hyper_jax.precision import float_dtype, wide_dtype


def fill_with_defaults(
    logits: jax.Array, outputs: jax.Array, index: jax.Array, defaults: jax.Array
) -> jax.Array:
    """Mix the output of the chosen expert with a constant vector for each of the others.

    ``y = sum_i pi_i (E_i(x) if i is chosen else stop(default_i))``, so that the router's gradient
    is dense: ``dy / dpi_i`` is an output, true or typical, of every expert.

    Args:
        logits: ``(..., E)``.
        outputs: ``(..., d)`` of the chosen experts.
        index: int ``(...)``, the chosen experts; a number outside of ``[0, E)`` marks a token as
            padding.
        defaults: ``(E, d)``, see :func:`update_defaults`.

    Returns:
        ``(..., d)`` in the dtype of ``outputs`` (float32 if that is of integers); 0 for padding.

    Raises:
        ValueError: shapes that do not agree, or an index that is no integer.

    Reference: Panda et al. 2025, arXiv 2504.12463.

    Example:
        >>> from sparse_hyper_jax.estimators import fill_with_defaults, top_route
        >>> logits, defaults = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 2.0]])
        >>> route = top_route(logits)  # expert 0, whose output is 1 and 1
        >>> mixed = fill_with_defaults(logits, jnp.ones((1, 2)), route.expert, defaults)
        >>> print(np.asarray(mixed).round(2))
        [[0.73 1.27]]
    """
    logits = prepare_logits(logits)
    experts = logits.shape[-1]
    index = check_index(index, logits.shape[:-1])
    outputs, defaults = as_array("outputs", outputs), as_array("defaults", defaults)
    checks.check_shape("defaults", defaults, (experts, None), "one row for each of the logits")
    _check_outputs(outputs, index, defaults.shape[1])
    dtype = wide_dtype(outputs, logits, defaults)
    chosen = chosen_expert(index, experts)
    # What padding holds goes before it is used: its slopes are 0, also beside NaN.
    inside = jnp.any(chosen, axis=-1, keepdims=True)
    probabilities = jax.nn.softmax(jnp.where(inside, logits, 0)).astype(dtype)
    own = jnp.sum(jnp.where(chosen, probabilities, 0), axis=-1, keepdims=True)
    others = jnp.where(inside & ~chosen, probabilities, 0)
    constant = jax.lax.stop_gradient(defaults.astype(dtype))
    typical = jnp.matmul(others, constant, precision=jax.lax.Precision.HIGHEST)
    mixed = own * jnp.where(inside, outputs.astype(dtype), 0) + typical
    mixed = jnp.where(inside, mixed, 0)  # also where a default vector is NaN
    return mixed.astype(float_dtype(outputs))


def update_defaults(
    defaults: jax.Array, outputs: jax.Array, index: jax.Array, *, decay: float | jax.Array
) -> jax.Array:
    """Move every expert's default vector towards the mean of its outputs.

    ``decay default_i + (1 - decay) mean_{t : index_t = i} outputs_t``; an expert without tokens
    keeps its vector bit for bit.

    Args:
        defaults: ``(E, d)``, zeros at first.
        outputs: ``(..., d)`` of the chosen experts.
        index: int ``(...)``, the chosen experts; a number outside of ``[0, E)`` marks a token as
            padding.
        decay: from 0 to 1; may be traced.

    Returns:
        ``(E, d)`` in the dtype of ``defaults`` (float32 if that is of integers), without gradient.

    Raises:
        ValueError: shapes that do not agree, an index that is no integer, or a decay outside.

    Reference: Panda et al. 2025, arXiv 2504.12463.

    Example:
        >>> from sparse_hyper_jax.estimators import update_defaults
        >>> outputs, experts = jnp.array([[1.0], [3.0], [8.0]]), [0, 0, -1]  # the last is padding
        >>> update_defaults(jnp.ones((2, 1)), outputs, experts, decay=0.5).tolist()
        [[1.5], [1.0]]
    """
    check_decay(decay)
    defaults, outputs = as_array("defaults", defaults), as_array("outputs", outputs)
    checks.check_shape("defaults", defaults, (None, None), "(E, d): one row per expert")
    experts, features = defaults.shape
    index = check_index(index, outputs.shape[:-1])
    _check_outputs(outputs, index, features)
    defaults, outputs = jax.lax.stop_gradient((defaults.astype(float_dtype(defaults)), outputs))
    dtype = wide_dtype(defaults, outputs)
    rows = _everywhere(outputs).reshape(-1, features).astype(dtype)
    owners, inside = clip_inside(_everywhere(index).reshape(-1, 1), (experts,))
    # A sum over segments drops what lies outside of them.
    owners = jnp.where(inside, owners[:, 0], experts)
    count = jax.ops.segment_sum(jnp.ones(owners.shape, jnp.int32), owners, experts)[:, None]
    # The inner maximum keeps 0/0 out of the branch that is not taken.
    mean = jax.ops.segment_sum(rows, owners, experts) / jnp.maximum(count, 1).astype(dtype)
    kept = jnp.asarray(decay, dtype)
    moved = kept * defaults.astype(dtype) + (1 - kept) * mean
    return jnp.where(count > 0, moved.astype(defaults.dtype), defaults)


def check_decay(decay: float | jax.Array) -> None:
    """Raise unless ``decay`` is a share from 0 to 1, as far as it is known."""
    checks.check_number("decay", decay, at_least=0, at_most=1)


def _everywhere(tokens: jax.Array) -> jax.Array:
    """Bring tokens that are spread over Explicit axes together, as sums over segments ask for."""
    sharding = jax.typeof(tokens).sharding
    if all(axis is None for axis in sharding.spec):
        return tokens
    return jax.sharding.reshard(tokens, jax.NamedSharding(sharding.mesh, jax.P()))


def _check_outputs(outputs: jax.Array, index: jax.Array, features: int) -> None:
    wanted = (*index.shape, features)
    checks.require(
        outputs.shape == wanted,
        f"outputs of shape {outputs.shape} with defaults of {features} columns",
        f"{wanted}, a row for every token",
        "pass what the chosen experts put out, before the gate",
    )
