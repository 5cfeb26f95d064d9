import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import conv
from tests.conv.examples import normal
from tests.folding import folded
from tests.ops.examples import assert_names_itself_and_its_cure

HEIGHT, WIDTH, CHANNELS, OUT = 6, 5, 2, 3
X, D = normal(2, HEIGHT, WIDTH, CHANNELS), normal(2, HEIGHT, WIDTH, OUT, seed=1)
OFFSETS = np.array([[0, 0], [-2, 1], [3, -4], [0, 0], [5, 4], [-9, 0], [2, 2]], np.int32)
PLACED = np.array([True, True, True, True, True, True, False])
# Window, wrap.
READS = [(window, wrap) for window in (None, (5, 3), (4, 9)) for wrap in (False, True)]
GAINS = [
    *((window, False, "shared") for window in ((5, 3), (4, 9), (1, 1), (13, 14))),
    *((window, True, "shared") for window in ((5, 3), (6, 5))),
    ((4, 4), False, "channel"),
    ((4, 4), True, "channel"),
]


def spans(window):
    return [range(-(size // 2), size - size // 2) for size in window]


def moved(x, offset, wrap):
    """What every place reads at an offset."""
    rows, columns = offset
    if wrap:
        return np.roll(x, (-rows, -columns), (-3, -2))
    out = np.zeros_like(x)
    for row, column in np.ndindex(x.shape[-3:-1]):
        if 0 <= row + rows < x.shape[-3] and 0 <= column + columns < x.shape[-2]:
            out[..., row, column, :] = x[..., row + rows, column + columns, :]
    return out


def naive_offset_conv(x, weights, window, wrap):
    y = 0
    for offset, own, placed in zip(OFFSETS, weights, PLACED, strict=True):
        inside = window is None or all(
            step in span for step, span in zip(offset, spans(window), strict=True)
        )
        if placed and inside:
            read = moved(np.float64(x), offset, wrap)
            y = y + (read @ own if own.ndim == 2 else read * own)
    return y


@folded
def convolved():
    def of_case(window, wrap):
        def both(x, mixed, own):
            options = {"window": window, "wrap": wrap}
            return [
                conv.offset_conv(x, weights, OFFSETS, PLACED, **options) for weights in (mixed, own)
            ]

        return both

    weights = normal(7, CHANNELS, OUT, seed=2), normal(7, CHANNELS, seed=3)
    return {case: (of_case(*case), X, *weights) for case in READS}


@pytest.mark.parametrize(("window", "wrap"), READS)
def test_every_tap_reads_its_offset(window, wrap):
    weights = normal(7, CHANNELS, OUT, seed=2), normal(7, CHANNELS, seed=3)
    for found, its in zip(convolved(window, wrap), weights, strict=True):
        np.testing.assert_allclose(found, naive_offset_conv(X, its, window, wrap), atol=1e-5)


@folded
def gained():
    def of_case(window, wrap, sharing):
        return lambda x, d: conv.offset_gains(x, d, window, sharing=sharing, wrap=wrap)

    return {
        case: (of_case(*case), X, D if case[2] == "shared" else X[::-1].copy()) for case in GAINS
    }


@pytest.mark.parametrize(("window", "wrap", "sharing"), GAINS)
def test_gains_are_correlations(window, wrap, sharing):
    d = D if sharing == "shared" else X[::-1]
    letters = "bhwi,bhwo->io" if sharing == "shared" else "bhwi,bhwi->i"
    rows, columns = spans(window)
    expected = [
        [np.einsum(letters, moved(np.float64(X), (row, column), wrap), d) for column in columns]
        for row in rows
    ]
    np.testing.assert_allclose(gained(window, wrap, sharing), expected, atol=1e-5)


@pytest.mark.parametrize("wrap", [False, True])
def test_gains_are_the_slope_of_a_dense_kernel(wrap):
    window = (5, 3)
    cells = np.stack(np.meshgrid(*map(np.arange, window), indexing="ij"), -1).reshape(-1, 2)
    offsets = conv.window_offsets(cells, window)

    @jax.jit
    def both(weights):
        def loss(weights):
            y = conv.offset_conv(X, weights, offsets, wrap=wrap)
            return jnp.sum(jnp.sin(y)), y

        slope, y = jax.grad(loss, has_aux=True)(weights)
        return slope, conv.offset_gains(X, jnp.cos(y), window, wrap=wrap)

    slope, gains = both(normal(15, CHANNELS, OUT, seed=4))
    np.testing.assert_allclose(gains.reshape(slope.shape), slope, atol=1e-4)


def test_autocovariance_is_that_of_all_pairs():
    centred = np.float64(X) - X.mean((0, 1, 2))
    ways = (False, True)
    both = jax.jit(lambda x: [conv.offset_autocovariance(x, (3, 2), wrap=wrap) for wrap in ways])
    for wrap, found in zip(ways, both(X), strict=True):
        expected = [
            [
                (moved(centred, (row, column), wrap) * centred).sum() / X.size
                for column in (-1, 0, 1)
            ]
            for row in range(-2, 3)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_empty_slot_reads_nothing_whatever_lies_there():
    x, weights = X.copy(), normal(2, CHANNELS, OUT, seed=2)
    x[:, 0, 0] = np.nan  # which only the empty slot would read inside of the window
    weights[1] = np.nan
    offsets, placed = [[1, 1], [-1, -1]], [True, False]

    @jax.jit
    def run(weights):
        y = conv.offset_conv(x, weights, offsets, placed, window=(3, 3))
        return y, jax.grad(lambda w: conv.offset_conv(x, w, offsets, placed).sum())(weights)

    y, slope = run(weights)
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(slope[1], 0)


W = np.ones((1, CHANNELS, OUT))
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "x": (lambda: conv.offset_conv(np.ones((3, 4)), W, [[0, 0]]), "(3, 4)", "(..., H, W", "axes"),
    "offsets": (lambda: conv.offset_conv(X, W, [0]), "offsets of shape (1,)", "(k, 2)", "pass"),
    "kind": (lambda: conv.offset_conv(X, W, [[0.5, 0]]), "float32", "integers", "convert"),
    "weights": (lambda: conv.offset_conv(X, W, [[0, 0]] * 2), "(1, 2, 3)", "(2, 2, O)", "change"),
    "window": (lambda: conv.offset_gains(X, D, (3,)), "window=(3,)", "a height", "(9, 9)"),
    "lengths": (lambda: conv.offset_gains(X, D, (0, 3)), "window=(0, 3)", "ints from 1", "pass"),
    "cotangent": (lambda: conv.offset_gains(X, D[0], (1, 1)), "(6, 5, 3)", "axes of x", "reshape"),
    "torus": (
        lambda: conv.offset_gains(X, D, (7, 1), wrap=True),
        "(7, 1) cells of a torus of (6, 5)",
        "once",
        "smaller window",
    ),
    "twice": (
        lambda: conv.offset_autocovariance(X, (4, 1), wrap=True),
        "(7, 1) cells",
        "once",
        "smaller",
    ),
    "positions": (lambda: conv.window_offsets([0, 1], (3, 3)), "(2,)", "(k, 2)", "reshape"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
