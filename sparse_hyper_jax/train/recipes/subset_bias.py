"""How biased is a softmax over a random subset? An autoencoder whose exact gradient is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

from sparse_hyper_jax.checks import require
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
from sparse_hyper_jax.train.data.epochs import Arrays
from sparse_hyper_jax.train.epoch_state import EpochState, start_state
from sparse_hyper_jax.train.limits import Count, Positive, at_least
from sparse_hyper_jax.train.models.autoencoder import (
    Coder,
    expected_reconstruction,
    make_coder,
    make_step,
)
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

SAMPLE_SEED = 2**31 - 1
EPOCHS = 5


@dataclass(frozen=True, kw_only=True)
class SubsetBiasRecipe(ImageRecipe):
    """Compare estimates with the exact gradient of a discrete autoencoder (Bloem's experiment).

    The autoencoder has one categorical variable and is trained by the full expectation; then the
    gradient of one batch towards the encoder is estimated many times.
    """

    name: ClassVar[str] = "subset-bias"

    classes: Annotated[int, at_least(2)] = 128
    """Number of codes."""

    subset: Annotated[int, at_least(2)] = 5
    """Evaluations of the decoder per image that every estimator gets."""

    hidden: tuple[Count, ...] = (64,)
    """Units of the encoder's hidden layers; the decoder has them in reverse."""

    learning_rate: Positive = 1e-4
    """Of Adam."""

    steps: Count | None = None
    """Number of training steps before the measurement; by default those of five epochs."""

    draws: Annotated[int, at_least(2)] = 1000
    """Estimates of each kind."""

    batch: Count = 8
    """Images per step, and in the measurement."""

    def check(self) -> None:
        """Raise also if there are fewer classes than evaluations."""
        super().check()
        require(
            self.subset <= self.classes,
            f"--subset {self.subset} of {self.classes} classes",
            "at most all of them",
            "lower --subset",
        )
        compared(self.subset)

    def settle(self, data: Images) -> Self:
        """Settle the steps."""
        return replace(self, steps=self.steps or EPOCHS * (len(data.train[0]) // self.batch))

    def plan(self, data: Images) -> Plan:
        """Train with the exact gradient, then measure the others against it."""
        coder, state = make_model(self, data.train)

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            images = data.validation[0][: self.batch]
            reports, errors = measure(self, coder, state.parameters, images)
            draw(folder, errors)
            return {"estimators": reports}

        step = make_step(batch_loss(coder, Enumeration()), self.optimizer, batch=self.batch)
        return Plan(step, state, finish, (data.train,))

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam at the recipe's rate."""
        return optax.adam(self.learning_rate)


def draw(folder: RunFolder, errors: Mapping[str, np.ndarray]) -> None:
    """Draw how the errors of one estimate are spread."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    figure = plots.plot_histograms(errors, x_label="error of an entry")
    folder.save_figure(figure, "errors")


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


def make_model(recipe: SubsetBiasRecipe, train_set: Arrays) -> tuple[Coder, EpochState]:
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
