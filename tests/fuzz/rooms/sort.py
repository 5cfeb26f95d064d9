"""Oracles of ``sort``: every matrix written out."""

import numpy as np

from sparse_hyper_jax import sort
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program

LIMIT = 1e30


def draw_keys(rng, n, kind, *, infinite=True):
    """Keys, among which are ties and infinities; never so large that a difference is infinite."""
    keys = draw.reals(rng, (n,), kind, spread=draw.pick(rng, 0.1, 1.0, 3.0))
    if infinite and rng.random() < 0.15:
        keys = np.where(rng.random(n) < 0.3, rng.choice([-np.inf, np.inf], n), keys)
    return keys.astype(kind)


class Soft:
    """The soft permutation of float64 keys, in sorted order, with its derivatives."""

    def __init__(self, keys, certainty, lists=None, labels=None):
        self.lists = np.zeros(len(keys), int) if lists is None else lists
        self.clear = np.abs(keys) <= LIMIT
        wide = np.clip(keys, -LIMIT, LIMIT)
        criteria = (wide, self.lists) if labels is None else (labels, wide, self.lists)
        self.order = np.lexsort(criteria)
        self.keys, self.certainty = wide, certainty
        rows, own = wide[self.order], self.lists[self.order]
        self.signs = np.sign(rows[:, None] - rows)
        same = own[:, None] == own
        self.logits = np.where(same, -certainty * np.abs(rows[:, None] - rows), -np.inf)
        powers = np.exp(self.logits)
        self.matrix = powers / powers.sum(1, keepdims=True)
        self.totals = powers.sum(1)
        starts = np.searchsorted(own, own, "left")
        self.rank = np.arange(len(own)) - starts
        self.size = np.searchsorted(own, own, "right") - starts
        self.tied = len(np.unique(np.stack([wide, self.lists]), axis=1).T) < len(wide)

    def off(self, size):
        """How far a float32 result may be off, for numbers of such a size in each row."""
        n = len(self.keys)
        return EPS * (4 * n + 16) * size + LOST

    def slope(self, by_logit):
        """Derivatives by the keys, in the order of the elements, from those by the logits."""
        steep = -self.certainty * by_logit * self.signs
        moved = steep.sum(1) - steep.sum(0)
        result = np.zeros(len(self.keys))
        result[self.order] = moved
        size = np.zeros(len(self.keys))
        size[self.order] = np.abs(steep).sum(1) + np.abs(steep).sum(0)
        return np.where(self.clear, result, 0), size

    def mix_slope(self, payload, weights):
        """Derivatives of ``weights * (matrix @ payload)``; both ``(n, width)``, in sorted order."""
        product = weights @ payload.T
        by_logit = self.matrix * (product - (self.matrix * product).sum(1, keepdims=True))
        value, size = self.slope(by_logit)
        sharp = self.certainty * np.abs(product).max(initial=0)
        allowed = np.full(len(value), self.off(sharp).max()) + 32 * EPS * size
        # Where keys are equal the slope is that of their given order; on the edge of the clip half.
        loose = self.tied or (np.abs(self.keys) == LIMIT).any()
        return Near(value, np.inf if loose else allowed)


def soft_options(rng, n):
    certainty = float(draw.pick(rng, 10.0, 1.0, 10 ** rng.uniform(-2, 3)))
    return certainty, bool(rng.random() < 0.4)


def soft_sort(rng):
    n, kind = int(draw.pick(rng, 1, 2, 5, 17)), draw.dtype(rng)
    (certainty, listed), hard = soft_options(rng, n), bool(rng.random() < 0.25)
    width = draw.pick(rng, (), (2,), (n + 3,), (2, 2))
    payload_kind = draw.dtype(rng)

    def arguments(rng):
        return {
            "keys": draw_keys(rng, n, kind),
            "payload": draw.reals(rng, (n, *width), payload_kind),
            "lists": rng.integers(0, 3, n).astype(np.int32),
            "certainty": np.float32(certainty * 2 ** rng.uniform(-1, 1)),
        }

    def run(keys, payload, lists, certainty):
        options = {"certainty": certainty, "segment_ids": lists if listed else None}
        return {"y": sort.soft_sort(keys, payload, hard=hard, **options)}

    def expect(case, got):
        lists = case["lists"] if listed else None
        payload, weights = (case[name].reshape(n, -1) for name in ("payload", "weights"))
        if hard:
            order = np.lexsort((case["keys"], case["lists"] if listed else np.zeros(n)))
            slope = np.zeros(payload.shape)
            slope[order] = weights
            # The keys of an exact sort have no slope.
            zero = Near(np.zeros(n))
            return {
                "y": Near(case["payload"][order]),
                "d_keys": zero,
                "d_payload": Near(slope.reshape(case["payload"].shape)),
            }
        soft = Soft(case["keys"], case["certainty"], lists)
        ordered = payload[soft.order]
        y = soft.matrix @ ordered
        off = soft.off(soft.matrix @ np.abs(ordered) + np.abs(ordered).max(initial=0))
        back = np.zeros(payload.shape)
        back[soft.order] = soft.matrix.T @ weights
        back_off = soft.off(np.abs(weights).max(initial=0) * n)
        return {
            "y": Near(y.reshape(case["payload"].shape), off.reshape(case["payload"].shape)),
            "d_keys": soft.mix_slope(ordered, weights),
            "d_payload": Near(back.reshape(case["payload"].shape), back_off),
        }

    return Program(
        "soft_sort, hard" if hard else "soft_sort",
        {"n": n, "width": width, "lists": listed, "dtypes": (str(kind), str(payload_kind))},
        arguments,
        run,
        expect,
        slopes=("keys", "payload"),
        like={"y": "payload"},
    )


def soft_places(rng):
    """``soft_ranks`` and ``soft_top_k``: the smooth rows of places, brought back to elements."""
    n, kind = int(draw.pick(rng, 1, 2, 5, 17)), draw.dtype(rng)
    (certainty, listed), hard = soft_options(rng, n), bool(rng.random() < 0.2)
    k = None if rng.random() < 0.5 else int(rng.integers(0, n + 2))

    def arguments(rng):
        return {
            "keys": draw_keys(rng, n, kind),
            "lists": rng.integers(0, 3, n).astype(np.int32),
            "certainty": np.float32(certainty * 2 ** rng.uniform(-1, 1)),
        }

    def run(keys, lists, certainty):
        options = {"certainty": certainty, "hard": hard, "segment_ids": lists if listed else None}
        if k is None:
            return {"y": sort.soft_ranks(keys, **options)}
        return {"y": sort.soft_top_k(keys, k, **options)}

    def expect(case, got):
        soft = Soft(case["keys"], case["certainty"], case["lists"] if listed else None)
        exact = np.lexsort((case["keys"], soft.lists))
        rows = soft.rank.astype(float) if k is None else (soft.rank >= soft.size - k).astype(float)
        y, weights = np.zeros(n), np.zeros(n)
        if hard:
            y[exact] = rows
            return {"y": Near(y.astype(got["y"].dtype))}
        y[soft.order] = soft.matrix @ rows
        weights = case["weights"][soft.order]
        slope = soft.mix_slope(rows[:, None], weights[:, None])
        return {"y": Near(y, soft.off(n if k is None else 1)), "d_keys": slope}

    return Program(
        "soft_ranks" if k is None else "soft_top_k",
        {"n": n, "k": k, "hard": hard, "lists": listed, "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=() if hard else ("keys",),
    )


def order_losses(rng):
    n, kind = int(draw.pick(rng, 1, 2, 5, 12)), draw.dtype(rng)
    certainty, listed = soft_options(rng, n)
    by_rank, whole = bool(rng.random() < 0.5), bool(rng.random() < 0.3)

    def arguments(rng):
        labels = draw.distinct(rng, n) if rng.random() < 0.7 else draw.reals(rng, (n,))
        return {
            "keys": draw_keys(rng, n, kind, infinite=False),
            "labels": np.asarray(np.round(labels * 4), np.int32) if whole else labels,
            "lists": rng.integers(0, 3, n).astype(np.int32),
            "certainty": np.float32(certainty * 2 ** rng.uniform(-1, 1)),
        }

    def run(keys, labels, lists, certainty):
        function = sort.rank_loss if by_rank else sort.order_loss
        options = {"certainty": certainty, "segment_ids": lists if listed else None}
        return {"y": function(keys, labels, **options)}

    def expect(case, got):
        lists = case["lists"] if listed else np.zeros(n, int)
        soft = Soft(case["keys"], case["certainty"], lists)
        if by_rank:
            return of_ranks(soft, case)
        return of_order(soft, case)

    return Program(
        "rank_loss" if by_rank else "order_loss",
        {"n": n, "lists": listed, "labels": "int32" if whole else "float32", "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=("keys",),
    )


def of_ranks(soft, case):
    n, labels = len(soft.keys), np.asarray(case["labels"], float)
    ranks = np.zeros(n)
    ranks[soft.order] = soft.matrix @ soft.rank
    same = soft.lists[:, None] == soft.lists
    wanted = (same & (labels < labels[:, None])).sum(1)
    wanted = wanted + ((same & (labels == labels[:, None])).sum(1) - 1) / 2
    scale = 6 / np.maximum(same.sum(1) ** 2 - 1, 1)
    y = (scale * (ranks - wanted) ** 2).mean()
    off = soft.off(n * 2) * (scale * (np.abs(ranks - wanted) + EPS)).mean() * 2 + 8 * EPS * y
    weights = case["weights"] * 2 * scale * (ranks - wanted) / n
    slope = soft.mix_slope(soft.rank[:, None].astype(float), weights[soft.order][:, None])
    # The weights are themselves off by the rounding of the ranks.
    worse = soft.certainty * soft.off(n * n) * 12 * np.abs(case["weights"]) / n
    return {"y": Near(y, off), "d_keys": Near(slope.value, slope.allowance + worse)}


def of_order(soft, case):
    n, labels = len(soft.keys), np.asarray(case["labels"], float)
    # Among equal labels the order of the keys is taken, among equal keys that of the labels.
    order = np.lexsort((labels, soft.keys, soft.lists))
    true = np.lexsort((soft.keys, labels, soft.lists))
    current, wanted = soft.keys[order], soft.keys[true]
    apart = current - wanted
    y = (soft.certainty * np.abs(apart) + np.log(soft.totals)).mean()
    size = (soft.certainty * np.abs(apart)).mean() + 1 + np.log(n)
    by_logit = soft.matrix / n
    value, logit_size = soft.slope(by_logit)
    pull = np.zeros(n)
    np.add.at(pull, order, np.sign(apart) * soft.certainty / n)
    np.add.at(pull, true, -np.sign(apart) * soft.certainty / n)
    off = 64 * EPS * (logit_size + soft.certainty) * abs(case["weights"]) + LOST
    loose = soft.tied or len(np.unique(np.stack([labels, soft.lists]), axis=1).T) < n
    off = np.inf if loose else off
    return {"y": Near(y, soft.off(size)), "d_keys": Near(case["weights"] * (value + pull), off)}


def standardise(rng):
    n, kind = int(draw.pick(rng, 1, 2, 5, 17)), draw.dtype(rng)

    def arguments(rng):
        spread = 1.0 if kind == np.float16 else 10.0 ** rng.integers(-8, 9)
        return {"keys": draw.reals(rng, (2, n), kind, spread=spread)}

    def expect(case, got):
        keys, weights = case["keys"], case["weights"]
        centred = keys - keys.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True))
        width = keys.max(-1, keepdims=True) - keys.min(-1, keepdims=True)
        flat = width == 0
        safe = np.where(flat, 1, spread)
        y = np.where(flat, 0, centred / safe)
        # Distances from the least are rounded, in units of the width.
        off = 16 * EPS * (np.where(flat, 0, width / safe) + np.abs(y)) + LOST
        slope = (
            weights - weights.mean(-1, keepdims=True) - y * (weights * y).mean(-1, keepdims=True)
        ) / safe
        size = (
            np.abs(weights) + np.abs(weights).mean(-1, keepdims=True) * (1 + y**2 + np.abs(y))
        ) / safe
        worse = 64 * EPS * size * (1 + np.where(flat, 0, width / safe))
        return {"y": Near(y, off), "d_keys": Near(slope, np.where(flat, np.inf, worse))}

    return Program(
        "standardise",
        {"n": n, "dtype": str(kind)},
        arguments,
        lambda keys: {"y": sort.standardise(keys)},
        expect,
        slopes=("keys",),
        like={"y": "keys"},
    )


def neural_sort(rng):
    n, kind = int(draw.pick(rng, 1, 2, 5, 9)), draw.dtype(rng)

    def arguments(rng):
        temperature = np.float32(10 ** rng.uniform(-2, 2))
        return {"keys": draw_keys(rng, n, kind, infinite=False), "temperature": temperature}

    def expect(case, got):
        keys, temperature, weights = case["keys"], case["temperature"], case["weights"]
        apart = keys[:, None] - keys
        steep = 2 * np.arange(n) + 1 - n
        logits = (steep[:, None] * keys - np.abs(apart).sum(1)) / temperature
        powers = np.exp(logits - logits.max(1, keepdims=True))
        y = powers / powers.sum(1, keepdims=True)
        size = (np.abs(steep[:, None] * keys) + np.abs(apart).sum(1)) / temperature
        slip = EPS * (n + 4) * size.max(1, keepdims=True)
        off = np.minimum(1, y * np.expm1(np.minimum(4 * slip, 50)) + 8 * EPS * y + LOST)
        by_logit = y * (weights - (y * weights).sum(1, keepdims=True)) / temperature
        signs = np.sign(apart)
        column = by_logit.sum(0)
        slope = (
            (steep[:, None] * by_logit).sum(0)
            - column * signs.sum(1)
            + (column[:, None] * signs).sum(0)
        )
        by_off = off * (np.abs(weights) + (np.abs(weights) * y).sum(1, keepdims=True)) / temperature
        by_off += y * (off * np.abs(weights)).sum(1, keepdims=True) / temperature
        worse = 4 * n * by_off.sum() + 64 * EPS * n * np.abs(weights).sum() * n / temperature
        tied = len(np.unique(keys)) < n
        return {"y": Near(y, off), "d_keys": Near(slope, np.inf if tied else worse)}

    return Program(
        "neural_sort",
        {"n": n, "dtype": str(kind)},
        arguments,
        lambda keys, temperature: {"y": sort.neural_sort(keys, temperature=temperature)},
        expect,
        slopes=("keys",),
    )


FAMILIES = (
    soft_sort,
    soft_sort,
    soft_places,
    soft_places,
    order_losses,
    order_losses,
    standardise,
    neural_sort,
)
