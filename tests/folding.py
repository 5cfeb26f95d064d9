"""Cases that are computed in one compiled program, and tested one by one."""

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import jax

# With `pytest --full` every case is a program of its own.
apart = False


def folded(programs: Callable[[], dict[Hashable, tuple]]) -> Callable[..., Any]:
    """Turn a table of programs into a function that looks up the result of one.

    `programs()` gives for each case a function and its arguments. Ten cases in one program compile
    in a fraction of the time of ten programs, so the first that is asked for computes all. Where
    that fails each is computed alone, so that the case to blame fails and no other.

        @folded
        def sums():
            return {(size, dtype): (jnp.sum, np.ones(size, dtype)) for size, dtype in CASES}

        @pytest.mark.parametrize(("size", "dtype"), CASES)
        def test_sum_of_ones(size, dtype):
            assert sums(size, dtype) == size
    """
    table = cache(programs)

    @cache
    def alone(*case):
        function, *arguments = table()[case]
        return jax.jit(function)(*arguments)

    @cache
    def together():
        functions, arguments = zip(*((row[0], row[1:]) for row in table().values()), strict=True)

        def run(arguments):
            return [one(*its) for one, its in zip(functions, arguments, strict=True)]

        try:
            return dict(zip(table(), jax.jit(run)(arguments), strict=True))
        except Exception:  # whatever a case raises, the test of that case shall show it
            return {}

    def result(*case):
        found = {} if apart else together()
        return found[case] if case in found else alone(*case)

    return result
