"""Precision of computation: sums, distances and index arithmetic need at least float32.

A bfloat16 mean of 1000.5 would be rounded to a multiple of 4, and a float16 sum of ones stops
growing at 2048.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def at_least_float32(array: Any) -> jax.Array:
    """Return ``array`` as floats of 32 bits or more; see :func:`wide_dtype`.

    Args:
        array: anything that ``jnp.asarray`` takes.

    Returns:
        the same numbers in the same shape.

    Example:
        >>> from sparse_hyper_jax.precision import at_least_float32
        >>> at_least_float32(jnp.ones(2, jnp.bfloat16)).dtype, at_least_float32([1, 2]).dtype
        (dtype('float32'), dtype('float32'))
    """
    array = jnp.asarray(array)
    return array.astype(wide_dtype(array))


def wide_dtype(*arrays: Any) -> np.dtype:
    """Give the dtype in which to compute with arrays: at least float32, and no narrower than they.

    Integers and booleans count as float32 whatever stands beside them: ``jnp.promote_types`` would
    make bfloat16 of int32 and bfloat16, and refuses 8-bit floats. Nothing here depends on
    ``jax_numpy_dtype_promotion``, not even on ``"strict"``.

    Args:
        *arrays: arrays, dtypes, or anything with a dtype; at least one.

    Returns:
        float32 or float64, or their complex counterparts.

    Example:
        >>> from sparse_hyper_jax.precision import wide_dtype
        >>> wide_dtype(jnp.ones(2, jnp.bfloat16), jnp.arange(2))
        dtype('float32')
    """
    return np.result_type(*map(_widened, arrays))


def float_dtype(array: jax.Array) -> np.dtype:
    """Give the dtype of an array of floats: its own, but whole numbers would round shares to 0.

    Args:
        array: any array of real numbers.

    Returns:
        its dtype, or float32 for integers and booleans.

    Example:
        >>> from sparse_hyper_jax.precision import float_dtype
        >>> str(float_dtype(jnp.ones(2, jnp.bfloat16))), str(float_dtype(jnp.arange(2)))
        ('bfloat16', 'float32')
    """
    return array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else wide_dtype(array)


def sum_dtype(*arrays: Any) -> np.dtype:
    """Give the dtype in which to add up entries, which stay exact if all of them are whole numbers.

    Args:
        *arrays: arrays, dtypes, or anything with a dtype; at least one.

    Returns:
        an integer dtype of 32 bits or more if all are integers or booleans, else as
        :func:`wide_dtype`.

    Example:
        >>> from sparse_hyper_jax.precision import sum_dtype
        >>> sum_dtype(jnp.ones(2, jnp.int8)), sum_dtype(jnp.ones(2, jnp.float16))
        (dtype('int32'), dtype('float32'))
    """
    kinds = [jnp.result_type(array) for array in arrays]
    if any(jnp.issubdtype(kind, jnp.inexact) for kind in kinds):
        return wide_dtype(*kinds)
    wide = [kind if kind.itemsize >= 4 else np.dtype(np.int32) for kind in kinds]
    return jax.dtypes.canonicalize_dtype(np.result_type(*wide))


def _widened(array: Any) -> np.dtype:
    dtype = jnp.result_type(array)
    # Eight bytes: float64 or complex64, the narrowest of its kind that is not below float32.
    if jnp.issubdtype(dtype, jnp.inexact) and (dtype == jnp.float32 or dtype.itemsize >= 8):
        return dtype
    return np.dtype(np.float32)
