"""Rows of the room ``reparam``."""

from sparse_hyper_jax import reparam
from tests.table.columns import Table
from tests.table.examples import distinct
from tests.table.row import Room, Row

THETA = distinct(3, 2)
UPDATES = distinct(3, 2, seed=1)


def to_weights(theta):
    return reparam.powerprop(2.0).to_weights({"kernel": theta, "bias": theta})


def to_theta(weights):
    """Parameters are of float32 at least, whatever the weights."""
    return reparam.powerprop(2.0).to_theta({"kernel": weights})


def updated(transformation):
    def update(updates, theta):
        tree = {"kernel": theta}
        state = transformation.init(tree)
        return transformation.update({"kernel": updates}, state, tree)[0]

    return update


IN_A_TREE = {"lists": "in a tree of parameters a list is a tree"}

ROWS = [
    *(
        Row(
            f"{name}, alpha={alpha}",
            lambda theta, name=name, alpha=alpha: getattr(reparam, name)(theta, alpha),
            (THETA,),
            wide=False,
        )
        for name in ("power", "inverse_power")
        for alpha in (1.75, 2.1)
    ),
    *(
        Row(
            name,
            lambda theta, name=name: getattr(reparam, name)(theta, 2.0, (0,)),
            (THETA,),
            wide=False,
        )
        for name in ("group_power", "inverse_group_power")
    ),
    Row("powerprop, Reparametrization", to_weights, (THETA,), wide=False, skips=IN_A_TREE),
    Row("powerprop, to_theta", to_theta, (THETA,), skips=IN_A_TREE),
    *(
        Row(
            f"add_power_decay, decay_on={on}",
            updated(reparam.add_power_decay(0.5, 2.0, decay_on=on)),
            (UPDATES, THETA),
            wide=False,
            skips=IN_A_TREE,
        )
        for on in ("theta", "w")
    ),
    Row(
        "scale_by_power_jacobian",
        updated(reparam.scale_by_power_jacobian(2.0, axes=(0,))),
        (UPDATES, THETA),
        wide=False,
        skips=IN_A_TREE,
    ),
]

EXCEPTIONS = {"is_kernel": "a predicate of names and shapes"}


class TestReparam(Table):
    room = Room(reparam, ROWS, EXCEPTIONS)
