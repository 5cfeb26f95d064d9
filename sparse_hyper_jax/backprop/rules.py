"""What every sparsified operation shares: checks of its options, and placement on devices."""

import math
from dataclasses import is_dataclass, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.choice import (
    Choice,
    Sparsifier,
    check_key,
    check_no_residue,
    check_sparsifier,
)
from sparse_hyper_jax.backprop.memory import SELECT_ON, Draw, Memory, Rule, SelectOn, is_wide

Layout = Literal["out_in", "in_out"]
LAYOUTS = get_args(Layout)


def make_rule(
    sparsifier: Sparsifier,
    eta: float | jax.Array,
    select_on: SelectOn,
    *,
    key: jax.Array | None,
    memory: Memory | None,
    out_shape: tuple[int, ...],
    axes: tuple[str, ...],
) -> tuple[Rule, Draw]:
    """Check the options and put them together, static ones and those that may be traced.

    Args:
        sparsifier: what chooses.
        eta: share of the rest that is remembered.
        select_on: what it chooses by.
        key: a typed key or None.
        memory: of the call site.
        out_shape: shape of the operation's output.
        axes: mesh axes over which the rows are spread and the memory is not.

    Raises:
        ValueError: an option is wrong, or key or memory does not fit the sparsifier.
    """
    check_sparsifier(sparsifier)
    check_key(sparsifier, key)
    check_options(eta, select_on)
    checks.require(
        not sparsifier.needs_peak or (memory is not None and memory.peak is not None),
        f"{type(sparsifier).__name__} without a peak",
        "a memory with the largest cotangent so far",
        "pass memory=init_memory('none', adaptive=True), or another kind",
    )
    shared = False
    if memory is not None and memory.residue is not None:
        check_no_residue(sparsifier)
        shared = memory.residue.shape != tuple(out_shape)
    return Rule(sparsifier, select_on, shared, axes), Draw(key, jnp.asarray(eta, jnp.float32))


def check_options(eta: float | jax.Array, select_on: SelectOn) -> None:
    """Raise unless the options of the memory make sense.

    Raises:
        ValueError: ``eta`` is no share, or ``select_on`` unknown.
    """
    checks.check_number("eta", eta, at_least=0, at_most=1)
    checks.check_choice("select_on", select_on, SELECT_ON)


def choice_shapes(sparsifier: Sparsifier, n: int) -> Choice:
    """Give the shapes of a choice among n components of one row, without computing it.

    Raises:
        ValueError: as its ``choose``, for instance a budget that does not fit.
    """
    if is_dataclass(sparsifier) and getattr(sparsifier, "axis_name", None) is not None:
        sparsifier = replace(sparsifier, axis_name=None)  # the axis exists only inside shard_map
    like = jax.ShapeDtypeStruct((1, n), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    return jax.eval_shape(sparsifier.choose, jax.random.key(0), *like)


def check_memory(memory: Memory | None, out_shape: tuple[int, ...], event_ndim: int) -> None:
    """Raise unless the memory fits the output; called only where a gradient is taken.

    A forward pass never reads the memory: evaluation may have any batch size.

    Raises:
        ValueError: its shape is neither that of the output nor that of one row.
    """
    if memory is None:
        return
    units = out_shape[len(out_shape) - event_ndim :]
    if memory.residue is not None:
        shape = memory.residue.shape
        checks.require(
            shape in (out_shape, units),
            f"a memory of shape {shape} for an output of shape {out_shape}",
            f"{out_shape} (slot) or {units} (shared)",
            "train with the batch size the memory was made for (drop a short last batch), use a"
            " shared memory, or make a new one with init_memory",
        )
    if memory.counts is not None:
        checks.check_shape("counts", memory.counts, (math.prod(units),), "one number per unit")


def align(*trees: Any) -> tuple[tuple[Any, ...], frozenset[str]]:
    """Let all arrays vary over the mesh axes over which any of them varies, inside ``shard_map``.

    A gradient with respect to what was the same everywhere is then summed over these axes by JAX.

    Args:
        trees: pytrees of arrays.

    Returns:
        the same arrays, and the axes.
    """
    trees = jax.tree.map(jnp.asarray, trees)
    leaves = jax.tree.leaves(trees)
    axes = frozenset().union(*(varying(leaf) for leaf in leaves))

    def cast(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, trees), axes


def memory_axes(memory: Memory | None) -> frozenset[str]:
    """Give the mesh axes over which a memory varies.

    Raises:
        ValueError: it is no memory, or one of 16 bits.
    """
    checks.require(
        memory is None or isinstance(memory, Memory),
        f"a memory of type {type(memory).__name__}",
        "a Memory",
        "make it with init_memory",
    )
    if memory is None:
        return frozenset()
    types = {str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(memory)}
    checks.require(
        all(map(is_wide, types)),
        f"a memory of {', '.join(sorted(types))}",
        "float32 or wider",
        "make it with init_memory",
    )
    return varying(jnp.asarray(memory.uses))


def varying(leaf: jax.Array) -> frozenset[str]:
    """Give the mesh axes over which an array varies; empty outside ``shard_map``."""
    return frozenset(jax.typeof(leaf).manual_axis_type.varying)


def split_primals(arguments: Any) -> tuple[Any, Any]:
    """Split what a forward rule with symbolic zeros gets into values and what is differentiated.

    Args:
        arguments: pytree of ``CustomVJPPrimal``.

    Returns:
        the values; and the same tree of Python bools.
    """

    def is_primal(leaf: Any) -> bool:
        return isinstance(leaf, jax.custom_derivatives.CustomVJPPrimal)

    values = jax.tree.map(lambda leaf: leaf.value, arguments, is_leaf=is_primal)
    return values, jax.tree.map(lambda leaf: leaf.perturbed, arguments, is_leaf=is_primal)


def check_differentiated(memory: Memory | None, *, training: bool) -> None:
    """Raise if a training step would lose its memory.

    Args:
        memory: bools, whether a gradient with respect to each field is asked for.
        training: whether a gradient is asked for that the memory has a part in.

    Raises:
        ValueError: one with respect to the memory is not.
    """
    checks.require(
        memory is None or bool(memory.uses) or not training,
        "a memory outside the differentiated arguments",
        "a gradient with respect to the memory: it is how the next memory is returned",
        "differentiate with respect to it as well (Flax: argnums=nnx.DiffState(0, TRAINED)), or"
        " pass memory=None",
    )


def materialise(cotangent: Any) -> jax.Array:
    """Turn a symbolic zero into zeros."""
    shape, dtype = cotangent.shape, cotangent.dtype
    symbolic = isinstance(cotangent, jax.custom_derivatives.SymbolicZero)
    return jnp.zeros(shape, dtype) if symbolic else cotangent
