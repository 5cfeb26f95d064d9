"""Oracles of ``graph``: sums edge by edge, and the table of all edges."""

import numpy as np

from sparse_hyper_jax import graph
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.segments import of_segment


def beyond(numbers, axes):
    """Add axes of length 1 at the end."""
    return numbers.reshape(*numbers.shape, *(1,) * axes)


def aggregate(rng):
    count, nodes, more = int(rng.integers(0, 10)), int(rng.integers(1, 5)), int(rng.integers(1, 5))
    form, kind, value_kind = draw.pick(rng, "numbers", "heads", "ones"), *kinds(rng)
    features = draw.pick(rng, (2,), (2, 3)) if form == "heads" else draw.pick(rng, (), (2,), (2, 2))
    other = bool(rng.random() < 0.5)
    receiving = more if other else nodes

    def arguments(rng):
        shape = (count, 2) if form == "heads" else (count,)
        return {
            "senders": draw.segments(rng, count, nodes),
            "receivers": draw.segments(rng, count, receiving),
            "values": draw.reals(rng, shape, value_kind),
            "h": draw.reals(rng, (nodes, *features), kind),
        }

    def run(senders, receivers, values, h):
        number = receiving if other else None
        given = None if form == "ones" else values
        return {"y": graph.aggregate(senders, receivers, given, h, num_nodes=number)}

    def expect(case, got):
        kept = inside(case["senders"], nodes) & inside(case["receivers"], receiving)

        def of(values, h, g):
            y, d_h, d_values = np.zeros((receiving, *features)), np.zeros_like(h), 0 * values
            for e in np.flatnonzero(kept):
                j, i = case["senders"][e], case["receivers"][e]
                value = np.ones(()) if form == "ones" else values[e]
                value = beyond(value, len(features) - value.ndim)
                y[i] += value * h[j]
                d_h[j] += value * g[i]
                product = h[j] * g[i]
                axes = tuple(range(1, product.ndim)) if form == "heads" else None
                d_values[e] = product.sum(axes)
            return y, d_h, 0 * d_values if form == "ones" else d_values

        return near_of(case, of, ("values", "h"), ("h", "values"), count + 4)

    slopes = ("h",) if form == "ones" else ("values", "h")
    options = {"form": form, "num_nodes": receiving, "dtypes": (str(kind), str(value_kind))}
    return Program("aggregate", options, arguments, run, expect, slopes=slopes)


def kinds(rng):
    return draw.dtype(rng), draw.dtype(rng)


def inside(numbers, count):
    return (numbers >= 0) & (numbers < count)


def near_of(case, function, names, slopes, terms):
    """Expect what is made by products and sums alone: its size says how far off it may be."""
    given = [case[name] for name in (*names, "weights")]
    exact, sizes = function(*given), function(*map(np.abs, given))
    outputs = ("y", *(f"d_{name}" for name in slopes))
    return {
        name: Near(value, EPS * (2 * terms + 8) * size + LOST)
        for name, value, size in zip(outputs, exact, sizes, strict=True)
    }


def in_edges(rng):
    nodes, k = int(rng.integers(1, 6)), int(rng.integers(0, 4))
    form, kind, value_kind = draw.pick(rng, "numbers", "matrices", "ones"), *kinds(rng)
    features = draw.pick(rng, (2,), (2, 3)) if form == "matrices" else draw.pick(rng, (), (2,))
    last = int(rng.integers(1, 4))

    def arguments(rng):
        more = (features[-1], last) if form == "matrices" else ()
        return {
            "senders": draw.segments(rng, nodes * k, nodes).reshape(nodes, k),
            "placed": draw.mask(rng, nodes * k).reshape(nodes, k),
            "values": draw.reals(rng, (nodes, k, *more), value_kind),
            "h": draw.reals(rng, (nodes, *features), kind),
        }

    def run(senders, placed, values, h):
        edges = graph.InEdges(senders, placed)
        sending, receiving = graph.edge_list(edges)
        y = graph.aggregate_in_edges(edges, None if form == "ones" else values, h)
        return {"y": y, "senders": sending, "receivers": receiving}

    def expect(case, got):
        kept = case["placed"] & inside(case["senders"], nodes)

        def of(values, h, g):
            y, d_h, d_values = np.zeros_like(g), np.zeros_like(h), np.zeros_like(values)
            for i, s in np.argwhere(kept):
                j = case["senders"][i, s]
                if form == "matrices":
                    y[i] += h[j] @ values[i, s]
                    d_h[j] += g[i] @ values[i, s].T
                    d_values[i, s] = np.einsum("...c,...o->co", h[j], g[i])
                    continue
                value = 1.0 if form == "ones" else values[i, s]
                y[i] += value * h[j]
                d_h[j] += value * g[i]
                d_values[i, s] = 0.0 if form == "ones" else (h[j] * g[i]).sum()
            return y, d_h, d_values

        terms = nodes * k + 8
        listed = np.where(kept, case["senders"], -1), np.where(kept, np.arange(nodes)[:, None], -1)
        lists = (Near(part.reshape(-1)) for part in listed)
        found = dict(zip(("senders", "receivers"), lists, strict=True))
        return found | near_of(case, of, ("values", "h"), ("h", "values"), terms)

    slopes = ("h",) if form == "ones" else ("values", "h")
    options = {"form": form, "k": k, "dtypes": (str(kind), str(value_kind)), "features": features}
    return Program("aggregate_in_edges", options, arguments, run, expect, slopes=slopes)


def gcn_normalize(rng):
    count, nodes, kind = int(rng.integers(0, 10)), int(rng.integers(1, 6)), draw.dtype(rng)
    loops, given = bool(rng.random() < 0.5), bool(rng.random() < 0.7)

    def arguments(rng):
        low, high = draw.pick(rng, (0, 0), (-1, 1), (-4, 4))
        return {
            "senders": draw.segments(rng, count, nodes),
            "receivers": draw.segments(rng, count, nodes),
            "values": np.asarray(10 ** rng.uniform(low, high, count), kind),
        }

    def run(senders, receivers, values):
        edges = graph.gcn_normalize(
            senders,
            receivers,
            values if given else None,
            num_nodes=nodes,
            self_loops=loops,
        )
        return {"y": edges.values, "senders": edges.senders, "receivers": edges.receivers}

    def expect(case, got):
        names = [case["senders"], case["receivers"]]
        kept = inside(names[0], nodes) & inside(names[1], nodes)
        values = np.where(kept, case["values"] if given else 1.0, 0)
        names = [np.where(kept, part, -1) for part in names]
        if loops:
            names = [np.concatenate([part, np.arange(nodes)]) for part in names]
            values = np.concatenate([values, np.ones(nodes)])
        sending, receiving = names
        real = sending >= 0
        degrees = [np.bincount(part[real], values[real], nodes) for part in (receiving, sending)]
        into, out = (np.where(part > 0, part, 1) ** -0.5 for part in degrees)
        y = np.where(real, values * into[receiving] * out[sending], 0)

        def slope(y, g, sign):
            """Through the value itself, and through both degrees."""
            from_into = np.bincount(receiving[real], (g * y)[real], nodes) * into**2 / 2
            from_out = np.bincount(sending[real], (g * y)[real], nodes) * out**2 / 2
            own = g * into[receiving] * out[sending]
            found = own + sign * (from_into[receiving] + from_out[sending])
            return np.where(real, found, 0)[:count]

        g, off = case["weights"], EPS * (8 * (count + nodes) + 32)
        return {
            "senders": Near(sending),
            "receivers": Near(receiving),
            "y": Near(y, off * y + LOST),
            "d_values": Near(slope(y, g, -1), off * slope(y, np.abs(g), 1) + LOST),
        }

    return Program(
        "gcn_normalize",
        {"num_nodes": nodes, "self_loops": loops, "values": given, "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=("values",) if given else (),
    )


def edge_softmax(rng):
    count, nodes, kind = int(rng.integers(0, 12)), int(rng.integers(1, 5)), draw.dtype(rng)
    features, loops = draw.pick(rng, (), (2,), (2, 1)), bool(rng.random() < 0.5)
    masked = bool(rng.random() < 0.5)

    def arguments(rng):
        spread = draw.pick(rng, 1, 10, 100) if kind != np.float16 else draw.pick(rng, 1, 10)
        logits = draw.reals(rng, (count, *features), kind, spread=spread)
        if rng.random() < 0.3:
            logits = np.where(rng.random(logits.shape) < 0.3, -np.inf, logits).astype(kind)
        return {
            "logits": logits,
            "senders": draw.segments(rng, count, nodes),
            "receivers": draw.segments(rng, count, nodes),
            "mask": draw.mask(rng, count),
        }

    def run(logits, senders, receivers, mask):
        options = {"num_nodes": nodes, "self_loops": loops, "mask": mask if masked else None}
        return {"y": graph.edge_softmax(logits, senders, receivers, **options)}

    def expect(case, got):
        kept = inside(case["senders"], nodes) & inside(case["receivers"], nodes)
        kept &= (case["mask"] | (not masked)) & (loops | (case["senders"] != case["receivers"]))
        y, off, slope, slope_off = (np.zeros_like(case["logits"]) for _ in range(4))
        for node in range(nodes):
            rows = kept & (case["receivers"] == node)
            one = of_segment("softmax", case["logits"][rows], case["weights"][rows])
            y[rows], off[rows], slope[rows], slope_off[rows] = one
        return {"y": Near(y, off), "d_logits": Near(slope, slope_off)}

    return Program(
        "edge_softmax",
        {"num_nodes": nodes, "self_loops": loops, "mask": masked, "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=("logits",),
        like={"y": "logits"},
    )


def edge_gains(rng):
    nodes, count = int(rng.integers(1, 7)), int(rng.integers(1, 8))
    weights = draw.pick(rng, *graph.NEW_WEIGHTS)
    matrix, form = weights == "matrix", draw.pick(rng, "plain", "output", "unit", "message")
    form = "plain" if matrix and form == "output" else form
    loops, block = bool(rng.random() < 0.4), int(rng.integers(1, nodes + 2))
    there, few = bool(rng.random() < 0.6), bool(rng.random() < 0.4)
    features = draw.pick(rng, (2,), (3, 2)) if matrix else draw.pick(rng, (), (3,), (2, 2))
    received = (*features[:-1], int(rng.integers(1, 4))) if matrix else features
    kind, other = kinds(rng)

    def arguments(rng):
        return {
            "h": draw.reals(rng, (nodes, *features), kind),
            "cotangent": draw.reals(rng, (nodes, *received), other),
            "output": draw.reals(rng, (nodes, *received)),
            "senders": draw.segments(rng, 5, nodes),
            "receivers": draw.segments(rng, 5, nodes),
            "allowed": draw.mask(rng, nodes),
        }

    def run(h, cotangent, output, allowed, **lists):
        found = graph.edge_gains(
            h,
            cotangent,
            count,
            weights=weights,
            output=output if form == "output" else None,
            unit_senders=form == "unit",
            self_loops=loops,
            allowed=allowed if few else None,
            message=(lambda rows: 2 * rows) if form == "message" else None,
            block=block,
            **(lists if there else {}),
        )
        return found._asdict()

    def expect(case, got):
        sent = case["h"] * (2 if form == "message" else 1)
        table, size = tables(sent, case["cotangent"], case["output"])
        off = EPS * 16 * (1 + np.prod(features)) * size + LOST
        opened = np.tile(case["allowed"], (nodes, 1)) if few else np.ones((nodes, nodes), bool)
        opened &= loops | ~np.eye(nodes, dtype=bool)
        if there:
            real = inside(case["senders"], nodes) & inside(case["receivers"], nodes)
            opened[case["receivers"][real], case["senders"][real]] = False
        most = min(count, nodes)
        ranked = np.where(opened, table, -np.inf)
        order = np.argsort(-ranked, axis=1, kind="stable")[:, :most]
        best = np.take_along_axis(ranked, order, 1)
        senders = np.where(best > -np.inf, order, -1)
        worst = np.where(opened, off, 0).max(1)
        exact = form in ("plain", "message") and not matrix and is_coarse(sent, case["cotangent"])
        if not exact and sound(got["senders"], senders, ranked, worst):
            # Of gains that rounding cannot tell apart, any may come first.
            senders = got["senders"]
        number = np.maximum(opened.sum(1), 1)
        noise = np.sqrt((np.where(opened, table, 0) ** 2).sum(1) / number)
        noise_off = np.sqrt((np.where(opened, off, 0) ** 2).sum(1) / number)
        # Squares of what is small vanish.
        noise_off += 8 * EPS * nodes * noise + 1e-18
        return {
            "gains": Near(best, worst[:, None]),
            "senders": Near(senders),
            "noise": Near(noise, noise_off),
        }

    def tables(sent, cotangent, output):
        """Gains of all edges ``(receiver, sender)``, and the sizes of what they are made of."""
        if matrix:
            one = cotangent.reshape(nodes, -1, received[-1])
            two = sent.reshape(nodes, -1, features[-1])
            slopes = np.einsum("nso,jsc->njoc", one, two)
            sizes = np.einsum("nso,jsc->njoc", np.abs(one), np.abs(two))
            table, size = (np.sqrt((part**2).sum((2, 3))) for part in (slopes, sizes))
            size = size + 1e-18 / EPS
        else:
            one, two = cotangent.reshape(nodes, -1), sent.reshape(nodes, -1)
            table, size = -one @ two.T, np.abs(one) @ np.abs(two).T
            if form == "output":
                own = one * output.reshape(nodes, -1)
                table, size = table + own.sum(1)[:, None], size + np.abs(own).sum(1)[:, None]
            table = np.abs(table) if weights == "any" else table
        if form != "unit":
            return table, size
        length = np.sqrt((sent.reshape(nodes, -1) ** 2).sum(1))
        divisor = np.where(length > 0, length, 1)
        return tuple(np.where(length > 0, part / divisor, 0) for part in (table, size))

    options = {"weights": weights, "form": form, "block": block, "count": count, "there": there}
    options |= {"self_loops": loops, "allowed": few, "features": features, "nodes": nodes}
    return Program("edge_gains", options, arguments, run, expect)


def is_coarse(*arrays):
    """Whether products of these numbers are added without rounding."""
    return all(np.array_equal(8 * part, np.round(8 * part)) for part in arrays)


def sound(got, senders, ranked, worst):
    """Whether what was chosen is as good as what is best, by what rounding can tell."""
    if got.shape != senders.shape or not np.array_equal(got < 0, senders < 0):
        return False
    for row, real in enumerate(senders >= 0):
        found, best = got[row, real], senders[row, real]
        if len(set(found)) < len(found) or not (found < ranked.shape[1]).all():
            return False
        if not (np.abs(ranked[row, found] - ranked[row, best]) <= 2 * worst[row]).all():
            return False
    return True


FAMILIES = (aggregate, in_edges, gcn_normalize, edge_softmax, edge_gains, edge_gains)
