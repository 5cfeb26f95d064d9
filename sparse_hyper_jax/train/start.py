"""Where a training run starts: at the beginning, or at its newest checkpoint, and it says so."""

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.dist.processes import first_does
from sparse_hyper_jax.train.checkpoint import Checkpoints, Restored
from sparse_hyper_jax.train.run_folder import RESULT, RunFolder


class Start(NamedTuple):
    """What the first step of this process begins with."""

    step: int
    """Number of finished steps."""

    state: Any
    """The state after them."""

    seconds: float = 0.0
    """How long they took."""


def start_of(
    folder: RunFolder,
    checkpoints: Checkpoints,
    state: Any,
    run: Mapping[str, int],
    *,
    resume: bool,
) -> Start:
    """Find where to start, and cut the metrics back to it.

    Args:
        folder: of the run.
        checkpoints: those of the folder.
        state: initial state.
        run: the numbers on which every step depends: ``steps``, ``seed``, ``steps_per_dispatch``.
        resume: start from the newest checkpoint.

    Raises:
        ValueError: the folder holds another run, or what starting over would lose.
    """
    restored = checkpoints.restore(state) if resume else None
    if restored is not None:
        start = _from_checkpoint(restored, run)
    else:
        check = _check_nothing_lost if resume else _check_new
        first_does(partial(check, folder, checkpoints, run))
        start = Start(0, state)
    folder.cut_metrics(start.step or -1)
    return start


def say_start(start: Start, steps: int, *, description: str) -> None:
    """Say on standard error where a resumed run goes on from."""
    where = f"going on from step {start.step} of {steps}"
    if start.step == 0:
        where = f"no checkpoint yet, starting from step 0 of {steps}"
    print(f"{description}: {where}" if description else where, file=sys.stderr)


def _from_checkpoint(restored: Restored, run: Mapping[str, int]) -> Start:
    about = restored.about
    differing = [
        f"{name}={about.get(name)} (now {now})"
        for name, now in run.items()
        if about.get(name) != now
    ]
    require(
        not differing,
        f"a checkpoint of a run with {', '.join(differing)}",
        "the same numbers, on which every step depends",
        "resume with those, or start a new run in another folder",
    )
    return Start(restored.step, restored.state, float(about["seconds"]))


def _check_new(folder: RunFolder, checkpoints: Checkpoints, run: Mapping[str, int]) -> None:
    del run
    require(
        not checkpoints.steps(),
        f"checkpoints in {checkpoints.path}",
        "none at the start of a new run",
        "pass resume=True to go on with that run, or another folder",
    )
    require(
        not folder.metrics(),
        f"metrics of another run in {folder.path}",
        "none at the start of a new run",
        "pass another folder",
    )


def _check_nothing_lost(
    folder: RunFolder, checkpoints: Checkpoints, run: Mapping[str, int]
) -> None:
    # A run that was killed before its first checkpoint has told of one dispatch at most.
    lines = folder.metrics()
    first = min(run["steps"], run["steps_per_dispatch"])
    left = [RESULT] if (folder.path / RESULT).exists() else []
    left += (
        [f"metrics up to step {lines[-1]['step']}"] if lines and lines[-1]["step"] > first else []
    )
    require(
        not left,
        f"{' and '.join(left)} in {folder.path}, but no checkpoint in {checkpoints.path}",
        "a checkpoint to go on from: starting over would lose them",
        "put the checkpoints back, or start a new run with another --out DIR and no --resume",
    )
