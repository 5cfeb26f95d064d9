"""Spikes that learn while time runs: images rebuilt, sounds made pictures, moving discs followed.

Lines of the recipes ``spiking-autoencoder``, ``audio-to-image`` and ``erbp``. "image": the online
rule with its mask and without, and backpropagation through time, on the bundled digits; with
``--mnist DIR`` 200 batches of 100 images. "picture": pictures made from upper halves of digits;
with ``--fsdd DIR`` and ``--mnist DIR`` from spoken digits, by the official split and with each
speaker left out. "events": directions of a moving disc, through a window that follows the events
or without; with ``--nmnist DIR`` digits of N-MNIST.
"""

from collections.abc import Iterator
from itertools import product

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, percent, spread, table

RULES = (("online", "xor"), ("online", "none"), ("backprop", "xor"))
SPEAKERS = range(6)
NETS = (("erbp", 16), ("erbp", 0), ("decolle", 16))
"""Method and window of classifiers of events."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give what needs no file, then what the folders allow."""
    for (method, mask), seed in product(RULES, asked.seeds):
        yield {"kind": "image", "data": "digits", "method": method, "mask": mask, "seed": seed}
    for seed in asked.seeds:
        yield {"kind": "picture", "task": "halves", "seed": seed}
    for (method, window), seed in product(NETS, asked.seeds):
        yield {"kind": "events", "task": "disc", "method": method, "window": window, "seed": seed}
    if asked.mnist:
        for (method, mask), seed in product(RULES, asked.seeds):
            yield {"kind": "image", "data": "mnist", "method": method, "mask": mask, "seed": seed}
    if asked.fsdd and asked.mnist:
        sound: Facts = {"kind": "picture", "task": "fsdd", "images": "mnist"}
        for seed in asked.seeds:
            yield sound | {"split": "official", "seed": seed}
        for speaker in SPEAKERS:
            yield sound | {"split": "speaker", "held_out": speaker, "seed": 0}
    if asked.nmnist:
        for method, seed in product(("decolle", "erbp"), asked.seeds):
            yield {"kind": "events", "task": "nmnist", "method": method, "window": 16, "seed": seed}


RECIPES = {"image": "spiking-autoencoder", "picture": "audio-to-image", "events": "erbp"}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once; of events the curve shows every epoch."""
    options = {name: value for name, value in facts.items() if name != "kind"}
    curves = ["eval_test_accuracy"] if facts["kind"] == "events" else []
    return train(RECIPES[facts["kind"]], asked, curves=curves, **options)


def epoch(number: int):
    """Make a function of a line: the accuracy after so many epochs."""

    def read(line: Line) -> float | None:
        seen = line["curve"]["eval_test_accuracy"]
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
        ("halves of digits", {"task": "halves"}),
        ("spoken digits, official split", {"task": "fsdd", "split": "official"}),
        ("spoken digits, a speaker left out", {"task": "fsdd", "split": "speaker"}),
    ]
    rows = (([name], found.where(**facts)) for name, facts in splits)
    written += ["pictures synthesised:", table(["from"], rows, PICTURE)]
    found = lines.where(kind="events")
    nets = [("disc", *net) for net in NETS] + [("nmnist", "decolle", 16), ("nmnist", "erbp", 16)]
    rows = (
        ([task, method, window or "none"], found.where(task=task, method=method, window=window))
        for task, method, window in nets
    )
    written += ["classes of events:", table(["task", "method", "window"], rows, EVENTS)]
    return "\n\n".join(written)


def runs(values: list[int]) -> str:
    """Count runs."""
    return str(len(values))


IMAGE = (
    Column("runs", "seed", runs),
    Column("test error", "test_mse", spread(".3f")),
    Column("that of the input's spikes", "test_mse_of_input", spread(".3f")),
    Column("silent hidden units, %", "test_silent_units", percent(span=False)),
)
PICTURE = (
    Column("runs", "seed", runs),
    Column("nearest is its class, training, %", "train_accuracy", percent(span=False)),
    Column("test, %", "test_accuracy", percent()),
    Column("test error", "test_mse", spread(".3f")),
    Column("by the true spikes", "mse_of_pictures", spread(".3f")),
    Column("between classes", "mse_between_classes", spread(".3f", ".1g")),
)
EVENTS = (
    Column("runs", "seed", runs),
    *(Column(f"test, %, epoch {n}", epoch(n), percent(span=False)) for n in (1, 2, 3)),
    Column("at the end", "test_accuracy", percent()),
    Column("nearest neighbour", "test_accuracy_of_nearest", percent(span=False)),
    Column("logistic regression", "test_accuracy_of_logistic", percent(span=False)),
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
