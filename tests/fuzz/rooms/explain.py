"""Oracles of ``explain``: what is known of connections, of points and of a quadratic loss."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import explain, graph, ops
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near, relative
from tests.fuzz.program import Program


def outputs_of(found):
    """All fields by name; ``y`` is what is differentiated."""
    return found._asdict() | {"y": jnp.stack([found.values, found.importance])}


def ordered(got):
    """From the most important down: exact, for the numbers that were found."""
    return Near(np.argsort(-got["importance"].astype(np.float64), kind="stable"))


def repeated(rows, counts):
    """Whether an earlier row that counts is the same."""
    same = (rows[:, None] == rows[None]).all(-1) & counts[:, None] & counts[None]
    return np.tril(same, -1).any(1)


def described_tuples(rng):
    k, rank, kind = int(rng.integers(1, 8)), int(rng.integers(1, 5)), draw.dtype(rng)
    shape = draw.long_shape(rng, rank) if rng.random() < 0.3 else draw.shape(rng, rank, cells=16)
    axes = int(rng.integers(0, rank + 1))
    table = shape[rank - axes :]
    sized = bool(np.prod(table, dtype=float) < 100 and rng.random() < 0.7)

    def arguments(rng):
        return {
            "means": draw.means(rng, k, shape, kind),
            "variances": draw.variances(rng, (k, rank), kind),
            "values": draw.reals(rng, k, kind),
            "sizes": draw.reals(rng, table if sized else ()),
        }

    def run(means, variances, values, sizes):
        tuples = ContinuousTuples(means, variances, values)
        found = explain.describe_tuples(tuples, shape, input_sizes=sizes if sized else None)
        return outputs_of(found)

    def expect(case, got):
        cells = np.clip(np.rint(case["means"]), 0, np.asarray(shape) - 1).astype(np.int64)
        at = tuple(cells[:, axis] for axis in range(rank - axes, rank))
        size = np.broadcast_to(np.abs(case["sizes"][at]) if sized else 1.0, k)
        values = case["values"]
        y, weights = np.stack([values, np.abs(values) * size]), case["weights"]
        slope = weights[0] + weights[1] * np.sign(values) * size
        slope_size = np.abs(weights[0]) + np.abs(weights[1]) * size
        # What size a value of 0 has in its slope is for the kink to say.
        off = np.where(values == 0, np.inf, 8 * EPS * slope_size + LOST)
        near = {
            "positions": Near(cells),
            "deviations": relative(np.sqrt(case["variances"])),
            "values": Near(values),
            "importance": relative(y[1]),
            "settled": Near((case["variances"] < 1).all(1)),
            "duplicate": Near(repeated(cells, np.ones(k, bool))),
            "order": ordered(got),
        }
        return near | {"y": relative(y), "d_values": Near(slope, off)}

    options = {"k": k, "shape": shape, "sizes": table if sized else None, "dtype": str(kind)}
    return Program("describe_tuples", options, arguments, run, expect, slopes=("values",))


def length_of(rows):
    """The length of every row, its slope, and whether it has one."""
    rows = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
    length = np.sqrt((rows**2).sum(1))
    return length, np.where(length[:, None] > 0, rows / np.where(length > 0, length, 1)[:, None], 0)


def described_taps(rng):
    k, rank, kind = int(rng.integers(0, 7)), int(rng.integers(1, 4)), draw.dtype(rng)
    features = draw.pick(rng, (), (3,), (2, 3), (1, 2, 2), (0,))
    sized, spoilt = bool(features and rng.random() < 0.6), bool(rng.random() < 0.3)

    def arguments(rng):
        placed, weights = draw.mask(rng, k), draw.reals(rng, (k, *features), kind)
        if spoilt:
            # What an empty slot holds does not matter.
            weights[~placed] = rng.choice([np.nan, np.inf, 1.0])
        return {
            "positions": rng.integers(-1, 4, (k, rank)).astype(np.int32),
            "placed": placed,
            "weights_of": weights,
            "sizes": draw.reals(rng, features[:1]),
        }

    def run(positions, placed, weights_of, sizes):
        given = ops.Taps(positions, placed), weights_of
        return outputs_of(explain.describe_taps(*given, input_sizes=sizes if sized else None))

    def expect(case, got):
        placed = case["placed"]
        mask = placed.reshape(-1, *[1] * len(features))
        held = np.where(mask, case["weights_of"], 0)
        sizes = case["sizes"].reshape(1, -1, *[1] * (len(features) - 1)) if sized else 1.0
        one, one_slope = length_of(held)
        two, two_slope = length_of(held * sizes)
        weights, shaped = case["weights"], held.shape
        first = (weights[0][:, None] * one_slope).reshape(shaped)
        scaled = (weights[1][:, None] * two_slope).reshape(shaped)
        slopes = {"weights_of": first + scaled * sizes}
        rooms = {"weights_of": np.abs(first) + np.abs(scaled * sizes)}
        slopes["sizes"], rooms["sizes"] = np.zeros(case["sizes"].shape), 0.0
        if sized:
            rest = (0, *range(2, 1 + len(features)))
            slopes["sizes"] = (scaled * held).sum(rest)
            rooms["sizes"] = np.abs(scaled * held).sum(rest)
        near = {f"d_{name}": Near(s, 64 * EPS * rooms[name] + LOST) for name, s in slopes.items()}
        positions = np.where(placed[:, None], case["positions"], 0)
        near |= {
            "positions": Near(positions),
            "deviations": Near(np.zeros((k, rank))),
            "values": relative(one, 16),
            "importance": relative(two, 16),
            "settled": Near(placed),
            "duplicate": Near(repeated(positions, placed)),
            "order": ordered(got),
        }
        return near | {"y": relative(np.stack([one, two]), 16)}

    options = {"k": k, "rank": rank, "features": features, "sized": sized, "dtype": str(kind)}
    slopes = ("weights_of", "sizes")
    return Program("describe_taps", options, arguments, run, expect, slopes=slopes)


def described_edges(rng):
    nodes, slots, kind = int(rng.integers(1, 5)), int(rng.integers(0, 4)), draw.dtype(rng)
    matrices = bool(rng.random() < 0.5)
    features = draw.pick(rng, (2,), (3, 2), (2, 2, 2)) if matrices else draw.pick(rng, (), (3,))

    def arguments(rng):
        return {
            "senders": rng.integers(-1, nodes + 1, (nodes, slots)).astype(np.int32),
            "placed": draw.mask(rng, nodes * slots).reshape(nodes, slots),
            "values_of": draw.reals(rng, (nodes, slots, *((2, 3) if matrices else ())), kind),
            "h": draw.reals(rng, (nodes, *features), kind),
        }

    def run(senders, placed, values_of, h):
        return explain.describe_edges(graph.InEdges(senders, placed), values_of, h)._asdict()

    def expect(case, got):
        placed = case["placed"] & (case["senders"] >= 0) & (case["senders"] < nodes)
        senders = np.where(placed, case["senders"], 0)
        held, listed = (
            case["values_of"].reshape(nodes * slots, 6 if matrices else 1),
            placed.reshape(-1),
        )
        held = np.where(listed[:, None], held, 0)
        sent = case["h"].reshape(nodes, -1, features[-1] if matrices else 1)[senders.reshape(-1)]
        shaped = (-1, 2, 3) if matrices else (-1, 1, 1)
        squares = ((sent @ held.reshape(shaped)) ** 2).sum((1, 2))
        sizes = ((np.abs(sent) @ np.abs(held).reshape(shaped)) ** 2).sum((1, 2))
        slip = 32 * EPS * sizes
        importance = np.sqrt(squares)
        off = np.maximum(
            np.sqrt(squares + slip) - importance,
            importance - np.sqrt(np.maximum(squares - slip, 0)),
        )
        receivers = np.broadcast_to(np.arange(nodes)[:, None], senders.shape)
        positions = np.stack([receivers, senders], -1).reshape(-1, 2)
        values = length_of(held)[0] if matrices else held[:, 0]
        return {
            "positions": Near(positions),
            "deviations": Near(np.zeros(positions.shape)),
            "values": relative(values, 16),
            "importance": Near(importance, off + 8 * EPS * importance + LOST),
            "settled": Near(listed),
            "duplicate": Near(repeated(positions, listed)),
            "order": ordered(got),
        }

    options = {"nodes": nodes, "slots": slots, "features": features, "matrices": matrices}
    options |= {"dtype": str(kind)}
    return Program("describe_edges", options, arguments, run, expect)


def points(rng):
    count, k, kind = int(rng.integers(0, 8)), int(rng.integers(0, 5)), draw.dtype(rng)

    def arguments(rng):
        shares = rng.random((count, k)) ** draw.pick(rng, 1, 4, 30)
        shares = np.where(rng.random((count, k)) < draw.pick(rng, 0, 0.3, 1), 0, shares)
        total = shares.sum(0)
        shares = shares / np.where(total > 0, total, 1)
        if count:
            # Where nothing is left, all goes to one point.
            shares[0] = np.where(total > 0, shares[0], 1)
        shares = np.where(shares < 1e-30, 0, shares)
        return {"shares": shares.astype(kind)}

    def run(shares):
        return {"y": explain.effective_points(shares)}

    def expect(case, got):
        shares = case["shares"]
        some = shares != 0
        logs = np.log(np.where(some, shares, 1))
        y = np.exp(-(shares * logs).sum(0))
        slip = EPS * (8 + 8 * np.abs(shares * logs).sum(0) + 8 * shares.sum(0))
        scale = case["weights"] * y
        slope = np.where(some, -scale * (logs + 1), 0)
        off = np.abs(scale) * (np.abs(logs) + 1) * (slip + 8 * EPS) + LOST
        return {"y": Near(y, slip * y + LOST), "d_shares": Near(slope, np.where(some, off, 0))}

    options = {"points": count, "tuples": k, "dtype": str(kind)}
    return Program("effective_points", options, arguments, run, expect, slopes=("shares",))


def edges(rng):
    sides = [draw.shape(rng, int(rng.integers(1, 4)), cells=20) for _ in range(2)]
    if rng.random() < 0.3:
        sides[rng.integers(2)] = (int(rng.integers(2, 2**15)), int(rng.integers(2, 2**15)))
    n, kind = int(rng.integers(0, 8)), draw.dtype(rng)
    shape = np.asarray((*sides[0], *sides[1]))

    def arguments(rng):
        indices = draw.cells(rng, n, shape)
        beyond = rng.choice([-1, 2**31 - 1, -(2**31)], indices.shape)
        beyond = np.where(rng.random(indices.shape) < 0.5, beyond, shape)
        indices = np.where(rng.random(indices.shape) < 0.1, beyond, indices)
        return {"indices": indices.astype(np.int32), "values": draw.reals(rng, n, kind)}

    def run(indices, values):
        found = explain.to_edges(SparseEntries(indices, values), *sides)
        return {"senders": found.senders, "receivers": found.receivers, "y": found.weights}

    def expect(case, got):
        inside = ((case["indices"] >= 0) & (case["indices"] < shape)).all(1)
        safe = np.where(inside[:, None], case["indices"], 0)
        split = len(sides[0])
        parts = {"receivers": (safe[:, :split], sides[0]), "senders": (safe[:, split:], sides[1])}
        near = {
            name: Near(np.where(inside, np.ravel_multi_index(tuple(part.T), side), -1))
            for name, (part, side) in parts.items()
        }
        near["d_values"] = Near(np.where(inside, case["weights"], 0))
        return near | {"y": Near(np.where(inside, case["values"], 0))}

    options = {"output_shape": sides[0], "input_shape": sides[1], "n": n, "dtype": str(kind)}
    like = {"y": "values"}
    return Program("to_edges", options, arguments, run, expect, slopes=("values",), like=like)


def ablations(rng):
    """A quadratic loss, of which every difference and every slope is known."""
    k, rows, kind = int(rng.integers(0, 7)), int(rng.integers(1, 5)), draw.dtype(rng)
    features, size = draw.pick(rng, (), (2,), (2, 2)), int(rng.integers(1, 9))
    columns = int(np.prod(features))

    def arguments(rng):
        return {
            "a": draw.reals(rng, (rows, k)),
            "b": draw.reals(rng, (rows, columns)),
            "values": draw.reals(rng, (k, *features), kind),
        }

    def run(a, b, values):
        def loss(values):
            flat = values.reshape(k, columns)
            return jnp.sum((jnp.matmul(a, flat, precision=jax.lax.Precision.HIGHEST) - b) ** 2)

        return explain.ablate(loss, values, batch_size=size)._asdict()

    def expect(case, got):
        a, b, values = case["a"], case["b"], case["values"].reshape(k, columns)

        def loss(values):
            """And the square of what it is made of."""
            sizes = np.abs(a) @ np.abs(values) + np.abs(b)
            return np.sum((a @ values - b) ** 2), np.sum(sizes**2)

        whole, whole_size = loss(values)
        exact, off = np.zeros(k), np.zeros(k)
        for n in range(k):
            one, one_size = loss(np.where(np.arange(k)[:, None] == n, 0, values))
            exact[n], off[n] = one - whole, 64 * EPS * (one_size + whole_size) + LOST
        slopes = 2 * a.T @ (a @ values - b)
        sizes = 2 * np.abs(a).T @ (np.abs(a) @ np.abs(values) + np.abs(b))
        room = 64 * EPS * (sizes * np.abs(values)).sum(1) + LOST
        first = -(slopes * values).sum(1)
        return {"exact": Near(exact, off), "first_order": Near(first, room)}

    options = {"k": k, "features": features, "batch_size": size, "dtype": str(kind)}
    return Program("ablate", options, arguments, run, expect)


FAMILIES = (
    described_tuples,
    described_taps,
    described_edges,
    points,
    edges,
    ablations,
)
