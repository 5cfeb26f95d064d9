"""When masks change, and how much of the pruning has been done by then."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, as_int32


class Schedule(NamedTuple):
    """Two functions of the number of finished steps, which may be traced.

    Example:
        >>> from sparse_hyper_jax.pruning import Schedule, one_shot
        >>> schedule = one_shot(10)._replace(due=lambda steps: (steps == 10) | (steps == 20))
        >>> [steps for steps in range(30) if schedule.due(steps)]
        [10, 20]
    """

    due: Callable[[jax.Array], jax.Array]
    """Are the masks made anew after this step? bool."""

    share: Callable[[jax.Array], jax.Array]
    """How much of the final sparsity is asked for, from 0 to 1."""


def one_shot(step: int) -> Schedule:
    """Prune once, after ``step`` steps; 0: before the first.

    Example:
        >>> from sparse_hyper_jax.pruning import one_shot
        >>> schedule = one_shot(3)
        >>> [bool(schedule.due(steps)) for steps in range(5)], schedule.share(3).item()
        ([False, False, False, True, False], 1.0)
    """
    step = _step("step", step)
    return Schedule(lambda steps: steps == step, lambda steps: _reached(steps, step))


def periodic(every: int, *, begin: int = 0, end: int | None = None) -> Schedule:
    """Prune to the full sparsity after every so many steps.

    Args:
        every: steps between changes of the masks.
        begin: the first change is after this many steps; 0: masks also before the first step.
        end: no change after this many steps; None: never the last.

    Raises:
        ValueError: the end comes before the beginning.

    Example:
        >>> from sparse_hyper_jax.pruning import periodic
        >>> schedule = periodic(10, begin=20, end=50)
        >>> [steps for steps in range(100) if schedule.due(steps)]
        [20, 30, 40, 50]
    """
    due = _every(every, begin, end)
    return Schedule(due, lambda steps: _reached(steps, int(begin)))


def gradual(begin: int, end: int, *, every: int = 100, power: float = 3.0) -> Schedule:
    """Prune little by little, fast at first: ``1 - (1 - u)^power`` of the final sparsity.

    u rises from 0 at ``begin`` to 1 at ``end``. The masks also change at ``end``, whether or not it
    is a whole number of periods after ``begin``.

    Args:
        begin: first step.
        end: step of the full sparsity.
        every: steps between changes of the masks.
        power: more than 0; 3 in the paper.

    Raises:
        ValueError: the end is not after the beginning, or a number is out of range.

    Reference: Zhu and Gupta 2017, arXiv 1710.01878.

    Example:
        >>> from sparse_hyper_jax.pruning import gradual
        >>> schedule = gradual(0, 400, every=100)
        >>> [(steps, schedule.share(steps).item()) for steps in range(1000) if schedule.due(steps)]
        [(0, 0.0), (100, 0.578125), (200, 0.875), (300, 0.984375), (400, 1.0)]
    """
    begin, end = _step("begin", begin), _step("end", end)
    inside = _every(every, begin, end)
    checks.require(end > begin, f"begin={begin}, end={end}", "an end after it", "change them")
    checks.check_number("power", power, above=0)
    rising = optax.polynomial_schedule(0.0, 1.0, power, end - begin, begin)

    def share(steps: jax.Array) -> jax.Array:
        steps = as_array("steps", steps)
        if not jnp.issubdtype(steps.dtype, jnp.floating) and steps.dtype.itemsize < 8:
            steps = as_int32("steps", steps)
        # Clipped before anything is subtracted: integers wrap.
        return jnp.asarray(rising(jnp.clip(steps, begin, end)))

    return Schedule(lambda steps: inside(steps) | (steps == end), share)


def _every(every: int, begin: int, end: int | None) -> Callable[[jax.Array], jax.Array]:
    every = _step("every", every, least=1)
    begin = _step("begin", begin)
    end = None if end is None else _step("end", end)
    checks.require(
        end is None or end >= begin,
        f"begin={begin}, end={end}: masks would never change",
        "an end after the beginning",
        "change them",
    )

    def due(steps: jax.Array) -> jax.Array:
        last = True if end is None else steps <= end
        return (steps >= begin) & last & ((steps - begin) % every == 0)

    return due


def _step(name: str, step: int, least: int = 0) -> int:
    """Return a number of steps that counts of them, which are 32 bits wide or 64, can reach."""
    most = jnp.iinfo(jax.dtypes.canonicalize_dtype(int)).max
    return checks.check_count(name, step, least, most=int(most))


def _reached(steps: jax.Array, step: int) -> jax.Array:
    return jnp.where(steps >= step, 1.0, 0.0)
