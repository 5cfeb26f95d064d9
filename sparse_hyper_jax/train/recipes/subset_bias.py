"""How biased is a softmax over a random subset? An autoencoder whose exact gradient is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

from sparse_hyper_jax import checks
from sparse_hyper_jax.diagnostics import gradient_report
from sparse_hyper_jax.estimators import (
    RLOO,
    Enumeration,
    Estimator,
    GumbelStraightThrough,
    Subset,
    WithoutReplacement,
)
from sparse_hyper_jax.estimators.without_replacement import MOST_SAMPLES
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.autoencoder import (
    Coder,
    CoderState,
    expected_reconstruction,
    make_coder,
    make_step,
    start_state,
)
from sparse_hyper_jax.train.recipes.images import Arrays, check_batch, check_folder, to_arrays
from sparse_hyper_jax.train.recipes.perceptron import check_hidden
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

SAMPLE_SEED = 2**31 - 1


@dataclass(frozen=True)
class SubsetBiasRecipe:
    """Compare estimates with the exact gradient of a discrete autoencoder (Bloem's experiment).

    The autoencoder has one categorical variable and is trained by the full expectation; then the
    gradient of one batch towards the encoder is estimated many times.
    """

    classes: int = 128
    """Number of codes."""

    subset: int = 5
    """Evaluations of the decoder per image that every estimator gets."""

    hidden: tuple[int, ...] = (64,)
    """Units of the encoder's hidden layers; the decoder has them in reverse."""

    learning_rate: float = 1e-4
    """Of Adam."""

    epochs: int = 5
    """Of training, before the measurement."""

    draws: int = 1000
    """Estimates of each kind."""

    data: Literal["digits", "mnist", "idx"] = "digits"
    """Images: bundled 8x8 digits, MNIST in --data-dir, or any four idx files there."""

    data_dir: Path | None = None
    """Folder of the image files, for mnist and idx."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    batch: int = 8
    """Images per step, and in the measurement."""

    seed: int = 0
    """Seed of initialisation, validation split and order of the images."""

    out: Path | None = None
    """Run folder; by default runs/subset-bias-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> dict[str, Any]:
        """Train with the exact gradient, then measure the others against it."""
        self._check()
        splits = load_splits(self.data, self.data_dir, seed=self.seed, download=self.download)
        train_set = to_arrays(splits.train)
        check_batch(self.batch, len(train_set[0]))
        folder = open_run(self, recipe="subset-bias", out=self.out, resume=self.resume)
        coder, state = make_model(self, train_set)
        steps = self.epochs * (len(train_set[0]) // self.batch)
        trained = train(
            make_step(batch_loss(coder, Enumeration()), self.optimizer, batch=self.batch),
            state,
            constants=(train_set,),
            steps=steps,
            seed=self.seed,
            folder=folder,
            steps_per_dispatch=min(100, steps),
            resume=self.resume,
            quiet=self.quiet,
            description="exact gradient",
        )
        images = to_arrays(splits.validation)[0][: self.batch]
        reports, errors = measure(self, coder, trained.state.parameters, images)
        self._draw(folder, errors)
        result: dict[str, Any] = {"estimators": reports, "steps": trained.steps}
        for name in ("classes", "subset", "batch", "draws", "data", "seed"):
            result[name] = getattr(self, name)
        result["seconds"] = round(trained.seconds, 1)
        return folder.write_result(result | {"out": str(folder.path)})

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam at the recipe's rate."""
        return optax.adam(self.learning_rate)

    def _check(self) -> None:
        for name in ("classes", "subset", "epochs", "draws", "batch"):
            checks.check_count(name, getattr(self, name), least=2 if name != "batch" else 1)
        checks.require(
            self.subset <= self.classes,
            f"subset={self.subset} of {self.classes} classes",
            "at most all of them",
            "lower --subset",
        )
        check_hidden(self.hidden)
        rate = self.learning_rate
        checks.require(rate > 0, f"learning_rate={rate}", "more than 0", "change it")
        check_folder(self.data, self.data_dir)
        compared(self.subset)

    def _draw(self, folder: RunFolder, errors: Mapping[str, np.ndarray]) -> None:
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        figure = plots.plot_histograms(errors, x_label="error of an entry")
        figure.savefig(folder.path / "errors.png", dpi=150)


def compared(evaluations: int) -> dict[str, tuple[Estimator, int]]:
    """Give the estimators at equal evaluations, each with the number of estimates to average."""
    methods: dict[str, tuple[Estimator, int]] = {
        "uninformed subset": (Subset(evaluations), 1),
        "informed subset": (Subset(evaluations, informed=True), 1),
        "Gumbel straight-through": (GumbelStraightThrough(temperature=1.0), evaluations),
        "RLOO": (RLOO(evaluations), 1),
    }
    if evaluations <= MOST_SAMPLES:
        methods["without replacement"] = (WithoutReplacement(evaluations), 1)
    return methods


def make_model(recipe: SubsetBiasRecipe, train_set: Arrays) -> tuple[Coder, CoderState]:
    """Build the network and the state before training."""
    images, _ = train_set
    code = (1, recipe.classes)
    coder, parameters = make_coder(images.shape[1], recipe.hidden, code, seed=recipe.seed)
    return coder, start_state(parameters, recipe.optimizer, len(images))


def batch_loss(
    coder: Coder, estimator: Estimator
) -> Callable[[nnx.State, jax.Array, jax.Array], jax.Array]:
    """Make the mean expected reconstruction loss of a batch of images."""

    def loss(parameters: nnx.State, key: jax.Array, images: jax.Array) -> jax.Array:
        expected = expected_reconstruction(coder, estimator, parameters)
        keys = jax.random.split(key, len(images))
        return jnp.mean(jax.vmap(expected)(keys, images, coder.encode(parameters, images)))

    return loss


def measure(
    recipe: SubsetBiasRecipe, coder: Coder, parameters: nnx.State, images: jax.Array
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Compare estimates of the encoder's gradient with the exact one.

    Returns:
        a report for every estimator, with the mean absolute error of an entry; and the errors of
        all entries in one estimate.
    """

    def gradient(estimator: Estimator, repeats: int, key: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            whole = jax.grad(batch_loss(coder, estimator))(parameters, key, images)
            return ravel_pytree(whole["encoder"])[0]

        return jnp.mean(jax.lax.map(one, jax.random.split(key, repeats)), axis=0)

    exact = gradient(Enumeration(), 1, jax.random.key(0))
    keys = jax.random.split(jax.random.key(SAMPLE_SEED), recipe.draws)
    reports, errors = {}, {}
    for name, (estimator, repeats) in compared(recipe.subset).items():
        estimate = jax.jit(partial(gradient, estimator, repeats))
        report = gradient_report(exact, estimate, keys, batch_size=20)
        reports[name] = {key: float(value) for key, value in report._asdict().items()}
        some = jax.lax.map(estimate, keys[:100])
        reports[name]["mean_absolute_error"] = float(jnp.mean(jnp.abs(some - exact)))
        errors[name] = np.asarray(some[0] - exact)
    return reports, errors
