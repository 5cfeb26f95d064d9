"""Climb the expected reward of one categorical variable, and measure the gradient's noise."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.diagnostics import gradient_report
from sparse_hyper_jax.estimators import Enumeration, Estimator
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.autoencoder import make_estimator
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

REPORT_SEED = 2**31 - 1


@dataclass(frozen=True)
class UnivariateRecipe:
    """Maximise ``E[0.5 + z / C^2]`` over the law of ``z = 1 .. C`` (toy of Yin et al. 2019)."""

    estimator: Literal[
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
    """What makes the gradient; enumeration is the exact one."""

    num_samples: int | None = None
    """Samples of an estimator that has a number of them; by default its own."""

    temperature: float | None = None
    """Of an estimator that has one; by default its own."""

    classes: int = 30
    """Number C of arms, of which the last is best by 1 / C^2."""

    learning_rate: float = 1.0
    """Length of a step relative to the gradient."""

    steps: int = 5000
    """Number of steps."""

    draws: int = 200_000
    """Estimates from which bias and variance are measured, at uniform and at random logits."""

    seed: int = 0
    """Seed of the samples."""

    out: Path | None = None
    """Run folder; by default runs/univariate-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> dict[str, Any]:
        """Climb, measure, write the run folder and return the final figures."""
        estimator = self._check()
        folder = open_run(self, recipe="univariate", out=self.out, resume=self.resume)
        trained = train(
            make_step(self, estimator),
            jnp.zeros(self.classes),
            steps=self.steps,
            seed=self.seed,
            folder=folder,
            evaluate=lambda step, logits: {"reward": float(expected_reward(logits))},
            evaluate_every=min(100, self.steps),
            steps_per_dispatch=min(100, self.steps),
            resume=self.resume,
            quiet=self.quiet,
            description=self.estimator,
        )
        self._draw(folder)
        result: dict[str, Any] = {
            "reward": float(expected_reward(trained.state)),
            "best_reward": float(rewards(self.classes)[-1]),
            "evaluations": estimator.evaluations((self.classes,)),
        }
        random = jax.random.normal(jax.random.key(REPORT_SEED), (self.classes,))
        for name, logits in (("uniform", jnp.zeros(self.classes)), ("random", random)):
            result[f"at_{name}_logits"] = self._report(estimator, logits)
        for name in ("estimator", "num_samples", "temperature", "classes", "seed"):
            result[name] = getattr(self, name)
        result |= {"steps": trained.steps, "seconds": round(trained.seconds, 1)}
        return folder.write_result(result | {"out": str(folder.path)})

    def _check(self) -> Estimator:
        checks.check_count("classes", self.classes, least=2)
        checks.check_count("steps", self.steps, least=1)
        checks.check_count("draws", self.draws, least=2)
        rate = self.learning_rate
        checks.require(rate > 0, f"learning_rate={rate}", "more than 0", "change it")
        estimator = make_estimator(
            self.estimator, num_samples=self.num_samples, temperature=self.temperature
        )
        # Says so if the options do not fit the classes.
        estimator.evaluations((self.classes,))
        return estimator

    def _report(self, estimator: Estimator, logits: jax.Array) -> dict[str, float]:
        f = reward_of(self.classes, estimator)
        exact = Enumeration().estimate(
            jax.random.key(0), logits, reward_of(self.classes, Enumeration())
        )
        report = gradient_report(
            exact.gradient,
            lambda key: estimator.estimate(key, logits, f).gradient,
            jax.random.split(jax.random.key(REPORT_SEED), self.draws),
            batch_size=min(self.draws, 2000),
        )
        figures = {name: float(value) for name, value in report._asdict().items()}
        # Per class and absolute, as it is quoted for this toy.
        return figures | {
            "class_variance": figures["variance"] * figures["norm"] ** 2 / self.classes
        }

    def _draw(self, folder: RunFolder) -> None:
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        figure = plots.plot_curves({"expected reward": plots.read_curve(folder, "eval_reward")})
        figure.savefig(folder.path / "reward.png", dpi=150)


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
