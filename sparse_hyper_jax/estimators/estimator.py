"""What every estimator shares: one signature, and the shapes and dtypes that go with it."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function, check_random_key
from sparse_hyper_jax.precision import at_least_float32, wide_dtype

Objective = Callable[[jax.Array], Any]
"""``f``: classes, or rows that sum to one, to a scalar."""


class Estimate(NamedTuple):
    """An estimate of ``E[f(z)]`` and of its gradient, from ``n`` evaluations of ``f``.

    Attributes:
        value: scalar, float32 or wider; differentiable in the parameters of ``f``, with the
            samples held fixed.
        gradient: ``(..., C)``, the estimate of ``d E[f(z)] / d logits``.
        samples: int32 ``(n, ...)``, the classes that were drawn.
    """

    value: jax.Array
    gradient: jax.Array
    samples: jax.Array


class Estimator(abc.ABC):
    """A way to estimate the gradient of ``E_{z ~ softmax(logits)}[f(z)]`` in the logits.

    Independent categorical variables with ``C`` classes each; any number of them, on the leading
    axes of the logits. A subclass says what it does with rows ``(K, C)``.
    """

    relaxed: ClassVar[bool] = False
    """Whether ``f`` is differentiated: it then gets rows ``(..., C)`` instead of classes."""

    def estimate(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate value and gradient of one instance; batches come by ``jax.vmap``.

        Args:
            key: a typed key.
            logits: ``(..., C)``; minus infinity bans a class. Integers and 16 bits count as
                float32.
            f: maps int32 classes ``(...)`` to a scalar; where :attr:`relaxed`, floating rows
                ``(..., C)``, each of which sums to one, and is differentiated.

        Returns:
            an :class:`Estimate`. The gradient is 0 at banned classes; all is NaN where a logit is
            NaN or plus infinity, or where every class of a variable is banned; see the page Rules
            of the documentation.

        Raises:
            ValueError: no key, logits without classes, an ``f`` that is no function or gives
                anything but one real number, or options that do not fit the shape.
        """
        check_random_key(key)
        check_function("f", f)
        logits = check_logits(logits)
        shape = logits.shape
        *variables, classes = shape
        rows = jax.lax.stop_gradient(logits)
        # A constant in the logits, which means nothing, could be so large that noise is rounded
        # away. A row without any class that is not banned becomes NaN.
        rows -= jnp.max(rows, axis=-1, keepdims=True)
        given = shape if self.relaxed else tuple(variables)
        count = self.evaluations(shape)
        checks.require(
            count <= MOST_EVALUATIONS,
            f"logits of shape {shape}, for which {type(self).__name__} has too much to evaluate",
            f"at most {MOST_EVALUATIONS} evaluations of f",
            "take an estimator whose number of evaluations can be chosen, such as RLOO",
        )

        def scalar_of(z: jax.Array) -> jax.Array:
            value = check_scalar(f(z.reshape(given)), smooth=self.relaxed)
            return value.astype(wide_dtype(value, rows))

        value, gradient, samples = self.estimate_rows(key, rows.reshape(-1, classes), scalar_of)
        # What is not a number is not hidden by drawing some class.
        spoilt = jnp.where(jnp.any(jnp.isnan(rows)), jnp.nan, 0.0)
        return Estimate(
            value + spoilt,
            jnp.where(jnp.isneginf(rows), 0, gradient.reshape(shape)) + spoilt,
            samples.astype(jnp.int32).reshape(len(samples), *variables),
        )

    @abc.abstractmethod
    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for ``K`` variables in rows.

        Args:
            key: a typed key.
            logits: ``(K, C)``, float32 or wider, without gradient.
            f: maps ``(K,)``, or ``(K, C)`` where :attr:`relaxed`, to a floating scalar.
        """

    @abc.abstractmethod
    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f`` per estimate.

        Args:
            shape: ``(..., C)``, that of the logits.

        Raises:
            ValueError: options that do not fit the shape.
        """


MANY_CLASSES = 256
"""Above that, chances are too small beside the ``2 ** -23`` between two uniform numbers."""

MOST_EVALUATIONS = 2**20
"""More evaluations of ``f`` in one estimate are taken for a mistake."""


def check_field(estimator: Estimator, name: str, least: int, most: int | None = None) -> None:
    """Check the count in a field of a frozen estimator, and keep it as an int of Python.

    Raises:
        ValueError: as :func:`~sparse_hyper_jax.checks.check_count`.
    """
    count = checks.check_count(name, getattr(estimator, name), least, most)
    object.__setattr__(estimator, name, count)


def check_logits(logits: Any) -> jax.Array:
    """Return logits in float32 or wider after checking that there are classes to choose from.

    Raises:
        ValueError: a scalar, an empty array, or no real numbers.
    """
    logits = as_array("logits", logits)
    checks.require(
        logits.ndim >= 1 and math.prod(logits.shape) >= 1,
        f"logits of shape {logits.shape}",
        "(..., C): one row of C >= 1 classes per variable",
        "put the classes on the last axis",
    )
    return at_least_float32(logits)


def check_scalar(value: Any, *, name: str = "f", smooth: bool = False) -> jax.Array:
    """Return what a function gave as a floating scalar.

    Args:
        value: what it gave.
        name: the function's.
        smooth: whether it is differentiated.

    Raises:
        ValueError: another shape, no real number, or integers from a function that is
            differentiated.
    """
    value = as_array(f"what {name} returned", value)
    checks.require(
        not smooth or jnp.issubdtype(value.dtype, jnp.floating),
        f"{name} that returns {value.dtype}",
        "floats: this estimator differentiates it",
        "make it smooth in the rows, or take an estimator that needs values only",
    )
    checks.require(
        value.shape == (),
        f"{name} that returns shape {value.shape}",
        "a scalar, the loss of one choice for one instance",
        "sum inside it; take batches by jax.vmap over the whole estimate",
    )
    return at_least_float32(value)


def draw(key: jax.Array, logits: jax.Array, count: int) -> jax.Array:
    """Draw ``count`` times from every row of ``(K, C)``: int32 ``(count, K)``."""
    variables, classes = logits.shape
    if classes > MANY_CLASSES:
        return jax.random.categorical(key, logits, shape=(count, variables)).astype(jnp.int32)
    # One uniform number per draw and its place among the cumulative probabilities: Gumbel noise
    # would take C random numbers and logarithms for it.
    chances = jax.nn.softmax(logits)
    # A sum over many may step up by rounding where a class is banned.
    cumulative = jnp.where(chances > 0, jnp.cumsum(chances, axis=-1), 0)
    uniform = jax.random.uniform(key, (count, variables), chances.dtype)
    level = jnp.max(cumulative, axis=-1)[None] * (1 - uniform)  # above 0, at most the largest
    return jnp.argmax(cumulative[None] >= level[..., None], axis=-1).astype(jnp.int32)


def evaluate(f: Objective, samples: jax.Array) -> jax.Array:
    """Evaluate ``f`` at every sample, together: ``(n, K)`` to ``(n,)``."""
    return jax.vmap(f)(samples)


def sum_of_scores(weights: jax.Array, samples: jax.Array, logits: jax.Array) -> jax.Array:
    """Sum weighted scores: ``sum_s w_s grad log p(z_s)``, where a row's score is ``e_z - p``.

    Args:
        weights: ``(n,)``.
        samples: int ``(n, K)``.
        logits: ``(K, C)``.

    Returns:
        ``(K, C)``.
    """
    chosen = jax.nn.one_hot(samples, logits.shape[1], dtype=weights.dtype)
    hits = jnp.einsum("n,nkc->kc", weights, chosen, precision=jax.lax.Precision.HIGHEST)
    return hits - jnp.sum(weights) * jax.nn.softmax(logits).astype(weights.dtype)
