"""The lines of a benchmark: what was measured, where and when; one JSON object each, appended."""

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Facts = dict[str, Any]
"""What tells one measurement from the others of its benchmark; part of its lines."""

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


class Lines(list[Line]):
    """Lines in the order of measuring; tables and figures are made from nothing else."""

    path: Path | None = None
    """The file that holds them; None if they are not kept."""

    @classmethod
    def of(cls, name: str, folder: Path | None = RESULTS) -> "Lines":
        """Read the lines of a benchmark, none if there is no file yet."""
        lines = cls()
        lines.path = folder and folder / f"{name}.jsonl"
        lines.refresh()
        return lines

    def refresh(self) -> None:
        """Read the file again: another call may have written to it."""
        if self.path and self.path.exists():
            self[:] = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())

    def put(self, facts: Facts, new: list[Line]) -> None:
        """Append lines, to the file too; those with the same facts go."""
        self.refresh()
        old = self.where(**facts)
        self[:] = [*(line for line in self if line not in old), *new]
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w" if old else "a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in (self if old else new))

    def where(self, **facts: Any) -> "Lines":
        """Choose the lines with these facts."""
        return Lines(line for line in self if facts.items() <= line.items())

    def having(self, *fields: str) -> "Lines":
        """Choose the lines with all of these fields."""
        return Lines(line for line in self if set(fields) <= line.keys())

    def each(self, field: str) -> list[Any]:
        """List what a field has been, in the order of measuring."""
        return list(dict.fromkeys(line[field] for line in self.having(field)))

    def values(self, field: str) -> list[Any]:
        """Give the values of a field of all lines that have it."""
        return [line[field] for line in self.having(field)]


def commit() -> str | None:
    """Name the commit of the checkout, marked if code was changed since; None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    try:
        head = git("rev-parse", "--short=12", "HEAD").strip()
        # Not the results: a benchmark that writes its first line changes them.
        code = ("sparse_hyper_jax", "benchmarks", ":!benchmarks/results")
        return head + ("+changes" if git("status", "--porcelain", "--", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def surroundings() -> Facts:
    """Describe date, hardware and versions."""
    import jax  # tables are made without it

    return {
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "numpy", "sparse_hyper_jax")},
    }
