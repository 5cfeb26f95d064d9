"""A function whose gradient keeps to a budget of bytes."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from sparse_hyper_jax.checks import check_choice, check_count, check_flag, require
from sparse_hyper_jax.entrance import check_function
from sparse_hyper_jax.remat.barriers import GUARDS, Barrier
from sparse_hyper_jax.remat.choice import Choice, Options, choose
from sparse_hyper_jax.remat.families import FAMILIES
from sparse_hyper_jax.remat.plan import Plan
from sparse_hyper_jax.remat.report import report_of
from sparse_hyper_jax.remat.traced import Function, Traced, traced

Objective = Literal["time", "memory"]
OBJECTIVES = get_args(Objective)


class Budgeted:
    """A function with a plan for every signature; :func:`budgeted_checkpoint` makes it.

    Attributes:
        options: as they were given.

    Example:
        >>> from sparse_hyper_jax import remat
        >>> lean = remat.budgeted_checkpoint(lambda x: jnp.sum(jnp.sin(x)), 1.0, measure=False)
        >>> lean.plan(jnp.ones(8)).overhead, jax.grad(lean)(jnp.zeros(2)).tolist()
        (0.0, [1.0, 1.0])
    """

    def __init__(self, fn: Function, options: Options) -> None:
        functools.update_wrapper(self, fn, updated=())
        self.options = options
        self._fn = fn
        self._choices: dict[Any, Choice] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the function; its derivatives keep to the plan."""
        whole = traced(self._fn, args, kwargs)
        constants = list(whole.program.constants.values())
        planned = whole.cut(self._choice(whole).plan.chain, self.options.barrier, constants)
        args, kwargs = whole.tree.unflatten(whole.leaves)
        return planned(*args, **kwargs)

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """Give the plan for arguments, or for their shapes and dtypes."""
        return self._choice(traced(self._fn, args, kwargs)).plan

    def report(self, *args: Any, **kwargs: Any) -> None:
        """Print what was tried for arguments, and draw the memory over the schedule."""
        whole = traced(self._fn, args, kwargs)
        print(report_of(whole, self._choice(whole), self.options))

    def _choice(self, whole: Traced) -> Choice:
        """Look the choice up, or make it.

        The function is traced in every call, because what it closes over may have changed; a plan
        is for a graph and shapes.
        """
        program = whole.program
        types = tuple(str(program.types[number]) for number in program.inputs)
        signature = (whole.nodes.graph, types, whole.tree, program.alone)
        if signature not in self._choices:
            self._choices[signature] = choose(whole, self.options)
        return self._choices[signature]


def budgeted_checkpoint(
    fn: Function,
    budget: float,
    *,
    objective: Literal["time", "memory"] = "time",
    measure: bool = True,
    points: int = 6,
    family: Literal["thin", "closures", "all"] = "thin",
    barrier: Barrier = "checkpoint",
    of: Callable[[Function], Function] | None = None,
) -> Budgeted:
    """Give a function the gradient of which keeps to a budget of memory.

    ``jax.grad`` of the result computes parts of the function a second time where that is needed to
    keep to the budget, and nowhere else. Plans from :func:`plan` are compiled one after the other,
    plain backpropagation first, and the first that fits is taken: never more memory than without.
    That happens in the first call, or the first trace, of each signature, and computes nothing.

    Args:
        fn: any function of pytrees of arrays that JAX can trace, without effects. Random keys are
            arguments like others: the same numbers are drawn again.
        budget: an int, bytes of temporaries of the compiled gradient; or a float in (0, 1], a share
            of what plain backpropagation takes. Arguments, results and an optimizer's state come
            on top.
        objective: ``"time"``, the first plan that fits; ``"memory"``, of all that are tried the
            first within a hundredth of the fewest bytes.
        measure: compile to choose. If false, or if the function names axes of a mesh or of a map
            (inside ``jax.shard_map``), bytes are estimated by following the equations of the
            gradient: too high by up to a sixth, more for what a compiler fuses.
        points: largest number of plans that are tried, plain among them.
        family: see :func:`plan`.
        barrier: what keeps a compiler from computing only once. ``"checkpoint"`` is that of
            ``jax.checkpoint``; a CPU before JAX 0.11.1 takes it away unless
            ``XLA_FLAGS=--xla_disable_hlo_passes=cse_barrier_expander`` is set before JAX is
            imported. ``"cond"`` needs no flag, but has no forward mode and does nothing under
            ``jax.vmap``.
        of: makes the gradient that is measured from a function, and is called with the arguments of
            ``fn``: for instance ``lambda fn: jax.grad(fn, argnums=(0, 1))``. By default
            ``jax.grad`` for a scalar loss whose first argument holds floats only, and otherwise all
            results pulled back to all float arguments.

    Returns:
        ``fn`` with that gradient, for ``jax.jit`` and all transformations. Under ``jax.vmap`` the
        plan is for one instance, and the budget too. ``.plan(*args)`` gives the plan,
        ``.report(*args)`` prints what was tried and draws the memory.

    Raises:
        ValueError: an unknown option; where it is called, effects, arguments that are no arrays, or
            a budget that no plan keeps to, with the least possible.

    Reference: Kusumoto, Inoue, Watanabe, Akiba and Koyama 2019, arXiv 1905.11722.

    Example:
        >>> from sparse_hyper_jax import remat
        >>> def loss(weights, x):
        ...     for kernel in weights:
        ...         x = jnp.sin(x @ kernel)
        ...     return jnp.sum(x)
        >>> lean = remat.budgeted_checkpoint(loss, 1.0)
        >>> weights, x = [jnp.eye(8)] * 4, jnp.ones((2, 8))
        >>> jax.grad(lean)(weights, x)[0].shape, len(lean.plan(weights, x).chain)
        ((8, 8), 1)
    """
    check_function("fn", fn)
    if of is not None:
        check_function("of", of, "a function or None")
    check_choice("objective", objective, OBJECTIVES)
    check_choice("family", family, FAMILIES)
    check_choice("barrier", barrier, tuple(GUARDS))
    options = Options(
        budget=_checked(budget),
        objective=objective,
        measure=check_flag("measure", measure),
        points=check_count("points", points, least=2),
        family=family,
        barrier=barrier,
        of=of,
    )
    return Budgeted(fn, options)


def _checked(budget: Any) -> float:
    """Return an int of bytes, or a float as a share."""
    if isinstance(budget, float | np.floating):
        share = float(budget)
        require(
            math.isfinite(share) and 0 < share <= 1,
            f"budget={budget!r}",
            "a share above 0 and up to 1, or an int of bytes",
            "write bytes as an int",
        )
        return share
    return check_count("budget", budget, least=1)
