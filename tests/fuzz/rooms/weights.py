"""Oracles of ``reparam``, ``pruning`` and ``continual``."""

import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import continual, pruning, reparam
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near, relative
from tests.fuzz.program import Program
from tests.fuzz.rooms.backprop import nearly_tied


def weights_of(rng, shape, kind):
    """Parameters of any magnitude of which a power is a float32."""
    spread = draw.pick(rng, 1.0, 1.0, 1e-3) if kind == np.float16 else 10.0 ** rng.integers(-6, 4)
    return draw.reals(rng, shape, kind, spread=spread)


def powers(rng):
    shape, kind = draw.pick(rng, (), (3,), (3, 2)), draw.dtype(rng)
    alpha = float(draw.pick(rng, 1.0, 1.5, 1.75, 2.0, 2.1, 3.0, 4.0))
    inverse = bool(rng.random() < 0.4)
    power = 1 / alpha if inverse else alpha

    def expect(case, got):
        theta, size = case["theta"], np.abs(case["theta"])
        y = np.sign(theta) * size**power
        steep = np.where(size == 0, 1.0 if power == 1 else 0.0, power * size ** (power - 1))
        factor = 16 * (1 + abs(power - 1) * np.abs(np.log(np.maximum(size, 1e-30))).max(initial=0))
        return {"y": relative(y, factor), "d_theta": relative(case["weights"] * steep, 2 * factor)}

    function = reparam.inverse_power if inverse else reparam.power
    return Program(
        function.__name__,
        {"alpha": alpha, "dtype": str(kind)},
        lambda rng: {"theta": weights_of(rng, shape, kind)},
        lambda theta: {"y": function(theta, alpha)},
        expect,
        slopes=("theta",),
        like={"y": "theta"},
    )


def group_powers(rng):
    shape, kind = draw.pick(rng, (3,), (3, 2), (2, 3, 2)), draw.dtype(rng)
    axes = tuple(int(n) for n in rng.permutation(len(shape))[: rng.integers(1, len(shape) + 1)])
    alpha, inverse = float(draw.pick(rng, 1.0, 1.5, 2.0, 2.1, 3.0)), bool(rng.random() < 0.4)
    power = 1 / alpha if inverse else alpha

    def expect(case, got):
        theta, weights = case["theta"], case["weights"]
        norm = np.sqrt((theta**2).sum(axes, keepdims=True))
        safe = np.where(norm > 0, norm, 1)
        scale = np.where(norm > 0, safe ** (power - 1), float(power == 1))
        along = (theta / safe * weights).sum(axes, keepdims=True)
        slope = scale * (weights + (power - 1) * theta / safe * along)
        reach = np.sqrt((weights**2).sum(axes, keepdims=True))
        factor = 32 * EPS * (1 + np.abs(np.log(safe)))
        return {
            "y": Near(scale * theta, factor * np.abs(scale * theta) + LOST),
            "d_theta": Near(
                slope, 2 * factor * scale * (np.abs(weights) + reach) * (1 + power) + LOST
            ),
        }

    function = reparam.inverse_group_power if inverse else reparam.group_power
    return Program(
        function.__name__,
        {"shape": shape, "axes": axes, "alpha": alpha, "dtype": str(kind)},
        lambda rng: {"theta": weights_of(rng, shape, kind)},
        lambda theta: {"y": function(theta, alpha, axes)},
        expect,
        slopes=("theta",),
        like={"y": "theta"},
    )


def updates(rng):
    """``scale_by_power_jacobian``, ``add_power_decay`` and the two ways of ``powerprop``."""
    kind, alpha = np.dtype(np.float32), float(draw.pick(rng, 1.0, 1.5, 2.0, 2.1))
    what = draw.pick(rng, "jacobian", "decay on theta", "decay on w", "powerprop")
    rate = float(draw.pick(rng, 0.0, 0.1, 2.0))

    def run(theta, change):
        tree, changes = {"kernel": theta, "bias": theta[0]}, {"kernel": change, "bias": change[0]}
        if what == "powerprop":
            weights = reparam.powerprop(alpha).to_weights(tree)
            back = reparam.powerprop(alpha).to_theta(weights)
            return {"y": weights["kernel"], "bias": weights["bias"], "back": back["kernel"]}
        made = (
            reparam.scale_by_power_jacobian(alpha)
            if what == "jacobian"
            else reparam.add_power_decay(rate, alpha, decay_on=what[9:])
        )
        result, _ = made.update(changes, made.init(tree), tree)
        return {"y": result["kernel"], "bias": result["bias"]}

    def expect(case, got):
        theta, change = case["theta"], case["change"]
        size = np.abs(theta)
        factor = 32 * (1 + np.abs(np.log(np.maximum(size, 1e-30))).max(initial=0))
        w = np.sign(theta) * size**alpha
        steep = alpha * size ** (alpha - 1)
        if what == "powerprop":
            back = Near(theta, factor * EPS * size + LOST + (1e-8 if alpha > 1 else 0))
            return {"y": relative(w, factor), "bias": Near(theta[0]), "back": back}
        if what == "jacobian":
            return {"y": relative(steep * change, factor), "bias": Near(change[0])}
        decay = rate * (theta if what[9:] == "theta" else w * steep)
        room = factor * EPS * (np.abs(change) + np.abs(decay)) + LOST
        return {"y": Near(change + decay, room), "bias": Near(change[0])}

    return Program(
        what if what == "powerprop" else f"power updates, {what}",
        {"alpha": alpha, "weight_decay": rate},
        lambda rng: {
            "theta": weights_of(rng, (3, 2), kind),
            "change": draw.reals(rng, (3, 2), kind),
        },
        run,
        expect,
    )


def in_order(score, count):
    """Mark the largest of flat scores, the first ones where several are equal."""
    mask = np.zeros(score.size, bool)
    mask[np.argsort(-score.reshape(-1), kind="stable")[:count]] = True
    return mask.reshape(score.shape)


def masks(rng):
    rows, columns, kind = 4 * int(rng.integers(1, 3)), 4 * int(rng.integers(1, 3)), draw.dtype(rng)
    names = "Unstructured", "Blocks, mean", "Blocks, max", "Channels", "NofM", "ConstantFanIn"
    name = draw.pick(rng, *names)
    density = float(draw.pick(rng, 0.0, 0.25, 0.5, 0.9, 1.0))
    block = tuple(int(draw.pick(rng, 1, 2, 4)) for _ in range(2))
    axis, n = int(draw.pick(rng, 0, -1)), int(rng.integers(0, 5))
    pattern = {
        "Unstructured": pruning.Unstructured,
        "Blocks, mean": lambda: pruning.Blocks(block, by="mean"),
        "Blocks, max": lambda: pruning.Blocks(block, by="max"),
        "Channels": lambda: pruning.Channels(axis),
        "NofM": lambda: pruning.NofM(n, 4, axis),
        "ConstantFanIn": lambda: pruning.ConstantFanIn(axis),
    }[name]()

    def expect(case, got):
        w = np.abs(case["kernel"])
        if name == "NofM":
            if density == 1:
                return {"y": Near(np.ones(w.shape, bool))}
            turned = np.moveaxis(w, axis, -1)
            groups = turned.reshape(*turned.shape[:-1], -1, 4)
            rank = np.argsort(np.argsort(-groups, -1, kind="stable"), -1)
            return {"y": Near(np.moveaxis((rank < n).reshape(turned.shape), -1, axis))}
        if name in ("Unstructured", "ConstantFanIn"):
            # The largest of all entries, or of those of one output.
            lists = w[None] if name == "Unstructured" else np.moveaxis(w, axis, 0)
            each = pruning.count_kept(density, w.size) // len(lists)
            kept = np.stack([in_order(one, each) for one in lists])
            return {"y": Near(kept[0] if name == "Unstructured" else np.moveaxis(kept, 0, axis))}
        if name == "Channels":
            other = 1 if axis == 0 else 0
            scores = (w**2).mean(other, keepdims=True)
        else:
            cut = w.reshape(rows // block[0], block[0], columns // block[1], block[1])
            scores = cut.mean((1, 3)) if name == "Blocks, mean" else cut.max((1, 3))
        count = pruning.count_kept(density, scores.size)
        # A mean rounds, and so do means that are equal.
        if name != "Blocks, max" and count > 0 and nearly_tied(scores.reshape(-1), count):
            return {}
        kept = in_order(scores, count)
        if name == "Channels":
            return {"y": Near(np.broadcast_to(kept, w.shape))}
        return {"y": Near(np.repeat(np.repeat(kept, block[0], 0), block[1], 1))}

    return Program(
        f"magnitude_masks, {name}",
        {"pattern": pattern, "density": density, "dtype": str(kind)},
        lambda rng: {"kernel": weights_of(rng, (rows, columns), kind)},
        lambda kernel: {
            "y": pruning.magnitude_masks({"k": kernel}, {"k": density}, pattern=pattern)["k"]
        },
        expect,
    )


def keep_largest(rng):
    shapes = [draw.pick(rng, (), (3,), (2, 3), (2, 1, 3)) for _ in range(2)]
    kind, limited = draw.dtype(rng), bool(rng.random() < 0.5)
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]

    def arguments(rng):
        return {
            "one": weights_of(rng, shapes[0], kind),
            "two": draw.reals(rng, shapes[1], kind),
            "count": np.int32(rng.integers(0, sum(sizes) + 2)),
            "first": rng.random(shapes[0]) < 0.5,
            "second": rng.random(shapes[1]) < 0.5,
        }

    def run(one, two, count, first, second):
        among = [first, second] if limited else None
        kept = pruning.keep_largest([one, two], count, among=among)
        masked = pruning.apply_masks([one, two], kept)
        back = pruning.unpack_masks(pruning.pack_masks(kept), [one, two])
        both = pruning.combine_masks(jnp.logical_and, kept, back)
        return {"one": both[0], "two": both[1], "masked": masked[0]}

    def expect(case, got):
        whole = np.concatenate([np.abs(case[name]).reshape(-1) for name in ("one", "two")])
        among = np.concatenate([case[name].reshape(-1) for name in ("first", "second")])
        whole = np.where(among, whole, -1) if limited else whole
        kept = in_order(whole, min(case["count"], (whole >= 0).sum()))
        first = kept[: sizes[0]].reshape(shapes[0])
        masked = Near(np.where(first, case["one"], 0))
        return {
            "one": Near(first),
            "two": Near(kept[sizes[0] :].reshape(shapes[1])),
            "masked": masked,
        }

    return Program(
        "keep_largest, apply_masks, pack_masks",
        {"shapes": shapes, "among": limited, "dtype": str(kind)},
        arguments,
        run,
        expect,
        like={"masked": "one"},
    )


def cost_2_to_4(groups, z, strength):
    triples = [np.abs(np.delete(groups, n, -1).prod(-1)) for n in range(4)]
    return ((groups - z) ** 2).sum(-1) / 2 + strength * sum(triples)


def proximal(rng):
    axis, kind = int(draw.pick(rng, 0, 1)), draw.dtype(rng)
    shape = (8, 2) if axis == 0 else (2, 4)

    def groups_of(array):
        turned = np.moveaxis(array, axis, -1)
        return turned.reshape(*turned.shape[:-1], -1, 4)

    def arguments(rng):
        strength = np.float32(draw.pick(rng, 0.0, 10 ** rng.uniform(-3, 3)))
        return {"weights_in": draw.reals(rng, shape, kind), "strength": strength}

    def run(weights_in, strength):
        moved = pruning.prox_2_to_4(weights_in, strength, axis=axis)
        return {"y": pruning.penalty_2_to_4(weights_in, axis=axis), "moved": moved}

    def expect(case, got):
        z = groups_of(case["weights_in"])
        y = sum(np.abs(np.delete(z, n, -1).prod(-1)) for n in range(4)).sum()
        moved = groups_of(np.float64(got["moved"]))
        slope = np.zeros(z.shape)
        for n in range(4):
            for m in set(range(4)) - {n}:
                rest = [k for k in range(4) if k not in (n, m)]
                slope[..., n] += np.abs(z[..., rest].prod(-1))
        slope = (slope * np.sign(z)).reshape(np.moveaxis(case["weights_in"], axis, -1).shape)
        slope = np.moveaxis(slope, -1, axis) * case["weights"]
        kink = case["weights_in"] == 0
        two = np.where(np.argsort(np.argsort(-np.abs(z), -1, kind="stable"), -1) < 2, z, 0)
        eps = float(jnp.finfo(kind).eps) * 8
        best = np.minimum(
            cost_2_to_4(two, z, case["strength"]), cost_2_to_4(z, z, case["strength"])
        )
        size = (z**2).sum(-1) * (1 + case["strength"] * np.abs(z).max(initial=0)) + 1e-6
        fine = (cost_2_to_4(moved, z, case["strength"]) <= best + eps * size).all()
        fine &= bool((np.abs(moved) <= np.abs(z) * (1 + eps)).all() and (moved * z >= 0).all())
        return {
            "y": relative(y, 32),
            "d_weights_in": Near(slope, np.where(kink, np.inf, 32 * EPS * np.abs(slope) + LOST)),
            "moved": Near(got["moved"].astype(float) + (0 if fine else 1)),
        }

    return Program(
        "penalty_2_to_4, prox_2_to_4",
        {"axis": axis, "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=("weights_in",),
        like={"moved": "weights_in"},
    )


def schedules(rng):
    begin, every = int(rng.integers(0, 20)), int(rng.integers(1, 8))
    end, power = begin + int(rng.integers(1, 30)), float(draw.pick(rng, 1.0, 3.0))
    kind = draw.pick(rng, "one_shot", "periodic", "gradual")
    schedule = {
        "one_shot": lambda: pruning.one_shot(begin),
        "periodic": lambda: pruning.periodic(every, begin=begin, end=end),
        "gradual": lambda: pruning.gradual(begin, end, every=every, power=power),
    }[kind]()

    def expect(case, got):
        step = int(case["step"])
        due = begin <= step <= end and (step - begin) % every == 0
        share = float(step >= begin)
        if kind == "one_shot":
            due = step == begin
        if kind == "gradual":
            due = due or step == end
            share = 1 - (1 - np.clip((step - begin) / (end - begin), 0, 1)) ** power
        return {"due": Near(np.asarray(due)), "share": Near(share, 16 * EPS)}

    return Program(
        kind,
        {"begin": begin, "end": end, "every": every, "power": power},
        lambda rng: {"step": np.int32(rng.integers(0, 60))},
        lambda step: {"due": schedule.due(step), "share": schedule.share(step)},
        expect,
    )


def frozen(rng):
    """``freeze_updates``, ``freeze_entries``, ``redraw_free`` and ``task_weights``."""
    kind = draw.dtype(rng)

    def run(kernel, bias, fresh, used):
        tree, updates = {"kernel": kernel, "bias": bias}, {"kernel": fresh, "bias": bias}
        marks = {"kernel": used, "bias": optax.MaskedNode()}
        optimizer = continual.freeze_entries(optax.sgd(0.5))
        step, _ = optimizer.update(updates, optimizer.init(tree), tree, frozen=marks)
        own = {"kernel": optax.MaskedNode(), "bias": bias}
        task = continual.Task(pruning.pack_masks(marks), own)
        network = continual.empty_network(tree)._replace(used=marks, tasks=(task,))
        redrawn = continual.redraw_free(network, updates)
        return {
            "y": continual.freeze_updates(updates, marks)["kernel"],
            "step": step["kernel"],
            "redrawn": redrawn["kernel"],
            "task": continual.task_weights(network, 0)["kernel"],
        }

    def expect(case, got):
        used, kernel, fresh = case["used"], case["kernel"], case["fresh"]
        return {
            "y": Near(np.where(used, 0, fresh)),
            "step": Near(np.where(used, 0, -0.5 * fresh)),
            "redrawn": Near(np.where(used, kernel, fresh)),
            "task": Near(np.where(used, kernel, 0)),
        }

    return Program(
        "freeze_updates, freeze_entries, redraw_free, task_weights",
        {"dtype": str(kind)},
        lambda rng: {
            "kernel": draw.reals(rng, (4, 3), kind),
            "bias": draw.reals(rng, (3,), kind),
            "fresh": draw.reals(rng, (4, 3), kind),
            "used": rng.random((4, 3)) < 0.5,
        },
        run,
        expect,
        like=dict.fromkeys(("y", "step", "redrawn", "task"), "kernel"),
    )


REPARAM = (powers, powers, group_powers, updates)
PRUNING = (masks, masks, keep_largest, keep_largest, proximal, schedules)
CONTINUAL = (frozen,)
