"""Train a classifier with a mixture of experts, whose router learns by one of several gradients."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.estimators.routing import RULES
from sparse_hyper_jax.nn import DefaultVectors, Mixed, Mixture, RouterBias
from sparse_hyper_jax.train.data.epochs import Arrays, next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, next_state, start_state
from sparse_hyper_jax.train.limits import Count, NotNegative, Positive, at_least, at_most
from sparse_hyper_jax.train.models.perceptron import cross_entropy
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

Apply = Callable[..., tuple[jax.Array, Mixed]]
"""``apply(parameters, kept, images, key)`` gives logits and what the mixture gave; ``key=None``
evaluates."""


@dataclass(frozen=True, kw_only=True)
class ExpertsRecipe(ImageRecipe):
    """Train a classifier with a mixture of experts (Liu et al. 2023; Panda et al. 2025)."""

    name: ClassVar[str] = "experts"

    method: Literal["top", "gate", "first_order", "midpoint", "heun", "default", "dense"] = (
        "midpoint"
    )
    """How the router learns. top: the most probable expert and its gate's gradient; gate,
    first_order, midpoint, heun: an expert drawn at random and a gradient of that order; default:
    constant vectors for the experts not chosen; dense: all experts for every image."""

    num_experts: Count = 8
    """Number of experts."""

    width: Count = 32
    """Units before and after the mixture, which is added to what it sees."""

    expert_width: Count = 32
    """Hidden units of an expert."""

    num_chosen: Count | None = None
    """Experts of each image, whose gates sum to 1, for the method top; one by default."""

    capacity_factor: Positive | None = None
    """Room of every expert in units of an even load; what does not fit is dropped, and computed by
    the layers around the mixture alone. By default nothing is dropped."""

    balance: NotNegative = 0.01
    """Coefficient of the load-balance loss."""

    z_loss: NotNegative = 0.0
    """Coefficient of the loss of large router logits."""

    bias_rate: Positive | None = None
    """Step of the bias that evens the load without a loss, for the method top; 0.001 in the
    paper."""

    exact_at_argmax: bool = True
    """A random gate is whole where the expert drawn is the most probable one."""

    jitter: NotNegative | None = None
    """Random routers leave out experts whose logit is far below the highest; 0.1 in the paper."""

    average: Annotated[float, at_least(0), at_most(1)] = 0.9
    """Share of the default vectors, running averages, that a step leaves as it is."""

    learning_rate: Positive = 3e-3
    """Of Adam, without decay or schedule."""

    steps: Count | None = None
    """Number of training steps; by default 2,000 for digits, else 20,000."""

    evaluate_every: Count = 500
    """Steps between validations."""

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Only some routers have options of their own."""
        yield from super().ignored()
        if self.method not in RULES:
            yield "method", ("exact_at_argmax", "jitter")
        if self.method != "default":
            yield "method", ("average",)
        if self.method != "top":
            yield "method", ("num_chosen", "bias_rate")
        if self.method in ("default", "dense"):
            yield "method", ("capacity_factor",)

    def settle(self, data: Images) -> Self:
        """Settle the steps."""
        return replace(self, steps=self.steps or (2_000 if self.data == "digits" else 20_000))

    def plan(self, data: Images) -> Plan:
        """Judge by accuracy, cross-entropy and how the images are spread over the experts."""
        apply, state = make_model(self, data.train, data.classes)
        measure = make_measure(apply)

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            accuracy, loss, load, _ = measure(state, data.validation)
            used = float(np.exp(entropy(load)))
            return {"accuracy": accuracy, "cross_entropy": loss, "experts_used": used}

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            figures: dict[str, Any] = {}
            for name, part in (("validation", data.validation), ("test", data.test)):
                accuracy, loss, load, dropped = measure(state, part)
                figures |= {f"{name}_accuracy": accuracy, f"{name}_cross_entropy": loss}
                figures |= {"load": load.tolist(), "load_entropy": entropy(load)}
                figures |= {"violation": float(len(load) * load.max() - 1), "dropped": dropped}
            return figures  # with the load of the test images

        every = self.evaluate_every
        step = make_step(self, apply)
        return Plan(step, state, finish, (data.train,), evaluate, every, longest_dispatch=every)


class ExpertsClassifier(nnx.Module):
    """A hidden layer with ReLU, a mixture added to it, and an output layer."""

    def __init__(self, recipe: ExpertsRecipe, pixels: int, classes: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(pixels, recipe.width, rngs=rngs)
        self.mixture = Mixture(
            recipe.width,
            recipe.expert_width,
            recipe.width,
            recipe.num_experts,
            router=recipe.method,
            exact_at_argmax=recipe.exact_at_argmax,
            jitter=recipe.jitter,
            decay=recipe.average,
            num_chosen=recipe.num_chosen,
            renormalise=(recipe.num_chosen or 1) > 1,
            capacity_factor=recipe.capacity_factor,
            bias_rate=recipe.bias_rate,
            product="slots" if recipe.capacity_factor else "ragged",
            rngs=rngs,
        )
        self.last = nnx.Linear(recipe.width, classes, rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> tuple[jax.Array, Mixed]:
        """Give logits ``(b, classes)`` and what the mixture gave; without a key, evaluate."""
        x = nnx.relu(self.first(x))
        mixed = self.mixture(x, deterministic=key is None, rngs=key)
        return self.last(x + mixed.y), mixed


def make_model(recipe: ExpertsRecipe, train_set: Arrays, classes: int) -> tuple[Apply, EpochState]:
    """Build the network and the state before training."""
    images, _ = train_set
    rngs = nnx.Rngs(params=recipe.seed, sample=recipe.seed)
    network = ExpertsClassifier(recipe, images.shape[1], classes, rngs=rngs)
    graph, parameters, kept, rest = nnx.split(network, nnx.Param, (DefaultVectors, RouterBias), ...)

    def apply(
        parameters: nnx.State, kept: nnx.State, images: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, Mixed]:
        return nnx.merge(graph, parameters, kept, rest)(images, key=key)

    optimizer = optax.adam(recipe.learning_rate)
    return apply, start_state(parameters, optimizer, len(images), slots=kept)


def make_step(recipe: ExpertsRecipe, apply: Apply) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure training step: the next batch of the epoch, its gradient, what is kept."""
    optimizer = optax.adam(recipe.learning_rate)

    def step(state: EpochState, key: jax.Array, train_set: Arrays) -> tuple[EpochState, Metrics]:
        order_key, layer_key = jax.random.split(key)
        order, (images, labels) = next_batch(
            order_key, state.order, state.count, train_set, batch=recipe.batch
        )

        def loss_of(parameters: nnx.State) -> tuple[jax.Array, tuple[jax.Array, Mixed]]:
            logits, mixed = apply(parameters, state.slots, images, layer_key)
            loss = cross_entropy(logits, labels)
            penalty = recipe.balance * mixed.balance_loss + recipe.z_loss * mixed.z_loss
            return loss + penalty, (loss, mixed)

        gradient, (loss, mixed) = jax.grad(loss_of, has_aux=True)(state.parameters)
        # One array, or none: what has default vectors has no bias.
        one = mixed.router_bias if mixed.defaults is None else mixed.defaults
        kept = jax.tree.map(lambda _: one, state.slots)
        metrics = {"loss": loss, "balance_loss": mixed.balance_loss}
        return next_state(state, gradient, optimizer, order, slots=kept), metrics

    return step


Figures = tuple[float, float, np.ndarray, float]


def make_measure(apply: Apply) -> Callable[[EpochState, Arrays], Figures]:
    """Make the evaluation: accuracy, cross-entropy, share of images per expert and dropped ones."""

    @jax.jit
    def on_device(
        parameters: nnx.State, kept: nnx.State, part: Arrays
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        images, labels = part
        logits, mixed = apply(parameters, kept, images, None)
        right = jnp.argmax(logits, axis=-1) == labels
        dropped = mixed.dropped / mixed.expert.size
        return jnp.mean(right), cross_entropy(logits, labels), mixed.load.share, dropped

    def measure(state: EpochState, part: Arrays) -> Figures:
        accuracy, loss, load, dropped = on_device(state.parameters, state.slots, part)
        return float(accuracy), float(loss), np.asarray(load), float(dropped)

    return measure


def entropy(shares: np.ndarray) -> float:
    """Give the entropy of shares that sum to 1, in nats: log n where n are equal."""
    used = shares[shares > 0].astype(np.float64)
    return abs(float(-np.sum(used * np.log(used))))  # no -0.0
