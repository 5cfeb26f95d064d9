"""Backward passes, training steps and whole training, dense and by every way to choose."""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.lines import Facts, Line
from benchmarks.recipes import recipe_of
from benchmarks.runner import Asked
from benchmarks.timing import compiled, going_on, interleaved
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
from sparse_hyper_jax.train.models.perceptron import make_measure
from sparse_hyper_jax.train.recipes.sparse_backprop import make_model, make_step

QUARTERS, EPOCHS, GOAL = 4, 20, 0.97
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
LAYOUTS = ("out_in", "in_out")
NOT_IN_STEPS = ("block", "candidates", "unified, in_out")


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one setting of one part."""
    if facts["part"] not in TIMED:
        return seconds_to_goal(facts, asked)
    functions = TIMED[facts["part"]](facts)
    times = interleaved(functions, repeats=asked.repeats)
    times = {name: time / STEPS for name, time in times.items()}
    dense = min(times[f"dense, {layout}"] for layout in LAYOUTS)
    others = {name: time for name, time in times.items() if not name.startswith("dense")}
    return {
        "milliseconds": {name: round(time, 4) for name, time in times.items()},
        # How many times faster than dense; below 1 it is slower.
        "speedup": {name: round(dense / time, 2) for name, time in others.items()},
    }


def backward_passes(facts: Facts) -> dict[str, Callable[[], Any]]:
    """Compile all backward passes of one shape and ratio."""
    make = partial(backward_pass, *(facts[name] for name in ("batch", "n_in", "n_out")))
    dense = {f"dense, {one}": make(rule=None, layout=one) for one in LAYOUTS}
    ratio = facts["ratio"]
    return dense | {
        name: make(**options | {"rule": options["rule"](ratio)})
        for name, options in VARIANTS.items()
    }


def steps_of_networks(facts: Facts) -> dict[str, Callable[[], Any]]:
    """Compile the training steps of one network, optimizer and ratio."""
    optimizer, ratio = facts["optimizer"], facts["ratio"]
    sizes = (facts[name] for name in ("batch", "width", "hidden_layers"))
    make = partial(training_steps, *sizes, optimizer=optimizer)
    dense = {f"dense, {one}": make(rule=None, layout=one) for one in LAYOUTS}
    return dense | {
        name: make(**options | {"rule": options["rule"](ratio)})
        for name, options in VARIANTS.items()
        if name not in NOT_IN_STEPS and not (options.get("compact") and optimizer != "sgd")
    }


TIMED = {"backward": backward_passes, "step": steps_of_networks}


def backward_pass(
    batch: int,
    n_in: int,
    n_out: int,
    *,
    rule: Sparsifier | None,
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
        "compact": empty_compact(kernel, rule, layout=layout) if compact else None,
    }
    cotangents = jax.random.normal(keys[2], (STEPS, batch, n_out))
    fixed = {"kernel": arrays.pop("kernel")} if compact else {}

    def layer(x: Any, kernel: Any, bias: Any, memory: Any, compact: Any) -> jax.Array:
        if rule is None:
            return x @ (kernel.T if layout == "out_in" else kernel) + bias
        options = {"sparsifier": rule, "layout": layout, "compact": compact}
        return sparse_dense(None, x, kernel, bias, memory, **options)

    def backward(gradients: Any, arrays: Any, fixed: Any, cotangents: jax.Array) -> Any:
        def one(gradients: Any, cotangent: jax.Array) -> tuple[Any, None]:
            trained = {**arrays, "memory": gradients["memory"]}
            pull = jax.vjp(lambda trained: layer(**fixed, **trained), trained)[1]
            return pull(cotangent)[0], None

        return jax.lax.scan(one, gradients, cotangents)[0]

    return going_on(backward, jax.tree.map(jnp.zeros_like, arrays), arrays, fixed, cotangents)


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

    def steps(state: Any) -> Any:
        return jax.lax.scan(step, state, None, STEPS)[0]

    trained = (kernels[depth:] if compact else kernels, biases)
    return going_on(steps, ((kernels, biases), memories, update.init(trained)))


def seconds_to_goal(facts: Facts, asked: Asked) -> Line:
    """Train on MNIST until the validation accuracy reaches a goal; count training alone."""
    method, _, memory = facts["setting"].partition(", ")
    _, *hidden, _ = map(int, facts["network"].split("-"))
    options = {"method": method} | ({} if memory or method == "dense" else {"memory": 0.0})
    options |= {"hidden": tuple(hidden), "batch": facts["batch"]}
    recipe = recipe_of("sparse-backprop", asked, data="mnist", seed=facts["seed"], **options)
    data = recipe.load()
    apply, state = make_model(recipe, data.train, data.classes)
    step, memory = make_step(recipe, apply), state.slots
    accuracy_of = make_measure(lambda parameters, images: apply(parameters, memory, images, None))
    length = 1 if asked.tiny else len(data.train[0]) // recipe.batch // QUARTERS

    def part(state: Any, key: jax.Array, train_set: Any) -> Any:
        keys = jax.random.split(key, length)
        return jax.lax.scan(lambda state, key: step(state, key, train_set), state, keys)[0]

    arguments = (state, jax.random.key(0), data.train)
    program, compile_seconds = compiled(part, *arguments, donate_argnums=0)
    seconds, accuracy, done = 0.0, 0.0, 0
    for key in jax.random.split(jax.random.key(recipe.seed), QUARTERS * EPOCHS):
        start = time.perf_counter()
        state = jax.block_until_ready(program(state, key, data.train))
        seconds, done = seconds + time.perf_counter() - start, done + 1
        accuracy = accuracy_of(state.parameters, data.validation)
        if accuracy >= GOAL:
            break
    return {
        "reached": accuracy >= GOAL,
        "seconds": round(seconds, 2),
        "epochs": done / QUARTERS,
        "milliseconds_per_step": round(1e3 * seconds / done / length, 3),
        "compile_seconds": round(compile_seconds, 2),
    }
