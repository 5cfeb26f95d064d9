"""Convolutions at offsets that a source network decides for every output."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks, conv
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import Randomness, check_rngs
from sparse_hyper_jax.nn.options import (
    check_float_dtype,
    check_no_container,
    in_evaluation,
    initialised,
)
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.nn.sources import Source, check_source, found_by, over_batch, scaled
from sparse_hyper_jax.nn.tap_conv import with_bias
from sparse_hyper_jax.ops.own_draws import GLOBAL_FROM, GlobalFrom


class AdaptiveConv(nnx.Module):
    """A convolution of few taps, whose offsets a source network gives for every output cell.

    ``y[p] = bias + sum_j x[stride * p + offset_j(p)] kernel[j]``; see
    :func:`~sparse_hyper_jax.conv.adaptive_conv`. In training mode every call draws points around
    the offsets; in evaluation mode offsets are rounded and nothing is random.

    What a source looks at is its own affair: the input (a small convolution of it), coordinates
    alone, both, or nothing, with parameters that all cells share. So are constraints, as one number
    that scales a fixed grid of offsets. Start it at the offsets of an ordinary kernel.

    Args:
        in_features: length of the last axis of the input, ``C``.
        out_features: length of the last axis of the output, ``O``.
        num_taps: number of taps ``k``.
        source: module or function from the input to offsets and variances, each ``(b, T', k)`` for
            sequences, ``(b, H', W', k, 2)`` for planes.
        causal: points after a step are dropped; for sequences.
        stride: output cell p stands at ``stride * p``.
        num_global: points per tap drawn by its density, or from all cells.
        num_local: points per tap drawn from the region.
        region: lengths of the window around a mean; 8 each by default.
        global_from: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        use_bias: add a bias.
        dtype: of the result; None infers it from input and parameters.
        param_dtype: of the parameters.
        kernel_init: initializer of ``(k, C, O)``.
        bias_init: initializer of ``(O,)``.
        deterministic: evaluate instead of train.
        rngs: stream ``params`` for kernel and bias, ``sample`` for the points.

    Raises:
        ValueError: an option is wrong.

    Reference: Dai et al. 2017, arXiv 1703.06211.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> widths = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> def source(x):  # three taps, whose distance from each other depends on the input
        ...     offsets = jnp.array([-2.0, -1.0, 0.0]) * jnp.exp(widths(x))
        ...     return offsets, jnp.ones_like(offsets)
        >>> layer = nn.AdaptiveConv(2, 4, 3, source, causal=True, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((5, 100, 2))).shape
        (5, 100, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_taps: int,
        source: Source,
        *,
        causal: bool = False,
        stride: int = 1,
        num_global: int = 2,
        num_local: int = 2,
        region: Sequence[int] | None = None,
        global_from: GlobalFrom = "density",
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = nnx.initializers.lecun_normal((0, 1)),  # noqa: B008 (pure)
        bias_init: Any = nnx.initializers.zeros_init(),  # noqa: B008 (pure)
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.out_features = checks.check_count("out_features", out_features, least=1)
        self.num_taps = checks.check_count("num_taps", num_taps, least=1)
        check_source(source)
        self.source = source
        check_no_container(global_from=global_from, causal=causal, deterministic=deterministic)
        self.causal, self.deterministic = causal, deterministic
        self.stride = checks.check_count("stride", stride, least=1)
        self.num_global = checks.check_count("num_global", num_global)
        self.num_local = checks.check_count("num_local", num_local)
        self.region = None if region is None else checks.check_index_shape("region", region)
        self.global_from: GlobalFrom = global_from
        self._check_options()
        check_float_dtype("dtype", dtype, inferred=True)
        check_float_dtype("param_dtype", param_dtype)
        check_rngs(rngs, "params", "sample")
        self.dtype = dtype
        shape = self.num_taps, self.in_features, self.out_features
        drawn = initialised("kernel_init", kernel_init, rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(drawn)
        if checks.check_flag("use_bias", use_bias):
            bias = initialised("bias_init", bias_init, rngs.params(), shape[-1:], param_dtype)
            self.bias = nnx.Param(bias)
        else:
            self.bias = None
        self.rngs = rngs["sample"].fork()

    def _check_options(self) -> None:
        checks.check_flag("causal", self.causal)
        checks.check_flag("deterministic", self.deterministic)
        checks.check_choice("global_from", self.global_from, GLOBAL_FROM)

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
        variance_scale: float | jax.Array = 1.0,
    ) -> jax.Array:
        """Convolve a batch.

        Args:
            x: ``(b, T, C)`` or ``(b, H, W, C)``.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.
            variance_scale: factor of all variances; may be traced, and so fall by a schedule.

        Returns:
            ``(b, T', O)`` or ``(b, H', W', O)``.

        Raises:
            ValueError: another number of channels or axes, a source that gives something else, or
                a wrong option.
        """
        self._check_options()
        x = as_array("x", x)
        checks.check_last_axis("x", x, self.in_features)
        checks.require(
            x.ndim in (3, 4),
            f"x of shape {x.shape}",
            "(b, T, C), or (b, H, W, C)",
            "give x an axis of the batch, and one or two of places",
        )
        cells = [-(-size // self.stride) for size in x.shape[1:-1]]
        pair = (2,) if len(cells) == 2 else ()
        shape = (x.shape[0], *cells, self.num_taps, *pair)
        meaning = "(b, T', k), or (b, H', W', k, 2): one for every tap of every output cell"
        offsets, variances = found_by(self.source, x, shape, meaning)
        variances = scaled(variances, variance_scale)
        bias = None if self.bias is None else self.bias.get_value()
        x, kernel, bias = promote((x, self.kernel.get_value(), bias), dtype=self.dtype)
        options: dict[str, Any] = {"causal": self.causal, "stride": self.stride}
        if in_evaluation(self.deterministic, deterministic):

            def hard(x: jax.Array, offsets: jax.Array) -> jax.Array:
                return conv.adaptive_conv_hard(x, kernel, offsets, **options)

            y = jax.vmap(hard)(x, offsets)
        else:
            options |= {"num_global": self.num_global, "num_local": self.num_local}
            options |= {"region": self.region, "global_from": self.global_from}

            def soft(key: jax.Array | None, x: jax.Array, *places: jax.Array) -> jax.Array:
                return conv.adaptive_conv(key, x, kernel, *places, **options)

            points = self.num_global + self.num_local
            y = over_batch(soft, rngs, self.rngs, points, x, x, offsets, variances)
        return with_bias(y.astype(x.dtype), bias)
