"""Error feedback on weights: sparse updates that make up for what they left out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.choice import (
    Sparsifier,
    check_key,
    check_no_residue,
    check_sparsifier,
    sparsify,
)
from sparse_hyper_jax.entrance import as_array, check_same_shape
from sparse_hyper_jax.parameter_paths import check_fits
from sparse_hyper_jax.placement import gathered, placed_like
from sparse_hyper_jax.precision import wide_dtype


class ErrorFeedbackState(NamedTuple):
    """What error feedback carries from step to step.

    Attributes:
        residue: tree of the updates, what was left out of them so far.
        key: typed key for random sparsifiers, or None.

    Example:
        >>> from sparse_hyper_jax.backprop import TopK, error_feedback
        >>> state = error_feedback(TopK(0.5)).init({"kernel": jnp.ones((2, 3), jnp.bfloat16)})
        >>> state.residue["kernel"].dtype, state.key  # small rests add up in 32 bits
        (dtype('float32'), None)
    """

    residue: Any
    key: jax.Array | None


def error_feedback(
    sparsifier: Sparsifier, *, eta: float = 1.0, key: jax.Array | None = None
) -> optax.GradientTransformation:
    """Sparsify each array of the updates and add the rest to the next ones.

    For each array, flattened, with update u and residue e::

        a = u + e,   update = S(a),   e' = eta * (a - S(a))

    With ``eta=1`` the updates add up to the sum of all u, less the last residue, whatever the
    inputs were. That makes it different from a memory inside the backward pass, whose residue is
    multiplied with the next step's inputs; and it saves no backward work. What is not finite is
    propagated and not remembered.

    Args:
        sparsifier: for instance ``TopK(0.04)``; an array is one row.
        eta: share of the rest that is kept, from 0 to 1; may be traced.
        key: a random key for random sparsifiers, else None.

    Returns:
        the transformation, with an :class:`ErrorFeedbackState`; put it before the optimizer.

    Raises:
        ValueError: an option is wrong; updates of another structure or shape than the parameters.

    Reference: Stich et al. 2018, arXiv 1809.07599.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.backprop import TopK, error_feedback
        >>> optimizer = optax.chain(error_feedback(TopK(1)), optax.sgd(1.0))
        >>> params, state = jnp.zeros(3), optimizer.init(jnp.zeros(3))
        >>> for _ in range(8):  # one entry at a time
        ...     updates, state = optimizer.update(jnp.array([4.0, 2.0, 1.0]), state)
        ...     params = optax.apply_updates(params, updates)
        >>> params.tolist(), state[0].residue.tolist()  # together 8 times the gradient
        ([-32.0, -14.0, -5.0], [0.0, 2.0, 3.0])
    """
    check_sparsifier(sparsifier)
    check_key(sparsifier, key)
    check_no_residue(sparsifier)
    checks.check_number("eta", eta, at_least=0, at_most=1)

    def init(params: Any) -> Any:
        # At least float32: 16 bits would swallow what is small beside the rest.
        residue = jax.tree.map(
            lambda leaf: jnp.zeros_like(as_array("params", leaf, "floats"), wide_dtype(leaf)),
            params,
        )
        # The caller keeps the key, also when the state is donated.
        return ErrorFeedbackState(residue, None if key is None else jnp.copy(key))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        residues = check_fits(updates, state.residue, "a residue")
        leaves, tree = jax.tree.flatten(updates)
        keys, following = [None] * len(leaves), None
        if state.key is not None:
            following, *keys = jax.random.split(state.key, len(leaves) + 1)
        pairs = [
            _sparsified(sparsifier, eta, *one) for one in zip(keys, leaves, residues, strict=True)
        ]
        sparse = jax.tree.unflatten(tree, [taken for taken, _ in pairs])
        return sparse, ErrorFeedbackState(
            jax.tree.unflatten(tree, [r for _, r in pairs]), following
        )

    return optax.GradientTransformation(init, update)


def _sparsified(
    sparsifier: Sparsifier, eta: Any, key: jax.Array | None, update: Any, residue: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Give ``S(a)`` and ``eta (a - S(a))`` of one array."""
    update = as_array("updates", update, "floats")
    check_same_shape(updates=update, residue=residue)
    whole = update.astype(residue.dtype) + residue
    row = gathered(whole).reshape(whole.size)
    taken = sparsify(key, row[None], sparsifier)[0].reshape(whole.shape).astype(update.dtype)
    taken = placed_like(taken, whole)
    # What is propagated and not finite is not remembered: infinity minus itself would be NaN, and
    # stay for good.
    rest = jnp.where(jnp.isfinite(taken), whole - taken.astype(whole.dtype), 0)
    share = jnp.asarray(eta, whole.dtype)
    return taken, jnp.where(share == 0, 0, share * rest)
