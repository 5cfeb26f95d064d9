"""A spoken digit becomes its picture: sounds learn the spikes by which images are known."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.spiking import MembraneRule, poisson_spikes
from sparse_hyper_jax.train.data.epochs import Arrays, first_order, next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, start_state
from sparse_hyper_jax.train.limits import Count, Counts, Positive, Share, Whole, said
from sparse_hyper_jax.train.models.pictures_of_sounds import (
    Pairs,
    between,
    hidden_spikes,
    load_pairs,
    make_judge,
    repeated,
    run_through,
    synthesise,
)
from sparse_hyper_jax.train.models.spiking_autoencoder import (
    first_weights,
    learn_online,
    squared_error,
)
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class AudioToImageRecipe(Recipe):
    """Turn spoken digits into pictures by the spikes of an autoencoder (Roy et al. 2019)."""

    name: ClassVar[str] = "audio-to-image"

    task: Literal["halves", "fsdd"] = "halves"
    """What becomes a picture: the upper halves of the bundled digits, or spoken digits."""

    data_dir: Path | None = None
    """Folder of an npz file of the Free Spoken Digit Dataset."""

    split: Literal["official", "speaker"] = "official"
    """Test on the first five takes of everybody, or on one speaker who is not trained on."""

    held_out: Whole | None = None
    """Number of that speaker; by default 0, with --split speaker."""

    validate: bool = True
    """Keep recordings to train on apart, to choose settings by: the takes 5 and 6, or the next
    speaker. Without it, once settings are chosen, these are trained on too."""

    images: Literal["digits", "mnist"] = "digits"
    """Images from which the autoencoder learns, and of which one for each class is the picture."""

    images_dir: Path | None = None
    """Folder of the files of MNIST."""

    hidden: Counts = (256,)
    """Units of the layers between sounds and the spikes they learn."""

    width: Count | None = None
    """Hidden units of the autoencoder; by default a quarter of the pixels, and at least 49."""

    time_steps: Count = 30
    """Steps for which a sound is heard."""

    image_time_steps: Count = 15
    """Steps for which an image is shown; its spikes are repeated from the beginning for a sound."""

    peak: Share | None = None
    """Probability with which the loudest band fires in a step, or the whitest pixel of a half; by
    default 0.15 for sounds, and 1 for halves, which have few pixels."""

    image_peak: Share = 0.3
    """Probability with which a white pixel fires."""

    learning_rate: Positive = 5e-4
    """Of Adam for sounds, started anew with every batch."""

    image_learning_rate: Positive = 5e-4
    """The same for images."""

    batch: Count = 100
    """Images, or sounds, per step of training."""

    image_steps: Count | None = None
    """Batches of images, before those of sounds; by default 30 epochs of digits, else 200."""

    steps: Count | None = None
    """All batches; by default these and 30 epochs of sounds."""

    evaluate_every: Count = 100
    """Steps between evaluations."""

    def check(self) -> None:
        """Raise also if what is read from files has no folder."""
        super().check()
        for source, folder in (("task", "data_dir"), ("images", "images_dir")):
            require(
                getattr(self, source) in ("halves", "digits") or getattr(self, folder) is not None,
                said(self, source) + " without a folder",
                "the folder of its files",
                f"pass --{folder.replace('_', '-')} DIR",
            )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """What is bundled needs no folder and has no speakers."""
        if self.task == "halves":
            yield "task", ("data_dir", "split", "held_out", "validate")
        if self.split == "official":
            yield "split", ("held_out",)
        if self.images == "digits":
            yield "images", ("images_dir",)
        if not self.validate:
            yield "validate", ("evaluate_every",)

    def load(self) -> Pairs:
        """Read both; a batch must fit."""
        folders = self.data_dir, self.images, self.images_dir
        pairs = load_pairs(self.task, *folders, self._speaker, validate=self.validate)
        least = min(len(pairs.train[0]), len(pairs.images[0]))
        require(
            self.batch <= least,
            f"{said(self, 'batch')} with {least} to learn from",
            "at most as many",
            "lower --batch",
        )
        return pairs

    def settle(self, data: Pairs) -> Self:
        """Settle steps and units."""
        images, pixels = data.images[0].shape
        default = 30 * (images // self.batch) if self.images == "digits" else 200
        first = self.image_steps or default
        steps = self.steps or first + 30 * (len(data.train[0]) // self.batch)
        require(
            first < steps,
            f"{said(self, 'steps')} of which the first {first} are of images",
            "some that are left for sounds",
            f"raise --steps above {first}, or lower --image-steps",
        )
        width = self.width or max(49, pixels // 4)
        peak = self.peak or (1.0 if self.task == "halves" else 0.15)
        settled = {"steps": steps, "image_steps": first, "width": width, "peak": peak}
        return replace(self, **settled, held_out=self._speaker)

    @property
    def _speaker(self) -> int | None:
        """Who is tested on alone, if anybody is."""
        return (self.held_out or 0) if self.split == "speaker" else None

    @property
    def rule(self) -> MembraneRule:
        """Potentials forget within 10 ms."""
        return MembraneRule(decay=0.9)

    def plan(self, data: Pairs) -> Plan:
        """Judge by which class's picture a synthesis is nearest to."""
        assert self.width, "settled"
        assert self.peak, "settled"
        pixels, features = data.images[0].shape[1], data.train[0].shape[1]
        keys = jax.random.split(jax.random.key(self.seed))
        parameters = {
            "images": first_weights(keys[0], (pixels, self.width, pixels)),
            "sounds": first_weights(keys[1], (features, *self.hidden, self.width)),
        }
        options: Any = {"steps": self.time_steps, "peak": self.peak, "rule": self.rule}
        judge = make_judge(data.pictures, **options)

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            assert data.validation, "given"
            return {"accuracy": judge(state.parameters, data.validation).accuracy}

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            draw(folder, state.parameters, data, options)
            figures = {
                f"{name}_{metric}": value
                for name, part in zip(Pairs._fields[:3], data[:3], strict=True)
                if part
                for metric, value in judge(state.parameters, part)._asdict().items()
            }
            figures["mse_of_pictures"] = floor(self, state.parameters, data.pictures)
            return figures | {"mse_between_classes": between(data.pictures)}

        start = start_state(parameters, optax.identity(), len(data.train[0]))
        start = start._replace(slots=first_order(len(data.images[0])))
        constants, every = (data.images, data.train, data.pictures), self.evaluate_every
        judged = evaluate if data.validation else None
        return Plan(make_step(self), start, finish, constants, judged, every, every)


def make_step(recipe: AudioToImageRecipe) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure step: of images at first, then of sounds, for which images stay as learned."""
    assert recipe.image_steps, "settled"
    assert recipe.peak, "settled"
    first, loudest, rule = recipe.image_steps, recipe.peak, recipe.rule

    def step(
        state: EpochState, key: jax.Array, images: Arrays, sounds: Arrays, pictures: jax.Array
    ) -> tuple[EpochState, Metrics]:
        order_key, spike_key = jax.random.split(key)
        take = partial(next_batch, order_key, batch=recipe.batch)

        def of_images(state: EpochState) -> tuple[EpochState, jax.Array]:
            order, (shown, _) = take(state.slots, state.count, images)
            peak, steps = recipe.image_peak, recipe.image_time_steps
            spikes = poisson_spikes(spike_key, peak * shown, steps=steps)
            weights, loss = learn_online(
                state.parameters["images"],
                spikes,
                spikes,
                rate=recipe.image_learning_rate,
                rule=rule,
            )
            return learned(state, "images", weights)._replace(slots=order), loss

        def of_sounds(state: EpochState) -> tuple[EpochState, jax.Array]:
            order, (heard, labels) = take(state.order, state.count - first, sounds)
            spikes = poisson_spikes(spike_key, loudest * heard, steps=recipe.time_steps)
            peak, steps = recipe.image_peak, recipe.image_time_steps
            encoder = state.parameters["images"][0]
            known = hidden_spikes(encoder, pictures, peak=peak, steps=steps, rule=rule)
            targets = repeated(known, recipe.time_steps)[:, labels]
            weights, loss = learn_online(
                state.parameters["sounds"], spikes, targets, rate=recipe.learning_rate, rule=rule
            )
            return learned(state, "sounds", weights)._replace(order=order), loss

        state, loss = jax.lax.cond(state.count < first, of_images, of_sounds, state)
        return state._replace(count=state.count + 1), {"loss": loss}

    return step


def learned(state: EpochState, part: str, weights: list[jax.Array]) -> EpochState:
    """Give the state with other weights of one of the two networks."""
    return state._replace(parameters=state.parameters | {part: weights})


def floor(recipe: AudioToImageRecipe, parameters: Any, pictures: jax.Array) -> float:
    """Give the error of the pictures that the decoder makes of the very spikes to be learned."""

    @jax.jit
    def on_device(weights: Any, pictures: jax.Array) -> jax.Array:
        spikes = hidden_spikes(
            weights[0],
            pictures,
            peak=recipe.image_peak,
            steps=recipe.image_time_steps,
            rule=recipe.rule,
        )
        counts = run_through(weights[1:], repeated(spikes, recipe.time_steps), recipe.rule)
        return jnp.mean(squared_error(counts, pictures))

    return float(on_device(parameters["images"], pictures))


def draw(folder: RunFolder, parameters: Any, data: Pairs, options: Any) -> None:
    """Draw the picture of every class, and what the first test input of each becomes."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    inputs, labels = data.test
    classes = range(len(data.pictures))
    # argmax: the first of its class; if there is none, whatever comes first.
    rows = np.array([int(np.argmax(np.asarray(labels) == label)) for label in classes])
    made = jax.jit(partial(synthesise, **options))
    counts = np.asarray(made(parameters, inputs[rows]))
    counts = counts / np.maximum(np.max(counts, axis=1, keepdims=True), 1)
    side = round(data.pictures.shape[1] ** 0.5)
    shown = [np.asarray(one).reshape(1, -1, side, side) for one in (data.pictures, counts)]
    figure = plots.plot_image_rows(shown, ["pictures", "syntheses"])
    folder.save_figure(figure, "syntheses")
    if data.validation:
        curve = plots.read_curve(folder, "eval_accuracy")
        label = "nearest picture is the right one"
        folder.save_figure(plots.plot_curves({f"validation, {label}": curve}), "curve")
