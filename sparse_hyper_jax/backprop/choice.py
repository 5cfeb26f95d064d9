"""A choice of components of a cotangent: who makes it, and what is done with it.

Cotangents here are matrices ``(rows, n)``: one row per example, one column per unit.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks


class Choice(NamedTuple):
    """What a sparsifier decided about a cotangent ``(rows, n)``.

    Attributes:
        columns: ``(c,)`` distinct int32 units that all rows share, or None for all ``n``.
        weights: ``(rows, c)`` or ``(rows, n)``, what the components are multiplied by (0 drops
            one); a scalar for all of them, or None for 1.
    """

    columns: jax.Array | None
    weights: jax.Array | None


class Sparsifier(ABC):
    """Base class; your own are frozen dataclasses (``eq=False``) that define ``choose``."""

    needs_key: ClassVar[bool] = False
    needs_peak: ClassVar[bool] = False

    # By text and not by fields: k=1 (one component) and k=1.0 (all) are equal numbers in Python,
    # and a program compiled for one must not be taken for the other.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @abstractmethod
    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Decide what to propagate.

        Args:
            key: a typed key, used by random sparsifiers.
            cotangent: ``(rows, n)``.
            peak: scalar, the largest row sum of magnitudes so far, used by adaptive ones.
        """


def budget(k: float, n: int) -> int:
    """Turn a budget into a number of components: an int as it is, a float as share of n.

    Raises:
        ValueError: fewer than 1 or more than n components, or a share outside (0, 1].
    """
    if isinstance(k, float):
        checks.require(0 < k <= 1, f"k={k}", "a share in (0, 1]", "or pass an int for a count")
        return max(1, round(k * n))
    checks.check_count("k", k, least=1)
    checks.require(k <= n, f"k={k} of {n} components", f"at most {n}", "lower k or pass a share")
    return k


def sparsify(key: jax.Array | None, cotangent: jax.Array, sparsifier: Sparsifier) -> jax.Array:
    """Apply a sparsifier to a matrix: ``S(g)``, without any differentiation.

    Args:
        key: a typed key, or None for sparsifiers that are not random.
        cotangent: ``(rows, n)``.
        sparsifier: which one.

    Returns:
        ``(rows, n)`` in the dtype of the cotangent.

    Raises:
        ValueError: no matrix, a missing key, a budget that does not fit.
    """
    checks.check_shape("cotangent", cotangent, (None, None), "(rows, n): one row per example")
    check_sparsifier(sparsifier, key)
    checks.require(
        not sparsifier.needs_peak,
        f"{type(sparsifier).__name__}, whose budget depends on earlier steps",
        "a sparsifier without a state",
        "pass it to sparsify_cotangent or sparse_dense, with a memory",
    )
    cotangent = jnp.asarray(cotangent)
    choice = sparsifier.choose(key, cotangent)
    return spread(take(cotangent, choice), choice, cotangent.shape[-1])


def check_sparsifier(sparsifier: Any, key: jax.Array | None) -> None:
    """Raise unless it is a sparsifier, and has a key if it is random.

    Raises:
        ValueError: something else, or no key.
    """
    checks.require(
        isinstance(sparsifier, Sparsifier),
        f"sparsifier={sparsifier!r}",
        "a Sparsifier, for instance TopK(0.04)",
        "make one from sparse_hyper_jax.backprop",
    )
    checks.require(
        key is not None or not sparsifier.needs_key,
        f"key=None with {type(sparsifier).__name__}",
        "a typed key for a random sparsifier",
        "pass jax.random.key(...), a fresh one for every step and layer",
    )


def take(cotangent: jax.Array, choice: Choice) -> jax.Array:
    """Give the propagated components ``(rows, c)``, or ``(rows, n)`` without columns."""
    taken = cotangent if choice.columns is None else cotangent[:, choice.columns]
    if choice.weights is None:
        return taken
    if choice.weights.dtype == jnp.bool_:
        return jnp.where(choice.weights, taken, 0)
    # A product would let NaN pass where the weight is 0, and turn infinity into NaN.
    return jnp.where(choice.weights == 0, 0, taken * choice.weights).astype(cotangent.dtype)


def spread(taken: jax.Array, choice: Choice, n: int) -> jax.Array:
    """Put propagated components back into ``(rows, n)``, zeros elsewhere."""
    if choice.columns is None:
        return taken
    empty = jnp.zeros((taken.shape[0], n), taken.dtype)
    return empty.at[:, choice.columns].set(taken, unique_indices=True)


def left_over(cotangent: jax.Array, taken: jax.Array, choice: Choice) -> jax.Array:
    """Give what is not propagated: ``g - S(g)``, exactly 0 where all of a component is."""
    n = cotangent.shape[-1]
    if choice.columns is not None and choice.weights is None:
        keep = jnp.ones(n, bool).at[choice.columns].set(False, unique_indices=True)
        return jnp.where(keep, cotangent, 0)
    return cotangent - spread(taken, choice, n)


def count_units(choice: Choice, shape: tuple[int, int]) -> jax.Array:
    """Count in how many of the rows each unit is propagated: ``(n,)``."""
    rows, n = shape
    if choice.weights is None or choice.weights.ndim == 0:
        chosen = jnp.asarray(rows, jnp.float32)
    else:
        chosen = jnp.sum(choice.weights != 0, axis=0, dtype=jnp.float32)
    if choice.columns is None:
        return chosen
    return jnp.zeros(n).at[choice.columns].set(chosen, unique_indices=True)
