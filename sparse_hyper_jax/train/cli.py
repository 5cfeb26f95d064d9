"""The ``sparse-hyper`` command: every recipe a subcommand, every field of the recipe a flag.

The last line on standard output is the result as one JSON object; everything else goes to standard
error. Of several processes only the first one prints the result. Exit codes: 0 done, 1 a fault in
the program, 2 an option, file or number that the message names, 130 interrupted.
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparse_hyper_jax import __version__


class Entry(NamedTuple):
    """One subcommand."""

    target: str
    """``module:Class`` of a frozen dataclass, imported only when it is asked for.

    It has the fields ``out``, ``resume``, ``quiet`` and its own, and a method ``run() -> dict``;
    if it can run as several processes also ``coordinator``, ``rank`` and ``num_processes``.
    """

    summary: str
    """What the recipe does, in a line."""


RECIPES = {
    "sort": Entry(
        "sparse_hyper_jax.train.recipes.sort:SortRecipe",
        "learn to sort by backpropagation through sparse permutations",
    ),
    "identity": Entry(
        "sparse_hyper_jax.train.recipes.identity:IdentityRecipe",
        "learn the identity matrix as a sparse one",
    ),
    "glimpse": Entry(
        "sparse_hyper_jax.train.recipes.glimpse:GlimpseRecipe",
        "find and read digits in clutter through a small window that learns where to look",
    ),
    "sparse-backprop": Entry(
        "sparse_hyper_jax.train.recipes.sparse_backprop:SparseBackpropRecipe",
        "train a classifier with sparse backpropagation and memory",
    ),
    "powerprop": Entry(
        "sparse_hyper_jax.train.recipes.powerprop:PowerpropRecipe",
        "train a classifier with powerpropagation, dense or sparse, and prune it",
    ),
    "packnet": Entry(
        "sparse_hyper_jax.train.recipes.packnet:PacknetRecipe",
        "learn many tasks in one network without forgetting any",
    ),
    "experts": Entry(
        "sparse_hyper_jax.train.recipes.experts:ExpertsRecipe",
        "train a classifier with a mixture of experts and one of many router gradients",
    ),
    "univariate": Entry(
        "sparse_hyper_jax.train.recipes.univariate:UnivariateRecipe",
        "climb the expected reward of one discrete choice, by any estimator of its gradient",
    ),
    "subset-bias": Entry(
        "sparse_hyper_jax.train.recipes.subset_bias:SubsetBiasRecipe",
        "measure how biased gradients from a few of many discrete choices are",
    ),
    "vae": Entry(
        "sparse_hyper_jax.train.recipes.vae:VAERecipe",
        "train an autoencoder with a categorical code, by any estimator of its gradient",
    ),
}

EXTRAS = {
    "matplotlib": "matplotlib",
    "orbax": "orbax-checkpoint",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "tqdm": "tqdm",
    "tyro": "tyro",
}
"""Modules of the ``train`` extra, with the names of their distributions."""

TRACEBACK = "SPARSE_HYPER_TRACEBACK"
"""Environment variable: if it is set to something, the traceback of an error is printed too."""


def main(arguments: Sequence[str] | None = None, *, recipes: Mapping[str, Entry] = RECIPES) -> int:
    """Run the command line.

    Args:
        arguments: the words after ``sparse-hyper``, by default those of the process.
        recipes: the subcommands.

    Returns:
        The exit code.
    """
    asked = _parser(recipes).parse_args(arguments)
    missing = [name for module, name in EXTRAS.items() if not importlib.util.find_spec(module)]
    if missing:
        return _complain(
            f"found no {', '.join(missing)}; expected the packages that training needs;"
            ' pip install "sparse_hyper_jax[train]"'
        )
    from sparse_hyper_jax.train.run_folder import to_plain

    try:
        recipe, resume = _configure(asked.recipe, asked.flags, recipes[asked.recipe])
    except (ValueError, OSError) as error:
        return _complain(error)
    first = not getattr(recipe, "rank", 0)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if recipe.out and first and not recipe.quiet:
                print(f"run folder: {recipe.out}")
            result = to_plain(recipe.run(), finite=True)
    except KeyboardInterrupt:
        return _complain(f"interrupted; go on from the last checkpoint with: {resume}", code=130)
    except (ValueError, OSError, FloatingPointError) as error:
        return _complain(error)
    if first:
        print(json.dumps(result), flush=True)
    return 0


def _parser(recipes: Mapping[str, Entry]) -> argparse.ArgumentParser:
    width = max(len(name) for name in recipes)
    table = "\n".join(f"  {name:<{width}}  {entry.summary}" for name, entry in recipes.items())
    some = next(iter(recipes))
    parser = argparse.ArgumentParser(
        "sparse-hyper",
        description=f"Train sparse transformations.\n\nrecipes:\n{table}",
        epilog=f"the flags of a recipe:   sparse-hyper {some} --help\n"
        f"a run, then its rest:    sparse-hyper {some} --out DIR\n"
        f"                         sparse-hyper {some} --out DIR --resume\n\n"
        "The result is one line of JSON on standard output. The run folder holds config.json, "
        "metrics.jsonl,\nresult.json and checkpoints. "
        f"{TRACEBACK}=1 shows where an error came from.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sparse-hyper {__version__}")
    parser.add_argument("recipe", choices=recipes, metavar="recipe", help="one of the above")
    parser.add_argument(
        "flags", nargs=argparse.REMAINDER, metavar="...", help="fields of the recipe"
    )
    return parser


def _configure(name: str, flags: Sequence[str], entry: Entry) -> tuple[Any, str]:
    import tyro  # of the extra, which a plain installation does not have

    from sparse_hyper_jax.train.run_folder import default_path

    module, _, attribute = entry.target.partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    recipe = tyro.cli(kind, prog=f"sparse-hyper {name}", args=list(flags))
    resume = ["sparse-hyper", name, *flags]
    alone = getattr(recipe, "coordinator", None) is None
    if recipe.out is None and not recipe.resume and alone:
        # Settled here and not in the recipe, to be able to say how an interrupted run goes on.
        recipe = dataclasses.replace(recipe, out=default_path(name))
        resume += ["--out", str(recipe.out)]
    return recipe, shlex.join(resume if recipe.resume else [*resume, "--resume"])


def _complain(message: Exception | str, *, code: int = 2) -> int:
    if isinstance(message, Exception):
        if os.environ.get(TRACEBACK):
            traceback.print_exception(message)
        message = f"{type(message).__name__}: {message} ({TRACEBACK}=1 shows where)"
    print(f"sparse-hyper: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
