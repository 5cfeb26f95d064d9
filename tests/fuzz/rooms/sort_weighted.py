"""Oracles of sorts whose elements are weighed, may be absent, or come largest first."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import sort
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program


def arguments_of(rng, n, kind, *, weighted=True):
    keys = draw.reals(rng, (n,), kind, spread=draw.pick(rng, 0.1, 1.0, 3.0))
    weights = rng.choice([0.0, 0.25, 1.0, 3.0], n) if weighted else draw.mask(rng, n)
    return {
        "keys": keys,
        "lists": rng.integers(0, 3, n).astype(np.int32),
        "w": np.asarray(weights, np.float32 if weighted else bool),
        "certainty": np.float32(10 ** rng.uniform(-1, 2)),
    }


class Weighted:
    """A matrix ``P`` in float64, its places in order; absent elements last in their lists."""

    def __init__(self, case, *, listed, weighted, descending, hard=False):
        n = len(case["keys"])
        self.lists = case["lists"] if listed else np.zeros(n, int)
        self.weights = np.asarray(case["w"], float) if weighted else np.ones(n)
        keys = np.where(self.weights == 0, 0, case["keys"]) * (-1 if descending else 1)
        self.order = np.lexsort((keys, self.weights == 0, self.lists))
        own, rows, heavy = (one[self.order] for one in (self.lists, keys, self.weights))
        self.present = heavy > 0
        near = (own[:, None] == own) & self.present[:, None] & self.present
        if hard:
            self.matrix = np.diag(self.present.astype(float))
        else:
            apart = np.where(near, np.abs(rows[:, None] - rows), 0)
            powers = np.where(near, heavy * np.exp(-case["certainty"] * apart), 0)
            totals = powers.sum(1, keepdims=True)
            self.matrix = powers / np.where(totals == 0, 1, totals)
        self.own, self.rows, self.heavy = own, rows, heavy

    def off(self, size):
        return EPS * (8 * len(self.order) + 64) * size + LOST


def options_of(rng):
    return {
        "listed": bool(rng.random() < 0.4),
        "weighted": bool(rng.random() < 0.7),
        "descending": bool(rng.random() < 0.5),
        "hard": bool(rng.random() < 0.25),
    }


def permutations(rng):
    """``soft_argsort`` with ``apply_permutation``, either way, and ``soft_sort`` in one call."""
    n, kind, chosen = int(draw.pick(rng, 1, 2, 5, 13)), draw.dtype(rng), options_of(rng)
    transpose, at_once, exact = (bool(rng.random() < 0.4) for _ in range(3))
    transpose = transpose and not at_once

    def run(keys, lists, w, certainty, payload):
        options = {
            "certainty": certainty,
            "segment_ids": lists if chosen["listed"] else None,
            "weights": w if chosen["weighted"] else None,
            "descending": chosen["descending"],
            "hard": chosen["hard"],
        }
        if at_once:
            return {"y": sort.soft_sort(keys, payload, straight_through=exact, **options)}
        found = sort.soft_argsort(keys, **options)
        moved = sort.apply_permutation(found, payload, transpose=transpose, straight_through=exact)
        return {"y": moved, "order": found.order}

    def expect(case, got):
        soft, hard = Weighted(case, **chosen), Weighted(case, **(chosen | {"hard": True}))
        matrix = np.zeros((n, n))
        matrix[:, soft.order] = soft.matrix
        moved = np.zeros((n, n))
        moved[:, soft.order] = hard.matrix
        matrix, moved = (one.T if transpose else one for one in (matrix, moved))
        payload, weights = case["payload"], case["weights"]
        size = np.abs(matrix) @ np.abs(payload) + np.abs(payload).max(initial=0)
        back = np.abs(matrix.T) @ np.abs(weights) + np.abs(weights).max(initial=0)
        y = moved @ payload if exact else matrix @ payload
        return {
            "y": Near(y, 0 if exact or chosen["hard"] else soft.off(size)),
            "order": Near(soft.order.astype(np.int32)),
            "d_payload": Near(matrix.T @ weights, soft.off(back)),
        }

    return Program(
        "soft_sort, weighted" if at_once else "apply_permutation",
        {"n": n, "dtype": str(kind), "transpose": transpose, "straight": exact, **chosen},
        lambda rng: arguments_of(rng, n, kind) | {"payload": draw.reals(rng, (n, 2))},
        run,
        expect,
        slopes=("payload",),
        like={"y": "payload"},
    )


def quantiles(rng):
    """``soft_quantile`` and what is read off in the same way."""
    n, chosen = int(draw.pick(rng, 1, 2, 5, 11)), options_of(rng) | {"descending": False}
    name = draw.pick(rng, "soft_quantile", "soft_median", "soft_min", "soft_max")
    exact = bool(rng.random() < 0.3)
    number = int(rng.integers(1, 4))

    def arguments(rng):
        case = arguments_of(rng, n, np.float32)
        case["lists"] = draw.segments(rng, n, number)
        return case | {"q": rng.integers(0, 9, 3).astype(np.float32) / 8}

    def run(keys, lists, w, certainty, q):
        options = {
            "certainty": certainty,
            "weights": w if chosen["weighted"] else None,
            "hard": chosen["hard"],
            "straight_through": exact,
        }
        if chosen["listed"]:
            options |= {"segment_ids": lists, "num_segments": number}
        if name == "soft_quantile":
            return {"y": sort.soft_quantile(keys, q, **options)}
        return {"y": getattr(sort, name)(keys, **options)}

    def expect(case, got):
        soft = Weighted(case, **chosen)
        values = soft.rows if exact or chosen["hard"] else soft.matrix @ soft.rows
        levels = {"soft_median": [0.5], "soft_min": [0.0], "soft_max": [1.0]}.get(name, case["q"])
        numbers = range(number) if chosen["listed"] else [0]
        read = [[of_list(soft, values, one, level) for level in levels] for one in numbers]
        y, step = np.moveaxis(np.array(read), -1, 0)
        shape = got["y"].shape
        # On a place that rounding may move past a step, either side of it is right.
        size = np.abs(soft.rows).max(initial=0)
        return {"y": Near(y.reshape(shape), (soft.off(size) + step * 64 * EPS * n).reshape(shape))}

    options = {"n": n, "straight": exact, **chosen}
    return Program(name, options, arguments, run, expect)


def of_list(soft, values, number, level):
    """Read a list at the middle of a weight; also the steepest step, by which a place rounds."""
    at = np.flatnonzero((soft.own == number) & soft.present)
    if not len(at):
        return 0.0, 0.0
    middles = soft.heavy[at].cumsum() - soft.heavy[at] / 2
    wanted = middles[0] + level * (middles[-1] - middles[0])
    total = soft.heavy[at].sum()
    steps = np.abs(np.diff(values[at])) / np.diff(middles) if len(at) > 1 else np.zeros(1)
    return np.interp(wanted, middles, values[at]), steps.max() * total


def ranked(rng):
    """``ndcg``, ``ndcg_loss`` and ``spearman``, with lists and absent elements."""
    n, kind = int(draw.pick(rng, 1, 2, 5, 11)), draw.dtype(rng)
    name = draw.pick(rng, "ndcg", "ndcg_loss", "spearman")
    listed, masked = (bool(rng.random() < 0.5) for _ in range(2))
    k = draw.pick(rng, None, int(rng.integers(1, n + 2)))

    def arguments(rng):
        case = arguments_of(rng, n, kind, weighted=False)
        if rng.random() < 0.5:
            case["keys"] = draw.distinct(rng, n, kind)
        return case | {"gains": rng.integers(0, 8, n).astype(np.float32)}

    def run(keys, lists, w, certainty, gains):
        options = {"segment_ids": lists if listed else None, "mask": w if masked else None}
        if name == "spearman":
            return {"y": sort.spearman(keys, gains, **options)}
        options |= {"certainty": certainty} if name == "ndcg_loss" else {}
        return {"y": getattr(sort, name)(keys, gains, k=k, **options)}

    def expect(case, got):
        if name == "spearman":
            rows = [np.flatnonzero(one) for one in groups(case, listed, masked)]
            found = [correlation(case["keys"][at], case["gains"][at]) for at in rows]
            found = [one for one in found if one is not None]
            return {"y": Near(np.mean(found) if found else 0.0, 64 * EPS * n)}
        soft = Weighted(case, listed=listed, weighted=masked, descending=True, hard=name == "ndcg")
        gains = np.where(soft.present, case["gains"][soft.order], 0)
        mixed, shares = soft.matrix @ gains, []
        for number in np.unique(soft.own):
            at = np.flatnonzero(soft.own == number)
            discounts = 1 / np.log2(np.arange(len(at)) + 2) * (np.arange(len(at)) < (k or n))
            ideal = discounts @ -np.sort(-gains[at])
            shares += [discounts @ mixed[at] / ideal] if ideal > 0 else []
        y = np.mean(shares) if shares else 1.0
        return {"y": Near(1 - y if name == "ndcg_loss" else y, soft.off(8 * n))}

    # A mean over no list is NaN by design: the fuzzer asks for what there is.
    return Program(
        name,
        {"n": n, "k": k, "listed": listed, "masked": masked, "dtype": str(kind)},
        arguments,
        (lambda **given: {"y": finite(run(**given)["y"])}) if name == "spearman" else run,
        expect,
    )


def finite(y):
    """Put 0 in the place of no correlation."""
    return jnp.where(jnp.isnan(y), 0, y)


def groups(case, listed, masked):
    """Mark the present elements of every list."""
    present = case["w"] if masked else np.ones(len(case["keys"]), bool)
    lists = case["lists"] if listed else np.zeros(len(case["keys"]), int)
    return [present & (lists == one) for one in np.unique(lists)]


def correlation(keys, labels):
    """The correlation of ranks, equal ones at the mean of theirs; None where one does not vary."""
    one, two = (
        (numbers[:, None] > numbers).sum(1) + ((numbers[:, None] == numbers).sum(1) - 1) / 2
        for numbers in (keys, labels)
    )
    if not len(keys) or one.std() == 0 or two.std() == 0:
        return None
    return np.corrcoef(one, two)[0, 1]


FAMILIES = (permutations, permutations, quantiles, quantiles, ranked, ranked)
