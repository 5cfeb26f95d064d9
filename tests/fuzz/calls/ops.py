"""Calls of ``ops``."""

import inspect

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import ops
from tests.fuzz import draw
from tests.fuzz.calls.parts import SHAPE, entries, reals, sampling, tuples, tuples_of
from tests.fuzz.wrong import (
    Call,
    array,
    choice,
    count,
    flag,
    function,
    key,
    number,
    shape,
    thing,
    tree,
)


def points(rng, n=6):
    return array(draw.cells(rng, n, SHAPE), "integers", lengths=False, last=True)


def density():
    return choice("laplace")


def relaxing(k):
    return sampling() | {
        "global_from": choice("density"),
        "chunk_size": count(k, 1, k, optional=True),
        "density": density(),
        "block_size": count(2, 1, optional=True),
    }


def bound_means(rng):
    raw = array(reals(rng, 3, 2), ranks=False, lengths=False, last=True)
    return Call(
        "ops.bound_means",
        ops.bound_means,
        {"raw": raw, "shape": shape(SHAPE), "method": choice("clamp")},
        2,
    )


def invert_means(rng):
    means = array(np.abs(reals(rng, 3, 2)), ranks=False, lengths=False, last=True)
    margin = number(1e-3, -0.1, 0.6, 5)
    return Call(
        "ops.invert_means",
        ops.invert_means,
        {"means": means, "shape": shape(SHAPE), "margin": margin},
        2,
    )


def bound_variances(rng):
    raw = array(reals(rng, 3), ranks=False, lengths=False)
    options = {"scale": number(0.1, -1.0), "boost": number(2.0), "floor": number(0.1, -1.0)}
    arguments = {
        "raw": raw,
        "shape": shape(SHAPE, ranks=False),
        **options,
        "reference": flag(False),
    }
    return Call("ops.bound_variances", ops.bound_variances, arguments, 2)


def sample_tuples(rng):
    means = array(draw.means(rng, 3, SHAPE), lengths=False, last=True)
    return Call(
        "ops.sample_tuples",
        ops.sample_tuples,
        {"key": key(), "means": means, "shape": shape(SHAPE), **sampling(), **by_density(rng)},
        3,
    )


def by_density(rng):
    variances = array(np.abs(reals(rng, 3, 2)) + 0.1, optional=True)
    if rng.random() < 0.5:
        return {"global_from": choice("uniform"), "variances": variances, "density": density()}
    variances = array(variances.value)
    return {"global_from": choice("density"), "variances": variances, "density": density()}


def round_means(rng):
    means = array(draw.means(rng, 3, SHAPE), ranks=False, lengths=False, last=True)
    return Call(
        "ops.round_means",
        ops.round_means,
        {"means": means, "shape": shape(SHAPE), "wrap": flag(False)},
        2,
    )


def first_occurrence(rng):
    return Call(
        "ops.first_occurrence",
        ops.first_occurrence,
        {"points": points(rng), "shape": shape(SHAPE)},
        2,
    )


def densities(rng):
    parts = tuples_of(rng, 3)
    arguments = {"points": points(rng)}
    name = draw.pick(rng, "log_densities", "proportions", "mix_values")
    if name != "log_densities":
        arguments["mask"] = array(np.ones(6, bool), "flags")
    arguments |= {"means": array(parts.means), "variances": array(parts.variances)}
    if name == "mix_values":
        arguments["values"] = array(parts.values)
    first = len(arguments)
    arguments |= {"density": density(), "period": shape(SHAPE, optional=True)}
    if name == "mix_values":
        arguments["block_size"] = count(2, 1, optional=True)
    return Call(f"ops.{name}", getattr(ops, name), arguments, first)


def mix_nearby(rng):
    parts = tuples_of(rng, 3)
    arguments = {"points": points(rng), "mask": array(np.ones(6, bool), "flags")}
    arguments |= {name: array(part) for name, part in parts._asdict().items()}
    arguments |= {"shape": shape(SHAPE), "locality": thing(ops.Locality(5, (6,), None))}
    return Call("ops.mix_nearby", ops.mix_nearby, arguments, 5)


def locality(rng):
    arguments = {
        "radius": count(2, 1),
        "capacities": shape((2, 4), ranks=False, huge=True),
        "tolerance": number(0.1, -1.0, optional=True),
    }

    def use(**options):
        parts = tuples_of(np.random.default_rng(0), 3)
        local = ops.Locality(**options)
        ops.relax(None, parts, SHAPE, locality=local)

    return Call("ops.relax(locality=ops.Locality)", use, arguments)


def fit_locality(rng):
    arguments = {"key": key(), "tuples": tuples(rng, 3), "shape": shape(SHAPE)}
    arguments |= {
        "tolerance": number(0.01, -1.0, 0.0),
        "slack": number(1.5, 0.5, -1),
        "num_parts": count(2, 1),
    }
    some = sampling()
    del some["wrap"], some["debug"]
    return Call("ops.fit_locality", ops.fit_locality, arguments | some, 3, eager=True)


def sparse_multiply(rng):
    indices = array(draw.cells(rng, 6, (3, 4)), "integers")
    arguments = {"indices": indices, "values": array(reals(rng, 6), complexes=True)}
    arguments["x"] = array(reals(rng, 4, 2), ranks=False, lengths=False, complexes=True)
    arguments |= {"out_shape": shape((3,), ranks=False), "row_layout": flag(False)}
    arguments |= {"indices_are_sorted": flag(False), "debug": flag(False)}
    return Call("ops.sparse_multiply", ops.sparse_multiply, arguments, 4)


def make_template(rng):
    rows = np.array([[0, 0], [0, 0], [3, 0], [3, 0]], np.int32)
    bad = [
        rows - 1,
        [[0, 1], [1, 1]],
        rows * 2.0,
        [[0], [1, 2]],
        [],
        rows[0],
        [[0, 0], [0, 0], [0, 0]],
        [[2**33, 0]] * 4,
        [[-1, 0]] * 4,
    ]
    columns = thing([1], [2], [1, 1], [-3], [0.7], ["a"], 1, [None], [True], family="columns")
    arguments = {
        "rows": thing(rows, *bad, family="rows"),
        "columns": columns,
        "chunk_size": count(2, 1, 2),
    }
    return Call("ops.make_template", ops.make_template, arguments, 2)


def template_of():
    return ops.make_template([[0, 0], [0, 0], [3, 0], [3, 0]], [1], chunk_size=2)


def stitch(rng):
    spots = array(draw.cells(rng, 12, (4,)).reshape(4, 3, 1), "integers", last=True)
    return Call("ops.stitch", ops.stitch, {"template": thing(template_of()), "points": spots}, 2)


def relax(rng):
    k = int(rng.integers(2, 5))
    arguments = {"key": key(), "tuples": tuples(rng, k), "shape": shape(SHAPE), **relaxing(k)}
    form = rng.integers(3)
    if form == 1:
        del arguments["chunk_size"]
        ranges = [
            (0,),
            (0, 0),
            (k, 1),
            (-1, 1),
            (0, k + 1),
            (0, 1.5),
            ("0", 1),
            1,
            (0, None),
            (np.int64(k), 1),
            (0, True),
            (0, 1, 2),
            (0.5, 1),
        ]
        arguments["active"] = thing((0, 1), *ranges, optional=True)
    if form == 2:
        arguments["tuples"] = tuples(rng, 4, (4,))
        arguments["region"] = shape((2,))
        arguments["chunk_size"] = count(2, 2, 2, optional=True)
        arguments["template"] = thing(template_of(), optional=True)
    return Call("ops.relax", ops.relax, arguments, 3)


def settle(rng):
    arguments = {
        "tuples": tuples(rng, 3),
        "shape": shape(SHAPE),
        "template": thing(None, optional=True),
        "wrap": flag(False),
        "debug": flag(False),
    }
    return Call("ops.settle", ops.settle, arguments, 2)


def hyperlayer(rng):
    k = int(rng.integers(2, 5))
    x = array(reals(rng, 4), ranks=False, lengths=False, complexes=True)
    arguments = {"key": key(), "tuples": tuples(rng, k), "x": x}
    arguments |= {"out_shape": shape((5,), ranks=False), **relaxing(k)}
    arguments |= {"sample_probability": number(0.5, -0.1, 1.5, 2)}
    return Call("ops.hyperlayer", ops.hyperlayer, arguments, 4)


def hyperlayer_hard(rng):
    x = array(reals(rng, 4), ranks=False, lengths=False, complexes=True)
    arguments = {"tuples": tuples(rng, 3), "x": x, "out_shape": shape((5,), ranks=False)}
    arguments |= {"template": thing(None, optional=True), "wrap": flag(False), "debug": flag(False)}
    return Call("ops.hyperlayer_hard", ops.hyperlayer_hard, arguments, 3)


def accumulate(rng):
    x = reals(rng, 4)

    def loss(key, parts, bias, active):
        return ((ops.hyperlayer(key, parts, x, (5,), active=active) + bias) ** 2).sum()

    arguments = {
        "key": key(),
        "loss": function(loss, lambda *_: jnp.ones(3)),
        "tuple_parameters": tuples(rng, 4),
    }
    arguments["shared_parameters"] = tree(reals(rng, 5), None, "x", {"a": None}, [object()])
    known = inspect.signature(ops.accumulate_over_ranges).parameters
    arguments |= {"num_tuples": count(4, 1, 4)} if "num_tuples" in known else {}
    arguments |= {"range_size": count(2, 1, 4)}
    return Call("ops.accumulate_over_ranges", ops.accumulate_over_ranges, arguments, 4)


def segment(rng):
    name = draw.pick(rng, "segment_softmax", "segment_normalize")
    arguments = {
        "logits" if name == "segment_softmax" else "values": array(reals(rng, 6), ranks=False)
    }
    arguments |= {
        "segment_ids": array(draw.segments(rng, 6, 3), "integers"),
        "num_segments": count(3, 1),
    }
    arguments |= {
        "mask": array(np.ones(6, bool), "flags", optional=True),
        "indices_are_sorted": flag(False),
    }
    arguments |= {"method": choice("abs")} if name == "segment_normalize" else {}
    return Call(f"ops.{name}", getattr(ops, name), arguments, 3)


def regularize(rng):
    name = draw.pick(rng, "variance_norm", "variance_log_mean")
    arguments = {"variances": array(np.ones((3, 2)), ranks=False, lengths=False)}
    return Call(f"ops.{name}", getattr(ops, name), arguments, 1)


def convert(rng):
    name = draw.pick(rng, "to_dense", "to_bcoo")
    arguments = {"entries": entries(rng, 5), "shape": shape(SHAPE)}
    return Call(f"ops.{name}", getattr(ops, name), arguments, 2)


def from_bcoo(rng):
    good = ops.to_bcoo(entries(rng, 5).value, SHAPE)
    return Call("ops.from_bcoo", ops.from_bcoo, {"matrix": thing(good)}, 1)


def dense_relaxation(rng):
    arguments = {
        "tuples": tuples(rng, 3),
        "shape": shape(SHAPE),
        "density": density(),
        "wrap": flag(False),
    }
    return Call("ops.dense_relaxation", ops.dense_relaxation, arguments, 2)


def relocate(rng):
    options = {"settled": number(1.0, -1.0), "lost": number(0.25, -1.0), "wrap": flag(False)}
    if rng.random() < 0.3:
        arguments = {
            "tuples": tuples(rng, 3),
            "gradients": array(reals(rng, 4, 3), lengths=False, last=True),
            "certainty": number(3.0, -1.0),
            "frozen": number(0.15, -1.0),
            "least": number(0.1, -1.0),
        }
        return Call("ops.leaving_gains", ops.leaving_gains, arguments, 2)
    if rng.random() < 0.5:
        return Call(
            "ops.surplus",
            ops.surplus,
            {"tuples": tuples(rng, 3), "shape": shape(SHAPE), **options},
            2,
        )
    arguments = {
        "tuples": tuples(rng, 3),
        "entries": entries(rng, 5),
        "gains": array(reals(rng, 5)),
    }
    options["leaving"] = array(reals(rng, 3), optional=True)
    arguments |= {"shape": shape(SHAPE), "limit": count(2, 1), **options}
    return Call("ops.relocate", ops.relocate, arguments, 4)


CALLS = (
    bound_means,
    invert_means,
    bound_variances,
    sample_tuples,
    round_means,
    first_occurrence,
    densities,
    densities,
    mix_nearby,
    locality,
    fit_locality,
    sparse_multiply,
    make_template,
    stitch,
    relax,
    relax,
    settle,
    hyperlayer,
    hyperlayer_hard,
    accumulate,
    segment,
    regularize,
    convert,
    from_bcoo,
    dense_relaxation,
    relocate,
)
