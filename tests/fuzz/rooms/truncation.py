"""Oracles of what chooses a lag: sizes of gradients, their decay, and the bound of a bias."""

import jax
import numpy as np

from sparse_hyper_jax import recurrent
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program


def norms(rng):
    """``lag_norms`` of any gradients of any dtype, in one array or several."""
    steps, rows, kind = int(rng.integers(1, 6)), int(rng.integers(1, 4)), draw.dtype(rng)
    spread = 1.0 if kind == np.float16 else 10.0 ** rng.integers(-18, 16)

    def arguments(rng):
        return {
            "one": draw.reals(rng, (steps, rows, 3), kind, spread=spread),
            "two": draw.reals(rng, (steps, rows), kind, spread=spread),
        }

    def run(one, two):
        found = recurrent.lag_norms({"c": one, "h": two}, rows=rows)
        return {"phi": found.phi, "cum": found.cum}

    def expect(case, got):
        both = np.concatenate([case["one"], case["two"][..., None]], axis=-1) * rows
        sums = both.mean(axis=1).cumsum(axis=0)
        sizes = np.abs(both).mean(axis=1).cumsum(axis=0)
        phi = np.linalg.norm(both, axis=-1).mean(axis=1)
        off = EPS * (8 * steps + 16)
        return {
            "phi": Near(phi, off * phi + LOST),
            "cum": Near(np.linalg.norm(sums, axis=1), off * np.linalg.norm(sizes, axis=1) + LOST),
        }

    options = {"steps": steps, "rows": rows, "dtype": str(kind), "spread": spread}
    return Program("lag_norms", options, arguments, run, expect)


def bounds(rng):
    """``fit_decay``, ``bias_bound`` and ``choose_lag``, which run on the host."""
    count, method = int(rng.integers(1, 9)), draw.pick(rng, "lsq", "max", "quantile")
    start, tau = (int(rng.integers(0, count)) for _ in range(2))
    k_min = int(rng.integers(1, 4))
    k_max = k_min + int(rng.integers(0, 12))
    buckets = draw.pick(rng, None, (2, 4, 7), recurrent.LAG_BUCKETS)

    def arguments(rng):
        phi = np.float32(2.0) ** -rng.integers(0, 5, count).cumsum()
        phi = np.where(rng.random(count) < 0.1, 0, phi) if rng.random() < 0.3 else phi
        part = rng.choice([1.0, 0.5, 0.25, 1 / 64])
        return {
            "phi": phi.astype(np.float32),
            "cum": (part * phi.cumsum()).astype(np.float32),
            "delta": np.float32(rng.choice([0.1, 0.5, 0.9])),
        }

    def on_host(phi, cum, delta):
        beta = recurrent.fit_decay(phi, start=start, method=method)
        bound = recurrent.bias_bound(phi, cum, tau=tau, beta=beta)
        lag = recurrent.choose_lag(
            bound.delta_hat, float(delta), k_min=k_min, k_max=k_max, buckets=buckets
        )
        wide = (beta, *bound, lag)
        return tuple(np.asarray(one, np.int32 if one is lag else np.float32) for one in wide)

    def run(phi, cum, delta):
        floats = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((), (count,), (count,))]
        shapes = (*floats, jax.ShapeDtypeStruct((), np.int32))
        made = jax.pure_callback(on_host, shapes, phi, cum, delta, vmap_method="sequential")
        return dict(zip(("beta", "delta_hat", "tail", "lag"), made, strict=True))

    def expect(case, got):
        beta = decay(case["phi"], start, method)
        delta_hat, tail = bound_of(case["phi"], case["cum"], tau, beta)
        if abs(1 - beta) < 1e-9:  # rounding decides whether that is 1, and what is there to bound
            vast = got["tail"] >= 1e8 * case["phi"][tau]
            tail = np.where(vast, got["tail"], tail)
        lag = chosen(delta_hat, case["delta"], k_min, k_max, buckets)
        # On the edge of the tolerance rounding decides.
        edge = np.abs(delta_hat - case["delta"]) < 1e-6 * case["delta"]
        return {
            "beta": Near(beta, 1e-6 * beta),
            "delta_hat": Near(delta_hat, 1e-6 * np.abs(delta_hat) + LOST),
            "tail": Near(tail, 1e-6 * np.abs(tail) + LOST),
            "lag": Near(got["lag"] if edge.any() else lag),
        }

    options = {"count": count, "method": method, "start": start, "tau": tau, "buckets": buckets}
    return Program("bias_bound", options | {"limits": (k_min, k_max)}, arguments, run, expect)


def decay(phi, start, method):
    """The factor per lag, from a line through logarithms, or from lines through two of them."""
    places = [(k, np.log(phi[k])) for k in range(start, len(phi)) if phi[k] > 0]
    if len(places) < 2:
        return 1.0
    if method == "lsq":
        return np.exp(np.polyfit(*np.transpose(places), 1)[0])
    pairs = [
        (two[1] - one[1]) / (two[0] - one[0])
        for n, one in enumerate(places[:1] if method == "max" else places)
        for two in places[n + 1 :]
    ]
    return np.exp(max(pairs) if method == "max" else np.quantile(pairs, 0.95))


def bound_of(phi, cum, tau, beta):
    """What every number of steps neglects, term by term, and relative to what it cannot lack."""
    if phi[tau] == 0:
        far = 0.0
    elif beta >= 1:
        far = np.inf
    else:
        far = phi[tau] / (1 - beta)
    tail = np.array(
        [
            phi[k:tau].sum() + far if k <= tau or far in (0.0, np.inf) else far * beta ** (k - tau)
            for k in range(1, len(phi) + 1)
        ]
    )
    least = max(one - two for one, two in zip(cum, tail, strict=True))
    return (np.full(len(phi), np.inf) if least <= 0 else tail / least), tail


def chosen(delta_hat, delta, k_min, k_max, buckets):
    """The smallest lag that is tolerated, rounded up, within its limits."""
    fits = [k for k, one in enumerate(delta_hat, start=1) if one < delta]
    lag = max(min(fits, default=k_max), k_min)
    rounded = [bucket for bucket in buckets or () if bucket >= lag]
    return min(min(rounded, default=lag), k_max)


FAMILIES = (norms, bounds, bounds)
