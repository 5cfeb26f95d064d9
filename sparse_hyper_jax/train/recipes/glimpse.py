"""Find a digit in a cluttered canvas and read it: attention that learns where to look."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.estimators import score_function_loss
from sparse_hyper_jax.glimpse import UPRIGHT
from sparse_hyper_jax.nn import parameter_labels
from sparse_hyper_jax.nn.glimpse_attention import Reader
from sparse_hyper_jax.nn.glimpse_classifiers import Classified, Head
from sparse_hyper_jax.nn.glimpse_models import AttentionOptions, glimpse_classifier
from sparse_hyper_jax.train.data import load_cluttered
from sparse_hyper_jax.train.data.canvases import Canvases, Warped, make_canvases, ready_canvases
from sparse_hyper_jax.train.epoch_state import Metrics, TrainState
from sparse_hyper_jax.train.limits import Count, Counts, NotNegative, Positive, Whole, said
from sparse_hyper_jax.train.loop import Step
from sparse_hyper_jax.train.models.given_window import GivenClassifier
from sparse_hyper_jax.train.recipe import ImageRecipe, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

SHOWN = 8
OURS = ("scale", "box", "affine", "quad")
READING = ("reader", "points_per", "num_global", "num_local", "variance_scale", "variance_rate")
"""Options of hyperlayers."""


@dataclass(frozen=True, kw_only=True)
class GlimpseRecipe(ImageRecipe):
    """Classify large, cluttered images through small windows (Bloem 2018)."""

    name: ClassVar[str] = "glimpse"

    method: Literal["scale", "box", "affine", "quad", "stn", "reinforce", "conv", "given"] = "scale"
    """Glimpses through a hyperlayer, of one of four forms; or a baseline: spatial transformer,
    score function, no glimpse at all; or the head alone on a window whose place is given, that of
    the digit: no attention can be expected to err less."""

    canvas: Count | None = None
    """Side of an image; by default 60 for MNIST and 32 for the bundled digits."""

    glimpses: Count = 1
    """Windows per image."""

    window: Count | None = None
    """Side of a window; by default that of a digit."""

    distractors: Whole = 4
    """Pieces of digits on every canvas."""

    distractor_size: Count | None = None
    """Their side; by default 8 for MNIST and 5 for the bundled digits."""

    rotated: bool = False
    """Whether digits and distractors are rotated and scaled at random."""

    coloured: bool = False
    """Whether every digit and every distractor has a random colour; images have three channels."""

    data: Literal["digits", "mnist", "idx", "cluttered"] = "digits"
    """Source of the digits: bundled 8x8 ones, enlarged to 16x16, MNIST in --data-dir, or any four
    idx files there; or the ready-made cluttered images of 40x40 there."""

    batch: Count = 64
    """Images per step."""

    steps: Count = 5_000
    """Number of training steps."""

    evaluate_every: Count = 1000
    """Steps between validations."""

    learning_rate: Positive = 2e-3
    """Peak of a warm-up and cosine schedule for AdamW."""

    weight_decay: NotNegative = 0.1
    """Of AdamW, on matrices."""

    warp: NotNegative = 0.5
    """Strength of random warps: times 10 degrees, 10 % of size and slant, and on ready-made images
    4 pixels of shift."""

    warped: Warped = "image"
    """Whether whole images are warped, or digits before they are put on a canvas: cheaper, and the
    pieces of others stay as they are."""

    shrink: Count = 1
    """The network that decides where to look sees averages of squares of pixels of this side;
    windows are read from the whole image."""

    reader: Literal["sampled", "upright"] | None = None
    """Whether hyperlayers share each pixel among random points, or among all pixels of the image,
    which only upright windows can, scale and box: the default for these."""

    points_per: Literal["glimpse", "pixel"] = "glimpse"
    """Whether all pixels of a window share their random points."""

    num_global: Whole = 8
    """Points per pixel drawn from the whole image."""

    num_local: Whole = 8
    """Points per pixel drawn from 8x8 pixels about it."""

    variance_scale: Positive = 0.02
    """Scale of variances: at the start 2.1 times this times the side of the image."""

    variance_rate: Positive = 10.0
    """Learning rate of variances, as a multiple of that of the network."""

    head: Literal["conv", "mlp"] = "conv"
    """What reads the windows."""

    head_width: Count = 64
    """Units of its hidden layer."""

    head_channels: Counts | None = None
    """Channels of its convolutions; by default 24, 48, 96, as windows of 16 and more ask for."""

    width: Count = 128
    """Units of the hidden layer that decides where to look."""

    coordinates: bool = False
    """Whether its first convolution sees where a pixel lies."""

    soft_argmax: NotNegative = 0.0
    """Above 0, windows also move to the middle of a softmax over its last map, with this factor of
    the scores: found at one place, found at all."""

    missed: NotNegative = 0.0
    """Standard deviation, in pixels, of how far a window whose place is given lies off."""

    def check(self) -> None:
        """Raise also if an image would have no baseline, or a window turn that cannot."""
        super().check()
        require(
            self.reader != "upright" or self.method in UPRIGHT,
            said(self, "reader", "method"),
            f"one of the methods whose windows are upright, {' or '.join(UPRIGHT)}",
            "leave out --reader, or change --method",
        )
        require(
            self.method != "given" or not (self.rotated or self.data == "cluttered"),
            said(self, "method", "rotated", "data"),
            "canvases that are made here, of upright digits, whose places and sizes are known",
            "leave out --rotated, take the digits of --data mnist, or change --method",
        )
        require(
            self.method != "reinforce" or self.batch >= 2,
            said(self, "batch", "method"),
            "at least 2 images, each the others' baseline",
            "raise --batch",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Baselines lack the options of hyperlayers, ready-made images those of canvases."""
        yield from super().ignored()
        if self.method not in OURS:
            yield "method", READING
        if self.method == "conv":
            yield "method", ("window", "glimpses", "head", "head_width", "head_channels")
            yield "method", ("soft_argmax",)
        if self.method != "given":
            yield "method", ("missed",)
        else:
            yield "method", ("glimpses", "width", "coordinates", "shrink", "soft_argmax")
        if self.head == "mlp":
            yield "head", ("head_channels",)
        if self.reads() == "upright":
            decides = "method" if self.reader is None else "reader"
            yield decides, ("points_per", "num_global", "num_local")
        if self.rotated:
            yield "rotated", ("distractor_size", "warped")
        if not self.warp:
            yield "warp", ("warped",)
        if self.data == "cluttered":
            made = ("distractors", "distractor_size", "canvas", "rotated", "coloured", "warped")
            yield "data", (*made, "download")

    def reads(self) -> Reader | None:
        """Give the reader of the hyperlayers; None for baselines."""
        if self.method not in OURS:
            return None
        return self.reader or ("upright" if self.method in UPRIGHT else "sampled")

    def load(self) -> Canvases:
        """Give images that are ready-made, or say how they are made of digits."""
        if self.data == "cluttered":
            assert self.data_dir is not None, "checked"
            splits = load_cluttered(self.data_dir)
            return ready_canvases(splits, window=self.window, warp=self.warp)
        return make_canvases(
            self.load_splits(),
            small=self.data == "digits",
            canvas=self.canvas,
            window=self.window,
            distractors=self.distractors,
            distractor_size=self.distractor_size,
            rotated=self.rotated,
            coloured=self.coloured,
            warp=self.warp,
            warped=self.warped,
            given=self.method == "given",
            missed=self.missed,
        )

    def settle(self, data: Canvases) -> Self:
        """Settle the sides and the reader."""
        return replace(self, canvas=data.side, window=data.window, reader=self.reads())

    def plan(self, data: Canvases) -> Plan:
        """Judge by the accuracy on fixed canvases, read without sampling."""
        source = data.parts["train"]
        apply, state = make_model(self, data)
        measure = make_measure(data, apply)

        def evaluate(folder: RunFolder, step: int, state: TrainState) -> dict[str, float]:
            accuracy = measure(state.parameters, "validation")
            return {"accuracy": accuracy} | deviations(self, data, state.parameters)

        def finish(folder: RunFolder, state: TrainState) -> dict[str, Any]:
            draw(self, folder, data, state)
            parts = ("train", "validation", "test")
            figures = {f"{part}_accuracy": measure(state.parameters, part) for part in parts}
            return figures | deviations(self, data, state.parameters)

        step = make_step(self, data, apply)
        return Plan(step, state, finish, (source,), evaluate, self.evaluate_every)


def draw(recipe: GlimpseRecipe, folder: RunFolder, canvases: Canvases, state: TrainState) -> None:
    """Draw where the classifier looks in some test images, and what it sees there."""
    if recipe.method in ("conv", "given"):
        return
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    images, _ = canvases.show("test", SHOWN)
    attention = rebuild(recipe, canvases, state.parameters).attention
    corners = attention.corners(attention.numbers(images))
    windows = attention.read(images, corners, deterministic=True)
    if canvases.channels == 1:
        windows = windows[..., 0]
    shown = map(np.asarray, (images, corners, windows))
    figure = plots.plot_glimpses(*shown)
    folder.save_figure(figure, "glimpses")


Apply = Callable[..., Classified]
"""``apply(parameters, images, key)`` classifies; with ``key=None`` nothing is random."""


def build(recipe: GlimpseRecipe, canvases: Canvases) -> nnx.Module:
    """Make the classifier before training."""
    window, rngs = (canvases.window, canvases.window), nnx.Rngs(recipe.seed)
    if recipe.method == "given":
        head = Head(
            window,
            canvases.channels,
            canvases.classes,
            kind=recipe.head,
            hidden=recipe.head_width,
            channels=recipe.head_channels,
            rngs=rngs,
        )
        return GivenClassifier(head)
    return glimpse_classifier(
        recipe.method,
        canvases.side,
        canvases.side,
        window,
        rngs=rngs,
        classes=canvases.classes,
        glimpses=recipe.glimpses,
        inputs=canvases.channels,
        head=recipe.head,
        hidden=recipe.head_width,
        head_channels=recipe.head_channels,
        features=recipe.width,
        coordinates=recipe.coordinates,
        shrink=recipe.shrink,
        **_reading(recipe),
    )


def _reading(recipe: GlimpseRecipe) -> AttentionOptions:
    """Give the options of the attention; the network alone has none, and baselines no reader."""
    options: AttentionOptions = {}
    if recipe.method != "conv":
        options["soft_argmax"] = recipe.soft_argmax
    reader = recipe.reads()
    if reader is not None:
        options |= {
            "reader": reader,
            "draws": recipe.points_per,
            "num_global": recipe.num_global,
            "num_local": recipe.num_local,
            "variance_scale": recipe.variance_scale,
        }
    return options


def rebuild(recipe: GlimpseRecipe, canvases: Canvases, parameters: nnx.State) -> Any:
    """Make the classifier with given parameters."""
    graph, _, rest = nnx.split(build(recipe, canvases), nnx.Param, ...)
    return nnx.merge(graph, parameters, rest)


def deviations(
    recipe: GlimpseRecipe, canvases: Canvases, parameters: nnx.State
) -> dict[str, float]:
    """Give the mean standard deviation of the tuples, in pixels; nothing for the baselines."""
    if recipe.method not in OURS:
        return {}
    variances = rebuild(recipe, canvases, parameters).attention.variances()
    return {"deviation": float(jnp.mean(jnp.sqrt(variances)))}


def make_model(recipe: GlimpseRecipe, canvases: Canvases) -> tuple[Apply, TrainState]:
    """Build the classifier as a function, and the state before training."""
    graph, parameters, rest = nnx.split(build(recipe, canvases), nnx.Param, ...)

    def apply(parameters: nnx.State, images: jax.Array, key: jax.Array | None) -> Classified:
        model = nnx.merge(graph, parameters, rest)
        return model(images, deterministic=key is None, rngs=key)

    return apply, TrainState(parameters, optimizer_of(recipe, parameters).init(parameters))


def optimizer_of(recipe: GlimpseRecipe, parameters: nnx.State) -> optax.GradientTransformation:
    """Give the recipe's optimizer: clipped AdamW with warm-up and cosine decay."""
    peak, warmup = recipe.learning_rate, min(200, recipe.steps // 10)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, recipe.steps, 0.01 * peak)
    matrices = jax.tree.map(lambda leaf: leaf.ndim >= 2, parameters)
    adamw = optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=matrices)
    faster = jax.tree.map(lambda label: label == "variances", parameter_labels(parameters))
    rate = optax.masked(optax.scale(recipe.variance_rate), faster)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw, rate)


def make_step(recipe: GlimpseRecipe, canvases: Canvases, apply: Apply) -> Step:
    """Make the pure training step: fresh canvases, cross-entropy, one update."""
    _, like, _ = nnx.split(build(recipe, canvases), nnx.Param, ...)
    optimizer = optimizer_of(recipe, like)

    def loss_of(parameters: nnx.State, key: jax.Array, source: Any) -> tuple[jax.Array, Metrics]:
        draw_key, model_key = jax.random.split(key)
        images, labels = canvases.draw(draw_key, source, recipe.batch)
        classified = apply(parameters, images, model_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(classified.logits, labels)
        right = jnp.mean(jnp.argmax(classified.logits, axis=1) == labels)
        metrics = {"loss": jnp.mean(losses), "train_accuracy": right}
        if recipe.method != "reinforce":
            return jnp.mean(losses), metrics
        baseline = "leave_one_out"  # the other images of the batch
        return score_function_loss(losses, classified.log_probability, baseline=baseline), metrics

    def step(state: TrainState, key: jax.Array, source: Any) -> tuple[TrainState, Metrics]:
        gradient, metrics = jax.grad(loss_of, has_aux=True)(state.parameters, key, source)
        updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
        return TrainState(optax.apply_updates(state.parameters, updates), moments), metrics

    return step


def make_measure(canvases: Canvases, apply: Apply) -> Callable[[nnx.State, str], float]:
    """Make the evaluation: the accuracy on fixed canvases of one part, read without sampling."""

    @jax.jit
    def on_device(parameters: nnx.State, source: Any) -> jax.Array:
        def right(images: jax.Array, labels: jax.Array) -> jax.Array:
            logits = apply(parameters, images, None).logits
            return jnp.argmax(logits, axis=1) == labels

        return jnp.mean(canvases.over(source, right))

    return lambda parameters, part: float(on_device(parameters, canvases.parts[part]))
