"""What a mixture of experts gives back, and what it keeps beside its parameters."""

from typing import NamedTuple

import jax
from flax import nnx

from sparse_hyper_jax.estimators.load import LoadReport


class DefaultVectors(nnx.Variable):
    """What stands for the experts that were not chosen, ``(E, out_features)``: no parameter.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> mixture = nn.Mixture(4, 8, 2, num_experts=3, router="default", rngs=nnx.Rngs(0))
        >>> mixture.defaults.shape, isinstance(mixture.defaults, nn.DefaultVectors)
        ((3, 2), True)
    """


class RouterBias(nnx.Variable):
    """What is added to the probabilities of experts where they are chosen: no parameter.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> mixture = nn.Mixture(4, 8, 2, 3, router="top", bias_rate=0.001, rngs=nnx.Rngs(0))
        >>> mixture.router_bias.shape, isinstance(mixture.router_bias, nn.RouterBias)
        ((3,), True)
    """


class Mixed(NamedTuple):
    """What a mixture gives back.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> mixture = nn.Mixture(4, 8, 2, num_experts=3, router="top", rngs=nnx.Rngs(0))
        >>> mixed = mixture(jnp.ones((5, 4)))
        >>> mixed.y.shape, mixed.expert.shape, mixed.balance_loss.shape, mixed.defaults
        ((5, 2), (5,), (), None)
    """

    y: jax.Array
    """``(..., out_features)``."""

    expert: jax.Array
    """int32 ``(...)`` or ``(..., k)``, the experts of each token, -1 where it was dropped; of a
    dense router, the most probable one."""

    balance_loss: jax.Array
    """Scalar; see :func:`~sparse_hyper_jax.estimators.balance_loss`."""

    defaults: jax.Array | None
    """``(E, out_features)``, the next default vectors; None unless the router is ``"default"``."""

    z_loss: jax.Array
    """Scalar; see :func:`~sparse_hyper_jax.estimators.router_z_loss`."""

    load: LoadReport
    """How many tokens asked for every expert; see
    :func:`~sparse_hyper_jax.estimators.load_report`."""

    dropped: jax.Array
    """int32 scalar, how many of them found no place."""

    router_bias: jax.Array | None
    """``(E,)``, the next bias of the router's choices; None without ``bias_rate``."""
