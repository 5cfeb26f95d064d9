"""What lags a trained model reads, what each is worth, and how far to believe it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import ops
from sparse_hyper_jax.train.data.lag_tasks import LagTask
from sparse_hyper_jax.train.data.time_parts import SeriesParts
from sparse_hyper_jax.train.models.lag_perceptron import (
    LagFit,
    LagModel,
    Parameters,
    Windows,
    head,
    pre_activations,
)

CHUNK = 8
"""Windows that are judged at a time: memory grows with them."""

JUDGED = 2**13
"""Most rows by which importance is judged."""

NEAR = 1
"""Steps within which two lags count as the same: neighbours often stand for each other."""

SHOWN = 3
"""Channels that are named at a lag."""

REPORT_SEED = 2**31 - 1


class LagReport(NamedTuple):
    """Lags of one model, the most important first, and curves over all candidates."""

    lags: np.ndarray
    """``(k,)``, rows from the input to its target."""

    importance: np.ndarray
    """``(k,)``, by how much the validation loss rises without this lag, all else unchanged."""

    errors: np.ndarray
    """``(k,)``, standard errors of these rises, from window to window."""

    by_channel: np.ndarray
    """``(k, C)``, the same without one channel at this lag."""

    first: np.ndarray
    """``(reach,)``, gains before anything is placed, where 1 is the largest by chance."""

    left: np.ndarray
    """``(reach,)``, what is left beyond the lags, likewise; NaN on these."""


def make_measure(model: LagModel, length: int) -> Callable[[Parameters, ops.Taps, Any], jax.Array]:
    """Make ``measure(parameters, taps, part) -> losses``, one of each window that counts.

    Their mean is the loss of the part, as each is scaled by the rows that count in its window.
    """

    def measure(parameters: Parameters, taps: ops.Taps, part: Any) -> jax.Array:
        windows = model.all_windows(part, length)
        count = len(windows.inputs)
        rows = jnp.sum(windows.counted) / count

        def loss(window: Windows) -> jax.Array:
            single = jax.tree.map(lambda leaf: leaf[None], window)
            return model.loss_of(parameters, taps, single) * jnp.sum(window.counted) / rows

        return jax.lax.map(loss, windows, batch_size=min(CHUNK, count))

    return measure


def make_rises(
    model: LagModel, length: int
) -> Callable[[LagFit, Any], tuple[jax.Array, jax.Array]]:
    """Make ``rises(fit, part)``: what the loss of each window rises by without a lag, or a channel.

    Exact, from one pass through the lag layer: what a lag adds is taken from its output again. The
    rows are those of some windows, evenly spread.

    Returns:
        ``rises(fit, part) -> (windows, k), (windows, k, C)``.
    """

    @jax.jit
    def rises(fit: LagFit, part: Any) -> tuple[jax.Array, jax.Array]:
        windows = model.all_windows(part, length)
        count = len(windows.inputs)
        chosen = np.arange(min(count, max(1, JUDGED // length)))
        chosen = chosen * count // len(chosen)
        lags = fit.taps.positions[:, 0], fit.parameters["lags"]

        def of_window(window: Windows) -> tuple[jax.Array, jax.Array]:
            single = jax.tree.map(lambda leaf: leaf[None], window)
            before = pre_activations(fit.parameters, fit.taps, single.inputs)

            def loss(taken: jax.Array) -> jax.Array:
                return model.loss(head(fit.parameters, before - taken), single)

            whole = loss(jnp.zeros_like(before))

            def of_lag(each: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                lag, weights = each
                # The rows that come around from the end are history, which does not count.
                read = jnp.roll(single.inputs, lag, axis=1)
                channels = jax.lax.map(
                    lambda one: loss(one[0][..., None] * one[1]),
                    (jnp.moveaxis(read, -1, 0), weights),
                )
                return loss(read @ weights) - whole, channels - whole

            return jax.lax.map(of_lag, lags)

        return jax.lax.map(of_window, jax.tree.map(lambda leaf: leaf[chosen], windows))

    return rises


def make_report(
    model: LagModel, length: int, *, ahead: int
) -> Callable[[Parameters, LagFit, Any, Any], LagReport]:
    """Make ``report(start, fit, train, validation)``, where ``start`` are initial parameters."""
    rises = make_rises(model, length)

    @jax.jit
    def curves(start: Parameters, fit: LagFit, part: Any) -> tuple[jax.Array, jax.Array]:
        key = jax.random.key(REPORT_SEED)
        windows = model.probed_windows(key, part, length)
        correlation = model.autocorrelation(windows)

        def ratios(parameters: Parameters, taps: ops.Taps) -> jax.Array:
            return model.ratios(model.gains(parameters, taps, windows), taps, correlation)

        none = ops.empty_taps(len(fit.taps.placed))
        return ratios(start, none), ratios(fit.parameters, fit.taps)

    def report(start: Parameters, fit: LagFit, train: Any, validation: Any) -> LagReport:
        of_lags, of_channels = map(np.asarray, rises(fit, validation))
        importance, by_channel = of_lags.mean(axis=0), of_channels.mean(axis=0)
        count = len(of_lags)
        # One window says nothing about how others differ.
        errors = of_lags.std(axis=0) / (count - 1) ** 0.5 if count > 1 else importance * np.nan
        first, left = map(np.asarray, curves(start, fit, train))
        lags = lags_of(fit.taps, ahead)
        slots = np.flatnonzero(np.asarray(fit.taps.placed))
        order = np.argsort(-importance[slots], kind="stable")
        left = np.where(np.isfinite(left), left, np.nan)
        slots, lags = slots[order], lags[order]
        return LagReport(lags, importance[slots], errors[slots], by_channel[slots], first, left)

    return report


def lags_of(taps: ops.Taps, ahead: int) -> np.ndarray:
    """Give the lags of placed taps in the order of their slots, in rows from input to target."""
    return np.asarray(taps.positions)[np.asarray(taps.placed), 0] + ahead


def shares_found(lags: Sequence[int], runs: Sequence[Sequence[int]]) -> list[float]:
    """Give for every lag the share of runs that found it, or one next to it."""
    near = [[any(abs(lag - other) <= NEAR for other in run) for run in runs] for lag in lags]
    return [float(np.mean(row)) for row in near]


def loss_of_mean(model: LagModel, parts: SeriesParts) -> float:
    """Give the test loss of the mean of training, the least that a model has to beat."""
    mean = parts.train.targets[model.reach :].mean(axis=0, dtype=np.float64)
    targets = parts.test.targets[model.reach :].astype(np.float64)
    if not model.binary:
        return float(np.mean((targets - mean) ** 2))
    mean = np.clip(mean, 1e-6, 1 - 1e-6)
    return float(-np.mean(targets * np.log(mean) + (1 - targets) * np.log1p(-mean)))


def told(report: LagReport, task: LagTask) -> dict[str, Any]:
    """Give the figures of a report, and what is known of the task beside them."""
    figures: dict[str, Any] = {
        "lags": report.lags,
        "importance": report.importance,
        "importance_error": report.errors,
        "strongest": [strongest(row, task.names) for row in report.by_channel],
    }
    if task.known:
        found = set(task.known) & set(report.lags.tolist())
        figures |= {"known_lags": list(task.known), "known_lags_found": len(found)}
    if task.floor is not None:
        figures["floor"] = task.floor
    if task.last is not None:
        figures["test_mse_of_last"] = task.last
    return figures


def strongest(rises: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Give the channels that matter most at a lag, with their importance.

    A channel with a twentieth of the importance of the first is left out.
    """
    order: list[int] = np.argsort(-rises, kind="stable")[:SHOWN].tolist()
    least = max(0.05 * float(rises[order[0]]), 0.0)
    return {names[one]: float(rises[one]) for one in order if rises[one] > least}


def table_of(report: LagReport, found_in: Sequence[float], names: Sequence[str]) -> list[str]:
    """Write the report as lines of text."""
    lines = ["   lag      importance      found in  strongest inputs"]
    for lag, worth, error, share, row in zip(
        report.lags, report.importance, report.errors, found_in, report.by_channel, strict=True
    ):
        inputs = ", ".join(f"{name} {rise:.3g}" for name, rise in strongest(row, names).items())
        lines.append(f"{lag:6d}  {worth:8.4f} ± {error:6.4f}  {share:8.0%}  {inputs}")
    return lines
