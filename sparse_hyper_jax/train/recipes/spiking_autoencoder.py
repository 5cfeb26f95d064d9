"""Rebuild images by spikes: an autoencoder that learns in every time step from its last layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax.spiking import MembraneRule, membrane_loss, poisson_spikes
from sparse_hyper_jax.train.data.epochs import Arrays, next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, next_state, start_state
from sparse_hyper_jax.train.limits import Count, Positive, Share
from sparse_hyper_jax.train.models.spiking_autoencoder import (
    TEST_KEY,
    first_weights,
    learn_online,
    make_measure,
)
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class SpikingAutoencoderRecipe(ImageRecipe):
    """Rebuild images by spikes, taught by membrane potentials (Roy, Panda and Roy 2019)."""

    name: ClassVar[str] = "spiking-autoencoder"

    method: Literal["online", "backprop"] = "online"
    """Learn in every time step without a way back, or by backpropagation through time."""

    mask: Literal["xor", "none"] = "xor"
    """Outputs that have an error: those whose spike differs from the input's, or all."""

    width: Count | None = None
    """Hidden units; by default a quarter of the pixels, and at least 49."""

    time_steps: Count = 15
    """Steps for which an image is shown, of a millisecond each."""

    peak: Share = 0.3
    """Probability with which a white pixel fires in a step: 300 Hz."""

    learning_rate: Positive = 5e-4
    """Of Adam; online it is started anew with every batch."""

    batch: Count = 100
    """Images per step of training; an epoch leaves out what does not fill a batch."""

    steps: Count | None = None
    """Batches of training; by default 30 epochs of digits, else 200 batches: 20,000 images."""

    evaluate_every: Count = 100
    """Steps of training between validations."""

    def settle(self, data: Images) -> Self:
        """Settle steps and units."""
        images, pixels = data.train[0].shape
        steps = 30 * (images // self.batch) if self.data == "digits" else 200
        return replace(self, steps=self.steps or steps, width=self.width or max(49, pixels // 4))

    @property
    def rule(self) -> MembraneRule:
        """Potentials forget within 10 ms."""
        return MembraneRule(decay=0.9, mask=self.mask)

    def plan(self, data: Images) -> Plan:
        """Judge by the error of z-scored counts of spikes, beside that of the input's own."""
        assert self.width, "settled"
        pixels = data.train[0].shape[1]
        weights = first_weights(jax.random.key(self.seed), (pixels, self.width, pixels))
        measure = make_measure(steps=self.time_steps, peak=self.peak, rule=self.rule)

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            return {"mse": measure(state.parameters, data.validation).mse}

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            draw(self, folder, state.parameters, data.test)
            return {
                f"{part}_{name}": value
                for part in ("validation", "test")
                for name, value in measure(state.parameters, getattr(data, part))._asdict().items()
            }

        state = start_state(weights, optax.adam(self.learning_rate), len(data.train[0]))
        every = self.evaluate_every
        step = make_step(self)
        return Plan(step, state, finish, (data.train,), evaluate, every, longest_dispatch=every)


def make_step(
    recipe: SpikingAutoencoderRecipe,
) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure training step: spikes of the next batch, and what is learned from them."""
    rate, rule = recipe.learning_rate, recipe.rule

    def step(state: EpochState, key: jax.Array, train_set: Arrays) -> tuple[EpochState, Metrics]:
        order_key, spike_key = jax.random.split(key)
        order, (images, _) = next_batch(
            order_key, state.order, state.count, train_set, batch=recipe.batch
        )
        spikes = poisson_spikes(spike_key, recipe.peak * images, steps=recipe.time_steps)
        if recipe.method == "online":
            weights, loss = learn_online(state.parameters, spikes, spikes, rate=rate, rule=rule)
            new = state._replace(parameters=weights, order=order, count=state.count + 1)
            return new, {"loss": loss}
        (loss, _), gradient = jax.value_and_grad(partial(membrane_loss, rule=rule), has_aux=True)(
            state.parameters, spikes, spikes
        )
        return next_state(state, gradient, optax.adam(rate), order), {"loss": loss}

    return step


def draw(recipe: SpikingAutoencoderRecipe, folder: RunFolder, weights: Any, test: Arrays) -> None:
    """Draw the curve, and test images beside the counts of spikes in front and behind."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    images = test[0][:SHOWN]

    @jax.jit
    def counts_of(weights: Any, images: jax.Array) -> list[jax.Array]:
        key = jax.random.key(TEST_KEY)
        spikes = poisson_spikes(key, recipe.peak * images, steps=recipe.time_steps)
        _, (_, out) = membrane_loss(weights, spikes, spikes, rule=recipe.rule)
        counts = [jnp.sum(one, axis=0) for one in (spikes, out)]
        return [one / jnp.maximum(jnp.max(one), 1) for one in counts]

    side = round(images.shape[1] ** 0.5)
    if side**2 == images.shape[1]:
        counts = counts_of(weights, images)
        shown = [np.asarray(part).reshape(1, -1, side, side) for part in (images, *counts)]
        figure = plots.plot_image_rows(shown, ["images", "spikes in", "spikes out"])
        folder.save_figure(figure, "reconstructions")
    curve = plots.read_curve(folder, "eval_mse")
    folder.save_figure(plots.plot_curves({"validation, z-scored error": curve}), "curve")
