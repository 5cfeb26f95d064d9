import jax
import numpy as np
import pytest

from sparse_hyper_jax import conv
from tests.conv.examples import normal
from tests.ops.examples import assert_names_itself_and_its_cure

STEPS, CHANNELS, OUT, REACH = 12, 3, 2, 6
LAGS, PLACED = np.array([4, 0, 4, 9, 2]), np.array([True, True, True, True, False])


@pytest.mark.parametrize("strict", [False, True])
def test_a_dense_kernel_convolves_alike(strict):
    x, weights = normal(2, STEPS, CHANNELS), normal(5, CHANNELS, OUT, seed=1)

    @jax.jit
    def both(x):
        kernel = conv.lag_kernel(weights, LAGS, PLACED, reach=REACH, strict=strict)
        dense = jax.lax.conv_general_dilated(
            x, kernel[::-1], (1,), [(REACH - 1, 0)], dimension_numbers=("NWC", "WIO", "NWC")
        )
        taps = conv.lag_conv(x, weights, LAGS, PLACED, reach=REACH, strict=strict)
        return dense, taps

    np.testing.assert_allclose(*both(x), atol=1e-5)


def test_channels_of_their_own_are_a_depthwise_kernel():
    x, weights = normal(2, STEPS, CHANNELS), normal(4, CHANNELS, seed=1)
    lags = np.random.default_rng(0).integers(-1, REACH + 1, (4, CHANNELS))

    @jax.jit
    def both(x):
        kernel = conv.lag_kernel(weights, lags, reach=REACH)
        dense = jax.lax.conv_general_dilated(
            x,
            kernel[::-1, None],
            (1,),
            [(REACH - 1, 0)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=CHANNELS,
        )
        return dense, conv.lag_conv(x, weights, lags, reach=REACH)

    np.testing.assert_allclose(*both(x), atol=1e-5)


@pytest.mark.parametrize("window", [(5, 3), (4, 6)])
def test_a_dense_window_convolves_alike(window):
    x, weights = normal(2, 7, 6, CHANNELS), normal(5, CHANNELS, OUT, seed=1)
    offsets = np.array([[0, 0], [-2, 1], [0, 0], [1, -3], [1, 1]])
    pads = [(size // 2, size - 1 - size // 2) for size in window]

    @jax.jit
    def both(x):
        kernel = conv.offset_kernel(weights, offsets, PLACED, window=window)
        dense = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return dense, conv.offset_conv(x, weights, offsets, PLACED, window=window)

    np.testing.assert_allclose(*both(x), atol=1e-5)


# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "weights": (lambda: conv.lag_kernel([1.0], [0], reach=2), "(1,)", "(k, C, O)", "reshape"),
    "taps": (lambda: conv.lag_kernel(np.ones((2, 1)), [0], reach=2), "(2, 1)", "(1, 1", "change"),
    "reach": (lambda: conv.lag_kernel(np.ones((1, 1)), [0], reach=0), "reach=0", "1", "reach"),
    "window": (
        lambda: conv.offset_kernel(np.ones((1, 1)), [[0, 0]], window=(2**20, 2**20)),
        "cells",
        "2**31",
        "smaller",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
