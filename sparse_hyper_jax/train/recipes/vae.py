"""Train a variational autoencoder with a categorical code, by any estimator of its gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators import ARSM, REBAR, RLOO, Estimator, GumbelStraightThrough
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.autoencoder import (
    Coder,
    CoderState,
    binarise,
    divergence_from_uniform,
    expected_reconstruction,
    make_coder,
    make_estimator,
    make_step,
    reconstruction_loss,
    start_state,
)
from sparse_hyper_jax.train.recipes.images import Arrays, check_batch, check_folder, to_arrays
from sparse_hyper_jax.train.recipes.perceptron import check_hidden
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

TEST_SEED = 2**31 - 1
SHOWN = 12
VARIANCE_DRAWS = 100
TOLD = ("estimator", "num_samples", "temperature", "variables", "classes", "data", "seed")
"""Options that the result repeats."""


def compared_estimators(classes: int) -> dict[str, Estimator]:
    """Give what is compared at the final parameters, RLOO also at the evaluations of ARSM."""
    same = ARSM().evaluations((1, classes))
    many = {} if same <= 2 else {f"rloo_{same}": RLOO(same)}
    some = {"arsm": ARSM(), "rloo_2": RLOO(2), **many, "rebar": REBAR()}
    return some | {"gumbel_straight_through": GumbelStraightThrough()}


@dataclass(frozen=True)
class VAERecipe:
    """Train a categorical variational autoencoder on binarised images (as Yin et al. 2019)."""

    estimator: Literal[
        "rloo",
        "arsm",
        "gumbel_straight_through",
        "rebar",
        "without_replacement",
        "score_function",
        "straight_through",
        "ars",
        "ar",
    ] = "rloo"
    """What makes the encoder's gradient."""

    num_samples: int | None = None
    """Samples per image of an estimator that has a number of them; by default its own."""

    temperature: float | None = None
    """Of an estimator that has one; by default its own."""

    variables: int = 10
    """Categorical variables of a code."""

    classes: int = 5
    """Classes of each."""

    hidden: tuple[int, ...] = (200,)
    """Units of the encoder's hidden layers; the decoder has them in reverse."""

    learning_rate: float = 1e-3
    """Of Adam."""

    data: Literal["digits", "mnist", "idx"] = "digits"
    """Images: bundled 8x8 digits, MNIST in --data-dir, or any four idx files there."""

    data_dir: Path | None = None
    """Folder of the image files, for mnist and idx."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    batch: int = 50
    """Images per step; an epoch leaves out what does not fill a batch."""

    steps: int = 3000
    """Number of training steps."""

    evaluate_every: int = 500
    """Steps between validations."""

    seed: int = 0
    """Seed of initialisation, validation split, order of the images and samples."""

    compare: bool = False
    """Whether to measure at the end how the encoder's gradient varies by other estimators too."""

    out: Path | None = None
    """Run folder; by default runs/vae-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> dict[str, Any]:
        """Train, write the run folder and return the final figures on test images."""
        estimator = self._check()
        splits = load_splits(self.data, self.data_dir, seed=self.seed, download=self.download)
        parts = {name: binary_arrays(part) for name, part in splits._asdict().items()}
        check_batch(self.batch, len(parts["train"][0]))
        coder, state = make_model(self, parts["train"])
        folder = open_run(self, recipe="vae", out=self.out, resume=self.resume)
        measure, spread = make_measure(coder), make_encoder_variance(coder, estimator)
        watched = parts["train"][0][: self.batch]

        def evaluate(step: int, state: CoderState) -> Mapping[str, float]:
            return {
                "negative_elbo": measure(state.parameters, parts["validation"]),
                "test_negative_elbo": measure(state.parameters, parts["test"]),
                "encoder_variance": spread(state.parameters, watched),
            }

        trained = train(
            make_step(negative_elbo(coder, estimator), self.optimizer, batch=self.batch),
            state,
            constants=(parts["train"],),
            steps=self.steps,
            seed=self.seed,
            folder=folder,
            evaluate=evaluate,
            evaluate_every=self.evaluate_every,
            steps_per_dispatch=min(self.evaluate_every, 500),
            resume=self.resume,
            quiet=self.quiet,
            description=self.estimator,
        )
        parameters = trained.state.parameters
        result: dict[str, Any] = {
            f"{name}_negative_elbo": measure(parameters, part) for name, part in parts.items()
        }
        result["evaluations"] = estimator.evaluations((self.variables, self.classes))
        if self.compare:
            result["encoder_variance"] = self._variances(coder, parameters, watched)
        self._draw(folder, coder, parameters, parts["test"])
        result |= {name: getattr(self, name) for name in TOLD}
        result |= {"steps": trained.steps, "seconds": round(trained.seconds, 1)}
        return folder.write_result(result | {"out": str(folder.path)})

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam at the recipe's rate."""
        return optax.adam(self.learning_rate)

    def _check(self) -> Estimator:
        counts = ("variables", "batch", "steps", "evaluate_every")
        for name in counts:
            checks.check_count(name, getattr(self, name), least=1)
        checks.check_count("classes", self.classes, least=2)
        check_hidden(self.hidden)
        every = self.evaluate_every
        checks.require(
            every <= 500 or every % 500 == 0,
            f"evaluate_every={every}",
            "at most 500 or a multiple of it",
            "change it",
        )
        rate = self.learning_rate
        checks.require(rate > 0, f"learning_rate={rate}", "more than 0", "change it")
        check_folder(self.data, self.data_dir)
        estimator = make_estimator(
            self.estimator, num_samples=self.num_samples, temperature=self.temperature
        )
        # Says so if the options do not fit the code.
        estimator.evaluations((self.variables, self.classes))
        return estimator

    def _variances(self, coder: Coder, parameters: nnx.State, images: jax.Array) -> dict[str, Any]:
        """Compare all estimators where training has ended, whichever was used."""
        shape = (self.variables, self.classes)
        return {
            name: {
                "evaluations": one.evaluations(shape),
                "variance": make_encoder_variance(coder, one)(parameters, images),
            }
            for name, one in compared_estimators(self.classes).items()
        }

    def _draw(self, folder: RunFolder, coder: Coder, parameters: nnx.State, test: Arrays) -> None:
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        images = test[0][:SHOWN]
        rows = draw_codes(jax.random.key(TEST_SEED), coder.encode(parameters, images))
        shown = [np.asarray(images), np.asarray(nnx.sigmoid(coder.decode(parameters, rows)))]
        side = round(images.shape[1] ** 0.5)
        if side**2 == images.shape[1]:
            figure = plots.plot_image_rows(
                [part.reshape(1, -1, side, side) for part in shown], ["images", "from codes"]
            )
            figure.savefig(folder.path / "reconstructions.png", dpi=150)
        curve = plots.read_curve(folder, "eval_negative_elbo")
        figure = plots.plot_curves({"validation, -ELBO in nats": curve})
        figure.savefig(folder.path / "curve.png", dpi=150)


def binary_arrays(part: Any) -> Arrays:
    """Flatten, move to the device and binarise a data set."""
    images, labels = to_arrays(part)
    return binarise(images), labels


def make_model(recipe: VAERecipe, train_set: Arrays) -> tuple[Coder, CoderState]:
    """Build the network and the state before training."""
    images, _ = train_set
    code = (recipe.variables, recipe.classes)
    coder, parameters = make_coder(images.shape[1], recipe.hidden, code, seed=recipe.seed)
    return coder, start_state(parameters, recipe.optimizer, len(images))


def negative_elbo(
    coder: Coder, estimator: Estimator
) -> Callable[[nnx.State, jax.Array, jax.Array], jax.Array]:
    """Make the mean of ``E_q[-log p(x | z)] + KL(q || uniform)`` over a batch of images.

    The divergence is exact; its expectation by samples would add noise to every estimator.

    Returns:
        a function of parameters, a typed key and images ``(b, pixels)``.
    """

    def loss(parameters: nnx.State, key: jax.Array, images: jax.Array) -> jax.Array:
        logits = coder.encode(parameters, images)
        keys = jax.random.split(key, len(images))
        expected = expected_reconstruction(coder, estimator, parameters)
        distortion = jax.vmap(expected)(keys, images, logits)
        return jnp.mean(distortion + divergence_from_uniform(logits))

    return loss


def draw_codes(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draw codes as one-hot rows ``(..., K, C)``."""
    return jax.nn.one_hot(jax.random.categorical(key, logits), logits.shape[-1])


def make_measure(coder: Coder) -> Callable[[nnx.State, Arrays], float]:
    """Make the evaluation: -ELBO in nats, one code per image, drawn with a fixed key."""

    @jax.jit
    def on_device(parameters: nnx.State, images: jax.Array) -> jax.Array:
        logits = coder.encode(parameters, images)
        rows = draw_codes(jax.random.key(TEST_SEED), logits)
        distortion = reconstruction_loss(coder.decode(parameters, rows), images)
        return jnp.mean(distortion + divergence_from_uniform(logits))

    return lambda parameters, part: float(on_device(parameters, part[0]))


def make_encoder_variance(
    coder: Coder, estimator: Estimator
) -> Callable[[nnx.State, jax.Array], float]:
    """Make the variance of the gradient towards the encoder's last kernel, summed over entries.

    Of the loss of one batch of images, over 100 keys.
    """

    @jax.jit
    def on_device(parameters: nnx.State, images: jax.Array) -> jax.Array:
        last = max(parameters["encoder"])

        def towards_last(key: jax.Array) -> jax.Array:
            gradient = jax.grad(negative_elbo(coder, estimator))(parameters, key, images)
            return gradient["encoder"][last]["kernel"][...]

        keys = jax.random.split(jax.random.key(TEST_SEED), VARIANCE_DRAWS)
        return jnp.sum(jnp.var(jax.lax.map(towards_last, keys), axis=0, ddof=1))

    return lambda parameters, images: float(on_device(parameters, images))
