from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import conv
from sparse_hyper_jax.conv.spectra import smooth_length
from tests.conv.examples import normal
from tests.folding import folded
from tests.ops.examples import assert_names_itself_and_its_cure

STEPS, CHANNELS, OUT = 9, 3, 2
X, D = normal(2, STEPS, CHANNELS), normal(2, STEPS, OUT, seed=1)
OWN = normal(2, STEPS, CHANNELS, seed=2)
# Reach, sharing, strict, whether there is a batch.
CASES = [
    *((reach, sharing, False, True) for reach in (1, 5, 9, 14) for sharing in conv.SHARINGS),
    *((5, sharing, True, True) for sharing in conv.SHARINGS),
    *((5, sharing, False, False) for sharing in conv.SHARINGS),
]


def arguments(sharing, batch):
    x, d = X, D if sharing == "shared" else OWN
    return (x, d) if batch else (x[0], d[0])


def naive_gains(x, cotangent, reach, sharing, strict):
    x, cotangent = (np.float64(part).reshape(-1, *part.shape[-2:]) for part in (x, cotangent))
    letters = "bti,bto->io" if sharing == "shared" else "bti,bti->i"
    rows = []
    for lag in range(reach):
        back = np.zeros_like(x)
        back[:, lag:] = x[:, : max(0, x.shape[1] - lag)]
        rows.append(np.einsum(letters, back, cotangent) * (lag > 0 or not strict))
    return np.stack(rows)


@folded
def gained():
    return {
        case: (
            partial(conv.lag_gains, reach=case[0], sharing=case[1], strict=case[2]),
            *arguments(case[1], case[3]),
        )
        for case in CASES
    }


@pytest.mark.parametrize(("reach", "sharing", "strict", "batch"), CASES)
def test_gains_are_correlations(reach, sharing, strict, batch):
    found = gained(reach, sharing, strict, batch)
    expected = naive_gains(*arguments(sharing, batch), reach, sharing, strict)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("sharing", conv.SHARINGS)
def test_gains_are_the_slope_of_a_tap_that_is_not_there(sharing):
    """Of a loss that is no quadratic, at lags with and without a tap: by finite differences."""
    lags, reach, rate = np.array([2, 0]), 7, 1e-4
    weights = np.float64(normal(2, CHANNELS, OUT, seed=3))
    weights = weights if sharing == "shared" else weights[..., 0]

    def loss(y):
        return jnp.sum(jnp.sin(y) + y**3)

    with jax.enable_x64(True):
        x = np.float64(X)
        # One more tap, of weights that are almost 0, for each lag and each of its weights.
        virtual = rate * np.eye(weights[0].size).reshape(-1, *weights.shape[1:])

        def slope(lag, extra):
            ends = []
            for sign in (1, -1):
                every = jnp.concatenate([weights, sign * extra[None]])
                both = jnp.concatenate([lags, lag[None]])
                ends.append(loss(conv.lag_conv(x, every, both)))
            return (ends[0] - ends[1]) / (2 * rate)

        @jax.jit
        def both(lags_tried, virtual):
            cotangent = jax.grad(loss)(conv.lag_conv(x, weights, lags))
            each = jax.vmap(jax.vmap(slope, (None, 0)), (0, None))
            gains = conv.lag_gains(x, cotangent, reach, sharing=sharing)
            return gains, each(lags_tried, virtual)

        found, expected = both(np.arange(reach), virtual)
    np.testing.assert_allclose(found.reshape(reach, -1), expected, rtol=1e-5, atol=1e-5)


autocovariance = jax.jit(conv.autocovariance, static_argnums=1)


def test_autocovariance_is_that_of_all_pairs():
    x = X + 3.0
    centred = x - x.mean((0, 1))
    expected = [
        sum((centred[:, lag:] * centred[:, : STEPS - lag]).ravel()) / x.size for lag in range(STEPS)
    ]
    found = autocovariance(x, 12)
    np.testing.assert_allclose(found[:STEPS], expected, atol=1e-5)
    np.testing.assert_array_equal(found[STEPS:], 0)


@pytest.mark.parametrize("reach", [STEPS, 40])
def test_its_matrix_has_no_negative_eigenvalue(reach):
    found = np.asarray(autocovariance(X, reach), np.float64)
    lags = np.abs(np.arange(reach)[:, None] - np.arange(reach))
    assert np.linalg.eigvalsh(found[lags]).min() > -1e-6


@pytest.mark.parametrize("least", [1, 2, 3, 7, 11, 97, 1000, 3071, 100_000])
def test_lengths_of_transforms_are_even_and_smooth(least):
    length = smooth_length(least)
    assert least <= length < 2 * least + 2
    assert length % 2 == 0
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    assert length == 1


# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "sharing": (lambda: conv.lag_gains(X, D, 2, sharing="out"), "'out'", "'channel'", "choose"),
    "reach": (lambda: conv.lag_gains(X, D, 0), "reach=0", "from 1 to", "reach"),
    "far": (lambda: conv.lag_gains(X, D, 2**31), "reach=2147483648", "to 2147483647", "reach"),
    "cotangent": (lambda: conv.lag_gains(X, D[0], 2), "(9, 2)", "the axes of x", "cotangent"),
    "channels": (
        lambda: conv.lag_gains(X, D, 2, sharing="channel"),
        "(2, 9, 2)",
        "its channels",
        "cotangent",
    ),
    "autocovariance": (lambda: conv.autocovariance([1.0], 2), "x of shape", "(..., T, C)", "axis"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
