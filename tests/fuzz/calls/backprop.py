"""Calls of ``backprop`` and ``diagnostics``."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import backprop, diagnostics
from tests.fuzz import draw
from tests.fuzz.calls.parts import reals
from tests.fuzz.wrong import Call, array, choice, count, flag, key, number, shape, thing


def sparsifier(value=None, *more):
    bad = [backprop.TopK, "TopK", 0.5, *more]
    return thing(value or backprop.TopK(2), *bad)


def sparsify(rng):
    arguments = {"key": key(), "cotangent": array(reals(rng, 3, 4), lengths=False, complexes=True)}
    arguments["sparsifier"] = sparsifier(
        backprop.RandomK(2), backprop.AdaptiveTopK(), backprop.TopK(9)
    )
    return Call("backprop.sparsify", backprop.sparsify, arguments, 3)


def making(rng):
    """Making a sparsifier, and using it."""
    name = draw.pick(
        rng,
        "TopK",
        "UnifiedTopK",
        "CandidateTopK",
        "BlockTopK",
        "Threshold",
        "RandomK",
        "ImportanceSampling",
        "AdaptiveTopK",
        "AdaptiveLadder",
    )
    budget = number(2, 0, -1, 1.5, -0.5, 5, 0.0)
    options = {"k": budget}
    if name == "CandidateTopK":
        options["candidates"] = number(3, 1, 0, 1.5, 9, optional=True)
    if name == "BlockTopK":
        options["block"] = count(2, 1, 4)
    if name == "RandomK":
        options["rescale"] = flag(True)
    if name == "Threshold":
        options = {"tau": number(0.5, -1.0)}
    if name.startswith("Adaptive"):
        options = {
            "least": number(0.1, -1.0, 2.0, 0.9),
            "most": number(0.6, 1.5, -1, 0.05),
            "damping": number(0.5, 0.0, 1.5),
            "depth": count(1),
        }
    if name == "AdaptiveLadder":
        options["num_rungs"] = count(3, 1)
    made = getattr(backprop, name)

    def use(**options):
        one, x, kernel = made(**options), jnp.ones((2, 3)), jnp.ones((4, 3))
        memory = backprop.init_memory("none", (2, 4), adaptive=True) if one.needs_peak else None

        def loss(x, memory):
            return backprop.sparse_dense(
                jax.random.key(0), x, kernel, None, memory, sparsifier=one
            ).sum()

        jax.grad(loss, (0, 1) if memory else 0)(x, memory)

    return Call(f"backprop.{name}", use, options)


def sparse_dense(rng):
    arguments = {
        "key": key(optional=True),
        "x": array(reals(rng, 2, 3), ranks=False, lengths=False, last=True, complexes=True),
    }
    arguments |= {"kernel": array(reals(rng, 4, 3), lengths=False, last=True, complexes=True)}
    arguments |= {"bias": array(reals(rng, 4), optional=True, complexes=True)}
    memory = backprop.init_memory("slot", (2, 4))
    wrong = [backprop.Memory, memory.residue, (1, 2)]
    arguments |= {
        "memory": thing(None, *wrong, optional=True, family="memory"),
        "sparsifier": sparsifier(),
    }
    arguments |= {
        "eta": number(0.5, -0.1, 1.5),
        "select_on": choice("gradient"),
        "dense_bias": flag(True),
        "layout": choice("out_in"),
    }

    return Call("backprop.sparse_dense", backprop.sparse_dense, arguments, 5)


def sparsify_cotangent(rng):
    arguments = {
        "key": key(optional=True),
        "y": array(reals(rng, 2, 4), "floats", ranks=False, lengths=False),
    }
    arguments |= {
        "sparsifier": sparsifier(),
        "eta": number(0.5, -0.1, 1.5),
        "select_on": choice("gradient"),
        "event_ndim": count(1, 1, 2),
    }
    return Call("backprop.sparsify_cotangent", backprop.sparsify_cotangent, arguments, 2)


def memory(rng):
    arguments = {
        "kind": choice("slot"),
        "shape": shape((2, 4), ranks=False),
        "event_ndim": count(1, 1, 2),
    }
    arguments |= {
        "adaptive": flag(False),
        "count": flag(False),
        "dtype": thing(jnp.float32, jnp.int32, jnp.bfloat16, "nothing"),
    }
    return Call("backprop.init_memory", backprop.init_memory, arguments, 2)


def memories(rng):
    first = backprop.init_memory("slot", (2, 4))
    bad = [
        first._replace(residue=jnp.ones((3, 4))),
        first.residue,
        backprop.init_memory("shared", (2, 4)),
        (1, 2),
    ]
    good = first._replace(uses=jnp.ones(()))
    arguments = {
        "memory": thing(first, *bad, family="memory"),
        "gradient": thing(good, *bad, family="memory"),
    }
    return Call("backprop.next_memory", backprop.next_memory, arguments, 2)


def used(rng):
    good = backprop.init_memory("slot", (2, 4), count=True)
    bad = [backprop.init_memory("slot", (2, 4)), good.counts]
    return Call(
        "backprop.share_of_units_used",
        backprop.share_of_units_used,
        {"memory": thing(good, *bad)},
        1,
    )


def compact(rng):
    kernel = array(reals(rng, 4, 3), lengths=False, complexes=True)
    one = backprop.UnifiedTopK(2)
    if rng.random() < 0.5:
        arguments = {
            "kernel": kernel,
            "sparsifier": sparsifier(one, backprop.TopK(2), backprop.AdaptiveTopK()),
            "layout": choice("out_in"),
        }
        return Call("backprop.empty_compact", backprop.empty_compact, arguments, 2)
    gradient = backprop.empty_compact(kernel.value, one)
    kernel = array(reals(rng, 4, 3), lengths=False, last=True, complexes=True)
    bad = [gradient.rows, gradient._replace(rows=jnp.ones((2, 5))), (1, 2)]
    arguments = {
        "kernel": kernel,
        "gradient": thing(gradient, *bad, family="gradient"),
        "scale": number(-0.1),
        "layout": choice("out_in"),
    }
    return Call("backprop.add_compact", backprop.add_compact, arguments, 3)


def error_feedback(rng):
    arguments = {
        "sparsifier": sparsifier(None, backprop.RandomK(2), backprop.ImportanceSampling(1)),
        "eta": number(0.5, -0.1, 1.5),
        "key": key(optional=True),
    }
    return Call("backprop.error_feedback", backprop.error_feedback, arguments, 1)


def top_k_mask(rng):
    arguments = {
        "array": array(reals(rng, 4), "floats", ranks=False, lengths=False),
        "k": count(2, 0, 4),
    }
    return Call("backprop.top_k_mask", backprop.top_k_mask, arguments, 2)


def directions(rng):
    name = draw.pick(rng, "gradient_cosine", "norm_ratio")
    one, two = ({"a": jnp.asarray(reals(rng, 3)), "b": jnp.ones(())} for _ in range(2))
    bad = [
        {"a": one["a"]},
        {"a": one["a"][1:], "b": one["b"]},
        {"a": "x", "b": 1.0},
        {"a": one["a"] * 1j, "b": 1.0},
        {"a": one["a"], "c": 1.0},
    ]
    arguments = {"gradient": thing(one, *bad), "reference": thing(two, *bad)}
    return Call(f"diagnostics.{name}", getattr(diagnostics, name), arguments, 2)


def report(rng):
    exact = {"a": jnp.ones(3)}

    def estimate(key):
        return {"a": jax.random.normal(key, (3,))}

    keys = jax.random.split(jax.random.key(0), 4)
    arguments = {
        "exact": thing(exact, {"a": jnp.ones(2)}, jnp.ones(3), {"b": jnp.ones(3)}, family="exact")
    }
    arguments["estimate"] = thing(
        estimate,
        lambda key: 3.0,
        lambda key: {"a": jnp.ones(2)},
        lambda key: None,
        family="function",
    )
    arguments["keys"] = thing(keys, keys[:1], keys[0], 4, jnp.ones(4), [1, 2, 3], family="keys")
    arguments["batch_size"] = count(2, 1)
    return Call("diagnostics.gradient_report", diagnostics.gradient_report, arguments, 3)


CALLS = (
    sparsify,
    making,
    making,
    sparse_dense,
    sparsify_cotangent,
    memory,
    memories,
    used,
    compact,
    error_feedback,
    top_k_mask,
)
DIAGNOSTICS = (directions, report)
