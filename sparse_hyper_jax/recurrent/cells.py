"""What a recurrent cell is here, and what every function of this room checks of one.

A cell is any function ``cell(params, h, x) -> h``: ``params`` any pytree, the state ``h`` any
pytree of floats that comes out as it went in, ``x`` whatever one step reads. Of an LSTM the state
is ``(c, h)``: the hidden state alone would understate how far back it remembers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import as_array, check_function

Cell = Callable[[Any, Any, Any], Any]
"""``cell(params, h, x) -> h``: one step of a recurrent net."""

SIGNATURE = "a function (params, h, x) -> h"


def as_state(h: Any) -> Any:
    """Return a state as arrays of floats.

    Raises:
        ValueError: no array at all, or a leaf that holds no floats.
    """
    require(
        bool(jax.tree.leaves(h)), f"a state {h!r:.80}", "at least one array of floats", "change it"
    )
    return jax.tree.map(lambda leaf: as_array("an array of the state", leaf, "floats"), h)


def as_params(params: Any) -> Any:
    """Return parameters as arrays of floats.

    Raises:
        ValueError: no array at all, or a leaf that holds no floats.
    """
    require(
        bool(jax.tree.leaves(params)),
        f"params={params!r:.80}",
        "at least one array of floats, whose gradient is asked for",
        "pass what the cell learns as params",
    )
    return jax.tree.map(lambda leaf: as_array("a parameter", leaf, "floats"), params)


def as_sequence(xs: Any) -> tuple[Any, int]:
    """Return the inputs of all steps as arrays, and how many steps there are.

    Raises:
        ValueError: no array, or arrays whose first axes differ.
    """
    xs = jax.tree.map(_as_leaf, xs)
    shapes = [leaf.shape for leaf in jax.tree.leaves(xs)]
    lengths = {shape[0] if shape else None for shape in shapes}
    require(
        len(lengths) == 1 and None not in lengths and lengths != {0},
        f"inputs of shapes {shapes}",
        "arrays whose first axis is time, of one length of at least 1",
        "stack what the steps read along a first axis",
    )
    return xs, shapes[0][0]


def _as_leaf(leaf: Any) -> jax.Array:
    # Random keys, which a cell with dropout reads, are arrays but no numbers.
    return leaf if isinstance(leaf, jax.Array) else as_array("inputs", leaf, "numbers")


def as_unrolled(cell: Cell, params: Any, h: Any, xs: Any) -> tuple[Any, Any, int]:
    """Return state and inputs as arrays after checking that the cell takes and keeps them.

    Raises:
        ValueError: see :func:`as_state`, :func:`as_sequence` and :func:`check_cell`.
    """
    h = as_state(h)
    xs, length = as_sequence(xs)
    check_cell(cell, params, h, jax.tree.map(lambda leaf: leaf[0], xs))
    return h, xs, length


def check_cell(cell: Cell, params: Any, h: Any, x: Any) -> None:
    """Raise unless a cell returns a state like the one it was given.

    Raises:
        ValueError: it is no function, its inputs or its results are no arrays, or the state changes
            its structure, a shape or a dtype.
    """
    check_function("cell", cell, SIGNATURE)
    x = jax.tree.map(_as_leaf, x)
    # Parameters as they are: a scan closes over them too, so they may hold options beside arrays.
    given, made = (
        jax.eval_shape(lambda: h),
        outline("a cell", lambda h, x: cell(params, h, x), h, x),
    )
    same = jax.tree.structure(given) == jax.tree.structure(made) and all(
        (one.shape, one.dtype) == (two.shape, two.dtype)
        for one, two in zip(jax.tree.leaves(given), jax.tree.leaves(made), strict=True)
    )
    require(
        same,
        f"a cell that makes the state {described(made)} of {described(given)}",
        "the same structure, shapes and dtypes",
        "return the next state alone, and cast it to the dtype of the state",
    )


def outline(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Give the shapes and dtypes of what a function makes of arrays.

    Raises:
        ValueError: a result that is no array.
    """

    def run(*args: Any) -> Any:
        made = function(*args)
        for leaf in jax.tree.leaves(made):
            require(
                isinstance(leaf, jax.Array | np.ndarray)
                or (np.isscalar(leaf) and not isinstance(leaf, str | bytes)),
                f"{name} that returns {leaf!r:.80}",
                "arrays",
                "return what the next step reads",
            )
        return made

    return jax.eval_shape(run, *args)


def described(tree: Any) -> str:
    """Write a tree with its dtypes and shapes in place of its arrays."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))


def check_scalar(loss: jax.Array) -> jax.Array:
    """Return what a loss gave after checking that it is one float.

    Raises:
        ValueError: an array of another shape, or of integers.
    """
    loss = as_array("the loss", loss, "floats")
    require(
        loss.shape == (), f"a loss of shape {loss.shape}", "one number", "take its mean over rows"
    )
    return loss


def flattened(tree: Any, dtype: Any) -> jax.Array:
    """Write all arrays of a tree behind each other, in one dtype."""
    return jnp.concatenate([leaf.astype(dtype).reshape(-1) for leaf in jax.tree.leaves(tree)])


def unflattened(flat: jax.Array, like: Any) -> Any:
    """Undo :func:`flattened`, with the shapes and dtypes of another tree."""
    leaves, structure = jax.tree.flatten(like)
    made, start = [], 0
    for leaf in leaves:
        made.append(flat[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return jax.tree.unflatten(structure, made)
