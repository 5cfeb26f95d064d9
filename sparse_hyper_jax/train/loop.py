"""One training loop for every recipe: many steps per dispatch, metrics, checkpoints, resumption.

    step 0 ...... 100 ...... 200 ...... 300 .. 350        steps=350, steps_per_dispatch=100
         |  scan   |  scan    |  scan    | scan |
         evaluate             evaluate          evaluate  evaluate_every=200

The boundaries of the dispatches depend on ``steps`` and ``steps_per_dispatch`` alone, checkpoints
are written at boundaries only, and the random key of a step depends on the seed and the step's
number alone. A run that is killed and resumed therefore repeats the very computations of a run that
was not, bit for bit.

A state that is spread over devices stays as it is spread, also over those of several processes. All
of these train and save; the first one looks at the clock and writes the metrics.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from sparse_hyper_jax.checks import check_count, require
from sparse_hyper_jax.dist.processes import is_first
from sparse_hyper_jax.train.checkpoint import Checkpoints, own_arrays
from sparse_hyper_jax.train.dispatch import Step, dispatcher, means_of
from sparse_hyper_jax.train.run_folder import RunFolder
from sparse_hyper_jax.train.saving import Saving
from sparse_hyper_jax.train.start import say_start, start_of
from sparse_hyper_jax.train.stopping import noted_signals

Evaluate = Callable[[int, Any], Mapping[str, float]]
"""Function on the host, ``evaluate(step, state) -> results``."""


COMPILING = "compiling"
"""What the bar says until the first dispatch has returned, which may take minutes."""


class Trained(NamedTuple):
    """What a training run leaves behind."""

    state: Any
    """The final state, of the structure of the initial one."""

    seconds: float
    """Wall-clock time with compilation and evaluation, added up over the parts of a resumed run."""

    steps: int
    """Number of steps of the whole run."""


def train(
    step: Step,
    state: Any,
    *,
    steps: int,
    seed: int,
    folder: RunFolder,
    constants: tuple[Any, ...] = (),
    evaluate: Evaluate | None = None,
    evaluate_every: int = 1000,
    steps_per_dispatch: int = 100,
    checkpoint_seconds: float = 30.0,
    resume: bool = False,
    quiet: bool = False,
    description: str = "",
) -> Trained:
    """Train a state, or go on training it from the last checkpoint.

    Args:
        step: pure function from state and typed key to the next state and a dict of scalar metrics.
            The key of step i, counted from 0, is ``fold_in(key(seed), i)``.
        state: pytree of arrays, without typed keys. It is copied: the caller's arrays stay valid.
            Spread over a mesh, for instance by :func:`~sparse_hyper_jax.dist.shard_tuples`, it
            trains on all devices of the mesh.
        steps: number of steps of the whole run.
        seed: seed of the keys.
        constants: further arguments of every step, pytrees of arrays such as a resident data set:
            what a step closes over instead becomes part of the compiled program.
        folder: where metrics (means over a dispatch) and checkpoints go.
        evaluate: called with the number of finished steps and the state at the beginning, at
            multiples of ``evaluate_every`` and at the end. Its results are recorded with ``eval_``
            before their names. It must not keep the state's arrays, whose memory the next dispatch
            reuses.
        evaluate_every: number of steps between evaluations, a multiple of ``steps_per_dispatch``.
        steps_per_dispatch: number of steps in one compiled ``lax.scan``.
        checkpoint_seconds: save at the first boundary after this time; 0 saves at every boundary.
            The first and the last are saved in any case.
        resume: start from the newest checkpoint in ``folder``, or from ``state`` if there is none
            and nothing would be lost.
        quiet: show no progress bar, and do not say where a resumed run goes on from.
        description: what to write before the progress bar.

    Returns:
        The final state, the seconds, the steps.

    Raises:
        ValueError: an option does not fit, the checkpoints belong to another run, or there are
            none to go on from although metrics or a result tell of some.
        FloatingPointError: a metric is not finite, or the state undefined; the checkpoints stay.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written at the next boundary; after
            SIGTERM whatever the process does then. A second Ctrl-C waits for nothing.
    """
    _check_options(steps, seed, steps_per_dispatch, evaluate_every if evaluate else None)
    run = {"steps": steps, "seed": seed, "steps_per_dispatch": steps_per_dispatch}
    quiet = quiet or not is_first()
    with (
        Checkpoints(folder.checkpoints, run=folder.run) as checkpoints,
        noted_signals(quiet=quiet) as stopping,
    ):
        began = start_of(folder, checkpoints, own_arrays(state), run, resume=resume)
        if resume and not quiet:
            say_start(began, steps, description=description)
        saving = Saving(checkpoints, stopping, run, began, every=checkpoint_seconds)
        state = began.state
        leaves, structure = jax.tree.flatten(state)
        dispatch = dispatcher(step, structure, tuple(leaf.sharding for leaf in leaves))
        key = jax.random.key(seed)
        with tqdm(
            total=steps, initial=began.step, desc=description, disable=quiet, mininterval=0.5
        ) as bar:
            if evaluate and not began.step:
                bar.set_postfix_str(COMPILING)
                _record(folder, bar, 0, 0.0, _results(evaluate, 0, state))
            for start, stop in boundaries(began.step, steps, steps_per_dispatch):
                if start == began.step:
                    bar.set_postfix_str(COMPILING)
                state, stacked = dispatch(
                    state, key, jnp.uint32(start), constants, length=stop - start
                )
                metrics = means_of(stacked, start, checkpoints)
                if evaluate and (stop % evaluate_every == 0 or stop == steps):
                    metrics |= _results(evaluate, stop, state)
                _record(folder, bar, stop, saving.seconds(), metrics)
                saving.at_boundary(stop, state)
    return Trained(state, saving.seconds_at_last, steps)


def boundaries(first: int, steps: int, steps_per_dispatch: int) -> Iterator[tuple[int, int]]:
    """Yield the first step of every dispatch and the one after its last.

    Args:
        first: a boundary: 0, a multiple of ``steps_per_dispatch`` or ``steps``.
        steps: number of steps of the whole run.
        steps_per_dispatch: number of steps in every dispatch but the last.
    """
    for start in range(first, steps, steps_per_dispatch):
        yield start, min(start + steps_per_dispatch, steps)


def _check_options(
    steps: int, seed: int, steps_per_dispatch: int, evaluate_every: int | None
) -> None:
    check_count("steps", steps, 1)
    require(
        0 <= seed < 2**32,
        f"seed={seed}",
        "0 to 2**32 - 1, for a key has 32 bits and others would wrap around to these",
        "pass another seed",
    )
    check_count("steps_per_dispatch", steps_per_dispatch, 1)
    if evaluate_every is None:
        return
    check_count("evaluate_every", evaluate_every, 1)
    require(
        evaluate_every % steps_per_dispatch == 0,
        f"evaluate_every={evaluate_every} with steps_per_dispatch={steps_per_dispatch}",
        "a multiple, because evaluations lie between dispatches",
        f"pass evaluate_every={-(-evaluate_every // steps_per_dispatch) * steps_per_dispatch}"
        " or fewer steps per dispatch",
    )


def _results(evaluate: Evaluate, stop: int, state: Any) -> dict[str, float]:
    return {f"eval_{name}": float(value) for name, value in evaluate(stop, state).items()}


def _record(
    folder: RunFolder, bar: tqdm, step: int, seconds: float, numbers: Mapping[str, float]
) -> None:
    folder.append({"step": step, "seconds": seconds, **numbers})
    bar.set_postfix(numbers, refresh=False)
    bar.update(step - bar.n)
