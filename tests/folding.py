"""Cases that are computed in one compiled program, and tested one by one.

Ten cases in one program compile in a fraction of the time of ten programs. A test asks for the
result of its case, the first that asks computes all, and with `pytest --full` every case is a
program of its own:

    @folded
    def sums():
        return {(size, dtype): (jnp.sum, np.ones(size, dtype)) for size, dtype in CASES}

    @pytest.mark.parametrize(("size", "dtype"), CASES)
    def test_sum_of_ones(size, dtype):
        assert sums(size, dtype) == size
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# With `pytest --full` every case is a program of its own.
apart = False

# For each case a function and its arguments.
Table = dict[tuple, tuple]


def folded(programs: Callable[[], Table]) -> Callable[..., Any]:
    """Compute all cases of a table, one after the other, in one program."""

    def together(table: Table) -> dict[tuple, Any]:
        functions = [row[0] for row in table.values()]

        def run(arguments):
            return [one(*its) for one, its in zip(functions, arguments, strict=True)]

        results = jax.jit(run)([row[1:] for row in table.values()])
        return dict(zip(table, results, strict=True))

    return _looked_up(programs, together)


def stacked(programs: Callable[[], Table]) -> Callable[..., Any]:
    """Compute all cases of a table, batching those of one function and equal shapes by `vmap`."""

    def together(table: Table) -> dict[tuple, Any]:
        groups = defaultdict(list)
        for case, (function, *arguments) in table.items():
            leaves, tree = jax.tree.flatten(arguments)
            kinds = tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
            groups[function, tree, kinds].append((case, arguments))
        results = {}
        for (function, *_), members in groups.items():
            batch = jax.tree.map(_stack, *(arguments for _, arguments in members))
            out = jax.device_get(jax.jit(jax.vmap(lambda its, f=function: f(*its)))(batch))
            for number, (case, _) in enumerate(members):
                results[case] = jax.tree.map(lambda leaf, at=number: leaf[at], out)
        return results

    return _looked_up(programs, together)


def _stack(*leaves: Any) -> Any:
    keys = isinstance(leaves[0], jax.Array) and jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key)
    return (jnp if keys else np).stack(leaves)


def _looked_up(programs: Callable[[], Table], together: Callable[[Table], dict]) -> Callable:
    table = cache(programs)

    @cache
    def results() -> dict[tuple, Any]:
        try:
            return together(table())
        except Exception:  # whatever a case raises, its own test shall show it: all run alone
            return {}

    @cache
    def alone(*case: Any) -> Any:
        function, *arguments = table()[case]
        return jax.jit(function)(*arguments)

    def result(*case: Any) -> Any:
        found = {} if apart else results()
        return found[case] if case in found else alone(*case)

    return result
