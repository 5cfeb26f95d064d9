"""Oracles of the quicksort: every halving and every matrix written out."""

from itertools import combinations
from math import comb

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import sort
from tests.fuzz import draw
from tests.fuzz.compare import EPS, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.sort import LIMIT, draw_keys
from tests.sort.oracle import buckets, sort_matrices


def quicksort(rng):
    """All halvings are candidates, or the sort is exact: then nothing is random."""
    n, kind = int(draw.pick(rng, 1, 2, 3, 4, 5, 8)), draw.dtype(rng)
    hard, width = bool(rng.random() < 0.4), draw.pick(rng, (), (2,))
    infinite = hard or rng.random() < 0.1
    candidates = {1: 2, 2: 2, 3: 3, 4: 6, 5: 10, 8: 70}[n]

    def arguments(rng):
        keys = draw_keys(rng, n, kind, infinite=infinite)
        return {
            "keys": keys,
            "payload": draw.reals(rng, (n, *width)),
            "target": draw.reals(rng, (n, *width)),
        }

    def run(key, keys, payload, target):
        options = {"num_candidates": candidates, "certainty": 2.0, "target": target}
        done = sort.quicksort(key, keys, payload, hard=hard, **options)
        loss = sort.sort_loss(done, target, kind="means", distance=sort.squared_error)
        return {"y": done.payload, "keys": done.keys, "pulled": done.targets[0], "loss": loss}

    def expect(case, got):
        payload, target = (case[name].reshape(n, -1) for name in ("payload", "target"))
        if hard:
            order = np.argsort(case["keys"], kind="stable")
            back = np.zeros_like(target)
            back[order] = target
            expected = {"y": Near(case["payload"][order]), "keys": Near(case["keys"][order])}
            return expected | {"pulled": Near(back.reshape(case["target"].shape))}
        keys = np.clip(case["keys"], -LIMIT, LIMIT)
        if not np.isfinite(case["keys"]).all():
            return {}
        matrices = sort_matrices(keys, 2.0)
        stages, targets = [payload], [target]
        for matrix in matrices:
            stages.append(matrix @ stages[-1])
            keys = matrix @ keys
        for matrix in reversed(matrices):
            targets.insert(0, matrix.T @ targets[0])
        # Keys are mixed; what of them is lost turns up in the next weights.
        off = EPS * 64 * n * (1 + 2 * np.abs(case["keys"]).max()) ** 2
        size = 1 + np.abs(payload).max(initial=0) + np.abs(target).max(initial=0)
        loss = 0.0
        for level, (one, two) in enumerate(zip(stages, targets, strict=True)):
            for start, stop in buckets(n, level):
                means = one[start:stop].mean(0) - two[start:stop].mean(0)
                loss += (stop - start) / n * (means**2).mean()
        return {
            "y": Near(stages[-1].reshape(case["payload"].shape), off * size),
            "keys": Near(keys, off * (1 + np.abs(case["keys"]).max())),
            "pulled": Near(targets[0].reshape(case["target"].shape), off * size),
            "loss": Near(loss, off * size**2 * 8),
        }

    return Program(
        "quicksort, hard" if hard else "quicksort, sort_loss",
        {"n": n, "num_candidates": candidates, "dtype": str(kind)},
        arguments,
        run,
        expect,
        keyed=True,
        slopes=("keys", "payload"),
        like={"keys": "keys"},
    )


def split(rng):
    """A sort with random proposals: a mixture of permutations, whatever is drawn."""
    n, level = int(draw.pick(rng, 1, 3, 6, 13)), 0
    levels = (n - 1).bit_length()
    level = int(rng.integers(0, levels + 1))
    candidates = int(rng.integers(1, 5))
    near = int(rng.integers(0, candidates))

    def arguments(rng):
        return {"keys": draw_keys(rng, n, np.float32), "payload": draw.reals(rng, (n, 2))}

    def run(key, keys, payload):
        options = {"num_candidates": candidates, "num_near": near, "certainty": 2.0}
        keys, moved, half = sort.half_split(key, keys, payload, level=level, **options)
        back = sort.reverse_split(half, payload)
        return {"y": moved, "back": back, **half._asdict()}

    def expect(case, got):
        sources, places, weights = (got[name] for name in ("sources", "destinations", "weights"))
        forward, backward, ranges = np.zeros((n, n)), np.zeros((n, n)), buckets(n, level)
        for one, two, share in zip(sources, places, np.float64(weights), strict=True):
            if not np.array_equal(one[two], np.arange(n)):
                return {"sources": Near(sources - 1)}
            if any(set(one[a:b]) != set(range(a, b)) for a, b in ranges):
                return {"sources": Near(sources - 1)}
            forward[np.arange(n), one] += share
            backward[np.arange(n), two] += share
        size = np.abs(case["payload"]).max()
        return {
            "y": Near(forward @ case["payload"], 32 * EPS * size),
            "back": Near(backward @ case["payload"], 32 * EPS * size),
            "weights": Near(weights + (1 - np.float64(weights).sum(0)), 16 * EPS),
        }

    return Program(
        "half_split, reverse_split",
        {"n": n, "level": level, "num_candidates": candidates, "num_near": near},
        arguments,
        run,
        expect,
        keyed=True,
        slopes=("keys", "payload"),
    )


def of_draw(order, keys, certainty, start=0, bucket=None):
    """Log probability of a drawn sort of all halvings, and its slopes, bucket by bucket."""
    bucket = list(range(len(keys))) if bucket is None else bucket
    slope = np.zeros(len(keys))
    if len(bucket) < 2:
        return 0.0, slope
    low = len(bucket) // 2
    place = {element: n for n, element in enumerate(order)}
    up = {element for element in bucket if place[element] >= start + low}
    every = [set(one) for one in combinations(bucket, len(bucket) - low)]
    scores = certainty * np.array([keys[list(one)].sum() for one in every])
    logs = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
    for one, log in zip(every, logs, strict=True):
        slope[list(one)] += certainty * ((one == up) - np.exp(log))
    total = logs[every.index(up)]
    rest = [element for element in bucket if element not in up]
    for first, part in ((start, rest), (start + low, [one for one in bucket if one in up])):
        more, by_keys = of_draw(order, keys, certainty, first, part)
        total, slope = total + more, slope + by_keys
    return total, slope


def draw_sort(rng):
    n, candidates = int(draw.pick(rng, 1, 2, 4, 7)), int(draw.pick(rng, 1, 2, 6))
    whole = comb(n, n // 2) <= candidates and candidates > 1

    def run(key, keys):
        payload = jnp.arange(n)
        drawn = sort.draw_sort(key, keys, payload, num_candidates=candidates, certainty=2.0)
        return {"y": drawn.log_probability, "payload": drawn.payload, "keys": drawn.keys}

    def expect(case, got):
        order = got["payload"]
        if not np.array_equal(np.sort(order), np.arange(n)):
            return {"payload": Near(order - 1)}
        wide = np.clip(case["keys"], -LIMIT, LIMIT)
        expected = {"keys": Near(wide[order], EPS * np.abs(wide[order]))}
        if not whole or np.abs(wide).max() == LIMIT:
            return expected | {"y": Near(min(np.float64(got["y"]), 0.0), 16 * EPS)}
        log, slope = of_draw(list(order), wide, 2.0)
        room = 64 * EPS * n * (1 + np.abs(wide).max())
        by_keys = Near(case["weights"] * slope, 4 * room * np.abs(case["weights"]) * n)
        return expected | {"y": Near(log, room), "d_keys": by_keys}

    return Program(
        "draw_sort",
        {"n": n, "num_candidates": candidates},
        lambda rng: {"keys": draw_keys(rng, n, np.float32)},
        run,
        expect,
        keyed=True,
        slopes=("keys",),
    )


FAMILIES = (quicksort, quicksort, split, draw_sort)
