"""Oracles of ``nn``: layers whose parameters are arguments."""

import jax
import numpy as np
from flax import nnx

from sparse_hyper_jax import nn
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.choices import softmax
from tests.fuzz.rooms.products import product, product_slopes
from tests.fuzz.rooms.tuples import nearest, sigmoid


def with_parameters(layer, **parameters):
    """The same layer with other parameters, by the last part of their name."""
    graph, state, rest = nnx.split(layer, nnx.Param, ...)
    flat = jax.tree_util.tree_flatten_with_path(state)
    names = [[str(getattr(part, "key", part)) for part in path] for path, _ in flat[0]]
    leaves = [
        next((parameters[part] for part in reversed(name) if part in parameters), leaf)
        for name, (_, leaf) in zip(names, flat[0], strict=True)
    ]
    return nnx.merge(graph, jax.tree.unflatten(flat[1], leaves), rest)


def settled_layer(rng):
    """A `FreeHyperLayer` that rounds: evaluation, or a sample probability of 0."""
    inputs, outputs = (draw.shape(rng, int(rng.integers(1, 3))) for _ in range(2))
    count, kind, features = int(rng.integers(1, 8)), draw.dtype(rng), draw.pick(rng, (), (2,))
    method, bias = draw.pick(rng, "sigmoid", "clamp"), draw.pick(rng, "none", "dense")
    shape = (*outputs, *inputs)

    def arguments(rng):
        named = {
            "raw_means": draw.reals(rng, (count, len(shape)), spread=2),
            "values": draw.reals(rng, (count,)),
            "x": draw.reals(rng, (2, *inputs, *features), kind),
        }
        return named | ({"bias": draw.reals(rng, outputs)} if bias == "dense" else {})

    def run(x, **parameters):
        options = {"mean_method": method, "bias": bias, "rngs": nnx.Rngs(0)}
        layer = with_parameters(nn.FreeHyperLayer(inputs, outputs, count, **options), **parameters)
        return {"y": layer(x, deterministic=True)}

    def expect(case, got):
        last, raw = np.asarray(shape, float) - 1, case["raw_means"]
        means = last * sigmoid(raw) if method == "sigmoid" else np.clip(raw, 0, last)
        if (np.abs(means % 1 - 0.5) < 1e-5).any():
            return {}
        cells = nearest(means, shape, wrap=False)
        y, size, by_x, by_value = [], [], [], 0
        for one, weights in zip(case["x"], case["weights"], strict=True):
            result, sizes, facts = product(cells, case["values"], one, outputs)
            (pull, _), (slope, _) = product_slopes(case["values"], one, weights, facts)
            y, size, by_x = [*y, result], [*size, sizes], [*by_x, slope]
            by_value = by_value + pull
        y, size = np.stack(y), np.stack(size)
        if bias == "dense":
            y = y + case["bias"].reshape(*outputs, *(1,) * len(features))
            size = size + np.abs(case["bias"]).max(initial=0)
        eps = 8 * float(np.finfo(np.float32).eps if kind == np.float32 else 2**-8)
        room = 32 * EPS * (np.abs(case["weights"]).sum() + 1)
        room = room * (1 + np.abs(case["x"]).max(initial=0) + np.abs(case["values"]).max())
        return {
            "y": Near(y, eps * size + LOST),
            "d_x": Near(np.stack(by_x), room),
            "d_values": Near(by_value, room),
        }

    return Program(
        "FreeHyperLayer, deterministic",
        {"in_shape": inputs, "out_shape": outputs, "method": method, "bias": bias, "x": str(kind)},
        arguments,
        run,
        expect,
        slopes=("x", "values"),
        like={"y": "x"},
    )


def mixture(rng):
    """A router that is trained as usual, or one that is dense."""
    router, product = draw.pick(rng, "top", "dense"), draw.pick(rng, "all", "ragged")
    tokens, experts, width = (int(n) for n in rng.integers(1, 5, 3))

    def run(x, router_kernel, up, down):
        layer = nn.Mixture(width, 3, 2, experts, router=router, product=product, rngs=nnx.Rngs(0))
        graph, state, rest = nnx.split(layer, nnx.Param, ...)

        def given(path, leaf):
            if leaf.ndim == 3:
                return up if leaf.shape[-1] == 3 else down
            name = jax.tree_util.keystr(path)
            return router_kernel if "router" in name and "kernel" in name else 0 * leaf

        state = jax.tree_util.tree_map_with_path(given, state)
        mixed = nnx.merge(graph, state, rest)(x, deterministic=True)
        return {"y": mixed.y, "expert": mixed.expert}

    def expect(case, got):
        logits = case["x"] @ case["router_kernel"]
        ordered = np.sort(logits, -1)
        if (
            experts > 1
            and (ordered[:, -1] - ordered[:, -2] < 1e-4 * (1 + np.abs(logits).max())).any()
        ):
            return {}
        hidden = np.maximum(np.einsum("ti,eij->etj", case["x"], case["up"]), 0)
        every = np.einsum("etj,ejk->tek", hidden, case["down"])
        chances = softmax(logits)
        expert = logits.argmax(-1)
        if router == "top":
            chances = np.where(np.arange(experts) == expert[:, None], chances, 0)
        y = (chances[..., None] * every).sum(1)
        size = np.einsum("ti,eij->etj", np.abs(case["x"]), np.abs(case["up"]))
        size = np.einsum("etj,ejk->tek", size, np.abs(case["down"])).sum(1)
        room = 64 * EPS * size * (1 + np.abs(logits).max()) + LOST
        return {"y": Near(y, room), "expert": Near(expert.astype(np.int32))}

    return Program(
        f"Mixture, {router}",
        {"tokens": tokens, "experts": experts, "in_features": width, "product": product},
        lambda rng: {
            "x": draw.reals(rng, (tokens, width)),
            "router_kernel": draw.reals(rng, (width, experts)),
            "up": draw.reals(rng, (experts, width, 3)),
            "down": draw.reals(rng, (experts, 3, 2)),
        },
        run,
        expect,
    )


FAMILIES = (settled_layer, mixture)
