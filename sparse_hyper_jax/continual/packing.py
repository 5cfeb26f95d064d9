"""A network that holds several tasks: shared parameters, and masks and a few more for each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.parameter_paths import (
    Selector,
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
    """What belongs to one task."""

    masks: Any
    """Shared entries that it uses, eight in a byte (:func:`~sparse_hyper_jax.pruning.pack_masks`);
    ``optax.MaskedNode()`` for leaves that are not shared."""

    own: Any
    """Leaves that are not shared; ``optax.MaskedNode()`` for the others."""


class PackedNetwork(NamedTuple):
    """Parameters of all tasks, a pytree to be saved as it is."""

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
    """
    used = map_selected(
        lambda leaf: jnp.zeros(leaf.shape, bool), select, params, other=optax.MaskedNode()
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
    """

    def choose(old: jax.Array, new: jax.Array, used: Any) -> jax.Array:
        new = jnp.asarray(new, old.dtype)
        return new if is_left_out(used) else jnp.where(used, old, new)

    return jax.tree.map(choose, network.params, fresh, network.used)


def add_task(
    network: PackedNetwork, params: Any, masks: Masks, *, freeze: bool = True
) -> PackedNetwork:
    """Add a task that was learned.

    It looks at the values, so it cannot be traced: call it outside of jit.

    Args:
        network: the tasks so far.
        params: parameters after training.
        masks: entries that the task uses.
        freeze: mark them as used, so that they stay; without it, later tasks change them.

    Returns:
        the network with one more task.

    Raises:
        ValueError: an entry of an earlier task has changed; a mask has another shape than its
            leaf, or is not bool.
    """
    check_masks(params, masks)

    def changes(used: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
        # Zeros of different signs are equal, and yet not the same.
        return jnp.sum(used & ((old != new) | (jnp.signbit(old) != jnp.signbit(new))))

    counts = combine_masks(changes, network.used, network.params, params)
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
    return PackedNetwork(params, used, (*network.tasks, task))


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
    """
    checks.require(
        0 <= number < len(network.tasks),
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
    """Give the share of the shared entries that some task uses, from 0 to 1."""
    return density_report(network.params, network.used).pruned


def to_weights(reparam: Reparametrization | None, params: Any) -> Any:
    """Give the weights of parameters."""
    check_elementwise(reparam)
    return params if reparam is None else reparam.to_weights(params)


def check_elementwise(reparam: Reparametrization | None) -> None:
    """Raise where freezing entries of the parameters would not freeze weights."""
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
