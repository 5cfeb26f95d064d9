"""Calls of ``reparam``, ``pruning`` and ``continual``."""

import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import continual, pruning, reparam
from tests.fuzz import draw
from tests.fuzz.calls.parts import reals
from tests.fuzz.wrong import (
    Call,
    array,
    choice,
    count,
    flag,
    function,
    key,
    number,
    shape,
    thing,
    tree,
)


def alpha():
    return number(2.0, 0.5, -1.0, float("inf"), 0)


def axes(value=(0,), *, optional=False):
    bad = (7,), (), 0, (0.5,), ("a",), [None], (True,)
    return thing(value, *bad, optional=optional, family="axes")


def powers(rng):
    name = draw.pick(rng, "power", "inverse_power", "group_power", "inverse_group_power")
    arguments = {
        "weights" if "inverse" in name else "theta": array(
            reals(rng, 3, 2), "floats", ranks=False, lengths=False
        ),
        "alpha": alpha(),
    }
    arguments |= {"axes": axes()} if "group" in name else {}
    return Call(f"reparam.{name}", getattr(reparam, name), arguments, len(arguments))


def selector():
    return function(lambda name, leaf: True)


def powerprop(rng):
    arguments = {"alpha": alpha(), "select": selector(), "axes": axes(optional=True)}

    def use(alpha, **options):
        reparam.powerprop(alpha, **options).to_weights({"kernel": np.ones((3, 2))})

    return Call("reparam.powerprop", use, arguments, 1)


def parameters(rng):
    return {"kernel": reals(rng, 4, 8), "bias": np.ones(8, np.float32)}


def updating(rng):
    params = {"kernel": reals(rng, 3, 2)}
    bad = [
        {"kernel": np.ones((4, 1))},
        {"other": jnp.ones((3, 2))},
        {"kernel": "x"},
        None,
        jnp.ones((3, 2)),
    ]
    arguments = {"alpha": alpha(), "updates": tree(params, *bad), "params": tree(params, *bad)}
    jacobian = rng.random() < 0.5
    arguments |= (
        {} if jacobian else {"weight_decay": number(0.1, -1.0), "decay_on": choice("theta")}
    )

    def use(alpha, updates, params, weight_decay=None, **options):
        if jacobian:
            made = reparam.scale_by_power_jacobian(alpha, **options)
        else:
            made = reparam.add_power_decay(weight_decay, alpha, **options)
        made.update(updates, made.init(params), params)

    return Call(
        "reparam." + ("scale_by_power_jacobian" if jacobian else "add_power_decay"), use, arguments
    )


def densities():
    good = {"kernel": 0.5, "bias": optax.MaskedNode()}
    bad = [
        {"kernel": value, "bias": optax.MaskedNode()}
        for value in (50, -0.1, "half", True, float("nan"), [0.5])
    ]
    return thing(good, *bad, {"kernel": 0.5}, {"other": 0.5}, family="densities")


def trees(rng, *more):
    good = parameters(rng)
    bad = [
        {"kernel": good["kernel"]},
        {"kernel": "x", "bias": good["bias"]},
        {"other": good["kernel"]},
        None,
        "x",
        3,
    ]
    return tree(good, *bad, *more)


def magnitude(rng):
    if rng.random() < 0.3:
        return Call(
            "pruning.global_magnitude_masks",
            pruning.global_magnitude_masks,
            {"weights": trees(rng), "densities": densities()},
            2,
        )
    pattern = thing(
        pruning.Blocks((2, 2)),
        pruning.Blocks,
        pruning.Blocks((3, 3)),
        pruning.NofM(2, 3),
        pruning.Channels(5),
        "2:4",
    )
    return Call(
        "pruning.magnitude_masks",
        pruning.magnitude_masks,
        {"weights": trees(rng), "densities": densities(), "pattern": pattern},
        2,
    )


def patterns(rng):
    name = draw.pick(rng, "Blocks", "Channels", "NofM", "ConstantFanIn")
    options = {
        "ConstantFanIn": {"axis": number(-1, 5, 0.5, -3)},
        "Blocks": {"shape": shape((2, 2)), "by": choice("max")},
        "Channels": {"axis": number(-1, 5, 0.5, -3)},
        "NofM": {"n": count(2, 0, 4), "m": count(4, 2, 8), "axis": number(-1, 5, 0.5, -3)},
    }[name]

    def use(**options):
        pruning.magnitude_masks(jnp.ones((4, 8)), 0.5, pattern=getattr(pruning, name)(**options))

    return Call(f"pruning.{name}", use, options)


def keep_largest(rng):
    good = [reals(rng, 3), reals(rng, 2, 2)]
    bad = [
        [],
        [good[0], good[1].astype(jnp.bfloat16)],
        [np.arange(3)],
        ["a"],
        [None],
        [good[0] * 1j],
    ]
    flags = [np.ones(3, bool), np.ones((2, 2), bool)]
    wrong = [flags[:1], [flags[0][1:], flags[1]], [np.ones(3), np.ones((2, 2))], ["a", "b"]]
    arguments = {
        "scores": thing(good, *bad),
        "count": count(3),
        "among": thing(flags, *wrong, optional=True),
    }
    return Call("pruning.keep_largest", pruning.keep_largest, arguments, 2)


def masked(rng):
    good = {"kernel": np.ones((4, 8), bool), "bias": optax.MaskedNode()}
    bad = [
        {"kernel": np.ones((4, 8)), "bias": optax.MaskedNode()},
        {"kernel": np.ones((8, 4), bool), "bias": optax.MaskedNode()},
        {"kernel": good["kernel"]},
        {"kernel": "x", "bias": optax.MaskedNode()},
    ]
    marks = tree(good, *bad, "x", 3, family="masks")
    name = draw.pick(
        rng,
        "apply_masks",
        "density_report",
        "unpack_masks",
        "pack_masks",
        "combine_masks",
        "freeze_updates",
    )
    if name == "unpack_masks":
        packed = pruning.pack_masks(good)
        wrong = [
            {"kernel": packed["kernel"][1:], "bias": optax.MaskedNode()},
            {"kernel": "x", "bias": optax.MaskedNode()},
            {"kernel": packed["kernel"]},
        ]
        return Call(
            "pruning.unpack_masks",
            pruning.unpack_masks,
            {"packed": thing(packed, *wrong, family="packed"), "params": trees(rng)},
            2,
        )
    if name == "pack_masks":
        marks = tree(good, *(bad[0], bad[3]), "x", family="masks")  # masks of any shape will do
        return Call("pruning.pack_masks", pruning.pack_masks, {"masks": marks}, 1)
    if name == "combine_masks":
        arguments = {
            "function": function(jnp.logical_not),
            "masks": tree(good, "x", {"kernel": "x"}),
        }
        return Call("pruning.combine_masks", pruning.combine_masks, arguments, 2)
    if name == "freeze_updates":
        return Call(
            "continual.freeze_updates",
            continual.freeze_updates,
            {"updates": trees(rng), "frozen": marks},
            2,
        )
    return Call(
        f"pruning.{name}",
        getattr(pruning, name),
        {"weights" if name == "apply_masks" else "params": trees(rng), "masks": marks},
        2,
        eager=name == "density_report",
    )


def distributions(rng):
    name = draw.pick(rng, "uniform", "erk")
    arguments = {
        "params": tree(parameters(rng), {}, None, family="tree"),
        "density": number(0.5, -0.1, 1.5, 50),
    }
    return Call(f"pruning.{name}", getattr(pruning, name), arguments | {"select": selector()}, 2)


def count_kept(rng):
    return Call(
        "pruning.count_kept",
        pruning.count_kept,
        {"density": number(0.5, -0.1, 1.5), "units": count(10)},
        2,
    )


def schedules(rng):
    name = draw.pick(rng, "one_shot", "periodic", "gradual")
    options = {
        "one_shot": {"step": count(2)},
        "periodic": {
            "every": count(2, 1),
            "begin": count(1, 0, 8),
            "end": count(8, 1, optional=True),
        },
        "gradual": {
            "begin": count(1, 0, 7),
            "end": count(8, 2),
            "every": count(2, 1),
            "power": number(3.0, 0, -1.0),
        },
    }[name]
    return Call(f"pruning.{name}", getattr(pruning, name), options)


def methods(rng):
    name = draw.pick(rng, "Prune", "TopKAST", "DropAndGrow")
    share = lambda: number(0.25, -0.1, 1.5)  # noqa: E731
    options = {
        "Prune": {
            "schedule": thing(pruning.one_shot(2), pruning.one_shot, 3, (1, 2)),
            "score": choice("magnitude"),
            "scope": choice("layer"),
            "pattern": thing(pruning.Unstructured(), "2:4"),
            "straight_through": flag(False),
        },
        "TopKAST": {"trained_extra": share(), "every": count(2, 1), "penalty": number(0.5, -1.0)},
        "DropAndGrow": {
            "end": count(10),
            "every": count(2, 1, 9),
            "drop_fraction": share(),
            "grow": choice("gradient"),
            "grown_size": share(),
        },
    }[name]
    return Call(f"pruning.{name}", getattr(pruning, name), options)


def training(rng):
    arguments = {
        "inner": thing(optax.sgd(0.1), optax.sgd, pruning.Prune(), family="inner"),
        "method": thing(pruning.Prune(), pruning.Prune, optax.sgd(0.1), family="method"),
    }
    arguments |= {
        "density": number(0.5, -0.1, 1.5, 50),
        "distribution": thing(pruning.uniform, "erk", 0.5, family="function"),
        "select": selector(),
        "key": key(optional=True),
    }
    return Call("pruning.sparse_training", pruning.sparse_training, arguments, 2)


def proximal(rng):
    axis, kind = number(-1, 5, -3, 0.5), draw.pick(rng, "real", "floats")
    weights = array(reals(rng, 4, 8), kind, ranks=False, lengths=False, last=True)
    if kind == "real":
        arguments = {"weights": weights, "axis": axis}
        return Call("pruning.penalty_2_to_4", pruning.penalty_2_to_4, arguments, 1)
    arguments = {"weights": weights, "strength": number(0.5, -1.0, jnp.array(-1.0)), "axis": axis}
    return Call("pruning.prox_2_to_4", pruning.prox_2_to_4, arguments, 2)


def network(rng):
    name = draw.pick(rng, "task_weights", "redraw_free", "share_used", "empty_network")
    empty = continual.empty_network(parameters(rng), tasks=1)
    net = thing(empty, family="network")
    if name == "task_weights":
        return Call(
            "continual.task_weights",
            continual.task_weights,
            {"network": net, "number": count(0, 0, 0)},
            2,
        )
    if name == "redraw_free":
        short = {"kernel": np.ones((1, 4)), "bias": np.ones(8, np.float32)}
        return Call(
            "continual.redraw_free",
            continual.redraw_free,
            {"network": net, "fresh": trees(rng, short)},
            2,
        )
    if name == "share_used":
        return Call("continual.share_used", continual.share_used, {"network": net}, 1, eager=True)
    return Call(
        "continual.empty_network",
        continual.empty_network,
        {"params": tree(parameters(rng), {}, None, family="tree"), "tasks": count(1)},
        1,
    )


def freeze(rng):
    return Call(
        "continual.freeze_entries",
        continual.freeze_entries,
        {"inner": thing(optax.sgd(0.1), optax.sgd)},
        1,
    )


def search(rng):
    grid = thing([0.1, 0.5], [0.5, 0.1], [], [2.0], [-0.1], "ab", ["a"], [None], 0.5, family="grid")
    arguments = {
        "evaluate": function(lambda s: 1.0, lambda s: float("nan")),
        "accept": function(lambda a, b: a >= b, lambda a, b: False),
        "sparsities": grid,
    }
    return Call("continual.search_sparsity", continual.search_sparsity, arguments, 3, eager=True)


def packing(rng):
    net = continual.empty_network(parameters(rng))
    arguments = {
        "network": thing(net, family="network"),
        "fresh": trees(rng),
        "train": function(lambda params, frozen, masks: params),
    }
    arguments["keep"] = number(0.5, 0.0, 1.5, -1)
    return Call("continual.packnet", continual.packnet, arguments, 3, eager=True)


REPARAM = (powers, powers, powerprop, updating)
PRUNING = (
    magnitude,
    patterns,
    keep_largest,
    masked,
    masked,
    distributions,
    count_kept,
    schedules,
    methods,
    methods,
    training,
    proximal,
)
CONTINUAL = (network, freeze, search, packing)
