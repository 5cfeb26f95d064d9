"""Train a recurrent net by truncated backpropagation, with a lag that is chosen by its bias."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.recurrent import (
    LAG_BUCKETS,
    bias_bound,
    choose_lag,
    fit_decay,
    tbptt_windows,
)
from sparse_hyper_jax.train.checkpoint import Checkpoints, own_arrays
from sparse_hyper_jax.train.data.copying import TokenSequences, copy_parts
from sparse_hyper_jax.train.data.text import read_text, text_sequences
from sparse_hyper_jax.train.limits import Count, Positive, Several, said
from sparse_hyper_jax.train.loop import Trained
from sparse_hyper_jax.train.models.lstm import (
    LSTMParameters,
    Pass,
    cross_entropy_of,
    init_lstm,
    make_pass,
    probe,
    probe_windows,
)
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder
from sparse_hyper_jax.train.saving import Saving
from sparse_hyper_jax.train.start import say_start, start_of
from sparse_hyper_jax.train.stopping import noted_signals

COPY_LENGTH = 4000
HELD_OUT = 1000
"""Steps of the validation and of the test sequences of the copy task."""

BURN_IN = 20


class Sequences(NamedTuple):
    """Sequences on the host, and the number of different tokens."""

    train: TokenSequences
    validation: TokenSequences
    test: TokenSequences
    tokens: int


@dataclass(frozen=True, kw_only=True)
class TbpttRecipe(Recipe):
    """Train an LSTM by truncated backpropagation, its lag chosen by its bias (Aicher 2019)."""

    name: ClassVar[str] = "tbptt"

    method: Literal["bound", "measured", "fixed"] = "bound"
    """Choose the lag anew in every epoch, so that the bound of its bias, or the bias measured, is
    below --delta; or keep --lag."""

    lag: Count = 10
    """Steps that every gradient goes back at least, with --method fixed."""

    delta: Positive = 0.5
    """Relative bias that is tolerated; from 1 on nothing is promised."""

    least_lag: Count = 2
    """Smallest lag that may be chosen."""

    largest_lag: Count = 32
    """Largest, and what is chosen where nothing bounds the bias."""

    window: Several = 100
    """Steps of the windows on which gradients are measured by lag, after 20 steps that lead up to
    them; the decay counts from four fifths of them on."""

    positions: Count = 5
    """Windows of every sequence that are measured, after each epoch."""

    task: Literal["copy", "text"] = "copy"
    """Tell symbols again after a delay that is known here; or the next character of a text."""

    delay: Count = 10
    """Copy: most steps from a symbol to where it is told again."""

    least_delay: Count | None = None
    """Copy: least steps; by default --delay."""

    symbols: Several = 6
    """Copy: how many different ones there are."""

    data_dir: Path | None = None
    """Text: folder of one file *.txt or *.txt.gz; by default a text that scikit-learn brings."""

    length: Count | None = None
    """Steps of a training sequence; by default 4000 of the copy task, all that a text has."""

    batch: Count = 64
    """Sequences side by side."""

    width: Count = 32
    """Units of the LSTM."""

    learning_rate: Positive = 1.0
    """Of plain SGD, times the root of the lag."""

    clip: Positive = 1.0
    """Largest length of a gradient."""

    steps: Count = 16
    """Epochs: runs through the training sequences, with an update for every lag's worth of it."""

    def check(self) -> None:
        """Raise also if lags or delays do not fit each other."""
        super().check()
        require(
            self.least_lag <= self.largest_lag,
            said(self, "least_lag", "largest_lag"),
            "the least first",
            "lower --least-lag",
        )
        longest = "lag" if self.method == "fixed" else "largest_lag"
        require(
            getattr(self, longest) <= self.window,
            said(self, longest, "window"),
            "a window of at least the longest lag, to measure its bias",
            "raise --window",
        )
        require(
            self.least_delay is None or self.least_delay <= self.delay,
            said(self, "least_delay", "delay"),
            "the least first",
            "lower --least-delay",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each method and task has its own options."""
        adaptive = ("delta", "least_lag", "largest_lag")
        yield "method", adaptive if self.method == "fixed" else ("lag",)
        yield "task", ("data_dir",) if self.task == "copy" else ("delay", "least_delay", "symbols")

    def load(self) -> Sequences:
        """Draw copy sequences, or read the text."""
        if self.task == "text":
            text = read_text(self.data_dir)
            return Sequences(*text_sequences(text, batch=self.batch, length=self.length))
        delays = range(self.least_delay or self.delay, self.delay + 1)
        lengths = (self.length or COPY_LENGTH, HELD_OUT, HELD_OUT)
        parts = copy_parts(
            self.seed, lengths, batch=self.batch, symbols=self.symbols, delays=delays
        )
        return Sequences(*parts, tokens=self.symbols + 1)

    def settle(self, data: Sequences) -> Self:
        """Settle lengths and delays."""
        steps = len(data.train.inputs)
        require(
            steps >= self.window + BURN_IN,
            f"{said(self, 'window')} with training sequences of {steps} steps",
            f"sequences of at least {BURN_IN} steps more than a window",
            "lower --window or --batch, or raise --length",
        )
        least = None if self.task == "text" else self.least_delay or self.delay
        return replace(self, length=steps, least_delay=least)

    def plan(self, data: Sequences) -> Plan:
        """Train epoch by epoch, each with its own lag."""
        trainer = Trainer(self, data)
        first = self.lag if self.method == "fixed" else self.largest_lag

        def step(parameters: LSTMParameters, key: jax.Array) -> tuple[LSTMParameters, Any]:
            del key
            made = trainer.pass_of(first)(parameters, *data.train)
            return made.parameters, {"loss": made.loss}

        def finish(folder: RunFolder, parameters: LSTMParameters) -> dict[str, Any]:
            draw(folder)
            return trainer.figures(parameters) | summarize(folder.metrics())

        return Plan(step, trainer.start(), finish, fit=trainer.fit)


class Trainer:
    """The data, and the compiled functions of all epochs."""

    def __init__(self, recipe: TbpttRecipe, data: Sequences):
        self.recipe, self.data = recipe, data
        self.pass_of = cache(self._pass_of)

    def start(self) -> LSTMParameters:
        """Draw the parameters."""
        key = jax.random.key(self.recipe.seed)
        return init_lstm(key, tokens=self.data.tokens, width=self.recipe.width)

    def _pass_of(self, lag: int) -> Any:
        recipe = self.recipe
        windows = tbptt_windows(len(self.data.train.inputs), lag)
        # The longer the lag, the fewer updates: each of them steps further.
        rate = recipe.learning_rate * math.sqrt(lag)
        return jax.jit(make_pass(windows, lag=lag, learning_rate=rate, clip=recipe.clip))

    def fit(self, folder: RunFolder) -> Trained:
        """Train what the folder does not have yet, and note every epoch there."""
        recipe = self.recipe
        run = {"steps": recipe.steps, "seed": recipe.seed, "steps_per_dispatch": 1}
        with (
            Checkpoints(folder.checkpoints, run=folder.run) as checkpoints,
            noted_signals(quiet=recipe.quiet) as stopping,
        ):
            began = start_of(
                folder, checkpoints, own_arrays(self.start()), run, resume=recipe.resume
            )
            if recipe.resume and not recipe.quiet:
                say_start(began, recipe.steps, description=recipe.name)
            saving = Saving(checkpoints, stopping, run, began, every=30.0)
            parameters = began.state
            found = self.measure(parameters, began.step)
            if not began.step:
                folder.append({"step": 0, "seconds": 0.0} | found)
            for epoch in range(began.step, recipe.steps):
                parameters, loss = self.epoch(parameters, int(found["lag"]))
                found = self.measure(parameters, epoch + 1)
                line = {"step": epoch + 1, "seconds": saving.seconds(), "loss": loss}
                folder.append(line | found)
                saving.at_boundary(epoch + 1, parameters)
        return Trained(parameters, saving.seconds_at_last, recipe.steps)

    def epoch(self, parameters: LSTMParameters, lag: int) -> tuple[LSTMParameters, float]:
        """Run once through the training sequences."""
        made: Pass = self.pass_of(lag)(parameters, *self.data.train)
        loss = float(made.loss)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"found loss={loss} with a lag of {lag}; expected a finite number; lower"
                " --learning-rate or --clip"
            )
        return made.parameters, loss

    def measure(self, parameters: LSTMParameters, epoch: int) -> dict[str, float]:
        """Choose the lag of the next epoch; bound its bias, measure it, and validate."""
        recipe, train = self.recipe, self.data.train
        steps = recipe.window + BURN_IN
        inputs, targets = (
            probe_windows(
                np.random.default_rng((recipe.seed, 3, epoch)),
                part,
                positions=recipe.positions,
                steps=steps,
            )
            for part in train
        )
        norms, biases = probe(parameters, inputs, targets, burn_in=BURN_IN)
        beta = fit_decay(norms.phi)
        bounds = bias_bound(norms.phi, norms.cum, tau=4 * recipe.window // 5, beta=beta)
        lag = recipe.lag
        if recipe.method != "fixed":
            lag = choose_lag(
                bounds.delta_hat if recipe.method == "bound" else biases,
                recipe.delta,
                k_min=recipe.least_lag,
                k_max=recipe.largest_lag,
                buckets=LAG_BUCKETS,
            )
        return {
            "lag": lag,
            "delta_hat": float(bounds.delta_hat[lag - 1]),
            "measured_bias": float(biases[lag - 1]),
            "beta": beta,
            "eval_cross_entropy": self.cross_entropy(parameters, self.data.validation),
        }

    def cross_entropy(self, parameters: LSTMParameters, part: TokenSequences) -> float:
        """Judge by sequences that were not trained on."""
        return float(cross_entropy_of(parameters, *part))

    def figures(self, parameters: LSTMParameters) -> dict[str, float]:
        """Give the final cross entropies."""
        parts = {"validation": self.data.validation, "test": self.data.test}
        return {
            f"{name}_cross_entropy": self.cross_entropy(parameters, part)
            for name, part in parts.items()
        }


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give what was chosen and measured before every epoch and after the last."""
    return {
        "lags": [line["lag"] for line in lines],
        "delta_hats": [line["delta_hat"] for line in lines],
        "measured_biases": [line["measured_bias"] for line in lines],
        "betas": [line["beta"] for line in lines],
    }


def draw(folder: RunFolder) -> None:
    """Draw loss, lag, and the bound of the bias beside the bias."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    names = {
        "eval_cross_entropy": "validation, nats",
        "lag": "lag",
        "delta_hat": "bound of the bias",
        "measured_bias": "measured bias",
    }
    curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
    folder.save_figure(plots.plot_curves(curves, x_label="epoch"), "lags")
