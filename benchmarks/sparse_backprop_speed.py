"""What sparse backpropagation saves: one backward pass, a whole training step, time to accuracy.

    python benchmarks/sparse_backprop_speed.py                 backward passes and steps
    python benchmarks/sparse_backprop_speed.py --mnist DIR     adds time to 97 % on MNIST
    python benchmarks/sparse_backprop_speed.py --only step     adds lines, of another device say
    python benchmarks/sparse_backprop_speed.py --draw          from the JSON lines

One JSON line per shape and ratio, medians in milliseconds of all variants called in turn. Dense is
timed in both layouts of its kernel and the faster one is compared with. Backward passes include
selection, gathers, scatters and the update of the memory. A backward pass or training step is one
of ten in a ``lax.scan`` with donated state, as the training loop runs it; float32, default
precision, threads not pinned. Time to accuracy counts training alone, and looks at the validation
images four times per epoch.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from report import RESULTS, Report, interleaved

from sparse_hyper_jax.backprop import (
    BlockTopK,
    CandidateTopK,
    Sparsifier,
    TopK,
    UnifiedTopK,
    add_compact,
    empty_compact,
    init_memory,
    sparse_dense,
)
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.recipes.sparse_backprop import (
    SparseBackpropRecipe,
    make_measure,
    make_model,
    make_step,
    to_arrays,
)

NAME = "sparse_backprop_speed"
FIGURE = Path(__file__).parent.parent / "docs" / "sparse_backprop_speed.png"
SHAPES = ((32, 784, 500), (128, 1024, 1024), (1024, 1024, 1024), (128, 4096, 4096))
RATIOS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
QUARTERS = 4
PARTS = ("backward", "step", "accuracy")
NETWORKS = ((32, 500, 2), (128, 1024, 3), (1024, 1024, 3))
STEPS = 10
VARIANTS: dict[str, dict[str, Any]] = {
    "unified": {"rule": UnifiedTopK},
    "unified, in_out": {"rule": UnifiedTopK, "layout": "in_out"},
    "unified, slot memory": {"rule": UnifiedTopK, "kind": "slot"},
    "unified, shared memory": {"rule": UnifiedTopK, "kind": "shared"},
    "unified, compact": {"rule": UnifiedTopK, "compact": True},
    "block": {"rule": partial(BlockTopK, block=4)},
    "candidates": {"rule": CandidateTopK},
    "candidates, slot memory": {"rule": CandidateTopK, "kind": "slot"},
    "row": {"rule": TopK},
    "row, slot memory": {"rule": TopK, "kind": "slot"},
}
DRAWN = {"unified": "#08519c", "candidates": "#41ab5d", "row": "#cb181d"}


def best_dense(times: dict[str, float]) -> float:
    """Give the faster layout's time."""
    return min(times["dense, out_in"], times["dense, in_out"])


def with_speedups(times: dict[str, float]) -> dict[str, Any]:
    """Add how many times faster than dense each variant is; below 1 it is slower."""
    dense = best_dense(times)
    others = {name: value for name, value in times.items() if not name.startswith("dense")}
    return {
        "milliseconds": {name: round(value, 4) for name, value in times.items()},
        "speedup": {name: round(dense / value, 2) for name, value in others.items()},
    }


def backward_pass(
    batch: int,
    n_in: int,
    n_out: int,
    *,
    sparsifier: Sparsifier | None,
    layout: str = "out_in",
    kind: str = "none",
    compact: bool = False,
) -> Callable[[], Any]:
    """Compile ten backward passes of a layer: gradients of input, kernel, bias and memory."""
    keys = jax.random.split(jax.random.key(0), 3)
    kernel = jax.random.normal(keys[0], (n_out, n_in)) / n_in**0.5
    kernel = kernel if layout == "out_in" else jnp.asarray(kernel.T)
    arrays = {
        "x": jax.random.normal(keys[1], (batch, n_in)),
        "kernel": kernel,
        "bias": jnp.zeros(n_out),
        "memory": None if kind == "none" else init_memory(kind, (batch, n_out)),
        "compact": empty_compact(kernel, sparsifier, layout=layout) if compact else None,
    }
    cotangents = jax.random.normal(keys[2], (STEPS, batch, n_out))
    fixed = {"kernel": arrays.pop("kernel")} if compact else {}

    def layer(x: Any, kernel: Any, bias: Any, memory: Any, compact: Any) -> jax.Array:
        if sparsifier is None:
            return x @ (kernel.T if layout == "out_in" else kernel) + bias
        options = {"sparsifier": sparsifier, "layout": layout, "compact": compact}
        return sparse_dense(None, x, kernel, bias, memory, **options)

    @partial(jax.jit, donate_argnums=0)
    def backward(gradients: Any, arrays: Any, fixed: Any, cotangents: jax.Array) -> Any:
        def one(gradients: Any, cotangent: jax.Array) -> tuple[Any, None]:
            trained = {**arrays, "memory": gradients["memory"]}
            pull = jax.vjp(lambda trained: layer(**fixed, **trained), trained)[1]
            return pull(cotangent)[0], None

        return jax.lax.scan(one, gradients, cotangents)[0]

    held = [jax.tree.map(jnp.zeros_like, arrays)]

    def run() -> Any:
        held[0] = backward(held[0], arrays, fixed, cotangents)
        return held[0]

    return run


def time_backward(report: Report, repeats: int) -> None:
    """Time one layer's backward pass over shapes and ratios."""
    for shape in SHAPES:
        for ratio in RATIOS:
            functions = {
                f"dense, {layout}": backward_pass(*shape, sparsifier=None, layout=layout)
                for layout in ("out_in", "in_out")
            }
            for name, options in VARIANTS.items():
                rest = {key: value for key, value in options.items() if key != "rule"}
                rule = options["rule"](ratio)
                functions[name] = backward_pass(*shape, sparsifier=rule, **rest)
            times = interleaved(functions, repeats=repeats)
            times = {name: value / STEPS for name, value in times.items()}
            sizes = dict(zip(("batch", "n_in", "n_out"), shape, strict=True))
            report.add(part="backward", **sizes, ratio=ratio, **with_speedups(times))


def training_steps(
    batch: int,
    width: int,
    depth: int,
    *,
    rule: Sparsifier | None,
    optimizer: str,
    layout: str = "out_in",
    kind: str = "none",
    compact: bool = False,
) -> Callable[[], Any]:
    """Compile ten training steps of a classifier with a dense output layer."""
    sizes = [784] + [width] * depth + [10]
    keys = jax.random.split(jax.random.key(0), len(sizes) + 1)
    images = jax.random.uniform(keys[-1], (batch, 784))
    labels = jax.random.randint(keys[-2], (batch,), 0, 10)

    def weights(key: jax.Array, n_in: int, n_out: int) -> jax.Array:
        kernel = jax.random.normal(key, (n_out, n_in)) * (2 / n_in) ** 0.5
        return kernel if layout == "out_in" else jnp.asarray(kernel.T)

    kernels = [weights(key, *pair) for key, pair in zip(keys, pairwise(sizes), strict=False)]
    biases = [jnp.zeros(size) for size in sizes[1:]]
    memories = [None if kind == "none" else init_memory(kind, (batch, width))] * depth
    update = {"sgd": optax.sgd, "adam": optax.adam}[optimizer](1e-3)
    hidden_rows = [empty_compact(one, rule, layout=layout) for one in kernels[:-1] if compact]

    def logits(kernels: list, biases: list, memories: list, rows: list) -> jax.Array:
        x = images
        for number in range(depth):
            if rule is None:
                matrix = kernels[number].T if layout == "out_in" else kernels[number]
                x = x @ matrix + biases[number]
            else:
                options = {"layout": layout, "compact": rows[number] if rows else None}
                arrays = (x, kernels[number], biases[number], memories[number])
                x = sparse_dense(None, *arrays, sparsifier=rule, **options)
            x = jax.nn.relu(x)
        return x @ (kernels[-1].T if layout == "out_in" else kernels[-1]) + biases[-1]

    def loss(trained: Any, memories: list, rows: list, fixed: list) -> jax.Array:
        kernels, biases = trained
        scores = logits(fixed + kernels, biases, memories, rows)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    def step(state: Any, _: Any) -> tuple[Any, None]:
        (kernels, biases), memories, moments = state
        fixed = kernels[:-1] if compact else []
        trained = (kernels[len(fixed) :], biases)
        gradient, memories, rows = jax.grad(loss, argnums=(0, 1, 2))(
            trained, memories, hidden_rows, fixed
        )
        updates, moments = update.update(gradient, moments, trained)
        kernels, biases = optax.apply_updates(trained, updates)
        fixed = [
            add_compact(kernel, part, -1e-3, layout=layout)
            for kernel, part in zip(fixed, rows, strict=False)
        ]
        return ((fixed + kernels, biases), memories, moments), None

    @partial(jax.jit, donate_argnums=0)
    def steps(state: Any) -> Any:
        return jax.lax.scan(step, state, None, STEPS)[0]

    trained = (kernels[depth:] if compact else kernels, biases)
    held = [jax.tree.map(jnp.array, ((kernels, biases), memories, update.init(trained)))]

    def run() -> Any:
        held[0] = steps(held[0])
        return held[0]

    return run


def time_steps(report: Report, repeats: int) -> None:
    """Time whole training steps over networks, optimizers and ratios."""
    left_out = {"block", "candidates", "unified, in_out"}
    for batch, width, depth in NETWORKS:
        for optimizer in ("sgd", "adam"):
            for ratio in (0.04, 0.16):
                make = partial(training_steps, batch, width, depth, optimizer=optimizer)
                functions = {
                    f"dense, {layout}": make(rule=None, layout=layout)
                    for layout in ("out_in", "in_out")
                }
                for name, options in VARIANTS.items():
                    if name in left_out or (options.get("compact") and optimizer != "sgd"):
                        continue
                    functions[name] = make(**{**options, "rule": options["rule"](ratio)})
                times = interleaved(functions, repeats=repeats)
                times = {name: value / STEPS for name, value in times.items()}
                sizes = {"batch": batch, "width": width, "hidden_layers": depth}
                report.add(
                    part="step", **sizes, optimizer=optimizer, ratio=ratio, **with_speedups(times)
                )


def seconds_to(recipe: SparseBackpropRecipe, goal: float, epochs: int) -> dict[str, Any]:
    """Train until the validation accuracy reaches a goal; count seconds of training alone."""
    splits = load_splits(recipe.data, recipe.data_dir, seed=recipe.seed)
    train_set, validation = to_arrays(splits.train), to_arrays(splits.validation)
    apply, state = make_model(recipe, train_set, classes=10)
    step, measure = make_step(recipe, apply), make_measure(apply, state.memory)
    length = len(train_set[0]) // recipe.batch // QUARTERS

    @partial(jax.jit, donate_argnums=0)
    def part(state: Any, key: jax.Array, train_set: Any) -> Any:
        keys = jax.random.split(key, length)
        return jax.lax.scan(lambda state, key: step(state, key, train_set), state, keys)[0]

    start = time.perf_counter()
    compiled = part.lower(state, jax.random.key(0), train_set).compile()
    compile_seconds = time.perf_counter() - start
    seconds, accuracy, done = 0.0, 0.0, 0
    for key in jax.random.split(jax.random.key(recipe.seed), QUARTERS * epochs):
        start = time.perf_counter()
        state = jax.block_until_ready(compiled(state, key, train_set))
        seconds, done = seconds + time.perf_counter() - start, done + 1
        accuracy = measure(state.parameters, validation)
        if accuracy >= goal:
            break
    return {
        "reached": accuracy >= goal,
        "seconds": round(seconds, 2),
        "epochs": done / QUARTERS,
        "milliseconds_per_step": round(1e3 * seconds / done / length, 3),
        "compile_seconds": round(compile_seconds, 2),
    }


def time_to_accuracy(report: Report, folder: Path) -> None:
    """Time training to 97 % on MNIST: the small network of the papers and a wide one."""
    networks = {"784-500-500-10": (500, 2, 50), "784-1024-1024-1024-10": (1024, 3, 1024)}
    settings: dict[str, dict[str, Any]] = {
        "dense": {"select": "dense"},
        "unified": {"select": "unified", "memory": 0.0},
        "unified, memory": {"select": "unified"},
        "candidates, memory": {"select": "candidates"},
        "row, memory": {"select": "row"},
    }
    for network, (width, layers, batch) in networks.items():
        for seed in range(3):
            for name, options in settings.items():
                recipe = SparseBackpropRecipe(
                    **options,
                    data="mnist",
                    data_dir=folder,
                    hidden=width,
                    layers=layers,
                    batch=batch,
                    seed=seed,
                )
                result = seconds_to(recipe, goal=0.97, epochs=20)
                report.add(
                    part="time to 97 %",
                    network=network,
                    batch=batch,
                    setting=name,
                    seed=seed,
                    **result,
                )


def draw() -> Figure:
    """Draw the speed-up of the backward pass over the ratio, a panel for each shape."""
    path = RESULTS / f"{NAME}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    figure = Figure(figsize=(10, 3.0), layout="constrained")
    panels = figure.subplots(1, len(SHAPES), sharey=True)
    for ax, shape in zip(panels, SHAPES, strict=True):
        chosen = [
            line
            for line in lines
            if line["part"] == "backward" and (line["batch"], line["n_in"], line["n_out"]) == shape
        ]
        ratios = np.array([line["ratio"] for line in chosen])
        for name, colour in DRAWN.items():
            for suffix, style in (("", "-"), (", slot memory", "--")):
                speed = [line["speedup"][name + suffix] for line in chosen]
                ax.plot(ratios, speed, style, color=colour, marker="o", ms=3, label=name + suffix)
        ax.axhline(1, color="0.6", linewidth=0.8)
        batch, n_in, n_out = shape
        ax.set(title=f"batch {batch}, {n_in} to {n_out}", xscale="log", yscale="log")
        ax.set_xticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS], fontsize=7)
        ax.set_yticks((0.25, 0.5, 1, 2, 4, 8, 16), ["1/4", "1/2", "1", "2", "4", "8", "16"])
        ax.minorticks_off()
        ax.title.set_fontsize(9)
        ax.set_xlabel("share of components")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("backward pass: times as fast as dense")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside right center",
        frameon=False,
        fontsize=8,
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="add these parts to the lines")
    parser.add_argument("--draw", action="store_true", help="only draw")
    asked = parser.parse_args()
    parts = asked.only or PARTS
    if not asked.draw:
        report = Report(NAME, append=bool(asked.only))
        if "backward" in parts:
            time_backward(report, asked.repeats)
        if "step" in parts:
            time_steps(report, asked.repeats)
        if "accuracy" in parts and asked.mnist is not None:
            time_to_accuracy(report, asked.mnist)
    FIGURE.parent.mkdir(exist_ok=True)
    draw().savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
