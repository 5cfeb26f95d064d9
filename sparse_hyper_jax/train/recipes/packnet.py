"""Learn permuted images, one permutation after the other, in one network."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax import checks
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
from sparse_hyper_jax.reparam import add_power_decay, powerprop, scale_by_power_jacobian
from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.images import Arrays, check_batch, check_folder, to_arrays
from sparse_hyper_jax.train.recipes.perceptron import (
    Apply,
    TrainState,
    check_hidden,
    check_penalties,
    make_measure,
    make_perceptron,
    make_update,
    start_state,
)
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

SPARSITIES = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.84,
    0.88,
    0.9,
    0.92,
    0.94,
    0.95,
    0.96,
    0.97,
    0.98,
    0.99,
)
TOLD = (
    "method",
    "alpha",
    "l1",
    "decay",
    "tasks",
    "target",
    "keep",
    "hidden",
    "data",
    "learning_rate",
    "retrain_steps",
    "batch",
    "steps",
    "seed",
)
"""Options that the result repeats."""

TASKS = "tasks"
"""Folder of the checkpoints of the network; those of a task's training lie beside it."""

METHODS = ("efficient", "packnet", "sequential")


def is_shared(path: str, leaf: Any) -> bool:
    """Whether tasks share a leaf: all kernels but that of the output layer."""
    return is_kernel(path, leaf) and "head" not in path


@dataclass(frozen=True)
class PacknetRecipe:
    """Learn permuted images task by task (EfficientPackNet, Schwarz et al. 2021)."""

    method: Literal["efficient", "packnet", "sequential"] = "efficient"
    """EfficientPackNet, PackNet, or one task after the other with nothing frozen. In all of them a
    task has its own biases and output layer."""

    alpha: float = 2.0
    """Exponent of the weights, at least 1; 1 trains a plain network."""

    l1: float = 0.0
    """Coefficient of the sum of the weights' magnitudes in the loss."""

    decay: float = 1e-3
    """Weight decay on theta: an L1 penalty of half of it on the weights if alpha is 2."""

    tasks: int = 10
    """Number of permutations of the pixels."""

    target: float = 0.97
    """EfficientPackNet: share of the unpruned validation accuracy that pruning must leave."""

    keep: float = 0.25
    """PackNet: share of the free weights that a task takes."""

    hidden: tuple[int, ...] = (300, 300)
    """Units of each hidden layer."""

    data: Literal["digits", "mnist", "idx"] = "digits"
    """Images: bundled 8x8 digits, MNIST in --data-dir, or any four idx files there."""

    data_dir: Path | None = None
    """Folder of the image files, for mnist and idx."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    learning_rate: float = 0.2
    """Of plain SGD."""

    batch: int = 60
    """Images per step; an epoch leaves out what does not fill a batch."""

    steps: int = 2000
    """Training steps of a task."""

    retrain_steps: int = 1000
    """PackNet: training steps after pruning."""

    seed: int = 0
    """Seed of initialisation, permutations, validation split and order of the images."""

    out: Path | None = None
    """Run folder; by default runs/packnet-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> dict[str, Any]:
        """Learn all tasks, write the run folder; test every task after each one is learned."""
        self._check()
        splits = load_splits(self.data, self.data_dir, seed=self.seed, download=self.download)
        classes = int(splits.train.labels.max()) + 1
        check_batch(self.batch, len(splits.train.labels))
        folder = open_run(self, recipe="packnet", out=self.out, resume=self.resume)
        arrays = {name: to_arrays(part) for name, part in splits._asdict().items()}
        learner = Learner(self, folder, arrays, classes)
        with Checkpoints(folder.path / TASKS) as checkpoints:
            network, learned = learner.start(checkpoints)
            for number in range(len(learned), self.tasks):
                network, line = learner.learn(network, number)
                learned = [*learned, line]
                checkpoints.save(number + 1, learner.padded(network), {"learned": learned})
        digests = [learner.digest(network, number) for number in range(self.tasks)]
        result = summarize(learned, digests) | {name: getattr(self, name) for name in TOLD}
        self._draw(folder, result)
        seconds = sum(line["seconds"] for line in learned)
        return folder.write_result(result | {"seconds": round(seconds, 1), "out": str(folder.path)})

    def _check(self) -> None:
        left = [] if self.out is None or self.resume else [*self.out.glob(f"{TASKS}*/")]
        checks.require(
            not left,
            f"tasks of another run in {self.out}: {', '.join(sorted(one.name for one in left))}",
            "none at the start of a new run",
            "delete them, or pass another --out DIR",
        )
        for name in ("tasks", "batch", "steps", "retrain_steps"):
            checks.check_count(name, getattr(self, name), least=1)
        check_hidden(self.hidden)
        checks.check_choice("method", self.method, METHODS)
        powerprop(self.alpha)
        for name in ("target", "keep"):
            share = getattr(self, name)
            checks.require(0 < share <= 1, f"{name}={share}", "in (0, 1]", f"change {name}")
        check_penalties(self.l1, self.decay)
        checks.require(
            self.learning_rate > 0, f"learning_rate={self.learning_rate}", "more than 0", "raise it"
        )
        check_folder(self.data, self.data_dir)

    def _draw(self, folder: RunFolder, result: Mapping[str, Any]) -> None:
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        tasks = np.arange(1, self.tasks + 1)
        names = {"test_accuracies": "test accuracy", "share_used": "share of weights used"}
        curves = {label: (tasks, np.asarray(result[name])) for name, label in names.items()}
        plots.plot_curves(curves, x_label="task").savefig(folder.path / "tasks.png", dpi=150)


class Learner:
    """The network, the data and the compiled functions that all tasks share."""

    def __init__(
        self, recipe: PacknetRecipe, folder: RunFolder, splits: dict[str, Arrays], classes: int
    ):
        self.recipe, self.folder, self.splits = recipe, folder, splits
        images, _ = splits["train"]
        self.sizes = (images.shape[1], *recipe.hidden, classes)
        self.apply, _ = make_perceptron(self.sizes, seed=recipe.seed)
        self.reparam = powerprop(recipe.alpha)
        self.measure = make_measure(self.apply)
        self.step = make_step(recipe, self.apply)
        self.logits = jax.jit(self.apply)

    def start(self, checkpoints: Checkpoints) -> tuple[PackedNetwork, list[dict[str, Any]]]:
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
        images, labels = self.splits[split]
        return images[:, pixels], labels

    def learn(self, network: PackedNetwork, number: int) -> tuple[PackedNetwork, dict[str, Any]]:
        """Learn one task; give the network and a line of results."""
        recipe, reparam = self.recipe, self.reparam
        train_set, validation = (self.images_of(number, name) for name in ("train", "validation"))
        seconds: list[float] = []
        fit = self.fit_for(number, train_set, seconds)
        found: dict[str, Any] = {}
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

    def fit_for(self, number: int, train_set: Arrays, seconds: list[float]) -> Train:
        """Make the training of a task, which notes how long each call of it took."""
        recipe = self.recipe

        def fit(theta: nnx.State, frozen: Masks, masks: Masks) -> nnx.State:
            again = len(seconds)
            folder = RunFolder(self.folder.path / f"{TASKS}-{number}-{again}")
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
            steps = recipe.retrain_steps if again else recipe.steps
            trained = train(
                self.step,
                start_state(theta, optimizer_of(recipe), len(train_set[0])),
                constants=(train_set, frozen, masks),
                steps=steps,
                seed=recipe.seed * 1000 + 2 * number + again,
                folder=folder,
                steps_per_dispatch=min(500, steps),
                resume=recipe.resume,
                quiet=recipe.quiet,
                description=f"task {number + 1} of {recipe.tasks}",
            )
            seconds.append(trained.seconds)
            return trained.state.theta

        return fit

    def describe(self, network: PackedNetwork) -> dict[str, Any]:
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


def summarize(learned: Sequence[Mapping[str, Any]], digests: Sequence[str]) -> dict[str, Any]:
    """Give the results of a run from the lines of its tasks and digests of their final logits."""
    last = learned[-1]["test_accuracies"]
    first = [line["test_accuracies"][-1] for line in learned]
    same = [one == line["logits"] for one, line in zip(digests, learned, strict=True)]
    return {
        "mean_test_accuracy": float(np.mean(last)),
        "mean_test_accuracy_when_learned": float(np.mean(first)),
        "mean_validation_accuracy": float(np.mean(learned[-1]["validation_accuracies"])),
        "unchanged_tasks": sum(same),
        "test_accuracies": last,
        "share_used": [line["share_used"] for line in learned],
        "share_of_task": [line["share_of_task"] for line in learned],
        "sparsities": [line.get("sparsity") for line in learned],
    }


def optimizer_of(recipe: PacknetRecipe) -> optax.GradientTransformationExtraArgs:
    """Give the transformation from gradients of the weights to updates of theta."""
    slope = scale_by_power_jacobian(recipe.alpha)
    decay = add_power_decay(recipe.decay, recipe.alpha)
    return freeze_entries(optax.chain(slope, decay, optax.sgd(recipe.learning_rate)))


def make_step(
    recipe: PacknetRecipe, apply: Apply
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Make the pure training step; masks are arguments, so that all tasks share its program."""
    update = make_update(apply, optimizer_of(recipe), batch=recipe.batch, l1=recipe.l1)
    to_weights = powerprop(recipe.alpha).to_weights

    def step(
        state: TrainState, key: jax.Array, train_set: Arrays, frozen: Masks, masks: Masks
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        weights = apply_masks(to_weights(state.theta), masks)
        return update(state, key, train_set, weights, frozen=frozen)

    return step
