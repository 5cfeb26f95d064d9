"""A linear layer with a sparse backward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop import Sparsifier, UnifiedTopK, init_memory, sparse_dense
from sparse_hyper_jax.backprop.choice import check_no_residue, check_sparsifier
from sparse_hyper_jax.backprop.rules import LAYOUTS, check_options, choice_shapes
from sparse_hyper_jax.nn.backprop_memory import BackpropMemory
from sparse_hyper_jax.nn.keys import Randomness, draw_key
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
        self, shape: tuple[int, int], layout: str, rngs: nnx.Rngs
    ) -> tuple[nnx.Param, nnx.Param | None]:
        """Draw kernel and bias, in the order of ``nnx.Linear``."""
        kernel = self.kernel_init(rngs.params(), shape, self.param_dtype)
        kernel = nnx.Param(kernel if layout == "in_out" else kernel.T, **self.kernel_metadata)
        if not self.use_bias:
            return kernel, None
        bias = self.bias_init(rngs.params(), shape[1:], self.param_dtype)
        return kernel, nnx.Param(bias, **self.bias_metadata)


@dataclass(frozen=True)
class _Backward:
    """How the layer propagates: static options of :func:`sparse_dense`, hashable for ``jit``."""

    sparsifier: Sparsifier
    eta: float
    select_on: str
    dense_bias: bool
    layout: str
    precision: Any

    def check(self, out_features: int) -> None:
        """Raise if an option is wrong, here and not in training."""
        check_sparsifier(self.sparsifier)
        check_options(self.eta, self.select_on)
        choice_shapes(self.sparsifier, out_features)
        checks.check_choice("layout", self.layout, LAYOUTS)


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
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        sparsifier: Sparsifier = UnifiedTopK(0.04),  # noqa: B008 (frozen)
        memory: str = "none",
        eta: float = 0.8,
        select_on: str = "corrected",
        batch_shape: Sequence[int] | None = None,
        adaptive: bool = False,
        count: bool = False,
        dense_bias: bool = True,
        layout: str = "in_out",
        deterministic: bool = False,
        rngs: nnx.Rngs,
        **linear: Unpack[LinearOptions],
    ):
        checks.check_count("in_features", in_features, least=1)
        checks.check_count("out_features", out_features, least=1)
        options = _Linear(**linear)
        backward = _Backward(sparsifier, eta, select_on, dense_bias, layout, options.precision)
        backward.check(out_features)
        self.in_features, self.out_features = in_features, out_features
        self.backward, self.dtype = backward, options.dtype
        self.kernel, self.bias = options.parameters((in_features, out_features), layout, rngs)
        if memory != "none":
            check_no_residue(sparsifier)
        adaptive = adaptive or sparsifier.needs_peak
        shape = _memory_shape(memory, batch_shape, out_features)
        dtype = wide_dtype(options.param_dtype)
        kept = init_memory(memory, shape, adaptive=adaptive, count=count, dtype=dtype)
        stateful = memory != "none" or adaptive or count
        self.memory = BackpropMemory(kept) if stateful else None
        self.deterministic = deterministic
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
        checks.check_last_axis("x", x, self.in_features)
        backward = self.backward
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = dtypes.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        if self.deterministic if deterministic is None else deterministic:
            matrix = kernel if backward.layout == "in_out" else kernel.T
            y = jnp.matmul(x, matrix, precision=backward.precision)
            return y if bias is None else y + bias
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
    memory: str, batch_shape: Sequence[int] | None, out_features: int
) -> tuple[int, ...]:
    checks.require(
        memory != "slot" or batch_shape is not None,
        "memory='slot' without batch_shape",
        "the lengths of all axes of the input but the last",
        "pass batch_shape=(batch,), or memory='shared', which fits every batch",
    )
    batch = () if batch_shape is None else checks.check_index_shape("batch_shape", batch_shape)
    return (*batch, out_features)
