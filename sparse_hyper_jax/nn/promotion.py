"""The dtype that input and parameters share, for ``nnx.Linear`` and layers like it."""

from typing import Any, TypeVar, cast

import jax.numpy as jnp

from sparse_hyper_jax.precision import wide_dtype

Arrays = TypeVar("Arrays", bound=tuple[Any, ...])


def promote(arrays: Arrays, /, *, dtype: Any = None, inexact: bool = True) -> Arrays:
    """Cast arrays to one dtype, whatever ``jax_numpy_dtype_promotion`` says.

    What ``nnx.Linear`` takes as ``promote_dtype``. Floats of one dtype stay what they are; others
    meet in float32 or wider, also integers and 16-bit floats, which meet in 16 bits elsewhere.

    Args:
        arrays: input and parameters; None stays None.
        dtype: the one to cast to; None infers it.
        inexact: the dtype is one of floats, as layers here always want it.

    Returns:
        the same numbers.
    """
    given = [array for array in arrays if array is not None]
    if dtype is None:
        kinds = {array.dtype for array in given}
        alike = len(kinds) == 1 and jnp.issubdtype(given[0].dtype, jnp.floating)
        dtype = kinds.pop() if alike else wide_dtype(*given)
    promoted = tuple(None if array is None else array.astype(dtype) for array in arrays)
    return cast(Arrays, promoted)
