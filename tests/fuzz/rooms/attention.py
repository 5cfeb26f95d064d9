"""Oracles of ``attention``: a softmax over what every row may read, one row after the other."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import attention
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.conv import leading, shifts

CUT = 60.0
"""Quotients of logits are cut here, as ``attention.gains`` says."""


class Row:
    """One row of one head: its weights, how far off they are, and where it reads."""

    def __init__(self, query, keys, values, reads, slip):
        self.reads, self.slip = reads, slip
        self.keys, self.values = keys[reads], values[reads]
        logits = self.keys @ query
        self.divisor = -np.inf
        self.shares, self.worse = np.zeros(0), 0.0
        self.output = self.size = np.zeros(values.shape[1])
        if self.reads:
            top = logits.max()
            self.divisor = top + np.log(np.exp(logits - top).sum())
            self.shares = np.exp(logits - self.divisor)
            # What is below the smallest float32 counts as nothing.
            apart = np.minimum(np.abs(logits - top), 100).max()
            self.worse = np.expm1(2 * self.slip) + EPS * (apart + 4 * len(logits) + 16)
            self.output, self.size = self.shares @ self.values, self.shares @ np.abs(self.values)


def slip_of(query, keys):
    """How far off the logits of a row may be."""
    return EPS * (len(query) + 6) * (np.abs(keys) @ np.abs(query)).max() + LOST


def setting(rng):
    """What is static, and how rows are drawn."""
    lead, steps, groups = leading(rng), int(rng.integers(1, 7)), int(rng.integers(1, 3))
    heads = groups * int(rng.integers(1, 3))
    k, size, width = int(rng.integers(0, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kinds = [draw.dtype(rng) for _ in range(3)]
    near, placing = draw.pick(rng, 0, 0, 1, 2, steps + 1), bool(rng.random() < 0.7)
    scale = draw.pick(rng, None, None, 0.5, -1.0, 0.0)
    options = {"near": near, "scale": scale, "placed": placing, "kinds": [*map(str, kinds)]}
    options |= {"heads": heads, "groups": groups, "steps": steps, "k": k}

    def arguments(rng):
        spread = draw.pick(rng, 1.0, 1.0, 4.0)
        return {
            "query": draw.reals(rng, (*lead, steps, heads, size), kinds[0], spread=spread),
            "key": draw.reals(rng, (*lead, steps, groups, size), kinds[1], spread=spread),
            "value": draw.reals(rng, (*lead, steps, groups, width), kinds[2]),
            "lags": shifts(rng, (heads, k), -2, steps + 2),
            "placed": draw.mask(rng, heads * k).reshape(heads, k),
        }

    def every(case):
        """Go through all rows: where they are, where their keys are, and what they do."""
        factor = 1 / np.sqrt(size) if scale is None else scale
        for at in np.ndindex(lead):
            for h in range(heads):
                lags = case["lags"][h].astype(int)
                live = (lags >= 0) & (case["placed"][h] if placing else True)
                g = h // (heads // groups)
                keys, values = case["key"][at][:, g], case["value"][at][:, g]
                for t in range(steps):
                    query = factor * case["query"][at][t, h]
                    reads = [t - lag for lag in (*range(near), *lags[live]) if lag <= t]
                    row = Row(query, keys, values, reads, slip_of(query, keys[: t + 1]))
                    yield (*at, t, h), (*at, slice(None), g), row, factor

    return options, arguments, every, (lead, steps, heads, width)


def lag_attention(rng):
    options, arguments, every, (lead, steps, heads, width) = setting(rng)
    near, scale, placing = (options[name] for name in ("near", "scale", "placed"))

    by_step = bool(rng.random() < 0.3)
    # The slopes of what a cache keeps are summed step by step in its dtype.
    halves = [steps * float(jnp.finfo(options["kinds"][n]).eps) if by_step else 0.0 for n in (1, 2)]

    def run(query, key, value, lags, placed):
        marks = placed if placing else None
        if not by_step:
            found = attention.lag_attention(query, key, value, lags, marks, near=near, scale=scale)
            return {"y": found}
        none = (part[..., :0, :, :] for part in (key, value))
        cache = attention.lag_attention_cache(*none, reach=steps + 2)

        def step(cache, rows):
            options = {"placed": marks, "near": near, "scale": scale}
            found, cache = attention.lag_attention_step(cache, *rows, lags, **options)
            return cache, found

        rows = [jnp.moveaxis(part, -3, 0) for part in (query, key, value)]
        return {"y": jnp.moveaxis(jax.lax.scan(step, cache, rows)[1], 0, -3)}

    def expect(case, got):
        y = np.zeros((*lead, steps, heads, width))
        found = {name: np.zeros_like(case[name]) for name in ("query", "key", "value")}
        off = {name: np.zeros_like(array) for name, array in found.items()}
        y_off = np.zeros_like(y)
        for place, there, row, scale in every(case):
            g, query = case["weights"][place], case["query"][place]
            y[place], y_off[place] = row.output, row.worse * row.size + LOST
            to_logits = row.shares * (row.values @ g - row.output @ g)
            slips = row.shares * (np.abs(row.values) @ np.abs(g) + row.size @ np.abs(g))
            slips = (4 * row.worse + 4 * EPS * width) * slips + LOST
            found["query"][place] = scale * (to_logits @ row.keys)
            off["query"][place] = np.abs(scale) * (slips @ np.abs(row.keys)) + LOST
            for n, read in enumerate(row.reads):
                at = (*there[:-2], read, there[-1])
                found["value"][at] += row.shares[n] * g
                off["value"][at] += (row.worse + 16 * EPS + halves[1]) * row.shares[n] * np.abs(
                    g
                ) + LOST
                found["key"][at] += scale * to_logits[n] * query
                slip = slips[n] + halves[0] * np.abs(to_logits[n])
                off["key"][at] += np.abs(scale * query) * slip + LOST
        near = {f"d_{name}": Near(found[name], off[name]) for name in found}
        return near | {"y": Near(y, y_off)}

    slopes, like = ("query", "key", "value"), {"y": "value"}
    name = "lag_attention_step" if by_step else "lag_attention"
    return Program(name, options, arguments, run, expect, slopes=slopes, like=like)


def gains(rng):
    options, arguments, every, (lead, steps, heads, width) = setting(rng)
    near, scale, placing = (options[name] for name in ("near", "scale", "placed"))
    reach, block = int(rng.integers(1, steps + 3)), int(rng.integers(1, steps + 2))
    matrices, inserted = bool(rng.random() < 0.4), bool(rng.random() < 0.5)
    last = int(rng.integers(1, 4)) if matrices else width
    options |= {"reach": reach, "block": block, "matrices": matrices, "inserted": inserted}

    def drawn(rng):
        return arguments(rng) | {"cotangent": draw.reals(rng, (*lead, steps, heads, last))}

    def run(cotangent, placed, **given):
        found = attention.lag_attention_gains(
            **given,
            cotangent=cotangent,
            placed=placed if placing else None,
            reach=reach,
            near=near,
            scale=scale,
            matrices=matrices,
            inserted=inserted,
            block=block,
        )
        return {"gains": found}

    def share_of(score, row):
        """The weight of a tap, and how far off it is."""
        if not row.reads:
            return 1.0, 0.0
        apart = score - row.divisor
        apart_off = 2 * row.slip + EPS * (np.abs(score) + np.abs(row.divisor) + 8) + row.worse

        def of(apart):
            apart = np.minimum(apart, CUT)
            return 1 / (1 + np.exp(-apart)) if inserted else np.exp(apart)

        share = of(apart)
        off = np.maximum(of(apart + apart_off) - share, share - of(apart - apart_off))
        return share, off + EPS * share * (np.minimum(np.abs(apart), 100) + 8)

    def expect(case, got):
        value = np.zeros((*lead, heads, reach, width, last))
        off = np.zeros_like(value)
        for place, there, row, scale in every(case):
            t, g = place[-2], case["cotangent"][place]
            keys, values = case["key"][there], case["value"][there]
            for u in range(min(reach, t + 1)):
                score = scale * (keys[t - u] @ case["query"][place])
                share, share_off = share_of(score, row)
                apart, size = values[t - u] - row.output, np.abs(values[t - u]) + row.size
                at = (*place[:-2], place[-1], u)
                value[at] -= share * np.outer(apart, g)
                rough = share_off * np.abs(apart) + (share + share_off) * row.worse * row.size
                rough = rough + EPS * (steps + width + 8) * (share + share_off) * size
                off[at] += np.outer(rough, np.abs(g)) + LOST
        if not matrices:
            value, off = (np.trace(part, axis1=-2, axis2=-1) for part in (value, off))
        return {"gains": Near(value, off)}

    return Program("lag_attention_gains", options, drawn, run, expect)


FAMILIES = (lag_attention, lag_attention, gains)
