"""Bytes that live at every moment of a traced gradient: nothing is compiled.

Equations run in their order, and a value is freed after its last reader. Compilers fuse, so they
need less: up to a sixth less for plain backpropagation, a tenth for segments.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal

from sparse_hyper_jax.remat.costs import bodies_of, bytes_of, is_free


def live_curve(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> list[int]:
    """Give the bytes of temporaries while each equation of a function runs.

    Args:
        fn: a function, for instance the gradient of another.
        *args: its arguments, or their shapes and dtypes.
        **kwargs: more of them.

    Returns:
        bytes beyond arguments and results, one number per equation; bodies count where they run.
    """
    return _curve_of(jax.make_jaxpr(lambda args, kwargs: fn(*args, **kwargs))(args, kwargs).jaxpr)


def live_peak(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Give the largest number of bytes of temporaries; see :func:`live_curve`."""
    return max(live_curve(fn, *args, **kwargs), default=0)


def _curve_of(jaxpr: Any) -> list[int]:
    """Follow the equations of a body, and the bodies in it."""
    root: dict[Any, Any] = {}  # a view lives in the array that it looks at
    last: dict[Any, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        reads = [root.get(var, var) for var in equation.invars if not isinstance(var, Literal)]
        last.update(dict.fromkeys(reads, number))
        if is_free(equation):
            root.update(dict.fromkeys(equation.outvars, reads[0] if reads else None))
    given = {root.get(var, var) for var in jaxpr.outvars if not isinstance(var, Literal)}
    ends: dict[int, int] = {}
    now, curve = 0, []
    for number, equation in enumerate(jaxpr.eqns):
        inner = max(
            map(_curve_of, bodies_of(equation)), key=lambda one: max(one, default=0), default=[]
        )
        curve += [now + one for one in inner]
        for var in equation.outvars:
            if var in root or var in given:
                continue
            size = bytes_of(var.aval)
            now += size
            end = last.get(var, number)
            ends[end] = ends.get(end, 0) + size
        curve.append(now)
        now -= ends.pop(number, 0)
    return curve
