"""What an optimizer remembers of a slot belongs to the tap that was there before."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks


def clear_moments(
    optimizer: optax.GradientTransformation, state: optax.OptState, fresh: Any
) -> optax.OptState:
    """Set to 0 what an optimizer remembers of the weights of fresh taps.

    Momentum and second moments of a slot outlast the tap that it held, and would move the next one.
    Everything that the optimizer keeps per parameter is cleared, in any chain; counters are kept,
    so Adam's first steps for a fresh tap are up to three times as long as usual.

    Args:
        optimizer: what has made the state.
        state: any state of optax.
        fresh: the tree of the parameters, with flags in their place: True clears a parameter, False
            leaves it, and flags ``(k,)`` clear entries of its first axis.

    Returns:
        the state.

    Raises:
        ValueError: another tree, or flags that do not fit a parameter.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax import conv
        >>> optimizer, parameters = optax.adam(0.1), {"taps": jnp.ones((2, 3)), "bias": jnp.ones(3)}
        >>> state = optimizer.init(parameters)
        >>> _, state = optimizer.update(parameters, state, parameters)
        >>> fresh = {"taps": jnp.array([False, True]), "bias": False}
        >>> print(conv.clear_moments(optimizer, state, fresh)[0].mu["taps"].round(1))
        [[0.1 0.1 0.1] [0. 0. 0. ]]
    """
    checks.require(
        callable(getattr(optimizer, "init", None)),
        f"optimizer={optimizer!r:.80}",
        "an optax.GradientTransformation",
        "pass what has made the state",
    )
    try:
        return optax.tree_utils.tree_map_params(
            optimizer,
            _cleared,
            state,
            fresh,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
    except (TypeError, ValueError) as error:
        if str(error).startswith("found "):
            raise
        raise ValueError(
            f"found fresh of the structure {jax.tree.structure(fresh)}; expected that of the "
            f"parameters whose moments the state holds; pass one flag or one array per parameter"
        ) from error


def _cleared(moment: Any, fresh: Any) -> Any:
    """Clear entries of what is kept for one parameter, unless it is masked away."""
    if isinstance(moment, optax.MaskedNode):
        return moment
    flags = jnp.asarray(fresh)
    checks.require(
        flags.dtype == jnp.bool_ and moment.shape[: flags.ndim] == flags.shape,
        f"fresh of shape {flags.shape} and dtype {flags.dtype} for a moment of {moment.shape}",
        "flags for the first axes of the parameter",
        "pass True, False or bool (k,)",
    )
    return jnp.where(flags.reshape(flags.shape + (1,) * (moment.ndim - flags.ndim)), 0, moment)
