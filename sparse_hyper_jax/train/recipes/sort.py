"""Learn to sort images of numbers from their order alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.nn import NumberKeyNetwork
from sparse_hyper_jax.sort import element_match, exact_match, quicksort
from sparse_hyper_jax.train.data import (
    ClassIndex,
    Sequences,
    augment,
    index_by_class,
    make_sequences,
)
from sparse_hyper_jax.train.epoch_state import Metrics, TrainState
from sparse_hyper_jax.train.limits import Count, Counts, NotNegative, Positive, Several, Whole, said
from sparse_hyper_jax.train.loop import Step
from sparse_hyper_jax.train.models.sequence_losses import LOSSES, sequence_loss
from sparse_hyper_jax.train.recipe import ImageRecipe, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

TEST_SEED = 2**31 - 1
TEST_SEQUENCES = 10_000
TEST_PARTS = 20
SHOWN = 3


class SortParameters(NamedTuple):
    """What is learned."""

    network: nnx.State
    log_certainty: jax.Array


@dataclass(frozen=True, kw_only=True)
class SortRecipe(ImageRecipe):
    """Learn to sort handwritten numbers, knowing only the right order (Bloem 2018, figure 6)."""

    name: ClassVar[str] = "sort"

    n: Count = 4
    """Numbers in a sequence."""

    digits: Count = 1
    """Digits in a number, side by side, most significant first."""

    distinct: bool = True
    """Whether the numbers of a sequence differ."""

    steps: Count = 5_000
    """Number of training steps."""

    evaluate_every: Count = 500
    """Steps between validations."""

    batch: Count = 64
    """Sequences per step."""

    channels: Counts | None = None
    """Channels of the key network's convolutions; by default as many as suit the images."""

    learning_rate: Positive = 2e-3
    """Peak of a warm-up and cosine schedule for AdamW."""

    weight_decay: NotNegative = 0.1
    """Of AdamW, on the network."""

    # One candidate alone has weight 1 whatever the keys are: no gradient.
    num_candidates: Several = 16
    """Proposals per bucket and split."""

    num_near: Whole = 0
    """How many of them are drawn near the current order."""

    certainty: Positive = 6.0
    """How sharply keys, standardised within a sequence, decide."""

    learn_certainty: bool = True
    """Whether that is only where it starts; for the soft sort."""

    warp: NotNegative = 1.5
    """Strength of the random warps of images: times 10 degrees, 10 % of size and 7 % of shift."""

    payload: Literal["positions", "images"] = "positions"
    """What is sorted and compared with its right order: one-hot positions, or the images."""

    loss: Literal["order", "ranks", "plain", "means", "separate"] = "order"
    """What is compared: entries of the permutation, ranks, the sorted payload, or the payload at
    all levels of a mixture (means of buckets, or places separately)."""

    method: Literal["soft", "mixture", "rloo"] = "soft"
    """How the gradient is made: by the soft sort, by a quicksort that mixes permutations, or from
    drawn ones by the score function with a leave-one-out baseline (payload only)."""

    num_samples: Several = 4
    """Permutations drawn per sequence, for rloo."""

    def check(self) -> None:
        """Raise also if sequences cannot be made, or compared as the loss asks."""
        super().check()
        require(
            self.num_near < self.num_candidates,
            said(self, "num_near", "num_candidates"),
            "fewer near candidates than candidates",
            "change one of the two",
        )
        require(
            self.loss in LOSSES[self.method],
            said(self, "loss", "method"),
            f"the loss {' or '.join(LOSSES[self.method])}",
            "change one of the two",
        )
        require(
            not self.distinct or self.n <= 10**self.digits,
            f"--n {self.n} distinct numbers of {self.digits} digits",
            f"at most {10**self.digits}",
            "lower --n, raise --digits or pass --no-distinct",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Say which options only some methods have."""
        yield from super().ignored()
        if self.method == "soft":
            yield "method", ("num_candidates", "num_near")
        else:
            yield "method", ("learn_certainty",)
        if self.method == "rloo":  # the law of its candidates must not depend on the keys
            yield "method", ("num_near",)
        else:
            yield "method", ("num_samples",)
        if self.loss in ("order", "ranks"):
            yield "loss", ("payload",)

    def load(self) -> dict[str, ClassIndex]:
        """Index the digits by class."""
        return {name: index_by_class(part) for name, part in self.load_splits()._asdict().items()}

    def plan(self, data: dict[str, ClassIndex]) -> Plan:
        """Judge by the sequences that the keys put into the right order."""
        height, width = data["train"].images.shape[1:]
        most = min(height, width).bit_length() - 1
        require(
            self.channels is None or len(self.channels) <= most,
            f"{said(self, 'channels')} with digits of {height} x {width}",
            f"at most {most} layers, each of which halves the sides",
            "pass fewer numbers to --channels",
        )
        keys_of, state = make_model(self, (height, width))
        measure = make_measure(self, keys_of)

        def evaluate(folder: RunFolder, step: int, state: TrainState) -> dict[str, float]:
            return measure(state.parameters.network, data["validation"])

        def finish(folder: RunFolder, state: TrainState) -> dict[str, Any]:
            network, log_certainty = state.parameters
            draw(self, folder, keys_of, network, data["test"])
            figures = {f"test_{name}": x for name, x in measure(network, data["test"]).items()}
            return figures | {"learned_certainty": round(float(jnp.exp(log_certainty)), 2)}

        step = make_step(self, keys_of)
        return Plan(step, state, finish, (data["train"],), evaluate, self.evaluate_every)


Keys = Callable[[nnx.State, jax.Array], jax.Array]
"""Maps parameters and images ``(..., h, w)`` to keys ``(...)``."""


def make_model(recipe: SortRecipe, size: tuple[int, ...]) -> tuple[Keys, TrainState]:
    """Build the key network and the state before training.

    Args:
        recipe: the recipe.
        size: height and width of an image of one digit.
    """
    rngs = nnx.Rngs(params=recipe.seed)
    network = NumberKeyNetwork(recipe.digits, *size, rngs=rngs, channels=recipe.channels)
    graph, parameters = nnx.split(network, nnx.Param)

    def keys_of(parameters: nnx.State, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, parameters)(images)

    learned = SortParameters(parameters, jnp.log(jnp.float32(recipe.certainty)))
    return keys_of, TrainState(learned, optimizer_of(recipe).init(learned))


def optimizer_of(recipe: SortRecipe) -> optax.GradientTransformation:
    """Give the recipe's optimizer: clipped AdamW with warm-up and cosine decay."""
    peak, warmup = recipe.learning_rate, min(200, recipe.steps // 10)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, recipe.steps, 0.01 * peak)

    def decayed(parameters: SortParameters) -> SortParameters:
        learned = jax.tree.map(lambda _: True, parameters.network)
        return parameters._replace(network=learned, log_certainty=False)

    adamw = optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def draw_sequences(recipe: SortRecipe, key: jax.Array, index: ClassIndex, batch: int) -> Sequences:
    """Draw sequences of the recipe's kind."""
    return make_sequences(
        key,
        index,
        batch=batch,
        length=recipe.n,
        digits=recipe.digits,
        distinct=recipe.distinct,
    )


def make_step(
    recipe: SortRecipe, keys_of: Keys, loss: Callable[..., jax.Array] | None = None
) -> Step:
    """Make the pure training step: fresh sequences, warped images, loss of the soft sort.

    Args:
        recipe: the recipe.
        keys_of: the key network.
        loss: called as :func:`sequence_loss` without its recipe, to compare other ways to sort.
    """
    optimizer, one_loss = optimizer_of(recipe), loss or partial(sequence_loss, recipe)
    learned = recipe.learn_certainty and recipe.method == "soft"

    def loss_of(parameters: SortParameters, key: jax.Array, index: ClassIndex) -> jax.Array:
        draw_key, warp_key, sort_key = jax.random.split(key, 3)
        sequences = draw_sequences(recipe, draw_key, index, recipe.batch)
        images = warp_digits(recipe, warp_key, sequences.images)
        keys = jax.random.split(sort_key, recipe.batch)
        certainty = jnp.exp(parameters.log_certainty) if learned else recipe.certainty
        compare = jax.vmap(partial(one_loss, certainty=certainty))
        return jnp.mean(
            compare(keys, keys_of(parameters.network, images), images, sequences.labels)
        )

    def step(state: TrainState, key: jax.Array, index: ClassIndex) -> tuple[TrainState, Metrics]:
        loss, gradient = jax.value_and_grad(loss_of)(state.parameters, key, index)
        updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
        return TrainState(optax.apply_updates(state.parameters, updates), moments), {"loss": loss}

    return step


def warp_digits(recipe: SortRecipe, key: jax.Array, images: jax.Array) -> jax.Array:
    """Warp every digit of every image on its own."""
    if not recipe.warp:
        return images
    batch, n, height, width = images.shape
    tiles = images.reshape(batch * n, height, recipe.digits, width // recipe.digits)
    tiles = jnp.moveaxis(tiles, 2, 1).reshape(-1, height, width // recipe.digits)
    small, shift = 0.1 * recipe.warp, 0.07 * height * recipe.warp
    warped = augment(
        key, tiles, rotate=10 * recipe.warp, scale=small, shear=small, shift=shift, noise=small / 3
    )
    warped = warped.reshape(batch * n, recipe.digits, height, width // recipe.digits)
    return jnp.moveaxis(warped, 1, 2).reshape(images.shape)


def make_measure(
    recipe: SortRecipe, keys_of: Keys
) -> Callable[[nnx.State, ClassIndex], dict[str, float]]:
    """Make the evaluation: 10,000 fixed sequences, sorted by their keys."""

    @jax.jit
    def on_device(parameters: nnx.State, index: ClassIndex) -> dict[str, jax.Array]:
        def part(key: jax.Array) -> dict[str, jax.Array]:
            sequences = draw_sequences(recipe, key, index, TEST_SEQUENCES // TEST_PARTS)
            keys = keys_of(parameters, sequences.images)
            return {
                "exact_match": jnp.mean(exact_match(keys, sequences.labels)),
                "element_match": jnp.mean(element_match(keys, sequences.labels)),
            }

        # A part at a time: the images of all sequences at once would fill the memory.
        parts = jax.lax.map(part, jax.random.split(jax.random.key(TEST_SEED), TEST_PARTS))
        return jax.tree.map(jnp.mean, parts)

    def measure(parameters: nnx.State, index: ClassIndex) -> dict[str, float]:
        return {name: float(value) for name, value in on_device(parameters, index).items()}

    return measure


def draw(
    recipe: SortRecipe, folder: RunFolder, keys_of: Keys, parameters: nnx.State, index: ClassIndex
) -> None:
    """Draw some sequences at all stages of a quicksort by the learned keys."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    sequences = draw_sequences(recipe, jax.random.key(TEST_SEED), index, SHOWN)
    keys = keys_of(parameters, sequences.images)
    sort = jax.vmap(lambda keys, images: quicksort(None, keys, images, hard=True).stages)
    stages = [np.asarray(stage) for stage in sort(keys, sequences.images)]
    between = [f"after split {number}" for number in range(1, len(stages) - 1)]
    names = ["unsorted", *(["half-sorted"] if len(between) == 1 else between), "sorted"]
    folder.save_figure(plots.plot_image_rows(stages, names[: len(stages)]), "sorted")
