"""One command: the words of a recipe's flags, read, checked and run; imports JAX only for that."""

import contextlib
import dataclasses
import importlib
import math
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SEEDS = 2**32
"""A key has 32 bits: larger and negative seeds would wrap around to smaller ones."""


class Entry(NamedTuple):
    """One subcommand."""

    target: str
    """``module:Class`` of a frozen dataclass, imported only when it is asked for.

    It has the fields ``out``, ``resume``, ``quiet`` and its own, and a method ``run() -> dict``;
    if it can run as several processes also ``coordinator``, ``rank`` and ``num_processes``.
    """

    summary: str
    """What the recipe does, in a line."""


@dataclasses.dataclass(frozen=True)
class Command:
    """``sparse-hyper RECIPE FLAGS``."""

    name: str
    """Of the recipe."""

    flags: tuple[str, ...]
    """The words after it."""

    recipe: Any = None
    """The recipe with its fields; None before the flags are read."""

    def read(self, entry: Entry) -> "Command":
        """Import the recipe and give its fields the values of the flags.

        Raises:
            ValueError: a value that no recipe can run with.
            SystemExit: wrong flags, or a request for help.
        """
        import tyro  # of the extra, which a plain installation does not have

        from sparse_hyper_jax.train.optional_flags import optional_flags
        from sparse_hyper_jax.train.run_folder import default_path

        module, _, attribute = entry.target.partition(":")
        kind = getattr(importlib.import_module(module), attribute)
        with optional_flags():
            recipe = tyro.cli(kind, prog=f"sparse-hyper {self.name}", args=list(self.flags))
        self._check_words(recipe)
        _check_numbers(recipe)
        alone = getattr(recipe, "coordinator", None) is None
        if recipe.out is None and not recipe.resume and alone:
            # Settled here and not in the recipe, to be able to say how an interrupted run goes on.
            recipe = dataclasses.replace(recipe, out=default_path(self.name))
        return dataclasses.replace(self, recipe=recipe)

    @property
    def is_first(self) -> bool:
        """Whether this process prints the result."""
        return not getattr(self.recipe, "rank", 0)

    def fields(self) -> list[str]:
        """Return the names of the recipe's fields."""
        return [] if self.recipe is None else [one.name for one in dataclasses.fields(self.recipe)]

    def run(self) -> Any:
        """Run the recipe and return its result as JSON types; what it prints goes to stderr."""
        from sparse_hyper_jax.train.json_files import to_plain

        with contextlib.redirect_stdout(sys.stderr):
            return to_plain(self.recipe.run(), finite=True)

    def how_to_go_on(self) -> str:
        """Say what was saved, and the command that goes on from there."""
        again = ["sparse-hyper", self.name, *self.flags]
        out = getattr(self.recipe, "out", None)
        if out is None or not (out / "config.json").exists():
            return f"nothing was saved, start again with: {shlex.join(again)}"
        if not any(_flag_of(word) == "--out" for word in self.flags):
            again += ["--out", str(out)]
        again += [] if getattr(self.recipe, "resume", False) else ["--resume"]
        saved = any(Path(out).glob("**/_CHECKPOINT_METADATA"))
        what = "go on from the last checkpoint" if saved else "no checkpoint yet, start over"
        return f"{what} with: {shlex.join(again)}"

    def _check_words(self, recipe: Any) -> None:
        # An empty path is the current folder once it has been read, and nobody means that.
        paths = {f"--{one.name.replace('_', '-')}" for one in _path_fields(recipe)}
        for word, following in zip(self.flags, [*self.flags, None][1:], strict=True):
            flag, equals, value = word.partition("=")
            given = value if equals else following
            _require(
                _flag_of(flag) not in paths or given != "",
                f'{_flag_of(flag)} ""',
                "the name of a folder",
                f"pass {_flag_of(flag)} DIR",
            )


def in_flags(message: str, names: Sequence[str]) -> str:
    """Say ``--batch-size 3`` where a message speaks of ``batch_size=3``.

    Args:
        message: an error of a function that knows of no command line.
        names: the names of the fields.
    """
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        static = f"pass a static int as {name}"
        message = message.replace(static, f"pass another whole number as {flag}")
        message = re.sub(rf"(?<![\w.-]){name}=True\b", flag, message)
        message = re.sub(rf"(?<![\w.-]){name}=(?!=)", f"{flag} ", message)
    return message


def _flag_of(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _path_fields(recipe: Any) -> list[Any]:
    return [one for one in dataclasses.fields(recipe) if "Path" in str(one.type)]


def _check_numbers(recipe: Any) -> None:
    seed = getattr(recipe, "seed", 0)
    _require(
        0 <= seed < SEEDS,
        f"--seed {seed}",
        f"a whole number from 0 to {SEEDS - 1}",
        "pass another --seed",
    )
    for name, value in _numbers(recipe):
        flag = f"--{name.replace('_', '-')}"
        _require(math.isfinite(value), f"{flag} {value}", "a finite number", f"pass another {flag}")


def _numbers(fields: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Give names and values of floats that are no defaults, also in tuples and dataclasses."""
    for field in dataclasses.fields(fields):
        name, value = f"{prefix}{field.name}", getattr(fields, field.name)
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.")
        elif repr(value) != repr(field.default):
            items = value if isinstance(value, tuple) else (value,)
            yield from ((name, item) for item in items if isinstance(item, float))


def _require(condition: bool, found: str, expected: str, change: str) -> None:
    from sparse_hyper_jax.checks import require  # with JAX, which help does not wait for

    require(condition, found, expected, change)
