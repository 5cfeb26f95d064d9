"""Oracles of ``conv``: taps read one by one, and correlations summed without a spectrum."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import conv
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program

FAR = (-(2**31), -1, 2**31 - 1)


def leading(rng):
    """Axes of a batch."""
    return draw.pick(rng, (), (1,), (3,), (2, 2))


def entering(rng):
    """The dtype of what is read: mostly floats, which have slopes."""
    return np.dtype(np.int32) if rng.random() < 0.15 else draw.dtype(rng)


def read_of(rng, shape, kind):
    if kind.kind == "i":
        return rng.integers(-5, 6, shape).astype(kind)
    return draw.reals(rng, shape, kind)


def shifts(rng, shape, low, high, kind=np.int32):
    """Whole numbers, few of them far outside."""
    found = rng.integers(low, high, shape)
    if np.dtype(kind) == np.int32 and rng.random() < 0.3:
        found = np.where(rng.random(shape) < 0.2, rng.choice(FAR, shape), found)
    limits = np.iinfo(kind)
    return np.clip(found, limits.min, limits.max).astype(kind)


def moved(x, shift, axis, *, wrap=False):
    """``x[p + shift]``, 0 outside."""
    size = x.shape[axis]
    if wrap:
        return np.roll(x, -(int(shift) % size), axis)
    places = np.arange(size) + int(shift)
    inside = (places >= 0) & (places < size)
    taken = np.take(x, np.where(inside, places, 0), axis)
    return np.where(np.expand_dims(inside, tuple(range(1, x.ndim - axis))), taken, 0)


def mixed(reads, weights):
    """The sum over taps of reads ``(k, ..., C)`` times weights."""
    if weights.ndim == 3:
        return np.einsum("k...c,kco->...o", reads, weights)
    return (reads * weights.reshape(len(weights), *(1,) * (reads.ndim - 2), -1)).sum(0)


def pulled(reads, weights, g):
    """Slopes towards the reads and the weights."""
    places = tuple(range(g.ndim - 1))
    if weights.ndim == 3:
        flat = g.reshape(-1, g.shape[-1])
        rows = reads.reshape(len(reads), -1, reads.shape[-1])
        return np.einsum("...o,kco->k...c", g, weights), np.einsum("knc,no->kco", rows, flat)
    lead = (len(weights), *(1,) * (g.ndim - 1), weights.shape[-1])
    return weights.reshape(lead) * g[None], (reads * g[None]).sum(tuple(n + 1 for n in places))


def expect_taps(case, read, back, live, kernel_eps=EPS):
    """Expect a convolution.

    Args:
        case: its arguments.
        read: from ``x`` to what all taps read, ``(k, ..., C)``.
        back: its transpose.
        live: ``(k,)`` or ``(k, C)``.
        kernel_eps: of the sums that are the slopes of the kernel.
    """
    x, weights, g = (np.asarray(case[name], float) for name in ("x", "kernel", "weights"))
    live = live.reshape(live.shape + (1,) * (weights.ndim - live.ndim))
    weights = np.where(live, weights, 0)

    def of(x, weights, g):
        reads = read(x)
        d_reads, d_weights = pulled(reads, weights, g)
        return mixed(reads, weights), back(d_reads), np.where(live, d_weights, 0)

    taps = len(weights)
    return {
        name: Near(value, eps * (2 * terms + 8) * size + LOST)
        for name, eps, terms, value, size in zip(
            ("y", "d_x", "d_kernel"),
            (EPS, EPS, kernel_eps),
            (taps * x.shape[-1], taps * g.shape[-1], x.size // x.shape[-1]),
            of(x, weights, g),
            of(np.abs(x), np.abs(weights), np.abs(g)),
            strict=True,
        )
    }


def lag_conv(rng):
    lead, steps, channels = leading(rng), int(rng.integers(1, 8)), int(rng.integers(1, 4))
    k, kind, kernel_kind = int(rng.integers(1, 5)), entering(rng), draw.dtype(rng)
    shared, own = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    reach = draw.pick(rng, None, 1, int(rng.integers(1, steps + 3)), steps + 5, 2**31 - 1)
    strict, placing = bool(rng.random() < 0.3), bool(rng.random() < 0.6)
    one_by_one, form = draw.pick(rng, None, True, False), draw.pick(rng, "whole", "steps", "dense")
    if form != "whole" and (reach is None or reach > steps + 5):
        reach = steps + 3
    by_step = float(jnp.finfo(kernel_kind).eps)  # a scan sums this slope in the kernel's dtype
    lag_kind = draw.pick(rng, np.int32, np.int32, np.int8, np.uint8, np.int16)
    kernel_shape = (k, channels) if own else (k, channels, int(rng.integers(1, 4)))
    lag_shape = (k,) if shared else (k, channels)

    def arguments(rng):
        placed = draw.mask(rng, k * (1 if shared else channels)).reshape(lag_shape)
        return {
            "x": read_of(rng, (*lead, steps, channels), kind),
            "kernel": draw.reals(rng, kernel_shape, kernel_kind),
            "lags": shifts(rng, lag_shape, -2, steps + 3, lag_kind),
            "placed": placed,
        }

    def run(x, kernel, lags, placed):
        marks = placed if placing else None
        if form == "whole":
            options = {"reach": reach, "strict": strict, "one_by_one": one_by_one}
            return {"y": conv.lag_conv(x, kernel, lags, marks, **options)}
        if form == "dense":
            dense = conv.lag_kernel(kernel, lags, marks, reach=reach, strict=strict)
            return {"y": conv.lag_conv(x, dense, jnp.arange(reach))}
        stream = conv.init_lag_stream(reach, channels, lead)

        def step(stream, row):
            return conv.lag_conv_step(stream, row, kernel, lags, marks, strict=strict)

        rows = jnp.moveaxis(x, -2, 0)
        return {"y": jnp.moveaxis(jax.lax.scan(step, stream, rows)[1], 0, -2)}

    def expect(case, got):
        lags = case["lags"].astype(int)
        live = (lags >= int(strict)) & (lags < (2**31 if reach is None else reach))
        live &= case["placed"] if placing else True
        each = np.broadcast_to(lags.reshape(k, -1), (k, channels))
        counts = np.broadcast_to(live.reshape(k, -1), (k, channels))

        def taken(x, sign):
            found = np.zeros((k, *x.shape[1:]))
            for j, c in np.argwhere(counts):
                found[j, ..., c] = moved(x[j, ..., c], sign * each[j, c], x.ndim - 3)
            return found

        return expect_taps(
            case,
            lambda x: taken(np.broadcast_to(x, (k, *x.shape)), -1),
            lambda d_reads: taken(d_reads, 1).sum(0),
            live,
            by_step if form == "steps" else EPS,
        )

    return Program(
        {"whole": "lag_conv", "steps": "lag_conv_step", "dense": "lag_kernel"}[form],
        {"shared": shared, "own": own, "reach": reach, "strict": strict}
        | {"one_by_one": one_by_one, "placed": placing, "x": str(kind)},
        arguments,
        run,
        expect,
        slopes=("kernel",) if kind.kind == "i" else ("x", "kernel"),
    )


def offset_conv(rng):
    lead, sizes = leading(rng), tuple(int(n) for n in rng.integers(1, 5, 2))
    channels, k = int(rng.integers(1, 3)), int(rng.integers(1, 5))
    kind, kernel_kind, own = entering(rng), draw.dtype(rng), bool(rng.random() < 0.5)
    window = draw.pick(rng, None, tuple(int(n) for n in rng.integers(1, 8, 2)))
    wrap, placing = bool(rng.random() < 0.5), bool(rng.random() < 0.6)
    kernel_shape = (k, channels) if own else (k, channels, int(rng.integers(1, 4)))

    def arguments(rng):
        return {
            "x": read_of(rng, (*lead, *sizes, channels), kind),
            "kernel": draw.reals(rng, kernel_shape, kernel_kind),
            "offsets": shifts(rng, (k, 2), -max(sizes) - 2, max(sizes) + 3),
            "placed": draw.mask(rng, k),
        }

    def run(x, kernel, offsets, placed):
        options = {"window": window, "wrap": wrap}
        return {"y": conv.offset_conv(x, kernel, offsets, placed if placing else None, **options)}

    def expect(case, got):
        offsets = case["offsets"].astype(int)
        live = case["placed"] if placing else np.ones(k, bool)
        if window is not None:
            low = -(np.array(window) // 2)
            live = live & ((offsets >= low) & (offsets < low + window)).all(1)

        def taken(one, offset, counts, sign):
            if not counts:
                return np.zeros_like(one)
            down = moved(one, sign * offset[0], len(lead), wrap=wrap)
            return moved(down, sign * offset[1], len(lead) + 1, wrap=wrap)

        def all_taken(each, sign):
            return np.stack([taken(each[j], offsets[j], live[j], sign) for j in range(k)])

        return expect_taps(
            case,
            lambda x: all_taken([x] * k, 1),
            lambda d_reads: all_taken(d_reads, -1).sum(0),
            live,
        )

    return Program(
        "offset_conv",
        {"window": window, "wrap": wrap, "own": own, "placed": placing, "x": str(kind)},
        arguments,
        run,
        expect,
        slopes=("kernel",) if kind.kind == "i" else ("x", "kernel"),
    )


def spectral(cells, *sizes):
    """How far off a product of spectra is, of arrays of these sizes (norms)."""
    return 8 * EPS * (np.log2(cells) + 6) * np.prod(np.broadcast_arrays(*sizes), axis=0) + LOST


def expect_gains(case, read, back, cells, *, own):
    """Expect gains of virtual taps, and their slopes, both bilinear.

    Args:
        case: its arguments.
        read: from ``x`` to what all taps read, ``(k, ..., C)``.
        back: its transpose.
        cells: length of the spectra.
        own: whether channels stay by themselves.
    """
    x, other, g = (np.asarray(case[name], float) for name in ("x", "cotangent", "weights"))
    k = len(read(x))
    kernel = g.reshape(k, *g.shape[-1 if own else -2 :])
    d_reads, gains = pulled(read(x), kernel, other)
    rows = tuple(range(other.ndim - 1))
    norms = [np.sqrt((part**2).sum(rows)) for part in (x, other)]
    of_kernel = np.sqrt((kernel**2).sum(0))
    if own:
        off, into, out = norms[0] * norms[1], of_kernel * norms[1], of_kernel * norms[0]
    else:
        off = norms[0][:, None] * norms[1][None]
        into, out = (of_kernel * norms[1][None]).sum(1), (of_kernel * norms[0][:, None]).sum(0)
    return {
        "y": Near(gains.reshape(g.shape), spectral(cells, off)),
        "d_x": Near(back(d_reads), spectral(cells, into)),
        "d_cotangent": Near(mixed(read(x), kernel), spectral(cells, out)),
    }


def lag_gains(rng):
    lead, steps, channels = leading(rng), int(rng.integers(1, 9)), int(rng.integers(1, 4))
    reach, strict = int(rng.integers(1, steps + 4)), bool(rng.random() < 0.4)
    sharing, kind, other = draw.pick(rng, *conv.SHARINGS), draw.dtype(rng), draw.dtype(rng)
    outputs = channels if sharing == "channel" else int(rng.integers(1, 4))

    def arguments(rng):
        return {
            "x": draw.reals(rng, (*lead, steps, channels), kind),
            "cotangent": draw.reals(rng, (*lead, steps, outputs), other),
        }

    def run(x, cotangent):
        return {"y": conv.lag_gains(x, cotangent, reach, sharing=sharing, strict=strict)}

    def expect(case, got):
        counts = np.arange(reach) >= int(strict)

        def taken(each, sign):
            found = [moved(each[u], sign * u, len(lead)) * counts[u] for u in range(reach)]
            return np.stack(found)

        return expect_gains(
            case,
            lambda x: taken([x] * reach, -1),
            lambda d_reads: taken(d_reads, 1).sum(0),
            steps + reach,
            own=sharing == "channel",
        )

    return Program(
        "lag_gains",
        {"reach": reach, "sharing": sharing, "strict": strict, "steps": steps, "x": str(kind)},
        arguments,
        run,
        expect,
        slopes=("x", "cotangent"),
    )


def offset_gains(rng):
    lead, sizes = leading(rng), tuple(int(n) for n in rng.integers(1, 6, 2))
    channels, wrap = int(rng.integers(1, 3)), bool(rng.random() < 0.5)
    most = np.array(sizes) + (1 if wrap else 4)
    window = tuple(int(n) for n in rng.integers(1, most))
    sharing, kind, other = draw.pick(rng, *conv.SHARINGS), draw.dtype(rng), draw.dtype(rng)
    outputs = channels if sharing == "channel" else int(rng.integers(1, 4))

    def arguments(rng):
        return {
            "x": draw.reals(rng, (*lead, *sizes, channels), kind),
            "cotangent": draw.reals(rng, (*lead, *sizes, outputs), other),
        }

    def run(x, cotangent):
        return {"y": conv.offset_gains(x, cotangent, window, sharing=sharing, wrap=wrap)}

    def expect(case, got):
        offsets = [
            (i - window[0] // 2, j - window[1] // 2)
            for i in range(window[0])
            for j in range(window[1])
        ]

        def taken(each, sign):
            down = [
                moved(one, sign * i, len(lead), wrap=wrap)
                for one, (i, _) in zip(each, offsets, strict=True)
            ]
            right = [
                moved(one, sign * j, len(lead) + 1, wrap=wrap)
                for one, (_, j) in zip(down, offsets, strict=True)
            ]
            return np.stack(right)

        return expect_gains(
            case,
            lambda x: taken([x] * len(offsets), 1),
            lambda d_reads: taken(d_reads, -1).sum(0),
            np.prod(sizes) * np.prod(window),
            own=sharing == "channel",
        )

    return Program(
        "offset_gains",
        {"sizes": sizes, "window": window, "sharing": sharing, "wrap": wrap, "x": str(kind)},
        arguments,
        run,
        expect,
        slopes=("x", "cotangent"),
    )


def autocovariance(rng):
    lead, steps, channels = leading(rng), int(rng.integers(1, 9)), int(rng.integers(1, 4))
    reach, sharing = int(rng.integers(1, steps + 4)), draw.pick(rng, *conv.SHARINGS)
    kind = draw.dtype(rng)

    def run(x):
        return {"y": conv.autocovariance(x, reach, sharing=sharing)}

    def expect(case, got):
        x, own = case["x"], sharing == "channel"
        rows, count = tuple(range(x.ndim - 1)), x.size // channels
        centred = x - x.mean(rows)
        kernel = case["weights"] if own else case["weights"][:, None] / channels
        kernel = np.broadcast_to(kernel, (reach, channels)) / count
        y, slope = np.zeros((reach, channels)), np.zeros_like(x)
        for u in range(reach):
            before, after = (moved(centred, sign * u, len(lead)) for sign in (-1, 1))
            y[u] = (before * centred).sum(rows) / count
            slope += kernel[u] * (before + after)
        # The mean is rounded, and all that is left may be its rounding.
        lost = EPS * (count + 4) * np.abs(x).max(rows) * np.sqrt(count)
        norm = np.sqrt((centred**2).sum(rows)) + lost
        off = spectral(steps + reach, norm**2) / count + 2 * norm * lost / count
        of_kernel = np.abs(kernel).sum(0)
        slope_off = 2 * (spectral(steps + reach, of_kernel * norm) + of_kernel * lost)
        slope_off = 2 * slope_off * (1 + EPS * count) + LOST
        off = np.broadcast_to(off, y.shape)
        y, off = (y, off) if own else (y.mean(1), off.mean(1) + 4 * EPS * np.abs(y).mean(1))
        return {"y": Near(y, off), "d_x": Near(slope - slope.mean(rows), slope_off)}

    return Program(
        "autocovariance",
        {"reach": reach, "sharing": sharing, "steps": steps, "x": str(kind)},
        lambda rng: {"x": draw.reals(rng, (*lead, steps, channels), kind)},
        run,
        expect,
        slopes=("x",),
    )


FAMILIES = (lag_conv, lag_conv, lag_conv, offset_conv, lag_gains, offset_gains, autocovariance)
