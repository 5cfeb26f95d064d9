"""Losses and metrics of sorts."""

import numpy as np

from sparse_hyper_jax import sort
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near, relative
from tests.fuzz.program import Program


def losses(rng):
    entropy, kinds = bool(rng.random() < 0.5), (draw.dtype(rng), draw.dtype(rng))

    def arguments(rng):
        pair = [draw.reals(rng, (4, 2), kind) for kind in kinds]
        if entropy:
            pair = [np.clip(np.abs(one), 0, 1) for one in pair]
        return dict(zip(("output", "target"), pair, strict=True))

    def safe(v):
        return np.where(v >= 1e-6, np.log(np.maximum(v, 1e-6)), np.log(1e-6) + v / 1e-6 - 1)

    def expect(case, got):
        y, t, weights = case["output"], case["target"], case["weights"]
        if not entropy:
            slope = 2 * (y - t) * weights
            return {
                "y": relative((y - t) ** 2),
                "d_output": relative(slope),
                "d_target": relative(-slope),
            }
        value = -t * safe(y) - (1 - t) * safe(1 - y)
        steep = [1 / np.maximum(part, 1e-6) for part in (y, 1 - y)]
        size = np.abs(t * safe(y)) + np.abs((1 - t) * safe(1 - y))
        # 1 - y and 1 - t round.
        off = 16 * EPS * (size + t + steep[1] * (1 - t)) + LOST
        slope = -t * steep[0] + (1 - t) * steep[1]
        edge = (np.abs(y - 1e-6) < 1e-7) | (np.abs(1 - y - 1e-6) < 1e-7)
        slope_off = 16 * EPS * (t * steep[0] + steep[1] ** 2) * np.abs(weights) + LOST
        return {
            "y": Near(value, off),
            "d_output": Near(slope * weights, np.where(edge, np.inf, slope_off)),
            "d_target": Near(
                (safe(1 - y) - safe(y)) * weights, 64 * EPS * (16 + steep[1]) * np.abs(weights)
            ),
        }

    function = sort.cross_entropy if entropy else sort.squared_error
    return Program(
        function.__name__,
        {"dtypes": tuple(map(str, kinds))},
        arguments,
        lambda output, target: {"y": function(output, target)},
        expect,
        slopes=("output", "target"),
    )


def metrics(rng):
    n, lead, kind = int(draw.pick(rng, 1, 4, 9)), draw.pick(rng, (), (3,)), draw.dtype(rng)

    def arguments(rng):
        labels = rng.integers(0, 4, (*lead, n))
        noise = rng.normal(size=labels.shape) * draw.pick(rng, 0, 0.01, 1)
        return {"keys": np.asarray(labels + noise, kind), "labels": labels.astype(np.int32)}

    def run(keys, labels):
        return {"y": sort.element_match(keys, labels), "exact": sort.exact_match(keys, labels)}

    def expect(case, got):
        order = np.argsort(case["keys"], -1, kind="stable")
        right = np.take_along_axis(case["labels"], order, -1) == np.sort(case["labels"], -1)
        return {"y": relative(right.mean(-1)), "exact": Near(right.all(-1))}

    return Program("element_match, exact_match", {"n": n}, arguments, run, expect)


FAMILIES = (losses, metrics)
