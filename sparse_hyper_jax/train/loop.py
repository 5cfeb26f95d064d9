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

import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from sparse_hyper_jax.checks import check_count, require
from sparse_hyper_jax.dist.processes import first_says, is_first
from sparse_hyper_jax.train.checkpoint import Checkpoints, own_arrays
from sparse_hyper_jax.train.run_folder import RunFolder

Step = Callable[..., tuple[Any, Mapping[str, Any]]]
"""Pure function ``step(state, key, *constants) -> (state, metrics)``."""

Evaluate = Callable[[int, Any], Mapping[str, float]]
"""Function on the host, ``evaluate(step, state) -> results``."""


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
        resume: start from the newest checkpoint in ``folder``, or from ``state`` if there is none.
        quiet: show no progress bar.
        description: what to write before the progress bar.

    Returns:
        The final state, the seconds, the steps.

    Raises:
        ValueError: an option does not fit, or the checkpoints belong to another run.
        FloatingPointError: a metric is not finite, or the state undefined; the checkpoints stay.
    """
    _check_options(steps, steps_per_dispatch, evaluate_every if evaluate else None)
    run = {"steps": steps, "seed": seed, "steps_per_dispatch": steps_per_dispatch}
    with Checkpoints(folder.checkpoints) as checkpoints:
        first, state, seconds = _start(checkpoints, own_arrays(state), run, resume=resume)
        folder.cut_metrics(first or -1)
        saved = time.monotonic()
        began = saved - seconds
        leaves, structure = jax.tree.flatten(state)
        dispatch = _dispatcher(step, structure, tuple(leaf.sharding for leaf in leaves))
        quiet = quiet or not is_first()
        key = jax.random.key(seed)
        with tqdm(
            total=steps, initial=first, desc=description, disable=quiet, mininterval=0.5
        ) as bar:
            if evaluate and not first:
                _record(folder, bar, 0, 0.0, _results(evaluate, 0, state))
            for start, stop in boundaries(first, steps, steps_per_dispatch):
                state, stacked = dispatch(
                    state, key, jnp.uint32(start), constants, length=stop - start
                )
                metrics = _means(stacked, start, checkpoints)
                due = evaluate and (stop % evaluate_every == 0 or stop == steps)
                metrics |= _results(evaluate, stop, state) if due else {}
                _record(folder, bar, stop, time.monotonic() - began, metrics)
                if stop == steps or first_says(time.monotonic() - saved >= checkpoint_seconds):
                    _check_state(state, stop, checkpoints)
                    seconds = time.monotonic() - began
                    checkpoints.save(stop, state, run | {"seconds": seconds})
                    saved = time.monotonic()
    return Trained(state, seconds, steps)


def boundaries(first: int, steps: int, steps_per_dispatch: int) -> Iterator[tuple[int, int]]:
    """Yield the first step of every dispatch and the one after its last.

    Args:
        first: a boundary: 0, a multiple of ``steps_per_dispatch`` or ``steps``.
        steps: number of steps of the whole run.
        steps_per_dispatch: number of steps in every dispatch but the last.
    """
    for start in range(first, steps, steps_per_dispatch):
        yield start, min(start + steps_per_dispatch, steps)


def _check_options(steps: int, steps_per_dispatch: int, evaluate_every: int | None) -> None:
    check_count("steps", steps, 1)
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


def _start(
    checkpoints: Checkpoints, state: Any, run: Mapping[str, int], *, resume: bool
) -> tuple[int, Any, float]:
    require(
        resume or not checkpoints.steps(),
        f"checkpoints in {checkpoints.path}",
        "none at the start of a new run",
        "pass resume=True to go on with that run, or another folder",
    )
    restored = checkpoints.restore(state) if resume else None
    if restored is None:
        return 0, state, 0.0
    differing = [
        f"{name}={restored.about.get(name)} (now {now})"
        for name, now in run.items()
        if restored.about.get(name) != now
    ]
    require(
        not differing,
        f"a checkpoint of a run with {', '.join(differing)}",
        "the same numbers, on which every step depends",
        "resume with those, or start a new run in another folder",
    )
    return restored.step, restored.state, restored.about["seconds"]


@lru_cache(maxsize=4)  # so that runs which share a step, task after task, compile it once
def _dispatcher(
    step: Step, structure: Any, shardings: tuple[Any, ...]
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    # A state that is spread over devices comes out as it went in, so that an uninterrupted run and
    # one restored from a checkpoint feed the same placement into the same compiled program.
    spread = [one if len(one.device_set) > 1 else None for one in shardings]
    placed = jax.tree.unflatten(structure, spread)
    # Metrics are whole on every device, for every process to read.
    meshes = [one.mesh for one in spread if isinstance(one, NamedSharding)]
    whole = NamedSharding(meshes[0], PartitionSpec()) if meshes else None

    @partial(
        jax.jit, static_argnames="length", donate_argnames="state", out_shardings=(placed, whole)
    )
    def dispatch(
        state: Any, key: jax.Array, start: jax.Array, constants: tuple[Any, ...], *, length: int
    ) -> tuple[Any, dict[str, jax.Array]]:
        def body(state: Any, index: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
            state, metrics = step(state, jax.random.fold_in(key, index), *constants)
            _check_metrics(metrics)
            return state, dict(metrics)

        return jax.lax.scan(body, state, start + jnp.arange(length, dtype=start.dtype))

    return dispatch


def _check_metrics(metrics: Any) -> None:
    reserved = {"step", "seconds"}
    shapes = (
        {name: jnp.shape(value) for name, value in metrics.items()}
        if isinstance(metrics, Mapping)
        else {}
    )
    require(
        isinstance(metrics, Mapping)
        and not any(shapes.values())
        and not reserved.intersection(metrics),
        f"metrics {shapes or type(metrics).__name__}",
        "a dict of scalars, with names other than 'step' and 'seconds'",
        "return (state, {name: scalar}) from the step",
    )


def _means(
    stacked: Mapping[str, jax.Array], start: int, checkpoints: Checkpoints
) -> dict[str, float]:
    host = {name: np.asarray(values, np.float64) for name, values in stacked.items()}
    finite = {name: np.isfinite(values) for name, values in host.items()}
    bad = [(int(np.argmin(ok)), name) for name, ok in finite.items() if not ok.all()]
    if bad:
        index, name = min(bad)
        _stop(f"{name}={host[name][index]} in step {start + index}", checkpoints)
    return {name: float(values.mean()) for name, values in host.items()}


@jax.jit
def _undefined(state: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.isnan(leaf).any(), state)


def _check_state(state: Any, stop: int, checkpoints: Checkpoints) -> None:
    # The last step may have spoilt the state after it had computed its metrics. Infinities stay
    # allowed: "the lowest loss so far" starts as one.
    for path, undefined in jax.tree_util.tree_leaves_with_path(_undefined(state)):
        if undefined:
            _stop(f"nan in state{jax.tree_util.keystr(path)} after step {stop - 1}", checkpoints)


def _stop(found: str, checkpoints: Checkpoints) -> None:
    steps = checkpoints.steps()
    last = f"the checkpoint after {steps[-1]} steps stays" if steps else "no checkpoint was written"
    raise FloatingPointError(
        f"found {found} (counted from 0); expected finite numbers;"
        f" lower the learning rate or clip the gradient ({last} in {checkpoints.path})"
    )


def _results(evaluate: Evaluate, stop: int, state: Any) -> dict[str, float]:
    return {f"eval_{name}": float(value) for name, value in evaluate(stop, state).items()}


def _record(
    folder: RunFolder, bar: tqdm, step: int, seconds: float, numbers: Mapping[str, float]
) -> None:
    folder.append({"step": step, "seconds": seconds, **numbers})
    bar.set_postfix(numbers, refresh=False)
    bar.update(step - bar.n)
