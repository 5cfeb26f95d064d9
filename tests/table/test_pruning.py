"""Rows of the room ``pruning``."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import pruning
from tests.table.columns import Table
from tests.table.examples import distinct
from tests.table.row import Room, Row

KERNEL = distinct(4, 8, seed=1)
KERNEL[0, 0] = 5.0  # the largest: never dropped
OTHER = distinct(4, 8, seed=2)
GRADIENT = distinct(4, 8, seed=3)
MASK = np.arange(32).reshape(4, 8) % 3 > 0  # drops the first
BY_CHANCE = "the first masks are random, and drop the first entry"
A_MASK = "the output is a mask"
IN_A_TREE = {"lists": "in a tree of parameters a list is a tree"}
A_STEP_NUMBER = {
    "outside": "any number of steps",
    "lists": "the number of steps comes from the optimizer's state",
    "x64": "a share of steps has nothing of the precision of parameters",
}

PATTERNS = {
    "Unstructured": pruning.Unstructured(),
    "Blocks": pruning.Blocks((2, 2)),
    "Channels": pruning.Channels(),
    "NofM": pruning.NofM(),
    "ConstantFanIn": pruning.ConstantFanIn(),
}
METHODS = {
    "Prune, one_shot": pruning.Prune(pruning.one_shot(0)),
    "TopKAST": pruning.TopKAST(every=2, penalty=0.25),
}
RANDOM = {
    "RigL, DropAndGrow": (
        pruning.RigL(end=10, every=2, grown_size=0.5),
        dict.fromkeys(range(3), BY_CHANCE),
    ),
    "SET, DropAndGrow": (pruning.SET(end=10, every=2), dict.fromkeys((1, 2), BY_CHANCE)),
    "RigL, with momentum": (
        pruning.RigL(end=10, every=2, grown_size=0.5, momentum=0.5),
        dict.fromkeys((1, 2), BY_CHANCE),
    ),
    "SRigL": (
        pruning.SRigL(end=10, every=2, grown_size=0.5),
        dict.fromkeys(range(3), BY_CHANCE),
    ),
}
SCHEDULES = {
    "one_shot": pruning.one_shot(2),
    "periodic": pruning.periodic(2, begin=2, end=8),
    "gradual": pruning.gradual(2, 8, every=2),
}


def by_pattern(pattern):
    def masks(kernel):
        return pruning.magnitude_masks({"kernel": kernel}, {"kernel": 0.5}, pattern=pattern)

    return masks


def added(param, update):
    return (param.astype(update.dtype) + update).astype(param.dtype)


def training(method):
    """Two steps, the second after a change of masks."""

    def steps(key, kernel, gradient, other):
        inner = optax.sgd(0.125, momentum=0.5)
        density = 0.5 if method.needs_density else None
        optimizer = pruning.sparse_training(inner, method, density=density, key=key)
        params = {"kernel": kernel}
        state = optimizer.init(params)
        for slope in (gradient, other):
            updates, state = optimizer.update({"kernel": slope}, state, params)
            # As optax.apply_updates does, which trusts JAX to choose the wider of two types.
            params = {"kernel": added(params["kernel"], updates["kernel"])}
        return pruning.apply_masks(params, state.masks)

    return steps


def proximal_steps(kernel, gradient, other):
    """Two steps, of growing strength."""
    inner = optax.sgd(0.125, momentum=0.5)
    strength = optax.linear_schedule(0.0, 0.25, 2)
    optimizer = pruning.proximal_training(inner, strength, axis=-1)
    params = {"kernel": kernel}
    state = optimizer.init(params)
    for slope in (gradient, other):
        updates, state = optimizer.update({"kernel": slope}, state, params)
        params = {"kernel": added(params["kernel"], updates["kernel"])}
    return params


def due(schedule):
    return lambda count: (schedule.due(count), schedule.share(count))


ROWS = [
    *(
        Row(
            f"magnitude_masks, {name}",
            by_pattern(pattern),
            (KERNEL,),
            exact=None,
            dropped=A_MASK,
            skips=IN_A_TREE,
        )
        for name, pattern in PATTERNS.items()
    ),
    Row(
        "global_magnitude_masks",
        lambda one, two: pruning.global_magnitude_masks(
            {"a": one, "b": two}, {"a": 0.5, "b": 0.25}
        ),
        (KERNEL, OTHER),
        exact=None,
        dropped=A_MASK,
        skips=IN_A_TREE,
    ),
    Row(
        "keep_largest",
        lambda one, two: pruning.keep_largest([one, two], 20),
        (KERNEL, OTHER),
        exact=None,
        dropped=A_MASK,
    ),
    Row(
        "combine_masks, pack_masks, unpack_masks",
        lambda one, two: pruning.unpack_masks(
            pruning.pack_masks(pruning.combine_masks(jnp.logical_or, one > 0, two > 0)), one
        ),
        (KERNEL, OTHER),
        exact=None,
        dropped=A_MASK,
        skips=IN_A_TREE,
    ),
    Row(
        "apply_masks",
        lambda kernel: pruning.apply_masks({"kernel": kernel}, {"kernel": jnp.asarray(MASK)}),
        (KERNEL,),
        wide=False,
        dropped={0: "a dropped entry is zero whatever it was"},
        skips=IN_A_TREE,
    ),
    *(
        Row(
            f"sparse_training, {name}",
            partial(training(method), None),
            (KERNEL, GRADIENT, OTHER),
            wide=False,
            exact=None,
            skips=IN_A_TREE,
        )
        for name, method in METHODS.items()
    ),
    *(
        Row(
            f"sparse_training, {name}",
            training(method),
            (KERNEL, GRADIENT, OTHER),
            keyed=True,
            folds=True,
            dropped=dropped,
            redraws=True,
            wide=False,
            exact=None,
            skips=IN_A_TREE,
        )
        for name, (method, dropped) in RANDOM.items()
    ),
    Row(
        "sparse_training, Fixed",
        partial(training(pruning.Fixed({"kernel": MASK})), None),
        (KERNEL, GRADIENT, OTHER),
        dropped="its mask drops the first entry",
        wide=False,
        exact=None,
        skips=IN_A_TREE,
    ),
    *(
        Row(name, due(schedule), (np.array(4, np.int32),), exact=None, skips=A_STEP_NUMBER)
        for name, schedule in SCHEDULES.items()
    ),
    Row(
        "proximal_training, ProximalState",
        proximal_steps,
        (KERNEL, GRADIENT, OTHER),
        wide=False,
        exact=None,
        skips=IN_A_TREE,
    ),
    Row("penalty_2_to_4", pruning.penalty_2_to_4, (KERNEL,)),
    Row("top_k_norm", lambda x: pruning.top_k_norm(x, 3), (KERNEL,)),
    Row("k_support_norm", lambda x: pruning.k_support_norm(x, 3), (KERNEL,)),
    Row(
        "prox_2_to_4",
        pruning.prox_2_to_4,
        (KERNEL, np.array(0.125, np.float32)),
        wide=False,
        exact=False,
        skips={"second": "nobody differentiates an optimizer's step twice"},
    ),
]

EXCEPTIONS = {
    "DensityReport": "a type",
    "Distribution": "a type",
    "Kept": "a type",
    "Masks": "a type",
    "Method": "a base class",
    "Pattern": "a protocol",
    "Schedule": "a type",
    "Snapshot": "a type",
    "SparseState": "a type",
    "count_kept": "Python numbers",
    "density_report": "Python numbers, for people to read",
    "erk": "shares that depend on shapes alone",
    "uniform": "shares that depend on shapes alone",
}


class TestPruning(Table):
    room = Room(pruning, ROWS, EXCEPTIONS)
