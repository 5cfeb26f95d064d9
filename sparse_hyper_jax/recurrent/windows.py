"""Truncated backpropagation window by window: which steps a window runs, and what it hands on."""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.recurrent.cells import Cell, as_sequence, as_state, check_cell

Form = Literal["buffer", "disjoint"]
FORMS = get_args(Form)


class Windows(NamedTuple):
    """The n windows of a sequence, all of one length L: the rows of a scan.

    Attributes:
        steps: ``(n, L)`` int32, the steps that a window runs; -1 is padding, before the first and
            behind the last.
        losses: ``(n, L)`` bool, whose losses count; every step of the sequence counts once.
        carry: place in a window after which its state is the one the next window begins with.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> windows = recurrent.tbptt_windows(4, 2, form="disjoint")
        >>> windows.steps.tolist(), windows.carry
        ([[0, 1], [2, 3]], 1)
    """

    steps: np.ndarray
    losses: np.ndarray
    carry: int


def tbptt_windows(length: int, lag: int, *, form: Form = "buffer") -> Windows:
    """Cut a sequence into the windows of truncated backpropagation.

    "buffer": 2K - 1 steps, the losses of the last K, which then all reach K or more steps back; the
    state goes on from the first K. "disjoint": K steps and their losses, which reach 1 to K steps
    back at half of the cost; see :func:`tbptt_scan` for the same in one scan::

        K = 3, T = 8       buffer   -1 -1 [0  1  2]        disjoint   [0  1  2]
        [..]: losses                 1  2 [3  4  5]                   [3  4  5]
                                     4  5 [6  7 -1]                   [6  7 -1]

    Args:
        length: T, steps of the sequence.
        lag: K; from T on there is one window of T steps, without padding.
        form: "buffer" or "disjoint".

    Returns:
        :class:`Windows`, of NumPy arrays.

    Raises:
        ValueError: a count below 1, another form.

    Reference: Aicher, Foti, Fox 2019, arXiv 1905.07473 (the buffer form).

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> recurrent.tbptt_windows(5, 2).steps.tolist()
        [[-1, 0, 1], [1, 2, 3], [3, 4, -1]]
    """
    length = checks.check_count("length", length, least=1, most=2**31 - 1)
    lag = min(checks.check_count("lag", lag, least=1), length)
    checks.check_choice("form", form, FORMS)
    first = lag * np.arange(-(-length // lag))[:, None]
    before = lag - 1 if form == "buffer" and len(first) > 1 else 0
    steps = first - before + np.arange(before + lag)
    losses = (steps >= first) & (steps < length)
    inside = (steps >= 0) & (steps < length)
    return Windows(np.where(inside, steps, -1).astype(np.int32), losses, lag - 1)


def window_scan(
    cell: Cell, params: Any, h: Any, xs: Any, steps: Any, *, carry: int
) -> tuple[Any, Any]:
    """Run one window from a state that gets no gradient.

    Padding leaves the state as it is. With the windows of :func:`tbptt_windows` as the rows of a
    ``jax.lax.scan``, and the same parameters throughout, the states are those of one run through
    the whole sequence.

    Args:
        cell: ``(params, h, x) -> h``.
        params: any pytree.
        h: state to begin with, a pytree of floats.
        xs: pytree of ``(T, ...)``, of the whole sequence.
        steps: ``(L,)`` integers, a row of ``Windows.steps``; a number outside marks padding.
        carry: ``Windows.carry``.

    Returns:
        the states of all places, a pytree of ``(L, ...)``, and the state to go on with, without
        a gradient.

    Raises:
        ValueError: the cell changes what kind of state it is, no steps, a ``carry`` outside.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> count = lambda params, h, x: h + x
        >>> states, h = recurrent.window_scan(
        ...     count, None, 0.0, jnp.ones(5), jnp.array([-1, 0, 1]), carry=1
        ... )
        >>> states.tolist(), float(h)
        ([0.0, 1.0, 2.0], 1.0)
    """
    h, (xs, length) = as_state(h), as_sequence(xs)
    check_cell(cell, params, h, jax.tree.map(lambda leaf: leaf[0], xs))
    steps = as_array("steps", steps, "integers")
    checks.check_shape("steps", steps, (None,), "the steps of one window")
    if steps.dtype.itemsize < 4:  # too narrow to be compared with a length
        steps = steps.astype(jnp.int32)
    carry = checks.check_count("carry", carry, most=steps.shape[0] - 1)
    inside = (steps >= 0) & (steps < length)
    # Padding computes the first step of the window once more: the slope of what it computes is 0
    # times a number, and would be NaN where another step, or another state, has no slope.
    some = jnp.clip(steps[jnp.argmax(inside)], 0, length - 1)
    places = jnp.where(inside, steps, some)
    start = jax.lax.stop_gradient(h)

    def step(h: Any, inputs: tuple[Any, jax.Array]) -> tuple[Any, Any]:
        x, runs = inputs

        def choose(one: Any, other: Any) -> Any:
            return jax.tree.map(partial(jnp.where, runs), one, other)

        h = choose(cell(params, choose(h, start), x), h)
        return h, h

    read = jax.tree.map(lambda leaf: leaf[places], xs)
    _, states = jax.lax.scan(step, start, (read, inside))
    carried = jax.tree.map(lambda leaf: leaf[carry], states)
    return states, jax.lax.stop_gradient(carried)
