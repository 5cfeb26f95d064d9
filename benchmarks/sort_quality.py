"""What each differentiable sort teaches a key network, on numbers written with MNIST digits.

    python benchmarks/sort_quality.py --mnist DIR      train, resumable (Python >= 3.12 for peers)
    python benchmarks/sort_quality.py --draw           print the tables and draw

All methods share data, key network, optimizer, steps, batches and seeds; only the loss on the
standardised keys differs, always told the right order and nothing else. Relaxations that give a
matrix are trained by the cross-entropy of its entries at the true permutation. Each method's
certainty (the inverse of its softness or temperature) is the best of ``CERTAINTIES`` by the
validation digits after training with seed 0 at ``n = 8``, with further ones, doubled or halved, as
long as the best is at an end; the other seeds and sizes use that one.
Peers: three methods of softjax, where it is installed.
"""

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from report import Report, percent, read_lines

from sparse_hyper_jax.sort import exact_match, neural_sort, standardise
from sparse_hyper_jax.train.data import ClassIndex, index_by_class, load_splits, make_sequences
from sparse_hyper_jax.train.recipes.sort import (
    TEST_SEED,
    Keys,
    SortRecipe,
    make_model,
    make_step,
)

NAME = "sort_quality"
FIGURE = Path(__file__).parent.parent / "docs" / "sort_quality.png"
DIGITS, STEPS, BATCH, EVERY = 3, 1_000, 16, 250
SEEDS, SIZES, CERTAINTIES = (0, 1, 2), (4, 8), (3.0, 6.0, 12.0)
TESTED = (4, 8, 16, 32)
TEST, VALIDATION, PART = 1_000, 250, 50
"""Sequences of the longest kind; cut into pieces, they give more of the shorter ones."""
OURS: dict[str, dict[str, Any]] = {
    "order_loss": {},
    "quicksort": {"estimator": "mixture", "loss": "separate"},
}
COLOURS = ("#b2182b", "#f4a582", "#2166ac", "#92c5de", "#4d9221", "#b8e186", "#762a83", "#888888")

Matrix = Callable[[jax.Array, float], jax.Array]
"""Maps keys ``(n,)`` and a certainty to a relaxed permutation matrix, rows in ascending order."""


def matrices() -> dict[str, Matrix]:
    """Name every relaxation that gives a matrix."""
    if not importlib.util.find_spec("softjax"):
        return {"NeuralSort": lambda keys, c: neural_sort(keys, temperature=1 / c)}
    import softjax

    def relax(keys: jax.Array, certainty: float, *, method: str) -> jax.Array:
        options = {"softness": 1 / certainty, "method": method, "standardize": False}
        return softjax.argsort(keys, axis=0, **options)

    # Not its transport, "ot": the linear solver in its gradient fails at such softness.
    names = ("softsort", "neuralsort", "sorting_network")
    return {f"softjax {name}": partial(relax, method=name) for name in names}


def losses() -> dict[str, Callable[..., jax.Array] | None]:
    """Name every loss of one sequence; none means what the recipe itself does."""
    entries = {name: partial(entry_loss, matrix) for name, matrix in matrices().items()}
    return dict.fromkeys(OURS) | entries


def entry_loss(
    matrix: Matrix,
    key: jax.Array,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    certainty: float,
) -> jax.Array:
    """Return the cross-entropy of a relaxed permutation at the true one's entries."""
    relaxed = matrix(standardise(keys), certainty)
    chosen = relaxed[jnp.arange(len(keys)), jnp.argsort(labels)]
    # Hardly bounded, so that entries next to zero keep their gradient.
    return -jnp.mean(jnp.log(jnp.maximum(chosen, 1e-37)))


def recipe_of(method: str, **options: Any) -> SortRecipe:
    """Give the recipe of a method, with its own way to sort if it is one of ours."""
    fixed = {"digits": DIGITS, "data": "mnist", "batch": BATCH, "steps": STEPS, "quiet": True}
    fixed |= {"channels": (16, 32, 64)}
    # Peers have no learned certainty, and too few steps are made to need warps.
    return SortRecipe(**fixed, learn_certainty=False, warp=0.0, **OURS.get(method, {}), **options)


def train(method: str, folder: Path, **options: Any) -> dict[str, Any]:
    """Train once; give validation along the way, and test accuracy at several lengths."""
    recipe = recipe_of(method, data_dir=folder, **options)
    splits = load_splits("mnist", folder, seed=recipe.seed)
    parts = {name: index_by_class(part) for name, part in splits._asdict().items()}
    keys_of, state = make_model(recipe, parts["train"].images.shape[1:])
    step = make_step(recipe, keys_of, losses()[method])

    @jax.jit
    def steps(state: Any, keys: jax.Array, index: Any) -> Any:
        return jax.lax.scan(lambda state, key: step(state, key, index), state, keys)[0]

    measure = jax.jit(partial(shares_right, keys_of), static_argnums=2)
    keys, curve = jax.random.split(jax.random.key(recipe.seed), (STEPS // EVERY, EVERY)), []
    for number, some in enumerate(keys):
        state = steps(state, some, parts["train"])
        validation = measure(state.parameters.network, parts["validation"], VALIDATION)
        curve.append([(number + 1) * EVERY, round(float(validation[str(recipe.n)]), 4)])
    test = measure(state.parameters.network, parts["test"], TEST)
    test = {n: round(float(share), 4) for n, share in test.items()}
    return {"curve": curve, "validation": curve[-1][1], "test": test}


def shares_right(
    keys_of: Keys, network: Any, index: ClassIndex, count: int
) -> dict[str, jax.Array]:
    """Give the share of sequences sorted exactly, of each length, from the same numbers."""
    longest = max(TESTED)

    def part(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        size = {"batch": PART, "length": longest, "digits": DIGITS}
        sequences = make_sequences(key, index, **size)
        return keys_of(network, sequences.images), sequences.labels

    keys, labels = jax.lax.map(part, jax.random.split(jax.random.key(TEST_SEED), count // PART))
    # Any piece of a random sequence of different numbers is one, too.
    return {
        str(n): jnp.mean(exact_match(keys.reshape(-1, n), labels.reshape(-1, n))) for n in TESTED
    }


def add(report: Report, folder: Path, *, method: str, n: int, seed: int, certainty: float) -> None:
    """Train once and write the line, unless it is there."""
    facts = {"method": method, "n": n, "seed": seed, "certainty": certainty}
    facts |= {"steps": STEPS, "batch": BATCH, "digits": DIGITS}
    if not any(facts.items() <= line.items() for line in read_lines(NAME)):
        result = train(method, folder, n=n, seed=seed, certainty=certainty)
        report.add(**facts, **result)


def best_certainty(method: str) -> float:
    """Choose by validation after seed 0 at n = 8."""
    tried = [line for line in lines_of(method, 8) if line["seed"] == 0]
    return max(tried, key=lambda line: line["validation"])["certainty"]


def lines_of(method: str, n: int) -> list[dict[str, Any]]:
    """Read the runs of a method trained at one length."""
    wanted = {"method": method, "n": n, "steps": STEPS, "batch": BATCH}
    return [line for line in read_lines(NAME) if wanted.items() <= line.items()]


def chosen(method: str, n: int) -> list[dict[str, Any]]:
    """Read the runs at the chosen certainty."""
    best = best_certainty(method)
    return [line for line in lines_of(method, n) if line["certainty"] == best]


def measured() -> list[str]:
    """List the methods there are lines of."""
    return list(dict.fromkeys(line["method"] for line in read_lines(NAME)))


def table() -> str:
    """Write exact match, trained at one length and tested at others."""
    head = " | ".join(f"test n = {n}" for n in TESTED)
    rows = [f"| loss | certainty | trained at n | {head} |", "|---" * (3 + len(TESTED)) + "|"]
    for method in measured():
        for n in SIZES:
            lines = chosen(method, n)
            if not lines:
                continue
            cells = [percent([line["test"][str(m)] for line in lines], span=False) for m in TESTED]
            rows.append(f"| {method} | {best_certainty(method):g} | {n} | {' | '.join(cells)} |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw the error on validation digits against steps, mean and spread over seeds."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, len(SIZES))
    for one, n in zip(axes, SIZES, strict=True):
        for method, colour in zip(measured(), COLOURS, strict=False):
            curves = np.array([line["curve"] for line in chosen(method, n)])
            if not len(curves):
                continue
            steps, errors = curves[0, :, 0], 1 - curves[:, :, 1]
            centre, spread = errors.mean(0), errors.std(0, ddof=1)
            width = 2.4 if method == "order_loss" else 1.2
            one.plot(steps, centre, color=colour, label=method, linewidth=width)
            one.fill_between(
                steps, centre - spread, centre + spread, color=colour, alpha=0.15, linewidth=0
            )
        one.set(title=f"{n} numbers of {DIGITS} digits", xlabel="steps", ylim=(0, 1))
        one.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("error (1 - exact match)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--methods", nargs="+", help="only these; by default all that can run")
    parser.add_argument("--draw", action="store_true", help="print the tables and draw")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if asked.mnist:
        report = Report(NAME, append=True)
        runs = partial(add, report, asked.mnist)
        for method in asked.methods or losses():
            tried = list(CERTAINTIES)
            for certainty in tried:
                runs(method=method, n=8, seed=0, certainty=certainty)
                best = best_certainty(method)
                if certainty == tried[-1] and best in {min(tried), max(tried)}:
                    tried.append(best / 2 if best == min(tried) else best * 2)
            for n in SIZES:
                for seed in SEEDS:
                    runs(method=method, n=n, seed=seed, certainty=best_certainty(method))
    elif not (asked.draw or asked.table):
        parser.error("pass --mnist DIR to train; --table or --draw show what is there")
    print(table())
    if asked.draw:
        draw().savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
