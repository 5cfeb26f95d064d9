"""Several models that search for lags side by side, and what is told of them in the end."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import ops
from sparse_hyper_jax.train.best_parameters import BestParameters
from sparse_hyper_jax.train.data.lag_tasks import LagTask
from sparse_hyper_jax.train.data.time_parts import SeriesPart, SeriesParts
from sparse_hyper_jax.train.models.lag_perceptron import (
    LagFit,
    LagModel,
    Probing,
    init_parameters,
    make_fit_step,
)
from sparse_hyper_jax.train.models.lag_report import (
    LagReport,
    lags_of,
    loss_of_mean,
    make_measure,
    make_report,
    shares_found,
    table_of,
    told,
)
from sparse_hyper_jax.train.run_folder import RunFolder

Method = Literal["pursuit", "known", "random", "recent", "given"]


class StudyState(NamedTuple):
    """All restarts in training, with a leading axis for these."""

    fits: LagFit
    count: jax.Array


@dataclass(frozen=True, kw_only=True)
class LagStudy:
    """A task, a model for it, and how it is searched for lags."""

    task: LagTask
    model: LagModel
    probing: Probing
    method: Method

    lags: tuple[int, ...]
    """Behind the newest input, if they are known or given."""

    slots: int
    """Most lags of a model."""

    ahead: int
    restarts: int
    seed: int
    hidden: tuple[int, ...]
    batch: int
    window: int
    optimizer: optax.GradientTransformation
    quiet: bool

    @cached_property
    def parts(self) -> SeriesParts:
        """The three parts on the device."""
        moved = (jax.tree.map(jnp.asarray, part) for part in self.task.parts)
        return SeriesParts(*moved)

    @property
    def metric(self) -> str:
        """Name of the loss."""
        return "cross_entropy" if self.model.binary else "mse"

    def start(self) -> StudyState:
        """Draw all restarts."""
        keys = jax.random.split(jax.random.key(self.seed), self.restarts)
        return StudyState(jax.vmap(self._start)(keys), jnp.zeros((), jnp.int32))

    def _start(self, key: jax.Array) -> LagFit:
        parameter_key, lag_key = jax.random.split(key)
        parameters = init_parameters(
            parameter_key,
            slots=self.slots,
            channels=self.task.parts.train.inputs.shape[1],
            hidden=self.hidden,
            outputs=self.task.parts.train.targets.shape[1],
        )
        return LagFit(parameters, self._taps(lag_key), self.optimizer.init(parameters))

    def _taps(self, key: jax.Array) -> ops.Taps:
        if self.method == "pursuit":
            return ops.empty_taps(self.slots)
        if self.method == "random":
            lags = jax.random.choice(key, self.model.reach, (self.slots,), replace=False)
        else:
            lags = jnp.array(self.lags or range(self.slots))
        return ops.Taps(lags.astype(jnp.int32)[:, None], jnp.ones(self.slots, bool))

    def make_step(self) -> Callable[..., tuple[StudyState, dict[str, jax.Array]]]:
        """Make the training step of all restarts."""
        fit_step = make_fit_step(
            self.model, self.optimizer, self.probing, batch=self.batch, length=self.window
        )

        def step(
            state: StudyState, key: jax.Array, part: SeriesPart
        ) -> tuple[StudyState, dict[str, jax.Array]]:
            keys = jax.random.split(key, self.restarts)
            # One after another: side by side, slices at different lags would become gathers.
            fits, losses = jax.lax.map(
                lambda each: fit_step(each[0], each[1], state.count, part), (state.fits, keys)
            )
            return StudyState(fits, state.count + 1), {"loss": jnp.mean(losses)}

        return step

    @cached_property
    def _losses(self) -> Callable[[LagFit, Any], jax.Array]:
        measure = make_measure(self.model, self.window)
        return jax.jit(
            lambda fits, part: jax.lax.map(
                lambda fit: jnp.mean(measure(fit.parameters, fit.taps, part)), fits
            )
        )

    def evaluate(self, folder: RunFolder, number: int, state: StudyState) -> dict[str, float]:
        """Validate all restarts, and keep of each what is best so far."""
        losses = np.asarray(self._losses(state.fits, self.parts.validation), np.float64)
        placed = np.asarray(state.fits.taps.placed)
        for restart, loss in enumerate(losses):
            _best(folder, restart).offer(-loss, number, _kept(state.fits, restart))
        return {self.metric: float(losses.mean()), "taps": float(placed.sum(axis=1).mean())}

    def finish(self, folder: RunFolder, state: StudyState) -> dict[str, Any]:
        """Report the best restart, draw it, and say how the others agree."""
        restarts = range(self.restarts)
        kept = [_best(folder, one).read(_kept(state.fits, one)) for one in restarts]
        scores, steps, fits = zip(*kept, strict=True)
        chosen = int(np.argmax(scores))
        fit: LagFit = fits[chosen]
        start = _kept(self.start().fits, chosen).parameters
        make = make_report(self.model, self.window, ahead=self.ahead)
        report = make(start, fit, self.parts.train, self.parts.validation)
        runs = [sorted(lags_of(one.taps, self.ahead).tolist()) for one in fits]
        found_in = shares_found(report.lags.tolist(), runs)
        if not self.quiet:
            print("\n".join(table_of(report, found_in, self.task.names)), file=sys.stderr)
        self._draw(folder, report, found_in)
        several = jax.tree.map(lambda leaf: leaf[None], fit)
        metric, test = self.metric, self._losses(several, self.parts.test)[0]
        return told(report, self.task) | {
            "found_in": found_in,
            "restart_lags": runs,
            f"restart_{metric}": [-score for score in scores],
            "best_step": steps[chosen],
            f"validation_{metric}": -scores[chosen],
            f"test_{metric}": float(test),
            f"test_{metric}_of_mean": loss_of_mean(self.model, self.task.parts),
        }

    def _draw(self, folder: RunFolder, report: LagReport, found_in: Sequence[float]) -> None:
        from sparse_hyper_jax.train import lag_plots  # matplotlib is slow to import

        figure = lag_plots.plot_lags(
            report,
            least=self.ahead,
            found_in=found_in,
            known=self.task.known,
            min_gain=self.probing.min_gain if self.probing.probes else None,
            metric=self.metric.replace("_", " "),
            found=self.method == "pursuit",
        )
        folder.save_figure(figure, "lags")


def _kept(fits: LagFit, restart: int) -> LagFit:
    """Give one of the restarts, without what only training needs."""
    return jax.tree.map(lambda leaf: leaf[restart], fits._replace(optimizer=()))


def _best(folder: RunFolder, restart: int) -> BestParameters:
    return BestParameters(folder.path / f"best-{restart}.npz", run=folder.run)
