"""The folder of one training run: its configuration, metrics, checkpoints and result.

    runs/sort-2026-01-31-120000/
        config.json      the recipe's fields, the versions that ran it, a random name of the run
        metrics.jsonl    one JSON object per line, each with "step" and "seconds"
        checkpoints/     written by :mod:`sparse_hyper_jax.train.checkpoint`
        result.json      what the recipe returned
        report.html      a page of all this, written last by :mod:`sparse_hyper_jax.train.report`
        owner.lock       while a process writes here, see :mod:`sparse_hyper_jax.train.owner`

A run may be killed at any moment. ``config.json`` and ``result.json`` are therefore replaced in one
move, and ``metrics.jsonl``, which is appended to, is cut back to the checkpoint that a resumed run
starts from. Of several processes the first one writes these files; all of them write checkpoints.
"""

import contextlib
import dataclasses
import datetime
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.dist.processes import first_does
from sparse_hyper_jax.train.configuration import CONFIG, check_same, describe_run, read_config
from sparse_hyper_jax.train.json_files import PARTIAL, to_plain, write_json
from sparse_hyper_jax.train.metrics_file import append_metrics, cut_metrics, read_metrics
from sparse_hyper_jax.train.owner import OWNER, Owner

RESULT = "result.json"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run; made by :func:`open_run`.

    Example:
        >>> from sparse_hyper_jax.train.recipes.sort import SortRecipe
        >>> from sparse_hyper_jax.train.run_folder import open_run
        >>> with open_run(SortRecipe(steps=10), recipe="sort", out="run") as folder:
        ...     folder.append({"step": 10, "loss": 0.5})
        ...     result = folder.write_result({"test_accuracy": 0.98})
        >>> folder.metrics()[0]["loss"], sorted(path.name for path in folder.path.glob("*.json"))
        (0.5, ['config.json', 'result.json'])
    """

    path: Path
    """Folder that exists and can be written to."""

    writes: bool = True
    """False in all processes of a run but the first: there the files stay as they are."""

    run: str = ""
    """Random name of the run, which its files carry."""

    figure_format: str = "png"
    """Ending of the pictures, which says how they are written."""

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
        return type(self)(path, writes=self.writes, run=self.run, figure_format=self.figure_format)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``; numbers that are not finite become ``null``.

        Args:
            line: names and scalars, with at least ``step``.
        """
        if self.writes:
            append_metrics(self._metrics, line, run=self.run)

    def metrics(self) -> list[dict[str, Any]]:
        """Read ``metrics.jsonl``, leaving out a line that a killed run wrote by half.

        Returns:
            One dict per complete line, in the order in which they were written.

        Raises:
            ValueError: the file is damaged, or of another run.
        """
        return read_metrics(self._metrics, run=self.run)

    def cut_metrics(self, step: int) -> None:
        """Keep only the metrics up to a checkpoint: the resumed run writes the later ones again.

        Args:
            step: number of finished steps at the checkpoint, -1 to drop every line.
        """
        if self.writes:
            cut_metrics(self._metrics, step, run=self.run)

    def save_figure(self, figure: Any, name: str) -> None:
        """Write a picture.

        Args:
            figure: of matplotlib.
            name: of the file, without an ending.
        """
        if self.writes:
            figure.savefig(self.path / f"{name}.{self.figure_format}", dpi=150)

    def write_result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``result.json``.

        Args:
            result: names and values; arrays become lists, numbers that are not finite ``null``.

        Returns:
            The same as plain JSON types, ready to be returned by a recipe.
        """
        plain = to_plain(result, finite=True)
        if self.writes:
            write_json(self.path / RESULT, plain)
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
    config: Any,
    *,
    recipe: str,
    out: str | Path | None = None,
    resume: bool = False,
    figure_format: str = "png",
    files: Sequence[list[str]] = (),
) -> RunFolder:
    """Create the folder of a new run, or open the folder of a run that is to be resumed.

    The folder is owned until the end of a ``with`` block around what is returned.

    Args:
        config: frozen dataclass whose fields are numbers, strings, paths, enums, or tuples, dicts
            and dataclasses of these.
        recipe: name of the recipe; part of the default folder's name.
        out: the folder, by default :func:`default_path`; for a new run it must be empty.
        resume: go on with the run that ``out`` holds. Its configuration must agree in every field
            but those of :data:`~sparse_hyper_jax.train.configuration.FREE_FIELDS`.
        figure_format: ending of the pictures: png, svg or pdf.
        files: names and SHA-256 of the files of the data, on which the run depends too.

    Returns:
        The folder, in which a file has been written and removed again as a test. Of several
        processes the first one has done so, and only it owns the folder and writes there.

    Raises:
        ValueError: the folder is in use; it is not empty and ``resume`` is false; it holds no run,
            or one with another configuration or data, and ``resume`` is true; or there is no
            ``out`` for several processes.
        OSError: the folder cannot be created or written to, or the first process raised.
    """
    _check_out(out, resume=resume)
    path = default_path(recipe) if out is None else Path(out)
    content = describe_run(config, recipe=recipe, files=files)
    opened: list[RunFolder] = []
    if resume:
        first_does(lambda: opened.append(_reopen(path, content)))
    else:
        first_does(lambda: opened.append(_create(path, content)))
    folder = opened[0] if opened else RunFolder(path, writes=False, run=read_config(path)["run"])
    return dataclasses.replace(folder, figure_format=figure_format)


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
        write_json(config, content | {"run": run})
        return RunFolder(path, run=run, owner=owner, made=(config, path) if is_new else (config,))


def _reopen(path: Path, content: dict[str, Any]) -> RunFolder:
    read_config(path)  # before anything is written to what may be no run's folder
    with _owned(path) as owner:
        stored = read_config(path)
        check_same(path / CONFIG, stored, content)
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
