"""Which leaves of a parameter tree something applies to."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_same_shape

Selector = Callable[[str, jax.Array], bool]
"""``select(path, leaf)``, where the path reads like ``"layers/0/kernel"``: is the leaf meant?"""


def is_kernel(path: str, leaf: jax.Array) -> bool:
    """Whether a leaf is the kernel of a dense or convolutional layer of Flax.

    These are the leaves named ``kernel`` with at least two axes: no biases, no scales of
    normalisation, no embeddings.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import is_kernel
        >>> is_kernel("dense/kernel", jnp.ones((2, 2))), is_kernel("dense/bias", jnp.ones(2))
        (True, False)
    """
    return path.rsplit("/", maxsplit=1)[-1] == "kernel" and jnp.ndim(leaf) >= 2


def path_name(path: tuple[Any, ...]) -> str:
    """Write a key path of ``jax.tree_util`` as names between slashes.

    The attribute ``value``, which a variable of Flax NNX adds to the path of its array, is left
    out, so that a layer's kernel ends in ``kernel`` in NNX, in Linen and in plain dicts.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import path_name
        >>> (path, leaf), *_ = jax.tree.leaves_with_path({"dense": {"kernel": jnp.ones((2, 2))}})
        >>> path_name(path)
        'dense/kernel'
    """
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def map_selected(
    function: Callable[..., Any], select: Selector, tree: Any, *rest: Any, other: Any = None
) -> Any:
    """Apply a function to the selected leaves of a tree.

    Args:
        function: gets the leaf and what ``rest`` has in its place.
        select: selects leaves.
        tree: pytree of arrays.
        rest: trees of the same structure, or with subtrees in place of leaves.
        other: replaces the leaves that are not selected; by default they stay.

    Raises:
        ValueError: no leaf is selected, or a tree has another structure.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import is_kernel, map_selected
        >>> params = {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}
        >>> tripled = map_selected(lambda leaf: 3 * leaf, is_kernel, params)
        >>> tripled["kernel"].tolist(), tripled["bias"].tolist()
        ([[3.0, 3.0]], [1.0, 1.0])
    """
    found = []

    def visit(path: tuple[Any, ...], leaf: Any, *more: Any) -> Any:
        name = path_name(path)
        if not select(name, leaf):
            found.append(name)
            return leaf if other is None else other
        selected.append(name)
        return function(leaf, *more)

    check_selector("select", select)
    for other_tree in rest:
        check_fits(tree, other_tree)
    selected: list[str] = []
    mapped = jax.tree_util.tree_map_with_path(visit, tree, *rest)
    checks.require(
        bool(selected),
        f"no selected leaf among {', '.join(found[:6]) or 'none'}",
        "at least one (the default takes leaves named 'kernel' with two axes or more)",
        "pass select=lambda path, leaf: ...",
    )
    return mapped


def is_left_out(mask: Any) -> bool:
    """Whether a tree of masks has nothing for a leaf: ``optax.MaskedNode``, which has no leaves.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.parameter_paths import is_left_out
        >>> is_left_out(optax.MaskedNode()), is_left_out(jnp.ones(2))
        (True, False)
    """
    return isinstance(mask, optax.MaskedNode)


def map_updates(
    function: Callable[[jax.Array, jax.Array], Any], select: Selector, updates: Any, params: Any
) -> Any:
    """Map the selected leaves of updates; the others come out as they came in.

    Args:
        function: gets the parameter and its update.
        select: selects leaves of the parameters.
        updates: tree like the parameters.
        params: pytree of arrays.

    Raises:
        ValueError: without parameters, for a tree of another structure, an update of another shape,
            or if nothing is selected.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import is_kernel, map_updates
        >>> params = {"kernel": jnp.full((1, 2), 5.0), "bias": jnp.ones(2)}
        >>> updates = jax.tree.map(jnp.ones_like, params)
        >>> scaled = map_updates(lambda leaf, update: leaf * update, is_kernel, updates, params)
        >>> scaled["kernel"].tolist(), scaled["bias"].tolist()
        ([[5.0, 5.0]], [1.0, 1.0])
    """
    checks.require(
        params is not None,
        "update called without params",
        "the parameters (theta), on which it depends",
        "call update(gradient, state, params)",
    )

    def mapped(param: jax.Array, update: jax.Array) -> Any:
        param, update = as_array("params", param), as_array("updates", update)
        check_same_shape(params=param, updates=update)
        return function(param, update)

    changed = map_selected(mapped, select, params, updates, other=optax.MaskedNode())
    return jax.tree.map(lambda one, new: one if is_left_out(new) else new, updates, changed)


def check_fits(
    tree: Any,
    other: Any,
    name: str = "a second tree",
    is_leaf: Callable[[Any], bool] | None = None,
) -> list[Any]:
    """List what another tree has in the place of each leaf of a tree.

    Args:
        tree: pytree.
        other: of the same structure, or with subtrees in place of leaves.
        name: of the other, as callers know it.
        is_leaf: what counts as a leaf of the tree besides arrays.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import check_fits
        >>> check_fits({"a": jnp.ones(2), "b": jnp.ones(3)}, {"a": 1, "b": None}, "the numbers")
        [1, None]
    """
    structure = jax.tree.structure(tree, is_leaf)
    try:
        return structure.flatten_up_to(other)
    except (ValueError, TypeError):
        found = jax.tree.structure(other)
    raise ValueError(
        f"found {name} of structure {str(found)[10:-1]:.200}; expected that of "
        f"{str(structure)[10:-1]:.200}; make both from the same parameters"
    )


def check_selector(name: str, select: Any) -> None:
    """Raise unless leaves can be selected by it.

    Raises:
        ValueError: it is no function.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import check_selector, is_kernel
        >>> check_selector("select", is_kernel)  # a function: nothing is raised
    """
    checks.require(
        callable(select) and not isinstance(select, type),
        f"{name}={select!r:.80}",
        "a function of a path and a leaf",
        f"pass {name}=lambda path, leaf: ...",
    )


def selected_leaves(select: Selector, tree: Any) -> list[Any]:
    """List the selected leaves of a tree.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import is_kernel, selected_leaves
        >>> params = {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}
        >>> [leaf.shape for leaf in selected_leaves(is_kernel, params)]
        [(1, 2)]
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [leaf for path, leaf in leaves if select(path_name(path), leaf)]


def replace_selected(select: Selector, tree: Any, leaves: Sequence[Any]) -> Any:
    """Put leaves, in the order of :func:`selected_leaves`, in the place of the selected ones.

    Example:
        >>> from sparse_hyper_jax.parameter_paths import is_kernel, replace_selected
        >>> params = {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}
        >>> replace_selected(is_kernel, params, [jnp.zeros((1, 2))])["kernel"].tolist()
        [[0.0, 0.0]]
    """
    following = iter(leaves)
    return map_selected(lambda _: next(following), select, tree)
