"""A linear layer with a sparse backward pass, and what a training loop does with its memory."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop import (
    Memory,
    Sparsifier,
    UnifiedTopK,
    init_memory,
    next_memory,
    sparse_dense,
)
from sparse_hyper_jax.backprop.choice import check_no_residue, check_sparsifier
from sparse_hyper_jax.backprop.rules import LAYOUTS, check_options, choice_shapes
from sparse_hyper_jax.nn.keys import draw_key


# Linen's TrainState replaces what lies in this collection by its gradient.
@nnx.register_variable_name("_overwrite_with_gradient")
class BackpropMemory(nnx.Variable):
    """What a layer remembers between backward passes: a :class:`Memory`, no parameter."""


TRAINED = (nnx.Param, BackpropMemory)
"""Filter of what to differentiate: ``argnums=nnx.DiffState(0, TRAINED)``."""


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
        use_bias: as in ``nnx.Linear``.
        dtype: of the computation; None infers it from input and parameters.
        param_dtype: of the parameters.
        precision: of the products.
        kernel_init: initializer of ``(in_features, out_features)``.
        bias_init: initializer of ``(out_features,)``.
        kernel_metadata: of the kernel's variable, for instance its sharding.
        bias_metadata: of the bias's variable.
        deterministic: evaluate instead of train.
        rngs: stream ``params``; and ``sample`` for random sparsifiers.

    Raises:
        ValueError: an option is wrong.

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
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Any = nnx.initializers.lecun_normal(),  # noqa: B008 (pure)
        bias_init: Any = nnx.initializers.zeros_init(),  # noqa: B008 (pure)
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        checks.check_count("in_features", in_features, least=1)
        checks.check_count("out_features", out_features, least=1)
        check_sparsifier(sparsifier, key=rngs)
        check_options(eta, select_on)
        choice_shapes(sparsifier, out_features)  # an unfit budget fails here, not in training
        checks.check_choice("layout", layout, LAYOUTS)
        kernel = kernel_init(rngs.params(), (in_features, out_features), param_dtype)
        self.kernel = nnx.Param(kernel if layout == "in_out" else kernel.T, **kernel_metadata)
        self.bias = (
            nnx.Param(bias_init(rngs.params(), (out_features,), param_dtype), **bias_metadata)
            if use_bias
            else None
        )
        if memory != "none":
            check_no_residue(sparsifier)
        adaptive = adaptive or sparsifier.needs_peak
        shape = _memory_shape(memory, batch_shape, out_features)
        dtype_kept = jnp.promote_types(param_dtype, jnp.float32)
        kept = init_memory(memory, shape, adaptive=adaptive, count=count, dtype=dtype_kept)
        stateful = memory != "none" or adaptive or count
        self.memory = BackpropMemory(kept) if stateful else None
        # A tuple of pairs, not a dict: static for jit, and no container of parameters.
        self.options = (
            ("sparsifier", sparsifier),
            ("eta", eta),
            ("select_on", select_on),
            ("dense_bias", dense_bias),
            ("layout", layout),
            ("precision", precision),
        )
        self.in_features, self.out_features = in_features, out_features
        self.dtype = dtype
        self.deterministic = deterministic
        self.rngs = rngs["sample"].fork() if sparsifier.needs_key else None

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
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
        options = dict(self.options)
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = dtypes.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        if self.deterministic if deterministic is None else deterministic:
            matrix = kernel if options["layout"] == "in_out" else kernel.T
            y = jnp.matmul(x, matrix, precision=options["precision"])
            return y if bias is None else y + bias
        key = None
        if options["sparsifier"].needs_key:
            key = draw_key(rngs, self.rngs)
        memory = None if self.memory is None else self.memory.get_value()
        return sparse_dense(key, x, kernel, bias, memory, **options)


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


def carry_memory(model: nnx.Module, gradient: nnx.State) -> nnx.State:
    """Give every layer its next memory, and the optimizer the rest of the gradient.

    Args:
        model: with any number of layers that remember.
        gradient: of the loss with respect to ``nnx.DiffState(0, TRAINED)``.

    Returns:
        the gradient without the memories.

    Raises:
        ValueError: the gradient lacks a memory, or a layer was called several times in the loss
            (outside ``jit``; inside, its memory and next gradients become NaN).
    """
    following, rest = nnx.split_state(gradient, BackpropMemory, ...)
    current = nnx.state(model, BackpropMemory)
    have, want = jax.tree.structure(following), jax.tree.structure(current)
    checks.require(
        have == want,
        f"a gradient with {have.num_leaves} arrays of memories of {want.num_leaves}",
        "the gradient of every memory",
        "differentiate with argnums=nnx.DiffState(0, TRAINED)",
    )
    nnx.update(model, next_memories(current, following))
    return rest


def next_memories(memories: Any, gradient: Any) -> Any:
    """Take the gradient of every memory as the next one, after checking it.

    Args:
        memories: pytree with a :class:`~sparse_hyper_jax.backprop.Memory` for each layer.
        gradient: the same tree, of the loss with respect to it.

    Returns:
        the memories of the next step.

    Raises:
        ValueError: as :func:`~sparse_hyper_jax.backprop.next_memory`.
    """
    return jax.tree.map(
        next_memory, memories, gradient, is_leaf=lambda node: isinstance(node, Memory)
    )


def reset_memory(model: nnx.Module, *, batch_shape: Sequence[int] | None = None) -> None:
    """Let all layers of a model forget, for instance when the loss or the batch size changes.

    Args:
        model: with any number of layers that remember.
        batch_shape: lengths of all axes of the coming inputs but the last; None keeps them. Only
            ``"slot"`` memories have them.
    """

    def forget(memory: Memory) -> Memory:
        empty = jax.tree.map(jnp.zeros_like, memory)
        if batch_shape is None or memory.residue is None or memory.residue.ndim == 1:
            return empty
        shape = (*checks.check_index_shape("batch_shape", batch_shape), memory.residue.shape[-1])
        return empty._replace(residue=jnp.zeros(shape, memory.residue.dtype))

    current = nnx.state(model, BackpropMemory)
    forgotten = jax.tree.map(forget, current, is_leaf=lambda node: isinstance(node, Memory))
    nnx.update(model, forgotten)
