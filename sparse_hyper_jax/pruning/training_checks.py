"""What sparse training is given: one Jacobian at the most, and gradients that fit."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.parameter_paths import check_fits, path_name
from sparse_hyper_jax.reparam.tree import JacobianState


def placeholder_type() -> type:
    """Give the type of what ``optax.tree_utils.tree_map_params`` passes to ``init``."""
    seen: list[type] = []

    def init(params: Any) -> Any:
        seen.append(type(params))
        return params

    optax.tree_utils.tree_map_params(init, lambda leaf: leaf, 0)
    return seen[0]


PLACEHOLDER = placeholder_type()


def check_jacobians(state: Any, number: int) -> None:
    """Raise unless a chain multiplies with the Jacobian of a reparametrisation so many times.

    Raises:
        ValueError: it does so another number of times.
    """
    found = sum(
        isinstance(leaf, JacobianState)
        for leaf in jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, JacobianState))
    )
    checks.require(
        found == number,
        f"{found - number} transformations in inner that multiply with the Jacobian of a"
        " reparametrisation (scale_by_power_jacobian)",
        "none: sparse_training(inner, ..., reparam=powerprop(alpha)) does so itself",
        "take it out of inner and pass reparam=powerprop(alpha), with adapt_to='weights' if it"
        " stood behind the optimizer",
    )


def check_gradient(gradient: Any, params: Any) -> None:
    """Raise unless a gradient has an array of the same shape for every parameter.

    Raises:
        ValueError: a structure or a shape differs.
    """
    places = check_fits(params, gradient, "a gradient")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, param), leaf in zip(leaves, places, strict=True):
        name = path_name(path) or "the array"
        shape = as_array(f"the gradient of {name}", leaf).shape
        checks.require(
            shape == jnp.shape(param),
            f"a gradient of shape {shape} for {name} of shape {jnp.shape(param)}",
            "the same shape",
            "take the gradient with respect to masked weights",
        )
