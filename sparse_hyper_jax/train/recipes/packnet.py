"""Learn permuted images, one permutation after the other, in one network."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.continual import (
    PackedNetwork,
    Train,
    add_task,
    efficient_packnet,
    empty_network,
    freeze_entries,
    packnet,
    share_used,
    task_weights,
)
from sparse_hyper_jax.parameter_paths import is_kernel
from sparse_hyper_jax.pruning import Masks, apply_masks, combine_masks
from sparse_hyper_jax.reparam import add_power_decay, powerprop
from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.data.epochs import Arrays
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, start_state
from sparse_hyper_jax.train.limits import Count, NotNegative, Positive, Share, at_least, said
from sparse_hyper_jax.train.loop import Step, Trained, train
from sparse_hyper_jax.train.models.perceptron import (
    Apply,
    make_measure,
    make_perceptron,
    make_update,
)
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

TENTHS = tuple(number / 10 for number in range(1, 9))
SPARSITIES = (*TENTHS, 0.84, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
TASKS = "tasks"
"""Folder of the checkpoints of the network; those of a task's training lie beside it."""


def is_shared(path: str, leaf: Any) -> bool:
    """Whether tasks share a leaf: all kernels but that of the output layer."""
    return is_kernel(path, leaf) and "head" not in path


@dataclass(frozen=True, kw_only=True)
class PacknetRecipe(ImageRecipe):
    """Learn permuted images task by task (EfficientPackNet, Schwarz et al. 2021)."""

    name: ClassVar[str] = "packnet"

    method: Literal["efficient", "packnet", "sequential"] = "efficient"
    """EfficientPackNet, PackNet, or one task after the other with nothing frozen. In all of them a
    task has its own biases and output layer."""

    alpha: Annotated[float, at_least(1)] = 2.0
    """Exponent of the weights; 1 trains a plain network."""

    l1: NotNegative = 0.0
    """Coefficient of the sum of the weights' magnitudes in the loss."""

    weight_decay: NotNegative = 1e-3
    """Of theta: an L1 penalty of half of it on the weights if alpha is 2."""

    tasks: Count = 10
    """Number of permutations of the pixels."""

    target: Share = 0.97
    """EfficientPackNet: share of the unpruned validation accuracy that pruning must leave."""

    keep: Share = 0.25
    """PackNet: share of the free weights that a task takes."""

    hidden: tuple[Count, ...] = (300, 300)
    """Units of each hidden layer."""

    learning_rate: Positive = 0.2
    """Of plain SGD."""

    batch: Count = 60
    """Images per step; an epoch leaves out what does not fill a batch."""

    steps: Count = 2000
    """Training steps of a task."""

    retrain_steps: Count = 1000
    """PackNet: training steps after pruning."""

    def check(self) -> None:
        """Raise also if the trainings of all tasks would not have seeds of their own."""
        super().check()
        require(
            self.seed * 1000 + 2 * self.tasks < 2**32,
            said(self, "seed", "tasks"),
            f"seeds up to {2**32 // 1000 - 1}: every task makes two of its own of a thousand",
            "lower --seed",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each way to pack has its own options."""
        yield from super().ignored()
        if self.method != "efficient":
            yield "method", ("target",)
        if self.method != "packnet":
            yield "method", ("keep", "retrain_steps")

    def plan(self, data: Images) -> Plan:
        """Learn all tasks; test every task after each one is learned."""
        learner = Learner(self, data)
        state = start_state(learner.fresh(0), optimizer_of(self), len(data.train[0]))
        frozen = empty_network(state.parameters, select=is_shared).used

        def fit(folder: RunFolder) -> Trained:
            network, lines = learner.learn_all(folder)
            seconds = sum(line["seconds"] for line in lines)
            return Trained((network, lines), seconds, self.steps)

        def finish(folder: RunFolder, learned: tuple[PackedNetwork, list[Line]]) -> dict[str, Any]:
            digests = [learner.digest(learned[0], number) for number in range(self.tasks)]
            figures = summarize(learned[1], digests)
            draw(folder, figures)
            return figures

        masks = combine_masks(jnp.ones_like, frozen)
        return Plan(learner.step, state, finish, (data.train, frozen, masks), fit=fit)


def draw(folder: RunFolder, figures: Mapping[str, Any]) -> None:
    """Draw the accuracy of every task at the end, and how full the network was after it."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    names = {"test_accuracy_of_tasks": "test accuracy", "share_used": "share of weights used"}
    tasks = np.arange(1, len(figures["share_used"]) + 1)
    curves = {label: (tasks, np.asarray(figures[name])) for name, label in names.items()}
    folder.save_figure(plots.plot_curves(curves, x_label="task"), "tasks")


Line = dict[str, Any]
"""What is noted of a task when it is learned."""


class Learner:
    """The network, the data and the compiled functions that all tasks share."""

    def __init__(self, recipe: PacknetRecipe, data: Images):
        self.recipe, self.data = recipe, data
        self.sizes = (data.train[0].shape[1], *recipe.hidden, data.classes)
        self.apply, _ = make_perceptron(self.sizes, seed=recipe.seed)
        self.reparam = powerprop(recipe.alpha)
        self.measure = make_measure(self.apply)
        self.step = make_step(recipe, self.apply)
        self.logits = jax.jit(self.apply)

    def learn_all(self, folder: RunFolder) -> tuple[PackedNetwork, list[Line]]:
        """Learn what the folder does not have yet, and keep the network after every task."""
        with Checkpoints(folder.path / TASKS, run=folder.run) as checkpoints:
            network, lines = self.start(checkpoints)
            for number in range(len(lines), self.recipe.tasks):
                network, line = self.learn(network, number, folder)
                lines = [*lines, line]
                checkpoints.save(number + 1, self.padded(network), {"learned": lines})
        return network, lines

    def start(self, checkpoints: Checkpoints) -> tuple[PackedNetwork, list[Line]]:
        """Give the network and the results of the tasks that are learned already."""
        network = empty_network(self.fresh(0), select=is_shared)
        restored = checkpoints.restore(self.padded(network))
        if restored is None:
            return network, []
        done = restored.state.tasks[: restored.step]
        return restored.state._replace(tasks=done), restored.about["learned"]

    def padded(self, network: PackedNetwork) -> PackedNetwork:
        """Add tasks without content, so that all checkpoints have the same structure."""
        blank = empty_network(network.params, select=is_shared, tasks=self.recipe.tasks)
        return network._replace(tasks=network.tasks + blank.tasks[len(network.tasks) :])

    def fresh(self, number: int) -> nnx.State:
        """Draw theta for a task."""
        seed = self.recipe.seed * self.recipe.tasks + number
        return self.reparam.to_theta(make_perceptron(self.sizes, seed=seed)[1])

    def images_of(self, number: int, split: str) -> Arrays:
        """Give images of a task, the pixels permuted, of one of the three splits."""
        pixels = np.random.default_rng((self.recipe.seed, number)).permutation(self.sizes[0])
        images, labels = getattr(self.data, split)
        return images[:, pixels], labels

    def learn(
        self, network: PackedNetwork, number: int, folder: RunFolder
    ) -> tuple[PackedNetwork, Line]:
        """Learn one task; give the network and a line of results."""
        recipe, reparam = self.recipe, self.reparam
        train_set, validation = (self.images_of(number, name) for name in ("train", "validation"))
        seconds: list[float] = []
        fit = self.fit_for(number, train_set, seconds, folder)
        found: Line = {}
        if recipe.method == "efficient":
            network, search = efficient_packnet(
                network,
                self.fresh(number),
                fit,
                lambda weights: self.measure(weights, validation),
                accept=lambda score, whole: score >= recipe.target * whole,
                sparsities=SPARSITIES,
                reparam=reparam,
            )
            found = {"sparsity": search.sparsity, "curve": list(search.curve.items())}
        elif recipe.method == "packnet":
            network = packnet(network, self.fresh(number), fit, keep=recipe.keep, reparam=reparam)
        else:
            everything = combine_masks(jnp.ones_like, network.used)
            theta = self.fresh(0) if number == 0 else network.params
            theta = fit(theta, network.used, everything)
            network = add_task(network, theta, everything, freeze=False)
        return network, found | self.describe(network) | {"seconds": sum(seconds)}

    def fit_for(
        self, number: int, train_set: Arrays, seconds: list[float], folder: RunFolder
    ) -> Train:
        """Make the training of a task, which notes how long each call of it took."""
        recipe = self.recipe

        def fit(theta: nnx.State, frozen: Masks, masks: Masks) -> nnx.State:
            again = len(seconds)
            steps = recipe.retrain_steps if again else recipe.steps
            trained = train(
                self.step,
                start_state(theta, optimizer_of(recipe), len(train_set[0])),
                constants=(train_set, frozen, masks),
                steps=steps,
                seed=recipe.seed * 1000 + 2 * number + again,  # within 32 bits, checked
                folder=folder.part(f"{TASKS}-{number}-{again}"),
                steps_per_dispatch=min(500, steps),
                resume=recipe.resume,
                quiet=recipe.quiet,
                description=f"task {number + 1} of {recipe.tasks}",
            )
            seconds.append(trained.seconds)
            return trained.state.parameters

        return fit

    def describe(self, network: PackedNetwork) -> Line:
        """Test all tasks so far, and count what is used."""
        scores: dict[str, list[float]] = {"validation": [], "test": []}
        for number in range(len(network.tasks)):
            weights = task_weights(network, number, reparam=self.reparam)
            for name, accuracies in scores.items():
                accuracies.append(self.measure(weights, self.images_of(number, name)))
        bits = jax.tree.leaves(network.tasks[-1].masks)
        sizes = sum(mask.size for mask in jax.tree.leaves(network.used))
        kept = sum(int(np.unpackbits(np.asarray(packed)).sum()) for packed in bits)
        return {
            **{f"{name}_accuracies": accuracies for name, accuracies in scores.items()},
            "share_used": share_used(network),
            "share_of_task": kept / sizes,
            "logits": self.digest(network, len(network.tasks) - 1),
        }

    def digest(self, network: PackedNetwork, number: int) -> str:
        """Give a digest of the test logits of a task, which differs if any bit does."""
        weights = task_weights(network, number, reparam=self.reparam)
        images, _ = self.images_of(number, "test")
        return hashlib.sha256(np.asarray(self.logits(weights, images)).tobytes()).hexdigest()


def summarize(learned: Sequence[Line], digests: Sequence[str]) -> dict[str, Any]:
    """Give the results of a run from the lines of its tasks and digests of their final logits."""
    last = learned[-1]["test_accuracies"]
    first = [line["test_accuracies"][-1] for line in learned]
    same = [one == line["logits"] for one, line in zip(digests, learned, strict=True)]
    return {
        "test_accuracy": float(np.mean(last)),
        "test_accuracy_when_learned": float(np.mean(first)),
        "validation_accuracy": float(np.mean(learned[-1]["validation_accuracies"])),
        "unchanged_tasks": sum(same),
        "test_accuracy_of_tasks": last,
        "share_used": [line["share_used"] for line in learned],
        "share_of_task": [line["share_of_task"] for line in learned],
        "sparsities": [line.get("sparsity") for line in learned],
    }


def optimizer_of(recipe: PacknetRecipe) -> optax.GradientTransformationExtraArgs:
    """Give the transformation from gradients of the weights to updates of theta."""
    decay = add_power_decay(recipe.weight_decay, recipe.alpha)
    inner = optax.chain(decay, optax.sgd(recipe.learning_rate))
    return freeze_entries(powerprop(recipe.alpha).optimizer(inner))


def make_step(recipe: PacknetRecipe, apply: Apply) -> Step:
    """Make the pure training step; masks are arguments, so that all tasks share its program."""
    update = make_update(apply, optimizer_of(recipe), batch=recipe.batch, l1=recipe.l1)
    to_weights = powerprop(recipe.alpha).to_weights

    def step(
        state: EpochState, key: jax.Array, train_set: Arrays, frozen: Masks, masks: Masks
    ) -> tuple[EpochState, Metrics]:
        weights = apply_masks(to_weights(state.parameters), masks)
        return update(state, key, train_set, weights, frozen=frozen)

    return step
