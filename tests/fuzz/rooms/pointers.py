"""Oracles of positions that every output has for itself: pointers, adaptive convolutions, draws.

The points are those that ``ops.own_points`` draws by the same key; what is made of them is computed
again, one output after the other.
"""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import attention, conv, ops
from sparse_hyper_jax.ops.counts import check_counts
from sparse_hyper_jax.ops.own_points import own_points
from tests.fuzz import draw, shares
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms import tuples


def drawing(rng, rank):
    """Options of drawing points."""
    return {
        "num_global": int(rng.integers(0, 4)),
        "num_local": int(rng.integers(0, 4)),
        "region": tuple(int(n) for n in rng.integers(1, 6, rank)),
        "global_from": draw.pick(rng, "uniform", "density"),
    }


def cells_of(key, means, variances, sizes, *, options, last):
    """The cells ``(n, q)`` that a function draws."""
    counts = check_counts(
        key,
        sizes,
        options["num_global"],
        options["num_local"],
        options["region"],
        global_from=options["global_from"],
    )
    return own_points(key, means, variances, sizes, counts, last=last).cells


def places_of(rng, shape, sizes, kind, *, outside):
    """Means inside of an index space, some of them beyond it."""
    places = draw.means(rng, int(np.prod(shape)), sizes, kind).reshape(*shape, len(sizes))
    away = rng.random(places.shape) < outside
    return np.where(away, places + rng.choice([-3.5, 2.25], places.shape), places).astype(kind)


class Shared:
    """The shares of one tuple among its cells, and how far off each may be."""

    def __init__(self, cells, mean, variance, sizes, last):
        points = np.stack(np.unravel_index(cells, sizes), -1)
        kept = shares.first_occurrence(points) & (cells <= last)
        self.values, self.off = np.zeros(len(cells)), np.zeros(len(cells))
        self.kept = kept
        if kept.any():
            found = shares.share(points, kept, mean[None], variance[None])
            self.values, self.off = found.values[0], np.minimum(found.off[0], 1)


def settled(mean, sizes, last):
    """One cell of share 1, if it may be read."""
    mean = np.minimum(mean, last) if len(sizes) == 1 else mean
    cell = int(np.ravel_multi_index(tuple(tuples.nearest(mean, sizes, wrap=False)), sizes))
    return cell, float(cell <= last)


def pointer_attention(rng):
    rank = draw.pick(rng, 1, 1, 2)
    sizes = tuple(int(n) for n in rng.integers(1, 7 if rank == 1 else 4, rank))
    length, causal, hard = int(np.prod(sizes)), bool(rng.random() < 0.7), bool(rng.random() < 0.3)
    anywhere = causal and bool(rng.random() < 0.4)
    steps = int(rng.integers(1, 6)) if anywhere or not causal else length
    groups, k = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    heads, width, out = groups * int(rng.integers(1, 3)), *(int(n) for n in rng.integers(1, 4, 2))
    near = int(rng.integers(0, 3)) if causal else 0
    kinds = [draw.dtype(rng) for _ in range(4)]
    options, outside = drawing(rng, rank), draw.pick(rng, 0, 0.3)
    given = {"causal": causal, "near": near, "shape": None if rank == 1 else sizes}

    def arguments(rng):
        means = places_of(rng, (steps, heads, k), sizes, kinds[3], outside=outside)
        variances = draw.variances(rng, means.shape, kinds[3])
        pair = (slice(None),) if rank > 1 else (0,)
        return {
            "query": draw.reals(rng, (steps, heads, width), kinds[0]),
            "rows": draw.reals(rng, (length, groups, width), kinds[1]),
            "value": draw.reals(rng, (length, groups, out), kinds[2]),
            "means": means[..., *pair],
            "variances": variances[..., *pair],
            "times": rng.integers(-2, length + 2, steps).astype(np.int32),
        }

    def run(key, means, variances, times, **three):
        rows = three["query"], three["rows"], three["value"]
        positions = times if anywhere else None
        if hard:
            y = attention.pointer_attention_hard(*rows, means, times=positions, **given)
            return {"y": y}
        options_of = {"variances": variances, "times": positions} | given | options
        y = attention.pointer_attention(key, *rows, means, **options_of)
        flat = (part.astype(jnp.float32).reshape(-1, rank) for part in (means, variances))
        last = times if anywhere else jnp.arange(steps)
        last = jnp.repeat(jnp.clip(last, -1, length - 1), heads * k).astype(jnp.int32)
        cells = cells_of(key, *flat, sizes, options=options, last=last if causal else None)
        return {"y": y, "cells": cells.reshape(steps, heads, k, -1)}

    def points_of(case, got, t, h, last):
        """Cells, weights before the softmax, and how far off these are."""
        cells, weights, off = [], [], []
        for j in range(k):
            mean = np.atleast_1d(case["means"][t, h, j])
            if hard:
                cell, weight = settled(mean, sizes, last)
                cells, weights, off = [*cells, cell], [*weights, weight], [*off, 0.0]
                continue
            own = got["cells"][t, h, j]
            shared = Shared(own, mean, np.atleast_1d(case["variances"][t, h, j]), sizes, last)
            cells, weights, off = [*cells, *own], [*weights, *shared.values], [*off, *shared.off]
        back = [last - lag for lag in range(near) if last - lag >= 0]
        return (
            np.array([*cells, *back], int),
            np.array([*weights, *np.ones(len(back))]),
            np.array([*off, *np.zeros(len(back))]),
        )

    def expect(case, got):
        y, room = np.zeros(got["y"].shape), np.zeros(got["y"].shape)
        by_value, value_room = np.zeros(case["value"].shape), np.zeros(case["value"].shape)
        times = case["times"].astype(int) if anywhere else np.arange(steps)
        for t, h in np.ndindex(steps, heads):
            last = min(times[t], length - 1) if causal else length - 1
            cells, weights, off = points_of(case, got, t, h, last)
            if not (weights > 0).any():
                # All points dropped; or shares so small that only the logarithm knows them.
                continue
            keys, values = (case[name][cells, h // (heads // groups)] for name in ("rows", "value"))
            scores = keys @ case["query"][t, h] / np.sqrt(width)
            slip = EPS * (width + 6) * (np.abs(keys) @ np.abs(case["query"][t, h])) + LOST
            top = scores[weights > 0].max()
            powers = weights * np.exp(scores - top)
            total, rough = powers.sum(), off * np.exp(np.minimum(scores - top, 80))
            rough = rough + powers * (np.expm1(2 * slip.max()) + EPS * (np.abs(scores) + 40))
            shared, wrong = powers / total, rough / max(total - rough.sum(), 1e-30)
            wrong = np.minimum(wrong + shared * np.minimum(wrong.sum(), 1), 1)
            g = case["weights"][t, h]
            y[t, h] = shared @ values
            room[t, h] = wrong @ np.abs(values - y[t, h]) + 16 * EPS * (shared @ np.abs(values))
            at = cells, np.full(len(cells), h // (heads // groups))
            np.add.at(by_value, at, shared[:, None] * g)
            np.add.at(value_room, at, (wrong + 16 * EPS * shared)[:, None] * np.abs(g) + LOST)
        return {"y": Near(y, room + LOST), "d_value": Near(by_value, value_room + LOST)}

    return Program(
        "pointer_attention_hard" if hard else "pointer_attention",
        given | options | {"anywhere": anywhere, "k": k, "dtypes": [*map(str, kinds)]},
        arguments,
        run,
        expect,
        keyed=True,
        slopes=("query", "rows", "value", *(() if hard else ("means", "variances"))),
        like={"y": "value"},
    )


def adaptive_conv(rng):
    rank, hard = draw.pick(rng, 1, 1, 2), bool(rng.random() < 0.3)
    sides, stride = tuple(int(n) for n in rng.integers(1, 6, rank)), draw.pick(rng, 1, 1, 2, 3)
    causal, own = rank == 1 and bool(rng.random() < 0.5), bool(rng.random() < 0.4)
    channels, k = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    kinds, options = [draw.dtype(rng) for _ in range(3)], drawing(rng, rank)
    cells = tuple(-(-size // stride) for size in sides)
    padded, pair = tuple(size + 2 for size in sides), (2,) if rank == 2 else ()
    centres = np.moveaxis(np.indices(cells), 0, -1) * stride + 1
    last = centres.reshape(-1) if causal else np.full(np.prod(cells), np.prod(padded))
    given = {"stride": stride, "causal": causal}
    size = (k, channels) if own else (k, channels, int(rng.integers(1, 4)))

    def arguments(rng):
        offsets = rng.integers(-24, 25, (*cells, k, *pair)) / 8
        return {
            "x": draw.reals(rng, (*sides, channels), kinds[0]),
            "kernel": draw.reals(rng, size, kinds[1]),
            "offsets": np.asarray(offsets, kinds[2]),
            "variances": draw.variances(rng, (*cells, k, *pair), kinds[2]),
        }

    def run(key, x, kernel, offsets, variances):
        if hard:
            return {"y": conv.adaptive_conv_hard(x, kernel, offsets, **given)}
        y = conv.adaptive_conv(key, x, kernel, offsets, variances, **given, **options)
        places = offsets.astype(jnp.float32).reshape(*cells, k, rank) + centres[..., None, :]
        flat = (part.astype(jnp.float32).reshape(-1, rank) for part in (places, variances))
        ends = jnp.asarray(np.repeat(last, k), jnp.int32) if causal else None
        return {"y": y, "cells": cells_of(key, *flat, padded, options=options, last=ends)}

    def expect(case, got):
        x, kernel, g = (np.asarray(case[name], float) for name in ("x", "kernel", "weights"))
        rows = np.pad(x, [(1, 1)] * rank + [(0, 0)]).reshape(-1, channels)
        means = case["offsets"].reshape(-1, k, rank) + centres.reshape(-1, 1, rank)
        spreads = case["variances"].reshape(-1, k, rank)
        count = len(means)
        table, off = np.zeros((2, count, k, len(rows)))
        for n, j in np.ndindex(count, k):
            if hard:
                cell, table_value = settled(means[n, j], padded, last[n])
                table[n, j, cell] = table_value
                continue
            points = got["cells"].reshape(count, k, -1)[n, j]
            shared = Shared(points, means[n, j], spreads[n, j], padded, last[n])
            np.add.at(table[n, j], points, shared.values)
            np.add.at(off[n, j], points, shared.off + 8 * EPS * shared.values)

        def mixed(table, rows, kernel, g):
            reads, flat = table @ rows, g.reshape(count, -1)
            if own:
                y, d_kernel = (reads * kernel).sum(1), np.einsum("nc,nkc->kc", flat, reads)
                d_reads = flat[:, None] * kernel
            else:
                y = np.einsum("nkc,kco->no", reads, kernel)
                d_kernel = np.einsum("no,nkc->kco", flat, reads)
                d_reads = np.einsum("no,kco->nkc", flat, kernel)
            d_x = np.einsum("nks,nkc->sc", table, d_reads).reshape(*padded, channels)
            d_x = d_x[(slice(1, -1),) * rank]
            return {"y": y.reshape(g.shape), "d_kernel": d_kernel, "d_x": d_x}

        value = mixed(table, rows, kernel, g)
        sizes = [np.abs(part) for part in (rows, kernel, g)]
        rough = mixed(off, *sizes)
        whole = mixed(np.abs(table), *sizes)
        terms = 2 * (k * channels + count + 8)
        return {
            name: Near(value[name], rough[name] + EPS * terms * whole[name] + LOST)
            for name in value
        }

    return Program(
        "adaptive_conv_hard" if hard else "adaptive_conv",
        given | options | {"sides": sides, "own": own, "k": k, "dtypes": [*map(str, kinds)]},
        arguments,
        run,
        expect,
        keyed=True,
        slopes=("x", "kernel", *(() if hard else ("offsets", "variances"))),
    )


def own_draws(rng):
    """Points by density: neighbours where they belong, and all inside."""
    rank, wrap, kind = int(rng.integers(1, 7)), bool(rng.random() < 0.3), draw.dtype(rng)
    sizes, options = draw.long_shape(rng, rank), tuples.sampling(rng, rank)
    density = draw.pick(rng, *tuples.DENSITIES)

    def expect(case, got):
        words = tuples.judge_points(got["y"], case["means"], sizes, options, wrap=wrap)
        return {"y": Near(got["y"] if not words else got["y"] - 1)}

    def run(key, means, variances):
        own = {"global_from": "density", "variances": variances, "density": density}
        return {"y": ops.sample_tuples(key, means, sizes, wrap=wrap, **own, **options)}

    return Program(
        f"sample_tuples, by density, {density}",
        {"shape": sizes, "wrap": wrap, "dtype": str(kind), **options},
        lambda rng: {
            "means": draw.means(rng, 3, sizes, kind, wrap=wrap),
            "variances": draw.variances(rng, (3, rank), kind),
        },
        run,
        expect,
        keyed=True,
    )


ATTENTION, CONV, OPS = (pointer_attention,), (adaptive_conv,), (own_draws,)
