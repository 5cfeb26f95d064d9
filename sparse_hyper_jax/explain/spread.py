"""How far a tuple is from having decided for a cell."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.precision import at_least_float32


def effective_points(proportions: Any) -> jax.Array:
    """Give the number of points among which every tuple shares its value.

    ``exp(-sum_p pi_p log pi_p)``, the perplexity of its proportions: 1 where all goes to one point,
    and ``P`` where all of them get the same. Its mean over training shows when tuples settle.

    Args:
        proportions: ``(P, k)``, as :func:`~sparse_hyper_jax.ops.proportions` gives them: those of a
            tuple sum to 1.

    Returns:
        ``(k,)``, float32 or wider, differentiable inside; NaN for a tuple with a NaN.

    Raises:
        ValueError: not two axes.

    Reference: Jelinek et al. 1977, perplexity.

    Example:
        >>> from sparse_hyper_jax import explain
        >>> explain.effective_points([[0.5, 1.0], [0.5, 0.0]]).round(3).tolist()
        [2.0, 1.0]
    """
    shares = at_least_float32(as_array("proportions", proportions))
    checks.require(
        shares.ndim == 2,
        f"proportions of shape {shares.shape}",
        "(P, k), a column for every tuple",
        "pass what ops.proportions gives",
    )
    # 0 log 0 is 0, and so is its slope: the point may have been dropped.
    some = shares != 0
    logs = jnp.where(some, jnp.log(jnp.where(some, shares, 1)), 0)
    return jnp.exp(-jnp.sum(shares * logs, 0))
