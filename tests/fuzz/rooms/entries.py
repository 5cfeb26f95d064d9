"""Oracles of ``ops``, from points to outputs."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries
from tests.fuzz import draw, shares
from tests.fuzz.compare import EPS, LOST, Near, relative
from tests.fuzz.program import Program
from tests.fuzz.rooms.products import product, product_slopes
from tests.fuzz.rooms.tuples import DENSITIES, judge_points, nearest, sampling, some_tuples

TUPLES = ("means", "variances", "values")


def draw_template(rng, count, chunk):
    """A template of rank 2 or 3, its shape, and the lengths of the learned columns."""
    rank = int(rng.integers(2, 4))
    sizes = draw.shape(rng, rank)
    columns = tuple(int(n) for n in rng.permutation(rank)[: rng.integers(1, rank)])
    rows = np.repeat(draw.cells(rng, count // chunk, sizes), chunk, axis=0)
    if 0 not in columns and rng.random() < 0.5:
        rows = rows[np.lexsort(rows.T[::-1])]
    return ops.make_template(rows, columns, chunk_size=chunk), sizes


class Relaxation:
    """Options of one relaxation, and its oracle; what all of ``relax`` and ``hyperlayer`` share."""

    def __init__(self, rng, *, rank=None, active=True):
        self.chunk = int(rng.integers(1, 4))
        self.count = self.chunk * int(rng.integers(1, 4))
        self.density, self.kind = draw.pick(rng, *DENSITIES), draw.dtype(rng)
        self.wrap = bool(rng.random() < 0.25)
        self.template, self.active, locality = None, None, None
        form = rng.integers(5)
        if form == 0:
            self.template, self.shape = draw_template(rng, self.count, self.chunk)
        else:
            rank = rank or int(rng.integers(1, 7))
            small = rng.random() < 0.7 or form == 3
            self.shape = draw.shape(rng, rank) if small else draw.long_shape(rng, rank, most=2**26)
        if form in (2, 3):
            self.chunk = self.count
        if form == 2 and active:
            size = int(rng.integers(1, self.count + 1))
            self.active = int(rng.integers(0, self.count - size + 1)), size
        self.learned = self.template.learned_shape(self.shape) if self.template else self.shape
        self.sampling = sampling(rng, len(self.learned))
        if form == 3:
            self.density, self.wrap = "gaussian", False
            most = self.count * (2 ** len(self.shape) + 8)
            locality = ops.Locality(max(self.shape), (most,), tolerance=None)
        self.options = {"density": self.density, "wrap": self.wrap, **self.sampling}
        self.options |= {"active": self.active} if self.active else {}
        self.options |= {"locality": locality} if locality else {}
        self.options |= {"template": self.template} if self.template else {}
        if form == 1 or (self.template is None and not self.active and not locality):
            self.options["chunk_size"] = self.chunk
        self.period = self.learned if self.wrap else None

    def told(self):
        """Options to be printed."""
        return {"shape": self.shape, "dtype": str(self.kind), **self.options}

    def draw(self, rng):
        return some_tuples(rng, self.count, self.learned, self.kind, wrap=self.wrap)

    def contexts(self, case, indices):
        """Tuples that share their points: slices of tuples and of entries, and the points."""
        start, count = self.active or (0, self.count)
        columns = list(self.template.columns) if self.template else slice(None)
        q = 2 ** len(self.learned) + self.sampling["num_global"] + self.sampling["num_local"]
        chunk = count if self.active else self.chunk
        for first in range(0, count, chunk):
            entries = slice(first * q, (first + chunk) * q)
            yield slice(start + first, start + first + chunk), entries, indices[entries][:, columns]

    def wrong_points(self, case, indices):
        """What is wrong with the indices of all entries, in words."""
        for tuples, _, points in self.contexts(case, indices):
            means = case["means"][tuples]
            cut = points.reshape(len(means), -1, points.shape[1])
            words = judge_points(cut, means, self.learned, self.sampling, wrap=self.wrap)
            if words:
                return words
        if self.template is not None:
            fixed = [n for n in range(len(self.shape)) if n not in self.template.columns]
            rows = np.repeat(self.template.rows[:, fixed], len(indices) // self.count, 0)
            return "" if np.array_equal(rows, indices[:, fixed]) else "other fixed columns"
        return ""

    def values(self, case, indices):
        """Values of the entries, and the shares of every context."""
        total, off, found = np.zeros(len(indices)), np.zeros(len(indices)), []
        for tuples, entries, points in self.contexts(case, indices):
            mask = shares.first_occurrence(points)
            parts = case["means"][tuples], case["variances"][tuples]
            table = shares.share(points, mask, *parts, self.density, self.period)
            total[entries], off[entries] = shares.mixed(table, case["values"][tuples])
            found.append((tuples, entries, points, table))
        if self.active:
            start, size = self.active
            passive = np.delete(np.arange(self.count), slice(start, start + size))
            total[len(indices) - self.count :][passive] = case["values"][passive]
        return Near(total, off), found

    def slopes(self, case, found, weights, wrong=0.0):
        """Derivatives of ``weights @ values`` by the tuples; none where they are not defined."""
        results = {name: [np.zeros_like(case[name]), np.zeros_like(case[name])] for name in TUPLES}
        wrong = np.broadcast_to(wrong, weights.shape)
        for tuples, entries, points, table in found:
            if self.wrap and shares.halfway(points, case["means"][tuples], self.period):
                return {}
            worst = wrong[entries].max(initial=0)
            slopes = shares.slopes(table, case["values"][tuples], weights[entries], worst)
            for name, near in zip(TUPLES, slopes, strict=True):
                results[name][0][tuples], results[name][1][tuples] = near
        return {f"d_{name}": Near(*pair) for name, pair in results.items()}


def relax(rng):
    plan = Relaxation(rng)

    def run(key, **parts):
        entries = ops.relax(key, ContinuousTuples(**parts), plan.shape, **plan.options)
        return {"indices": entries.indices, "y": entries.values, "total": entries.values.sum()}

    def expect(case, got):
        words = plan.wrong_points(case, got["indices"])
        if words:
            return {"indices": Near(got["indices"] - 1)}
        values, found = plan.values(case, got["indices"])
        size = EPS * len(values.value) * np.abs(case["values"]).sum()
        total = Near(case["values"].sum(), 8 * size + LOST)
        return {"y": values, "total": total} | plan.slopes(case, found, case["weights"])

    name = "relax, active" if plan.active else "relax"
    return Program(name, plan.told(), plan.draw, run, expect, keyed=True, slopes=TUPLES)


def hyperlayer(rng):
    plan = Relaxation(rng, rank=int(rng.integers(1, 4)))
    while max(plan.shape) > 100:
        plan = Relaxation(rng, rank=int(rng.integers(1, 4)))
    out_rank = int(rng.integers(0, len(plan.shape) + 1))
    out_shape, inputs = plan.shape[:out_rank], plan.shape[out_rank:]
    features, kind = draw.pick(rng, (), (3,)), draw.dtype(rng)
    hard = bool(rng.random() < 0.3)
    coin = draw.pick(rng, 0.0, 1.0, 1.0, 1.0) if not hard else 1.0
    rest = {name: plan.options[name] for name in ("wrap", "template") if name in plan.options}

    def arguments(rng):
        return plan.draw(rng) | {"x": draw.reals(rng, (*inputs, *features), kind)}

    def run(x, key=None, **parts):
        tuples = ContinuousTuples(**parts)
        if hard:
            y = ops.hyperlayer_hard(tuples, x, out_shape, **rest)
        else:
            options = plan.options | {"sample_probability": coin}
            y = ops.hyperlayer(key, tuples, x, out_shape, **options)
        if hard or coin == 0:
            entries = ops.settle(tuples, plan.shape, **rest)
        else:
            entries = ops.relax(key, tuples, plan.shape, **plan.options)
        return {"y": y, "indices": entries.indices}

    def expect(case, got):
        settled = hard or coin == 0
        if settled:
            values, found = Near(case["values"], np.zeros(plan.count)), []
            cells = nearest(case["means"], plan.learned, wrap=plan.wrap)
            columns = list(plan.template.columns) if plan.template else slice(None)
            if not np.array_equal(got["indices"][:, columns], cells):
                return {"indices": Near(got["indices"] - 1)}
        else:
            values, found = plan.values(case, got["indices"])
        y, size, facts = product(got["indices"], values.value, case["x"], out_shape)
        reach = product(got["indices"], values.allowance, np.abs(case["x"]), out_shape)[0]
        off = np.nan_to_num(reach, nan=np.inf) + 16 * EPS * size + LOST
        expected = {"y": Near(y, off)}
        (pull, pull_size), (by_x, x_size) = product_slopes(
            values.value, case["x"], case["weights"], facts
        )
        _, (x_reach, _) = product_slopes(
            values.allowance, np.abs(case["x"]), np.abs(case["weights"]), facts
        )
        x_off = np.nan_to_num(np.abs(x_reach), nan=np.inf) + 16 * EPS * x_size + LOST
        expected["d_x"] = Near(by_x, x_off)
        if settled:
            zero = Near(np.zeros_like(case["means"]))
            rest = {"d_means": zero, "d_variances": zero}
            return expected | rest | {"d_values": Near(pull, 16 * EPS * pull_size + LOST)}
        return expected | plan.slopes(case, found, pull, 16 * EPS * pull_size)

    return Program(
        "hyperlayer_hard" if hard else "hyperlayer",
        plan.told() | {"out_shape": out_shape, "x": str(kind), "sample_probability": coin},
        arguments,
        run,
        expect,
        keyed=not hard,
        slopes=(*TUPLES, "x"),
        like={"y": "x"},
    )


def settle(rng):
    plan = Relaxation(rng, active=False)
    rest = {name: plan.options[name] for name in ("wrap", "template") if name in plan.options}

    def run(**parts):
        entries = ops.settle(ContinuousTuples(**parts), plan.shape, **rest)
        return {"indices": entries.indices, "y": entries.values}

    def expect(case, got):
        cells = nearest(case["means"], plan.learned, wrap=plan.wrap)
        rows = cells
        if plan.template:
            rows = plan.template.rows.copy()
            rows[:, list(plan.template.columns)] = cells
        slopes = {f"d_{name}": Near(np.zeros_like(case[name])) for name in TUPLES}
        slopes["d_values"] = Near(case["weights"])
        return {"indices": Near(rows.astype(np.int32)), "y": Near(case["values"])} | slopes

    return Program("settle", plan.told(), plan.draw, run, expect, slopes=TUPLES)


def dense_relaxation(rng):
    rank, density, kind = int(rng.integers(1, 7)), draw.pick(rng, *DENSITIES), draw.dtype(rng)
    sizes, wrap, count = draw.shape(rng, rank), bool(rng.random() < 0.3), int(rng.integers(1, 5))
    cells = np.indices(sizes).reshape(rank, -1).T
    period = sizes if wrap else None

    def expect(case, got):
        mask = np.ones(len(cells), bool)
        found = shares.share(cells, mask, case["means"], case["variances"], density, period)
        value, off = shares.mixed(found, case["values"])
        slopes = shares.slopes(found, case["values"], case["weights"].reshape(-1))
        rest = dict(zip([f"d_{name}" for name in TUPLES], slopes, strict=True))
        if wrap and shares.halfway(cells, case["means"], period):
            rest = {}
        return {"y": Near(value.reshape(sizes), off.reshape(sizes))} | rest

    def run(**parts):
        tuples = ContinuousTuples(**parts)
        return {"y": ops.dense_relaxation(tuples, sizes, density=density, wrap=wrap)}

    return Program(
        f"dense_relaxation, {density}",
        {"shape": sizes, "density": density, "wrap": wrap, "dtype": str(kind)},
        lambda rng: some_tuples(rng, count, sizes, kind, wrap=wrap),
        run,
        expect,
        slopes=TUPLES,
    )


def stitch(rng):
    chunk = int(rng.integers(1, 4))
    count = chunk * int(rng.integers(1, 4))
    template, sizes = draw_template(rng, count, chunk)
    learned, q = template.learned_shape(sizes), int(rng.integers(0, 4))

    def arguments(rng):
        return {"points": draw.cells(rng, count * q, learned).reshape(count, q, len(learned))}

    def expect(case, got):
        rows = np.repeat(template.rows[:, None], q, 1)
        rows[..., list(template.columns)] = case["points"]
        return {"y": Near(rows.reshape(count * q, len(sizes)).astype(np.int32))}

    return Program(
        "stitch",
        {"template": template},
        arguments,
        lambda points: {"y": ops.stitch(template, points)},
        expect,
    )


def relocate(rng):
    """``surplus``, ``relocate`` and ``leaving_gains`` on the same tuples."""
    rank, kind, wrap = int(rng.integers(1, 4)), draw.dtype(rng), bool(rng.random() < 0.3)
    sizes = draw.shape(rng, rank, cells=9)
    count, number, limit = (int(n) for n in rng.integers(1, 7, 3))
    batches = int(rng.integers(2, 6))

    def arguments(rng):
        parts = some_tuples(rng, count, sizes, kind, wrap=wrap)
        gains = draw.distinct(rng, number)
        parts |= {"points": draw.cells(rng, number, sizes), "gains": gains}
        own = draw.distinct(rng, batches * count).reshape(batches, count)
        return parts | {"leaving": draw.distinct(rng, count), "own": own}

    def run(points, gains, leaving, own, **parts):
        tuples = ContinuousTuples(**parts)
        urgency = ops.surplus(tuples, sizes, wrap=wrap)
        entries = SparseEntries(points, jnp.zeros(number))
        options = {"limit": limit, "leaving": leaving, "wrap": wrap}
        moves = ops.relocate(tuples, entries, gains, sizes, **options)
        bound = ops.leaving_gains(tuples, own, certainty=2.0, frozen=0.5, least=0.01)
        return {"y": urgency, "bound": bound, **moves._asdict()}

    def expect(case, got):
        settled = (case["variances"] < 1).all(1)
        cells, held = nearest(case["means"], sizes, wrap=wrap), set()
        there, leaving = [tuple(cell) for cell in cells], np.float64(case["leaving"])
        width = (case["variances"] / np.asarray(sizes)).max(1)
        urgency = np.where(width > 0.25, width, 0.0)
        for n in np.flatnonzero(settled):
            if tuple(cells[n]) in held:
                urgency[n] = np.inf
            held.add(tuple(cells[n]))
        kept = shares.first_occurrence(case["points"])
        gains = np.where(kept, case["gains"], -np.inf)
        size = min(limit, count, number)
        leaves = np.array([there.count(cell) == 1 for cell in there]) & (leaving > 0)
        kind = np.where(leaves, 1, np.where(np.isinf(urgency), 2, 0))
        wanted = np.where(leaves, leaving, np.float32(urgency))
        chosen = np.lexsort((-wanted, -kind))[:size]
        best = np.argsort(-gains, kind="stable")[:size]
        moved = (wanted[chosen] > 0) & (gains[best] > 0)
        gained = np.float64(case["values"]) * case["own"]
        bound = gained.mean(0) - 2 * gained.std(0, ddof=1) / np.sqrt(batches)
        bound = np.where(gained.mean(0) <= 0.01, np.minimum(bound, 0), bound)
        bound = np.where((case["variances"] < 0.5).all(1), bound, 0)
        bound = Near(bound, 64 * EPS * abs(gained).max(0) + LOST)
        if not np.array_equal(got["moved"], moved):
            return {"moved": Near(moved)}
        expected = {"tuples": chosen[moved], "cells": case["points"][best][moved]}
        right = all(np.array_equal(got[name][moved], part) for name, part in expected.items())
        chosen = Near(got["tuples"] - (0 if right else 1))
        return {"y": relative(urgency), "tuples": chosen, "bound": bound}

    return Program(
        "surplus, relocate, leaving_gains",
        {"shape": sizes, "limit": limit, "wrap": wrap, "dtype": str(kind)},
        arguments,
        run,
        expect,
    )


FAMILIES = (
    relax,
    relax,
    relax,
    hyperlayer,
    hyperlayer,
    hyperlayer,
    settle,
    dense_relaxation,
    stitch,
    relocate,
)
