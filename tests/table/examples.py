"""Example numbers that rows share: multiples of 1/8, which 16 bits hold exactly."""

import jax
import numpy as np

BATCH = 8
KINDS = {f"K{n}" for n in range(1, 15)}


def before_jax_0_12(*rows: str) -> list[str]:
    """Rows whose fault a newer JAX has mended for us."""
    return list(rows) if jax.__version_info__ < (0, 12) else []


def eighths(*shape, low=-2.0, high=2.0, seed=0):
    generator = np.random.default_rng(seed)
    grid = np.arange(round(low * 8), round(high * 8))
    return np.asarray(generator.choice(grid, shape) / 8, np.float32)


def distinct(*shape, seed=0):
    """Numbers of which no two have the same magnitude, nor is one zero."""
    size = int(np.prod(shape))
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1, 1], size)
    return np.asarray(signs * (1 + generator.permutation(size)) / 8, np.float32).reshape(shape)


def between(*shape, seed=0):
    """Means inside a (5, 4) index space, an eighth or more away from integers and halves."""
    generator = np.random.default_rng(seed)
    cells = generator.integers(0, [4, 3][: shape[-1]], shape)
    return np.asarray(cells + generator.choice([1, 2, 3, 5, 6, 7], shape) / 8, np.float32)


def integers(*numbers):
    return np.array(numbers, np.int32)


def key():
    return jax.random.key(0)


SHAPE = (5, 4)
MEANS = between(4, 2)
VARIANCES = eighths(4, 2, low=0.5, high=3.0, seed=1)
VALUES = eighths(4, seed=2)
TUPLES = (MEANS, VARIANCES, VALUES)
SAMPLED = {"num_global": 2, "num_local": 1, "region": (3, 2)}
