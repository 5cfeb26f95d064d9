"""A linear layer with a sparse backward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop import Sparsifier, UnifiedTopK, init_memory, sparse_dense
from sparse_hyper_jax.backprop.choice import check_no_residue, check_sparsifier
from sparse_hyper_jax.backprop.memory import KINDS, MemoryKind, SelectOn
from sparse_hyper_jax.backprop.rules import LAYOUTS, Layout, check_options, choice_shapes
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.nn.backprop_memory import BackpropMemory
from sparse_hyper_jax.nn.keys import Randomness, check_rngs, draw_key
from sparse_hyper_jax.nn.options import check_float_dtype, in_evaluation, initialised
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.precision import wide_dtype


class LinearOptions(TypedDict, total=False):
    """What :class:`SparseBackpropLinear` shares with ``nnx.Linear``, defaults included."""

    use_bias: bool
    """By default true."""

    dtype: Any
    """Of the computation; None, the default, infers it from input and parameters."""

    param_dtype: Any
    """Of the parameters, by default float32."""

    precision: Any
    """Of the products."""

    kernel_init: Any
    """Initializer of ``(in_features, out_features)``."""

    bias_init: Any
    """Initializer of ``(out_features,)``."""

    kernel_metadata: Mapping[str, Any]
    """Of the kernel's variable, for instance its sharding."""

    bias_metadata: Mapping[str, Any]
    """Of the bias's variable."""


@dataclass(frozen=True)
class _Linear:
    """The options of ``nnx.Linear`` with their defaults; a name that is none of them raises."""

    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    kernel_init: Any = nnx.initializers.lecun_normal()  # noqa: RUF009 (pure)
    bias_init: Any = nnx.initializers.zeros_init()  # noqa: RUF009 (pure)
    kernel_metadata: Mapping[str, Any] = field(default_factory=dict)
    bias_metadata: Mapping[str, Any] = field(default_factory=dict)

    def parameters(
        self, shape: tuple[int, int], layout: Layout, rngs: nnx.Rngs
    ) -> tuple[nnx.Param, nnx.Param | None]:
        """Draw kernel and bias, in the order of ``nnx.Linear``."""
        dtype = self.param_dtype
        kernel = initialised("kernel_init", self.kernel_init, rngs.params(), shape, dtype)
        kernel = nnx.Param(kernel if layout == "in_out" else kernel.T, **self.kernel_metadata)
        if not self.use_bias:
            return kernel, None
        bias = initialised("bias_init", self.bias_init, rngs.params(), shape[1:], dtype)
        return kernel, nnx.Param(bias, **self.bias_metadata)

    def check(self) -> None:
        """Raise if an option is wrong."""
        checks.check_flag("use_bias", self.use_bias)
        check_float_dtype("dtype", self.dtype, inferred=True)
        check_float_dtype("param_dtype", self.param_dtype)
        check_instance("kernel_metadata", self.kernel_metadata, Mapping)
        check_instance("bias_metadata", self.bias_metadata, Mapping)
        _check_precision(self.precision)


@dataclass(frozen=True)
class _Backward:
    """How the layer propagates: static options of :func:`sparse_dense`, hashable for ``jit``."""

    sparsifier: Sparsifier
    eta: float
    select_on: SelectOn
    dense_bias: bool
    layout: Layout
    precision: Any

    def check(self, out_features: int) -> None:
        """Raise if an option is wrong, here and not in training."""
        check_sparsifier(self.sparsifier)
        check_options(self.eta, self.select_on)
        checks.check_flag("dense_bias", self.dense_bias)
        checks.check_choice("layout", self.layout, LAYOUTS)
        choice_shapes(self.sparsifier, out_features)


class SparseBackpropLinear(nnx.Module):
    """A drop-in for ``nnx.Linear`` that propagates a few components of its cotangent.

    The forward pass is that of ``nnx.Linear``, with parameters of the same names, shapes and
    initial values. In training mode the backward pass is that of
    :func:`~sparse_hyper_jax.backprop.sparse_dense`; in evaluation mode (``layer.eval()`` or
    ``deterministic=True``) gradients are dense and exact. Of the options of ``nnx.Linear`` it lacks
    ``dot_general``, ``promote_dtype``, ``preferred_element_type`` and ``out_sharding``. Put it
    before a nonlinearity; the output layer of a classifier is better left dense. With a memory, a
    step is::

        loss, gradient = nnx.value_and_grad(loss_of, argnums=nnx.DiffState(0, TRAINED))(model, x)
        optimizer.update(model, carry_memory(model, gradient))

    Args:
        in_features: length of the last axis of the input.
        out_features: length of the last axis of the output.
        sparsifier: what is propagated; by default the 4 % of the units that matter most to the
            batch.
        memory: ``"none"``, ``"slot"`` (of every example's place in the batch) or ``"shared"``.
        eta: share of what is left over that is remembered, from 0 to 1.
        select_on: see :func:`~sparse_hyper_jax.backprop.sparsify_cotangent`.
        batch_shape: lengths of all axes of the input but the last, for a ``"slot"`` memory.
        adaptive: the memory has a peak, for adaptive sparsifiers.
        count: the memory counts how often each unit is propagated.
        dense_bias: the bias gets the whole cotangent.
        layout: ``"in_out"``, the kernel of ``nnx.Linear``, or ``"out_in"``, its transpose, with a
            faster backward pass.
        deterministic: evaluate instead of train.
        rngs: stream ``params``; and ``sample`` for random sparsifiers.
        **linear: ``use_bias``, ``dtype``, ``param_dtype``, ``precision``, ``kernel_init``,
            ``bias_init``, ``kernel_metadata`` and ``bias_metadata`` of ``nnx.Linear``; see
            :class:`LinearOptions`.

    Raises:
        ValueError: an option is wrong.
        TypeError: there is no such option.

    Reference: Sun et al. 2017, arXiv 1706.06197; Zhang et al. 2020, arXiv 1905.10194.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import backprop, nn
        >>> sparsifier = backprop.UnifiedTopK(0.2)  # two of ten units
        >>> layer = nn.SparseBackpropLinear(8, 10, sparsifier=sparsifier, rngs=nnx.Rngs(0))
        >>> gradient = nnx.grad(lambda layer, x: (layer(x) ** 2).sum())(layer, jnp.ones((4, 8)))
        >>> int(jnp.any(gradient["kernel"][...] != 0, axis=0).sum())
        2
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        sparsifier: Sparsifier = UnifiedTopK(0.04),  # noqa: B008 (frozen)
        memory: MemoryKind = "none",
        eta: float = 0.8,
        select_on: SelectOn = "corrected",
        batch_shape: Sequence[int] | None = None,
        adaptive: bool = False,
        count: bool = False,
        dense_bias: bool = True,
        layout: Layout = "in_out",
        deterministic: bool = False,
        rngs: nnx.Rngs,
        **linear: Unpack[LinearOptions],
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.out_features = checks.check_count("out_features", out_features, least=1)
        options = _Linear(**linear)
        options.check()
        self.backward = _Backward(sparsifier, eta, select_on, dense_bias, layout, options.precision)
        self.backward.check(self.out_features)
        shape = _memory_shape(memory, batch_shape, self.out_features)
        if memory != "none":
            check_no_residue(sparsifier)
        adaptive = checks.check_flag("adaptive", adaptive) or sparsifier.needs_peak
        stateful = memory != "none" or adaptive or checks.check_flag("count", count)
        self.deterministic = checks.check_flag("deterministic", deterministic)
        check_rngs(rngs, "params", *(["sample"] if sparsifier.needs_key else []))
        size = self.in_features, self.out_features
        self.kernel, self.bias = options.parameters(size, layout, rngs)
        dtype = wide_dtype(jnp.dtype(options.param_dtype))
        kept = init_memory(memory, shape, adaptive=adaptive, count=count, dtype=dtype)
        self.memory = BackpropMemory(kept) if stateful else None
        self.dtype = options.dtype
        self.rngs = rngs["sample"].fork() if sparsifier.needs_key else None

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> jax.Array:
        """Map a batch.

        Args:
            x: ``(..., in_features)``.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.

        Returns:
            ``(..., out_features)``.

        Raises:
            ValueError: as :func:`~sparse_hyper_jax.backprop.sparse_dense`.
        """
        backward = self.backward
        check_instance("backward", backward, _Backward)
        check_float_dtype("dtype", self.dtype, inferred=True)
        hard = in_evaluation(self.deterministic, deterministic)
        x = as_array("x", x)
        checks.check_last_axis("x", x, self.in_features)
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = promote((x, self.kernel[...], bias), dtype=self.dtype)
        if hard:
            matrix = kernel if backward.layout == "in_out" else kernel.T
            y = jnp.matmul(x, matrix, precision=backward.precision)
            return y if bias is None else y + jnp.broadcast_to(bias, y.shape)
        return sparse_dense(
            draw_key(rngs, self.rngs) if backward.sparsifier.needs_key else None,
            x,
            kernel,
            bias,
            None if self.memory is None else self.memory.get_value(),
            sparsifier=backward.sparsifier,
            eta=backward.eta,
            select_on=backward.select_on,
            dense_bias=backward.dense_bias,
            layout=backward.layout,
            precision=backward.precision,
        )


def _memory_shape(
    memory: MemoryKind, batch_shape: Sequence[int] | None, out_features: int
) -> tuple[int, ...]:
    checks.check_choice("memory", memory, KINDS)
    checks.require(
        memory != "slot" or batch_shape is not None,
        "memory='slot' without batch_shape",
        "the lengths of all axes of the input but the last",
        "pass batch_shape=(batch,), or memory='shared', which fits every batch",
    )
    checks.require(
        memory == "slot" or batch_shape is None,
        f"batch_shape={batch_shape} with memory={memory!r}",
        "a batch_shape for memory='slot' alone: other memories fit every batch",
        "leave batch_shape out, or pass memory='slot'",
    )
    batch = () if batch_shape is None else checks.check_index_shape("batch_shape", batch_shape)
    return (*batch, out_features)


def _check_precision(precision: Any) -> None:
    """Raise unless ``jax.lax.dot`` knows this precision."""
    try:
        like = jax.ShapeDtypeStruct((1, 1), jnp.float32)
        jax.eval_shape(lambda x: jnp.matmul(x, x, precision=precision), like)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"found precision={precision!r:.80}; expected a precision of jax.lax.dot; "
            "pass for instance 'highest', or None"
        ) from error
