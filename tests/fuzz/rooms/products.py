"""Oracles of sparse products and of conversion."""

import numpy as np

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import SparseEntries
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program


def in_shape(indices, shape):
    """Which index tuples lie inside."""
    return ((indices >= 0) & (indices < np.asarray(shape))).all(-1)


def product(indices, values, x, out_shape):
    """``y`` of a sparse product, its sums of magnitudes, and cells of every entry."""
    rank = len(out_shape)
    whole = (*out_shape, *x.shape[: indices.shape[1] - rank])
    kept = in_shape(indices, whole)
    safe = np.where(kept[:, None], indices, 0)
    out, into = tuple(safe[:, :rank].T), tuple(safe[:, rank:].T)
    rows = x[into] if into else np.broadcast_to(x, (len(indices), *x.shape))
    values = np.where(kept, values, 0).reshape(-1, *(1,) * (rows.ndim - 1))
    y, size = np.zeros((*out_shape, *rows.shape[1:])), np.zeros((*out_shape, *rows.shape[1:]))
    np.add.at(y, out or (...,), values * rows if rank else (values * rows).sum(0))
    np.add.at(size, out or (...,), np.abs(values * rows) if rank else np.abs(values * rows).sum(0))
    return y, size, (kept, out, into, rows)


def product_slopes(values, x, weights, facts):
    """Derivatives of ``weights * y`` by values and by ``x``, with the sizes of their sums."""
    kept, out, into, rows = facts
    pulled = weights[out] if out else np.broadcast_to(weights, rows.shape)
    others = tuple(range(1, rows.ndim))
    by_value = np.where(kept, (pulled * rows).sum(others), 0)
    size = np.abs(pulled * rows).sum(others)
    by_x, x_size = np.zeros(x.shape), np.zeros(x.shape)
    parts = np.where(kept, values, 0).reshape(-1, *(1,) * (rows.ndim - 1)) * pulled
    np.add.at(by_x, into or (...,), parts if into else parts.sum(0))
    np.add.at(x_size, into or (...,), np.abs(parts) if into else np.abs(parts).sum(0))
    return (by_value, size), (by_x, x_size)


def sparse_multiply(rng):
    out_rank, in_rank = int(rng.integers(0, 4)), int(rng.integers(0, 4))
    shape = draw.shape(rng, max(1, out_rank + in_rank))[: out_rank + in_rank]
    out_shape, inputs = shape[:out_rank], shape[out_rank:]
    features, kind, x_kind = draw.pick(rng, (), (3,), (2, 2)), draw.dtype(rng), draw.dtype(rng)
    whole = rng.random() < 0.15
    layout = draw.pick(rng, "any", "sorted", "rows")
    cells = int(np.prod(out_shape, dtype=int))
    count = cells * int(rng.integers(0, 3)) if layout == "rows" else int(rng.integers(0, 20))
    outside = layout == "any" and rng.random() < 0.3

    def arguments(rng):
        indices = draw.cells(rng, count, shape)
        if layout != "any" and count:
            out = np.sort(rng.integers(0, cells, count))
            out = np.repeat(np.arange(cells), count // cells) if layout == "rows" else out
            indices[:, :out_rank] = (
                np.stack(np.unravel_index(out, out_shape), -1) if out_rank else 0
            )
        if outside:
            lost = rng.random(indices.shape) < 0.1
            indices = np.where(lost, rng.choice([-1, 10**6, -7], indices.shape), indices)
        x = draw.reals(rng, (*inputs, *features), x_kind)
        x = np.asarray(np.round(np.float64(x)), np.int32) if whole else x
        return {
            "indices": indices.astype(np.int32),
            "values": draw.reals(rng, (count,), kind),
            "x": x,
        }

    def run(indices, values, x):
        options = {"row_layout": layout == "rows", "indices_are_sorted": layout == "sorted"}
        return {"y": ops.sparse_multiply(indices, values, x, out_shape, **options)}

    def expect(case, got):
        x = np.asarray(case["x"], np.float64)
        y, size, facts = product(case["indices"], case["values"], x, out_shape)
        (pull, pull_size), (by_x, x_size) = product_slopes(
            case["values"], x, case["weights"], facts
        )
        expected = {"y": Near(y, 16 * EPS * size + LOST)}
        expected["d_values"] = Near(pull, 16 * EPS * pull_size + LOST)
        return expected | ({} if whole else {"d_x": Near(by_x, 16 * EPS * x_size + LOST)})

    return Program(
        f"sparse_multiply, {layout}",
        {"out_shape": out_shape, "dtypes": (str(kind), "int32" if whole else str(x_kind))},
        arguments,
        run,
        expect,
        slopes=("values",) if whole else ("values", "x"),
        like={"y": "values" if whole else "x"},
    )


def to_dense(rng):
    """``to_dense``, or there and back through a BCOO."""
    rank, kind = int(rng.integers(1, 7)), draw.dtype(rng)
    shape, count = draw.shape(rng, rank), int(rng.integers(0, 20))
    back, whole = bool(rng.random() < 0.3), bool(rng.random() < 0.2)
    outside = not back and rng.random() < 0.4

    def arguments(rng):
        indices = draw.cells(rng, count, shape)
        if outside:
            lost = rng.random(indices.shape) < 0.1
            indices = np.where(lost, rng.choice([-1, 10**6], indices.shape), indices)
        values = draw.reals(rng, (count,), kind)
        if whole:
            values = rng.integers(-(2**24) - 9, 2**24 + 9, count).astype(np.int32)
        return {"indices": indices.astype(np.int32), "values": values}

    def run(indices, values):
        entries = SparseEntries(indices, values)
        if back:
            entries = ops.from_bcoo(ops.to_bcoo(entries, shape))
            return {"y": entries.values, "indices": entries.indices}
        return {"y": ops.to_dense(entries, shape)}

    def expect(case, got):
        if back:
            y = Near(np.asarray(case["values"]))
            return {"y": y, "indices": Near(case["indices"])} | (
                {} if whole else {"d_values": Near(case["weights"])}
            )
        kept = in_shape(case["indices"], shape)
        at = tuple(np.where(kept[:, None], case["indices"], 0).T)
        values = np.where(kept, case["values"], 0)
        y, size = np.zeros(shape, values.dtype), np.zeros(shape, values.dtype)
        np.add.at(y, at, values)
        np.add.at(size, at, np.abs(values))
        if whole:
            return {"y": Near(y)}
        slope = np.where(kept, case["weights"][at], 0)
        return {"y": Near(y, 16 * EPS * size + LOST), "d_values": Near(slope)}

    return Program(
        "to_bcoo, from_bcoo" if back else "to_dense",
        {"shape": shape, "dtype": "int32" if whole else str(kind)},
        arguments,
        run,
        expect,
        slopes=() if whole else ("values",),
        like={"y": "values"},
    )


FAMILIES = (sparse_multiply, sparse_multiply, to_dense)
