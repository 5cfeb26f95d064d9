"""A description as text: the most important connections first."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.explain.describe import Description
from sparse_hyper_jax.explain.known import check_known


def write_description(
    description: Description, *, axes: Sequence[str] | None = None, most: int = 20
) -> str:
    """Write a Markdown table of connections, one row each, from the most important down.

    Runs on the host: the numbers have to be known.

    Args:
        description: of ``k`` connections of rank ``r``.
        axes: names of the ``r`` axes of the index space, for instance ``("output", "input")`` or
            ``("lag",)``. None numbers them.
        most: number of rows at most; a last line says how many are left out.

    Returns:
        the table.

    Raises:
        ValueError: another number of names than axes, names that are no text, or a description
            that is traced or whose parts do not fit one another.

    Example:
        >>> from sparse_hyper_jax import explain, ops
        >>> taps = ops.Taps(jnp.array([[5], [2]]), jnp.array([True, True]))
        >>> found = explain.describe_taps(taps, jnp.array([1.0, -3.0]))
        >>> print(explain.write_description(found, axes=("lag",)))
        | lag | deviation | value | importance | |
        |---|---|---|---|---|
        | 2 | 0 | 3 | 3 |  |
        | 5 | 0 | 1 | 1 |  |
    """
    check_instance("description", description, Description)
    check_known("description", description)
    most = checks.check_count("most", most, least=1)
    found = _enter(description)
    count, rank = found.positions.shape
    listed = isinstance(axes, Sequence) and not isinstance(axes, str)
    names = (
        [f"axis {axis}" for axis in range(rank)] if axes is None else list(axes if listed else ())
    )
    checks.require(
        len(names) == rank and all(isinstance(name, str) for name in names),
        f"axes={axes!r} for positions of rank {rank}",
        "a name for every axis",
        "pass as many names as the index space has axes",
    )
    heads = [*names, "deviation", "value", "importance", ""]
    rows = [heads, *(_row(found, one) for one in found.order[:most])]
    written = [
        f"| {' | '.join(row)} |".replace("|  |", "| |")
        if row is heads
        else f"| {' | '.join(row)} |"
        for row in rows
    ]
    written.insert(1, "|---" * len(heads) + "|")
    if count > most:
        written.append(f"\n{count - most} more, of importance at most {_least(found, most):.3g}")
    return "\n".join(written)


def _enter(description: Description) -> Any:
    """Return a description of NumPy's arrays, of which each has a row for every connection."""
    fields = [as_array(*pair) for pair in description._asdict().items()]
    shapes = [field.shape for field in fields]
    count = shapes[0][:1]
    checks.require(
        [len(shape) for shape in shapes] == [2, 2, 1, 1, 1, 1, 1]
        and shapes[0] == shapes[1]
        and all(shape[:1] == count for shape in shapes),
        f"a description of shapes {shapes}",
        "positions and deviations (k, r), all else (k,)",
        "pass what describe_tuples, describe_taps or describe_edges gives",
    )
    known: Any = map(np.asarray, fields)
    return Description(*known)


def _row(found: Any, one: int) -> list[str]:
    """Write one connection."""
    notes = [] if found.settled[one] else ["not settled"]
    notes += ["on the cell of another"] if found.duplicate[one] else []
    numbers = (found.deviations[one].max(initial=0), found.values[one], found.importance[one])
    return [
        *map(str, found.positions[one]),
        *(f"{number:.3g}" for number in numbers),
        ", ".join(notes),
    ]


def _least(found: Any, most: int) -> float:
    """Give the largest importance of what is left out."""
    return float(found.importance[found.order[most]])
