"""Oracles of ``estimators``: routers, default vectors, and tuples as choices."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import estimators
from sparse_hyper_jax.types import ContinuousTuples
from tests.fuzz import draw, shares
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.choices import draw_logits, softmax, softmax_off
from tests.fuzz.rooms.tuples import DENSITIES, judge_points, sampling, some_tuples


def gate_slope(chances, index, weights):
    """Derivatives of ``weights * chances[index]`` by the logits."""
    own = np.take_along_axis(chances, index[..., None], -1)
    hits = np.arange(chances.shape[-1]) == index[..., None]
    return weights[..., None] * own * (hits - chances)


def routes(rng):
    lead, experts, kind = draw.pick(rng, (5,), (2, 2), ()), int(rng.integers(1, 5)), draw.dtype(rng)
    method = draw.pick(rng, "top", "gate", "first_order", "midpoint", "heun")
    exact, jitter = bool(rng.random() < 0.5), draw.pick(rng, None, 0.1, 1.0)
    factor = 1 if method in ("top", "gate") else 2
    scales = {"midpoint": (1, 0.5), "heun": (1, 1 / 3)}.get(method, (1,))

    def run(key, logits):
        if method == "top":
            route = estimators.top_route(logits)
        else:
            options = {"method": method, "exact_at_argmax": exact, "jitter": jitter}
            route = estimators.sparse_mixer(key, logits, **options)
        return {"y": route.gate, "expert": route.expert}

    def expect(case, got):
        logits, index = case["logits"], got["expert"]
        if (index < 0).any() or (index >= experts).any():
            return {"expert": Near(index - 1)}
        if method == "top" and not np.array_equal(index, logits.argmax(-1)):
            return {"expert": Near(logits.argmax(-1).astype(np.int32))}
        slip = softmax_off(logits).max()
        if method != "top" and jitter is not None:
            top = logits.max(-1, keepdims=True)
            size = np.maximum(np.abs(logits), top)
            share = np.where(size != 0, (top - logits) / np.where(size == 0, 1, size), 0)
            if (np.abs(share - 2 * jitter) < 1e-4).any():
                return {}
            logits = np.where(share > 2 * jitter, -np.inf, logits)
        chances = softmax(logits)
        own = np.take_along_axis(chances, index[..., None], -1)[..., 0]
        if (
            (own == 0).any()
            and (own < 1e-30).any()
            and np.isneginf(np.take_along_axis(logits, index[..., None], -1)).any()
        ):
            return {"expert": Near(index - 1)}
        gate = np.float64(got["y"])
        choices = np.stack([scale * own for scale in scales])
        nearest = np.take_along_axis(choices, np.abs(choices - gate).argmin(0)[None], 0)[0]
        if exact and method != "top":
            nearest = np.where(index == logits.argmax(-1), own, nearest)
        slope = factor * gate_slope(chances, index, case["weights"])
        off = 8 * slip * (np.abs(case["weights"]) * factor * own)[..., None] + LOST
        return {"y": Near(nearest, 4 * slip * own + LOST), "d_logits": Near(slope, off)}

    return Program(
        "top_route" if method == "top" else f"sparse_mixer, {method}",
        {"lead": lead, "experts": experts, "exact": exact, "jitter": jitter, "dtype": str(kind)},
        lambda rng: {"logits": draw_logits(rng, (*lead, experts), kind)},
        run,
        expect,
        keyed=True,
        slopes=("logits",),
    )


def balance_loss(rng):
    tokens, experts, kind = int(rng.integers(1, 8)), int(rng.integers(1, 5)), draw.dtype(rng)

    def expect(case, got):
        logits, index, weight = case["logits"], case["index"], case["weights"]
        inside = (index >= 0) & (index < experts)
        count = np.bincount(index[inside], minlength=experts)
        return of_shares(logits, count / tokens, weight, got)

    def of_shares(logits, share, weight, got):
        chances, slip = softmax(logits), softmax_off(logits).max()
        y = experts * (share * chances.mean(0)).sum()
        by_chance = np.broadcast_to(weight * experts * share / tokens, chances.shape)
        slope = chances * (by_chance - (chances * by_chance).sum(-1, keepdims=True))
        off = 8 * slip * experts * (np.abs(weight) + 1)
        return {"y": Near(y, off), "d_logits": Near(slope, off / tokens + LOST)}

    return Program(
        "balance_loss",
        {"tokens": tokens, "experts": experts, "dtype": str(kind)},
        lambda rng: {
            "logits": draw_logits(rng, (tokens, experts), kind),
            "index": rng.integers(0, experts, tokens).astype(np.int32),
        },
        lambda logits, index: {"y": estimators.balance_loss(logits, index)},
        expect,
        slopes=("logits",),
    )


def defaults(rng):
    lead, experts, width = (
        draw.pick(rng, (5,), (2, 2), ()),
        int(rng.integers(1, 5)),
        int(rng.integers(1, 4)),
    )
    kind, update = draw.dtype(rng), bool(rng.random() < 0.5)
    decay = float(draw.pick(rng, 0.0, 0.5, 0.99, 1.0))

    def arguments(rng):
        index = draw.segments(rng, int(np.prod(lead, dtype=int)), experts).reshape(lead)
        return {
            "logits": draw_logits(rng, (*lead, experts), kind),
            "outputs": draw.reals(rng, (*lead, width), kind),
            "index": index,
            "defaults": draw.reals(rng, (experts, width)),
        }

    def run(logits, outputs, index, defaults):
        if update:
            return {"y": estimators.update_defaults(defaults, outputs, index, decay=decay)}
        return {"y": estimators.fill_with_defaults(logits, outputs, index, defaults)}

    def expect(case, got):
        index, table = case["index"], case["defaults"]
        if update:
            y = table.copy()
            room = np.zeros(y.shape)
            for expert in range(experts):
                rows = case["outputs"][index == expert]
                if len(rows):
                    y[expert] = decay * table[expert] + (1 - decay) * rows.mean(0)
                    room[expert] = np.abs(table[expert]) + np.abs(rows).mean(0)
            return {"y": Near(y, 16 * EPS * room + LOST)}
        inside = (index >= 0) & (index < experts)
        safe = np.where(inside, index, 0)
        chances, slip = softmax(case["logits"]), softmax_off(case["logits"]).max()
        vectors = np.broadcast_to(table, (*lead, experts, width)).copy()
        hits = np.arange(experts) == safe[..., None]
        vectors = np.where(hits[..., None], case["outputs"][..., None, :], vectors)
        y = (chances[..., None] * vectors).sum(-2)
        size = np.abs(vectors).max(initial=0) * experts
        pull = (vectors * case["weights"][..., None, :]).sum(-1)
        slope = chances * (pull - (chances * pull).sum(-1, keepdims=True))
        pull_size = (np.abs(vectors) * np.abs(case["weights"][..., None, :])).sum((-1, -2))[
            ..., None
        ]
        by_output = (hits * chances).sum(-1)[..., None] * case["weights"]
        # A row without an expert is padding: it has no output, and no slope.
        y, slope, by_output = (
            np.where(inside[..., None], part, 0) for part in (y, slope, by_output)
        )
        room = np.where(inside[..., None], 1, 0)
        return {
            "y": Near(y, (16 * slip * size + LOST) * room),
            "d_logits": Near(slope, (16 * slip * pull_size + LOST) * room),
            "d_outputs": Near(by_output, (8 * slip * np.abs(case["weights"]) + LOST) * room),
        }

    return Program(
        "update_defaults" if update else "fill_with_defaults",
        {"lead": lead, "experts": experts, "width": width, "decay": decay, "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=() if update else ("logits", "outputs"),
        like={"y": "defaults" if update else "outputs"},
    )


def score_function_loss(rng):
    count, baseline = int(rng.integers(2, 9)), draw.pick(rng, "none", "leave_one_out")
    kind, whole = draw.dtype(rng), bool(rng.random() < 0.3)

    def arguments(rng):
        losses = draw.reals(rng, (count,), np.float32, spread=draw.pick(rng, 1, 1000))
        losses = losses + np.float32(draw.pick(rng, 0, 1000))
        losses = np.round(losses).astype(np.int32) if whole else losses.astype(kind)
        return {"losses": losses, "logs": draw.reals(rng, (count,), kind)}

    def expect(case, got):
        losses = np.asarray(case["losses"], float)
        rest = (losses.sum() - losses) / (count - 1) if baseline != "none" else 0
        slope = case["weights"] * (losses - rest) / count
        off = 16 * EPS * (np.abs(losses).max() + LOST)
        expected = {
            "y": Near(losses.mean(), off),
            "d_logs": Near(slope, np.abs(case["weights"]) * off * 2),
        }
        if not whole:
            expected["d_losses"] = Near(
                np.full(count, case["weights"] / count), EPS * np.abs(case["weights"])
            )
        return expected

    return Program(
        f"score_function_loss, {baseline}",
        {"count": count, "dtype": str(kind), "whole": whole},
        arguments,
        lambda losses, logs: {"y": estimators.score_function_loss(losses, logs, baseline=baseline)},
        expect,
        slopes=("logs",) if whole else ("logs", "losses"),
    )


def cell_choices(rng):
    rank, density, kind = int(rng.integers(1, 5)), draw.pick(rng, *DENSITIES), draw.dtype(rng)
    sizes, wrap, count = draw.shape(rng, rank), bool(rng.random() < 0.3), int(rng.integers(1, 4))
    options, period = sampling(rng, rank), sizes if wrap else None

    def run(key, **parts):
        choices = estimators.cell_choices(
            key, ContinuousTuples(**parts), sizes, density=density, wrap=wrap, **options
        )
        cells = choices.pick(jnp.zeros(count, jnp.int32))
        return {"points": choices.points, "shares": jnp.exp(choices.logits), "cells": cells}

    def expect(case, got):
        words = judge_points(got["points"], case["means"], sizes, options, wrap=wrap)
        if words:
            return {"points": Near(got["points"] - 1)}
        y, off = [], []
        for n, points in enumerate(got["points"]):
            kept = shares.first_occurrence(points)
            mean, variance = case["means"][n : n + 1], case["variances"][n : n + 1]
            apart = shares.distances(points, mean, period)
            logits = shares.log_densities(apart, variance, density)[0]
            safe = np.maximum(variance[0], shares.LEAST_VARIANCE)
            steep = np.minimum(np.abs(apart[0]) / safe, 1e20) + np.sqrt(2 / safe)
            wrong = (steep * shares.rounding(apart[0])).sum(-1) + 16 * EPS * np.abs(logits)
            share = np.where(kept, np.exp(logits), 0)
            y.append(share)
            off.append(
                np.where(kept, share * (np.expm1(np.minimum(wrong, 50)) + 8 * EPS) + LOST, 0)
            )
        return {"shares": Near(np.stack(y), np.stack(off)), "cells": Near(got["points"][:, 0])}

    return Program(
        "cell_choices",
        {"shape": sizes, "density": density, "wrap": wrap, "dtype": str(kind), **options},
        lambda rng: some_tuples(rng, count, sizes, kind, wrap=wrap),
        run,
        expect,
        keyed=True,
    )


def sample_cells(rng):
    rank, kind, count = int(rng.integers(1, 7)), draw.dtype(rng), int(rng.integers(1, 4))
    sizes = draw.long_shape(rng, rank)

    def arguments(rng):
        tuples = some_tuples(rng, count, sizes, kind)
        del tuples["values"]
        return tuples

    def run(key, means, variances):
        cells, log = estimators.sample_cells(key, means, variances, sizes)
        loss = estimators.cell_expectation(
            key, means, variances, sizes, lambda cells: jnp.sum(cells == 0), num_samples=3
        )
        return {"cells": cells, "y": log, "loss": loss}

    def expect(case, got):
        inside = ((got["cells"] >= 0) & (got["cells"] < np.asarray(sizes))).all()
        loss = np.float64(got["loss"])
        return {
            "cells": Near(got["cells"] if inside else got["cells"] - 1),
            "loss": Near(np.clip(np.round(3 * loss) / 3, 0, count * rank), 16 * EPS * (1 + loss)),
        }

    return Program(
        "sample_cells, cell_expectation",
        {"shape": sizes, "dtype": str(kind)},
        arguments,
        run,
        expect,
        keyed=True,
        slopes=("means", "variances"),
    )


FAMILIES = (
    routes,
    routes,
    balance_loss,
    defaults,
    defaults,
    score_function_loss,
    cell_choices,
    sample_cells,
)
