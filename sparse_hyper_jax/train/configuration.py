"""The configuration that a run was started with, and whether another agrees with it."""

import json
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sparse_hyper_jax import __version__
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.json_files import read_json, to_plain
from sparse_hyper_jax.train.limits import flag

CONFIG = "config.json"
"""Name of the file in the run folder."""

FREE_FIELDS = (
    *("out", "resume", "quiet", "format", "animate", "download", "data_dir"),
    *("coordinator", "rank", "num_processes"),
)
"""Fields of a recipe that cannot change a number, so that a resumed run may differ in them.

``steps`` is not among them: a learning-rate schedule that spans the run depends on it from the
first step on.
"""

_ABSENT = "(absent)"


def describe_run(config: Any, *, recipe: str, files: Sequence[list[str]] = ()) -> dict[str, Any]:
    """Give what the file holds, but for the name of the run: recipe, fields, versions, files."""
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax")}
    versions["sparse_hyper_jax"] = __version__
    about = {"recipe": recipe, "fields": to_plain(config), "versions": versions}
    return about | {"files": list(files)}


def check_same(stored: Path, old: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise if a run is to go on under another configuration; warn if under other versions.

    Args:
        stored: the file.
        old: what it holds.
        config: from :func:`describe_run`.

    Raises:
        ValueError: another recipe, another value of a field that is not in :data:`FREE_FIELDS`, or
            other bytes in the files of the data, which may have moved.
    """
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
            differing.append(f"{flag(name)} was {before!r} and is now {now!r}")
    require(
        not differing,
        f"that {'; '.join(differing)}",
        f"the configuration in {stored}",
        "pass the options of that run, or start a new one with another --out DIR and no --resume",
    )
    # Versions before 0.3.0 did not note them.
    before = old.get("files", config["files"])
    kept = before if isinstance(before, list) else []
    changed = [name for name, digest in config["files"] if [name, digest] not in kept]
    require(
        before == config["files"],
        f"other data than the run in {stored.parent} began with"
        + (f": {', '.join(changed)}" if changed else f", in {len(kept)} files"),
        "files of the same bytes, on which every step depends",
        "put those files back, or start a new run with another --out DIR and no --resume",
    )
    if old.get("versions") != config["versions"]:
        warnings.warn(
            f"{stored.parent} was written with {old.get('versions')}; the resumed run uses"
            f" {config['versions']} and may differ in the last digits",
            stacklevel=8,
        )


def read_config(path: Path) -> dict[str, Any]:
    """Read the configuration of the run in a folder.

    Raises:
        ValueError: there is none, or a damaged one, or one of an earlier version.
    """
    stored = path / CONFIG
    require(
        stored.is_file(),
        f"no run in {path}",
        "the folder of a run, with its config.json",
        "correct --out DIR, or drop --resume to start a new run there",
    )
    change = "start a new run with another --out DIR and no --resume"
    content = read_json(stored, change=change)
    require(
        isinstance(content, dict)
        and isinstance(content.get("fields"), dict)
        and isinstance(content.get("recipe"), str),
        f"{stored} without recipe and fields",
        "the configuration of a run as JSON",
        change,
    )
    require(
        isinstance(content.get("run"), str) and content["run"] != "",
        f"{stored} without the name of its run",
        "that name, which versions before 0.1.0 did not write",
        change,
    )
    return content
