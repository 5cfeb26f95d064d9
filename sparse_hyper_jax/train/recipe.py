"""One skeleton for every recipe: its bases, and the way of a run.

    fields -> check -> load -> settle -> plan -> run folder -> fit -> finish -> result
    a frozen   limits,  data    numbers   model,   open_run    train  figures,  result.json
    dataclass  unused           for None  step                        drawings

Whatever can be refused is refused before the run folder is made; for that a step is traced first. A
recipe is a frozen dataclass whose fields are the flags of its subcommand. It has a ``name``, gives
a :class:`Plan`, and overrides what else differs: ``check``, ``ignored``, ``load``, ``settle``.

The same idea has the same name in every recipe::

    method         the way of doing it that the recipe compares with others
    steps, batch   training steps; images or vectors per step
    evaluate_every steps between evaluations
    validate       whether a part of what a file has to train on is kept apart to validate on
    held_out       number of who is tested on, and not trained on
    learning_rate, optimizer
    weight_decay   shrinks weights in every step: of AdamW, or on what is learned
    average        share of a running average that a step leaves as it is
    hidden         units of each hidden layer, a tuple; ``width`` where it is one number,
                   ``expert_width`` inside an expert
    num_samples    random draws per instance in a step; ``draws`` of a measurement at the end
    num_global, num_local, region, num_near     where points or candidates are drawn
    density, ratio, keep      share of weights, of a gradient's components, of free weights
    tuple_density  shape of a tuple
    classes        of a categorical variable
    alpha, l1      exponent of the weights; coefficient of their magnitudes

and so have results, which hold all fields, ``seconds`` and::

    <part>_<metric>    final figures; the part is train, validation or test
    eval_<metric>      in the curves, of validation images
    accuracy           wherever classes are told; else exact_match, element_match, mse,
                       cells_found, negative_elbo, cross_entropy, bits (of a character)
"""

import abc
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, final

import jax

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data import Splits, load_splits
from sparse_hyper_jax.train.data.epochs import Arrays, to_arrays
from sparse_hyper_jax.train.limits import Count, Whole, at_most, check_limits, said
from sparse_hyper_jax.train.loop import Step, Trained, train
from sparse_hyper_jax.train.reading import noting_files
from sparse_hyper_jax.train.run_folder import RunFolder, open_run, to_plain


class Plan(NamedTuple):
    """What a recipe makes of its options and its data before there is a run folder.

    Example:
        >>> from sparse_hyper_jax.train.recipes.powerprop import PowerpropRecipe
        >>> recipe = PowerpropRecipe(steps=100, hidden=(8,))
        >>> plan = recipe.plan(recipe.load())
        >>> plan.evaluate_every, int(plan.state.count)
        (1000, 0)
    """

    step: Step
    """Pure training step."""

    state: Any
    """What training begins with."""

    finish: Callable[[RunFolder, Any], Mapping[str, Any]]
    """``finish(folder, state)`` draws, and gives the final figures."""

    constants: tuple[Any, ...] = ()
    """Further arguments of every step, for instance the training set."""

    evaluate: Callable[[RunFolder, int, Any], Mapping[str, float]] | None = None
    """``evaluate(folder, step, state)`` gives the figures of the curves."""

    evaluate_every: int = 100
    """Steps between evaluations."""

    longest_dispatch: int = 100
    """Most steps in one compiled scan."""

    fit: Callable[[RunFolder], Trained] | None = None
    """``fit(folder)`` trains in another way than once by the step, which is then only traced."""


@dataclass(frozen=True, kw_only=True)
class Recipe(abc.ABC):
    """What all recipes share."""

    name: ClassVar[str]
    """Of the subcommand and of the default run folder."""

    steps: Count | None = None
    """Number of training steps."""

    seed: Annotated[Whole, at_most(2**32 - 1)] = 0
    """Seed of everything that is random."""

    out: Path | None = None
    """Run folder; by default runs/RECIPE-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    format: Literal["png", "svg", "pdf"] = "png"
    """Kind of the pictures; the report shows all but pdf."""

    @final
    def run(self) -> dict[str, Any]:
        """Train, write the run folder and return the result."""
        self.check()
        with noting_files() as files:
            data = self.load()
        recipe = self.settle(data)
        plan = recipe.plan(data)
        jax.eval_shape(plan.step, plan.state, jax.random.key(self.seed), *plan.constants)
        opened = open_run(
            recipe,
            recipe=self.name,
            out=self.out,
            resume=self.resume,
            figure_format=self.format,
            files=files,
        )
        with opened as folder:
            if folder.writes and not self.quiet:
                print(f"run folder: {folder.path}", file=sys.stderr)
            trained = plan.fit(folder) if plan.fit else recipe._fit(plan, folder)
            figures = dict(plan.finish(folder, trained.state))
            about = to_plain(recipe) | {"out": str(folder.path)}
            about["seconds"] = round(trained.seconds, 1)
            assert not figures.keys() & about.keys(), "a figure has the name of a field"
            result = folder.write_result(figures | about)
            self._report(folder, result, set(figures))
            return result

    def check(self) -> None:
        """Raise ``ValueError`` if an option is wrong, does not fit another, or has no effect."""
        check_limits(self)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for cause, names in self.ignored():
            changed = [name for name in names if getattr(self, name) != defaults[name]]
            require(
                not changed,
                f"{said(self, *changed)} with {said(self, cause)}",
                "only options that have an effect",
                "leave these out, or change the other",
            )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield fields that decide, as they are, that others have no effect, and these others."""
        yield from ()

    def load(self) -> Any:
        """Give the data; by default none."""
        return None

    def settle(self, data: Any) -> Self:
        """Give the recipe with numbers where defaults depend on the data or on other options."""
        return self

    @abc.abstractmethod
    def plan(self, data: Any) -> Plan:
        """Build the model, and say how to train and judge it."""

    def _report(self, folder: RunFolder, result: Mapping[str, Any], figures: set[str]) -> None:
        from sparse_hyper_jax.train.report import write_report  # matplotlib is slow to import

        write_report(
            folder,
            title=f"sparse-hyper {self.name}",
            settings={name: result[name] for name in result if name not in figures},
            figures={name: result[name] for name in result if name in figures},
        )

    def _fit(self, plan: Plan, folder: RunFolder) -> Trained:
        assert self.steps is not None, "settled"
        every, longest = plan.evaluate_every, plan.longest_dispatch
        return train(
            plan.step,
            plan.state,
            constants=plan.constants,
            steps=self.steps,
            seed=self.seed,
            folder=folder,
            evaluate=plan.evaluate and partial(plan.evaluate, folder),
            evaluate_every=every,
            steps_per_dispatch=every if every <= longest else math.gcd(every, longest),
            resume=self.resume,
            quiet=self.quiet,
            description=self.name,
        )


class Images(NamedTuple):
    """Labelled images on the device, and the number of their classes.

    Example:
        >>> from sparse_hyper_jax.train.recipes.powerprop import PowerpropRecipe
        >>> images = PowerpropRecipe(data="digits").load()
        >>> images.train[0].shape, images.test[1].shape, images.classes
        ((1297, 64), (300,), 10)
    """

    train: Arrays
    validation: Arrays
    test: Arrays
    classes: int


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """What recipes for labelled images share.

    Example:
        >>> from sparse_hyper_jax.train.recipes.sort import SortRecipe  # one of them
        >>> recipe = SortRecipe(batch=30, steps=10)
        >>> recipe.check()
        >>> images, labels = recipe.load_splits().train
        >>> images.shape, labels.shape
        ((1297, 8, 8), (1297,))
    """

    data: Literal["digits", "mnist", "idx"] = "digits"
    """Images: bundled 8x8 digits, MNIST in --data-dir, or any four idx files there."""

    data_dir: Path | None = None
    """Folder of the image files, for mnist and idx."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    batch: Count = 50
    """Images per step; an epoch leaves out what does not fill a batch."""

    def check(self) -> None:
        """Raise also if data that is read from files has no folder."""
        super().check()
        require(
            self.data == "digits" or self.data_dir is not None,
            said(self, "data") + " without a folder",
            "the folder of its files",
            "pass --data-dir DIR",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Bundled digits need no files."""
        if self.data == "digits":
            yield "data", ("data_dir", "download")

    def load_splits(self) -> Splits:
        """Read training, validation and test images to the host."""
        return load_splits(self.data, self.data_dir, seed=self.seed, download=self.download)

    def load(self) -> Any:
        """Move images to the device; an epoch must have a batch."""
        splits = self.load_splits()
        count = len(splits.train.labels)
        require(
            self.batch <= count,
            f"{said(self, 'batch')} with {count} training images",
            "at most as many",
            "lower --batch",
        )
        return Images(*map(to_arrays, splits), classes=int(splits.train.labels.max()) + 1)


def accuracies(measure: Callable[[Arrays], float], data: Images) -> dict[str, float]:
    """Give the accuracy on validation and test images by their names in the result.

    Example:
        >>> from sparse_hyper_jax.train.recipe import Images, accuracies
        >>> part = jnp.zeros((4, 64)), jnp.array([0, 0, 0, 1])
        >>> data = Images(part, part, part, classes=2)
        >>> accuracies(lambda part: float((part[1] == 0).mean()), data)
        {'validation_accuracy': 0.75, 'test_accuracy': 0.75}
    """
    return {f"{part}_accuracy": measure(getattr(data, part)) for part in ("validation", "test")}
