"""Sequences of multi-digit numbers, drawn inside ``jit`` from images resident on the device.

The flow: key -> numbers -> digits -> one random image of each digit's class -> images side by side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax.checks import INT32_CELLS, check_count, check_flag, check_shape, require
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.train.data.dataset import Dataset, check_dataset


class ClassIndex(NamedTuple):
    """Images on the device, grouped by class: ``counts[c]`` of class ``c`` from ``starts[c]``.

    Attributes:
        images: ``(n, h, w)`` float32, ordered by class.
        starts: ``(C,)`` int32, where each class begins.
        counts: ``(C,)`` int32, images of each class, 1 or more.

    Example:
        >>> from sparse_hyper_jax.train.data import index_by_class, make_dataset
        >>> labels = np.array([1, 0, 1])
        >>> index = index_by_class(make_dataset(np.zeros((3, 8, 8)), labels, white=255))
        >>> index.starts.tolist(), index.counts.tolist()
        ([0, 1], [1, 2])
    """

    images: jax.Array
    starts: jax.Array
    counts: jax.Array


class Sequences(NamedTuple):
    """A batch of sequences of numbers.

    Attributes:
        images: ``(batch, length, h, digits * w)`` float32, each number's digits side by side, the
            most significant one left.
        labels: ``(batch, length)`` int32, the numbers.

    Example:
        >>> from sparse_hyper_jax.train.data import index_by_class, load_digits, make_sequences
        >>> index = index_by_class(load_digits())
        >>> batch = make_sequences(jax.random.key(0), index, batch=2, length=5, digits=3)
        >>> jax.tree.map(jnp.shape, batch)
        Sequences(images=(2, 5, 8, 24), labels=(2, 5))
    """

    images: jax.Array
    labels: jax.Array


def index_by_class(dataset: Dataset) -> ClassIndex:
    """Put a data set on the device, grouped by class; do this once, outside ``jit``.

    Pass the result to a jitted function as an argument: closed over, it would be compiled in.

    Args:
        dataset: ``n`` images with labels from 0 to C - 1; classes may be of uneven size.

    Returns:
        The grouped images.

    Raises:
        ValueError: not one integer label per image, a label is negative, or one between 0 and the
            largest has no image.

    Example:
        >>> from sparse_hyper_jax.train.data import index_by_class, make_dataset
        >>> labels = np.array([1, 0, 1])
        >>> index = index_by_class(make_dataset(np.zeros((3, 8, 8)), labels, white=255))
        >>> index.starts.tolist(), index.counts.tolist()
        ([0, 1], [1, 2])
    """
    images, labels = check_dataset(dataset)
    # Not by bincount: one label of a thousand million would count as many classes.
    classes, counts = np.unique(labels, return_counts=True)
    least = labels.min(initial=0)
    require(least >= 0, f"a label {least}", "labels of 0 or more", "number the classes from 0")
    missing = np.setdiff1d(np.arange(min(labels.max(initial=0), len(labels)) + 1), classes)
    require(
        len(missing) == 0,
        f"no image of classes {missing[:10].tolist()} among {len(labels)}",
        "an image of every class from 0 to the largest label",
        "number the classes without gaps, or bring images of the missing ones",
    )
    order = np.argsort(labels, kind="stable")
    starts = np.cumsum(counts) - counts
    return ClassIndex(
        jnp.asarray(images[order]),
        jnp.asarray(starts, jnp.int32),
        jnp.asarray(counts, jnp.int32),
    )


def check_index(index: ClassIndex) -> None:
    """Check that there are images to draw from.

    Raises:
        ValueError: no :class:`ClassIndex`, or images of a wrong rank.
    """
    require(
        isinstance(index, ClassIndex),
        f"a {type(index).__name__} to draw from",
        "a ClassIndex",
        "call index_by_class(dataset) once and pass its result",
    )
    check_shape("index.images", index.images, (None, None, None), "(n, h, w): one image per row")


def distinct_numbers(key: jax.Array, *, count: int, length: int) -> jax.Array:
    """Draw ``length`` different numbers below ``count``, each ordered choice equally likely.

    Step ``i`` draws a rank ``r`` uniformly among the ``count - i`` numbers not yet taken, and finds
    the number of that rank: with the taken ones in order, ``c_0 < c_1 < ..``, it is
    ``r + #{j : c_j - j <= r}``. Exact, in ``O(length^2)`` steps and ``O(length)`` memory, so that
    ``count`` may be large; ranking ``count`` random floats would cost more and break ties unevenly.

    Args:
        key: typed key.
        count: how many numbers there are, at most 2**31 - 1.
        length: how many to draw, at most ``count``.

    Returns:
        ``(length,)`` int32, in random order.

    Raises:
        ValueError: a count out of range, ``length`` above ``count``, or not one key.

    Example:
        >>> from sparse_hyper_jax.train.data import distinct_numbers
        >>> numbers = distinct_numbers(jax.random.key(0), count=1000, length=5)
        >>> len(set(numbers.tolist())), bool(numbers.max() < 1000)
        (5, True)
    """
    check_random_key(key)
    check_count("count", count, 1)
    check_count("length", length, 1)
    require(count < INT32_CELLS, f"count={count}", "fewer than 2**31 numbers", "lower count")
    require(
        length <= count,
        f"length={length} different numbers out of {count}",
        f"a length of at most {count}",
        "shorten the sequences, use more digits, or allow repeats with distinct=False",
    )
    places = jnp.arange(length, dtype=jnp.int32)
    ranks = jax.random.randint(key, (length,), 0, count - places, dtype=jnp.int32)

    def draw(taken: jax.Array, rank: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Free places hold the largest int32: never counted below, always last in order.
        number = rank + jnp.sum(taken - places <= rank, dtype=jnp.int32)
        place = jnp.sum(taken < number)
        later = jnp.where(places == place, number, jnp.roll(taken, 1))
        return jnp.where(places < place, taken, later), number

    free = jnp.full((length,), jnp.iinfo(jnp.int32).max, jnp.int32)
    return jax.lax.scan(draw, free, ranks)[1]


def render(key: jax.Array, index: ClassIndex, numbers: jax.Array, *, digits: int) -> jax.Array:
    """Write numbers with random images of their digits, the most significant one left.

    Digit ``d`` from the left of a number is ``(number // C**(digits - 1 - d)) % C``, with ``C`` the
    number of classes; its image is uniform among those of its class.

    Args:
        key: typed key.
        index: ``n`` images of ``(h, w)``, grouped by class.
        numbers: ``(...)`` int32, from 0 to ``C**digits - 1``.
        digits: how many digits each number has, leading zeros included.

    Returns:
        ``(..., h, digits * w)`` images.

    Raises:
        ValueError: no integers, a number outside, where they are known, more digits than int32
            counts, or not one key.

    Example:
        >>> from sparse_hyper_jax.train.data import index_by_class, load_digits, render
        >>> index = index_by_class(load_digits())
        >>> render(jax.random.key(0), index, jnp.array([7, 42, 365]), digits=3).shape
        (3, 8, 24)
    """
    check_random_key(key)
    numbers, digits = as_array("numbers", numbers, "integers"), check_count("digits", digits, 1)
    base = index.counts.shape[0]
    # One digit more than in make_sequences may do: numbers need not reach the largest.
    require(
        base ** (digits - 1) < INT32_CELLS,
        f"digits={digits} with {base} classes",
        "a first digit that stands for fewer than 2**31, so that numbers fit into int32",
        "use fewer digits",
    )
    powers = np.array([base**power for power in reversed(range(digits))], np.int32)
    if not isinstance(numbers, Tracer):
        known = np.asarray(numbers)
        require(
            known.size == 0 or (known.min() >= 0 and known.max() < base**digits),
            f"numbers from {known.min()} to {known.max()}" if known.size else "no numbers",
            f"numbers from 0 to {base**digits - 1}, of digits={digits} with {base} classes",
            "pass others, or raise digits",
        )
    classes = numbers[..., None] // powers % base
    within = jax.random.randint(key, classes.shape, 0, index.counts[classes], dtype=jnp.int32)
    drawn = index.images[index.starts[classes] + within]
    height, width = drawn.shape[-2:]
    side_by_side = jnp.moveaxis(drawn, -3, -2)
    return side_by_side.reshape(*numbers.shape, height, digits * width)


def make_sequences(
    key: jax.Array,
    index: ClassIndex,
    *,
    batch: int,
    length: int,
    digits: int = 1,
    distinct: bool = True,
) -> Sequences:
    """Draw a batch of sequences of numbers with ``digits`` digits, each number equally likely.

    Args:
        key: typed key; the same key gives the same bytes.
        index: from :func:`index_by_class`; its ``C`` classes are the digits, 10 as a rule.
        batch: how many sequences.
        length: numbers in each.
        digits: digits of each number, leading zeros included.
        distinct: no number twice in one sequence; for one digit, a random subset of the classes.

    Returns:
        ``(batch, length, h, digits * w)`` images and ``(batch, length)`` int32 numbers, in random
        order.

    Raises:
        ValueError: a size below 1, more different numbers than there are, numbers too long for
            int32, a ``distinct`` that is no bool, or not one key.

    Example:
        >>> from sparse_hyper_jax.train.data import index_by_class, load_digits, make_sequences
        >>> index = index_by_class(load_digits())
        >>> batch = make_sequences(jax.random.key(0), index, batch=2, length=5, digits=3)
        >>> batch.images.shape, batch.labels.shape
        ((2, 5, 8, 24), (2, 5))
    """
    check_random_key(key)
    check_count("batch", batch, 1)
    check_count("length", length, 1)
    digits = check_count("digits", digits, 1)
    distinct = check_flag("distinct", distinct)
    check_index(index)
    base = index.counts.shape[0]
    count = base**digits
    require(
        count < INT32_CELLS,
        f"digits={digits}, which makes {count} numbers",
        "fewer than 2**31 numbers, so that labels fit into int32",
        "use fewer digits",
    )
    number_key, image_key = jax.random.split(key)
    if distinct:
        keys = jax.random.split(number_key, batch)
        numbers = jax.vmap(lambda k: distinct_numbers(k, count=count, length=length))(keys)
    else:
        numbers = jax.random.randint(number_key, (batch, length), 0, count, dtype=jnp.int32)
    return Sequences(render(image_key, index, numbers, digits=digits), numbers)
