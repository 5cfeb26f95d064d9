"""The folder of one training run: its configuration, metrics, checkpoints and result.

    runs/sort-2026-01-31-120000/
        config.json      the recipe's fields, the versions that ran it, a random name of the run
        metrics.jsonl    one JSON object per line, each with "step" and "seconds"
        checkpoints/     written by :mod:`sparse_hyper_jax.train.checkpoint`
        result.json      what the recipe returned
        owner.lock       while a process writes here, see :mod:`sparse_hyper_jax.train.owner`

A run may be killed at any moment. ``config.json`` and ``result.json`` are therefore replaced in one
move, and ``metrics.jsonl``, which is appended to, is cut back to the checkpoint that a resumed run
starts from. Of several processes the first one writes these files; all of them write checkpoints.
"""

import contextlib
import dataclasses
import datetime
import json
import math
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import jax

from sparse_hyper_jax import __version__
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.dist.processes import first_does
from sparse_hyper_jax.train.owner import OWNER, Owner

FREE_FIELDS = (
    *("out", "resume", "quiet", "animate", "download", "data_dir"),
    *("coordinator", "rank", "num_processes"),
)
"""Fields of a recipe that cannot change a number, so that a resumed run may differ in them.

``steps`` is not among them: a learning-rate schedule that spans the run depends on it from the
first step on.
"""

CONFIG, PARTIAL = "config.json", ".partial"

_ABSENT = "(absent)"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run; made by :func:`open_run`."""

    path: Path
    """Folder that exists and can be written to."""

    writes: bool = True
    """False in all processes of a run but the first: there the files stay as they are."""

    run: str = ""
    """Random name of the run, which its files carry."""

    owner: Owner | None = dataclasses.field(default=None, repr=False, compare=False)
    """Keeps others from writing here, until the end of the ``with`` block."""

    made: tuple[Path, ...] = dataclasses.field(default=(), repr=False, compare=False)
    """The configuration and maybe the folder, if :func:`open_run` made them and did not find them.

    They are taken back if the block fails before anything else was written.
    """

    def __enter__(self) -> Self:
        """Return the folder, to be given up at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        """Give the folder up; of a new run that fails before it wrote anything, nothing stays."""
        blank = bool(kind and self.made) and self._is_blank()
        if blank:
            self.made[0].unlink()
        if self.owner:
            self.owner.release()
        for path in self.made[1:] if blank else ():
            with contextlib.suppress(OSError):  # somebody else may have come in
                path.rmdir()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def part(self, name: str) -> Self:
        """Return a folder inside this one for a part of the run, with files of its own."""
        path = self.path / name
        if self.writes:
            path.mkdir(exist_ok=True)
        return type(self)(path, writes=self.writes, run=self.run)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``; numbers that are not finite become ``null``.

        Args:
            line: names and scalars, with at least ``step``.
        """
        if not self.writes:
            return
        text = json.dumps(to_plain(line, finite=True)) + "\n"
        # Opened for every line: a killed run loses nothing that was appended before.
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(text)

    def metrics(self) -> list[dict[str, Any]]:
        """Read ``metrics.jsonl``, leaving out lines that a killed run wrote by half.

        Returns:
            One dict per complete line, in the order in which they were written.
        """
        try:
            text = self._metrics.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        lines = (_parse(line) for line in text.splitlines())
        return [line for line in lines if isinstance(line, dict) and "step" in line]

    def cut_metrics(self, step: int) -> None:
        """Keep only the metrics up to a checkpoint: the resumed run writes the later ones again.

        Args:
            step: number of finished steps at the checkpoint, -1 to drop every line.
        """
        if not self.writes or not self._metrics.exists():
            return
        kept = [line for line in self.metrics() if line["step"] <= step]
        _replace(self._metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def write_result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``result.json``.

        Args:
            result: names and values; arrays become lists, numbers that are not finite ``null``.

        Returns:
            The same as plain JSON types, ready to be returned by a recipe.
        """
        plain = to_plain(result, finite=True)
        if self.writes:
            _replace(self.path / "result.json", json.dumps(plain, indent=2) + "\n")
        return plain

    def _is_blank(self) -> bool:
        with contextlib.suppress(OSError):
            self.checkpoints.rmdir()  # if it is empty, that is
        return set(_names(self.path)) <= {CONFIG, OWNER}

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"


def default_path(recipe: str) -> Path:
    """Return ``runs/<recipe>-<date>-<time>``, with a number behind it if that exists already."""
    base = Path("runs") / f"{recipe}-{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def open_run(
    config: Any, *, recipe: str, out: str | Path | None = None, resume: bool = False
) -> RunFolder:
    """Create the folder of a new run, or open the folder of a run that is to be resumed.

    The folder is owned until the end of a ``with`` block around what is returned.

    Args:
        config: frozen dataclass whose fields are numbers, strings, paths, enums, or tuples, dicts
            and dataclasses of these.
        recipe: name of the recipe; part of the default folder's name.
        out: the folder, by default :func:`default_path`; for a new run it must be empty.
        resume: go on with the run that ``out`` holds. Its configuration must agree in every field
            but those of :data:`FREE_FIELDS`.

    Returns:
        The folder, in which a file has been written and removed again as a test. Of several
        processes the first one has done so, and only it owns the folder and writes there.

    Raises:
        ValueError: the folder is in use; it is not empty and ``resume`` is false; it holds no run,
            or one with another configuration, and ``resume`` is true; or there is no ``out`` for
            several processes.
        OSError: the folder cannot be created or written to, or the first process raised.
    """
    _check_out(out, resume=resume)
    path = default_path(recipe) if out is None else Path(out)
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax")}
    versions["sparse_hyper_jax"] = __version__
    content = {"recipe": recipe, "fields": to_plain(config), "versions": versions}
    opened: list[RunFolder] = []
    if resume:
        first_does(lambda: opened.append(_reopen(path, content)))
    else:
        first_does(lambda: opened.append(_create(path, content)))
    return opened[0] if opened else RunFolder(path, writes=False, run=_read_config(path)["run"])


def to_plain(value: Any, *, finite: bool = False) -> Any:
    """Turn a value into JSON types: dataclasses to dicts, arrays to lists, paths to strings.

    Args:
        value: nested values.
        finite: replace infinite and undefined numbers, which JSON does not know, by ``None``.

    Raises:
        ValueError: a value has no counterpart in JSON.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Enum):
        value = value.name
    elif hasattr(value, "tolist"):  # arrays and scalars of NumPy and JAX
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): to_plain(item, finite=finite) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, finite=finite) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and finite and not math.isfinite(value):
        return None
    require(
        value is None or isinstance(value, bool | int | float | str),
        f"{value!r} of type {type(value).__name__}",
        "numbers, strings, paths, enums, arrays, or tuples, dicts and dataclasses of these",
        "leave it out of the configuration or the result",
    )
    return value


def _check_out(out: str | Path | None, *, resume: bool) -> None:
    require(
        out is not None or not resume,
        "--resume without --out",
        "the folder of the run to resume",
        "pass --out DIR",
    )
    require(
        out is not None or jax.process_count() == 1,
        f"{jax.process_count()} processes without --out",
        "one folder for all of them, which the default, named by the clock, is not",
        "pass the same --out DIR to all processes",
    )
    require(out != "", 'out=""', "the name of a folder", "pass --out DIR, for instance --out .")


def _create(path: Path, content: dict[str, Any]) -> RunFolder:
    is_new = not path.exists()
    if not is_new:
        _check_empty(path)
    with _owned(path) as owner:
        _check_empty(path)  # again: before, somebody else could still come in
        run = secrets.token_hex(8)
        config = path / CONFIG
        _replace(config, json.dumps(content | {"run": run}, indent=2) + "\n")
        return RunFolder(path, run=run, owner=owner, made=(config, path) if is_new else (config,))


def _reopen(path: Path, content: dict[str, Any]) -> RunFolder:
    _read_config(path)  # before anything is written to what may be no run's folder
    with _owned(path) as owner:
        stored = _read_config(path)
        _check_same(path / CONFIG, stored, content)
        return RunFolder(path, run=stored["run"], owner=owner)


@contextlib.contextmanager
def _owned(path: Path) -> Iterator[Owner]:
    """Own the folder, made if needed; give it up again if the block fails."""
    # Written for real: permission bits say nothing to root, in containers or on read-only mounts.
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        owner = Owner(path)
    except OSError as error:
        raise OSError(
            f"found {path}, which cannot be written to ({error}); expected a folder for the"
            " run's files; pass another --out DIR"
        ) from error
    try:
        yield owner
    except BaseException:
        owner.release()
        raise


def _check_empty(path: Path) -> None:
    # What a start that was interrupted leaves behind holds nothing.
    names = [name for name in _names(path) if name not in (OWNER, f"{CONFIG}{PARTIAL}")]
    require(
        CONFIG not in names,
        f"a run in {path}",
        "a folder without one",
        "pass --resume to go on with that run, or another --out DIR",
    )
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    require(
        not names,
        f"{some} in {path}",
        "an empty folder for a new run, whose files must not be taken for older ones",
        "pass another --out DIR, or empty this one",
    )


def _names(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir())
    except NotADirectoryError:
        return []  # told by what tries to write there


def _check_same(stored: Path, old: dict[str, Any], config: dict[str, Any]) -> None:
    require(
        old["recipe"] == config["recipe"],
        f"a run of the recipe {old['recipe']!r} in {stored.parent}",
        f"one of {config['recipe']!r}",
        "resume it by its own recipe, or start a new run with another --out DIR and no --resume",
    )
    differing = []
    for name in sorted({*old["fields"], *config["fields"]} - set(FREE_FIELDS)):
        before, now = (side["fields"].get(name, _ABSENT) for side in (old, config))
        # Compared as text: 1, 1.0 and True are equal to Python, but not always to a recipe.
        if json.dumps(before) != json.dumps(now):
            differing.append(f"{name} was {before!r} and is now {now!r}")
    require(
        not differing,
        "; ".join(differing),
        f"the configuration in {stored}",
        "pass the options of that run, or start a new one with another --out DIR and no --resume",
    )
    if old.get("versions") != config["versions"]:
        warnings.warn(
            f"{stored.parent} was written with {old.get('versions')}; the resumed run uses"
            f" {config['versions']} and may differ in the last digits",
            stacklevel=8,
        )


def _read_config(path: Path) -> dict[str, Any]:
    stored = path / CONFIG
    require(
        stored.is_file(),
        f"no run in {path}",
        "the folder of a run, with its config.json",
        "correct --out DIR, or drop --resume to start a new run there",
    )
    content = _parse(stored.read_text(encoding="utf-8", errors="replace"))
    change = "start a new run with another --out DIR and no --resume"
    require(
        isinstance(content, dict)
        and isinstance(content.get("fields"), dict)
        and isinstance(content.get("recipe"), str),
        f"{stored} that does not parse",
        "the configuration of a run as JSON",
        change,
    )
    require(
        isinstance(content.get("run"), str),
        f"{stored} without the name of its run",
        "that name, which versions before 0.1.0 did not write",
        change,
    )
    return content


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def _replace(path: Path, text: str) -> None:
    # One move: whoever reads, or goes on after a kill, sees the old file or the new one.
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
