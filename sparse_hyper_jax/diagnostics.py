"""How good an estimated gradient is: its bias, its variance, its angle to the exact one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from sparse_hyper_jax import checks


class GradientReport(NamedTuple):
    """Estimates ``g_i`` of a gradient, compared with the exact gradient ``g``.

    Attributes:
        bias: ``|E[g_i] - g| / |g|``, from ``|mean - g|^2 - variance / n``, which is right on
            average where ``|mean - g|`` is not: noise alone makes that positive. 0 if the
            difference is negative.
        noise: ``sqrt(variance / n) / |g|``, the relative length that ``mean - g`` has without any
            bias. A bias below it has not been seen.
        variance: sum of the variances of all entries of one estimate, over ``|g|^2``.
        cosine: mean cosine between one estimate and ``g``.
        largest_z: the largest ``|mean - g| / standard error`` of an entry. For an unbiased estimate
            of few entries seldom above 4.
        norm: ``|g|``.
    """

    bias: jax.Array
    noise: jax.Array
    variance: jax.Array
    cosine: jax.Array
    largest_z: jax.Array
    norm: jax.Array


class _Moments(NamedTuple):
    """Running moments: number, mean, sum of squared deviations, sum of cosines."""

    number: jax.Array
    mean: jax.Array
    squares: jax.Array
    cosines: jax.Array


def gradient_report(
    exact: Any, estimate: Callable[[jax.Array], Any], keys: jax.Array, *, batch_size: int = 100
) -> GradientReport:
    """Measure bias and variance of a gradient estimate against the exact gradient.

    For any way to change a gradient: an estimator of discrete choices, a sampled layer, sparse
    backpropagation with a random choice. Deterministic ones have variance 0.

    Args:
        exact: pytree of floating arrays, the gradient by enumeration or ordinary autodiff; not
            all zero.
        estimate: maps a typed key to a pytree of the same shapes.
        keys: ``(n,)`` typed keys, one per estimate, ``n >= 2``.
        batch_size: estimates made together, by ``jax.vmap``; memory grows with it.

    Returns:
        a :class:`GradientReport` of float32 scalars.

    Raises:
        ValueError: fewer than two keys, or estimates of other shapes than ``exact``.
    """
    checks.check_shape("keys", keys, (None,), "one typed key per estimate")
    checks.check_count("batch_size", batch_size, least=1)
    count = len(keys)
    checks.require(count >= 2, f"{count} keys", "at least two", "split the key into more")
    check_same(jax.eval_shape(estimate, keys[0]), exact)
    target = _as_vector(exact)
    length = optax.tree.norm(target)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        vector = _as_vector(estimate(key))
        # Moments of the error: what is exact then has an error of exactly 0.
        return vector - target, gradient_cosine(vector, target)

    def add(moments: _Moments, keys: jax.Array) -> tuple[_Moments, None]:
        return _merge(moments, *jax.vmap(one)(keys)), None

    none = jnp.zeros(())
    moments = _Moments(none, jnp.zeros_like(target), jnp.zeros_like(target), none)
    whole = count - count % batch_size
    if whole:
        batches = keys[:whole].reshape(-1, batch_size)
        moments, _ = jax.lax.scan(add, moments, batches)
    if whole < count:
        moments, _ = add(moments, keys[whole:])
    variances = moments.squares / (count - 1)
    error = moments.mean
    # Sums round: a deviation within the rounding of float32 is none.
    rounding = 1e-6 * jnp.max(jnp.abs(target))
    variance = jnp.sum(variances)
    return GradientReport(
        bias=jnp.sqrt(jnp.maximum(jnp.sum(error**2) - variance / count, 0)) / length,
        noise=jnp.sqrt(variance / count) / length,
        variance=variance / length**2,
        cosine=moments.cosines / count,
        largest_z=jnp.max(jnp.abs(error) / (jnp.sqrt(variances / count) + rounding)),
        norm=length,
    )


def _merge(moments: _Moments, vectors: jax.Array, cosines: jax.Array) -> _Moments:
    """Add a batch to the moments, as Chan, Golub and LeVeque 1979: without cancellation."""
    size = len(vectors)
    mean = jnp.mean(vectors, axis=0)
    count = moments.number + size
    step = mean - moments.mean
    squares = jnp.sum(jnp.square(vectors - mean), axis=0)
    squares += moments.squares + jnp.square(step) * (moments.number * size / count)
    mean = moments.mean + step * (size / count)
    return _Moments(count, mean, squares, moments.cosines + jnp.sum(cosines))


def _as_vector(tree: Any) -> jax.Array:
    return ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree))[0]


def gradient_cosine(gradient: Any, reference: Any) -> jax.Array:
    """Give the cosine of the angle between two gradients, over all their arrays together.

    ``<u, v> / (|u| |v|)``; 0 if one of them is zero. With a positive cosine, small enough steps
    along the gradient still descend.

    Args:
        gradient: pytree of arrays.
        reference: the same structure, for instance the gradient of the dense layers.

    Returns:
        float32 scalar from -1 to 1.

    Raises:
        ValueError: different structures or shapes.
    """
    check_same(gradient, reference)
    # Scaled to the largest entry first, so that squares neither vanish nor overflow.
    first, second = _scaled(gradient), _scaled(reference)
    product = optax.tree.vdot(first, second)
    lengths = optax.tree.norm(first) * optax.tree.norm(second)
    return jnp.where(lengths == 0, 0, product / jnp.where(lengths == 0, 1, lengths))


def norm_ratio(gradient: Any, reference: Any) -> jax.Array:
    """Give the length of a gradient relative to another: ``|u| / |v|``.

    Infinite if only v is zero, NaN if both are.

    Args:
        gradient: pytree of arrays.
        reference: the same structure.

    Returns:
        float32 scalar.

    Raises:
        ValueError: different structures or shapes.
    """
    check_same(gradient, reference)
    return _norm(gradient) / _norm(reference)


def check_same(gradient: Any, reference: Any) -> None:
    """Raise unless two gradients have the same structure and shapes.

    Raises:
        ValueError: they differ.
    """
    one, two = (jax.tree.map(jnp.shape, tree) for tree in (gradient, reference))
    checks.require(
        one == two,
        f"gradients of shapes {one} and {two}",
        "the same arrays",
        "pass gradients of the same parameters, with kernels in the same layout",
    )


def _largest(tree: Any) -> jax.Array:
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    largest = jnp.max(jnp.stack([size.astype(jnp.float32) for size in sizes]))
    return jnp.where(largest > 0, largest, 1)


def _scaled(tree: Any) -> Any:
    largest = _largest(tree)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) / largest, tree)


def _norm(tree: Any) -> jax.Array:
    return optax.tree.norm(_scaled(tree)) * _largest(tree)
