"""Bytes of a value, and operations of an equation: whole numbers, from shapes alone."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

FREE = frozenset(
    {
        *("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "iota", "copy"),
        *("convert_element_type", "bitcast_convert_type", "stop_gradient", "pvary", "pcast"),
        *("copy_p", "real", "imag", "random_wrap", "random_unwrap"),
    }
)
"""Views, and what a compiler makes of them: computed again wherever they are read."""


def bytes_of(aval: Any) -> int:
    """Bytes of an array; a random key counts none."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended) or dtype == jax.dtypes.float0:
        return 0
    return math.prod(aval.shape) * dtype.itemsize


def bodies_of(equation: Any) -> Iterator[Any]:
    """Give the bodies that an equation holds: of a loop, its branches, what it calls."""
    for value in equation.params.values():
        for body in value if isinstance(value, tuple | list) else (value,):
            if hasattr(body, "eqns"):
                yield body


def is_free(equation: Any) -> bool:
    """Whether an equation only looks at one value, or at none, in another way."""
    arrays = [atom for atom in equation.invars if getattr(atom.aval, "shape", ()) != ()]
    return equation.primitive.name in FREE and len(arrays) <= 1


def cost_of(equation: Any) -> int:
    """Count the operations of an equation; a loop of unknown length counts as one round."""
    inner = [sum(map(cost_of, body.eqns)) for body in bodies_of(equation)]
    if equation.primitive.name == "scan":
        return equation.params["length"] * sum(inner)
    if inner:
        return max(inner) if equation.primitive.name == "cond" else sum(inner)
    if is_free(equation):
        return 0
    return sum(_size(var.aval) for var in equation.outvars) * _cost_per_entry(equation)


def _cost_per_entry(equation: Any) -> int:
    """Count the operations behind one entry of the result."""
    name, shapes = equation.primitive.name, [atom.aval for atom in equation.invars]
    read = max(map(_size, shapes), default=1)
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * math.prod(shapes[0].shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        features = shapes[1].shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2 * _size(shapes[1]) // max(features, 1)
    if name == "sort":
        return read.bit_length()
    if name.startswith(("reduce_", "arg")):
        return max(1, read // max(1, _size(equation.outvars[0].aval)))
    return 1


def _size(aval: Any) -> int:
    return math.prod(getattr(aval, "shape", ()))
