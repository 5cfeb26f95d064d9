"""Find a digit in a cluttered canvas and read it: attention that learns where to look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators import score_function_loss
from sparse_hyper_jax.glimpse import UPRIGHT
from sparse_hyper_jax.nn import parameter_labels
from sparse_hyper_jax.nn.glimpse_classifiers import Classified, glimpse_classifier
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.canvases import Canvases, load_canvases
from sparse_hyper_jax.train.recipes.images import check_folder
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

SHOWN = 8
OURS = ("scale", "box", "affine", "quad")
READING = ("reader", "draws", "num_global", "num_local", "variance_scale", "variance_rate")
"""Options of hyperlayers."""


class GlimpseState(NamedTuple):
    """What training changes."""

    parameters: nnx.State
    optimizer: optax.OptState


@dataclass(frozen=True)
class GlimpseRecipe:
    """Classify large, cluttered images through small windows (Bloem 2018)."""

    model: Literal["scale", "box", "affine", "quad", "stn", "reinforce", "conv"] = "scale"
    """Glimpses through a hyperlayer, of one of four forms; or a baseline: spatial transformer,
    score function, no glimpse at all."""

    canvas: int | None = None
    """Side of an image; by default 60 for MNIST and 32 for the bundled digits."""

    glimpses: int = 1
    """Windows per image."""

    window: int | None = None
    """Side of a window; by default that of a digit."""

    distractors: int = 4
    """Pieces of digits on every canvas."""

    distractor_size: int | None = None
    """Their side; by default 8 for MNIST and 5 for the bundled digits."""

    rotated: bool = False
    """Whether digits and distractors are rotated and scaled at random."""

    data: Literal["digits", "mnist", "idx", "cluttered"] = "digits"
    """Source of the digits: bundled 8x8 ones, enlarged to 16x16, MNIST in --data-dir, or any four
    idx files there; or the ready-made cluttered images of 40x40 there."""

    data_dir: Path | None = None
    """Folder of the image files, for all but the bundled digits."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    seed: int = 0
    """Seed of initialisation, canvases, augmentation and samples."""

    steps: int = 5_000
    """Number of training steps."""

    out: Path | None = None
    """Run folder; by default runs/glimpse-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    batch: int = 64
    """Images per step."""

    learning_rate: float = 2e-3
    """Peak of a warm-up and cosine schedule for AdamW."""

    weight_decay: float = 0.1
    """Of AdamW, on matrices."""

    warp: float = 0.5
    """Strength of random warps of the whole image: times 10 degrees, 10 % of size and slant, and on
    ready-made images 4 pixels of shift."""

    reader: Literal["sampled", "upright"] | None = None
    """Whether hyperlayers share each pixel among random points, or among all pixels of the image,
    which only upright windows can, scale and box: the default for these."""

    draws: Literal["glimpse", "pixel"] = "glimpse"
    """Whether all pixels of a window share their random points."""

    num_global: int = 8
    """Points per pixel drawn from the whole image."""

    num_local: int = 8
    """Points per pixel drawn from 8x8 pixels about it."""

    variance_scale: float = 0.02
    """Scale of variances: at the start 2.1 times this times the side of the image."""

    variance_rate: float = 10.0
    """Learning rate of variances, as a multiple of that of the network."""

    head: Literal["conv", "mlp"] = "conv"
    """What reads the windows."""

    features: int = 128
    """Width of the hidden layer that decides where to look."""

    coordinates: bool = False
    """Whether its first convolution sees where a pixel lies."""

    def run(self) -> dict[str, Any]:
        """Train, write the run folder and return the errors on training, held-out and test data."""
        self._check()
        canvases = load_canvases(self)
        # Before the run folder: options that do not fit should not leave one behind.
        apply, state = make_model(self, canvases)
        source = canvases.parts["train"]
        jax.eval_shape(lambda: canvases.draw(jax.random.key(0), source, self.batch))
        folder = open_run(self, recipe="glimpse", out=self.out, resume=self.resume)
        measure = make_measure(canvases, apply)

        def evaluate(step: int, state: GlimpseState) -> Mapping[str, float]:
            results = {"error": measure(state.parameters, "validation")}
            return results | deviations(self, canvases, state.parameters)

        trained = train(
            make_step(self, canvases, apply),
            state,
            constants=(source,),
            steps=self.steps,
            seed=self.seed,
            folder=folder,
            evaluate=evaluate,
            evaluate_every=1000,
            resume=self.resume,
            quiet=self.quiet,
            description=f"{self.model} on {canvases.side}x{canvases.side}",
        )
        parameters = trained.state.parameters
        result: dict[str, Any] = {
            f"{part}_error": measure(parameters, part) for part in ("train", "validation", "test")
        }
        self._draw(folder, canvases, parameters)
        result |= deviations(self, canvases, parameters)
        result |= {"model": self.model, "canvas": canvases.side, "steps": self.steps}
        result |= {"seconds": round(trained.seconds, 1), "seed": self.seed}
        return folder.write_result(result | {"out": str(folder.path)})

    def _check(self) -> None:
        for name in ("glimpses", "steps", "batch", "features"):
            checks.check_count(name, getattr(self, name), least=1)
        for name in ("canvas", "window", "distractor_size"):
            if getattr(self, name) is not None:
                checks.check_count(name, getattr(self, name), least=1)
        for name in ("learning_rate", "variance_scale", "variance_rate"):
            checks.require(
                getattr(self, name) > 0, f"{name}={getattr(self, name)}", "more than 0", "raise it"
            )
        checks.require(self.warp >= 0, f"warp={self.warp}", "0 or more", "raise it")
        checks.require(
            self.model != "reinforce" or self.batch >= 2,
            f"batch={self.batch} with model='reinforce'",
            "at least 2 images, each the others' baseline",
            "raise --batch",
        )
        self._check_unused()
        check_folder(self.data, self.data_dir)

    def _check_unused(self) -> None:
        """Raise if an option was changed that this combination would ignore."""
        cases = [
            (self.model not in OURS, f"model={self.model!r}", READING),
            (self.model == "conv", "model='conv'", ("window", "glimpses", "head")),
            (self.reads() == "upright", "reader='upright'", ("draws", "num_global", "num_local")),
            (self.data == "cluttered", "data='cluttered'", ("distractors", "distractor_size")),
            (self.rotated, "rotated=True", ("distractor_size",)),
        ]
        plain = GlimpseRecipe()
        for applies, cause, names in cases:
            changed = [
                f"{name}={getattr(self, name)!r}"
                for name in names
                if getattr(self, name) != getattr(plain, name)
            ]
            checks.require(
                not (applies and changed),
                f"{', '.join(changed)} with {cause}",
                "only options that it uses",
                "leave these out, or change the other",
            )

    def reads(self) -> str | None:
        """Give the reader of the hyperlayers; None for baselines."""
        if self.model not in OURS:
            return None
        return self.reader or ("upright" if self.model in UPRIGHT else "sampled")

    def _draw(self, folder: RunFolder, canvases: Canvases, parameters: nnx.State) -> None:
        if self.model == "conv":
            return
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        images, _ = canvases.show("test", SHOWN)
        attention = rebuild(self, canvases, parameters).attention
        corners = attention.corners(attention.numbers(images))
        windows = attention.read(images, corners, deterministic=True)
        figure = plots.plot_glimpses(
            np.asarray(images), np.asarray(corners), np.asarray(windows[..., 0])
        )
        figure.savefig(folder.path / "glimpses.png", dpi=150)


Apply = Callable[..., Classified]
"""``apply(parameters, images, key)`` classifies; with ``key=None`` nothing is random."""


def build(recipe: GlimpseRecipe, canvases: Canvases) -> nnx.Module:
    """Make the classifier before training."""
    sampling = {
        "reader": recipe.reads(),
        "draws": recipe.draws,
        "num_global": recipe.num_global,
        "num_local": recipe.num_local,
        "variance_scale": recipe.variance_scale,
    }
    return glimpse_classifier(
        recipe.model,
        canvases.side,
        canvases.side,
        (canvases.window, canvases.window),
        rngs=nnx.Rngs(recipe.seed),
        classes=canvases.classes,
        glimpses=recipe.glimpses,
        head=recipe.head,
        features=recipe.features,
        coordinates=recipe.coordinates,
        **(sampling if recipe.model in OURS else {}),
    )


def rebuild(recipe: GlimpseRecipe, canvases: Canvases, parameters: nnx.State) -> nnx.Module:
    """Make the classifier with given parameters."""
    graph, _, rest = nnx.split(build(recipe, canvases), nnx.Param, ...)
    return nnx.merge(graph, parameters, rest)


def deviations(
    recipe: GlimpseRecipe, canvases: Canvases, parameters: nnx.State
) -> dict[str, float]:
    """Give the mean standard deviation of the tuples, in pixels; nothing for the baselines."""
    if recipe.model not in OURS:
        return {}
    variances = rebuild(recipe, canvases, parameters).attention.variances()
    return {"deviation": float(jnp.mean(jnp.sqrt(variances)))}


def make_model(recipe: GlimpseRecipe, canvases: Canvases) -> tuple[Apply, GlimpseState]:
    """Build the classifier as a function, and the state before training."""
    graph, parameters, rest = nnx.split(build(recipe, canvases), nnx.Param, ...)

    def apply(parameters: nnx.State, images: jax.Array, key: jax.Array | None) -> Classified:
        model = nnx.merge(graph, parameters, rest)
        return model(images, deterministic=key is None, rngs=key)

    return apply, GlimpseState(parameters, optimizer_of(recipe, parameters).init(parameters))


def optimizer_of(recipe: GlimpseRecipe, parameters: nnx.State) -> optax.GradientTransformation:
    """Give the recipe's optimizer: clipped AdamW with warm-up and cosine decay."""
    peak, warmup = recipe.learning_rate, min(200, recipe.steps // 10)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, recipe.steps, 0.01 * peak)
    matrices = jax.tree.map(lambda leaf: leaf.ndim >= 2, parameters)
    adamw = optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=matrices)
    faster = jax.tree.map(lambda label: label == "variances", parameter_labels(parameters))
    rate = optax.masked(optax.scale(recipe.variance_rate), faster)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw, rate)


def make_step(
    recipe: GlimpseRecipe, canvases: Canvases, apply: Apply
) -> Callable[..., tuple[GlimpseState, dict[str, jax.Array]]]:
    """Make the pure training step: fresh canvases, cross-entropy, one update."""
    _, like, _ = nnx.split(build(recipe, canvases), nnx.Param, ...)
    optimizer = optimizer_of(recipe, like)

    def loss_of(
        parameters: nnx.State, key: jax.Array, source: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        draw_key, model_key = jax.random.split(key)
        images, labels = canvases.draw(draw_key, source, recipe.batch)
        classified = apply(parameters, images, model_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(classified.logits, labels)
        wrong = jnp.mean(jnp.argmax(classified.logits, axis=1) != labels)
        metrics = {"loss": jnp.mean(losses), "train_error": wrong}
        if recipe.model != "reinforce":
            return jnp.mean(losses), metrics
        baseline = "leave_one_out"  # the other images of the batch
        return score_function_loss(losses, classified.log_probability, baseline=baseline), metrics

    def step(
        state: GlimpseState, key: jax.Array, source: Any
    ) -> tuple[GlimpseState, dict[str, jax.Array]]:
        gradient, metrics = jax.grad(loss_of, has_aux=True)(state.parameters, key, source)
        updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
        return GlimpseState(optax.apply_updates(state.parameters, updates), moments), metrics

    return step


def make_measure(canvases: Canvases, apply: Apply) -> Callable[[nnx.State, str], float]:
    """Make the evaluation: the error on fixed canvases of one part, read without sampling."""

    @jax.jit
    def on_device(parameters: nnx.State, source: Any) -> jax.Array:
        def wrong(images: jax.Array, labels: jax.Array) -> jax.Array:
            logits = apply(parameters, images, None).logits
            return jnp.argmax(logits, axis=1) != labels

        return jnp.mean(canvases.over(source, wrong))

    return lambda parameters, part: float(on_device(parameters, canvases.parts[part]))
