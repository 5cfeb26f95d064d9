"""Oracles of ``backprop`` and ``diagnostics``."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import backprop, diagnostics
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near, relative
from tests.fuzz.program import Program


def largest(array, k):
    """Mark the k largest magnitudes of each row, the first ones where several are equal."""
    order = np.argsort(-np.abs(array), -1, kind="stable")
    mask = np.zeros(array.shape, bool)
    np.put_along_axis(mask, order[..., :k], values=True, axis=-1)
    return mask


def nearly_tied(scores, k):
    """Whether rounding decides which ones are the largest."""
    ordered = -np.sort(-scores)
    return k < len(ordered) and ordered[k - 1] - ordered[k] <= 1e-5 * ordered[k - 1]


def chosen(name, g, k, block, tau):  # noqa: PLR0911 (a case each)
    """What a sparsifier keeps: a mask, or None where rounding decides."""
    n = g.shape[1]
    if name == "TopK":
        return largest(g, k)
    if name == "Threshold":
        return np.abs(g) > tau
    if name == "BlockTopK":
        squares = (g**2).sum(0).reshape(-1, block).sum(-1)
        count = -(-k // block)
        if nearly_tied(squares, count):
            return None
        mask = np.repeat(largest(squares, count), block)
        return np.broadcast_to(mask, g.shape)
    sums = np.abs(g).sum(0)
    count = k if name == "UnifiedTopK" else min(4 * k, n)
    if nearly_tied(sums, count):
        return None
    columns = largest(sums, count)
    if name == "UnifiedTopK":
        return np.broadcast_to(columns, g.shape)
    # In falling order of the columns' sums, which is how ties among the rows are broken.
    order = np.argsort(-sums, kind="stable")[:count] if count < n else np.arange(n)
    part = largest(g[:, order], k)
    if len(np.unique(np.abs(g))) < g.size and count < n:
        return None
    mask = np.zeros(g.shape, bool)
    mask[:, order] = part
    return mask


def sparsifier_of(rng, n):
    name = draw.pick(rng, "TopK", "UnifiedTopK", "CandidateTopK", "BlockTopK", "Threshold")
    k, block = int(rng.integers(1, n + 1)), int(draw.pick(rng, 1, 2, n))
    tau = float(draw.pick(rng, 0.0, 0.3, 1.0))
    budget = k if rng.random() < 0.7 else k / n
    if name == "BlockTopK":
        return name, backprop.BlockTopK(budget, block=block), k, block, tau
    if name == "Threshold":
        return name, backprop.Threshold(tau), k, block, tau
    return name, getattr(backprop, name)(budget), k, block, tau


def sparsify(rng):
    rows, n, kind = int(rng.integers(1, 5)), int(draw.pick(rng, 2, 4, 12)), draw.dtype(rng)
    name, sparsifier, *options = sparsifier_of(rng, n)

    def expect(case, got):
        mask = chosen(name, case["g"], *options)
        return {} if mask is None else {"y": Near(np.where(mask, case["g"], 0))}

    return Program(
        f"sparsify, {name}",
        {"rows": rows, "n": n, "sparsifier": sparsifier, "dtype": str(kind)},
        lambda rng: {"g": draw.reals(rng, (rows, n), kind)},
        lambda g: {"y": backprop.sparsify(None, g, sparsifier)},
        expect,
        like={"y": "g"},
    )


def at_random(rng):
    rows, n, kind = int(rng.integers(1, 5)), int(draw.pick(rng, 1, 4, 12)), draw.dtype(rng)
    k = int(rng.integers(1, n + 1))
    name = draw.pick(rng, "RandomK", "UnifiedRandomK", "ImportanceSampling")
    rescale = bool(rng.random() < 0.5)
    options = {} if name == "ImportanceSampling" else {"rescale": rescale}
    sparsifier = getattr(backprop, name)(k, **options)

    def expect(case, got):
        g, y = case["g"], np.float64(got["y"])
        kept = y != 0
        if name == "ImportanceSampling":
            chances = np.stack([inclusion(np.abs(row), k) for row in g])
            value = np.where(kept, g / np.where(chances > 0, chances, 1), 0)
            return {"y": Near(value, 64 * EPS * n * np.abs(value) + LOST)}
        if name == "UnifiedRandomK":
            clear = (g != 0).all(0)
            count = (kept | (g == 0)).all(0)[clear].sum() if clear.all() else k
            if clear.all() and (count != k or (kept.any(0) != kept.all(0)).any()):
                return {"y": Near(y - 1)}
        elif (g != 0).all() and (kept.sum(-1) != k).any():
            return {"y": Near(y - 1)}
        return {"y": relative(np.where(kept, g * (n / k if rescale else 1), 0))}

    return Program(
        f"sparsify, {name}",
        {"rows": rows, "n": n, "sparsifier": sparsifier, "dtype": str(kind)},
        lambda rng: {"g": draw.reals(rng, (rows, n), kind)},
        lambda key, g: {"y": backprop.sparsify(key, g, sparsifier)},
        expect,
        keyed=True,
        like={"y": "g"},
    )


def inclusion(sizes, k):
    """Probabilities ``min(1, c size)`` that sum to k; all of what is not 0 where k is enough."""
    if k == len(sizes) or (sizes > 0).sum() <= k:
        return (sizes > 0).astype(float)
    falling = -np.sort(-sizes)
    for m in range(k):
        scale = (k - m) / falling[m:].sum()
        if scale * falling[m] <= 1:
            break
    return np.minimum(1, scale * sizes)


def sparse_dense(rng):
    """A layer with a memory per slot: output, all gradients, next memory."""
    batch, n_in, n = int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(draw.pick(rng, 2, 4, 8))
    name, sparsifier, *options = sparsifier_of(rng, n)
    remember, kind = bool(rng.random() < 0.6), draw.dtype(rng)
    layout, eta = draw.pick(rng, "out_in", "in_out"), float(draw.pick(rng, 0.0, 0.8, 1.0))
    select_on, dense_bias = draw.pick(rng, "corrected", "gradient"), bool(rng.random() < 0.5)
    remember = remember and kind == np.float32

    def arguments(rng):
        kernel = draw.reals(rng, (n, n_in), kind)
        return {
            "x": draw.reals(rng, (batch, n_in), kind),
            "kernel": kernel if layout == "out_in" else np.ascontiguousarray(kernel.T),
            "bias": draw.reals(rng, (n,), kind),
            "residue": draw.reals(rng, (batch, n)) * np.float32(remember),
            "g": draw.reals(rng, (batch, n), kind),
        }

    def run(x, kernel, bias, residue, g):
        memory = None
        if remember:
            memory = backprop.init_memory("slot", (batch, n))._replace(residue=residue)

        def layer(x, kernel, bias, memory):
            more = {"layout": layout, "eta": eta, "select_on": select_on, "dense_bias": dense_bias}
            return backprop.sparse_dense(
                None, x, kernel, bias, memory, sparsifier=sparsifier, **more
            )

        y, pull = jax.vjp(layer, x, kernel, bias, memory)
        dx, dkernel, dbias, gradient = pull(g.astype(y.dtype))
        outputs = {"y": y, "d_x": dx, "d_kernel": dkernel, "d_bias": dbias}
        if remember:
            outputs["memory"] = backprop.next_memory(memory, gradient).residue
        return outputs

    def expect(case, got):
        x, g = case["x"], case["g"]
        kernel = case["kernel"] if layout == "out_in" else case["kernel"].T
        eps = EPS if kind == np.float32 else 4 * float(jnp.finfo(kind).eps)
        y, size = x @ kernel.T + case["bias"], np.abs(x) @ np.abs(kernel.T) + np.abs(case["bias"])
        expected = {"y": Near(y, 16 * eps * size + LOST)}
        whole = g + case["residue"]
        mask = chosen(name, whole if select_on == "corrected" else g, *options)
        # What is added rounds, and with it what is chosen.
        if mask is None or (remember and (len(np.unique(np.abs(whole))) < whole.size)):
            return expected
        taken = np.where(mask, whole, 0)
        dkernel, kernel_size = taken.T @ x, np.abs(taken.T) @ np.abs(x)
        total = g if dense_bias else taken
        turn = (lambda one: one) if layout == "out_in" else (lambda one: one.T)
        expected |= {
            "d_x": Near(taken @ kernel, 16 * eps * (np.abs(taken) @ np.abs(kernel)) + LOST),
            "d_kernel": Near(turn(dkernel), 16 * eps * turn(kernel_size) + LOST),
            "d_bias": Near(total.sum(0), 16 * eps * np.abs(total).sum(0) + LOST),
        }
        if remember:
            expected["memory"] = relative(eta * (whole - taken), 16)
        return expected

    return Program(
        f"sparse_dense, {name}",
        {
            "sparsifier": sparsifier,
            "memory": remember,
            "eta": eta,
            "layout": layout,
            "select_on": select_on,
            "dense_bias": dense_bias,
            "dtype": str(kind),
        },
        arguments,
        run,
        expect,
        like={"y": "x"},
    )


def error_feedback(rng):
    rows, n, kind = int(rng.integers(1, 4)), int(rng.integers(1, 5)), draw.dtype(rng)
    k, eta = int(rng.integers(1, rows * n + 1)), float(draw.pick(rng, 0.0, 0.5, 1.0))

    def run(one, two):
        transformation = backprop.error_feedback(backprop.TopK(k), eta=eta)
        first, state = transformation.update({"w": one}, transformation.init({"w": one}))
        second, state = transformation.update({"w": two}, state)
        return {"y": first["w"], "second": second["w"], "residue": state.residue["w"]}

    def expect(case, got):
        one, two = case["one"].reshape(-1), case["two"].reshape(-1)
        first = np.where(largest(one, k), one, 0)
        whole = two + eta * (one - first)
        shape = case["one"].shape
        expected = {"y": Near(first.reshape(shape))}
        if nearly_tied(np.abs(whole), k):
            return expected
        second = np.where(largest(whole, k), whole, 0)
        room = 8 * EPS * (np.abs(two) + np.abs(one))
        # An update of 16 bits is rounded; the residue has what the rounding left out.
        left = eta * (whole - np.float64(got["second"]).reshape(-1))
        rest = Near(left.reshape(shape), room.reshape(shape))
        return expected | {
            "second": Near(second.reshape(shape), room.reshape(shape)),
            "residue": rest,
        }

    return Program(
        "error_feedback",
        {"k": k, "eta": eta, "dtype": str(kind)},
        lambda rng: {name: draw.reals(rng, (rows, n), kind) for name in ("one", "two")},
        run,
        expect,
        like={"y": "one", "second": "one"},
    )


def top_k_mask(rng):
    lead, n, kind = draw.pick(rng, (), (3,), (2, 2)), int(draw.pick(rng, 1, 5, 17)), draw.dtype(rng)

    def arguments(rng):
        k = rng.integers(0, n + 1, lead).astype(np.int32)
        return {"array": draw.reals(rng, (*lead, n), kind), "k": k}

    def expect(case, got):
        order = np.argsort(-np.abs(case["array"]), -1, kind="stable")
        rank = np.argsort(order, -1)
        return {"y": Near(rank < case["k"][..., None])}

    return Program(
        "top_k_mask",
        {"lead": lead, "n": n, "dtype": str(kind)},
        arguments,
        lambda array, k: {"y": backprop.top_k_mask(array, k)},
        expect,
    )


def directions(rng):
    """The two measures of ``diagnostics``."""
    size, kind = int(rng.integers(1, 6)), draw.dtype(rng)

    def arguments(rng):
        spread = 1.0 if kind == np.float16 else 10.0 ** rng.integers(-30, 31)
        one, two = (draw.reals(rng, (size,), kind, spread=spread) for _ in range(2))
        return {"one": one, "two": two}

    def run(one, two):
        cosine = diagnostics.gradient_cosine({"a": one}, {"a": two})
        ratio = diagnostics.norm_ratio({"a": one}, {"a": two})
        return {"y": cosine, "ratio": jnp.where(jnp.isfinite(ratio), ratio, -1.0)}

    def expect(case, got):
        one, two = case["one"], case["two"]
        lengths = np.linalg.norm(one), np.linalg.norm(two)
        whole = lengths[0] * lengths[1]
        cosine = one @ two / whole if whole else 0.0
        ratio = lengths[0] / lengths[1] if lengths[1] else -1.0
        return {"y": Near(cosine, 32 * EPS), "ratio": relative(ratio, 32)}

    return Program(
        "gradient_cosine, norm_ratio", {"size": size, "dtype": str(kind)}, arguments, run, expect
    )


FAMILIES = (sparsify, sparsify, at_random, sparse_dense, sparse_dense, error_feedback, top_k_mask)
DIAGNOSTICS = (directions,)
