"""Augment, REINFORCE, swap, merge: unbiased gradients from pairs of exchanged random numbers.

A class wins a race: ``z = argmin_i log pi_i - phi_i`` with ``pi`` uniform on the simplex has the
law ``softmax(phi)``. The entries of ``pi`` are exchangeable, so the winner after exchanging two of
them, a pseudo action, is as good a sample; comparing pseudo actions removes most of the variance.

The estimates of a row sum to 0 over its classes, unless one of them is banned.

Reference: Yin, Yue and Zhou 2019, "ARSM: Augment-REINFORCE-Swap-Merge Estimator for Gradient
Backpropagation Through Categorical Variables", arXiv 1905.01413.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.estimators.estimator import (
    Estimate,
    Estimator,
    Objective,
    check_field,
    evaluate,
)
from sparse_hyper_jax.ops.inside import clip_inside
from sparse_hyper_jax.precision import wide_dtype


@dataclass(frozen=True)
class AR(Estimator):
    """Augment and REINFORCE: ``g_kc = f(z) (1 - C pi_kc)``.

    Unbiased, one evaluation, and of such a variance that it is of interest only as the first step
    towards :class:`ARSM`.

    Example:
        >>> from sparse_hyper_jax.estimators import AR
        >>> logits, f = jnp.array([0.5, 0.0, -0.5]), lambda z: (z - 1.0) ** 2
        >>> estimate = AR().estimate(jax.random.key(0), logits, f)
        >>> estimate.samples.shape, bool(jnp.abs(jnp.sum(estimate.gradient)) < 1e-5)
        ((1,), True)
    """

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return 1

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        log_pi = draw_log_pi(key, logits)
        samples = _race_again(log_pi, logits, jnp.zeros((1, 2), jnp.int32))
        values = evaluate(f, samples)
        weights = 1 - logits.shape[1] * jnp.exp(log_pi)
        gradient = values[0] * weights.astype(values.dtype)
        return Estimate(values[0], gradient, samples)


@dataclass(frozen=True)
class ARS(Estimator):
    """Augment, REINFORCE, swap, with ``m`` reference classes drawn without replacement.

    ::

        g_kc = 1/m sum_j (f(z^{c<>j}) - 1/C sum_d f(z^{d<>j})) (1 - C pi_kj)

    where ``z^{c<>j}`` is the pseudo action after exchanging ``pi_c`` and ``pi_j`` in every
    variable. Unbiased. Cheaper than :class:`ARSM` where there are many classes: about ``m C``
    evaluations instead of ``C (C - 1) / 2``.

    Args:
        num_references: ``m``, from 1 to ``C``.

    Raises:
        ValueError: fewer, or more than there are classes.

    Example:
        >>> from sparse_hyper_jax.estimators import ARS, ARSM
        >>> f = lambda z: jnp.sum((z - 7.0) ** 2)
        >>> estimate = ARS(num_references=2).estimate(jax.random.key(0), jnp.zeros((4, 20)), f)
        >>> len(estimate.samples), ARSM().evaluations((4, 20))  # evaluations of f
        (39, 191)
    """

    num_references: int = 1

    def __post_init__(self):
        check_field(self, "num_references", least=1)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        checks.require(
            self.num_references <= shape[-1],
            f"num_references={self.num_references} for {shape[-1]} classes",
            "at most as many as classes",
            "lower num_references, or take ARSM, which uses all",
        )
        return 1 + self.num_references * (shape[-1] - 1)

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        classes, count = logits.shape[1], self.num_references
        pi_key, reference_key = jax.random.split(key)
        log_pi = draw_log_pi(pi_key, logits)
        chosen = jax.random.choice(reference_key, classes, (count,), replace=False)
        # Row 0 is the true action; then every reference with the C - 1 classes that differ.
        others = (chosen[:, None] + jnp.arange(1, classes)[None]) % classes
        pairs = jnp.stack([jnp.broadcast_to(chosen[:, None], others.shape), others], -1)
        pairs = jnp.concatenate([jnp.zeros((1, 2), pairs.dtype), pairs.reshape(-1, 2)])
        samples = _race_again(log_pi, logits, pairs.astype(jnp.int32))
        values = evaluate(f, samples)
        centred = values - values[0]
        # Column j of the table: differences to the true action, which is also entry (j, j).
        table = jnp.zeros((classes, count), values.dtype)
        table = table.at[others, jnp.arange(count)[:, None]].set(centred[1:].reshape(others.shape))
        weights = 1 / count - classes / count * jnp.exp(log_pi[:, chosen])
        return Estimate(jnp.mean(values), _merge(table, weights), samples)


@dataclass(frozen=True)
class ARSM(Estimator):
    """Augment, REINFORCE, swap and merge over all reference classes.

    ::

        g_kc = sum_j (F_cj - 1/C sum_d F_dj) (1/C - pi_kj),    F_cj = f(z^{c<>j})

    with the symmetric table of pseudo actions (entries exchanged in every variable at once).
    Unbiased; exactly 0 where all pseudo actions coincide, as they do once the logits are peaked.
    For one variable close to the true gradient, which :class:`Enumeration` however gives exactly
    and for fewer evaluations; for several, :class:`RLOO` has the smaller variance at equal ones
    (see ``docs/estimators.md``).

    The value is the mean of all evaluations: every pseudo action has the law of a sample.

    Args:
        joint: exchange in all variables at once, ``C (C - 1) / 2 + 1`` evaluations however many
            variables; if false, one variable at a time with the others at the true action: less
            variance for ``K`` times as many.

    Example:
        >>> from sparse_hyper_jax.diagnostics import gradient_report
        >>> from sparse_hyper_jax.estimators import ARSM, Enumeration
        >>> logits, f = jnp.array([0.5, 0.0, -0.5]), lambda z: (z - 1.0) ** 2
        >>> exact = Enumeration().estimate(jax.random.key(0), logits, f).gradient
        >>> estimate = lambda key: ARSM().estimate(key, logits, f).gradient
        >>> report = gradient_report(exact, estimate, jax.random.split(jax.random.key(1), 2000))
        >>> bool(report.largest_z < 4)  # no bias is seen
        True
    """

    joint: bool = True

    def __post_init__(self):
        checks.check_flag("joint", self.joint)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        *variables, classes = shape
        pairs = classes * (classes - 1) // 2
        return 1 + pairs * (1 if self.joint else int(np.prod(variables, dtype=int)))

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        variables, classes = logits.shape
        log_pi = draw_log_pi(key, logits)
        pairs, places = _all_pairs(classes)
        samples = _race_again(log_pi, logits, jnp.asarray(pairs, jnp.int32))
        weights = 1 / classes - jnp.exp(log_pi)
        if self.joint:
            values = evaluate(f, samples)
            table = (values - values[0])[places]
            return Estimate(jnp.mean(values), _merge(table, weights), samples)
        true = samples[0]
        # (K, pairs, K): variable k takes its pseudo action, all others the true one.
        alone = jnp.where(np.eye(variables, dtype=bool)[:, None], samples[None, 1:], true)
        samples = jnp.concatenate([true[None], alone.reshape(-1, variables)])
        values = evaluate(f, samples)
        changed = (values[1:] - values[0]).reshape(variables, -1)
        tables = jnp.pad(changed, ((0, 0), (1, 0)))[:, places]
        gradient = jax.vmap(_merge)(tables, weights[:, None])[:, 0]
        return Estimate(jnp.mean(values), gradient, samples)


@dataclass(frozen=True)
class ARM(ARSM):
    """:class:`ARSM` for two classes, where it takes two evaluations (``K + 1`` if not joint).

    ``g_k = (f(z^{0<>1}) - f(z)) (pi_k0 - 1/2)`` for class 0 and its negative for class 1.

    Raises:
        ValueError: another number of classes, when it estimates.

    Reference: Yin and Zhou 2019, "ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary
    Networks", arXiv 1807.11143.

    Example:
        >>> from sparse_hyper_jax.estimators import ARM
        >>> logits, f = jnp.zeros((10, 2)), lambda z: (jnp.sum(z) - 3.0) ** 2  # ten coins
        >>> estimate = ARM().estimate(jax.random.key(0), logits, f)
        >>> estimate.gradient.shape, len(estimate.samples)  # from two evaluations
        ((10, 2), 2)
    """

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        checks.require(
            shape[-1] == 2, f"{shape[-1]} classes for ARM", "two", "take ARSM for more than two"
        )
        return super().evaluations(shape)


def draw_log_pi(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draw the logarithms of points that are uniform on the simplex, one per row of ``(K, C)``."""
    times = jax.random.exponential(key, logits.shape, logits.dtype)
    # In float32 an exponential variate may be 0.
    logs = jnp.log(jnp.maximum(times, jnp.finfo(times.dtype).tiny))
    return logs - jax.nn.logsumexp(logs, axis=-1, keepdims=True)


def pseudo_actions(log_pi: jax.Array, logits: jax.Array, pairs: Any) -> jax.Array:
    """Give the winners of the race after exchanging pairs of entries, without exchanging them.

    Only two runners change when ``pi_c`` and ``pi_j`` change places: ``c`` then scores
    ``log pi_j - phi_c`` and ``j`` scores ``log pi_c - phi_j``. The winner is the better of these
    and of the best other runner, who is among the first three of the original race: ``O(1)`` per
    pair after one search. Ties go to the lower class.

    Args:
        log_pi: ``(K, C)`` logarithms of points on the simplex.
        logits: ``(K, C)``.
        pairs: int ``(P, 2)``, classes to be exchanged; a pair of equal ones, or with one outside
            of ``[0, C)``, changes nothing.

    Returns:
        int32 ``(P, K)``; of a row with NaN they mean nothing.

    Raises:
        ValueError: shapes that do not agree.

    Reference: the module's.

    Example:
        >>> from sparse_hyper_jax.estimators import pseudo_actions
        >>> log_pi, logits = jnp.log(jnp.array([[0.2, 0.3, 0.5]])), jnp.zeros((1, 3))
        >>> pairs = [[0, 0], [0, 1], [0, 2]]  # the first changes nothing: the least of all wins
        >>> pseudo_actions(log_pi, logits, pairs).tolist()
        [[0], [1], [2]]
    """
    log_pi, logits = as_array("log_pi", log_pi), as_array("logits", logits)
    pairs = as_array("pairs", pairs, "integers")
    checks.check_shape("log_pi", log_pi, (None, None), "(K, C): one row per variable")
    checks.check_shape("logits", logits, log_pi.shape, "the shape of log_pi")
    checks.check_shape("pairs", pairs, (None, 2), "(P, 2): two classes to be exchanged")
    pairs, inside = clip_inside(pairs, (log_pi.shape[1],) * 2)
    dtype = wide_dtype(log_pi, logits)
    rows = log_pi.astype(dtype), logits.astype(dtype)
    return _race_again(*rows, jnp.where(inside[:, None], pairs, 0))


def _race_again(log_pi: jax.Array, logits: jax.Array, pairs: jax.Array) -> jax.Array:
    """Do what :func:`pseudo_actions` says for int32 pairs, without checks."""
    classes = log_pi.shape[1]
    first, second = pairs.T

    def of_row(log_pi: jax.Array, logits: jax.Array) -> jax.Array:
        race = log_pi - logits
        # top_k puts the lower of two equal runners first, as the tie rule wants.
        _, leaders = jax.lax.top_k(-race, min(3, classes))
        entered = (leaders[None] != first[:, None]) & (leaders[None] != second[:, None])
        best = leaders[jnp.argmax(entered, axis=-1)].astype(jnp.int32)
        scores = (
            # With two classes there may be no other runner.
            jnp.where(entered.any(axis=-1), race[best], jnp.inf),
            log_pi[second] - logits[first],
            log_pi[first] - logits[second],
        )
        winning = reduce(jnp.minimum, scores)
        runners = zip(scores, (best, first, second), strict=True)
        return reduce(
            jnp.minimum, [jnp.where(score == winning, runner, classes) for score, runner in runners]
        )

    return jax.vmap(of_row, out_axes=1)(log_pi, logits)


def _all_pairs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """List no exchange, then all pairs; and where in that list each entry of the table stands."""
    rows, columns = np.triu_indices(classes, 1)
    pairs = np.concatenate([np.zeros((1, 2), int), np.stack([rows, columns], -1)])
    places = np.zeros((classes, classes), int)
    places[rows, columns] = places[columns, rows] = np.arange(1, len(pairs))
    return pairs, places


def _merge(table: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum a table ``(C, m)``, centred over its classes, with weights ``(K, m)``: ``(K, C)``."""
    centred = table - jnp.mean(table, axis=0, keepdims=True)
    weights = weights.astype(table.dtype)
    return jnp.matmul(weights, centred.T, precision=jax.lax.Precision.HIGHEST)
