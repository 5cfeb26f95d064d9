"""Continuous laws that stand for discrete ones, and samples whose gradient comes from their law.

A relaxed one-hot row with its density, as a variational posterior needs both; and the implicit
gradient of a sample of any law on the line whose distribution function is known.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function, check_random_key
from sparse_hyper_jax.estimators.straight_through import check_temperature
from sparse_hyper_jax.precision import at_least_float32, wide_dtype


def sample_relaxed(
    key: jax.Array, logits: jax.Array, *, temperature: float | jax.Array
) -> jax.Array:
    """Draw relaxed one-hot rows, as logarithms: ``log softmax((phi + G) / temperature)``.

    ``G`` is Gumbel noise, so that the largest entry has the law ``softmax(phi)`` at every
    temperature. Gradients for logits and temperature are those of the formula.

    Args:
        key: a typed key.
        logits: ``(..., C)``; minus infinity bans a class, whose entry then is minus infinity.
        temperature: at least the smallest normal number of float32; may be traced.

    Returns:
        ``(..., C)`` in float32 or wider: logarithms, since an entry itself may be too small for a
        float. ``jnp.exp`` gives the rows, which sum to 1.

    Raises:
        ValueError: no key, logits without classes, or a temperature that is known and smaller.

    Reference: Maddison, Mnih and Teh 2017, arXiv 1611.00712; Jang, Gu and Poole 2017, arXiv
    1611.01144.

    Example:
        >>> from sparse_hyper_jax.estimators import relaxed_log_prob, sample_relaxed
        >>> logits = jnp.array([1.0, 0.0, -1.0])
        >>> row = sample_relaxed(jax.random.key(0), logits, temperature=0.5)
        >>> log_p = relaxed_log_prob(row, logits, temperature=0.5)
        >>> round(float(jnp.sum(jnp.exp(row))), 3), log_p.shape
        (1.0, ())
    """
    check_random_key(key)
    check_temperature(temperature)
    logits = _enter("logits", logits)
    noisy = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
    # The largest goes before the division, which could overflow.
    largest = jax.lax.stop_gradient(jnp.max(noisy, axis=-1, keepdims=True))
    return jax.nn.log_softmax((noisy - largest) / jnp.asarray(temperature, noisy.dtype))


def relaxed_log_prob(
    log_rows: jax.Array, logits: jax.Array, *, temperature: float | jax.Array
) -> jax.Array:
    """Give the log density of relaxed one-hot rows.

    With respect to all entries but one, ``n`` classes that are not banned, ``t`` the temperature::

        log (n - 1)! + (n - 1) log t + sum_i (phi_i - (t + 1) y_i) - n logsumexp(phi - t y)

    Args:
        log_rows: ``(..., C)``, logarithms ``y`` of rows that sum to 1, see :func:`sample_relaxed`;
            finite, but minus infinity for a banned class.
        logits: ``(..., C)``; minus infinity bans a class.
        temperature: as it was drawn with; may be traced.

    Returns:
        ``(...)`` in float32 or wider.

    Raises:
        ValueError: shapes that differ, or a temperature that is known and too small.

    Reference: Maddison, Mnih and Teh 2017, arXiv 1611.00712.

    Example:
        >>> from sparse_hyper_jax.estimators import relaxed_log_prob
        >>> middle = jnp.log(jnp.array([0.5, 0.5]))
        >>> print(jnp.exp(relaxed_log_prob(middle, jnp.zeros(2), temperature=1.0)).round(3))  # even
        1.0
    """
    check_temperature(temperature)
    log_rows, logits = _enter("log_rows", log_rows), _enter("logits", logits)
    checks.check_shape("log_rows", log_rows, logits.shape, "the shape of logits")
    dtype = wide_dtype(log_rows, logits)
    banned = jnp.isneginf(logits)
    # Double where: what is banned has no slope, whatever it holds.
    y, phi = (jnp.where(banned, 0, one.astype(dtype)) for one in (log_rows, logits))
    temperature = jnp.asarray(temperature, dtype)
    classes = jnp.sum(~banned, axis=-1, dtype=jnp.int32).astype(dtype)
    tilted = jnp.where(banned, -jnp.inf, phi - temperature * y)
    total = jnp.sum(phi - (temperature + 1) * y, axis=-1)
    # The logarithm of (classes - 1)!, as a sum: newer JAX reads lgamma off a table, which it cannot
    # do for a batch that is spread over a mesh of explicit axes.
    counted = jnp.arange(1, logits.shape[-1], dtype=dtype)
    counted = jnp.expand_dims(counted, range(classes.ndim))
    factorial = jnp.sum(jnp.where(counted < classes[..., None], jnp.log(counted), 0), axis=-1)
    start = factorial + (classes - 1) * jnp.log(temperature)
    return start + total - classes * jax.nn.logsumexp(tilted, axis=-1)


def reparametrise(sample: jax.Array, cdf: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Give samples the gradient that they have if their quantiles are held fixed.

    ``dz/dtheta = -(dF(z; theta)/dtheta) / (dF/dz)``: the sample moves so that its value of the
    distribution function stays. So no inverse is needed, and any sampler will do. Of first order:
    the slope itself is a constant.

    Args:
        sample: floats of any shape, drawn in any way from laws with this distribution function.
        cdf: maps numbers of that shape to the distribution function at each, elementwise, smooth in
            whatever parameters it closes over.

    Returns:
        the same numbers, with that gradient for the parameters; 0 where the density is too small
        to divide by.

    Raises:
        ValueError: no floats, no function, or one that gives another shape.

    Reference: Figurnov, Mohamed and Mnih 2018, "Implicit Reparameterization Gradients", arXiv
    1805.08498.

    Example:
        >>> from sparse_hyper_jax.estimators import reparametrise
        >>> def squares(mean):
        ...     z = mean + jax.random.normal(jax.random.key(0), (1000,))  # any sampler
        ...     z = reparametrise(z, lambda z: jax.scipy.stats.norm.cdf(z - mean))
        ...     return jnp.mean(z**2), jnp.mean(z)
        >>> slope, mean = jax.grad(squares, has_aux=True)(2.0)
        >>> bool(jnp.allclose(slope, 2 * mean, rtol=1e-4))  # dz/dmean is 1
        True
    """
    sample = as_array("sample", sample, "floats")
    check_function("cdf", cdf)
    fixed = jax.lax.stop_gradient(at_least_float32(sample))
    levels, density = jax.jvp(cdf, (fixed,), (jnp.ones_like(fixed),))
    checks.require(
        jnp.shape(levels) == fixed.shape,
        f"a distribution function of shape {jnp.shape(levels)} for samples of {fixed.shape}",
        "a number for each sample",
        "write it elementwise",
    )
    density = jax.lax.stop_gradient(density)
    regular = ~(density < jnp.finfo(density.dtype).tiny)  # so that NaN comes out
    step = (levels - jax.lax.stop_gradient(levels)) / jnp.where(regular, density, 1)
    return (fixed - jnp.where(regular, step, 0)).astype(sample.dtype)


def _enter(name: str, rows: jax.Array) -> jax.Array:
    rows = as_array(name, rows)
    checks.require(
        rows.ndim >= 1 and rows.shape[-1] >= 1,
        f"{name} of shape {rows.shape}",
        "(..., C) with at least one class",
        f"give {name} a last axis with one number per class",
    )
    return at_least_float32(rows)
