"""Climb the expected reward of one categorical variable, and measure the gradient's noise."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp

from sparse_hyper_jax.diagnostics import gradient_report
from sparse_hyper_jax.estimators import Enumeration, Estimator
from sparse_hyper_jax.train.limits import Count, Positive, at_least
from sparse_hyper_jax.train.models.estimators import estimator_options, make_estimator
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder

REPORT_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class UnivariateRecipe(Recipe):
    """Maximise ``E[0.5 + z / C^2]`` over the law of ``z = 1 .. C`` (toy of Yin et al. 2019)."""

    name: ClassVar[str] = "univariate"

    method: Literal[
        "arsm",
        "rloo",
        "score_function",
        "ar",
        "ars",
        "without_replacement",
        "rebar",
        "straight_through",
        "gumbel_straight_through",
        "uninformed_subset",
        "informed_subset",
        "enumeration",
    ] = "arsm"
    """Estimator that makes the gradient; enumeration is the exact one."""

    num_samples: Count | None = None
    """Samples of an estimator that has a number of them; by default its own."""

    temperature: Positive | None = None
    """Of an estimator that has one; by default its own."""

    classes: Annotated[int, at_least(2)] = 30
    """Number C of arms, of which the last is best by 1 / C^2."""

    learning_rate: Positive = 1.0
    """Length of a step relative to the gradient."""

    steps: Count = 5000
    """Number of steps."""

    draws: Annotated[int, at_least(2)] = 200_000
    """Estimates from which bias and variance are measured, at uniform and at random logits."""

    @property
    def estimator(self) -> Estimator:
        """The estimator with its options."""
        return make_estimator(
            self.method, num_samples=self.num_samples, temperature=self.temperature
        )

    def check(self) -> None:
        """Raise also if the estimator lacks an option or does not fit the classes."""
        super().check()
        self.estimator.evaluations((self.classes,))

    def settle(self, data: None) -> Self:
        """Settle the options of the estimator."""
        return replace(self, **estimator_options(self.estimator))

    def plan(self, data: None) -> Plan:
        """Climb from uniform logits."""
        estimator = self.estimator

        def evaluate(folder: RunFolder, step: int, logits: jax.Array) -> dict[str, float]:
            return {"reward": float(expected_reward(logits))}

        def finish(folder: RunFolder, logits: jax.Array) -> dict[str, Any]:
            draw(folder)
            random = jax.random.normal(jax.random.key(REPORT_SEED), (self.classes,))
            return {
                "reward": float(expected_reward(logits)),
                "best_reward": float(rewards(self.classes)[-1]),
                "evaluations": estimator.evaluations((self.classes,)),
                "at_uniform_logits": report(self, estimator, jnp.zeros(self.classes)),
                "at_random_logits": report(self, estimator, random),
            }

        step = make_step(self, estimator)
        return Plan(step, jnp.zeros(self.classes), finish, evaluate=evaluate)


def report(recipe: UnivariateRecipe, estimator: Estimator, logits: jax.Array) -> dict[str, float]:
    """Measure bias and variance of the gradient, the latter also per class."""
    f = reward_of(recipe.classes, estimator)
    exact = Enumeration().estimate(
        jax.random.key(0), logits, reward_of(recipe.classes, Enumeration())
    )
    measured = gradient_report(
        exact.gradient,
        lambda key: estimator.estimate(key, logits, f).gradient,
        jax.random.split(jax.random.key(REPORT_SEED), recipe.draws),
        batch_size=min(recipe.draws, 2000),
    )
    figures = {name: float(value) for name, value in measured._asdict().items()}
    # Per class and absolute, as it is quoted for this toy.
    return figures | {"class_variance": figures["variance"] * figures["norm"] ** 2 / recipe.classes}


def draw(folder: RunFolder) -> None:
    """Draw the curve of the reward."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    figure = plots.plot_curves({"expected reward": plots.read_curve(folder, "eval_reward")})
    folder.save_figure(figure, "reward")


def rewards(classes: int) -> jax.Array:
    """Give the reward of every arm, ``(C,)``."""
    return 0.5 + jnp.arange(1, classes + 1) / classes**2


def expected_reward(logits: jax.Array) -> jax.Array:
    """Give the expected reward of a law."""
    return jax.nn.softmax(logits) @ rewards(len(logits))


def reward_of(classes: int, estimator: Estimator) -> Callable[[jax.Array], jax.Array]:
    """Give the reward as a function of what the estimator passes: a class, or a row."""
    table = rewards(classes)
    return (lambda row: row @ table) if estimator.relaxed else (lambda z: table[z])


def make_step(
    recipe: UnivariateRecipe, estimator: Estimator
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
    """Make the pure step: plain gradient ascent."""
    f = reward_of(recipe.classes, estimator)

    def step(logits: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        estimate = estimator.estimate(key, logits, f)
        return logits + recipe.learning_rate * estimate.gradient, {"reward": estimate.value}

    return step
