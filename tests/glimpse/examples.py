"""Images and oracles for the readers of windows."""

from functools import partial

import jax
import numpy as np

from sparse_hyper_jax import glimpse
from sparse_hyper_jax.glimpse.points import draw_points

SAMPLED = {"num_global": 1, "num_local": 1, "region": (3, 4)}

OPTIONS = ("num_global", "num_local", "region", "draws")
extract = jax.jit(glimpse.extract, static_argnames=OPTIONS)
drawn = jax.jit(draw_points, static_argnums=2, static_argnames=OPTIONS)
key = partial(jax.random.key, 0)


def uniform(*shape, low=0.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def places(*window, shape, seed=0):
    """Means ``(*window, 2)`` inside an image, 0.05 or more away from integers and halves."""
    generator = np.random.default_rng(seed)
    halves = generator.integers(0, 2 * np.array(shape) - 2, (*window, 2)) / 2
    return (halves + generator.uniform(0.05, 0.45, (*window, 2))).astype(np.float32)


def points_of(key, means, shape, **options):
    """Rows, columns and flags ``(points, pixels)`` of the points that ``extract`` draws."""
    options = SAMPLED | {"draws": "glimpse"} | options
    rows, columns = np.asarray(means).reshape(-1, 2).T
    points = [(*cells, kept) for cells, kept in drawn(key, (rows, columns), shape, **options)]
    return tuple(
        np.stack([np.broadcast_to(np.asarray(part), rows.shape) for part in parts])
        for parts in zip(*points, strict=True)
    )


def naive(image, cells, means, variances):
    """Mix one output pixel at a time, in float64: ``cells`` gives the points of each, in order."""
    image, means = np.asarray(image, np.float64), np.asarray(means, np.float64)
    window = means.shape[:-1]
    variances = np.broadcast_to(np.asarray(variances, np.float64), means.shape)
    y = np.zeros((*window, *image.shape[2:]))
    for number, at in enumerate(np.ndindex(window)):
        different = np.array(list(dict.fromkeys(cells(number))))
        logits = -0.5 * (np.square(different - means[at]) / variances[at]).sum(axis=1)
        shares = np.exp(logits - logits.max())
        y[at] = np.tensordot(shares / shares.sum(), image[tuple(different.T)], 1)
    return y


def naive_sampled(image, points, means, variances):
    rows, columns, _ = points

    def cells(number):
        pairs = zip(rows[:, number], columns[:, number], strict=True)
        return [(int(row), int(column)) for row, column in pairs]

    return naive(image, cells, means, variances)


def naive_everywhere(image, means, variances):
    """Share every output pixel among all cells of the image."""
    return naive(image, lambda _: list(np.ndindex(image.shape[:2])), means, variances)
