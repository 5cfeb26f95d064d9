"""What is expected, how far off it may be, and whether it is."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

EPS = float(np.finfo(np.float32).eps)
LOST = 1e-30
"""What may be lost to underflow: numbers below 1e-38 are 0 on most devices."""


class Near(NamedTuple):
    """A value in float64 and how far off a float32 may be; infinite where it is not compared."""

    value: np.ndarray
    allowance: np.ndarray | float = 0.0


class Verdict(NamedTuple):
    """What is wrong with one output: nothing, if it is empty."""

    words: str
    is_nan: bool = False


RIGHT = Verdict("")


def relative(value, factor=8.0):
    """Expect a value up to a few roundings of itself."""
    return Near(np.asarray(value), factor * EPS * np.abs(value) + LOST)


def judge(got, near):
    """Compare one output with what is expected.

    Args:
        got: an array of any dtype.
        near: what is expected, or None where only a NaN or an infinity is wrong.
    """
    if not jnp.issubdtype(got.dtype, jnp.inexact):
        if near is None or np.array_equal(got, near.value):
            return RIGHT
        return Verdict(f"found {brief(got)}; expected {brief(near.value)}")
    found = np.asarray(got, np.float64)
    if near is None:
        wrong = ~np.isfinite(found)
        return Verdict(f"found {brief(got)}; finite", bool(wrong.any())) if wrong.any() else RIGHT
    value = np.asarray(near.value, np.float64)
    if found.shape != value.shape:
        return Verdict(f"found shape {found.shape}; expected {value.shape}")
    limits = jnp.finfo(got.dtype)
    room = np.broadcast_to(near.allowance, value.shape)
    if limits.bits < 32:
        room = room + float(limits.eps) * np.abs(value) + 2 * float(limits.smallest_subnormal)
    with np.errstate(all="ignore"):
        far = ~(np.abs(found - value) <= room) & ~(found == value)
        # What a dtype cannot hold may be infinite in it; what is not compared has to be finite.
        known = np.where(np.isinf(room), 0, room)
        most = np.abs(value) + known >= 0.99 * float(limits.max)
        far = np.where(np.isinf(found) & (found != value), ~most, far)
    if not far.any():
        return RIGHT
    at = np.unravel_index(np.argmax(far), far.shape)
    where = [int(n) for n in at]
    words = f"at {where} found {found[at]}; expected {value[at]} within {room[at]:.2g}"
    return Verdict(words, bool(np.isnan(found[far]).any()))


def brief(array):
    """An array in one line."""
    return np.array2string(np.asarray(array), threshold=40, edgeitems=6).replace("\n", "")
