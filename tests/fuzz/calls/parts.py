"""Arguments that calls of several rooms share."""

import numpy as np

from sparse_hyper_jax.types import ContinuousTuples, SparseEntries
from tests.fuzz import draw
from tests.fuzz.wrong import count, flag, shape, thing

SHAPE = (5, 4)


def tuples_of(rng, k, sizes=SHAPE):
    return ContinuousTuples(
        draw.means(rng, k, sizes),
        (10 ** rng.uniform(-2, 2, (k, len(sizes)))).astype(np.float32),
        rng.normal(size=k).astype(np.float32),
    )


def tuples(rng, k, sizes=SHAPE, *, values_matter=True):
    """Continuous tuples, and what is none of these."""
    good = tuples_of(rng, k, sizes)
    means, variances, values = good
    bad = [
        good._replace(means=means[0]),
        good._replace(means=np.concatenate([means, means[:, :1]], 1)),
        good._replace(variances=variances[:, 0]),
        good._replace(variances=variances[1:]),
        good._replace(means="means"),
        good._replace(means=means * 1j),
        good._replace(variances={"a": variances}),
        (means, variances),
        means,
        ContinuousTuples,
    ]
    if values_matter:
        bad += [good._replace(values=one) for one in (values[1:], values[:, None], None, "v")]
    return thing(good, *bad, family="tuples")


def entries(rng, n, sizes=SHAPE):
    """Sparse entries, and what is none of these."""
    good = SparseEntries(draw.cells(rng, n, sizes), rng.normal(size=n).astype(np.float32))
    bad = [
        good._replace(indices=good.indices[0]),
        good._replace(indices=good.indices[:, :1]),
        good._replace(indices=good.indices * 1.0),
        good._replace(indices=None),
        good._replace(values=good.values[1:]),
        good._replace(values="values"),
        good._replace(values=None),
        (good.indices,),
        good.indices,
        SparseEntries,
    ]
    return thing(good, *bad, family="entries")


def reals(rng, *size):
    return rng.normal(size=size).astype(np.float32)


def sampling(rank=2):
    return {
        "num_global": count(2),
        "num_local": count(1),
        "region": shape((3, 2)[:rank]),
        "wrap": flag(False),
        "debug": flag(False),
    }
