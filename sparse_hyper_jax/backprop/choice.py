"""A choice of components of a cotangent: who makes it, and what is done with it.

Cotangents here are matrices ``(rows, n)``: one row per example, one column per unit.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.placement import placed_like, with_whole_rows
from sparse_hyper_jax.precision import wide_dtype


class Choice(NamedTuple):
    """What a sparsifier decided about a cotangent ``(rows, n)``.

    Attributes:
        columns: ``(c,)`` distinct int32 units that all rows share, or None for all ``n``.
        weights: ``(rows, c)`` or ``(rows, n)``, what the components are multiplied by (0 drops
            one); a scalar for all of them, or None for 1.

    Example:
        >>> from sparse_hyper_jax.backprop import UnifiedTopK
        >>> choice = UnifiedTopK(2).choose(None, jnp.array([[3.0, 1.0, 2.0], [1.0, 0.0, 4.0]]))
        >>> choice.columns.tolist(), choice.weights  # columns 2 and 0, each as it is
        ([2, 0], None)
    """

    columns: jax.Array | None
    weights: jax.Array | None


class Sparsifier(ABC):
    """Base class; your own are frozen dataclasses (``eq=False``) that define ``choose``.

    Example:
        >>> from dataclasses import dataclass
        >>> from sparse_hyper_jax.backprop import Choice, Sparsifier, sparsify
        >>> @dataclass(frozen=True, eq=False)
        ... class Positive(Sparsifier):
        ...     def choose(self, key, cotangent, peak=None):
        ...         return Choice(None, cotangent > 0)
        >>> sparsify(None, jnp.array([[1.0, -2.0, 3.0]]), Positive()).tolist()
        [[1.0, 0.0, 3.0]]
    """

    needs_key: ClassVar[bool] = False
    needs_peak: ClassVar[bool] = False

    @property
    def unbiased(self) -> bool:
        """Whether the mean over keys is the cotangent; what is left over is then no memory."""
        return False

    # With types: k=1 (one component) and k=1.0 (all) are equal numbers in Python, and a program
    # compiled for one must not be taken for the other.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sparsifier) and _typed(self) == _typed(other)

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


def _typed(sparsifier: Sparsifier) -> tuple[type, dict[str, Any]]:
    options = {name: (type(value), value) for name, value in vars(sparsifier).items()}
    return type(sparsifier), options


def check_no_residue(sparsifier: Sparsifier) -> None:
    """Raise for a sparsifier whose rest must not be kept.

    An unbiased one multiplies what it takes by ``1 / p``. Of a component that it took, the rest is
    ``(1 - 1/p) a``: the mean square of the memory grows by ``eta**2 (1/p - 1)`` in every step.

    Raises:
        ValueError: the sparsifier is unbiased.
    """
    checks.require(
        not sparsifier.unbiased,
        f"{sparsifier!r} with a memory of what it leaves over",
        "no such memory for an unbiased sparsifier: it would grow without bound",
        "pass rescale=False, another sparsifier, or no residue",
    )


def budget(k: float, n: int) -> int:
    """Turn a budget into a number of components: an int as it is, a float as share of n.

    Raises:
        ValueError: fewer than 1 or more than n components, or a share outside (0, 1].
    """
    check_budget("k", k)
    if isinstance(k, float | np.floating):
        return max(1, round(float(k) * n))
    checks.require(
        int(k) <= n, f"k={k} of {n} components", f"at most {n}", "lower k or pass a share"
    )
    return int(k)


def check_budget(name: str, k: Any) -> None:
    """Raise unless this may be a budget: a count, or a share of what there is.

    Raises:
        ValueError: fewer than 1 component, a share outside (0, 1], or no static number.
    """
    if isinstance(k, float | np.floating):
        fits = 0 < float(k) <= 1
        checks.require(fits, f"{name}={k}", "a share in (0, 1]", "or pass an int for a count")
    else:
        checks.check_count(name, k, least=1)


def check_static(name: str, number: Any, **limits: float) -> None:
    """Raise unless this is a number that a sparsifier, a static description, can hold.

    Raises:
        ValueError: no real number, an array, or beyond a limit of :func:`checks.check_number`.
    """
    checks.require(
        not isinstance(number, jax.Array), f"{name}={number!r}", "a static number", "pass a float"
    )
    checks.check_number(name, number, **limits)


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

    Example:
        >>> from sparse_hyper_jax.backprop import RandomK, TopK, sparsify
        >>> cotangent = jnp.array([[3.0, -1.0, 2.0, 0.5]])
        >>> sparsify(None, cotangent, TopK(2)).tolist()
        [[3.0, 0.0, 2.0, 0.0]]
        >>> draw = lambda key: sparsify(key, cotangent, RandomK(2))
        >>> draws = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000))
        >>> bool(jnp.allclose(jnp.mean(draws, axis=0), cotangent, atol=0.2))  # unbiased
        True
    """
    cotangent = as_array("cotangent", cotangent, "floats")
    checks.check_shape("cotangent", cotangent, (None, None), "(rows, n): one row per example")
    check_sparsifier(sparsifier)
    check_key(sparsifier, key)
    checks.require(
        not sparsifier.needs_peak,
        f"{type(sparsifier).__name__}, whose budget depends on earlier steps",
        "a sparsifier without a state",
        "pass it to sparsify_cotangent or sparse_dense, with a memory",
    )
    whole = with_whole_rows(cotangent)
    choice = sparsifier.choose(key, whole)
    return placed_like(spread(take(whole, choice), choice, whole.shape[-1]), cotangent)


def check_sparsifier(sparsifier: Any) -> None:
    """Raise unless it is a sparsifier.

    Raises:
        ValueError: something else.
    """
    checks.require(
        isinstance(sparsifier, Sparsifier),
        f"sparsifier={sparsifier!r}",
        "a Sparsifier, for instance TopK(0.04)",
        "make one from sparse_hyper_jax.backprop",
    )


def check_key(sparsifier: Sparsifier, key: jax.Array | None) -> None:
    """Raise if a random sparsifier has no key, or what is passed is none.

    Raises:
        ValueError: otherwise.
    """
    if sparsifier.needs_key:
        require_key(sparsifier, key)
    if key is not None:
        check_random_key(key)


def require_key(sparsifier: Sparsifier, key: jax.Array | None) -> jax.Array:
    """Return the key of a random sparsifier.

    Raises:
        ValueError: it has none.
    """
    return checks.require_given(
        key,
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
    wide = wide_dtype(taken, choice.weights)
    weighed = taken.astype(wide) * choice.weights.astype(wide)
    return jnp.where(choice.weights == 0, 0, weighed).astype(cotangent.dtype)


def spread(taken: jax.Array, choice: Choice, n: int) -> jax.Array:
    """Put propagated components back into ``(rows, n)``, zeros elsewhere."""
    return taken if choice.columns is None else place_columns(taken, choice.columns, n)


def place_columns(part: jax.Array, columns: jax.Array, n: int) -> jax.Array:
    """Give the matrix ``(rows, n)`` with the given columns, zeros elsewhere.

    Every column looks up where it comes from. A scatter into columns writes one number after the
    other, and takes six times as long or more on a CPU.

    Args:
        part: ``(rows, c)``.
        columns: ``(c,)`` distinct int32.
        n: number of columns.
    """
    source, given = _sources(columns, n)
    found = part.at[:, source].get(mode="promise_in_bounds")
    return jnp.where(given[None], found, jnp.zeros((), part.dtype))  # of flags, too


def place_rows(part: jax.Array, rows: jax.Array, n: int) -> jax.Array:
    """Give the matrix ``(n, m)`` with the given rows, zeros elsewhere.

    Args:
        part: ``(c, m)``.
        rows: ``(c,)`` distinct int32.
        n: number of rows.
    """
    source, given = _sources(rows, n)
    return jnp.where(given[:, None], part.at[source].get(mode="promise_in_bounds"), 0)


def _sources(places: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Give for each of n places which one comes there (0 if none does), and whether one does."""
    number = jnp.arange(places.shape[0], dtype=jnp.int32)
    source = jnp.full(n, -1, jnp.int32).at[places].set(number, unique_indices=True)
    return jnp.maximum(source, 0), source >= 0


def left_over(cotangent: jax.Array, taken: jax.Array, choice: Choice) -> jax.Array:
    """Give what is not propagated: ``g - S(g)``, exactly 0 where all of a component is."""
    columns, weights = choice
    n = cotangent.shape[-1]
    if columns is not None and weights is None:
        keep = jnp.ones(n, bool).at[columns].set(False, unique_indices=True)
        return jnp.where(keep[None], cotangent, 0)
    if weights is not None and weights.dtype == jnp.bool_:
        # Not by a difference: infinity minus infinity would stay in the memory for good.
        return jnp.where(spread(weights, choice, n), 0, cotangent)
    return cotangent - spread(taken, choice, n)


def count_units(choice: Choice, shape: tuple[int, ...]) -> jax.Array:
    """Count in how many of the rows each unit is propagated: ``(n,)``."""
    rows, n = shape
    if choice.weights is None or choice.weights.ndim == 0:
        chosen = jnp.asarray(rows, jnp.float32)
    else:
        chosen = jnp.sum(choice.weights.astype(bool), axis=0, dtype=jnp.float32)
    if choice.columns is None:
        return chosen
    return jnp.zeros(n, jnp.float32).at[choice.columns].set(chosen, unique_indices=True)
