"""How good an estimated gradient is: its bias, its variance, its angle to the exact one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function
from sparse_hyper_jax.norms import in_units
from sparse_hyper_jax.precision import wide_dtype


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

    Example:
        >>> from sparse_hyper_jax.diagnostics import gradient_report
        >>> keys, exact = jax.random.split(jax.random.key(0), 10), jnp.array([3.0, 4.0])
        >>> report = gradient_report(exact, lambda key: jnp.array([3.0, 0.0]), keys)
        >>> print(f"{report.bias:.2f} {report.variance:.2f} {report.cosine:.2f} {report.norm:.2f}")
        0.80 0.00 0.60 5.00
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
        exact: pytree of arrays, the gradient by enumeration or ordinary autodiff; not all zero.
        estimate: maps a typed key to a pytree of the same shapes.
        keys: ``(n,)`` typed keys, one per estimate, ``n >= 2``.
        batch_size: estimates made together, by ``jax.vmap``; memory grows with it.

    Returns:
        a :class:`GradientReport` of scalars, float32 or wider; NaN if an entry is.

    Raises:
        ValueError: fewer than two keys, or estimates of other shapes than ``exact``.

    Example:
        >>> from sparse_hyper_jax.backprop import RandomK, TopK, sparsify
        >>> from sparse_hyper_jax.diagnostics import gradient_report
        >>> exact = jnp.array([[4.0, 3.0, 2.0, 1.0]])
        >>> for kind in (TopK(2), RandomK(2)):  # bias without noise, noise without bias
        ...     keys = jax.random.split(jax.random.key(0), 2000)
        ...     report = gradient_report(exact, lambda key: sparsify(key, exact, kind), keys)
        ...     print(bool(report.bias > 3 * report.noise), f"{report.variance:.1f}")
        True 0.0
        False 1.0
    """
    count = _count_keys(keys)
    batch_size = checks.check_count("batch_size", batch_size, least=1)
    check_function("estimate", estimate, "a function of a key")
    exact = _as_arrays("exact", exact)
    shapes = jax.eval_shape(lambda: estimate(keys[0]))
    check_same(shapes, exact)
    dtype = wide_dtype(*jax.tree.leaves((exact, shapes)))
    target = _as_vector(exact, dtype)
    unit = _unit_of(target)
    target = in_units(target, unit)
    length = _norm(target)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        vector = in_units(_as_vector(_as_arrays("estimate", estimate(key)), dtype), unit)
        # Moments of the error: what is exact then has an error of exactly 0.
        return vector - target, gradient_cosine(vector, target)

    moments = _moments_of(one, keys, target, batch_size)
    variances = moments.squares / (count - 1)
    error = moments.mean
    rounding = 1e-6  # sums round: a deviation within the rounding of float32 is none
    variance = jnp.sum(variances)
    return GradientReport(
        bias=jnp.sqrt(jnp.maximum(jnp.sum(error**2) - variance / count, 0)) / length,
        noise=jnp.sqrt(variance / count) / length,
        variance=variance / length**2,
        cosine=moments.cosines / count,
        largest_z=jnp.max(jnp.abs(error) / (jnp.sqrt(variances / count) + rounding)),
        norm=length * unit,
    )


def _moments_of(
    one: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    keys: jax.Array,
    target: jax.Array,
    batch_size: int,
) -> _Moments:
    """Collect the moments of all estimates, a batch of them at a time."""

    def add(moments: _Moments, keys: jax.Array) -> tuple[_Moments, None]:
        return _merge(moments, *jax.vmap(one)(keys)), None

    none = target * 0  # made of the target, so that it is spread over devices as that is
    moments = _Moments(jnp.zeros((), target.dtype), none, none, jnp.sum(none))
    whole = len(keys) - len(keys) % batch_size
    if whole:
        moments, _ = jax.lax.scan(add, moments, keys[:whole].reshape(-1, batch_size))
    if whole < len(keys):
        moments, _ = add(moments, keys[whole:])
    return moments


def _merge(moments: _Moments, vectors: jax.Array, cosines: jax.Array) -> _Moments:
    """Add a batch to the moments, as Chan, Golub and LeVeque 1979: without cancellation."""
    size = len(vectors)
    mean = jnp.mean(vectors, axis=0)
    count = moments.number + size
    step = mean - moments.mean
    squares = jnp.sum(jnp.square(vectors - mean[None]), axis=0)
    squares += moments.squares + jnp.square(step) * (moments.number * size / count)
    mean = moments.mean + step * (size / count)
    return _Moments(count, mean, squares, moments.cosines + jnp.sum(cosines))


def _count_keys(keys: Any) -> int:
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    checks.require(
        typed and keys.ndim == 1,
        f"keys of shape {keys.shape}" if typed else f"keys={keys!r:.80}",
        "keys of shape (n,), one typed key per estimate",
        "pass jax.random.split(jax.random.key(seed), n)",
    )
    count = len(keys)
    checks.require(count >= 2, f"{count} keys", "at least two", "split the key into more")
    return count


def _as_arrays(name: str, tree: Any) -> Any:
    """Return a tree of arrays after checking that there is one, and that they hold real numbers.

    Raises:
        ValueError: an empty tree, or a leaf that is no array of real numbers.
    """
    checks.require(
        bool(jax.tree.leaves(tree)), f"{name}={tree!r:.80}", "a tree of arrays", f"change {name}"
    )
    return jax.tree.map(lambda leaf: as_array(f"an array of {name}", leaf), tree)


def _as_vector(tree: Any, dtype: np.dtype) -> jax.Array:
    return jnp.concatenate([leaf.astype(dtype).reshape(-1) for leaf in jax.tree.leaves(tree)])


def gradient_cosine(gradient: Any, reference: Any) -> jax.Array:
    """Give the cosine of the angle between two gradients, over all their arrays together.

    ``<u, v> / (|u| |v|)``; 0 if one of them is zero. With a positive cosine, small enough steps
    along the gradient still descend.

    Args:
        gradient: pytree of arrays.
        reference: the same structure, for instance the gradient of the dense layers.

    Returns:
        scalar from -1 to 1, float32 or wider.

    Raises:
        ValueError: no arrays, different structures or shapes.

    Example:
        >>> from sparse_hyper_jax.diagnostics import gradient_cosine
        >>> dense = {"kernel": jnp.array([4.0, 3.0]), "bias": jnp.array([0.0])}
        >>> sparse = {"kernel": jnp.array([4.0, 0.0]), "bias": jnp.array([0.0])}
        >>> print(f"{gradient_cosine(sparse, dense):.2f}")
        0.80
    """
    (first, second), _ = _scaled_pair(gradient, reference)
    product = jnp.sum(first * second)
    lengths = _norm(first) * _norm(second)
    return jnp.where(lengths == 0, 0, product / jnp.where(lengths == 0, 1, lengths))


def norm_ratio(gradient: Any, reference: Any) -> jax.Array:
    """Give the length of a gradient relative to another: ``|u| / |v|``.

    Infinite if only v is zero, NaN if both are. At u = 0, where a length has no derivative, it
    counts as 0.

    Args:
        gradient: pytree of arrays.
        reference: the same structure.

    Returns:
        scalar, float32 or wider.

    Raises:
        ValueError: no arrays, different structures or shapes.

    Example:
        >>> from sparse_hyper_jax.diagnostics import norm_ratio
        >>> print(f"{norm_ratio(jnp.array([0.0, 4.0]), jnp.array([3.0, 4.0])):.2f}")
        0.80
    """
    (first, second), (one, two) = _scaled_pair(gradient, reference)
    # Lengths themselves could overflow.
    return _norm(first) / _norm(second) * (one / two)


def check_same(gradient: Any, reference: Any) -> None:
    """Raise unless two gradients have the same structure and shapes.

    Raises:
        ValueError: they differ.

    Example:
        >>> from sparse_hyper_jax.diagnostics import check_same
        >>> check_same({"kernel": jnp.ones(3)}, {"kernel": jnp.zeros(3)})  # nothing to say
        >>> try:
        ...     check_same(jnp.ones((2, 3)), jnp.ones((3, 2)))
        ... except ValueError as error:
        ...     print(str(error)[:43])
        found gradients of shapes (2, 3) and (3, 2)
    """
    one, two = (jax.tree.map(jnp.shape, tree) for tree in (gradient, reference))
    checks.require(
        one == two,
        f"gradients of shapes {one} and {two}",
        "the same arrays",
        "pass gradients of the same parameters, with kernels in the same layout",
    )


def _scaled_pair(gradient: Any, reference: Any) -> tuple[tuple[jax.Array, ...], ...]:
    """Give two gradients as vectors of moderate entries, and what they were divided by.

    Squares then neither vanish nor overflow. What is made of vectors and divisors together does not
    depend on the divisors, which therefore are constants.
    """
    gradient, reference = _as_arrays("gradient", gradient), _as_arrays("reference", reference)
    check_same(gradient, reference)
    dtype = wide_dtype(*jax.tree.leaves((gradient, reference)))
    vectors = tuple(_as_vector(tree, dtype) for tree in (gradient, reference))
    units = tuple(map(_unit_of, vectors))
    return tuple(map(in_units, vectors, units)), units


def _unit_of(vector: jax.Array) -> jax.Array:
    """Give the largest entry, as a divisor."""
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(vector)), initial=0)
    # Compilers multiply by the reciprocal, which near the largest float is no normal number.
    most = jnp.finfo(vector.dtype).max / 8
    return jnp.where(largest == 0, 1, jnp.minimum(largest, most))  # NaN stays to be seen


def _norm(vector: jax.Array) -> jax.Array:
    """Give the length, whose derivative at 0 is 0."""
    squares = jnp.sum(jnp.square(vector))
    # A root has no derivative at 0: take it at 1 there and discard the result (double where).
    return jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))
