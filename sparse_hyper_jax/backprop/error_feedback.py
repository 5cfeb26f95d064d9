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
from sparse_hyper_jax.precision import wide_dtype


class ErrorFeedbackState(NamedTuple):
    """What error feedback carries from step to step.

    Attributes:
        residue: tree of the updates, what was left out of them so far.
        key: typed key for random sparsifiers, or None.
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
    multiplied with the next step's inputs; and it saves no backward work.

    Args:
        sparsifier: for instance ``TopK(0.04)``; an array is one row.
        eta: share of the rest that is kept, from 0 to 1.
        key: a typed key for random sparsifiers, else None.

    Returns:
        the transformation, with an :class:`ErrorFeedbackState`; put it before the optimizer.

    Raises:
        ValueError: an option is wrong.

    Reference: Stich et al. 2018, arXiv 1809.07599.
    """
    check_sparsifier(sparsifier)
    check_key(sparsifier, key)
    check_no_residue(sparsifier)
    checks.require(0 <= eta <= 1, f"eta={eta}", "from 0 to 1", "change eta")

    def init(params: Any) -> Any:
        # At least float32: 16 bits would swallow what is small beside the rest.
        residue = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, wide_dtype(leaf)), params)
        return ErrorFeedbackState(residue, key)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(updates)]
        leaves, tree = jax.tree.flatten(jax.tree.map(jnp.add, updates, state.residue))
        keys, following = [None] * len(leaves), None
        if state.key is not None:
            following, *keys = jax.random.split(state.key, len(leaves) + 1)
        sparse = [
            sparsify(key, leaf.reshape(1, -1), sparsifier).reshape(leaf.shape).astype(dtype)
            for key, leaf, dtype in zip(keys, leaves, dtypes, strict=True)
        ]
        rest = [eta * (leaf - taken) for leaf, taken in zip(leaves, sparse, strict=True)]
        residue = jax.tree.unflatten(tree, rest)
        return jax.tree.unflatten(tree, sparse), ErrorFeedbackState(residue, following)

    return optax.GradientTransformation(init, update)
