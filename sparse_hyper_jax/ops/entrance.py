"""Continuous tuples at the entrance of a public function: cast and checked here, and only here.

What lies behind trusts them. So does it trust the options of a :class:`~.plan.Plan`.
"""

from collections.abc import Iterable

import jax

from sparse_hyper_jax import checks
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import ContinuousTuples


def enter_tuples(tuples: Iterable[jax.Array]) -> ContinuousTuples:
    """Cast each part of continuous tuples to at least float32, and check that they agree.

    Args:
        tuples: means ``(k, r)``, variances ``(k, r)``, values ``(k,)``; anything that
            ``jnp.asarray`` takes.

    Returns:
        the same numbers.

    Raises:
        ValueError: as :func:`~sparse_hyper_jax.checks.check_tuples`.
    """
    # Cast first: JAX is about to refuse lists where it asks for shapes.
    tuples = ContinuousTuples(*map(at_least_float32, tuples))
    checks.check_tuples(*tuples)
    return tuples
