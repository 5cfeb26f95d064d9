"""How well cluttered digits are read, beside the floor: the same head with the place given.

Runs of the recipe ``glimpse`` with ``--mnist DIR``; ``--runs DIR`` keeps their folders, so that a
run that was interrupted goes on:

* ``head``: heads, warps and weight decays for the window whose place is given. ``BEST`` is chosen
  by errors on validation digits and by time; what test images say is not kept;
* ``floor``: ``BEST`` with the place given, on canvases of three sizes;
* ``missed``: the same, a few steps, with windows that lie off by some pixels;
* ``learned``: ``BEST`` with the place learned;
* those of ``RIVALS``: other ways to look at the largest canvas, with as many steps;
* those of ``FOUND``: windows that also move to what is found anywhere (``--soft-argmax``), a few
  steps beside windows that do not, then longer with the larger head; and the floor of that head.

All of them warp digits instead of images.
"""

from collections.abc import Iterator
from statistics import mean
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid
from benchmarks.tables import Column, markdown, percent, table

TASKS: dict[str, dict[str, Any]] = {
    "40 x 40": {"canvas": 40, "window": 28, "distractors": 5, "distractor_size": 5},
    "60 x 60": {"canvas": 60, "window": 28},
    "100 x 100": {"canvas": 100, "window": 32, "distractors": 8},
}
LARGE = {"head_channels": (32, 64, 128), "head_width": 128}
HEADS: dict[str, dict[str, Any]] = {
    "24, 48, 96 channels": {},
    "24, 48, 96 channels, warps of 1": {"warp": 1.0},
    "24, 48, 96 channels, warps of 1, weight decay 0.5": {"warp": 1.0, "weight_decay": 0.5},
    "32, 64, 128 channels, warps of 1": LARGE | {"warp": 1.0},
}
BEST, LARGER = HEADS["24, 48, 96 channels, warps of 1"], HEADS["32, 64, 128 channels, warps of 1"]
SEARCHED, LONGEST = 3_000, 60_000
TRAINED = (
    *(("40 x 40", 15_000), ("60 x 60", 15_000)),
    *(("100 x 100", 15_000), ("100 x 100", LONGEST)),
)
"""Canvases and steps, with the place given and with the place learned."""
LEARNED = ("60 x 60", "100 x 100")
MISSED = (0.0, 1.0, 2.0, 4.0)
"""Standard deviations of how far windows lie off along each axis, in pixels."""

RIVALS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "eight windows of 12 x 12": ({"window": 12, "glimpses": 8}, (15_000, LONGEST)),
    "spatial transformer": ({"method": "stn"}, (15_000,)),
    "no window": ({"method": "conv", "window": None}, (15_000,)),
}
"""Their options, and steps."""

SOFT, SHARP = {"soft_argmax": 1.0}, {"soft_argmax": 8.0}
LARGER_FLOOR = "floor, larger head"
FOUND: dict[str, tuple[dict[str, Any], tuple[tuple[str, int, int], ...]]] = {
    "one window, smaller head": (BEST, (("100 x 100", SEARCHED, 3),)),
    "one window, smaller head, soft-argmax": (BEST | SOFT, (("100 x 100", SEARCHED, 3),)),
    "one window, smaller head, soft-argmax x 8": (BEST | SHARP, (("100 x 100", SEARCHED, 3),)),
    "one window, soft-argmax x 8": (
        LARGER | SHARP,
        (("100 x 100", 15_000, 3), ("100 x 100", LONGEST, 1)),
    ),
    "one window, soft-argmax": (
        LARGER | SOFT,
        (("60 x 60", 15_000, 3), ("100 x 100", 15_000, 3), ("100 x 100", LONGEST, 1)),
    ),
    "one window, every pixel seen, soft-argmax x 8": (
        LARGER | SHARP | {"shrink": 1},
        (("60 x 60", 15_000, 3),),
    ),
    "eight windows of 12 x 12, soft-argmax": (
        LARGER | SOFT | {"window": 12, "glimpses": 8, "head_channels": None},
        (("100 x 100", 15_000, 1),),
    ),
    "spatial transformer, soft-argmax": (
        LARGER | SOFT | {"method": "stn"},
        (("100 x 100", 15_000, 1),),
    ),
    LARGER_FLOOR: (
        LARGER | {"method": "given"},
        (("60 x 60", 15_000, 1), ("100 x 100", 15_000, 1), ("100 x 100", LONGEST, 1)),
    ),
}
"""Their options, and canvas, steps and seeds of each."""

LOOKED = {"one window of 32 x 32": "learned", **{rival: rival for rival in RIVALS}}
LOOKED |= {"a window where the digit is": "floor"}
ONE, EIGHT = "one window, soft-argmax", "eight windows of 12 x 12, soft-argmax"
REPORTED = {
    "one of 32 x 32": ("learned", 0.0085, "floor"),
    "one of 32 x 32, soft-argmax": (ONE, 0.0085, LARGER_FLOOR),
    "eight of 12 x 12": ("eight windows of 12 x 12", 0.0101, "floor"),
    "eight of 12 x 12, soft-argmax": (EIGHT, 0.0101, LARGER_FLOOR),
}
"""Errors on 100 x 100 in the slides of the original work, and the floor of the same head."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the search for the head, the floors, and what is learned."""
    if not asked.mnist:
        return
    for head in HEADS:
        yield {"kind": "head", "task": "60 x 60", "reading": head, "steps": SEARCHED, "seed": 0}
    for task, steps in TRAINED:
        yield {"kind": "floor", "task": task, "steps": steps, "seed": 0}
        if task in LEARNED:
            yield {"kind": "learned", "task": task, "steps": steps, "seed": 0}
    for rival, (_, trained) in RIVALS.items():
        yield from grid(kind=[rival], task=["100 x 100"], steps=trained, seed=[0])
    for kind, (_, trained) in FOUND.items():
        for task, steps, seeds in trained:
            yield from grid(kind=[kind], task=[task], steps=[steps], seed=range(seeds))
    few = grid(task=["100 x 100"], missed=MISSED, steps=[SEARCHED], seed=range(3))
    yield from ({"kind": "missed"} | facts for facts in few)


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    options = TASKS[facts["task"]] | {"data": "mnist", "warped": "digit"}
    options |= {name: facts[name] for name in ("steps", "seed")}
    if facts["kind"] in FOUND:
        own, _ = FOUND[facts["kind"]]
        options |= own if own.get("method") == "given" else {"shrink": 2} | own
        return train("glimpse", asked, seconds=True, **options)
    if facts["kind"] == "learned" or facts["kind"] in RIVALS:
        own, _ = RIVALS.get(facts["kind"], ({}, ()))
        options |= BEST | own
        return train("glimpse", asked, seconds=True, shrink=2, **options)
    options |= HEADS[facts["reading"]] if facts["kind"] == "head" else BEST
    options |= {"missed": facts["missed"]} if facts["kind"] == "missed" else {}
    line = train("glimpse", asked, seconds=True, method="given", **options)
    if facts["kind"] == "head":  # nothing is to be chosen by test images
        line.pop("test_accuracy", None)
    return line


def errors(part: str, head: str, *, span: bool = False, **facts: str) -> Column:
    """Write the errors on a part."""

    def error(line: Line) -> float | None:
        accuracy = line.get(f"{part}_accuracy")
        return None if accuracy is None else 1 - accuracy

    return Column(head, error, percent(2, span=span), facts)


def write(lines: Lines) -> str:
    """Write what is learned beside the floors, and the search for the head."""
    trained = Lines(line for line in lines if line["kind"] != "head")
    canvases = [
        ([task, f"{steps:,}"], found)
        for task, steps in TRAINED
        if (found := trained.where(task=task, steps=steps))
    ]
    results = (
        errors("train", "place learned: train error", kind="learned"),
        errors("test", "test error", kind="learned"),
        errors("train", "place given: train error", kind="floor"),
        errors("test", "test error, the floor", kind="floor"),
    )
    large = lines.where(task="100 x 100")
    looked = [
        ([name, f"{steps:,}"], large.where(kind=kind, steps=steps))
        for steps in sorted(set(large.values("steps")))
        for name, kind in LOOKED.items()
        if large.where(kind=kind, steps=steps)
    ]
    parts = [errors("train", "train error"), errors("test", "test error")]
    found = [
        ([kind, task, f"{steps:,}"], runs)
        for kind, (_, trained) in FOUND.items()
        for task, steps, _ in trained
        if (runs := lines.where(kind=kind, task=task, steps=steps))
    ]
    searched = lines.where(kind="head")
    heads = (([head], searched.where(reading=head)) for head in HEADS)
    tables = [table(["head"], heads, [errors("validation", "validation error, place given")])]
    if canvases:
        tables.insert(0, table(["canvas", "steps"], canvases, results))
    if looked:
        tables.append(table(["100 x 100", "steps"], looked, parts))
    of_seeds = [
        errors("train", "train error", span=True),
        errors("test", "test error", span=True),
    ]
    if found:
        tables.append(table(["soft-argmax", "canvas", "steps"], found, of_seeds))
    if off := lines.where(kind="missed"):
        by_pixels = [([f"{pixels:.0f}"], off.where(missed=pixels)) for pixels in MISSED]
        head = "a given window misses the digit by, pixels"
        tables.append(table([head], by_pixels, of_seeds))
    return "\n\n".join(tables)


def against_reported(lines: Lines) -> str:
    """Write what the original work reports on 100 x 100 beside what was measured here."""
    heads = ("windows", "reported", "here, test error", "steps, seeds", "floor", "reproduces?")

    def row(windows: str, kind: str, reported: float, floor_of: str) -> list[str]:
        runs = lines.where(task="100 x 100", kind=kind)
        cells = [windows, f"{100 * reported:.2f} %"]
        if not runs:
            return [*cells, "not run", "-", "-", "not known"]
        longest = max(runs.values("steps"))
        here = runs.where(steps=longest)
        of_size = lines.where(task="100 x 100", steps=longest)
        misread = 1 - mean(here.values("test_accuracy"))
        given = of_size.where(kind=floor_of).values("test_accuracy")
        floor = f"{100 * (1 - mean(given)):.2f} %" if given else "-"
        run = f"{longest:,}, {len(here)}"
        answer = "yes" if misread <= reported else f"not after {longest:,} steps"
        return [*cells, f"{100 * misread:.2f} %", run, floor, answer]

    return markdown(heads, (row(windows, *found) for windows, found in REPORTED.items()))


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[{"kind": "floor", "task": "60 x 60", "steps": 2, "seed": 0}],
    table=write,
)
