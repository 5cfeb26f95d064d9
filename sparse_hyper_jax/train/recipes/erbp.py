"""Classify what an event camera saw, by rules that learn while time runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.spiking import ErbpRule, erbp_parameters
from sparse_hyper_jax.train.data.epochs import next_batch
from sparse_hyper_jax.train.data.events import EventSamples, load_events, moving_discs
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, start_state
from sparse_hyper_jax.train.limits import Count, Counts, Positive, Several, Whole, said
from sparse_hyper_jax.train.models.event_networks import (
    Decolle,
    Field,
    accuracies_over_time,
    addressed,
    decolle_batch,
    decolle_readouts,
    decolle_scores,
    erbp_sample,
    in_parts,
    rasters,
    references,
)
from sparse_hyper_jax.train.models.spiking_autoencoder import TEST_KEY
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder

TEST_SEED, VALIDATION_SEED = 2**31 - 2, 2**31 - 3

VALIDATED = 5
"""Of the samples of N-MNIST to train on, each one of so many is kept apart to validate on."""


class Parts(NamedTuple):
    """What is trained, validated and tested on."""

    train: EventSamples
    validation: EventSamples | None
    test: EventSamples


@dataclass(frozen=True, kw_only=True)
class ErbpRecipe(Recipe):
    """Classify events by error spikes and random feedback (Kaiser et al. 2019), or by DECOLLE."""

    name: ClassVar[str] = "erbp"

    method: Literal["erbp", "decolle"] = "erbp"
    """Random feedback of error spikes, or a readout for every layer."""

    task: Literal["disc", "nmnist"] = "disc"
    """Discs that move in four directions, made here; or N-MNIST."""

    data_dir: Path | None = None
    """Folder of an npz file of N-MNIST."""

    validate: bool = True
    """Keep every fifth sample of N-MNIST to train on apart, to choose settings by. Without it, once
    settings are chosen, these are trained on too."""

    discs: Several = 400
    """Discs to train on; half as many, the same for every seed, are validated on, and others
    tested on."""

    window: Whole = 16
    """Side of the window that follows the events; 0 for the whole field."""

    memory: Count = 200
    """Events whose median place is the middle of the window; at least those of a step."""

    pool: Count | None = None
    """Pixels of a side that count as one; by default 2 of N-MNIST, else 1."""

    time_steps: Count | None = None
    """Milliseconds of a sample; by default 300 of N-MNIST, else 60."""

    hidden: Counts = (100, 100)
    """Units of the hidden layers."""

    learning_rate: Positive | None = None
    """By default 0.002 with erbp, and 0.001 of Adam, in every time step, with decolle."""

    batch: Count = 50
    """Samples side by side with decolle; erbp takes one after the other."""

    steps: Count | None = None
    """Samples, or batches; by default 3 epochs of discs, 8 of N-MNIST."""

    evaluate_every: Count | None = None
    """Steps between evaluations; by default an epoch."""

    def check(self) -> None:
        """Raise also if N-MNIST has no folder."""
        super().check()
        require(
            self.task == "disc" or self.data_dir is not None,
            said(self, "task") + " without a folder",
            "the folder of its file",
            "pass --data-dir DIR",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Discs need no file, single samples no batch, the whole field no memory."""
        yield "task", ("data_dir", "validate") if self.task == "disc" else ("discs",)
        if self.method == "erbp":
            yield "method", ("batch",)
        if not self.window:
            yield "window", ("memory",)
        if not self.validate:
            yield "validate", ("evaluate_every",)

    def load(self) -> Parts:
        """Read N-MNIST, or draw discs: those to judge by are the same for every seed."""
        if self.task == "nmnist":
            assert self.data_dir, "checked"
            train, test = load_events(self.data_dir, steps=self.time_steps or 300)
            parts = Parts(*(apart(train) if self.validate else (train, None)), test)
        else:
            half = self.discs // 2
            seeds = (self.seed, self.discs), (VALIDATION_SEED, half), (TEST_SEED, half)
            parts = Parts(
                *(
                    moving_discs(
                        jax.random.key(seed), jnp.arange(count) % 4, steps=self.time_steps or 60
                    )
                    for seed, count in seeds
                )
            )
        require(
            self.method == "erbp" or self.batch <= len(parts.train.labels),
            f"{said(self, 'batch')} with {len(parts.train.labels)} samples",
            "at most as many",
            "lower --batch",
        )
        return parts

    def settle(self, data: Parts) -> Self:
        """Settle what depends on data and method."""
        events = data.train.codes.shape[-1]
        require(
            not self.window or self.memory >= events,
            f"{said(self, 'memory')} with up to {events} events in a step",
            "at least as many, for the window follows all of a step",
            f"raise --memory to {events}",
        )
        epoch = len(data.train.labels) // (1 if self.method == "erbp" else self.batch)
        rate = self.learning_rate or (2e-3 if self.method == "erbp" else 1e-3)
        return replace(
            self,
            pool=self.pool or (2 if self.task == "nmnist" else 1),
            time_steps=data.train.codes.shape[1],
            learning_rate=rate,
            steps=self.steps or epoch * (8 if self.task == "nmnist" else 3),
            evaluate_every=self.evaluate_every or epoch,
        )

    def plan(self, data: Parts) -> Plan:
        """Judge by the class that was said most often up to the end of a sample."""
        assert self.evaluate_every, "settled"
        assert self.pool, "settled"
        field = Field(data.train.shape, self.pool, self.window, self.memory)
        parts = {name: part for name, part in data._asdict().items() if part}
        classes = 1 + max(int(np.max(np.asarray(part.labels))) for part in parts.values())
        make = make_erbp if self.method == "erbp" else make_decolle
        step, scores, state = make(self, field, classes, len(data.train.labels))

        def judge(state: EpochState, part: EventSamples) -> list[float]:
            found = in_parts(lambda *given: scores(state.parameters, *given), part)
            every = np.concatenate([np.asarray(one) for one in found], axis=1)
            return accuracies_over_time(every, np.asarray(part.labels))

        def evaluate(folder: RunFolder, number: int, state: EpochState) -> dict[str, float]:
            return {"accuracy": judge(state, parts["validation"])[-1]}

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            if data.validation:
                draw(folder)
            over_time = {name: judge(state, part) for name, part in parts.items()}
            return {
                **{f"{name}_accuracy": found[-1] for name, found in over_time.items()},
                "test_accuracy_over_time": over_time["test"],
                "inputs": field.inputs,
            } | references(field, data.train, data.test)

        constants = (jnp.asarray(data.train.codes), jnp.asarray(data.train.labels))
        judged = evaluate if data.validation else None
        every = self.evaluate_every
        return Plan(step, state, finish, (constants,), judged, every, longest_dispatch=every)


def apart(samples: EventSamples) -> tuple[EventSamples, EventSamples]:
    """Cut every so many of the samples off, to validate on."""
    taken = np.arange(len(samples.labels)) % VALIDATED == VALIDATED - 1
    require(
        bool(taken.any()),
        f"{len(taken)} samples to train on",
        f"at least {VALIDATED}, of which one is validated on",
        "use a larger file, or --no-validate",
    )
    parts = [
        EventSamples(samples.codes[rows], samples.labels[rows], samples.shape)
        for rows in (~taken, taken)
    ]
    return parts[0], parts[1]


Made = tuple[Callable[..., tuple[EpochState, Metrics]], Callable[..., jax.Array], EpochState]


def make_erbp(recipe: ErbpRecipe, field: Field, classes: int, samples: int) -> Made:
    """Make step, scores ``(T, b, classes)`` and first state of random feedback."""
    assert recipe.learning_rate, "settled"
    rule, rate = ErbpRule(), recipe.learning_rate
    sizes = (field.inputs, *recipe.hidden, classes)

    def step(state: EpochState, key: jax.Array, train_set: Any) -> tuple[EpochState, Metrics]:
        order_key, own_key = jax.random.split(key)
        order, (codes, labels) = next_batch(order_key, state.order, state.count, train_set, batch=1)
        after, out, active = erbp_sample(
            own_key, state.parameters, addressed(field, codes[0]), labels[0], rate=rate, rule=rule
        )
        right = jnp.argmax(jnp.sum(out, axis=0)) == labels[0]
        new = state._replace(parameters=after, order=order, count=state.count + 1)
        return new, {"accuracy": right.astype(jnp.float32), "hidden_rate": active}

    @jax.jit
    def scores(parameters: Any, codes: jax.Array, labels: jax.Array) -> jax.Array:
        def one(key: jax.Array, codes: jax.Array) -> jax.Array:
            inputs = addressed(field, codes)
            return erbp_sample(key, parameters, inputs, jnp.int32(-1), rate=0.0, rule=rule)[1]

        keys = jax.random.split(jax.random.key(TEST_KEY), len(codes))
        return jnp.moveaxis(jax.vmap(one)(keys, codes), 0, 1)

    parameters = erbp_parameters(jax.random.key(recipe.seed), sizes)
    return step, scores, start_state(parameters, optax.identity(), samples)


def make_decolle(recipe: ErbpRecipe, field: Field, classes: int, samples: int) -> Made:
    """Make step, scores and first state of layers with readouts."""
    assert recipe.learning_rate, "settled"
    assert recipe.time_steps, "settled"
    sizes = (field.inputs, *recipe.hidden)
    weight_key, readout_key = jax.random.split(jax.random.key(recipe.seed))
    net = Decolle(
        decolle_readouts(readout_key, sizes, classes),
        optax.adam(recipe.learning_rate),
        recipe.time_steps // 5,
    )

    def spikes_of(codes: jax.Array) -> jax.Array:
        inputs = jax.vmap(lambda one: addressed(field, one))(codes)
        return rasters(jnp.moveaxis(inputs, 0, 1), field.inputs)

    def step(state: EpochState, key: jax.Array, train_set: Any) -> tuple[EpochState, Metrics]:
        order, (codes, labels) = next_batch(
            key, state.order, state.count, train_set, batch=recipe.batch
        )
        weights, moments, loss = decolle_batch(
            net, state.parameters, state.optimizer, spikes_of(codes), labels
        )
        return EpochState(weights, moments, order, state.count + 1), {"loss": loss}

    @jax.jit
    def scores(parameters: Any, codes: jax.Array, labels: jax.Array) -> jax.Array:
        return decolle_scores(net, parameters, spikes_of(codes), labels)

    state = start_state(net.start(weight_key, sizes), net.optimizer, samples)
    return step, scores, state


def draw(folder: RunFolder) -> None:
    """Draw the validation accuracy over training."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    curve = plots.read_curve(folder, "eval_accuracy")
    folder.save_figure(plots.plot_curves({"validation accuracy": curve}), "curve")
