"""What callers pass to the sorts: made arrays of and checked here, once, and only here."""

from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_count, check_number, check_shape, require
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.precision import at_least_float32

LARGEST = float(np.finfo(np.float32).max)


class SplitOptions(TypedDict):
    """How candidates are proposed and weighed."""

    num_candidates: int
    num_near: int
    certainty: jax.Array | float


def enter_keys(keys: Any, *, floating: bool) -> jax.Array:
    """Return keys ``(n,)`` as an array, which has to be of floats where a gradient is needed.

    Raises:
        ValueError: another shape, no element, or another dtype.
    """
    keys = as_array("keys", keys)
    check_shape("keys", keys, (None,), "(n,): one key per element; use jax.vmap for batches")
    n = keys.shape[0]
    require(
        isinstance(n, int),
        f"{n} keys",
        "a number of elements that is known",
        "export with a symbolic batch and jax.vmap, and with a fixed number of elements",
    )
    require(n > 0, "no element", "one or more", "leave the sort out")
    require(
        not floating or jnp.issubdtype(keys.dtype, jnp.floating),
        f"keys of dtype {keys.dtype}",
        "floating-point keys, which carry a gradient",
        "convert the keys, or sort with hard=True",
    )
    return keys


def enter_lists(segment_ids: Any, n: int) -> jax.Array | None:
    """Return the list of each element ``(n,)`` as an array; None for a single list.

    Raises:
        ValueError: another shape, or no integers.
    """
    if segment_ids is None:
        return None
    segment_ids = as_array("segment_ids", segment_ids, "integers")
    check_shape("segment_ids", segment_ids, (n,), "(n,): the list of each element")
    return segment_ids


def enter_labels(labels: Any, n: int, name: str = "labels") -> jax.Array:
    """Return one label per key as an array ``(n,)``.

    Raises:
        ValueError: another shape, or no real numbers.
    """
    labels = as_array(name, labels)
    check_shape(name, labels, (n,), f"(n,): one {name.removesuffix('s')} per key")
    return labels


def enter_mask(mask: Any, n: int) -> jax.Array | None:
    """Return which elements take part ``(n,)`` as an array; None for all of them.

    Raises:
        ValueError: another shape, or no flags.
    """
    if mask is None:
        return None
    mask = as_array("mask", mask, "flags")
    check_shape("mask", mask, (n,), "(n,): one flag per element")
    return mask


def enter_weights(weights: Any, n: int) -> jax.Array | None:
    """Return how much each element counts ``(n,)``, at least 0 and float32; None for all alike.

    Raises:
        ValueError: another shape, or no real numbers.
    """
    if weights is None:
        return None
    weights = at_least_float32(as_array("weights", weights))
    check_shape("weights", weights, (n,), "(n,): one weight per element")
    return jnp.where(weights <= 0, 0, weights)


def check_certainty(certainty: Any) -> None:
    """Raise unless keys can decide so sharply; one that is traced may follow a schedule.

    Raises:
        ValueError: no number above 0, or an infinite one: it would leave equal keys undecided.
    """
    check_number("certainty", certainty, above=0.0, at_most=LARGEST)


def enter_tree(name: str, tree: Any) -> Any:
    """Return a pytree of arrays; a list of numbers is an array, not a tree of scalars.

    Raises:
        ValueError: a leaf that is no array of real numbers.
    """
    return jax.tree.map(lambda leaf: as_array(f"{name} leaf", leaf), tree, is_leaf=_is_list)


def enter_payload(name: str, payload: Any, n: int, *, mixed: bool) -> Any:
    """Return a pytree of arrays ``(n, ...)``, of floats if they are to be mixed.

    Raises:
        ValueError: a leaf is a scalar, has another length, or is of integers that would be mixed.
    """
    payload = enter_tree(name, payload)
    for leaf in jax.tree.leaves(payload):
        require(
            leaf.ndim >= 1 and leaf.shape[0] == n,
            f"{name} leaf of shape {leaf.shape}",
            f"leading axis {n}, one entry per key",
            "move the sorted axis to the front; use jax.vmap for batches",
        )
        require(
            not mixed or jnp.issubdtype(leaf.dtype, jnp.floating),
            f"{name} leaf of dtype {leaf.dtype}",
            f"a floating-point {name}, because permutations are mixed",
            "convert the leaf, or sort with hard=True",
        )
    return payload


def enter_options(
    key: Any, *, num_candidates: Any, num_near: Any, certainty: Any, hard: bool
) -> SplitOptions:
    """Return the options of a split, counts as ints of Python.

    Raises:
        ValueError: one that is out of range, or no random key where one is needed.
    """
    if key is not None or not hard:
        check_random_key(key)
    num_candidates = check_count("num_candidates", num_candidates, 1)
    num_near = check_count("num_near", num_near)
    require(
        num_near < num_candidates,
        f"num_near={num_near} of num_candidates={num_candidates}",
        "fewer near candidates than candidates, as one is the certain one",
        "raise num_candidates or lower num_near",
    )
    check_certainty(certainty)
    return {"num_candidates": num_candidates, "num_near": num_near, "certainty": certainty}


def _is_list(tree: Any) -> bool:
    """Whether this is a list of numbers, of any depth."""
    if not isinstance(tree, list) or not tree:
        return False
    return all(_is_list(item) or isinstance(item, int | float | np.generic) for item in tree)
