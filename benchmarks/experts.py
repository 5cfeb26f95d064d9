"""Does the router's gradient matter? Its error by enumeration, and a classifier with experts.

    python benchmarks/experts.py               bundled digits, all routers and seeds
    python benchmarks/experts.py --mnist DIR   MNIST instead
    python benchmarks/experts.py --table       from the JSON lines

Three kinds of JSON lines. "gradient": the expected gradient of a method of ``sparse_mixer``, summed
over experts and coins with ``exact_at_argmax=False``, against that of the expected loss; medians
over 100 random problems of 8 experts and 4 outputs whose loss is a polynomial. Errors are relative
to grad0, the part that ordinary training drops, and to the whole gradient. "rate": runs of the
recipe ``experts`` with seed 100 that choose the learning rate, the same for all routers and both
sizes of the network: the one of the highest mean validation accuracy. "training": runs at that
rate, test accuracy of the final parameters. The network has 32 units in all its layers, or 8: there
the experts are needed. Lines that are there already are not made again.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import Report, percent, read_lines

from sparse_hyper_jax.estimators.routing import RULES, Rule
from sparse_hyper_jax.nn.mixture import ROUTERS
from sparse_hyper_jax.train.recipes.experts import ExpertsRecipe

NAME = "experts"
LOSSES = {"linear": 1, "quadratic": 2, "cubic": 3, "quartic": 4}
PROBLEMS = 100
RATES = (1e-3, 3e-3, 1e-2)
RATE_SEED = 100
WIDTHS = (32, 8)
"""Units before and after the mixture and in every expert."""

STEPS = {"digits": 3_000, "mnist": 20_000}
KEPT = (
    "test_accuracy",
    "test_cross_entropy",
    "validation_accuracy",
    "validation_cross_entropy",
    "load",
    "load_entropy",
    "num_experts",
    "balance",
    "batch",
)


def gradient_errors(rule: Rule, degree: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the error of the expected gradient in units of grad0 and of the whole gradient."""
    keys = jax.random.split(key, 5)
    logits, outputs = jax.random.normal(keys[0], (8,)), jax.random.normal(keys[1], (8, 4))
    planes = jax.random.normal(keys[2], (6, 4))
    shifts, weights = (jax.random.normal(one, (6,)) for one in keys[3:])

    def loss(h: jax.Array) -> jax.Array:
        return jnp.sum(weights * (planes @ h - shifts) ** degree)

    def losses(gates: jax.Array) -> jax.Array:
        return jax.vmap(lambda gate, output: loss(gate * output))(gates, outputs)

    def expectation(logits: jax.Array) -> jax.Array:
        probabilities = jax.nn.softmax(logits)
        return probabilities @ losses(probabilities)

    def estimate(logits: jax.Array, rule: Rule) -> jax.Array:
        probabilities = jax.nn.softmax(logits)
        fixed = jax.lax.stop_gradient(probabilities)
        slope = rule.factor * (probabilities - fixed)
        coins = ((rule.whole, 1.0), (1 - rule.whole, rule.scale))
        return sum(chance * (fixed @ losses(scale * fixed + slope)) for chance, scale in coins)

    exact = jax.grad(expectation)(logits)
    dropped = exact - jax.grad(estimate)(logits, RULES["gate"])
    error = jnp.linalg.norm(jax.grad(estimate)(logits, rule) - exact)
    return error / jnp.linalg.norm(dropped), error / jnp.linalg.norm(exact)


def measure_gradients(report: Report) -> None:
    """Make the lines of the enumeration."""
    keys = jax.random.split(jax.random.key(0), PROBLEMS)
    for (loss, degree), method in itertools.product(LOSSES.items(), RULES):
        wanted = {"kind": "gradient", "loss": loss, "method": method, "problems": PROBLEMS}
        if not found(wanted):
            errors = jax.vmap(partial(gradient_errors, RULES[method], degree))(keys)
            names = ("error_of_grad0", "error")
            medians = {
                name: float(np.median(each)) for name, each in zip(names, errors, strict=True)
            }
            report.add(**wanted, **medians)


def train(report: Report, wanted: dict[str, Any], mnist: Path | None) -> None:
    """Train once and write the line, unless it is there."""
    if found(wanted):
        return
    options = {name: value for name, value in wanted.items() if name != "kind"}
    with tempfile.TemporaryDirectory() as name:
        result = ExpertsRecipe(
            **options, data_dir=mnist, evaluate_every=1_000, out=Path(name) / "run", quiet=True
        ).run()
    report.add(**wanted, **{name: result[name] for name in KEPT})


def best_rate(report: Report, data: str, mnist: Path | None) -> float:
    """Choose the learning rate by validation accuracy."""
    scores = {}
    for rate in RATES:
        common = {"kind": "rate", "seed": RATE_SEED, "data": data, "learning_rate": rate}
        for width, router in itertools.product(WIDTHS, ROUTERS):
            train(report, common | {"router": router, **size(data, width)}, mnist)
        scores[rate] = mean(line["validation_accuracy"] for line in found(common))
    return max(RATES, key=scores.__getitem__)


def size(data: str, width: int) -> dict[str, int]:
    """Give the size of a run."""
    return {"steps": STEPS[data], "width": width, "hidden": width}


def found(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the lines that hold all that is wanted."""
    return [line for line in read_lines(NAME) if wanted.items() <= line.items()]


def gradient_table() -> str:
    """Give the errors relative to grad0 as a Markdown table."""
    rows = ["| method | " + " | ".join(LOSSES) + " |", "|---" * (len(LOSSES) + 1) + "|"]
    for method in RULES:
        lines = [found({"kind": "gradient", "loss": loss, "method": method}) for loss in LOSSES]
        cells = [f"{some[0]['error_of_grad0']:.3f}" if some else "-" for some in lines]
        rows.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def training_table(data: str, width: int) -> str:
    """Give the results of all routers as a Markdown table: mean ± standard deviation."""
    common = {"kind": "training", "data": data, "width": width}
    columns: dict[str, Callable[[dict[str, Any]], float]] = {
        "test cross-entropy": lambda line: line["test_cross_entropy"],
        "experts used": lambda line: float(np.exp(line["load_entropy"])),
    }
    rows = ["| router | seeds | test accuracy, % | " + " | ".join(columns) + " |"]
    rows.append("|---" * (len(columns) + 3) + "|")
    for router in ROUTERS:
        lines = found(common | {"router": router})
        accuracy = percent([line["test_accuracy"] for line in lines], span=False)
        cells = [spread([column(line) for line in lines]) for column in columns.values()]
        rows.append(f"| {router} | {len(lines)} | {accuracy} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def spread(values: list[float]) -> str:
    """Write mean ± standard deviation."""
    if len(values) < 2:
        return "-"
    return f"{mean(values):.3g} ± {stdev(values):.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--table", action="store_true", help="only print the tables")
    asked = parser.parse_args()
    data = "digits" if asked.mnist is None else "mnist"
    if not asked.table:
        report = Report(NAME, append=True)
        measure_gradients(report)
        common = {"kind": "training", "data": data}
        common["learning_rate"] = best_rate(report, data, asked.mnist)
        for width, seed, router in itertools.product(WIDTHS, asked.seeds, ROUTERS):
            wanted = common | {"seed": seed, "router": router, **size(data, width)}
            train(report, wanted, asked.mnist)
    print(gradient_table())
    for name, width in itertools.product(STEPS, WIDTHS):
        lines = found({"kind": "training", "data": name, "width": width})
        if lines:
            rate = lines[0]["learning_rate"]
            print(f"\n{name}, {width} units, learning rate {rate:g}:\n")
            print(training_table(name, width))


if __name__ == "__main__":
    main()
