import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import assert_names_itself_and_its_cure

KEY = jax.random.key(0)
X = jnp.ones(3)
INDICES = jnp.zeros((5, 2), jnp.int32)


def tuples(count=4, rank=2, **parts):
    good = {
        "means": jnp.ones((count, rank)),
        "variances": jnp.ones((count, rank)),
        "values": jnp.ones(count),
    }
    return ContinuousTuples(**(good | parts))


def sample(**changes):
    options = {"key": KEY, "means": jnp.ones((4, 2)), "shape": (4, 3)} | changes
    return ops.sample_tuples(
        options.pop("key"), options.pop("means"), options.pop("shape"), **options
    )


def layer(tuples, x=X, out_shape=(4,), key=None, **options):
    return ops.hyperlayer(key, tuples, x, out_shape, **options)


def accumulate(**options):
    return ops.accumulate_over_ranges(KEY, lambda *_: 0.0, tuples(), {}, **options)


TEMPLATE = ops.make_template([[0, 0]] * 4, [1], chunk_size=2)

# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "shape is an int": (
        lambda: sample(shape=8),
        "shape=8",
        "a tuple of ints from 1",
        "static lengths, one per axis",
    ),
    "shape holds a fraction": (
        lambda: sample(shape=(4, 2.5)),
        "shape=(4, 2.5)",
        "a tuple of ints",
        "pass shape",
    ),
    "shape holds a traced size": (
        lambda: jax.jit(lambda size: sample(shape=(size, 3)))(4),
        "shape=(",
        "a tuple of ints",
        "static lengths",
    ),
    "shape has an empty axis": (
        lambda: ops.round_means(jnp.ones((1, 2)), (4, 0)),
        "shape=(4, 0)",
        "ints from 1",
        "pass shape",
    ),
    "means are a single tuple": (
        lambda: sample(means=jnp.ones(2)),
        "means of shape (2,)",
        "(any, 2), (k, r): one row per tuple",
        "reshape means",
    ),
    "means have another rank than shape": (
        lambda: sample(shape=(4, 3, 2)),
        "means of shape (4, 2)",
        "(any, 3)",
        "reshape means",
    ),
    "raw means have another rank than shape": (
        lambda: ops.bound_means(jnp.ones((4, 2)), (4, 3, 2)),
        "raw of shape (4, 2)",
        "a last axis of length 3",
        "or change the shape",
    ),
    "places have another rank than shape": (
        lambda: ops.invert_means(jnp.float32(1), (4,)),
        "means of shape ()",
        "a last axis of length 1",
        "give means a last axis",
    ),
    "rounded means have another rank than shape": (
        lambda: ops.round_means(jnp.ones((4, 1)), (4, 3)),
        "means of shape (4, 1)",
        "a last axis of length 2",
        "give means a last axis",
    ),
    "negative count": (
        lambda: sample(num_global=-1),
        "num_global=-1",
        "an int of at least 0",
        "a static int as num_global",
    ),
    "count is a float": (
        lambda: sample(num_local=2.0, region=(2, 2)),
        "num_local=2.0",
        "an int of at least 0",
        "a static int",
    ),
    "count is traced": (
        lambda: jax.jit(lambda count: sample(num_global=count))(3),
        "num_global=",
        "an int of at least 0",
        "a static int",
    ),
    "no key": (
        lambda: sample(key=None, num_global=2),
        "key=None with num_global=2",
        "a key, because global and local points are random",
        "pass jax.random.key(seed)",
    ),
    "no key for mixed passes": (
        lambda: layer(tuples(), sample_probability=0.5),
        "key=None",
        "a key to draw the kind of pass",
        "pass a key",
    ),
    "no region": (
        lambda: sample(num_local=2),
        "num_local=2 without a region",
        "the window from which local points",
        "one length per axis of shape (4, 3)",
    ),
    "region of another rank": (
        lambda: sample(num_local=2, region=(2,)),
        "region (2,) of length 1",
        "length 2, one entry per axis",
        "one window length per learned axis",
    ),
    "region is an int": (
        lambda: sample(num_local=2, region=2),
        "region=2",
        "a tuple of ints",
        "pass region",
    ),
    "region is empty on an axis": (
        lambda: sample(num_local=2, region=(0, 2)),
        "region=(0, 2)",
        "ints from 1",
        "pass region",
    ),
    "float points": (
        lambda: ops.first_occurrence(jnp.ones((4, 1)), (4,)),
        "points of dtype float32",
        "integers",
        "round_means",
    ),
    "points of another rank": (
        lambda: ops.first_occurrence(INDICES, (4,)),
        "points of shape (5, 2)",
        "(any, 1)",
        "reshape points",
    ),
    "points of another rank than means": (
        lambda: ops.log_densities(INDICES[:, :1], *tuples()[:2]),
        "points of shape (5, 1)",
        "r as in means",
        "reshape points",
    ),
    "mask of another length": (
        lambda: ops.proportions(INDICES, jnp.ones(4, bool), *tuples()[:2]),
        "mask of shape (4,)",
        "(5), one flag per point",
        "reshape mask",
    ),
    "unknown density": (
        lambda: layer(tuples(), density="cauchy"),
        "density='cauchy'",
        "one of 'gaussian', 'laplace', 'student_t'",
        "choose density from these",
    ),
    "one variance per tuple": (
        lambda: layer(tuples(variances=jnp.ones(4))),
        "variances of shape (4,)",
        "(4, 2), the shape of means",
        "reshape variances",
    ),
    "values of another length": (
        lambda: layer(tuples(values=jnp.ones(3))),
        "values of shape (3,)",
        "(4), one value per tuple",
        "reshape values",
    ),
    "values with an extra axis": (
        lambda: ops.mix_values(INDICES, jnp.ones(5, bool), *tuples(values=jnp.ones((4, 1)))),
        "values of shape (4, 1)",
        "(4), one value per tuple",
        "reshape values",
    ),
    "means without columns": (
        lambda: layer(tuples(rank=0)),
        "means of shape (4, 0)",
        "at least one column",
        "learn at least one axis",
    ),
    "tuples of too small a rank": (
        lambda: layer(tuples(rank=1), out_shape=(4, 2)),
        "tuples of rank 1, out_shape (4, 2)",
        "rank 2 + the number of contracted axes",
        "one column per output axis, then one per input axis",
    ),
    "tuples of too large a rank": (
        lambda: layer(tuples(rank=3)),
        "tuples of rank 3",
        "rank 1 + the number of contracted axes",
        "give means one column",
    ),
    "tuples that do not fit the shape": (
        lambda: ops.settle(tuples(rank=2), (4, 3, 2)),
        "tuples of rank 2 for an index space of shape (4, 3, 2)",
        "one column of means per learned axis",
        "change the tuples",
    ),
    "a probability above 1": (
        lambda: layer(tuples(), key=KEY, sample_probability=1.5),
        "sample_probability=1.5",
        "at least 0 and at most 1",
        "change sample_probability",
    ),
    "chunks that do not divide": (
        lambda: layer(tuples(), chunk_size=3),
        "4 tuples in chunks of 3",
        "divides the number of tuples",
        "change the number of tuples or chunk_size",
    ),
    "chunks of nothing": (
        lambda: layer(tuples(), chunk_size=0),
        "chunk_size=0",
        "at least 1",
        "static int as chunk_size",
    ),
    "a chunk size beside the template's": (
        lambda: layer(tuples(rank=1), template=TEMPLATE, chunk_size=4),
        "chunk_size=4 beside a template with chunk_size=2",
        "one chunk size",
        "leave chunk_size out",
    ),
    "a template for other tuples": (
        lambda: layer(tuples(count=2, rank=1), template=TEMPLATE),
        "a template of 4 rows and 2 columns for 2 tuples",
        "one row per tuple",
        "from the same counts",
    ),
    "tuples with the template's rank": (
        lambda: layer(tuples(), template=TEMPLATE),
        "tuples of rank 2 for an index space of shape (3,)",
        "per learned axis",
        "or the template",
    ),
    "a template beyond the output": (
        lambda: layer(tuples(rank=1), template=ops.make_template([[9, 0]] * 4, [1], chunk_size=4)),
        "a template with fixed indices up to [9] on axes [0]",
        "inside shape (4, 3)",
        "change the template's rows",
    ),
    "points that do not fit the template": (
        lambda: ops.stitch(TEMPLATE, jnp.zeros((4, 2, 3), jnp.int32)),
        "points of shape (4, 2, 3)",
        "(4, any, 1)",
        "reshape points",
    ),
    "active tuples in chunks": (
        lambda: ops.relax(None, tuples(), (4, 3), active=(0, 2), chunk_size=2),
        "active tuples together with chunks",
        "one context",
        "leave out active",
    ),
    "active tuples beyond the last, counted by NumPy": (
        lambda: ops.relax(None, tuples(2), (4, 3), active=(np.int64(7), 1)),
        "for 2 tuples",
        "(start, count) of a range that lies inside",
        "lower the start or the count",
    ),
    "active tuples beyond the last": (
        lambda: ops.relax(None, tuples(), (4, 3), active=(3, 2)),
        "active=(3, 2) for 4 tuples",
        "a range that lies inside",
        "lower the start or the count",
    ),
    "ranges that do not divide": (
        lambda: accumulate(range_size=3),
        "4 tuples in ranges of 3",
        "divides the number of tuples",
        "change range_size",
    ),
    "too many cells for the oracle": (
        lambda: ops.dense_relaxation(tuples(), (2**16, 2**16)),
        "shape (65536, 65536)",
        "fewer than 2**31 cells",
        "make it smaller",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="num_globl"):
        layer(tuples(), num_globl=3)
