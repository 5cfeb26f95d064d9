"""Oracles of ``ops``, from parameters to mixed values."""

import itertools

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import ops
from tests.fuzz import draw, shares
from tests.fuzz.compare import EPS, LOST, Near, relative
from tests.fuzz.program import Program

DENSITIES = ("gaussian", "laplace", "student_t")


def sigmoid(x):
    return np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    )


def bound_means(rng):
    rank, method = rng.integers(1, 7), draw.pick(rng, "sigmoid", "clamp", "modulo")
    sizes, kind = draw.long_shape(rng, rank), draw.dtype(rng)
    lead = draw.pick(rng, (), (3,), (2, 2))
    lengths = np.asarray(sizes, np.float64)

    def arguments(rng):
        return {"raw": draw.reals(rng, (*lead, rank), kind, spread=draw.pick(rng, 1, 10, 1e3))}

    def expect(case, got):
        raw, weights = case["raw"], case["weights"]
        if method == "sigmoid":
            y = (lengths - 1) * sigmoid(raw)
            slope = (lengths - 1) * sigmoid(raw) * sigmoid(-raw)
            # Near the upper end 1 - y is what rounding leaves of it.
            off = np.abs(weights) * lengths * 8 * EPS * sigmoid(raw)
            return {"y": relative(y), "d_raw": Near(weights * slope, off + LOST)}
        if method == "clamp":
            inside = (raw > 0) & (raw < lengths - 1)
            edge = (raw == 0) | (raw == lengths - 1)
            slope = Near(weights * inside, np.where(edge, np.inf, 0))
            return {"y": relative(np.clip(raw, 0, lengths - 1)), "d_raw": slope}
        y = np.mod(raw, lengths)
        inside = (np.float64(got["y"]) >= 0) & (np.float64(got["y"]) < np.maximum(lengths, 1))
        # On the circle, where 0 and the length are one place.
        turns = np.round((np.float64(got["y"]) - y) / lengths)
        allowance = np.where(inside, 4 * EPS * (lengths + np.abs(raw)), -1)
        return {"y": Near(y + turns * lengths, allowance), "d_raw": Near(weights)}

    return Program(
        f"bound_means, {method}",
        {"shape": sizes, "method": method, "dtype": str(kind)},
        arguments,
        lambda raw: {"y": ops.bound_means(raw, sizes, method=method)},
        expect,
        slopes=("raw",),
    )


def invert_means(rng):
    rank, margin = rng.integers(1, 7), float(10 ** rng.uniform(-5, -1))
    sizes, kind = draw.long_shape(rng, rank), draw.dtype(rng)
    last = np.asarray(sizes, np.float64) - 1

    def expect(case, got):
        share = np.where(last == 0, 0.5, case["means"] / np.maximum(last, 1))
        p = margin + (1 - 2 * margin) * share
        slope = np.where(last == 0, 0, (1 - 2 * margin) / np.maximum(last, 1)) / (p * (1 - p))
        off = 16 * EPS / (p * (1 - p))
        return {
            "y": Near(np.log(p / (1 - p)), off),
            "d_means": relative(case["weights"] * slope, 16 + 16 / margin),
        }

    return Program(
        "invert_means",
        {"shape": sizes, "margin": margin, "dtype": str(kind)},
        lambda rng: {"means": draw.means(rng, 3, sizes, kind)},
        lambda means: {"y": ops.invert_means(means, sizes, margin=margin)},
        expect,
        slopes=("means",),
    )


def bound_variances(rng):
    sizes, kind = draw.long_shape(rng, rng.integers(1, 7)), draw.dtype(rng)
    options = {
        "scale": float(10 ** rng.uniform(-3, 1)),
        "boost": float(rng.normal() * 3),
        "floor": float(draw.pick(rng, 0.0, 0.1, 1.0)),
        "reference": bool(rng.random() < 0.5),
    }
    lengths = np.asarray(sizes, np.float64) * options["scale"]

    def expect(case, got):
        x = case["raw"] + options["boost"]
        spread = np.logaddexp(0, x)[..., None]
        inner, outer = (options["floor"], 0) if options["reference"] else (0, options["floor"])
        y = lengths * (spread + inner) + outer
        # x is a sum that rounds: off by so much, softplus is off by its slope times that.
        off = (
            8 * EPS * y
            + lengths
            * (sigmoid(x) * EPS * (np.abs(case["raw"]) + abs(options["boost"])))[..., None]
        )
        slope = (case["weights"] * lengths).sum(-1) * sigmoid(x)
        size = (np.abs(case["weights"]) * lengths).sum(-1) * sigmoid(x)
        tight = EPS * (16 + 2 * (np.abs(case["raw"]) + abs(options["boost"])))
        return {"y": Near(y, off + LOST), "d_raw": Near(slope, tight * size + LOST)}

    return Program(
        "bound_variances",
        {"shape": sizes, "dtype": str(kind), **options},
        lambda rng: {"raw": draw.reals(rng, (3,), kind, spread=draw.pick(rng, 1, 5))},
        lambda raw: {"y": ops.bound_variances(raw, sizes, **options)},
        expect,
        slopes=("raw",),
    )


def nearest(means, sizes, *, wrap):
    cells = np.round(means)
    return (np.mod(cells, sizes) if wrap else np.clip(cells, 0, np.asarray(sizes) - 1)).astype(
        np.int64
    )


def round_means(rng):
    rank, wrap, kind = rng.integers(1, 7), bool(rng.random() < 0.4), draw.dtype(rng)
    sizes, lead = draw.long_shape(rng, rank), draw.pick(rng, 1, 4)

    def expect(case, got):
        return {"y": Near(nearest(case["means"], sizes, wrap=wrap).astype(np.int32))}

    return Program(
        "round_means",
        {"shape": sizes, "wrap": wrap, "dtype": str(kind)},
        lambda rng: {"means": draw.means(rng, lead, sizes, kind, wrap=wrap)},
        lambda means: {"y": ops.round_means(means, sizes, wrap=wrap)},
        expect,
    )


def sampling(rng, rank, *, most=4):
    """Options of everything that draws points."""
    options = {"num_global": int(rng.integers(0, most)), "num_local": int(rng.integers(0, most))}
    if options["num_local"] or rng.random() < 0.3:
        options["region"] = tuple(int(size) for size in rng.integers(1, 9, rank))
    return options


def judge_points(points, means, sizes, options, *, wrap=False):
    """What every draw of points ``(k, q, r)`` fulfils: words of what is wrong, or none."""
    k, q, rank = points.shape
    corners = 2**rank
    if q != corners + options["num_global"] + options["num_local"]:
        return f"{q} points"
    if (points < 0).any() or (points >= np.asarray(sizes)).any():
        return "a point outside"
    low = np.floor(means)
    lengths = np.asarray(sizes)
    low = np.mod(low, lengths) if wrap else np.clip(low, 0, lengths - 1)
    steps = np.asarray(list(itertools.product((0, 1), repeat=rank)))
    high = low[:, None] + steps
    wanted = np.mod(high, lengths) if wrap else np.minimum(high, lengths - 1)
    if not np.array_equal(points[:, :corners], wanted):
        return "other neighbours"
    if options["num_local"]:
        window = np.minimum(options["region"], lengths)
        local = points[:, corners + options["num_global"] :]
        apart = np.abs(shares.distances(local.reshape(-1, rank), means, lengths if wrap else None))
        own = np.repeat(np.arange(k), options["num_local"])
        apart = apart[own, np.arange(len(own))]
        # Shifted inside at the edges, a window reaches its whole length away at most.
        reach = window / 2 + 1 if wrap else window
        if (apart > reach + 1e-3 + 2 * EPS * np.abs(means).max()).any():
            return "a local point outside of its window"
    return ""


def truth(words):
    """An output that is right if there is nothing to say."""
    return Near(np.zeros(1) if not words else np.full(1, np.inf))


def sample_tuples(rng):
    rank, wrap, kind = int(rng.integers(1, 7)), bool(rng.random() < 0.3), draw.dtype(rng)
    sizes, options = draw.long_shape(rng, rank), sampling(rng, rank)

    def expect(case, got):
        words = judge_points(got["y"], case["means"], sizes, options, wrap=wrap)
        return {"y": Near(got["y"] if not words else got["y"] - 1)}

    def run(key, means):
        return {"y": ops.sample_tuples(key, means, sizes, wrap=wrap, **options)}

    return Program(
        "sample_tuples",
        {"shape": sizes, "wrap": wrap, "dtype": str(kind), **options},
        lambda rng: {"means": draw.means(rng, 3, sizes, kind, wrap=wrap)},
        run,
        expect,
        keyed=True,
    )


def first_occurrence(rng):
    rank, count = int(rng.integers(1, 7)), int(draw.pick(rng, 1, 2, 17))
    sizes = draw.shape(rng, rank) if rng.random() < 0.6 else draw.long_shape(rng, rank)

    def arguments(rng):
        few = draw.cells(rng, count, sizes)
        return {"points": few[rng.integers(0, count, count)]}

    return Program(
        "first_occurrence",
        {"shape": sizes},
        arguments,
        lambda points: {"y": ops.first_occurrence(points, sizes)},
        lambda case, got: {"y": Near(shares.first_occurrence(case["points"]))},
    )


def index_space(rng, rank):
    """A shape, whether it is of circles, and lengths of these."""
    sizes = draw.shape(rng, rank) if rng.random() < 0.7 else draw.long_shape(rng, rank, most=2**24)
    wrap = bool(rng.random() < 0.3)
    return sizes, wrap, sizes if wrap else None


def log_densities(rng):
    rank, density, kind = int(rng.integers(1, 7)), draw.pick(rng, *DENSITIES), draw.dtype(rng)
    sizes, wrap, period = index_space(rng, rank)

    def arguments(rng):
        means = draw.means(rng, 2, sizes, kind, wrap=wrap)
        near = nearest(np.float64(means), sizes, wrap=False).astype(np.int32)
        points = np.concatenate([near, draw.cells(rng, 4, sizes)])
        return {"points": points, "means": means, "variances": draw.variances(rng, (2, rank), kind)}

    def expect(case, got):
        apart = shares.distances(case["points"], case["means"], period)
        y = shares.log_densities(apart, case["variances"], density)
        safe = np.maximum(case["variances"], shares.LEAST_VARIANCE)[:, None]
        slip = shares.rounding(apart) + (EPS * np.abs(apart) if wrap else 0)
        steep = {"gaussian": np.abs(apart) / safe, "laplace": np.sqrt(2 / safe)}.get(density)
        if steep is None:
            steep = (
                (rank + 1) * np.abs(apart) / safe / (1 + (apart**2 / safe).sum(-1, keepdims=True))
            )
        off = (steep * slip).sum(-1) + 8 * EPS * np.abs(y) + LOST
        return {"y": Near(y.T, off.T)}

    return Program(
        f"log_densities, {density}",
        {"shape": sizes, "density": density, "period": period, "dtype": str(kind)},
        arguments,
        lambda points, means, variances: {
            "y": ops.log_densities(points, means, variances, density=density, period=period)
        },
        expect,
    )


def some_tuples(rng, count, sizes, kind, *, wrap=False):
    rank = len(sizes)
    return {
        "means": draw.means(rng, count, sizes, kind, wrap=wrap),
        "variances": draw.variances(rng, (count, rank), kind),
        "values": draw.reals(rng, (count,), kind),
    }


def proportions(rng):
    rank, density, kind = int(rng.integers(1, 7)), draw.pick(rng, *DENSITIES), draw.dtype(rng)
    sizes, wrap, period = index_space(rng, rank)
    count, number = int(rng.integers(1, 5)), int(rng.integers(1, 12))

    def arguments(rng):
        tuples = some_tuples(rng, count, sizes, kind, wrap=wrap)
        del tuples["values"]
        near = nearest(np.float64(tuples["means"]), sizes, wrap=False).astype(np.int32)
        points = np.concatenate([near, draw.cells(rng, number, sizes)])
        return tuples | {"points": points, "mask": draw.mask(rng, len(points), least=1)}

    def expect(case, got):
        parts = case["means"], case["variances"]
        found = shares.share(case["points"], case["mask"], *parts, density, period)
        means, variances, _ = shares.slopes(found, np.ones(count), case["weights"].T)
        side = period is not None and shares.halfway(case["points"], case["means"], period)
        rest = {} if side else {"d_means": means, "d_variances": variances}
        return {"y": Near(found.values.T, found.off.T + LOST)} | rest

    return Program(
        f"proportions, {density}",
        {"shape": sizes, "density": density, "period": period, "dtype": str(kind)},
        arguments,
        lambda points, mask, means, variances: {
            "y": ops.proportions(points, mask, means, variances, density=density, period=period)
        },
        expect,
        slopes=("means", "variances"),
    )


def mix(rng):
    """``mix_values`` in blocks of any size, or ``mix_nearby`` with a radius that covers all."""
    nearby = bool(rng.random() < 0.35)
    rank, kind = int(rng.integers(1, 7 if not nearby else 4)), draw.dtype(rng)
    density = "gaussian" if nearby else draw.pick(rng, *DENSITIES)
    sizes, wrap, period = index_space(rng, rank)
    if nearby:
        sizes, wrap, period = draw.shape(rng, rank), False, None
    count, number = int(rng.integers(1, 8)), int(rng.integers(1, 12))
    block = draw.pick(rng, None, 1, 2, count)

    def arguments(rng):
        tuples = some_tuples(rng, count, sizes, kind, wrap=wrap)
        near = nearest(np.float64(tuples["means"]), sizes, wrap=False).astype(np.int32)
        points = np.concatenate([near, draw.cells(rng, number, sizes)])
        mask = draw.mask(rng, len(points), least=1)
        if nearby:
            mask = shares.first_occurrence(points)
        return tuples | {"points": points, "mask": mask}

    def run(points, mask, means, variances, values):
        parts = points, mask, means, variances, values
        if nearby:
            locality = ops.Locality(max(sizes), (count + number,), tolerance=None)
            return {"y": ops.mix_nearby(*parts, shape=sizes, locality=locality).values}
        options = {"density": density, "period": period, "block_size": block}
        return {"y": ops.mix_values(*parts, **options)}

    def expect(case, got):
        parts = case["means"], case["variances"]
        found = shares.share(case["points"], case["mask"], *parts, density, period)
        names = ("d_means", "d_variances", "d_values")
        rest = dict(zip(names, shares.slopes(found, case["values"], case["weights"]), strict=True))
        if period is not None and shares.halfway(case["points"], case["means"], period):
            rest = {}
        return {"y": shares.mixed(found, case["values"])} | rest

    name = "mix_nearby" if nearby else f"mix_values, {density}"
    options = {"shape": sizes, "density": density, "period": period, "block_size": block}
    return Program(
        name,
        options | {"dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=("means", "variances", "values"),
    )


def regularize(rng):
    size, kind = int(rng.integers(1, 5)), draw.dtype(rng)
    norm = bool(rng.random() < 0.5)

    def expect(case, got):
        s, weight = case["variances"], case["weights"]
        if norm:
            y = np.sqrt((s**2).sum())
            slope = s / y if y else np.zeros_like(s)
            return {"y": relative(y), "d_variances": relative(weight * slope, 16)}
        mean = s.mean()
        slope = -np.ones_like(s) / s.size / mean if mean > 1e-12 else np.zeros_like(s)
        return {
            "y": Near(-np.log(max(mean, 1e-12)), 8 * EPS * (1 + abs(np.log(mean)))),
            "d_variances": relative(weight * slope, 16),
        }

    function = ops.variance_norm if norm else ops.variance_log_mean
    return Program(
        function.__name__,
        {"dtype": str(kind)},
        lambda rng: {"variances": draw.variances(rng, (size, 2), kind)},
        lambda variances: {"y": function(jnp.asarray(variances))},
        expect,
        slopes=("variances",),
    )


FAMILIES = (
    bound_means,
    invert_means,
    bound_variances,
    round_means,
    sample_tuples,
    first_occurrence,
    log_densities,
    proportions,
    proportions,
    mix,
    mix,
    mix,
    regularize,
)
