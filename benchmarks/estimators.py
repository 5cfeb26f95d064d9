"""What one estimate costs: every estimator against the number of classes and of variables.

    python benchmarks/estimators.py [--repeats 30]
    python benchmarks/estimators.py --table

One JSON line per number of variables ``K``, of classes ``C``, and estimator: median milliseconds
and temporary bytes of value and gradient for 64 instances under one ``vmap``, and how often ``f``
is evaluated. ``f`` is a quadratic form of the one-hot rows, ``|x W|^2 / K`` with ``W (K C, 32)``:
``64 K C`` floating-point operations and a few more per evaluation, stated in every line.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from report import Report, interleaved, read_lines, temporary_bytes

from sparse_hyper_jax.estimators import (
    ARS,
    ARSM,
    REBAR,
    RLOO,
    Estimator,
    GumbelStraightThrough,
    ScoreFunction,
    Subset,
    WithoutReplacement,
)

BATCH = 64
WIDTH = 32
CLASSES = (2, 4, 8, 16, 32)
VARIABLES = (1, 4, 16, 64, 256)
USUAL_CLASSES, USUAL_VARIABLES = 8, 16
ESTIMATORS: dict[str, Estimator] = {
    "ScoreFunction": ScoreFunction(),
    "RLOO(4)": RLOO(4),
    "RLOO(16)": RLOO(16),
    "ARS": ARS(),
    "ARSM": ARSM(),
    "WithoutReplacement(4)": WithoutReplacement(4),
    "Subset(5)": Subset(5),
    "REBAR": REBAR(),
    "GumbelStraightThrough": GumbelStraightThrough(),
}


def settings() -> list[tuple[int, int]]:
    """List ``(K, C)``: first along the classes, then along the variables, each once."""
    along_classes = [(USUAL_VARIABLES, classes) for classes in CLASSES]
    along_variables = [(variables, USUAL_CLASSES) for variables in VARIABLES]
    return list(dict.fromkeys(along_classes + along_variables))


def quadratic_form(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Give ``|x W|^2 / K`` for rows ``(K, C)``, flattened to ``x``."""
    return jnp.sum(jnp.square(rows.reshape(-1) @ weights)) / len(rows)


def flops(variables: int, classes: int) -> int:
    """Count the operations of one evaluation: the product, then squares and their sum."""
    return 2 * variables * classes * WIDTH + 2 * WIDTH


def estimates(
    estimator: Estimator, keys: jax.Array, logits: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Give values ``(64,)`` and gradients ``(64, K, C)``."""

    def f(z: jax.Array) -> jax.Array:
        rows = z if estimator.relaxed else jax.nn.one_hot(z, logits.shape[-1])
        return quadratic_form(weights, rows)

    return jax.vmap(lambda key, logits: estimator.estimate(key, logits, f)[:2])(keys, logits)


def calls(variables: int, classes: int) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Name what is timed, with its arguments from fixed seeds."""
    key = jax.random.key(variables * classes)
    logits = jax.random.normal(key, (BATCH, variables, classes))
    weights = jax.random.normal(jax.random.fold_in(key, 1), (variables * classes, WIDTH))
    arguments = (jax.random.split(key, BATCH), logits, weights)
    return {
        name: (partial(estimates, estimator), arguments) for name, estimator in ESTIMATORS.items()
    }


def measure(variables: int, classes: int, repeats: int, report: Report) -> None:
    """Write the lines of one setting; all estimators take turns."""
    named = calls(variables, classes)
    timed = {
        name: partial(jax.jit(function), *arguments)
        for name, (function, arguments) in named.items()
    }
    times = interleaved(timed, repeats=repeats)
    for name, (function, arguments) in named.items():
        report.add(
            variables=variables,
            classes=classes,
            estimator=name,
            batch=BATCH,
            evaluations=ESTIMATORS[name].evaluations((variables, classes)),
            flops_per_evaluation=flops(variables, classes),
            milliseconds=round(times[name], 4),
            temporary_bytes=temporary_bytes(function, *arguments),
        )


def one_table(
    title: str, lines: list[dict[str, Any]], axis: str, places: list[tuple[int, int]]
) -> str:
    """Write a table: a row per estimator, a column per setting."""
    found = {(line["variables"], line["classes"], line["estimator"]): line for line in lines}

    def cell(place: tuple[int, int], name: str) -> str:
        line = found.get((*place, name))
        if line is None:
            return "-"
        size = line["temporary_bytes"] / 2**20
        return f"{line['evaluations']}: {line['milliseconds']:.2f} ms, {size:.2f} MiB"

    heads = [f"{axis} = {place['KC'.index(axis)]}" for place in places]
    rows = [["estimator", *heads], ["---"] * (1 + len(places))]
    rows += [[name, *(cell(place, name) for place in places)] for name in ESTIMATORS]
    return "\n".join([title, "", *("| " + " | ".join(row) + " |" for row in rows)])


def table() -> str:
    """Write both tables from the lines so far."""
    lines = read_lines("estimators")
    meaning = "(evaluations: time, temporary memory)"
    return "\n\n".join(
        [
            one_table(
                f"K = {USUAL_VARIABLES} variables against classes {meaning}",
                lines,
                "C",
                [(USUAL_VARIABLES, classes) for classes in CLASSES],
            ),
            one_table(
                f"C = {USUAL_CLASSES} classes against variables {meaning}",
                lines,
                "K",
                [(variables, USUAL_CLASSES) for variables in VARIABLES],
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if not asked.table:
        report = Report("estimators")
        for variables, classes in settings():
            measure(variables, classes, asked.repeats, report)
    print(table())


if __name__ == "__main__":
    main()
