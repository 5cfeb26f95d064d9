"""Spikes that learn while time runs: images rebuilt, sounds made pictures, moving discs followed.

Lines of the recipes ``spiking-autoencoder``, ``audio-to-image`` and ``erbp``. "image": the online
rule with its mask and without, and backpropagation through time, on the bundled digits; with
``--mnist DIR`` 200 batches of 100 images. "picture": pictures made from upper halves of digits;
with ``--fsdd DIR`` and ``--mnist DIR`` from spoken digits, by the official split and with each
speaker left out. "events": directions of a moving disc, through a window that follows the events
or without; with ``--nmnist DIR`` digits of N-MNIST. "rate": for spoken digits and for N-MNIST, runs
with seed 100 that choose the learning rate by what is kept apart of the training part; the runs at
that rate then train on all of it.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, percent, spread, table

RULES = (("online", "xor"), ("online", "none"), ("backprop", "xor"))
SPEAKERS = range(6)
NETS = (("erbp", 16), ("erbp", 0), ("decolle", 16))
"""Method and window of classifiers of events."""

HALVES_PEAKS = (1.0, 0.15)
"""How often the whitest pixels of halves fire: the default there, and that of sounds."""

RATE_SEED = 100
SOUND_RATES = (2.5e-4, 5e-4, 1e-3)
EVENT_RATES = {"decolle": (5e-4, 1e-3, 2e-3), "erbp": (1e-3, 2e-3, 4e-3)}
SOUNDS: Facts = {"task": "fsdd", "images": "mnist"}
"""Of everything but the learning rate the recipe's defaults."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give what needs no file, then what the folders allow."""
    for (method, mask), seed in product(RULES, asked.seeds):
        yield {"kind": "image", "data": "digits", "method": method, "mask": mask, "seed": seed}
    for peak, seed in product(HALVES_PEAKS, asked.seeds):
        yield {"kind": "picture", "task": "halves", "peak": peak, "seed": seed}
    for (method, window), seed in product(NETS, asked.seeds):
        yield {"kind": "events", "task": "disc", "method": method, "window": window, "seed": seed}
    if asked.mnist:
        for (method, mask), seed in product(RULES, asked.seeds):
            yield {"kind": "image", "data": "mnist", "method": method, "mask": mask, "seed": seed}
    if asked.fsdd and asked.mnist:
        official = SOUNDS | {"split": "official"}
        yield from chosen("picture", official, SOUND_RATES, asked.seeds, lines)
        for speaker in SPEAKERS:
            left_out = SOUNDS | {"split": "speaker", "held_out": speaker}
            yield from chosen("picture", left_out, SOUND_RATES, asked.seeds[:1], lines)
    if asked.nmnist:
        for method, rates in EVENT_RATES.items():
            net = {"task": "nmnist", "method": method, "window": 16}
            yield from chosen("events", net, rates, asked.seeds, lines)


def chosen(
    kind: str, facts: Facts, rates: tuple[float, ...], seeds: Any, lines: Lines
) -> Iterator[Facts]:
    """Give the runs that choose a rate, then those at the best one that train on everything."""
    tried = [{"kind": "rate", **facts, "learning_rate": rate, "seed": RATE_SEED} for rate in rates]
    yield from tried
    found = [line for one in tried for line in lines.where(**one)]
    if len(found) == len(tried):
        best = max(found, key=lambda line: line["validation_accuracy"])["learning_rate"]
        for seed in seeds:
            yield {"kind": kind, **facts, "validate": False, "learning_rate": best, "seed": seed}


def recipe_of(facts: Facts) -> str:
    """Name the recipe of a line."""
    if facts["kind"] == "image":
        return "spiking-autoencoder"
    return "audio-to-image" if facts["task"] in ("halves", "fsdd") else "erbp"


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once; what validates events shows every epoch."""
    options = {name: value for name, value in facts.items() if name != "kind"}
    recipe = recipe_of(facts)
    curves = ["eval_accuracy"] if recipe == "erbp" and facts.get("validate", True) else []
    return train(recipe, asked, curves=curves, **options)


def epoch(number: int):
    """Make a function of a line: the accuracy after so many epochs."""

    def read(line: Line) -> float | None:
        seen = line.get("curve", {}).get("eval_accuracy", [])
        return seen[number] if number < len(seen) else None

    return read


def write(lines: Lines) -> str:
    """Write errors of images, accuracies of pictures, and those of classifiers of events."""
    found = lines.where(kind="image")
    rows = (
        ([data, method, mask], found.where(data=data, method=method, mask=mask))
        for data, (method, mask) in product(("digits", "mnist"), RULES)
    )
    written = ["images rebuilt:", table(["images", "method", "mask"], rows, IMAGE)]
    found = lines.where(kind="picture")
    splits: list[tuple[str, Facts]] = [
        ("halves of digits", {"task": "halves", "peak": 1.0}),
        ("halves of digits, firing as sounds do", {"task": "halves", "peak": 0.15}),
        ("spoken digits, official split", {"task": "fsdd", "split": "official"}),
        ("spoken digits, a speaker left out", {"task": "fsdd", "split": "speaker"}),
    ]
    rows = (([name], tested(found.where(**facts))) for name, facts in splits)
    written += ["pictures synthesised:", table(["from"], rows, PICTURE)]
    rows = (
        ([task, method, window or "none"], events_of(lines, task, method, window))
        for task, method, window in [("disc", *net) for net in NETS]
        + [("nmnist", method, 16) for method in EVENT_RATES]
    )
    written += ["classes of events:", table(["task", "method", "window"], rows, EVENTS)]
    return "\n\n".join(written)


def events_of(lines: Lines, task: str, method: str, window: int) -> Lines:
    """Give the lines of a row: those tested on, and that of the chosen rate, which validated."""
    found = lines.where(task=task, method=method, window=window)
    at_end = tested(found.where(kind="events"))
    rates = found.where(kind="rate")
    return Lines(
        [
            *at_end,
            *(line for line in rates if line["learning_rate"] in at_end.values("learning_rate")),
        ]
    )


def tested(found: Lines) -> Lines:
    """Leave runs of before there was validation out, once there are others at a rate it chose."""
    return found.where(validate=False) or found


def runs(values: list[int]) -> str:
    """Count runs."""
    return str(len(values))


def chosen_rates(values: list[float]) -> str:
    """Write the rates of a row, each once."""
    return ", ".join(f"{rate:g}" for rate in sorted(set(values)))


IMAGE = (
    Column("runs", "seed", runs),
    Column("test error", "test_mse", spread(".3f")),
    Column("that of the input's spikes", "test_mse_of_input", spread(".3f")),
    Column("silent hidden units, %", "test_silent_units", percent(span=False)),
)
PICTURE = (
    Column("runs", "seed", runs),
    Column("rate", "learning_rate", chosen_rates),
    Column("nearest is its class, training, %", "train_accuracy", percent(span=False)),
    Column("test, %", "test_accuracy", percent()),
    Column("test error", "test_mse", spread(".3f")),
    Column("by the true spikes", "mse_of_pictures", spread(".3f")),
    Column("between classes", "mse_between_classes", spread(".3f", ".1g")),
)
TESTED: Facts = {"kind": "events"}
EVENTS = (
    Column("runs", "seed", runs, TESTED),
    Column("rate", "learning_rate", chosen_rates, TESTED),
    *(Column(f"validation, %, epoch {n}", epoch(n), percent(span=False)) for n in (1, 2, 3)),
    Column("test, %, at the end", "test_accuracy", percent(), TESTED),
    Column("nearest neighbour", "test_accuracy_of_nearest", percent(span=False), TESTED),
    Column("logistic regression", "test_accuracy_of_logistic", percent(span=False), TESTED),
)
SMALL: Facts = {"task": "disc", "discs": 8, "time_steps": 6, "hidden": (6,), "seed": 0}

BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        {"kind": "image", "data": "digits", "method": "online", "mask": "xor", "seed": 0},
        {"kind": "picture", "task": "halves", "image_steps": 1, "seed": 0},
        {"kind": "events", "method": "erbp", "window": 4, **SMALL},
        {"kind": "events", "method": "decolle", "window": 4, **SMALL},
    ],
    table=write,
    seeds=range(3),
)
