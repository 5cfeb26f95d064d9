"""Oracle of the slopes that stand for the derivative of a spike."""

import numpy as np

from tests.fuzz.compare import EPS, LOST

OWN = {"sigmoid": 4.0, "superspike": 10.0, "arctan": 2.0, "triangle": 1.0, "boxcar": 1.0}
"""Scales where none is given."""


def psi(surrogate, u, scale):
    """The slope of a spike, and how far off it may be."""
    b = np.asarray(scale, np.float32).astype(np.float64)
    if surrogate == "sigmoid":
        # The rounding of what is exponentiated counts as often as that is large.
        slope = b * np.exp(-np.abs(b * u)) / (1 + np.exp(-np.abs(b * u))) ** 2
        return slope, EPS * (16 + 4 * np.abs(b * u)) * slope + LOST * np.maximum(b, 1)
    if surrogate == "superspike":
        slope = 1 / (1 + b * np.abs(u)) ** 2
    elif surrogate == "arctan":
        slope = b / 2 / (1 + (np.pi / 2 * b * u) ** 2)
    elif surrogate == "triangle":
        slope = np.maximum(0, 1 - np.abs(u) / b) / b
        return slope, 8 * EPS / b + LOST
    else:
        slope = (np.abs(u) < b / 2) / b
    return slope, 16 * EPS * slope + LOST
