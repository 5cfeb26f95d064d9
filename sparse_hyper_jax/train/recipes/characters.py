"""Predict the next character by a small transformer, with sparse or dense attention."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.best_parameters import BestParameters
from sparse_hyper_jax.train.data.text import read_text, text_sequences
from sparse_hyper_jax.train.epoch_state import Metrics
from sparse_hyper_jax.train.limits import Count, Positive, Whole, said
from sparse_hyper_jax.train.models.transformer import (
    NARROWEST,
    Build,
    Kind,
    Sizes,
    bits_of,
    make_rate,
    make_transformer,
    spread_at,
    windows_of,
)
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder


class Text(NamedTuple):
    """A text in three parts: the first in one piece, the others in windows."""

    train: jax.Array
    """Tokens ``(n,)``."""

    validation: tuple[np.ndarray, np.ndarray]
    """Inputs and targets ``(windows, length)``."""

    test: tuple[np.ndarray, np.ndarray]
    tokens: int


class CharacterState(NamedTuple):
    """What training changes."""

    parameters: nnx.State
    optimizer: Any
    count: jax.Array
    """Finished steps, int32."""


@dataclass(frozen=True, kw_only=True)
class CharactersRecipe(Recipe):
    """Predict the next character by a small transformer, with sparse or dense attention."""

    name: ClassVar[str] = "characters"

    attention: Kind = "pointers"
    """Places that every step reads: those that a network points to, besides the nearest; lags at
    equal ratios, besides the nearest; the nearest alone; or all before it."""

    data_dir: Path | None = None
    """Folder of one file *.txt or *.txt.gz; by default a text that scikit-learn brings."""

    length: Count = 512
    """Characters of a window: no step reads beyond its beginning."""

    depth: Count = 2
    """Blocks of attention and two layers of four times the width."""

    width: Count = 64
    """Features of a step."""

    heads: Count = 4
    """Of every layer of attention; a divisor of --width."""

    pointers: Count = 1
    """Pointers, or lags, of every head."""

    near: Count = 8
    """Nearest steps that every head reads, its own included."""

    num_global: Whole = 1
    """Points drawn per pointer by its density."""

    num_local: Whole = 1
    """Points drawn per pointer from the eight steps around it."""

    spread: Positive = 16.0
    """Standard deviation of pointers at first, in steps; it falls to 0.4."""

    batch: Count = 4
    """Windows per step, from anywhere in the text."""

    learning_rate: Positive = 3e-3
    """Of Adam, its highest; a tenth of it is left at the end."""

    warmup: Whole = 50
    """Steps in which the learning rate rises in a line, beginning with the first."""

    steps: Count = 1000
    """Number of training steps."""

    evaluate_every: Count = 100
    """Steps between validations; the best parameters are tested."""

    def check(self) -> None:
        """Raise also if heads do not divide the width, or the learning rate only rises."""
        super().check()
        require(
            self.width % self.heads == 0,
            said(self, "heads", "width"),
            "a number of heads that divides the width",
            "change one of the two",
        )
        require(
            self.warmup < self.steps,
            said(self, "warmup", "steps"),
            "a rise that is shorter than training",
            "lower --warmup",
        )
        require(
            self.attention == "dense" or self.near <= self.length,
            said(self, "near", "length"),
            "at most as many nearest steps as a window has",
            "lower --near",
        )
        require(
            self.attention != "pointers" or self.spread >= NARROWEST,
            said(self, "spread"),
            f"a first spread of at least the last one, {NARROWEST}",
            "raise --spread",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each way to attend has its own options."""
        if self.attention != "pointers":
            yield "attention", ("num_global", "num_local", "spread")
        if self.attention in ("window", "dense"):
            yield "attention", ("pointers",)
        if self.attention == "dense":
            yield "attention", ("near",)

    def load(self) -> Text:
        """Read the text, and cut it; each part must have a window."""
        parts = text_sequences(read_text(self.data_dir), batch=1, length=None)
        train, *held = (np.append(part.inputs[:, 0], part.targets[-1, 0]) for part in parts[:3])
        shortest = min(map(len, held))
        require(
            self.length < shortest,
            f"{said(self, 'length')} with {shortest} characters to validate or to test on",
            "windows that are shorter",
            "lower --length, or pass the folder of a longer text as --data-dir DIR",
        )
        validation, test = (windows_of(part, self.length) for part in held)
        return Text(jnp.asarray(train), validation, test, parts.tokens)

    def sizes(self, tokens: int) -> Sizes:
        """Give what the network is made of."""
        return Sizes(
            tokens,
            self.length,
            self.depth,
            self.width,
            self.heads,
            self.attention,
            self.pointers,
            self.near,
            (self.num_global, self.num_local),
        )

    def plan(self, data: Text) -> Plan:
        """Judge by bits per character; test the best parameters in validation, once."""
        build, parameters = make_transformer(self.seed, self.sizes(data.tokens))
        optimizer = optax.adam(make_rate(self.learning_rate, warmup=self.warmup, steps=self.steps))
        count = jnp.zeros((), jnp.int32)
        state = CharacterState(parameters, optimizer.init(parameters), count)
        measure = make_measure(build, self.batch)

        def evaluate(folder: RunFolder, number: int, state: CharacterState) -> dict[str, float]:
            bits = measure(state.parameters, data.validation)
            best_of(folder).offer(-bits, number, state.parameters)
            return {"bits": bits}

        def finish(folder: RunFolder, state: CharacterState) -> dict[str, Any]:
            draw(folder)
            score, number, best = best_of(folder).read(state.parameters)
            figures = {"validation_bits": -score, "test_bits": measure(best, data.test)}
            numbers = sum(leaf.size for leaf in jax.tree.leaves(best))
            return figures | {"best_step": number, "parameters": numbers}

        step, every = make_step(self, build, optimizer), self.evaluate_every
        return Plan(step, state, finish, (data.train,), evaluate, every, longest_dispatch=every)


def best_of(folder: RunFolder) -> BestParameters:
    """Give the parameters of the fewest bits in validation."""
    return BestParameters(folder.path / "best.npz", run=folder.run)


def make_step(
    recipe: CharactersRecipe, build: Build, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[CharacterState, Metrics]]:
    """Make the pure training step: windows from anywhere, their gradient, an update."""

    def step(
        state: CharacterState, key: jax.Array, text: jax.Array
    ) -> tuple[CharacterState, Metrics]:
        place_key, point_key = jax.random.split(key)
        places = jax.random.randint(place_key, (recipe.batch,), 0, len(text) - recipe.length)
        rows = text[places[:, None] + jnp.arange(recipe.length + 1)]
        spread = spread_at(recipe.spread, state.count, recipe.steps)

        def loss_of(parameters: nnx.State) -> jax.Array:
            logits = build(parameters)(rows[:, :-1], key=point_key, spread=spread)
            return bits_of(logits, rows[:, 1:])

        bits, slopes = jax.value_and_grad(loss_of)(state.parameters)
        updates, moments = optimizer.update(slopes, state.optimizer, state.parameters)
        parameters: Any = optax.apply_updates(state.parameters, updates)
        return CharacterState(parameters, moments, state.count + 1), {"bits": bits}

    return step


def make_measure(
    build: Build, batch: int
) -> Callable[[nnx.State, tuple[np.ndarray, np.ndarray]], float]:
    """Make the evaluation: mean bits per character of all windows, pointers rounded."""

    @jax.jit
    def on_device(parameters: nnx.State, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        def bits(window: tuple[jax.Array, jax.Array]) -> jax.Array:
            return bits_of(build(parameters)(window[0][None])[0], window[1])

        return jnp.mean(jax.lax.map(bits, (inputs, targets), batch_size=batch))

    return lambda parameters, part: float(on_device(parameters, *part))


def draw(folder: RunFolder) -> None:
    """Draw the bits of training and of validation."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    names = {"bits": "training, bits", "eval_bits": "validation, bits"}
    curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
    folder.save_figure(plots.plot_curves(curves), "training")
