"""What powerpropagation costs: a training step with and without it, in the same process, in turn.

    python benchmarks/powerprop_step.py [--width 1024] [--batch 128]
    python benchmarks/powerprop_step.py --table     from the JSON lines

Networks 784-width-width-width-10 with biases, cross-entropy, float32. A step is one of ten in a
``lax.scan`` with donated state, as the training loop runs it. One JSON line per optimizer: median
milliseconds of each variant and its overhead over the plain step, in shares of it. Variants differ
in nothing but the reparametrisation: they differentiate through ``to_weights``; "chained" takes the
weights' gradient and puts ``scale_by_power_jacobian`` before the optimizer.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from report import Report, interleaved, read_lines
from sparse_hyper_jax.train.recipes.perceptron import make_perceptron

from sparse_hyper_jax.reparam import Reparametrization, powerprop, scale_by_power_jacobian

NAME = "powerprop_step"
STEPS = 10
OPTIMIZERS = {"sgd": optax.sgd(0.1), "adam": optax.adam(1e-3)}
VARIANTS: dict[str, Reparametrization] = {
    **{f"alpha {alpha:g}": powerprop(alpha) for alpha in (2.0, 3.0, 4.0, 5.0, 2.5, 2.3)},
    "groups, alpha 2": powerprop(2.0, axes=(0,)),
}


def steps_of(
    reparam: Reparametrization | None,
    optimizer: optax.GradientTransformation,
    sizes: tuple[int, ...],
    batch: int,
    *,
    chained: bool = False,
) -> Callable[[], Any]:
    """Compile ten training steps; the function that comes back goes on where it stopped."""
    apply, weights = make_perceptron(sizes, seed=0)
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(keys[0], (STEPS, batch, sizes[0]))
    labels = jax.random.randint(keys[1], (STEPS, batch), 0, sizes[-1])
    theta = weights if reparam is None else reparam.to_theta(weights)
    to_weights = (lambda theta: theta) if reparam is None else reparam.to_weights

    def loss_of(weights: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = apply(weights, images)
        return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels))

    def step(state: tuple[Any, Any], given: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        theta, moments = state
        if chained:
            gradient = jax.grad(loss_of)(to_weights(theta), *given)
        else:
            gradient = jax.grad(lambda theta: loss_of(to_weights(theta), *given))(theta)
        updates, moments = optimizer.update(gradient, moments, theta)
        return (optax.apply_updates(theta, updates), moments), None

    @partial(jax.jit, donate_argnums=0)
    def run_steps(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        return jax.lax.scan(step, state, (images, labels))[0]

    held = [jax.tree.map(jnp.array, (theta, optimizer.init(theta)))]

    def run() -> Any:
        held[0] = run_steps(held[0], images, labels)
        return held[0]

    return run


def time_steps(report: Report, name: str, width: int, batch: int, repeats: int) -> None:
    """Time the steps of one optimizer, plain ones and reparametrised ones in turn."""
    sizes, optimizer = (784, width, width, width, 10), OPTIMIZERS[name]
    slope = scale_by_power_jacobian(2.0)
    functions = {
        "plain": steps_of(None, optimizer, sizes, batch),
        "plain again": steps_of(None, optimizer, sizes, batch),
        **{
            variant: steps_of(reparam, optimizer, sizes, batch)
            for variant, reparam in VARIANTS.items()
        },
        "chained, alpha 2": steps_of(
            powerprop(2.0), optax.chain(slope, optimizer), sizes, batch, chained=True
        ),
    }
    times = interleaved(functions, repeats=repeats)
    report.add(
        width=width,
        batch=batch,
        optimizer=name,
        milliseconds={name: round(value / STEPS, 3) for name, value in times.items()},
        overhead={
            name: round(value / times["plain"] - 1, 4)
            for name, value in times.items()
            if name != "plain"
        },
    )


def table() -> str:
    """Give the overheads as a Markdown table."""
    lines = read_lines(NAME)
    variants = list(lines[0]["overhead"])
    rows = [
        "| optimizer | width | batch | plain, ms | " + " | ".join(variants) + " |",
        "|---" * (len(variants) + 4) + "|",
    ]
    for line in lines:
        cells = [f"{100 * line['overhead'][variant]:+.1f} %" for variant in variants]
        start = (line["optimizer"], line["width"], line["batch"], line["milliseconds"]["plain"])
        rows.append("| " + " | ".join([*map(str, start), *cells]) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--append", action="store_true", help="keep the lines of earlier calls")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if not asked.table:
        report = Report(NAME, append=asked.append)
        for name in OPTIMIZERS:
            time_steps(report, name, asked.width, asked.batch, asked.repeats)
    print(table())


if __name__ == "__main__":
    main()
