"""A small mixture of experts, and what one of its experts says, by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparse_hyper_jax.nn import Mixture

D, HIDDEN, OUT, EXPERTS = 4, 6, 3, 5
X = jnp.asarray(np.random.default_rng(7).normal(size=(2, 8, D)), jnp.float32)
KEY = jax.random.key(3)


def drawn(shape, scale, seed):
    """Parameters drawn by NumPy: to compile random numbers of every shape takes seconds."""
    return (scale * np.random.default_rng([seed, *shape]).normal(size=shape)).astype(np.float32)


def make(router="midpoint", *, seed=0, **options):
    mixture = Mixture(
        D,
        HIDDEN,
        OUT,
        options.pop("num_experts", EXPERTS),
        router=router,
        kernel_init=lambda key, shape, dtype: jnp.asarray(drawn(shape, 0.5, seed)),
        bias_init=lambda key, shape, dtype: jnp.asarray(drawn(shape, 0.5, seed)),
        rngs=nnx.Rngs(seed),
        **options,
    )
    if mixture.defaults is not None:
        mixture.defaults[...] = jnp.asarray(drawn(mixture.defaults.shape, 1.0, 11))
    return mixture


def of_expert(mixture, expert, token):
    first, second = (np.asarray(kernel[...])[expert] for kernel in mixture.kernels)
    one, two = (np.asarray(bias[...])[expert] for bias in mixture.biases)
    return np.maximum(np.asarray(token) @ first + one, 0) @ second + two


def logits_of(mixture, x):
    """Of all tokens, one below the other."""
    return np.asarray(x).reshape(-1, D) @ np.asarray(mixture.router.kernel[...])


def probabilities(mixture, x):
    powers = np.exp(logits_of(mixture, x))
    return powers / powers.sum(axis=-1, keepdims=True)
