"""A network that holds several tasks: shared parameters, and masks and a few more for each."""

from types import NoneType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.parameter_paths import (
    Selector,
    check_fits,
    is_kernel,
    is_left_out,
    map_selected,
    path_name,
)
from sparse_hyper_jax.pruning import (
    Masks,
    apply_masks,
    combine_masks,
    density_report,
    pack_masks,
    unpack_masks,
)
from sparse_hyper_jax.pruning.masks import check_masks
from sparse_hyper_jax.reparam import Reparametrization


class Task(NamedTuple):
    """What belongs to one task.

    Example:
        >>> from sparse_hyper_jax.continual import empty_network, packnet
        >>> params = {"kernel": jnp.arange(8.0).reshape(2, 4), "bias": jnp.zeros(4)}
        >>> network = packnet(empty_network(params), params, lambda params, *_: params, keep=0.5)
        >>> task = network.tasks[0]  # the last four entries, as bits, and a bias of its own
        >>> task.masks["kernel"].tolist(), task.own["bias"].tolist()
        ([15], [0.0, 0.0, 0.0, 0.0])
    """

    masks: Any
    """Shared entries that it uses, eight in a byte (:func:`~sparse_hyper_jax.pruning.pack_masks`);
    ``optax.MaskedNode()`` for leaves that are not shared."""

    own: Any
    """Leaves that are not shared; ``optax.MaskedNode()`` for the others."""


class PackedNetwork(NamedTuple):
    """Parameters of all tasks, a pytree to be saved as it is.

    Example:
        >>> from sparse_hyper_jax.continual import empty_network
        >>> network = empty_network({"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)})
        >>> network.used["kernel"].tolist(), network.used["bias"], len(network.tasks)
        ([[False, False], [False, False]], MaskedNode(), 0)
    """

    params: Any
    """Shared entries, and the leaves that are not shared of the last task."""

    used: Masks
    """Entries that some task uses."""

    tasks: tuple[Task, ...]
    """In the order in which they were learned."""


def empty_network(params: Any, *, select: Selector = is_kernel, tasks: int = 0) -> PackedNetwork:
    """Make a network in which everything is free.

    Args:
        params: pytree of arrays.
        select: which leaves the tasks share; each has its own of all others.
        tasks: number of tasks without content, to give a checkpoint of so many its structure.

    Raises:
        ValueError: nothing is shared.

    Example:
        >>> from sparse_hyper_jax.continual import empty_network, share_used
        >>> network = empty_network({"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)})
        >>> share_used(network), network.tasks  # tasks will share the kernel; each has its own bias
        (0.0, ())
    """
    tasks = checks.check_count("tasks", tasks)
    used = map_selected(
        lambda leaf: jnp.zeros_like(leaf, bool), select, params, other=optax.MaskedNode()
    )
    blank = Task(pack_masks(used), _own(params, used))
    return PackedNetwork(params, used, (blank,) * tasks)


def redraw_free(network: PackedNetwork, fresh: Any) -> Any:
    """Give parameters for the next task: old entries stay, everything else is new.

    Args:
        network: the tasks so far.
        fresh: new parameters from the initialiser (theta, if they are reparametrised).

    Returns:
        parameters.

    Raises:
        ValueError: fresh parameters have another structure or another shape.

    Example:
        >>> from sparse_hyper_jax.continual import add_task, empty_network, redraw_free
        >>> network = empty_network({"kernel": jnp.zeros((1, 3))})
        >>> masks = {"kernel": jnp.array([[True, False, True]])}
        >>> network = add_task(network, {"kernel": jnp.full((1, 3), 5.0)}, masks)
        >>> redraw_free(network, {"kernel": jnp.ones((1, 3))})["kernel"].tolist()
        [[5.0, 1.0, 5.0]]
    """
    check_instance("network", network, PackedNetwork)
    check_like(network.params, fresh, "fresh parameters")

    def choose(old: jax.Array, new: jax.Array, used: Any) -> jax.Array:
        new = jnp.asarray(new).astype(jnp.result_type(old))
        return new if is_left_out(used) else jnp.where(used, old, new)

    return jax.tree.map(choose, network.params, fresh, network.used)


def check_like(params: Any, others: Any, name: str) -> None:
    """Raise unless other parameters have the same structure and shapes.

    Raises:
        ValueError: otherwise.
    """
    places = check_fits(params, others, name)
    for (path, leaf), place in zip(
        jax.tree_util.tree_leaves_with_path(params), places, strict=True
    ):
        other = as_array(f"{name}, {path_name(path)},", place)
        checks.require(
            other.shape == jnp.shape(leaf),
            f"{name} with {path_name(path)} of shape {other.shape}",
            f"shape {jnp.shape(leaf)}, as in the network",
            "make them by the same initialiser",
        )


def add_task(
    network: PackedNetwork, params: Any, masks: Masks, *, freeze: bool = True
) -> PackedNetwork:
    """Add a task that was learned.

    It looks at the values, so it cannot be traced: call it outside of jit. Entries of earlier tasks
    have to be as they were, NaN too; they are taken from the network itself, bit for bit. So may
    a number below the smallest normal one have become 0 in training: it comes back.

    Args:
        network: the tasks so far.
        params: parameters after training.
        masks: entries that the task uses.
        freeze: mark them as used, so that they stay; without it, later tasks change them.

    Returns:
        the network with one more task.

    Raises:
        ValueError: an entry of an earlier task has changed; parameters or masks do not fit the
            network.

    Example:
        >>> from sparse_hyper_jax.continual import add_task, empty_network, share_used, task_weights
        >>> network = empty_network({"kernel": jnp.zeros((2, 2))})
        >>> masks = {"kernel": jnp.array([[True, False], [False, False]])}
        >>> network = add_task(network, {"kernel": jnp.full((2, 2), 5.0)}, masks)
        >>> task_weights(network, 0)["kernel"].tolist(), share_used(network)
        ([[5.0, 0.0], [0.0, 0.0]], 0.25)
    """
    check_instance("network", network, PackedNetwork)
    checks.check_flag("freeze", freeze)
    check_like(network.params, params, "parameters")
    check_masks(network.params, masks)
    check_same_leaves(network.used, masks)
    counts = combine_masks(count_changes, network.used, network.params, params)
    lost = {
        path_name(path): int(count)
        for path, count in jax.tree_util.tree_leaves_with_path(counts)
        if count
    }
    checks.require(
        not lost,
        f"entries of earlier tasks changed: {lost}",
        "these to stay as they were",
        "train behind freeze_entries, and pass it the frozen masks",
    )
    used = combine_masks(jnp.logical_or, network.used, masks) if freeze else network.used
    task = Task(pack_masks(masks), _own(params, network.used))
    return PackedNetwork(redraw_free(network, params), used, (*network.tasks, task))


def count_changes(used: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    """Count entries in use whose bits differ, but for numbers that were flushed to zero."""
    old, new = jnp.asarray(old), jnp.asarray(new).astype(jnp.result_type(old))
    if not jnp.issubdtype(old.dtype, jnp.floating):
        return jnp.sum(used & (old != new), dtype=jnp.int32)
    limits = jnp.finfo(old.dtype)
    kind = jnp.dtype(f"int{limits.bits}")
    one, two = (jax.lax.bitcast_convert_type(array, kind) for array in (old, new))
    # Of bits without their sign, those of subnormal numbers are the ones below the least normal.
    size = jnp.asarray(jnp.iinfo(kind).max, kind)
    normal = jax.lax.bitcast_convert_type(jnp.asarray(limits.tiny, old.dtype), kind)
    flushed = ((one & size) < normal) & ((two & size) == 0) & ((one < 0) == (two < 0))
    return jnp.sum(used & (one != two) & ~flushed, dtype=jnp.int32)


def check_same_leaves(used: Masks, masks: Masks) -> None:
    """Raise unless the shared leaves have masks, and no others.

    Raises:
        ValueError: otherwise.
    """
    shared, given = (
        [not is_left_out(leaf) for leaf in jax.tree.leaves(tree, is_leaf=is_left_out)]
        for tree in (used, masks)
    )
    checks.require(
        shared == given,
        f"masks for {sum(given)} leaves of a network that shares {sum(shared)}",
        "masks for the shared leaves and no others",
        "make them with the network's select",
    )


def task_weights(
    network: PackedNetwork, number: int, *, reparam: Reparametrization | None = None
) -> Any:
    """Give the weights with which the model solves one of its tasks.

    Args:
        network: the tasks so far.
        number: of the task, from 0.
        reparam: of the parameters, or None.

    Returns:
        masked weights.

    Raises:
        ValueError: there is no such task; the reparametrisation is one of groups.

    Example:
        >>> from sparse_hyper_jax.continual import add_task, empty_network, redraw_free
        >>> from sparse_hyper_jax.continual import task_weights
        >>> network = empty_network({"kernel": jnp.zeros((1, 3))})
        >>> for value, kept in ((7.0, [True, True, False]), (1.0, [False, True, True])):
        ...     new = redraw_free(network, {"kernel": jnp.full((1, 3), value)})
        ...     network = add_task(network, new, {"kernel": jnp.array([kept])})
        >>> [task_weights(network, number)["kernel"].tolist() for number in (0, 1)]
        [[[7.0, 7.0, 0.0]], [[0.0, 7.0, 1.0]]]
    """
    check_instance("network", network, PackedNetwork)
    number = checks.check_count("number", number)
    checks.require(
        number < len(network.tasks),
        f"task {number} of {len(network.tasks)}",
        "a task that was learned",
        "count tasks from 0",
    )
    task = network.tasks[number]
    params = jax.tree.map(
        lambda leaf, own: leaf if is_left_out(own) else own, network.params, task.own
    )
    return apply_masks(to_weights(reparam, params), unpack_masks(task.masks, params))


def share_used(network: PackedNetwork) -> float:
    """Give the share of the shared entries that some task uses, from 0 to 1.

    Raises:
        ValueError: it is no network.

    Example:
        >>> from sparse_hyper_jax.continual import add_task, empty_network, share_used
        >>> params, masks = {"kernel": jnp.ones((1, 4))}, {"kernel": jnp.arange(4)[None] < 3}
        >>> share_used(add_task(empty_network(params), params, masks))
        0.75
    """
    check_instance("network", network, PackedNetwork)
    return density_report(network.params, network.used).pruned


def to_weights(reparam: Reparametrization | None, params: Any) -> Any:
    """Give the weights of parameters."""
    check_elementwise(reparam)
    return params if reparam is None else reparam.to_weights(params)


def check_elementwise(reparam: Reparametrization | None) -> None:
    """Raise where freezing entries of the parameters would not freeze weights.

    Raises:
        ValueError: a reparametrisation of groups, or none at all.
    """
    check_instance("reparam", reparam, Reparametrization, NoneType)
    checks.require(
        reparam is None or reparam.elementwise,
        "a reparametrisation of groups",
        "one of single entries: a weight would change with the other entries of its group",
        "pass powerprop without axes",
    )


def _own(params: Any, masks: Masks) -> Any:
    return jax.tree.map(
        lambda leaf, mask: leaf if is_left_out(mask) else optax.MaskedNode(), params, masks
    )
