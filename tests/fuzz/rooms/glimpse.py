"""Oracles of ``glimpse``."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import glimpse
from sparse_hyper_jax.glimpse.points import draw_points
from tests.fuzz import draw, shares
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.tuples import nearest, sigmoid

UNIT = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], float)
START = np.log(0.46211716 / (1 - 0.46211716))


def corner_slope(function, raw, weights):
    """Derivatives by central differences of float64, and their sizes."""
    step, slope, size = 1e-5, np.zeros_like(raw), np.zeros_like(raw)
    for n in range(len(raw)):
        moved = [raw + sign * step * (np.arange(len(raw)) == n) for sign in (1, -1)]
        change = (function(moved[0]) - function(moved[1])) / (2 * step)
        slope[n], size[n] = (weights * change).sum(), np.abs(weights * change).sum()
    return slope, size


def corners(rng):
    name = draw.pick(rng, "scale", "box", "affine", "quad", "free")
    sides, kind = draw.long_shape(rng, 2, most=2**15), draw.dtype(rng)
    last = np.asarray(sides, float) - 1

    def oracle(raw):
        if name == "scale":
            side = sigmoid(raw[2] + START)
            low = (1 - side) * sigmoid(raw[:2])
            return last * (low + side * (UNIT + 1) / 2)
        if name == "box":
            edges = np.repeat(last, 2) * sigmoid(raw + np.array([-1, 1, -1, 1]))
            top, bottom, left, right = edges
            return np.array([[top, left], [top, right], [bottom, right], [bottom, left]])
        if name == "quad":
            return last * sigmoid(raw.reshape(4, 2) + UNIT)
        matrix = raw.reshape(2, 3)
        places = UNIT @ (matrix[:, :2] + 0.4 * np.eye(2)).T
        if name == "affine":
            return last * sigmoid(2 * places + matrix[:, 2])
        return (places + matrix[:, 2] + 1) / 2 * last

    def run(raw):
        if name == "free":
            return {"y": glimpse.affine_corners(raw, sides, bounded=False)}
        return {"y": glimpse.GRIDS[name].corners(raw, sides)}

    def expect(case, got):
        raw = case["raw"]
        off = 32 * EPS * (1 + np.abs(raw).sum()) * np.maximum(last, 1)
        slope, size = corner_slope(oracle, raw, case["weights"])
        worse = 1e-3 * size + 64 * EPS * (np.abs(case["weights"]) * np.maximum(last, 1)).sum() * (
            1 + np.abs(raw).sum()
        )
        return {"y": Near(oracle(raw), off), "d_raw": Near(slope, worse + LOST)}

    count = 6 if name == "free" else glimpse.GRIDS[name].count
    return Program(
        f"{name}_corners",
        {"shape": sides, "dtype": str(kind)},
        lambda rng: {"raw": draw.reals(rng, (count,), kind, spread=draw.pick(rng, 1, 3))},
        run,
        expect,
        slopes=("raw",),
    )


def grids(rng):
    window, kind = tuple(int(n) for n in rng.integers(1, 5, 2)), draw.dtype(rng)

    def steps(size):
        return np.linspace(0, 1, size) if size > 1 else np.full(1, 0.5)

    down, across = np.meshgrid(*map(steps, window), indexing="ij")
    parts = [(1 - down) * (1 - across), (1 - down) * across, down * across, down * (1 - across)]
    table = np.stack(parts, -1)

    def run(corners):
        rows, columns = glimpse.upright_means(corners, window)
        return {"y": glimpse.grid_means(corners, window), "rows": rows, "columns": columns}

    def expect(case, got):
        y = table @ case["corners"]
        off = 32 * EPS * (table @ np.abs(case["corners"])) + LOST
        slope = np.einsum("hwk,hwr->kr", table, case["weights"])
        size = np.einsum("hwk,hwr->kr", table, np.abs(case["weights"]))
        return {
            "y": Near(y, off),
            "rows": Near(y[:, 0, 0], off[:, 0, 0]),
            "columns": Near(y[0, :, 1], off[0, :, 1]),
            "d_corners": Near(slope, 32 * EPS * size + LOST),
        }

    return Program(
        "grid_means, upright_means",
        {"window": window, "dtype": str(kind)},
        lambda rng: {"corners": draw.reals(rng, (4, 2), kind, spread=10)},
        run,
        expect,
        slopes=("corners",),
    )


def places_of(rng, window, sides, kind, *, outside=0.0):
    count = int(np.prod(window, dtype=int))
    places = draw.means(rng, count, sides, kind).reshape(*window, 2)
    away = rng.random(places.shape) < outside
    return np.where(away, places + rng.choice([-3.5, 2.25], places.shape), places).astype(kind)


def extract(rng):
    sides = tuple(int(n) for n in rng.integers(1, 9, 2))
    window, channels = draw.pick(rng, (2, 3), (1,), ()), draw.pick(rng, (), (2,))
    kind, image_kind, each = draw.dtype(rng), draw.dtype(rng), bool(rng.random() < 0.5)
    options = {
        "num_global": int(rng.integers(0, 4)),
        "num_local": int(rng.integers(0, 4)),
        "region": tuple(int(n) for n in rng.integers(1, 9, 2)),
        "draws": draw.pick(rng, "glimpse", "pixel"),
        "global_from": draw.pick(rng, "uniform", "density"),
    }

    def arguments(rng):
        return {
            "image": draw.reals(rng, (*sides, *channels), image_kind),
            "means": places_of(rng, window, sides, kind, outside=draw.pick(rng, 0, 0, 0.3)),
            "variances": draw.variances(rng, (*window, 2) if each else (2,), kind),
        }

    def run(key, image, means, variances):
        y = glimpse.extract(key, image, means, variances, **options)
        rows, columns = jnp.moveaxis(means.astype(jnp.float32), -1, 0).reshape(2, -1)
        spreads = jnp.broadcast_to(variances.astype(jnp.float32), means.shape)
        spreads = jnp.moveaxis(spreads, -1, 0).reshape(2, -1)
        drawn = draw_points(key, (rows, columns), sides, variances=[*spreads], **options)
        full = [
            [jnp.broadcast_to(part, rows.shape) for part in (*cells, kept)] for cells, kept in drawn
        ]
        # (points, row, column and kept, pixels)
        return {
            "y": y,
            "points": jnp.stack([jnp.stack([part.astype(jnp.int32) for part in p]) for p in full]),
        }

    def expect(case, got):
        means = case["means"].reshape(-1, 2)
        variances = np.broadcast_to(case["variances"], case["means"].shape).reshape(-1, 2)
        image = case["image"].reshape(*sides, -1)
        weights = case["weights"].reshape(len(means), -1)
        y, off = np.zeros(weights.shape), np.zeros(weights.shape)
        results = {name: [] for name in ("means", "variances")}
        by_image, image_off = np.zeros(image.shape), np.zeros(image.shape)
        for n, (mean, variance) in enumerate(zip(means, variances, strict=True)):
            points = got["points"][:, :2, n]
            kept = shares.first_occurrence(points)
            if (points < 0).any() or (points >= sides).any():
                return {"points": Near(got["points"] - 1)}
            if not np.array_equal(kept, got["points"][:, 2, n] > 0):
                return {"points": Near(got["points"] - 1)}
            table = shares.share(points, kept, mean[None], variance[None])
            pixels = image[tuple(points.T)]
            y[n] = table.values[0] @ pixels
            off[n] = table.off[0] @ np.abs(pixels - y[n]) + 32 * EPS * (
                table.values[0] @ np.abs(pixels)
            )
            pull = pixels @ weights[n]
            slip = 32 * EPS * (np.abs(pixels) @ np.abs(weights[n]))
            by_mean, by_variance, _ = shares.slopes(table, np.ones(1), pull, slip.max())
            results["means"].append((by_mean.value[0], by_mean.allowance[0]))
            results["variances"].append((by_variance.value[0], by_variance.allowance[0]))
            np.add.at(by_image, tuple(points.T), table.values[0][:, None] * weights[n])
            np.add.at(
                image_off,
                tuple(points.T),
                (table.off[0] + 32 * EPS * table.values[0])[:, None] * np.abs(weights[n]),
            )
        expected = {"y": Near(y.reshape(got["y"].shape), off.reshape(got["y"].shape) + LOST)}
        expected["d_image"] = Near(
            by_image.reshape(case["image"].shape), image_off.reshape(case["image"].shape) + LOST
        )
        for name, rows in results.items():
            value, room = (
                np.stack(part).reshape(case["means"].shape) for part in zip(*rows, strict=True)
            )
            if case[name].shape != value.shape:
                lead = tuple(range(value.ndim - 1))
                value, room = value.sum(lead), room.sum(lead) + 8 * EPS * np.abs(value).sum(lead)
            expected[f"d_{name}"] = Near(value, room)
        return expected

    return Program(
        "extract",
        {"sides": sides, "window": window, "dtypes": (str(image_kind), str(kind)), **options},
        arguments,
        run,
        expect,
        keyed=True,
        slopes=("image", "means", "variances"),
    )


def extract_hard(rng):
    sides = tuple(int(n) for n in rng.integers(1, 9, 2))
    window, channels, kind = (
        draw.pick(rng, (2, 3), (1,), ()),
        draw.pick(rng, (), (2,)),
        draw.dtype(rng),
    )

    def expect(case, got):
        cells = nearest(case["means"], sides, wrap=False)
        at = cells[..., 0], cells[..., 1]
        slope = np.zeros(case["image"].shape)
        np.add.at(slope, at, case["weights"])
        room = np.zeros(slope.shape)
        np.add.at(room, at, np.abs(case["weights"]))
        zero = Near(np.zeros(case["means"].shape))
        eps = 2**-8 if got["d_image"].dtype != np.float32 else EPS
        return {
            "y": Near(case["image"][at]),
            "d_image": Near(slope, 8 * eps * room),
            "d_means": zero,
        }

    return Program(
        "extract_hard",
        {"sides": sides, "window": window, "dtype": str(kind)},
        lambda rng: {
            "image": draw.reals(rng, (*sides, *channels), kind),
            "means": places_of(rng, window, sides, np.float32, outside=0.2),
        },
        lambda image, means: {"y": glimpse.extract_hard(image, means)},
        expect,
        slopes=("image", "means"),
        like={"y": "image"},
    )


def extract_upright(rng):
    sides = tuple(int(n) for n in rng.integers(1, 9, 2))
    channels, kind = draw.pick(rng, (), (2,)), draw.dtype(rng)
    window = tuple(int(n) for n in rng.integers(1, 4, 2))

    def arguments(rng):
        rows, columns = (
            draw.means(rng, n, (side,), kind)[:, 0] for n, side in zip(window, sides, strict=True)
        )
        return {
            "image": draw.reals(rng, (*sides, *channels), kind),
            "rows": rows,
            "columns": columns,
            "variances": draw.variances(rng, (2,), kind),
        }

    def expect(case, got):
        image, tables = case["image"].reshape(*sides, -1), []
        for name, axis in (("rows", 0), ("columns", 1)):
            cells, means = np.arange(sides[axis])[:, None], case[name][:, None]
            wide = np.full(means.shape, case["variances"][axis])
            tables.append(shares.share(cells, np.ones(len(cells), bool), means, wide))
        down, across = tables
        size = np.abs(image)
        y = np.einsum("ia,abc,jb->ijc", down.values, image, across.values)
        off = np.einsum("ia,abc,jb->ijc", down.off, size, across.values)
        off += np.einsum("ia,abc,jb->ijc", down.values, size, across.off)
        off += 64 * EPS * np.einsum("ia,abc,jb->ijc", down.values, size, across.values)
        weights = case["weights"].reshape(*window, -1)
        back = np.einsum("ia,ijc,jb->abc", down.values, weights, across.values)
        worse = np.einsum("ia,ijc,jb->abc", down.off, np.abs(weights), across.values)
        worse += np.einsum("ia,ijc,jb->abc", down.values, np.abs(weights), across.off)
        worse += 64 * EPS * np.einsum("ia,ijc,jb->abc", down.values, np.abs(weights), across.values)
        shape = case["image"].shape
        return {
            "y": Near(y.reshape(got["y"].shape), off.reshape(got["y"].shape) + LOST),
            "d_image": Near(back.reshape(shape), worse.reshape(shape) + LOST),
        }

    return Program(
        "extract_upright",
        {"sides": sides, "window": window, "dtype": str(kind)},
        arguments,
        lambda image, rows, columns, variances: {
            "y": glimpse.extract_upright(image, rows, columns, variances)
        },
        expect,
        slopes=("image", "rows", "columns", "variances"),
    )


def bilinear(rng):
    sides = tuple(int(n) for n in rng.integers(1, 9, 2))
    window, channels, kind = (
        draw.pick(rng, (2, 3), (1,), ()),
        draw.pick(rng, (), (2,)),
        draw.dtype(rng),
    )

    def expect(case, got):
        image, means = case["image"].reshape(*sides, -1), case["means"].reshape(-1, 2)
        weights = case["weights"].reshape(len(means), -1)
        low = np.floor(means).astype(int)
        above = means - low
        y, off = np.zeros(weights.shape), np.zeros(weights.shape)
        back, slope, size = np.zeros(image.shape), np.zeros(means.shape), np.zeros(means.shape)
        for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
            cells = low + step
            inside = ((cells >= 0) & (cells < sides)).all(-1)
            at = tuple(np.clip(cells, 0, np.asarray(sides) - 1).T)
            parts = np.where(step, above, 1 - above) * inside[:, None]
            pixels, share = image[at] * inside[:, None], parts.prod(-1)
            y += share[:, None] * pixels
            off += share[:, None] * np.abs(pixels)
            np.add.at(back, at, (share * inside)[:, None] * weights)
            for axis in (0, 1):
                steep = (2 * step[axis] - 1) * parts[:, 1 - axis]
                slope[:, axis] += steep * (pixels * weights).sum(-1)
                size[:, axis] += np.abs(steep) * np.abs(pixels * weights).sum(-1)
        worse = 32 * EPS * (np.abs(weights).sum() + 1)
        return {
            "y": Near(y.reshape(got["y"].shape), 32 * EPS * off.reshape(got["y"].shape) + LOST),
            "d_image": Near(back.reshape(case["image"].shape), worse),
            "d_means": Near(
                slope.reshape(case["means"].shape),
                32 * EPS * size.reshape(case["means"].shape) + LOST,
            ),
        }

    return Program(
        "bilinear",
        {"sides": sides, "window": window, "dtype": str(kind)},
        lambda rng: {
            "image": draw.reals(rng, (*sides, *channels), kind),
            "means": places_of(rng, window, sides, np.float32, outside=0.3),
        },
        lambda image, means: {"y": glimpse.bilinear(image, means)},
        expect,
        slopes=("image", "means"),
    )


FAMILIES = (
    corners,
    corners,
    grids,
    extract,
    extract,
    extract,
    extract_hard,
    extract_upright,
    bilinear,
)
