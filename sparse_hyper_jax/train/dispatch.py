"""Many training steps in one compiled program, and what is checked of their results."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.checkpoint import Checkpoints

Step = Callable[..., tuple[Any, Mapping[str, Any]]]
"""Pure function ``step(state, key, *constants) -> (state, metrics)``."""

RESERVED = {"step", "seconds", "run"}
"""Names in the file of metrics that are not for the metrics of a step."""


@lru_cache(maxsize=4)  # so that runs which share a step, task after task, compile it once
def dispatcher(
    step: Step, structure: Any, shardings: tuple[Any, ...]
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """Compile ``dispatch(state, key, start, constants, *, length) -> (state, stacked metrics)``.

    Args:
        step: one training step.
        structure: tree definition of the state.
        shardings: of the state's leaves.
    """
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
    shapes = (
        {name: jnp.shape(value) for name, value in metrics.items()}
        if isinstance(metrics, Mapping)
        else {}
    )
    require(
        isinstance(metrics, Mapping)
        and not any(shapes.values())
        and not RESERVED.intersection(metrics),
        f"metrics {shapes or type(metrics).__name__}",
        f"a dict of scalars, with names other than {', '.join(sorted(RESERVED))}",
        "return (state, {name: scalar}) from the step",
    )


def means_of(
    stacked: Mapping[str, jax.Array], start: int, checkpoints: Checkpoints
) -> dict[str, float]:
    """Give the means of the metrics of a dispatch that began at a step.

    Raises:
        FloatingPointError: one of them is not finite.
    """
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


def check_state(state: Any, stop: int, checkpoints: Checkpoints) -> None:
    """Raise if a state is undefined.

    Raises:
        FloatingPointError: a leaf holds NaN.
    """
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
