"""Series whose true lags are known: a hidden system with long delays, and canvases read row by row.

    key -> LagSystem -> inputs, targets, one series per key     draw_system, run_system
            lags, weights    `-> both at once, with the least error that is possible    make_series
    key, images, a width -> the pixels of a canvas, one after another                   make_canvas

Everything is a pure function of a key, of one series: ``jax.vmap`` over keys makes a batch of the
same system.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax.checks import check_count, check_number, check_shape, require
from sparse_hyper_jax.entrance import as_array, as_int32, check_instance, check_random_key

ADDED, MULTIPLIED = 0.5, 0.4
"""Strength of one additive term and of one product: together they have a variance of about 1."""

MOST_NOISE = 1e18
"""Beyond this float32 could not hold the variance of the noise."""


class LagSystem(NamedTuple):
    """A system that reads its inputs at a few lags, each by a vector of weights.

    Attributes:
        added: ``(a,)`` int32, lags in steps back with a term of their own.
        values: ``(p,)`` int32, lags of what is multiplied.
        gates: ``(p,)`` int32, lags of what it is multiplied by.
        weights: ``(a + 2 p, C)``, one vector of length 1 for each lag, in this order.

    Example:
        >>> from sparse_hyper_jax.train.data import draw_system
        >>> system = draw_system(jax.random.key(0), channels=3, reach=50, additive=2, products=1)
        >>> jax.tree.map(jnp.shape, system)
        LagSystem(added=(2,), values=(1,), gates=(1,), weights=(4, 3))
        >>> system.lags.shape
        (4,)
    """

    added: jax.Array
    values: jax.Array
    gates: jax.Array
    weights: jax.Array

    @property
    def lags(self) -> jax.Array:
        """All of them, ``(a + 2 p,)``."""
        return jnp.concatenate([self.added, self.values, self.gates])


class LaggedSeries(NamedTuple):
    """A series with what is known about it.

    Attributes:
        inputs: ``(T, C)``.
        targets: ``(T, 1)``.
        lags: ``(a + 2 p,)`` int32, the true lags in the order of :attr:`LagSystem.lags`.
        floor: ``()``, the least mean squared error that any model has: the variance of the noise.

    Example:
        >>> from sparse_hyper_jax.train.data import make_series
        >>> series = make_series(jax.random.key(0), length=100, channels=3, reach=80)
        >>> jax.tree.map(jnp.shape, series)
        LaggedSeries(inputs=(100, 3), targets=(100, 1), lags=(8,), floor=())
    """

    inputs: jax.Array
    targets: jax.Array
    lags: jax.Array
    floor: jax.Array


def draw_system(
    key: jax.Array,
    *,
    channels: int = 32,
    reach: int = 1024,
    additive: int = 4,
    products: int = 2,
    apart: int = 8,
) -> LagSystem:
    """Draw the lags of a system, all sets alike of which no two are close, and its weights.

    Args:
        key: typed key.
        channels: C, of the inputs.
        reach: lags are from 1 to ``reach - 1``.
        additive: lags with a term of their own.
        products: terms of two lags each, a value and a gate.
        apart: least distance of two lags; inputs next to each other resemble each other.

    Returns:
        The system.

    Raises:
        ValueError: a count out of range, no lag at all, or more than fit into the reach.

    Example:
        >>> from sparse_hyper_jax.train.data import draw_system
        >>> lags = draw_system(jax.random.key(0), reach=100).lags
        >>> len(lags), bool((lags > 0).all() & (lags < 100).all())
        (8, True)
        >>> bool(jnp.diff(jnp.sort(lags)).min() >= 8)
        True
    """
    check_random_key(key)
    channels, reach = check_count("channels", channels, 1), check_count("reach", reach, 2)
    additive, products = check_count("additive", additive), check_count("products", products)
    apart = check_count("apart", apart, 1)
    count = additive + 2 * products
    room = reach - 1 - (count - 1) * (apart - 1)
    require(count > 0, "additive=0 with products=0", "at least one lag", "raise one of them")
    require(
        room >= count,
        f"{count} lags that are {apart} apart, with reach={reach}",
        f"a reach of at least {(count - 1) * apart + 2}",
        "raise reach, or lower additive, products or apart",
    )
    place_key, order_key, weight_key = jax.random.split(key, 3)
    # Any set of cells in the room, then the least distances put between them.
    cells = jnp.sort(jax.random.choice(place_key, room, (count,), replace=False))
    lags = (1 + cells + (apart - 1) * jnp.arange(count)).astype(jnp.int32)
    lags = jax.random.permutation(order_key, lags)
    weights = jax.random.normal(weight_key, (count, channels))
    return LagSystem(
        added=lags[:additive],
        values=lags[additive : additive + products],
        gates=lags[additive + products :],
        weights=weights / jnp.linalg.norm(weights, axis=1, keepdims=True),
    )


def run_system(
    key: jax.Array,
    system: LagSystem,
    *,
    length: int = 2048,
    correlation: float | jax.Array = 0.9,
    noise: float | jax.Array = 0.5,
) -> tuple[jax.Array, jax.Array]:
    """Draw inputs, and what the system makes of them.

    ``y[t] = sum_a .5 tanh(2 r_a[t]) + sum_p .4 r_v[t] (1 + tanh(1.5 r_g[t])) + noise``, where
    ``r_u[t] = w_u . x[t - u]`` and x is 0 before the series begins. Every channel of x is an
    autoregression of order 1 with variance 1. A gate has no linear effect of its own: it doubles or
    silences its value, which is as often positive as negative.

    Args:
        key: typed key; the system stays the same for others.
        system: from :func:`draw_system`, or of your own lags from 0 on.
        length: T.
        correlation: of an input with its next one, from 0 (white) to below 1; may be traced.
        noise: standard deviation of what nothing explains, at most 1e18; may be traced.

    Returns:
        Inputs ``(T, C)`` and targets ``(T, 1)``.

    Raises:
        ValueError: no system, parts of it that do not fit each other, a known lag below 0, or an
            option out of range.

    Example:
        >>> from sparse_hyper_jax.train.data import draw_system, run_system
        >>> system = draw_system(jax.random.key(0), channels=3, reach=80)
        >>> keys = jax.random.split(jax.random.key(1), 5)
        >>> inputs, targets = jax.vmap(lambda key: run_system(key, system, length=100))(keys)
        >>> inputs.shape, targets.shape
        ((5, 100, 3), (5, 100, 1))
    """
    check_random_key(key)
    system = _checked(system)
    length = check_count("length", length, 1)
    check_number("correlation", correlation, at_least=0, below=1)
    check_number("noise", noise, at_least=0, at_most=MOST_NOISE)
    input_key, noise_key = jax.random.split(key)
    inputs = _autoregression(input_key, length, system.weights.shape[1], correlation)
    targets = _response(inputs, system)
    spread = jnp.asarray(noise, inputs.dtype)
    return inputs, (targets + spread * jax.random.normal(noise_key, (length,)))[:, None]


def make_series(
    key: jax.Array,
    *,
    length: int = 2048,
    channels: int = 32,
    reach: int = 1024,
    additive: int = 4,
    products: int = 2,
    apart: int = 8,
    correlation: float | jax.Array = 0.9,
    noise: float | jax.Array = 0.5,
) -> LaggedSeries:
    """Draw a system by :func:`draw_system` and one series of it by :func:`run_system`.

    Args:
        key: typed key.
        length: T.
        channels: C.
        reach: see :func:`draw_system`, as are the next three.
        additive: see there.
        products: see there.
        apart: see there.
        correlation: see :func:`run_system`.
        noise: see there.

    Returns:
        :class:`LaggedSeries`.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> from sparse_hyper_jax.train.data import make_series
        >>> series = make_series(jax.random.key(0), length=100, channels=3, reach=80)
        >>> series.inputs.shape, series.targets.shape, len(series.lags), float(series.floor)
        ((100, 3), (100, 1), 8, 0.25)
    """
    check_random_key(key)
    system_key, series_key = jax.random.split(key)
    system = draw_system(
        system_key,
        channels=channels,
        reach=reach,
        additive=additive,
        products=products,
        apart=apart,
    )
    inputs, targets = run_system(
        series_key, system, length=length, correlation=correlation, noise=noise
    )
    return LaggedSeries(inputs, targets, system.lags, jnp.asarray(noise, inputs.dtype) ** 2)


def make_canvas(
    key: jax.Array,
    images: jax.Array,
    width: int | jax.Array,
    *,
    length: int = 1600,
    digits: int = 3,
) -> jax.Array:
    """Paste images onto a canvas at random, and give its pixels row by row, black or white.

    Pixel ``p`` lies in row ``p // width``, so that what is one row above is ``width`` steps back: a
    model that is not told the width has to find it.

    Args:
        key: typed key; the same width with other keys gives other canvases of one series.
        images: ``(n, h, w)`` floats in ``[0, 1]``: what exceeds 0.5 is painted.
        width: of the canvas, at least that of an image; may be traced.
        length: pixels; what does not fill the last row stays black.
        digits: images to paste.

    Returns:
        ``(length, 1)`` float32, 0 or 1; NaN where a pixel of an image is NaN.

    Raises:
        ValueError: images of another rank, of integers or without a pixel, a count out of range, or
            a canvas that holds no image.

    Example:
        >>> from sparse_hyper_jax.train.data import load_digits, make_canvas
        >>> pixels = make_canvas(jax.random.key(0), load_digits().images, 20, length=400)
        >>> pixels.shape, np.unique(pixels).tolist()
        ((400, 1), [0.0, 1.0])
    """
    check_random_key(key)
    # Of whole numbers, say bytes, nearly all would exceed the threshold.
    images = as_array("images", images, "floats")
    check_shape("images", images, (None, None, None), "(n, h, w): one image per row")
    require(
        images.size > 0,
        f"images of shape {images.shape}",
        "at least one, with at least one pixel",
        "pass some",
    )
    count, height, wide = images.shape
    digits, length = check_count("digits", digits, 1), check_count("length", length, 1)
    check_number("width", width, at_least=wide, at_most=length // height)
    require(
        jnp.issubdtype(jnp.result_type(width), jnp.integer),
        f"width={width!r:.80}",
        "a whole number of pixels",
        "pass an int",
    )
    width = jnp.asarray(width, jnp.int32)
    which_key, row_key, column_key = jax.random.split(key, 3)
    rows = jax.random.randint(row_key, (digits,), 0, length // width - height + 1, jnp.int32)
    columns = jax.random.randint(column_key, (digits,), 0, width - wide + 1, jnp.int32)
    chosen = images[jax.random.randint(which_key, (digits,), 0, count, jnp.int32)]
    black = jnp.where(jnp.isnan(chosen), jnp.nan, chosen > 0.5).astype(jnp.float32)
    down = rows[:, None, None] + jnp.arange(height, dtype=jnp.int32)[None, :, None]
    right = columns[:, None, None] + jnp.arange(wide, dtype=jnp.int32)[None, None]
    pixels = jnp.zeros(length, jnp.float32).at[down * width + right].max(black)
    return pixels[:, None]


def _checked(system: LagSystem) -> LagSystem:
    """Return the system as arrays that fit each other, its lags as int32."""
    check_instance("system", system, LagSystem)
    names = ("added", "values", "gates")
    added, values, gates = (as_int32(f"system.{name}", getattr(system, name)) for name in names)
    check_shape("system.added", added, (None,), "(a,): one lag per term")
    check_shape("system.values", values, (None,), "(p,): one lag per product")
    check_shape("system.gates", gates, values.shape, "one lag per value")
    weights = as_array("system.weights", system.weights)
    count = len(added) + 2 * len(values)
    check_shape("system.weights", weights, (count, None), "(a + 2 p, C): one row per lag")
    for name in names:
        # What was given: inside of a program its array is traced even where the numbers are known.
        given = getattr(system, name)
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
            least = np.asarray(given).min(initial=0)
            require(
                bool(least >= 0),
                f"a lag of {least} in system.{name}",
                "lags from 0 on: what comes later is not read",
                f"change system.{name}",
            )
    return LagSystem(added, values, gates, weights)


def _autoregression(
    key: jax.Array, length: int, channels: int, correlation: float | jax.Array
) -> jax.Array:
    shocks = jax.random.normal(key, (length, channels))
    kept = jnp.asarray(correlation, shocks.dtype)
    fresh = jnp.sqrt(1 - jnp.square(kept))

    def follow(before: jax.Array, shock: jax.Array) -> tuple[jax.Array, jax.Array]:
        now = kept * before + fresh * shock
        return now, now

    # The first one has the variance of all others.
    return jnp.concatenate([shocks[:1], jax.lax.scan(follow, shocks[0], shocks[1:])[1]])


def _response(inputs: jax.Array, system: LagSystem) -> jax.Array:
    places = jnp.arange(len(inputs), dtype=jnp.int32)[:, None] - system.lags[None]
    read = jnp.take_along_axis(inputs @ system.weights.T, jnp.maximum(places, 0), axis=0)
    read = jnp.where(places >= 0, read, 0)
    cuts = [len(system.added), len(system.added) + len(system.values)]
    added, values, gates = jnp.split(read, cuts, axis=1)
    terms = ADDED * jnp.tanh(2 * added).sum(axis=1)
    return terms + MULTIPLIED * (values * (1 + jnp.tanh(1.5 * gates))).sum(axis=1)
