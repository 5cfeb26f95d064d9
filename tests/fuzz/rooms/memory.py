"""Oracles of ``memory``: interpolation by cells, sums by rows, Adam of each row by itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import memory
from sparse_hyper_jax.types import ContinuousTuples
from tests.fuzz import draw, shares
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.graph import inside, is_coarse, near_of, sound
from tests.fuzz.rooms.tuples import nearest, sampling, some_tuples

RATE, B1, B2, EPSILON = 0.125, 0.875, 0.75, 0.125
INNER = optax.adam(RATE, B1, B2, EPSILON)


def grid_read(rng):
    rank, evaluate = int(rng.integers(1, 5)), draw.pick(rng, None, *memory.EVALUATIONS)
    sizes, lead = draw.shape(rng, rank), draw.pick(rng, (), (3,), (2, 2))
    kind, table_kind, width = draw.dtype(rng), draw.dtype(rng), int(rng.integers(1, 4))
    last = np.asarray(sizes) - 1

    def arguments(rng):
        count = int(np.prod(lead, dtype=int))
        places = draw.means(rng, count, sizes, kind).reshape(*lead, rank)
        away = rng.random(places.shape) < draw.pick(rng, 0, 0.3)
        places = np.where(away, places + rng.choice([-3.5, 2.25], places.shape), places)
        return {
            "table": draw.reals(rng, (*sizes, width), table_kind),
            "places": places.astype(kind),
        }

    def expect(case, got):
        places, table = case["places"].reshape(-1, rank), case["table"]
        if evaluate == "round":
            cells = tuple(nearest(places, sizes, wrap=False).T)
            return {"y": Near(table[cells].reshape(got["y"].shape))}
        weights = case["weights"].reshape(len(places), width)
        held = np.clip(places, 0, last)
        low = np.minimum(np.floor(held), np.maximum(last - 1, 0)).astype(int)
        beyond = held - low
        like = (weights, weights, table, table)
        y, size, back, back_size = (np.zeros(part.shape) for part in like)
        slope, steep = np.zeros(places.shape), np.zeros(places.shape)
        for step in itertools.product((0, 1), repeat=rank):
            at = tuple(np.minimum(low + step, last).T)
            parts = np.where(step, beyond, 1 - beyond)
            share = parts.prod(-1)
            y += share[:, None] * table[at]
            size += share[:, None] * np.abs(table[at])
            np.add.at(back, at, share[:, None] * weights)
            np.add.at(back_size, at, share[:, None] * np.abs(weights))
            for axis in range(rank):
                rest = np.delete(parts, axis, 1).prod(-1) * (2 * step[axis] - 1)
                slope[:, axis] += rest * (table[at] * weights).sum(-1)
                steep[:, axis] += np.abs(rest) * np.abs(table[at] * weights).sum(-1)
        slope = np.where((places >= 0) & (places <= last), slope, 0)
        off, pulled, most = 64 * EPS, np.abs(weights).sum(), np.abs(table).max()
        # A share that rounds off a difference of its own size is right up to that of 1.
        return {
            "y": Near(*(p.reshape(got["y"].shape) for p in (y, off * (size + most)))),
            "d_table": Near(back, off * (back_size + pulled) + LOST),
            "d_places": Near(
                *(p.reshape(case["places"].shape) for p in (slope, off * (steep + pulled * most)))
            ),
        }

    return Program(
        f"grid_read, {evaluate}",
        {"shape": sizes, "lead": lead, "dtypes": (str(table_kind), str(kind))},
        arguments,
        lambda table, places: {"y": memory.grid_read(None, table, places, evaluate=evaluate)},
        expect,
        slopes=() if evaluate == "round" else ("table", "places"),
    )


def grid_shares(rng):
    rank, count, kind = int(rng.integers(1, 5)), int(rng.integers(1, 5)), draw.dtype(rng)
    sizes, options = draw.shape(rng, rank), sampling(rng, rank)

    def run(key, **parts):
        reads = memory.grid_shares(key, ContinuousTuples(**parts), sizes, **options)
        return {"y": reads.shares, "rows": reads.rows}

    def expect(case, got):
        rows = got["rows"]
        corners = nearest(np.floor(case["means"]), sizes, wrap=False)
        first = np.ravel_multi_index(tuple(corners.T), sizes)
        cells = int(np.prod(sizes))
        if (rows < 0).any() or (rows >= cells).any() or (rows[:, 0] != first).any():
            return {"rows": Near(rows - 1)}
        found = {name: [] for name in ("y", "d_means", "d_variances", "d_values")}
        for n, numbers in enumerate(rows):
            points = np.stack(np.unravel_index(numbers, sizes), -1)
            one = slice(n, n + 1)
            table = shares.share(
                points, shares.first_occurrence(points), case["means"][one], case["variances"][one]
            )
            found["y"].append(shares.mixed(table, case["values"][one]))
            slopes = shares.slopes(table, case["values"][one], case["weights"][n])
            for name, slope in zip(list(found)[1:], slopes, strict=True):
                found[name].append(Near(*(part[0] for part in np.broadcast_arrays(*slope))))
        both = {name: zip(*parts, strict=True) for name, parts in found.items()}
        return {name: Near(*map(np.stack, parts)) for name, parts in both.items()}

    return Program(
        "grid_shares",
        {"shape": sizes, "dtype": str(kind), **options},
        lambda rng: some_tuples(rng, count, sizes, kind),
        run,
        expect,
        keyed=True,
        slopes=("means", "variances", "values"),
    )


def embed(rng):
    words, rows, slots = (int(n) for n in rng.integers(1, 6, 3))
    width, kind, value_kind = int(rng.integers(1, 4)), draw.dtype(rng), draw.dtype(rng)

    def arguments(rng):
        return {
            "table": draw.reals(rng, (rows, width), kind),
            "rows": draw.segments(rng, words * slots, rows).reshape(words, slots),
            "values": draw.reals(rng, (words, slots), value_kind),
            "ids": draw.segments(rng, 7, words),
        }

    def expect(case, got):
        real = inside(case["ids"], words)

        def of(table, values, g):
            y, d_table, d_values = np.zeros_like(g), np.zeros_like(table), np.zeros_like(values)
            for n in np.flatnonzero(real):
                word = case["ids"][n]
                for slot in np.flatnonzero(inside(case["rows"][word], rows)):
                    row = case["rows"][word, slot]
                    y[n] += values[word, slot] * table[row]
                    d_table[row] += values[word, slot] * g[n]
                    d_values[word, slot] += table[row] @ g[n]
            return y, d_table, d_values

        return near_of(case, of, ("table", "values"), ("table", "values"), 7 * slots + 8)

    return Program(
        "embed",
        {"words": words, "rows": rows, "slots": slots, "dtypes": (str(kind), str(value_kind))},
        arguments,
        lambda table, rows, values, ids: {"y": memory.embed(table, (rows, values), ids)},
        expect,
        slopes=("table", "values"),
    )


def row_gains(rng):
    words, number, slots = int(rng.integers(1, 6)), int(rng.integers(1, 8)), int(rng.integers(0, 3))
    count, block = int(rng.integers(1, 9)), int(rng.integers(1, number + 2))
    positive, unit = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    kind, width = draw.dtype(rng), int(rng.integers(1, 4))

    def arguments(rng):
        return {
            "table": draw.reals(rng, (number, width), kind),
            "cotangent": draw.reals(rng, (words, width)),
            "rows": draw.segments(rng, words * slots, number).reshape(words, slots),
        }

    def run(table, cotangent, rows):
        options = {"positive": positive, "unit_rows": unit, "block": block}
        return memory.row_gains(table, cotangent, rows, count, **options)._asdict()

    def expect(case, got):
        gains = -case["cotangent"] @ case["table"].T
        gains = gains if positive else np.abs(gains)
        size = np.abs(case["cotangent"]) @ np.abs(case["table"]).T
        if unit:
            length = np.sqrt((case["table"] ** 2).sum(1))
            divisor = np.where(length > 0, length, 1)
            gains, size = (np.where(length > 0, part / divisor, 0) for part in (gains, size))
        off = EPS * 16 * (1 + width) * size + LOST
        opened = np.ones((words, number), bool)
        for word, slot in np.argwhere(inside(case["rows"], number)):
            opened[word, case["rows"][word, slot]] = False
        ranked = np.where(opened, gains, -np.inf)
        order = np.argsort(-ranked, axis=1, kind="stable")[:, : min(count, number)]
        best = np.take_along_axis(ranked, order, 1)
        chosen = np.where(best > -np.inf, order, -1)
        worst = np.where(opened, off, 0).max(1)
        exact = not unit and is_coarse(case["table"], case["cotangent"])
        if not exact and sound(got["rows"], chosen, ranked, worst):
            # Of gains that rounding cannot tell apart, any may come first.
            chosen = got["rows"]
        opens = np.maximum(opened.sum(1), 1)
        noise, noise_off = (
            np.sqrt((np.where(opened, part, 0) ** 2).sum(1) / opens) for part in (gains, off)
        )
        return {
            "gains": Near(best, worst[:, None]),
            "rows": Near(chosen),
            # Squares of what is small vanish.
            "noise": Near(noise, noise_off + 8 * EPS * number * noise + 1e-18),
        }

    options = {"words": words, "count": count, "positive": positive, "unit": unit, "block": block}
    return Program("row_gains", options | {"dtype": str(kind)}, arguments, run, expect)


def update_rows(rng):
    """Two steps of Adam: by the rows alone, and from a gradient as large as the table."""
    shape, width = draw.pick(rng, (5,), (1,), (2, 3)), int(rng.integers(1, 4))
    count, cells = int(rng.integers(0, 7)), int(np.prod(shape))

    def arguments(rng):
        return {
            "table": draw.reals(rng, (*shape, width)),
            "rows": draw.segments(rng, 2 * count, cells).reshape(2, count),
            # Sums of these are exact, so that what adds up to 0 does so in float32.
            "gradients": (rng.integers(-16, 17, (2, count, width)) / 8).astype(np.float32),
        }

    def run(table, rows, gradients):
        lazy = memory.lazy_rows(INNER)
        one, two = (table, lazy.init(table)), (table, lazy.init(table))
        for step in range(2):
            one = memory.update_rows(INNER, rows[step], gradients[step], one[1], one[0])
            kept = jnp.where(inside(rows[step], cells), rows[step], cells)
            sums = jax.ops.segment_sum(gradients[step], kept, cells + 1)[:-1]
            updates, state = lazy.update(sums.reshape(table.shape), two[1], two[0])
            two = optax.apply_updates(two[0], updates), state
        return {"y": one[0], "dense": two[0], "count": one[1][0].count}

    def expect(case, got):
        table = case["table"].reshape(cells, width).copy()
        moments, squares = np.zeros(table.shape), np.zeros(table.shape)
        counts = np.zeros(cells, int)
        for rows, gradients in zip(case["rows"], case["gradients"], strict=True):
            sums, real = np.zeros(table.shape), inside(rows, cells)
            np.add.at(sums, rows[real], gradients[real])
            for row in np.flatnonzero((sums != 0).any(1)):
                counts[row] += 1
                moments[row] = B1 * moments[row] + (1 - B1) * sums[row]
                squares[row] = B2 * squares[row] + (1 - B2) * sums[row] ** 2
                mean = moments[row] / (1 - B1 ** counts[row])
                size = np.sqrt(squares[row] / (1 - B2 ** counts[row]))
                table[row] -= RATE * mean / (size + EPSILON)
        y = Near(table.reshape(case["table"].shape), 1e-5 * (1 + np.abs(case["table"])))
        return {"y": y, "dense": y, "count": Near(counts.reshape(shape).astype(np.int32))}

    return Program("update_rows, lazy_rows", {"shape": shape, "n": count}, arguments, run, expect)


FAMILIES = (grid_read, grid_read, grid_shares, embed, row_gains, update_rows)
