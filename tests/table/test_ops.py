"""Rows of the room ``ops``."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries
from tests.table.columns import Table
from tests.table.examples import (
    MEANS,
    SAMPLED,
    SHAPE,
    TUPLES,
    VARIANCES,
    between,
    eighths,
    integers,
)
from tests.table.ops_placing import PLACING, POINTS, WHOLE
from tests.table.row import Room, Row

X = eighths(4, seed=3)
KEPT = np.array([True, True, True, False, True, True])
ENTRIES = integers([0, 0], [0, 3], [1, 1], [1, 2], [2, 2], [2, 2])
SEGMENTS = integers(0, 2, 2, 0, 3, 2)
PAIRS = integers(0, 3, 0, 3, 0, 3)
TEMPLATE = ops.make_template([[0, 0], [0, 0], [3, 0], [3, 0]], [1], chunk_size=2)


def mix_nearby(locality):
    def values(*parts):
        chosen = fitted() if locality is None else locality
        return ops.mix_nearby(POINTS, KEPT, *parts, shape=SHAPE, locality=chosen).values

    return values


@cache
def fitted():
    """Found from numbers, outside of jit, with a key that is used once."""
    with jax.ensure_compile_time_eval(), jax.debug_key_reuse(True):
        key = jax.random.key(0)
        found = ops.fit_locality(key, ContinuousTuples(*TUPLES), SHAPE, **SAMPLED)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.random.split(key)
    return found


def relax(**options):
    return lambda key, *parts: ops.relax(key, ContinuousTuples(*parts), SHAPE, **options)


def hyperlayer(**options):
    return lambda key, *args: ops.hyperlayer(
        key, ContinuousTuples(*args[:3]), args[3], (5,), **options
    )


def accumulate(key, *arguments):
    *parts, bias = arguments

    def loss(key, tuples, bias, active):
        y = ops.hyperlayer(
            key, tuples, X.astype(jnp.result_type(bias)), (5,), active=active, num_global=1
        )
        return ((y + bias) ** 2).sum()

    return ops.accumulate_over_ranges(key, loss, ContinuousTuples(*parts), bias, range_size=2)


def through_bcoo(values, indices):
    return ops.from_bcoo(ops.to_bcoo(SparseEntries(indices, values), (3, 4)))


DENSE_MASK = np.arange(12).reshape(3, 4) % 2 > 0

ROWS = [
    *(
        Row(
            f"bound_means, {method}",
            lambda raw, method=method: ops.bound_means(raw, SHAPE, method=method),
            (between(3, 2),),
        )
        for method in ("sigmoid", "clamp", "modulo")
    ),
    Row("invert_means", lambda means: ops.invert_means(means, SHAPE), (MEANS,)),
    Row("bound_variances", lambda raw: ops.bound_variances(raw, SHAPE), (eighths(3),)),
    Row(
        "sample_tuples",
        lambda key, means: ops.sample_tuples(key, means, SHAPE, **SAMPLED),
        (MEANS,),
        keyed=True,
        exact=None,
        dropped=WHOLE,
    ),
    Row(
        "sample_tuples, distinct",
        lambda key, means: ops.sample_tuples(key, means, SHAPE, num_global=3, distinct=True),
        (MEANS,),
        keyed=True,
        exact=None,
        dropped=WHOLE,
    ),
    Row(
        "round_means",
        lambda means: ops.round_means(means, SHAPE),
        (MEANS,),
        dropped=WHOLE,
        exact=None,
    ),
    Row(
        "first_occurrence",
        lambda points: ops.first_occurrence(points, SHAPE),
        (POINTS,),
        exact=None,
        outside={0: SHAPE},
    ),
    *(
        Row(
            f"log_densities, {density}",
            lambda *parts, density=density: ops.log_densities(POINTS, *parts, density=density),
            (MEANS, VARIANCES),
        )
        for density in ops.DENSITIES
    ),
    Row("proportions", lambda *parts: ops.proportions(POINTS, KEPT, *parts), (MEANS, VARIANCES)),
    Row("mix_values", lambda *parts: ops.mix_values(POINTS, KEPT, *parts), TUPLES),
    Row(
        "mix_values, in blocks",
        lambda *parts: ops.mix_values(POINTS, KEPT, *parts, block_size=3),
        TUPLES,
    ),
    Row("mix_nearby", mix_nearby(ops.Locality(1, (2, 5), tolerance=None)), TUPLES),
    Row("mix_nearby, fit_locality", mix_nearby(None), TUPLES),
    *(
        Row(
            f"sparse_multiply, row_layout={row_layout}",
            lambda values, x, indices, row_layout=row_layout: ops.sparse_multiply(
                indices, values, x, (3,), row_layout=row_layout
            ),
            (eighths(6), X, ENTRIES),
            wide=False,
            outside={2: (3, 4)},
        )
        for row_layout in (False, True)
    ),
    Row(
        "stitch, make_template",
        lambda points: ops.stitch(TEMPLATE, points),
        (eighths(4, 3, 1, low=0, high=4).astype(np.int32),),
        exact=None,
        outside={0: (4,)},
        skips={"outside": "it knows no shape; what reads the tuples drops those outside"},
    ),
    Row("relax", relax(**SAMPLED), TUPLES, keyed=True),
    Row(
        "relax, points by density",
        relax(num_global=3, global_from="density", density="laplace"),
        TUPLES,
        keyed=True,
    ),
    Row(
        "relax, in chunks",
        relax(chunk_size=2, wrap=True, num_global=1, density="student_t"),
        TUPLES,
        keyed=True,
    ),
    Row(
        "relax, locality",
        relax(locality=ops.Locality(2, (30,), None), **SAMPLED),
        TUPLES,
        keyed=True,
    ),
    Row(
        "relax, active",
        relax(active=(1, 2), **SAMPLED),
        TUPLES,
        keyed=True,
        exact=False,
        dropped={1: "the first tuple is not among the active ones: it is settled"},
    ),
    Row(
        "settle",
        lambda *parts: ops.settle(ContinuousTuples(*parts), SHAPE),
        TUPLES,
        dropped={1: "a settled tuple has no width"},
    ),
    Row(
        "hyperlayer",
        hyperlayer(sample_probability=0.999, **SAMPLED),
        (*TUPLES, X),
        keyed=True,
        wide=False,
    ),
    Row(
        "hyperlayer, template",
        hyperlayer(template=TEMPLATE, num_global=1),
        (MEANS[:, 1:], VARIANCES[:, 1:], eighths(4, seed=2), X),
        keyed=True,
        wide=False,
    ),
    Row(
        "hyperlayer_hard",
        lambda *args: ops.hyperlayer_hard(ContinuousTuples(*args[:3]), args[3], (5,)),
        (*TUPLES, X),
        dropped={
            1: "a settled tuple has no width",
            3: "no settled tuple reads the first input",
        },
        wide=False,
    ),
    Row(
        "accumulate_over_ranges",
        accumulate,
        (*TUPLES, eighths(5)),
        keyed=True,
        folds=True,
        skips={"lists": "in a tree of parameters a list is a tree"},
        wide=False,
        exact=False,
    ),
    *(
        Row(
            f"segment_{name}",
            lambda values, ids, name=name: getattr(ops, f"segment_{name}")(values, ids, 4),
            (eighths(6, 2, seed=4), SEGMENTS),
            wide=False,
            outside={1: (4,)},
        )
        for name in ("softmax", "normalize", "log_softmax")
    ),
    Row(
        "segment_logsumexp",
        lambda logits, ids: ops.segment_logsumexp(logits, ids, 4)[::3],
        (eighths(6, 2, seed=4), PAIRS),
        outside={1: (4,)},
    ),
    Row("variance_log_mean", ops.variance_log_mean, (VARIANCES,)),
    Row("variance_norm", ops.variance_norm, (VARIANCES,)),
    Row(
        "to_dense",
        lambda values, indices: ops.to_dense(SparseEntries(indices, values), (3, 4)),
        (eighths(6), ENTRIES),
        wide=False,
        outside={1: (3, 4)},
    ),
    Row(
        "from_dense",
        lambda dense: ops.from_dense(dense, mask=jnp.asarray(DENSE_MASK), count=8),
        (eighths(3, 4),),
        wide=False,
        dropped={0: "the first is not kept"},
    ),
    Row(
        "to_bcoo, from_bcoo",
        through_bcoo,
        (eighths(6), ENTRIES),
        wide=False,
        outside={1: (3, 4)},
    ),
    Row(
        "dense_relaxation",
        lambda *parts: ops.dense_relaxation(ContinuousTuples(*parts), SHAPE),
        TUPLES,
    ),
    Row(
        "surplus",
        lambda *parts: ops.surplus(ContinuousTuples(*parts), SHAPE) > 0,
        TUPLES,
        dropped="the row asks who is surplus at all",
        exact=None,
    ),
    *PLACING,
]

EXCEPTIONS = {
    "DENSITIES": "a tuple of names, each of which a row tries",
    "ContinuousTuples": "a type",
    "Locality": "static facts",
    "Nearby": "a type",
    "Relocations": "a type",
    "SparseEntries": "a type",
    "Taps": "a type",
    "Template": "a type",
}

MARKS = {}


class TestOps(Table):
    room = Room(ops, ROWS, EXCEPTIONS, MARKS)
