"""Oracles of softmax, its logarithms and normalisation over segments."""

import numpy as np

from sparse_hyper_jax import ops
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program

PARTS = {
    "none": (lambda v: v, np.ones_like),
    "abs": (np.abs, np.sign),
    "relu": (lambda v: np.maximum(v, 0), lambda v: (v > 0).astype(float)),
    "softplus": (lambda v: np.logaddexp(0, v), lambda v: 1 / (1 + np.exp(-v))),
}


def segment_shares(rng):
    method = draw.pick(rng, "softmax", *PARTS)
    count, number, kind = int(rng.integers(0, 12)), int(rng.integers(1, 5)), draw.dtype(rng)
    features, masked = draw.pick(rng, (), (2,), (2, 1)), bool(rng.random() < 0.5)
    in_order = bool(rng.random() < 0.3)

    def arguments(rng):
        spread = draw.pick(rng, 1, 10, 100) if kind != np.float16 else draw.pick(rng, 1, 10)
        values = draw.reals(rng, (count, *features), kind, spread=spread)
        if method == "softplus" and rng.random() < 0.3:
            values = values - np.asarray(600 if kind != np.float16 else 15, kind)
        if method == "softmax" and rng.random() < 0.3:
            values = np.where(rng.random(values.shape) < 0.3, -np.inf, values).astype(kind)
        ids = draw.segments(rng, count, number)
        ids = np.sort(ids) if in_order else ids
        mask = draw.mask(rng, count) if masked else np.ones(count, bool)
        return {"values": values, "segment_ids": ids, "mask": mask}

    def run(values, segment_ids, mask):
        options = {"mask": mask if masked else None, "indices_are_sorted": in_order}
        if method == "softmax":
            return {"y": ops.segment_softmax(values, segment_ids, number, **options)}
        options["method"] = method
        return {"y": ops.segment_normalize(values, segment_ids, number, **options)}

    def expect(case, got):
        y, slope = np.zeros_like(case["values"]), np.zeros_like(case["values"])
        off, slope_off = np.zeros_like(y), np.zeros_like(y)
        for segment in range(number):
            rows = case["mask"] & (case["segment_ids"] == segment)
            one = of_segment(method, case["values"][rows], case["weights"][rows])
            y[rows], off[rows], slope[rows], slope_off[rows] = one
        return {"y": Near(y, off), "d_values": Near(slope, slope_off)}

    return Program(
        "segment_softmax" if method == "softmax" else f"segment_normalize, {method}",
        {"num_segments": number, "mask": masked, "sorted": in_order, "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=("values",),
        like={"y": "values"},
    )


def of_segment(method, values, weights):
    """Shares of one segment and their slopes, each with its allowance."""
    if not len(values):
        return (values,) * 4
    if method == "softmax":
        top = np.where(np.isneginf(values.max(0)), 0, values.max(0))
        parts, steep = np.exp(values - top), None
        # What is below the smallest float32 counts as nothing.
        slip = EPS * np.minimum(np.abs(np.where(np.isfinite(values), values - top, 0)), 100)
    else:
        function, derivative = PARTS[method]
        parts, steep, slip = function(values), derivative(values), 0.0
        if method == "softplus":
            # Below -30 it is exp(v), of which a common factor cancels before it underflows.
            faint = values.max(0) < -30
            scaled = np.exp(np.where(faint, values - values.max(0), 0))
            parts, steep = (np.where(faint, scaled, one) for one in (parts, steep))
    total, size = parts.sum(0), np.abs(parts).sum(0)
    empty = total == 0
    safe = np.where(empty, 1, total)
    y = np.where(empty, 0, parts / safe)
    # Numbers that cancel leave a sum of rounding errors; it may vanish or not.
    lost = (size * EPS * 64 > np.abs(total)) & (size > 0)
    worse = np.where(empty, 1, size / np.abs(safe))
    off = (16 * EPS * worse + 2 * slip) * np.abs(y) + 8 * EPS * worse * worse * np.abs(y) + LOST
    mean, mean_size = (y * weights).sum(0), (np.abs(y * weights)).sum(0)
    apart, apart_size = weights - mean, np.abs(weights) + mean_size
    if method == "softmax":
        slope, slope_off = y * apart, (32 * EPS + 4 * slip.max(initial=0)) * y * apart_size + LOST
    else:
        slope = np.where(empty, 0, steep * apart / safe)
        slope_off = (
            64 * EPS * worse**2 * np.abs(np.where(empty, 0, steep / safe)) * apart_size + LOST
        )
        kink = (values == 0) & (method in ("abs", "relu"))
        slope_off = np.where(kink | lost, np.inf, slope_off)
        off = np.where(lost, np.inf, off)
        slope_off = np.where(empty & (size == 0), np.inf, slope_off)
    return y, off, slope, slope_off


def segment_logs(rng):
    """``segment_logsumexp`` and ``segment_log_softmax``."""
    count, number, kind = int(rng.integers(1, 12)), int(rng.integers(1, 5)), draw.dtype(rng)
    features, shares = draw.pick(rng, (), (2,)), bool(rng.random() < 0.5)

    def arguments(rng):
        spread = draw.pick(rng, 1, 10, 100) if kind != np.float16 else draw.pick(rng, 1, 10)
        values = draw.reals(rng, (count, *features), kind, spread=spread)
        return {
            "values": values,
            "segment_ids": draw.segments(rng, count, number),
            "mask": draw.mask(rng, count),
        }

    def run(values, segment_ids, mask):
        function = ops.segment_log_softmax if shares else ops.segment_logsumexp
        return {"y": function(values, segment_ids, number, mask=mask)}

    def expect(case, got):
        values, weights = case["values"], case["weights"]
        y = np.zeros_like(values) if shares else np.full((number, *features), -np.inf)
        off, slope, slope_off = np.zeros_like(y), np.zeros_like(values), np.zeros_like(values)
        for segment in range(number):
            rows = case["mask"] & (case["segment_ids"] == segment)
            if not rows.any():
                continue
            part = values[rows]
            top = part.max(axis=0)
            whole = top + np.log(np.exp(part - top).sum(axis=0))
            softmax = np.exp(part - whole)
            slip = EPS * (16 + np.abs(part - top).max(axis=0))
            if shares:
                y[rows], weight = part - whole, weights[rows]
                off[rows] = slip + 8 * EPS * np.abs(part - whole)
                slope[rows] = weight - softmax * weight.sum(axis=0)
                size = np.abs(weight) + softmax * np.abs(weight).sum(axis=0)
            else:
                y[segment], off[segment] = whole, slip + 4 * EPS * (np.abs(top) + np.abs(whole))
                slope[rows] = softmax * weights[segment]
                size = np.abs(slope[rows])
            slope_off[rows] = 4 * (slip + count * EPS) * size + LOST
        return {"y": Near(y, off), "d_values": Near(slope, slope_off)}

    return Program(
        "segment_log_softmax" if shares else "segment_logsumexp",
        {"num_segments": number, "dtype": str(kind), "features": features},
        arguments,
        run,
        expect,
        slopes=("values",),
        like={"y": "values"} if shares else {},
    )


FAMILIES = (segment_shares, segment_shares, segment_logs)
