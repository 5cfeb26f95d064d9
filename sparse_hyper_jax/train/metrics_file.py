"""The metrics of a run, appended to a file line by line: one JSON object each, with ``step``.

The first line also says which run the file belongs to. A killed run may leave half a line at the
end, which does not count; anything else that is no such line was not written here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.json_files import replace_text, to_plain
from sparse_hyper_jax.train.reading import reading

RUN = "run"
CHANGE = "restore the file, or start a new run with another --out DIR and no --resume"


def append_metrics(path: Path, line: Mapping[str, Any], *, run: str) -> None:
    """Add one line; numbers that are not finite become ``null``.

    Args:
        path: the file, made if it does not exist.
        line: names and scalars, with at least ``step``.
        run: name of the run, or an empty one.
    """
    # Opened for every line: a killed run loses nothing that was appended before.
    with path.open("a", encoding="utf-8") as file:
        first = run and file.tell() == 0
        named = {**line, RUN: run} if first else line
        file.write(json.dumps(to_plain(named, finite=True)) + "\n")


def read_metrics(path: Path, *, run: str) -> list[dict[str, Any]]:
    """Read the complete lines, in the order in which they were written.

    Args:
        path: the file; without one there are no lines.
        run: name of the run that must have written them, or an empty one for any.

    Raises:
        ValueError: a complete line is none of metrics, or another run wrote them.
        OSError: the system refuses the file.
    """
    if not path.exists():
        return []
    with reading(path, "file of metrics", CHANGE):
        *complete, _ = path.read_bytes().split(b"\n")
    lines = [_parse(path, number, text) for number, text in enumerate(complete, start=1)]
    written = lines[0].pop(RUN, "") if lines else run
    require(
        not run or written == run,
        f"{path} of the run {written!r}",
        f"metrics of the run {run!r}, to which the folder belongs",
        CHANGE,
    )
    return lines


def cut_metrics(path: Path, step: int, *, run: str) -> None:
    """Keep only the lines up to a step: a resumed run writes the later ones again.

    Args:
        path: the file, which need not exist.
        step: number of finished steps, -1 to drop every line.
        run: name of the run, or an empty one.

    Raises:
        ValueError: see :func:`read_metrics`.
    """
    if not path.exists():
        return
    kept = [line for line in read_metrics(path, run=run) if line["step"] <= step]
    if kept and run:
        kept[0] = {**kept[0], RUN: run}
    replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _parse(path: Path, number: int, text: bytes) -> dict[str, Any]:
    with reading(path, "file of metrics", CHANGE):
        line = json.loads(text)
    step = line.get("step") if isinstance(line, dict) else None
    require(
        isinstance(step, int) and not isinstance(step, bool) and step >= 0,
        f"line {number} of {path}: {text[:80]!r}",
        'a JSON object with a number of steps, such as {"step": 100}',
        CHANGE,
    )
    return line
