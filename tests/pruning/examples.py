"""Trees to prune, a training loop that keeps its history, and choices made by sorting."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparse_hyper_jax.parameter_paths import is_kernel, selected_leaves
from sparse_hyper_jax.pruning import sparse_training

KEY = jax.random.key(0)


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def parameters():
    """Two kernels of 42 and 35 entries, some of them -0.0, and their biases."""
    params = {
        "one": {"kernel": array(6, 7), "bias": array(7, seed=1)},
        "two": {"kernel": array(7, 5, seed=2), "bias": array(5, seed=3)},
    }
    for layer in params.values():
        layer["kernel"][1, ::2] = -0.0
        layer["bias"][0] = -0.0
    return params


PARAMS = parameters()
NAMES = ("one", "two")
SIZES = (42, 35)


def gradients(steps, params=PARAMS, seed=10):
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: generator.normal(size=(steps, *leaf.shape)).astype("f"), params
    )


def at(tree, step):
    return jax.tree.map(lambda leaf: np.asarray(leaf[step]), tree)


class History(NamedTuple):
    """What was there after 0, 1, 2, ... steps, on a new first axis, and the gradients of steps."""

    params: object
    state: object
    gradients: object

    def kernels(self, step):
        return [np.asarray(self.params[name]["kernel"][step]) for name in NAMES]

    def masks(self, step):
        return [np.asarray(self.state.masks[name]["kernel"][step]) for name in NAMES]

    def updated(self, step):
        return [np.asarray(self.state.updated[name]["kernel"][step]) for name in NAMES]

    def slopes(self, step):
        """The gradient of step 1, 2, ..."""
        return [np.asarray(self.gradients[name]["kernel"][step - 1]) for name in NAMES]


def train(inner, method, steps, *, density=0.3, params=PARAMS, seed=10, **options):
    """Train on random gradients."""
    options = {"key": KEY, **options}
    optimizer = sparse_training(inner, method, density=density, **options)
    given = gradients(steps, params, seed)

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        carry = (optax.apply_updates(params, updates), state)
        return carry, carry

    params = jax.tree.map(jnp.asarray, params)
    start = (params, optimizer.init(params))
    later = jax.jit(lambda start: jax.lax.scan(step, start, given)[1])(start)
    return History(
        *jax.tree.map(lambda one, more: np.concatenate([one[None], more]), start, later), given
    )


def bits(array):
    return np.asarray(array).view(np.uint32)


def unchanged(one, two):
    return bits(one) == bits(two)


def largest(scores, count, among=None):
    """Mark by sorting: NaN first, then by magnitude, then by place."""
    flat = np.concatenate([np.abs(np.ravel(one)).astype(np.float64) for one in scores])
    allowed = range(flat.size)
    if among is not None:
        allowed = np.flatnonzero(np.concatenate([np.ravel(one) for one in among])).tolist()
    order = sorted(allowed, key=lambda i: (not np.isnan(flat[i]), -np.nan_to_num(flat[i]), i))
    mask = np.zeros(flat.size, bool)
    mask[order[: int(count)]] = True
    cuts = np.cumsum([np.size(one) for one in scores])[:-1]
    return [
        part.reshape(np.shape(one)) for part, one in zip(np.split(mask, cuts), scores, strict=True)
    ]


def same(masks, expected):
    return all(
        np.shape(one) == np.shape(two) and np.array_equal(one, two)
        for one, two in zip(masks, expected, strict=True)
    )


def sharded(tree):
    """Spread every array over eight devices: kernels along both axes, biases along one."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    specs = {0: PartitionSpec(), 1: PartitionSpec("y"), 2: PartitionSpec("x", "y")}
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh, specs[leaf.ndim])), tree
    )


def kernels_of(tree):
    return selected_leaves(is_kernel, tree)
