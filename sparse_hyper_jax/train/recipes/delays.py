"""One delay for every channel, at random or learned: sums and spoken digits are read off them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import conv, ops
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.epochs import next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, next_state, start_state
from sparse_hyper_jax.train.limits import Count, NotNegative, Positive, Whole, said
from sparse_hyper_jax.train.models.delayed import (
    DelayModel,
    DelayTask,
    Part,
    delayed_sums,
    spoken_bands,
)
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder

BEGIN, END = 0.02, 0.5
"""Shares of training between which delays are pursued."""

PROBED, START = 64, 0.1
"""Sequences that a probe looks at; size of the weights of a fresh delay, or it disturbs others."""


@dataclass(frozen=True, kw_only=True)
class DelaysRecipe(Recipe):
    """Learn a delay for every channel of what a sum, or a classifier of sounds, reads."""

    name: ClassVar[str] = "delays"

    method: Literal["pursuit", "gaussian", "random", "none", "known"] = "pursuit"
    """How delays are chosen: where they are missed most; by the gradient of Gaussians; at random;
    all 0; or the true ones of a sum."""

    task: Literal["sum", "fsdd"] = "sum"
    """Mixtures of delayed channels, made here; or spoken digits by bands, a speaker left out."""

    data_dir: Path | None = None
    """Folder of an npz file of the Free Spoken Digit Dataset."""

    held_out: Whole = 0
    """Fsdd: number of the speaker who is tested on, and not trained on."""

    validate: bool = True
    """Fsdd: keep the next speaker apart, to choose settings by. Without it, once settings are
    chosen, that one is trained on too."""

    channels: Count = 8
    """Sum: how many."""

    noise: NotNegative = 0.5
    """Sum: deviation of what is added to every mixture; the variance of a clean one is about 1."""

    reach: Count | None = None
    """Number of candidate delays, from 0; by default 200 of sums, 20 of sounds."""

    width: Count = 64
    """Fsdd: units that mix the delayed bands; the most that each is active counts."""

    groups: Count = 4
    """Pursuit: channels that are placed together are one of so many groups."""

    sweeps: Count = 2
    """Pursuit: how often each group is placed; from the second time on, anew."""

    num_global: Whole = 4
    """Gaussian: lags that are drawn from all in a step, for each channel."""

    num_local: Whole = 2
    """Gaussian: lags that are drawn from near the delay."""

    delay_rate: Positive = 0.1
    """Gaussian: most steps that a delay moves in a step of training, at first."""

    learning_rate: Positive = 3e-3
    """Of Adam for all else, falling to 0 along a cosine."""

    batch: Count = 16
    """Sequences per step."""

    steps: Count | None = None
    """Number of training steps; by default 600 of sums, 1500 of sounds."""

    evaluate_every: Count = 100
    """Steps between validations."""

    def check(self) -> None:
        """Raise also if sounds have no folder, or nobody knows the delays."""
        super().check()
        require(
            self.task == "sum" or self.data_dir is not None,
            said(self, "task") + " without a folder",
            "the folder of its file",
            "pass --data-dir DIR",
        )
        require(
            self.task == "sum" or self.method != "known",
            said(self, "method", "task"),
            "a sum, whose true delays are known",
            "change --method",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each task and method has its own options."""
        sounds, sums = ("data_dir", "held_out", "validate", "width"), ("channels", "noise")
        yield "task", sounds if self.task == "sum" else sums
        if self.method != "pursuit":
            yield "method", ("groups", "sweeps")
        if self.method != "gaussian":
            yield "method", ("num_global", "num_local", "delay_rate")
        if not self.validate:
            yield "validate", ("evaluate_every",)

    def load(self) -> DelayTask:
        """Draw sums, or read sounds; a batch must fit."""
        if self.task == "sum":
            task = delayed_sums(self.seed, self.channels, self._reach, self.noise)
        else:
            assert self.data_dir, "checked"
            task = spoken_bands(self.data_dir, self.held_out, self._reach, validate=self.validate)
        count = len(task.train[0])
        require(
            self.batch <= count,
            f"{said(self, 'batch')} with {count} sequences",
            "at most as many",
            "lower --batch",
        )
        return task

    def settle(self, data: DelayTask) -> Self:
        """Settle reach and steps."""
        steps = self.steps or (600 if self.task == "sum" else 1500)
        return replace(self, reach=self._reach, steps=steps)

    @property
    def _reach(self) -> int:
        return self.reach or (200 if self.task == "sum" else 20)

    def plan(self, data: DelayTask) -> Plan:
        """Judge by the error of mixtures, or the accuracy; and by the delays if they are known."""
        assert self.steps, "settled"
        channels = data.train[0].shape[-1]
        labelled = data.train[1].ndim == 1
        metric, units = ("accuracy", self.width) if labelled else ("mse", channels)
        model = DelayModel(self._reach, (self.num_global, self.num_local))
        weight_key, delay_key = jax.random.split(jax.random.key(self.seed))
        parameters = model.start(weight_key, channels, units, labelled=labelled)
        taps = self.first_taps(delay_key, channels, data)
        if self.method == "gaussian":  # from anywhere in the middle half
            parameters["means"] = jax.random.uniform(delay_key, (channels,), minval=-1, maxval=1)
        optimizer = self.optimizer()
        state = start_state(parameters, optimizer, len(data.train[0]), slots=taps)
        judge = jax.jit(model.figure)

        def figure(state: EpochState, part: Part) -> float:
            return float(judge(state.parameters, taps_of(model, state), part))

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            assert data.validation, "given"
            return {metric: figure(state, data.validation)}

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            placed, positions = (np.asarray(leaf) for leaf in taps_of(model, state)[::-1])
            delays = np.where(placed[:, 0], positions[:, 0, 0], -1)
            draw(folder, delays, data.delays, metric if data.validation else "")
            figures = {
                f"{name}_{metric}": figure(state, part)
                for name, part in zip(DelayTask._fields[:3], data[:3], strict=True)
                if part
            }
            return figures | compared(delays, data.delays)

        judged = evaluate if data.validation else None
        step, every = make_step(self, model, optimizer), self.evaluate_every
        return Plan(step, state, finish, (data.train,), judged, every, longest_dispatch=every)

    def first_taps(self, key: jax.Array, channels: int, data: DelayTask) -> ops.Taps:
        """Give the delays to begin with; none at all if they are pursued."""
        delays = jnp.zeros(channels, jnp.int32)
        if self.method == "random":
            delays = jax.random.randint(key, (channels,), 0, self._reach)
        elif self.method == "known":
            delays = jnp.array(data.delays, jnp.int32)
        placed = jnp.full((channels, 1), self.method != "pursuit")
        return ops.Taps(delays[:, None, None], placed)

    def optimizer(self) -> optax.GradientTransformation:
        """Adam, with a rate of its own for Gaussian delays."""

        def adam(rate: float) -> optax.GradientTransformation:
            assert self.steps, "settled"
            return optax.adam(optax.cosine_decay_schedule(rate, self.steps))

        weights = adam(self.learning_rate)
        if self.method != "gaussian":
            return weights
        # The slope of a sigmoid from 0 to reach - 1 is at most (reach - 1) / 4.
        means = adam(4 * self.delay_rate / self._reach)

        def labels(parameters: Any) -> Any:
            return {name: "means" if name == "means" else "weights" for name in parameters}

        return optax.partition({"weights": weights, "means": means}, labels)


def compared(delays: np.ndarray, true: Sequence[int]) -> dict[str, Any]:
    """Give the delays that were found, and how many are within one step, if they are known."""
    if not true:
        return {"delays": delays.tolist()}
    near = (delays >= 0) & (np.abs(delays - np.array(true)) <= 1)
    known = {"true_delays": list(true), "delays_found": int(near.sum())}
    return {"delays": delays.tolist()} | known


def taps_of(model: DelayModel, state: EpochState) -> ops.Taps:
    """Give the delays of now; of Gaussians the nearest whole ones."""
    if "means" not in state.parameters:
        return state.slots
    delays = jnp.rint(model.means(state.parameters)).astype(jnp.int32)
    return ops.Taps(delays[:, None, None], jnp.ones((len(delays), 1), bool))


def make_probe(
    recipe: DelaysRecipe, model: DelayModel, optimizer: optax.GradientTransformation
) -> Callable[..., EpochState]:
    """Make the function that places the delays of one group after another, when it is due."""
    assert recipe.steps, "settled"
    probes = recipe.groups * recipe.sweeps
    first, last = (math.ceil(share * recipe.steps) for share in (BEGIN, END))
    every = max(1, (last - first) // probes)

    def probe(state: EpochState, key: jax.Array, train_set: Part) -> EpochState:
        taps, kernel = state.slots, state.parameters["kernel"]
        turn = (state.count - first) // every
        group = jnp.arange(len(taps.placed)) % recipe.groups == turn % recipe.groups
        row_key, start_key = jax.random.split(key)
        count = len(train_set[0])
        rows = jax.random.choice(row_key, count, (min(PROBED, count),), replace=False)
        seen = jax.tree.map(lambda array: array[rows], train_set)
        placed = model.replaced(state.parameters, taps, group, seen)
        moved = (placed.positions[..., 0] != taps.positions[..., 0]) | ~taps.placed
        fresh = (moved & placed.placed & group[:, None])[:, 0]
        drawn = START * jax.random.normal(start_key, kernel.shape) / kernel.shape[1] ** 0.5
        kernel = jnp.where(fresh[None, :, None], drawn, kernel)
        flags = dict.fromkeys(state.parameters, False) | {"kernel": fresh[None]}
        moments = conv.clear_moments(optimizer, state.optimizer, flags)
        parameters = state.parameters | {"kernel": kernel}
        return state._replace(parameters=parameters, optimizer=moments, slots=placed)

    def probe_if_due(state: EpochState, key: jax.Array, train_set: Part) -> EpochState:
        since = state.count - first
        due = (since >= 0) & (since % every == 0) & (since < probes * every)
        return jax.lax.cond(due, probe, lambda state, *_: state, state, key, train_set)

    return probe_if_due


def make_step(
    recipe: DelaysRecipe, model: DelayModel, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure step: at times a group of delays is placed, then weights follow a batch."""
    assert recipe.steps, "settled"
    total, probe = recipe.steps, make_probe(recipe, model, optimizer)

    def step(state: EpochState, key: jax.Array, train_set: Part) -> tuple[EpochState, Metrics]:
        order_key, probe_key, draw_key = jax.random.split(key, 3)
        if recipe.method == "pursuit":
            state = probe(state, probe_key, train_set)
        order, (x, wanted) = next_batch(
            order_key, state.order, state.count, train_set, batch=recipe.batch
        )

        def loss_of(parameters: Any) -> jax.Array:
            if "means" in parameters:
                y = model.blurred(draw_key, parameters, state.count / total, x)
            else:
                y = model.mixed(parameters, state.slots, x)
            return model.loss(parameters, y, wanted)

        loss, gradient = jax.value_and_grad(loss_of)(state.parameters)
        return next_state(state, gradient, optimizer, order, slots=state.slots), {"loss": loss}

    return step


def draw(folder: RunFolder, delays: np.ndarray, true: Sequence[int], metric: str) -> None:
    """Draw the delay of every channel, over the true one if it is known; and the curve."""
    from matplotlib.figure import Figure

    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    figure = Figure(figsize=(5, 2.8), layout="constrained")
    ax = figure.subplots()
    if true:
        ax.plot(true, "o", color="0.6", mfc="none", ms=9, label="true")
    ax.plot(np.where(delays < 0, np.nan, delays), ".", color=plots.INK, label="found")
    ax.set(xlabel="channel", ylabel="delay, steps")
    ax.legend()
    folder.save_figure(figure, "delays")
    if metric:
        curve = plots.read_curve(folder, f"eval_{metric}")
        folder.save_figure(plots.plot_curves({f"validation, {metric}": curve}), "curve")
