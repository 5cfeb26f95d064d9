"""One table of public functions: what tests/test_transforms.py runs every transform over.

Each room has a list of rows. A function takes float arrays only; keys, points and sizes are fixed
in it. Arguments are multiples of 1/8 below 16, so that bfloat16 holds them exactly, and lie away
from points where a function jumps (a mean on an integer) or has no derivative.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import backprop, estimators, glimpse, ops, sort
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries


class Row(NamedTuple):
    """A public function with example arguments.

    Attributes:
        name: the public name, then what is special about this row: ``"relax, in chunks"``.
        function: float arrays to a pytree of arrays.
        arguments: numpy float32 arrays.
        wide: the float outputs are float32 also for 16-bit arguments; else they have the dtype of
            the last argument.
        exact: automatic derivatives are those of the values, up to second order; false where a
            gradient is stopped by design, None where all outputs are integers or flags.
    """

    name: str
    function: Callable[..., object]
    arguments: tuple[np.ndarray, ...]
    wide: bool = True
    exact: bool | None = True


def eighths(*shape, low=-2.0, high=2.0, seed=0):
    generator = np.random.default_rng(seed)
    grid = np.arange(round(low * 8), round(high * 8))
    return np.asarray(generator.choice(grid, shape) / 8, np.float32)


def between(*shape, seed=0):
    """Means inside a (5, 4) index space, an eighth or more away from integers and halves."""
    generator = np.random.default_rng(seed)
    cells = generator.integers(0, [4, 3][: shape[-1]], shape)
    return np.asarray(cells + generator.choice([1, 2, 3, 5, 6, 7], shape) / 8, np.float32)


SHAPE = (5, 4)
MEANS = between(4, 2)
VARIANCES = eighths(4, 2, low=0.5, high=3.0, seed=1)
VALUES = eighths(4, seed=2)
TUPLES = (MEANS, VARIANCES, VALUES)
X = eighths(4, seed=3)
POINTS = np.array([[0, 0], [1, 2], [4, 3], [1, 2], [2, 2], [3, 0]], np.int32)
KEPT = np.array([True, True, True, False, True, True])
ENTRIES = np.array([[0, 0], [0, 3], [1, 1], [1, 2], [2, 2], [2, 2]], np.int32)
SEGMENTS = np.array([0, 2, 2, 0, 3, 2], np.int32)
SAMPLED = {"num_global": 2, "num_local": 1, "region": (3, 2)}
TEMPLATE = ops.make_template([[0, 0], [0, 0], [3, 0], [3, 0]], [1], chunk_size=2)


def key():
    return jax.random.key(0)


def mix_nearby(locality):
    def values(*parts):
        chosen = fitted() if locality is None else locality
        return ops.mix_nearby(POINTS, KEPT, *parts, shape=SHAPE, locality=chosen).values

    return values


@cache
def fitted():
    # It looks at numbers to choose static facts, also where these are about to be traced.
    with jax.ensure_compile_time_eval():
        return ops.fit_locality(None, ContinuousTuples(*TUPLES), SHAPE)


def relax(**options):
    return lambda *parts: ops.relax(key(), ContinuousTuples(*parts), SHAPE, **options)


def hyperlayer(**options):
    return lambda *args: ops.hyperlayer(
        key(), ContinuousTuples(*args[:3]), args[3], (5,), **options
    )


def accumulate(*arguments):
    *parts, bias = arguments

    def loss(key, tuples, bias, active):
        y = ops.hyperlayer(key, tuples, X.astype(bias.dtype), (5,), active=active)
        return ((y + bias) ** 2).sum()

    return ops.accumulate_over_ranges(
        key(), loss, ContinuousTuples(*parts), bias, num_tuples=4, range_size=2
    )


def relocate(means, variances, values, gains):
    tuples = ContinuousTuples(means, variances, values)
    entries = SparseEntries(jnp.asarray(POINTS), jnp.asarray(gains))
    return ops.relocate(tuples, entries, gains, SHAPE, limit=2)


def through_bcoo(values):
    return ops.from_bcoo(ops.to_bcoo(SparseEntries(jnp.asarray(ENTRIES), values), (3, 4)))


def as_int(array):
    return jnp.asarray(array, jnp.int32)


OPS = [
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
        lambda means: ops.sample_tuples(key(), means, SHAPE, **SAMPLED),
        (MEANS,),
        exact=None,
    ),
    Row("round_means", lambda means: ops.round_means(means, SHAPE), (MEANS,), exact=None),
    Row(
        "first_occurrence",
        lambda points: ops.first_occurrence(as_int(points), SHAPE),
        (POINTS.astype(np.float32),),
        exact=None,
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
            lambda values, x, row_layout=row_layout: ops.sparse_multiply(
                ENTRIES, values, x, (3,), row_layout=row_layout
            ),
            (eighths(6), X),
            wide=False,
        )
        for row_layout in (False, True)
    ),
    Row(
        "stitch, make_template",
        lambda points: ops.stitch(TEMPLATE, as_int(points)),
        (eighths(4, 3, 1, low=0, high=4),),
        exact=None,
    ),
    Row("relax", relax(**SAMPLED), TUPLES),
    Row("relax, in chunks", relax(chunk_size=2, wrap=True, density="student_t"), TUPLES),
    Row("relax, locality", relax(locality=ops.Locality(2, (30,), None), **SAMPLED), TUPLES),
    Row("relax, active", relax(active=(1, 2)), TUPLES, exact=False),
    Row("settle", lambda *parts: ops.settle(ContinuousTuples(*parts), SHAPE), TUPLES),
    Row("hyperlayer", hyperlayer(sample_probability=0.999), (*TUPLES, X), wide=False),
    Row(
        "hyperlayer, template",
        hyperlayer(template=TEMPLATE),
        (MEANS[:, 1:], VARIANCES[:, 1:], VALUES, X),
        wide=False,
    ),
    Row(
        "hyperlayer_hard",
        lambda *args: ops.hyperlayer_hard(ContinuousTuples(*args[:3]), args[3], (5,)),
        (*TUPLES, X),
        wide=False,
    ),
    Row("accumulate_over_ranges", accumulate, (*TUPLES, eighths(5)), wide=False, exact=False),
    *(
        Row(
            f"segment_{name}",
            lambda values, name=name: getattr(ops, f"segment_{name}")(values, SEGMENTS, 4),
            (eighths(6, 2, seed=4),),
            wide=False,
        )
        for name in ("softmax", "normalize")
    ),
    Row("variance_log_mean", ops.variance_log_mean, (VARIANCES,)),
    Row("variance_norm", ops.variance_norm, (VARIANCES,)),
    Row(
        "to_dense",
        lambda values: ops.to_dense(SparseEntries(ENTRIES, values), (3, 4)),
        (eighths(6),),
        wide=False,
    ),
    Row("to_bcoo, from_bcoo", through_bcoo, (eighths(6),), wide=False),
    Row(
        "dense_relaxation",
        lambda *parts: ops.dense_relaxation(ContinuousTuples(*parts), SHAPE),
        TUPLES,
    ),
    Row(
        "surplus",
        lambda *parts: ops.surplus(ContinuousTuples(*parts), SHAPE) > 0,
        TUPLES,
        exact=None,
    ),
    Row("relocate", relocate, (*TUPLES, eighths(6)), exact=None),
]

READ = SAMPLED | {"num_local": 2}
PLACES = between(2, 3, 2)
WIDE = eighths(2, low=0.5, high=3.0)


def read(draws):
    return lambda *arguments: glimpse.extract(key(), *arguments, draws=draws, **READ)


GLIMPSE = [
    *(
        Row(
            f"{name}_corners",
            lambda raw, grid=grid: grid.corners(raw, SHAPE),
            (eighths(grid.count),),
        )
        for name, grid in glimpse.GRIDS.items()
    ),
    Row(
        "affine_corners, bounded=False",
        lambda raw: glimpse.affine_corners(raw, SHAPE, bounded=False),
        (eighths(6),),
    ),
    Row(
        "grid_means, upright_means",
        lambda four: (glimpse.grid_means(four, (3, 2)), glimpse.upright_means(four, (1, 4))),
        (eighths(4, 2),),
    ),
    Row("extract", read("glimpse"), (eighths(*SHAPE), PLACES, WIDE)),
    Row(
        "extract, draws=pixel",
        read("pixel"),
        (eighths(*SHAPE, 2), PLACES, eighths(2, 3, 2, low=0.5, high=3.0)),
    ),
    Row("extract_hard", glimpse.extract_hard, (eighths(*SHAPE, 2), PLACES), wide=False),
    Row(
        "extract_upright",
        glimpse.extract_upright,
        (eighths(*SHAPE, 2), PLACES[0, :, 0], PLACES[1, :, 1], WIDE),
    ),
    Row("bilinear", glimpse.bilinear, (eighths(*SHAPE, 2), PLACES + np.float32([-1, 2]))),
]

SORT: list[Row] = []

ESTIMATORS: list[Row] = []

NN: list[Row] = []

ROWS = [*OPS, *GLIMPSE, *SORT, *ESTIMATORS, *NN]


# Functions that draw random numbers, each called with a fresh key.
KEYED_OPS: dict[str, Callable[[jax.Array], object]] = {
    "sample_tuples": lambda key: ops.sample_tuples(key, MEANS, SHAPE, **SAMPLED),
    "fit_locality": lambda key: ops.fit_locality(key, CELLS, SHAPE, **SAMPLED),
    "relax": lambda key: ops.relax(key, TUPLES, SHAPE, **SAMPLED),
    "relax, in chunks": lambda key: ops.relax(key, TUPLES, SHAPE, chunk_size=2, **SAMPLED),
    "hyperlayer": lambda key: ops.hyperlayer(
        key, ContinuousTuples(*TUPLES), X, (5,), sample_probability=0.5, **SAMPLED
    ),
    "accumulate_over_ranges": lambda key: ops.accumulate_over_ranges(
        key,
        lambda key, tuples, x, active: ops.hyperlayer(
            key, tuples, x, (5,), active=active, num_global=1
        ).sum(),
        ContinuousTuples(*map(jnp.asarray, TUPLES)),
        jnp.asarray(X),
        num_tuples=4,
        range_size=2,
    ),
}

KEYED_GLIMPSE: dict[str, Callable[[jax.Array], object]] = {
    f"extract, draws={draws}": lambda key, draws=draws: glimpse.extract(
        key, jnp.ones(SHAPE), PLACES, WIDE, draws=draws, **READ
    )
    for draws in glimpse.DRAWS
}

KEYED_SORT: dict[str, Callable[[jax.Array], object]] = {
    "draw_sort": lambda key: sort.draw_sort(key, jnp.arange(5.0), jnp.arange(5)),
    "half_split": lambda key: sort.half_split(key, jnp.arange(9.0), jnp.ones(9), num_near=2),
    "quicksort": lambda key: sort.quicksort(key, jnp.arange(9.0), jnp.ones(9), num_near=2),
}

LOGITS = jnp.array([[0.3, -0.5], [1.0, 0.2]])
CELLS = ContinuousTuples(*map(jnp.asarray, TUPLES))


def table_or_rows(z):
    """A loss of classes (2,) or of rows (2, 2), whichever an estimator passes."""
    return jnp.sum(jnp.sin(1.0 + z))


KEYED_ESTIMATORS: dict[str, Callable[[jax.Array], object]] = {
    **{
        f"expectation, {name}": lambda key, name=name: estimators.expectation(
            key, LOGITS, table_or_rows, estimator=name
        )
        for name in estimators.ESTIMATORS
        if name not in ("uninformed_subset", "informed_subset", "enumeration")
    },
    "cell_choices": lambda key: estimators.cell_choices(key, CELLS, SHAPE, **SAMPLED),
    "perturb_given_winner": lambda key: estimators.perturb_given_winner(
        key, jax.nn.log_softmax(LOGITS), jnp.array([1, 0])
    ),
    "sample_cells": lambda key: estimators.sample_cells(key, CELLS.means, CELLS.variances, SHAPE),
    "sample_without_replacement": lambda key: estimators.sample_without_replacement(key, LOGITS, 3),
    "cell_expectation": lambda key: estimators.cell_expectation(
        key, CELLS.means, CELLS.variances, SHAPE, jnp.sum
    ),
    "sparse_mixer": lambda key: estimators.sparse_mixer(key, LOGITS),
}


def backward(layer):
    """The gradient with respect to an input: the key of a backward pass is used there only."""
    return jax.grad(lambda y: (layer(y) ** 2).sum())(jnp.asarray(MEANS))


def fed_back(transformation):
    updates = jnp.asarray(MEANS)
    return transformation.update(updates, transformation.init(updates))[0]


KEYED_BACKPROP: dict[str, Callable[[jax.Array], object]] = {
    "sparsify": lambda key: backprop.sparsify(key, jnp.asarray(MEANS), backprop.RandomK(1)),
    "error_feedback": lambda key: fed_back(
        backprop.error_feedback(backprop.RandomK(1, rescale=False), key=key)
    ),
    "sparsify_cotangent": lambda key: backward(
        lambda y: backprop.sparsify_cotangent(key, y, sparsifier=backprop.UnifiedRandomK(1))
    ),
    "sparse_dense": lambda key: backward(
        lambda y: backprop.sparse_dense(
            key, y, jnp.ones((3, 2)), sparsifier=backprop.ImportanceSampling(1)
        )
    ),
}

KEYED_NN: dict[str, Callable[[jax.Array], object]] = {}

KEYED = {
    **KEYED_OPS,
    **KEYED_GLIMPSE,
    **KEYED_SORT,
    **KEYED_ESTIMATORS,
    **KEYED_BACKPROP,
    **KEYED_NN,
}
