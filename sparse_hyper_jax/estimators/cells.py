"""The tuples of a hyperlayer as discrete choices: every tuple picks one cell.

Either among the points that the hyperlayer would share its value with (``cell_choices``, for any
estimator), or by rounding a draw of its Gaussian (``sample_cells``, for the score function alone).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function, check_random_key
from sparse_hyper_jax.estimators.estimator import Objective, check_scalar
from sparse_hyper_jax.ops import first_occurrence, log_densities, sample_tuples
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.inside import clip_inside
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.types import LEAST_VARIANCE, ContinuousTuples

Baseline = Literal["none", "leave_one_out"]
BASELINES = get_args(Baseline)


class CellChoices(NamedTuple):
    """The cells among which each of ``k`` tuples chooses, and how likely each of them is.

    Attributes:
        points: int32 ``(k, q, r)``, constants.
        logits: ``(k, q)``, float32 or wider, through which gradient reaches means and variances;
            minus infinity at repeated points.

    Example:
        >>> from sparse_hyper_jax.estimators import CellChoices
        >>> points = jnp.array([[[2], [3]], [[7], [8]]], jnp.int32)
        >>> choices = CellChoices(points, logits=jnp.zeros((2, 2)))
        >>> choices.pick([1, 0]).tolist()  # tuple 0 takes its second cell, tuple 1 its first
        [[3], [7]]
    """

    points: jax.Array
    logits: jax.Array

    def pick(self, classes: jax.Array) -> jax.Array:
        """Give the chosen cells, ``(k, r)``, of classes ``(k,)``; -1 for a class outside."""
        classes = as_array("classes", classes, "integers")
        checks.check_shape("classes", classes, self.points.shape[:1], "one class per tuple")
        found, inside = clip_inside(classes[:, None], self.points.shape[1:2])
        cells = jnp.take_along_axis(self.points, found[..., None], axis=1)[:, 0]
        return jnp.where(inside[:, None], cells, -1)


def cell_choices(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    density: Density = "gaussian",
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
    wrap: bool = False,
) -> CellChoices:
    """Make every tuple a categorical variable over the points that are sampled for it.

    ``P(tuple j picks point p) = d_pj / sum_q d_qj``, the proportions of a context of one tuple.
    With an estimator that is unbiased, the expected loss over the picks gives an unbiased gradient
    for means and variances, given the points; the hyperlayer's own is that of the loss of a
    mixture::

        choices = cell_choices(points_key, tuples, shape, num_global=4)
        loss = expectation(key, choices.logits, lambda z: f(choices.pick(z)), estimator="rloo")

    Args:
        key: a typed key; may be None without global and local points.
        tuples: ``k`` continuous tuples of rank ``r``; their values are not used.
        shape: the ``r`` lengths of the index space.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        num_global: points drawn from all cells; by default the ``2 ** r`` neighbours alone.
        num_local: points drawn from a window around the mean.
        region: the ``r`` lengths of that window.
        wrap: every axis is a circle.

    Returns:
        :class:`CellChoices` with ``q = 2 ** r + num_global + num_local`` classes.

    Raises:
        ValueError: as :func:`~sparse_hyper_jax.ops.sample_tuples`.

    Example:
        >>> from sparse_hyper_jax.estimators import cell_choices, expectation
        >>> from sparse_hyper_jax.ops import ContinuousTuples
        >>> def loss(mean, key=jax.random.key(0)):  # of one tuple, which should be on cell 5
        ...     tuples = ContinuousTuples(mean[None, None], jnp.ones((1, 1)), jnp.ones(1))
        ...     choices = cell_choices(None, tuples, (8,))
        ...     f = lambda z: jnp.abs(choices.pick(z)[0, 0] - 5.0)
        ...     return expectation(key, choices.logits, f, estimator="enumeration")
        >>> loss(jnp.array(2.5)).item(), bool(jax.grad(loss)(2.5) < 0)
        (2.5, True)
    """
    shape = checks.check_index_shape("shape", shape)
    if key is not None:
        check_random_key(key)
    means, variances, _ = enter_tuples(tuples)
    wrap = checks.check_flag("wrap", wrap)
    points = sample_tuples(
        key,
        means,
        shape,
        num_global=num_global,
        num_local=num_local,
        region=region,
        wrap=wrap,
    )
    period = shape if wrap else None

    def of_tuple(points: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
        logits = log_densities(points, mean[None], variance[None], density=density, period=period)
        return jnp.where(first_occurrence(points, shape), logits[:, 0], -jnp.inf)

    return CellChoices(points, jax.vmap(of_tuple)(points, means, variances))


def axis_choices(tuples: ContinuousTuples, shape: Sequence[int]) -> CellChoices:
    """Make every coordinate of every tuple a choice of two: the cell below or above its mean.

    The density of a Gaussian is a product over axes, so the ``k r`` binary variables have the same
    law as the ``k`` choices among neighbours of :func:`cell_choices`; :class:`ARM` needs two
    evaluations however many they are.

    Args:
        tuples: ``k`` continuous tuples of rank ``r``; their values are not used.
        shape: the ``r`` lengths of the index space.

    Returns:
        points ``(k r, 2, 1)`` and logits ``(k r, 2)``; ``pick(z).reshape(k, r)`` are the cells.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax.estimators import axis_choices
        >>> from sparse_hyper_jax.ops import ContinuousTuples
        >>> tuples = ContinuousTuples(jnp.array([[2.0, 5.5]]), jnp.ones((1, 2)), jnp.ones(1))
        >>> choices = axis_choices(tuples, (8, 8))
        >>> chances = np.asarray(jax.nn.softmax(choices.logits))
        >>> print(choices.points[..., 0].tolist(), *chances.round(2))
        [[2, 3], [5, 6]] [0.62 0.38] [0.5 0.5]
    """
    shape = checks.check_index_shape("shape", shape)
    means, variances, _ = enter_tuples(tuples)
    checks.check_last_axis("means", means, len(shape))
    k, r = means.shape
    parts = [
        cell_choices(
            None,
            ContinuousTuples(
                means[:, axis : axis + 1], variances[:, axis : axis + 1], jnp.zeros(k)
            ),
            (size,),
        )
        for axis, size in enumerate(shape)
    ]
    points = jnp.stack([part.points for part in parts], axis=1)
    logits = jnp.stack([part.logits for part in parts], axis=1)
    return CellChoices(points.reshape(k * r, 2, 1), logits.reshape(k * r, 2))


def sample_cells(
    key: jax.Array, means: jax.Array, variances: jax.Array, shape: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """Draw one cell per tuple: a Gaussian sample, rounded and clipped.

    ``t ~ Normal(mu, s)``, ``cell = clip(round(t), 0, S - 1)``; the standard deviation is
    ``sqrt(s)``.

    Args:
        key: a typed key.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units; below 1e-12 they count as 1e-12.
        shape: the ``r`` lengths of the index space.

    Returns:
        int32 cells ``(k, r)`` and the scalar ``sum_jc log Normal(t_jc; mu_jc, s_jc)``, through
        which gradient reaches means and variances, but not ``t``. Where a mean or a variance is
        NaN, so is the scalar, and the cells mean nothing.

    Raises:
        ValueError: no key, or shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax.estimators import sample_cells
        >>> means, variances = jnp.array([[2.2, 9.0]]), jnp.full((1, 2), 1e-6)
        >>> cells, log_probability = sample_cells(jax.random.key(0), means, variances, (8, 8))
        >>> cells.tolist()  # nearly certain: rounded, and clipped to the last cell
        [[2, 7]]
    """
    check_random_key(key)
    shape = checks.check_index_shape("shape", shape)
    means, variances = as_array("means", means), as_array("variances", variances)
    checks.check_tuples(means, variances)
    checks.check_last_axis("means", means, len(shape))
    dtype = wide_dtype(means, variances)
    means = means.astype(dtype)
    deviations = jnp.sqrt(jnp.maximum(variances.astype(dtype), LEAST_VARIANCE))
    noise = jax.random.normal(key, means.shape, dtype)
    drawn = jax.lax.stop_gradient(means + deviations * noise)
    log_probability = jnp.sum(jax.scipy.stats.norm.logpdf(drawn, means, deviations))
    last = jnp.asarray(shape, jnp.int32) - 1
    # Once as floats, so that the cast is safe, and once as integers: 2**31 - 1 is no float32.
    cells = jnp.clip(jnp.round(drawn), 0, last[None].astype(dtype)).astype(jnp.int32)
    return jnp.clip(cells, 0, last[None]), log_probability


def score_function_loss(
    losses: jax.Array, log_probabilities: jax.Array, *, baseline: Baseline = "none"
) -> jax.Array:
    """Average the losses so that the gradient includes that of the drawing.

    The value is the mean loss ``mean_i L_i``; the gradient is::

        mean_i [ grad L_i + (L_i - b_i) grad log p_i ]

    ``b_i`` is 0, or with ``"leave_one_out"`` the mean of the other losses, which keeps the estimate
    unbiased if the draws are independent. Second derivatives are unbiased, too, those of third
    order mean nothing::

        mean_i [ L_i + (L_i - b_i) (d_i + d_i^2 / 2) ],    d_i = log p_i - stop(log p_i)

    Args:
        losses: ``(m,)``, one per draw, to be minimised; counts are as good as floats.
        log_probabilities: ``(m,)`` log densities of the draws.
        baseline: ``"none"`` or ``"leave_one_out"`` (``m >= 2``).

    Returns:
        scalar, float32 or wider.

    Raises:
        ValueError: no draws, shapes that do not agree, an unknown baseline, or one draw to leave
            out of one.

    Reference: Williams 1992; Kool et al. 2019 for the leave-one-out baseline; Foerster et al. 2018,
    arXiv 1802.05098 for higher orders.

    Example:
        >>> from sparse_hyper_jax.estimators import score_function_loss
        >>> losses, logs = jnp.array([1.0, 3.0]), jnp.array([-0.5, -0.7])
        >>> loss = lambda logs: score_function_loss(losses, logs, baseline="leave_one_out")
        >>> loss(logs).item(), jax.grad(loss)(logs).tolist()  # the better draw becomes likelier
        (2.0, [-1.0, 1.0])
    """
    checks.check_choice("baseline", baseline, BASELINES)
    losses = as_array("losses", losses)
    logs = as_array("log_probabilities", log_probabilities)
    checks.check_shape("losses", losses, (None,), "one loss per draw")
    checks.check_shape("log_probabilities", logs, losses.shape, "one per loss")
    count, least = len(losses), 2 if baseline == "leave_one_out" else 1
    checks.require(
        count >= least,
        f"losses of {count} draws",
        f"at least {least} for baseline={baseline!r}",
        "draw more samples",
    )
    dtype = wide_dtype(losses, logs)
    losses, logs = losses.astype(dtype), logs.astype(dtype)
    reward = losses
    if baseline == "leave_one_out":
        # L_i - mean of the others = m / (m - 1) * (L_i - mean of all). The first goes before: a
        # constant in all losses, which means nothing, would round their differences away.
        differences = losses - losses[0]
        reward = (differences - jnp.mean(differences)) * (count / (count - 1))
    # The difference is 0 and its gradient that of the log probability: the value stays the loss.
    drawing = logs - jax.lax.stop_gradient(logs)
    return jnp.mean(losses + reward * (drawing + drawing**2 / 2))


def cell_expectation(
    key: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    shape: Sequence[int],
    f: Objective,
    *,
    num_samples: int = 2,
    baseline: Baseline = "leave_one_out",
) -> jax.Array:
    """Estimate an expected loss of integer cells, and by ``jax.grad`` its gradient.

    ``E_t[f(cells(t))]`` over the draws of :func:`sample_cells`, by the score function: unbiased for
    any ``f``, which needs no gradient with respect to the cells.

    Args:
        key: a typed key.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        shape: the ``r`` lengths of the index space.
        f: maps int32 cells ``(k, r)`` to a real scalar; may close over parameters, whose ordinary
            gradient is included.
        num_samples: draws, evaluated together.
        baseline: see :func:`score_function_loss`.

    Returns:
        scalar: the mean loss of the draws; differentiate it with respect to means and variances,
        up to the second order.

    Raises:
        ValueError: as :func:`sample_cells` and :func:`score_function_loss`, or ``f`` that is no
            function or gives anything but one real number.

    Example:
        >>> from sparse_hyper_jax.estimators import cell_expectation
        >>> f = lambda cells: jnp.sum((cells - 5.0) ** 2)  # of whole numbers
        >>> loss = lambda means, key: cell_expectation(
        ...     key, means, jnp.ones((1, 1)), (8,), f, num_samples=1000
        ... )
        >>> slope = jax.grad(loss)(jnp.array([[3.0]]), jax.random.key(0))
        >>> bool(slope[0, 0] < -3)  # about 2 (3 - 5): upwards
        True
    """
    check_random_key(key)
    check_function("f", f)
    num_samples = checks.check_count("num_samples", num_samples, least=1)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        cells, log_probability = sample_cells(key, means, variances, shape)
        return check_scalar(f(cells)), log_probability

    losses, log_probabilities = jax.vmap(draw)(jax.random.split(key, num_samples))
    return score_function_loss(losses, log_probabilities, baseline=baseline)
