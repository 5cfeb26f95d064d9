"""Random arguments: numbers where functions break."""

import jax.numpy as jnp
import numpy as np

FLOATS = (np.float32, jnp.bfloat16, np.float16)
LONGEST = 2**30


def pick(rng, *choices):
    """One of a few things, which may be of any type."""
    return choices[rng.integers(len(choices))]


def dtype(rng):
    """Mostly float32."""
    return np.dtype(FLOATS[rng.choice(3, p=(0.6, 0.25, 0.15))])


def reals(rng, shape, kind=np.float32, *, spread=1.0):
    """Numbers of one style, of which ties, zeros and different magnitudes are some."""
    style = rng.integers(5)
    if style == 0:
        numbers = rng.normal(size=shape)
    elif style == 1:
        numbers = rng.integers(-16, 17, shape) / 8
    elif style == 2:
        numbers = rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(-3, 1, shape)
    elif style == 3:
        numbers = rng.normal(size=shape) * (rng.random(shape) < 0.5)
    else:
        numbers = np.full(shape, rng.integers(-4, 5) / 4)
    return np.asarray(numbers * spread, kind)


def distinct(rng, size, kind=np.float32):
    """Numbers of which no two are equal, also in 16 bits."""
    return np.asarray(rng.permutation(size) / 4 - rng.integers(0, size + 1) / 4, kind)


def shape(rng, rank, *, cells=64):
    """Lengths of a small index space."""
    longest = max(1, round(cells ** (1 / rank)))
    return tuple(int(size) for size in rng.integers(1, longest + 2, rank))


def long_shape(rng, rank, *, most=LONGEST):
    """Lengths from 1 to beyond 2**24 on every axis."""
    exponents = rng.uniform(0, np.log2(most), rank)
    sizes = np.floor(2**exponents).astype(int)
    special = rng.choice([1, 2, 3, 2**24 - 1, 2**24, 2**24 + 1], rank)
    chosen = np.where(rng.random(rank) < 0.3, np.minimum(special, most), sizes)
    return tuple(int(size) for size in chosen)


def means(rng, count, sizes, kind=np.float32, *, wrap=False):
    """Places inside an index space: on integers, halves, edges, and one float beside them."""
    last = np.asarray(sizes, np.float64) - 1
    low = rng.random((count, len(sizes))) * last
    styles = rng.integers(6, size=low.shape) if rng.random() < 0.7 else rng.integers(6)
    whole = np.floor(low)
    # Not the numbers beside 0, which most devices take for 0.
    step = np.spacing(np.maximum(whole, 0.5).astype(np.float32)).astype(np.float64)
    options = [low, whole, whole + 0.5, np.where(rng.random(low.shape) < 0.5, 0, last)]
    options += [whole + step, whole + 0.5 - step]
    places = np.choose(np.broadcast_to(styles, low.shape), options)
    top = last.astype(np.float32).astype(np.float64)
    if wrap:
        # Up to the length of the circle, which itself is none of its places.
        places = np.where(rng.random(low.shape) < 0.2, last + 0.375, places)
        return _at_most(places, np.nextafter((last + 1).astype(np.float32), np.float32(0)), kind)
    return _at_most(places, np.minimum(top, last), kind)


def _at_most(places, top, kind):
    """Round, but not beyond the end."""
    # float16 ends before long axes do.
    top = np.minimum(top, float(jnp.finfo(kind).max))
    rounded = np.asarray(np.clip(places, 0, top), kind)
    beyond = rounded.astype(np.float64) > top
    return np.where(beyond, np.asarray(np.floor(top / 2), kind), rounded).astype(kind)


def variances(rng, shape, kind=np.float32):
    """From 1e-12 to 1e12, as far as the dtype holds them."""
    low, high = (-4.0, 4.5) if kind == np.float16 else (-11.9, 12.0)
    style = rng.integers(4)
    if style == 0:
        exponents = rng.uniform(low, high, shape)
    elif style == 1:
        exponents = np.full(shape, rng.uniform(low, high))
    elif style == 2:
        exponents = rng.uniform(-1, 1, shape)
    else:
        exponents = rng.choice([low, 0.0, high], shape)
    return np.asarray(10**exponents, kind)


def cells(rng, count, sizes):
    """Index tuples inside of a shape, with repetitions."""
    return rng.integers(0, sizes, (count, len(sizes))).astype(np.int32)


def segments(rng, count, number, *, padded=True):
    """Segment numbers, of which -1 and the number of segments mark padding."""
    low, high = (-1, number + 1) if padded and rng.random() < 0.6 else (0, number)
    return rng.integers(low, high, count).astype(np.int32)


def mask(rng, count, *, least=0):
    """Flags, of which so many are true at least."""
    flags = rng.random(count) < rng.choice([0.2, 0.5, 0.9, 1.0])
    flags[rng.permutation(count)[:least]] = True
    return flags
