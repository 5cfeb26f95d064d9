"""The ``sparse-hyper`` command: every recipe a subcommand, every field of the recipe a flag.

The last line on standard output is the result as one JSON object; everything else goes to standard
error. Of several processes only the first one prints the result. Exit codes: 0 done, 1 a fault in
the program, 2 an option, file or number that the message names, 130 interrupted, 143 told to end.
Whatever needs no recipe, such as the list of them, is said without importing JAX.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence

from sparse_hyper_jax import __version__
from sparse_hyper_jax.train.command import Command, Entry, in_flags

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
    "associated": Entry(
        "sparse_hyper_jax.train.recipes.associated:AssociatedRecipe",
        "train a deep classifier by components with objectives of their own",
    ),
    "spiking-autoencoder": Entry(
        "sparse_hyper_jax.train.recipes.spiking_autoencoder:SpikingAutoencoderRecipe",
        "rebuild images by spikes, taught by membrane potentials in every time step",
    ),
    "audio-to-image": Entry(
        "sparse_hyper_jax.train.recipes.audio_to_image:AudioToImageRecipe",
        "turn spoken digits, or halves of images, into pictures by spikes",
    ),
    "erbp": Entry(
        "sparse_hyper_jax.train.recipes.erbp:ErbpRecipe",
        "classify what an event camera saw, through a window that follows the events",
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
    "tbptt": Entry(
        "sparse_hyper_jax.train.recipes.tbptt:TbpttRecipe",
        "train a recurrent net by truncated backpropagation, its lag chosen by its bias",
    ),
    "lags": Entry(
        "sparse_hyper_jax.train.recipes.lags:LagsRecipe",
        "find which lags of a series matter: of a generated one, of canvases, of your own CSV file",
    ),
    "delays": Entry(
        "sparse_hyper_jax.train.recipes.delays:DelaysRecipe",
        "learn a delay for every channel: of a generated sum, or of the bands of spoken digits",
    ),
    "wiring": Entry(
        "sparse_hyper_jax.train.recipes.wiring:WiringRecipe",
        "find who drives whom among coupled maps or springs, by exact gains of absent edges",
    ),
    "citations": Entry(
        "sparse_hyper_jax.train.recipes.citations:CitationsRecipe",
        "classify papers by a graph of which edges are missing: given, near or learned ones",
    ),
    "characters": Entry(
        "sparse_hyper_jax.train.recipes.characters:CharactersRecipe",
        "predict the next character by a small transformer that reads at pointers, or everything",
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
    command = Command(asked.recipe, tuple(asked.flags))
    with _terminable():
        try:
            command = command.read(recipes[asked.recipe])
            result = command.run()
        except KeyboardInterrupt:
            return _complain(f"interrupted; {command.how_to_go_on()}", code=130)
        except _TerminatedError:
            return _complain(f"told to end; {command.how_to_go_on()}", code=143)
        except (ValueError, OSError, FloatingPointError) as error:
            return _complain(error, command.fields())
    if command.is_first:
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
        "flags", nargs=argparse.REMAINDER, metavar="...", help="flags of the recipe"
    )
    return parser


class _TerminatedError(BaseException):
    """SIGTERM, which training delivers once it has saved."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    def end(*_: object) -> None:
        raise _TerminatedError

    polite = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not polite or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _complain(message: Exception | str, fields: Sequence[str] = (), *, code: int = 2) -> int:
    if isinstance(message, Exception):
        if os.environ.get(TRACEBACK):
            traceback.print_exception(message)
        text = in_flags(str(message), fields)
        # What is told in three parts needs no name of a class before them.
        kind = "" if text.startswith("found ") else f"{type(message).__name__}: "
        message = f"{kind}{text} ({TRACEBACK}=1 shows where)"
    print(f"sparse-hyper: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
