"""Rows of the room ``continual``."""

import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import continual
from sparse_hyper_jax.pruning import pack_masks
from tests.table.columns import Table
from tests.table.examples import distinct
from tests.table.row import Room, Row

KERNEL = distinct(4, 3)
FRESH = distinct(4, 3, seed=1)
BIAS = distinct(3, seed=2)
USED = np.arange(12).reshape(4, 3) % 2 > 0
IN_A_TREE = {"lists": "in a tree of parameters a list is a tree"}
FIRST_FROZEN = "the first entry is frozen"


def frozen():
    return {"kernel": jnp.asarray(~USED)}


def network(kernel, bias):
    """One task that owns every other entry of the kernel, and its bias."""
    empty = continual.empty_network({"kernel": kernel, "bias": bias})
    used = {"kernel": jnp.asarray(USED), "bias": optax.MaskedNode()}
    task = continual.Task(pack_masks(used), {"kernel": optax.MaskedNode(), "bias": bias})
    return empty._replace(used=used, tasks=(task,))


def clipped(kernel, updates):
    optimizer = continual.freeze_entries(
        optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.5))
    )
    params = {"kernel": kernel}
    state = optimizer.init(params)
    return optimizer.update({"kernel": updates}, state, params, frozen=frozen())[0]


ROWS = [
    Row(
        "freeze_updates",
        lambda updates: continual.freeze_updates({"kernel": updates}, frozen()),
        (KERNEL,),
        wide=False,
        dropped=FIRST_FROZEN,
        skips=IN_A_TREE,
    ),
    Row(
        "freeze_entries",
        clipped,
        (KERNEL, FRESH),
        wide=False,
        exact=None,
        dropped={0: "plain updates do not depend on parameters", 1: FIRST_FROZEN},
        skips=IN_A_TREE,
    ),
    Row(
        "redraw_free, empty_network",
        lambda kernel, bias, fresh: continual.redraw_free(
            network(kernel, bias), {"kernel": fresh, "bias": bias}
        ),
        (KERNEL, BIAS, FRESH),
        wide=False,
        dropped={0: "the first entry is free: it is drawn anew"},
        skips=IN_A_TREE,
    ),
    Row(
        "task_weights",
        lambda kernel, bias: continual.task_weights(network(kernel, bias), 0),
        (KERNEL, BIAS),
        wide=False,
        dropped={0: "the task does not use the first entry"},
        skips=IN_A_TREE,
    ),
]

OUTSIDE = "looks at numbers, outside of jit; its own tests run it whole"
EXCEPTIONS = {
    "PackedNetwork": "a type",
    "Search": "a type",
    "Task": "a type",
    "Train": "a type",
    "add_task": OUTSIDE,
    "efficient_packnet": OUTSIDE,
    "packnet": OUTSIDE,
    "search_sparsity": OUTSIDE,
    "share_used": OUTSIDE,
}


class TestContinual(Table):
    room = Room(continual, ROWS, EXCEPTIONS)
