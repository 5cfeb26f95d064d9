"""What convolutions with taps share: kernel, bias, and weights that are fresh with their slot."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.options import check_float_dtype, initialised
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.nn.tap_layers import TapLayer


def small_weights(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Draw weights ``(k, C, ...)`` of standard deviation ``0.02 / sqrt(C)``.

    Small, so that a tap that was just placed does not disturb what the others have learned.
    """
    return 0.02 / shape[1] ** 0.5 * jax.random.normal(key, tuple(shape), dtype)


class TapConv(TapLayer):
    """A convolution from ``C`` to ``O`` channels by a kernel ``(k, C, O)`` over ``k`` slots.

    What can be read, and where, is said by those that derive from it, which also set ``taps``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_taps: int,
        *,
        directions: int,
        use_bias: bool,
        dtype: Any,
        param_dtype: Any,
        kernel_init: Any,
        bias_init: Any,
        rngs: nnx.Rngs,
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.out_features = checks.check_count("out_features", out_features, least=1)
        self.num_taps = checks.check_count("num_taps", num_taps, least=1)
        self.directions = checks.check_count("directions", directions, least=1)
        check_float_dtype("dtype", dtype, inferred=True)
        check_float_dtype("param_dtype", param_dtype)
        check_rngs(rngs, "params")
        self.dtype = dtype
        shape = self.num_taps, self.in_features, self.out_features
        drawn = initialised("kernel_init", kernel_init, rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(drawn)
        if checks.check_flag("use_bias", use_bias):
            bias = initialised("bias_init", bias_init, rngs.params(), shape[-1:], param_dtype)
            self.bias = nnx.Param(bias)
        else:
            self.bias = None

    def fresh_parameters(self, fresh: jax.Array) -> dict[str, jax.Array]:
        """See :class:`TapLayer`."""
        return {"kernel": fresh[:, None, None]}

    def promoted(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Give input, kernel and bias in the dtype that is computed in."""
        x = as_array("x", x)
        checks.check_last_axis("x", x, self.in_features)
        bias = None if self.bias is None else self.bias.get_value()
        return promote((x, self.kernel.get_value(), bias), dtype=self.dtype)


def with_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Add a bias ``(O,)``, if there is one."""
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)
