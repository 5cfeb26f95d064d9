"""Train a variational autoencoder with a categorical code, by any estimator of its gradient."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.estimators import ARSM, REBAR, RLOO, Estimator, GumbelStraightThrough
from sparse_hyper_jax.train.data.epochs import Arrays
from sparse_hyper_jax.train.epoch_state import EpochState, start_state
from sparse_hyper_jax.train.limits import Count, Positive, at_least
from sparse_hyper_jax.train.models.autoencoder import (
    Coder,
    binarise,
    divergence_from_uniform,
    expected_reconstruction,
    make_coder,
    make_step,
    reconstruction_loss,
)
from sparse_hyper_jax.train.models.estimators import estimator_options, make_estimator
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

TEST_SEED = 2**31 - 1
SHOWN = 12
VARIANCE_DRAWS = 100
PARTS = ("train", "validation", "test")


def compared_estimators(classes: int) -> dict[str, Estimator]:
    """Give what is compared at the final parameters, RLOO also at the evaluations of ARSM."""
    same = ARSM().evaluations((1, classes))
    few: dict[str, Estimator] = {"arsm": ARSM(), "rloo_2": RLOO(2)}
    many: dict[str, Estimator] = {} if same <= 2 else {f"rloo_{same}": RLOO(same)}
    return few | many | {"rebar": REBAR(), "gumbel_straight_through": GumbelStraightThrough()}


@dataclass(frozen=True, kw_only=True)
class VAERecipe(ImageRecipe):
    """Train a categorical variational autoencoder on binarised images (as Yin et al. 2019)."""

    name: ClassVar[str] = "vae"

    method: Literal[
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
    """Estimator that makes the encoder's gradient."""

    num_samples: Count | None = None
    """Samples per image of an estimator that has a number of them; by default its own."""

    temperature: Positive | None = None
    """Of an estimator that has one; by default its own."""

    variables: Count = 10
    """Categorical variables of a code."""

    classes: Annotated[int, at_least(2)] = 5
    """Classes of each."""

    hidden: tuple[Count, ...] = (200,)
    """Units of the encoder's hidden layers; the decoder has them in reverse."""

    learning_rate: Positive = 1e-3
    """Of Adam."""

    steps: Count = 3000
    """Number of training steps."""

    evaluate_every: Count = 500
    """Steps between validations."""

    compare: bool = False
    """Whether to measure at the end how the encoder's gradient varies by other estimators too."""

    @property
    def estimator(self) -> Estimator:
        """The estimator with its options."""
        return make_estimator(
            self.method, num_samples=self.num_samples, temperature=self.temperature
        )

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam at the recipe's rate."""
        return optax.adam(self.learning_rate)

    def check(self) -> None:
        """Raise also if the estimator lacks an option or does not fit the code."""
        super().check()
        self.estimator.evaluations((self.variables, self.classes))

    def load(self) -> Images:
        """Turn pixels into bits."""
        images = super().load()
        parts = ((binarise(pixels), labels) for pixels, labels in images[:3])
        return Images(*parts, classes=images.classes)

    def settle(self, data: Images) -> Self:
        """Settle the options of the estimator."""
        return replace(self, **estimator_options(self.estimator))

    def plan(self, data: Images) -> Plan:
        """Judge by -ELBO, and watch how much the encoder's gradient varies."""
        coder, state = make_model(self, data.train)
        loss = negative_elbo(coder, self.estimator)
        measure, spread = make_measure(coder), make_encoder_variance(coder, self.estimator)
        watched = data.train[0][: self.batch]

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            return {
                "negative_elbo": measure(state.parameters, data.validation),
                "test_negative_elbo": measure(state.parameters, data.test),
                "encoder_variance": spread(state.parameters, watched),
            }

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            draw(folder, coder, state.parameters, data.test)
            elbos = {part: measure(state.parameters, getattr(data, part)) for part in PARTS}
            figures: dict[str, Any] = {
                f"{part}_negative_elbo": elbo for part, elbo in elbos.items()
            }
            figures["evaluations"] = self.estimator.evaluations((self.variables, self.classes))
            if self.compare:
                figures["encoder_variance"] = variances(self, coder, state.parameters, watched)
            return figures

        step = make_step(loss, self.optimizer, batch=self.batch)
        return Plan(step, state, finish, (data.train,), evaluate, self.evaluate_every, 500)


def variances(
    recipe: VAERecipe, coder: Coder, parameters: nnx.State, images: jax.Array
) -> dict[str, Any]:
    """Compare all estimators where training has ended, whichever was used."""
    shape = (recipe.variables, recipe.classes)
    return {
        name: {
            "evaluations": one.evaluations(shape),
            "variance": make_encoder_variance(coder, one)(parameters, images),
        }
        for name, one in compared_estimators(recipe.classes).items()
    }


def draw(folder: RunFolder, coder: Coder, parameters: nnx.State, test: Arrays) -> None:
    """Draw the curve, and test images beside what their codes give."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    images = test[0][:SHOWN]
    rows = draw_codes(jax.random.key(TEST_SEED), coder.encode(parameters, images))
    shown = [np.asarray(images), np.asarray(nnx.sigmoid(coder.decode(parameters, rows)))]
    side = round(images.shape[1] ** 0.5)
    if side**2 == images.shape[1]:
        figure = plots.plot_image_rows(
            [part.reshape(1, -1, side, side) for part in shown], ["images", "from codes"]
        )
        folder.save_figure(figure, "reconstructions")
    curve = plots.read_curve(folder, "eval_negative_elbo")
    figure = plots.plot_curves({"validation, -ELBO in nats": curve})
    folder.save_figure(figure, "curve")


def make_model(recipe: VAERecipe, train_set: Arrays) -> tuple[Coder, EpochState]:
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
