"""The wrong kind of thing: every argument that is none of what it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from tests.ops.examples import assert_names_itself_and_its_cure

KEY = jax.random.key(0)
TUPLES = (jnp.ones((4, 2)), jnp.ones((4, 2)), jnp.ones(4))
ROWS = [[0, 0]] * 4
POINTS = np.zeros((5, 2), np.int32)
KEPT = np.ones(5, bool)
ENTRIES = (POINTS, np.ones(5, np.float32))
SEGMENTS = np.zeros(5, np.int32)
NEAR = {"shape": (4, 3), "locality": ops.Locality(1, (5,))}


def relax(key=KEY, tuples=TUPLES, **options):
    return ops.relax(key, tuples, (4, 3), **options)


def layer(key=KEY, tuples=TUPLES, x=(1.0, 2.0, 3.0), **options):
    return ops.hyperlayer(key, tuples, list(x) if isinstance(x, tuple) else x, (4,), **options)


def accumulate(key=KEY, loss=lambda *_: 0.0, tuples=TUPLES, **options):
    return ops.accumulate_over_ranges(key, loss, tuples, {}, **({"range_size": 2} | options))


# The call, then a fragment of what was found, and of what was expected.
MISTAKES = {
    "a seed as key": (lambda: layer(key=3), "key=3", "one random key"),
    "a batch of keys": (lambda: relax(jax.random.split(KEY)), "keys of shape (2,)", "one random"),
    "tuples of two parts": (lambda: relax(tuples=TUPLES[:2]), "tuples=", "ContinuousTuples(means"),
    "tuples in a dict": (lambda: ops.settle({"means": 1}, (4, 3)), "tuples=", "ContinuousTuples"),
    "tuples that are None": (lambda: ops.surplus(None, (4, 3)), "tuples=None", "ContinuousTuples"),
    "complex means": (lambda: relax(tuples=(1j * TUPLES[0], *TUPLES[1:])), "complex", "real"),
    "values that are words": (lambda: relax(tuples=(*TUPLES[:2], ["a"] * 4)), "values=", "array"),
    "ragged means": (lambda: ops.round_means([[1, 2], [3]], (4, 3)), "means=", "array"),
    "no x": (lambda: layer(x=None), "x=None", "an array"),
    "x in words": (lambda: ops.hyperlayer_hard(TUPLES, "abc", (4,)), "x='abc'", "an array"),
    "a class as template": (lambda: layer(template=ops.Template), "Template", "an instance of"),
    "rows as template": (lambda: ops.stitch(ROWS, POINTS), "template=", "an instance of Template"),
    "a radius as locality": (lambda: layer(locality=3), "locality=3", "an instance of Locality"),
    "a locality of a float": (lambda: ops.Locality(1.5, (2,)), "radius=1.5", "an int"),
    "one capacity": (lambda: ops.Locality(1, 2), "capacities=2", "a tuple of at least one"),
    "capacities that fall": (lambda: ops.Locality(1, (3, 2)), "(3, 2)", "in ascending order"),
    "a tolerance of NaN": (lambda: ops.Locality(1, (2,), np.nan), "tolerance=nan", "at least 0"),
    "a locality under jit": (
        lambda: jax.jit(lambda *parts: ops.fit_locality(KEY, parts, (4, 3)).radius)(*TUPLES),
        "traced tuples",
        "a static fact",
    ),
    "wrap by a word": (lambda: relax(wrap="no"), "wrap='no'", "True or False"),
    "debug by a number": (lambda: layer(debug=1), "debug=1", "True or False"),
    "a region of another length": (lambda: relax(region=(2,)), "region (2,)", "length 2"),
    "a density that is None": (lambda: relax(density=None), "density=None", "one of 'gaussian'"),
    "a list as density": (lambda: relax(density=["laplace"]), "density=['laplace']", "one of"),
    "a block of a float": (lambda: relax(block_size=2.0), "block_size=2.0", "an int"),
    "an active number": (lambda: relax(active=3), "active=3", "(start, count)"),
    "an active start alone": (lambda: relax(active=(1,)), "active=(1,)", "(start, count)"),
    "an active start of a float": (lambda: relax(active=(1.5, 1)), "active start=1.5", "an int"),
    "an active start before the first": (lambda: relax(active=(-1, 1)), "start=-1", "at least 0"),
    "a probability in words": (
        lambda: layer(sample_probability="half"),
        "sample_probability='half'",
        "one number",
    ),
    "a probability of NaN": (lambda: layer(sample_probability=np.nan), "=nan", "at most 1"),
    "a concrete probability above 1": (
        lambda: layer(sample_probability=jnp.float32(2)),
        "sample_probability=",
        "at most 1",
    ),
    "several probabilities": (
        lambda: jax.eval_shape(lambda p: layer(sample_probability=p), jnp.ones(2)),
        "sample_probability=",
        "one number",
    ),
    "a period of another length": (
        lambda: ops.log_densities(POINTS, *TUPLES[:2], period=(4,)),
        "period=(4,)",
        "length 2",
    ),
    "a period of a number": (
        lambda: ops.mix_values(POINTS, KEPT, *TUPLES, period=8),
        "period=8",
        "a tuple of ints",
    ),
    "a mask of numbers": (
        lambda: ops.proportions(POINTS, np.ones(5), *TUPLES[:2]),
        "mask of dtype",
        "flags",
    ),
    "no mask": (lambda: ops.mix_nearby(POINTS, None, *TUPLES, **NEAR), "mask=None", "flags"),
    "points of fractions": (
        lambda: ops.mix_nearby(POINTS + 0.5, KEPT, *TUPLES, **NEAR),
        "points of dtype float",
        "integers",
    ),
    "a locality of words": (
        lambda: ops.mix_nearby(POINTS, KEPT, *TUPLES, shape=(4, 3), locality="near"),
        "locality='near'",
        "an instance of Locality",
    ),
    "entries of three parts": (lambda: ops.to_dense((*ENTRIES, 1), (4, 3)), "entries=", "Sparse"),
    "indices from the other side": (
        lambda: ops.to_bcoo(ENTRIES[::-1], (4, 3)),
        "indices of shape (5,)",
        "(n, R)",
    ),
    "no BCOO": (lambda: ops.from_bcoo(np.ones((2, 2))), "matrix=", "an instance of BCOO"),
    "layout by a word": (
        lambda: ops.sparse_multiply(*ENTRIES, np.ones(3), (4,), row_layout="no"),
        "row_layout='no'",
        "True or False",
    ),
    "segments by a word": (lambda: ops.segment_softmax(np.ones(5), SEGMENTS, "2"), "='2'", "int"),
    "sorted by a word": (
        lambda: ops.segment_normalize(np.ones(5), SEGMENTS, 2, indices_are_sorted="no"),
        "indices_are_sorted='no'",
        "True or False",
    ),
    "complex logits": (lambda: ops.segment_softmax([1j], [0], 1), "logits of dtype", "real"),
    "a traced template": (
        lambda: jax.jit(lambda rows: ops.make_template(rows, [1], chunk_size=1))(POINTS),
        "rows=",
        "known while tracing",
    ),
    "a row beyond int32": (
        lambda: ops.make_template([[2**33, 0]], [1], chunk_size=1),
        "8589934592",
        "below 2**31",
    ),
    "a template made by hand": (lambda: ops.Template([[-1, 0]], (1,), 1), "-1", "at least 0"),
    "a fraction as column": (
        lambda: ops.make_template(ROWS, [0.7], chunk_size=1),
        "column=0.7",
        "an int from 0 to 1",
    ),
    "columns by name": (
        lambda: ops.make_template(ROWS, "a", chunk_size=1),
        "='a'",
        "a list of at least one column",
    ),
    "a negative scale": (lambda: ops.bound_variances(1, (4,), scale=-1), "scale=-1", "at least 0"),
    "a floor of NaN": (lambda: ops.bound_variances(1, (4,), floor=np.nan), "floor=nan", "number"),
    "a floor by a word": (lambda: ops.bound_variances(1, (4,), reference="no"), "='no'", "True"),
    "a margin of a half": (lambda: ops.invert_means([1], (4,), margin=0.5), "=0.5", "below 0.5"),
    "a negative limit": (lambda: ops.surplus(TUPLES, (4, 3), settled=-1), "settled=-1", "at least"),
    "no gains": (
        lambda: ops.relocate(TUPLES, ENTRIES, None, (4, 3), limit=1),
        "gains=None",
        "an array",
    ),
    "variances in words": (lambda: ops.variance_norm(["a"]), "variances=", "an array"),
    "a seed to accumulate": (lambda: accumulate(key=0), "key=0", "one random key"),
    "rows of different lengths": (
        lambda: accumulate(tuples={"w": np.ones((3, 2), "f"), "b": np.ones(2, "f")}),
        "tuple parameters of shapes",
        "one row per tuple",
    ),
    "no tuples to accumulate": (lambda: accumulate(tuples={}), "shapes []", "one row per tuple"),
    "a parameter that is None": (
        lambda: accumulate(tuples=(None, np.ones(4))),
        "parameter [0]=None",
        "an array of floats",
    ),
    "a loss with an axis": (
        lambda: accumulate(loss=lambda _, tuples, *__: tuples[2]),
        "loss of shape (4,)",
        "one number",
    ),
    "a loss that is a tree": (
        lambda: accumulate(loss=lambda *_: {"loss": jnp.ones(())}),
        "loss={'loss'",
        "an array of floats",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself(call, found, expected):
    assert_names_itself_and_its_cure(call, found, expected, "")


def test_numbers_of_numpy_are_counts():
    two = np.prod([2, 1])
    options = {"num_global": two, "num_local": two, "region": (two, two), "chunk_size": two}
    points = jax.eval_shape(lambda: relax(block_size=two, **options)).indices
    assert points.shape == (4 * 8, 2)
    assert ops.Locality(two, [two]) == ops.Locality(2, (2,))
    jax.eval_shape(lambda: relax(active=(np.int64(2), two)))
    jax.eval_shape(lambda: ops.segment_softmax(np.ones(5), SEGMENTS, two))
