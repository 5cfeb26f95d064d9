"""What a room says of itself: its rows, and the names that have none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np


@dataclass(frozen=True, eq=False)
class Row:
    """A public function with example arguments, to which every column is applied.

    Attributes:
        name: the public names that it tries, then what is special about it, between commas:
            ``"relax, in chunks"``. Parts that no room exports are words for the reader.
        function: arrays, in the order of ``arguments``, to a pytree of arrays. It hands them on as
            they come (the column ``lists`` passes lists), and holds all else that is needed:
            sizes, options, a layer or an optimizer whose parameters are among the arguments.
        arguments: numpy arrays, small. Floats are float32 and multiples of 1/8 below 16, so that
            16 bits hold them exactly, away from points where the function jumps or has no
            derivative. Integers are int32 and get no gradient.
        keyed: the function takes a random key before the arguments.
        folds: it derives keys by ``jax.random.fold_in``, which leaves the key usable.
        redraws: random numbers are drawn in the precision of the arguments, so that double
            precision draws others: there types and slopes are tried, not the numbers.
        wide: float outputs are float32 also for 16-bit arguments; if false they have the dtype of
            the last float argument.
        exact: automatic derivatives are those of the values, up to second order; false where a
            gradient is stopped by design, or estimated; None where no output is a float, or the row
            is a step of training, which takes gradients itself.
        shared: numbers of the arguments that all instances of a batch share, where the function
            takes a batch itself: the others have a leading axis of ``BATCH``. None where batches
            come by ``jax.vmap``.
        outside: for an argument of indices, by its number, the lengths of what it points into.
        dropped: for a float argument, by its number, why a NaN in its first entry does not come
            out; a string speaks for all arguments.
        skips: columns that mean nothing for the row, each with the reason.
    """

    name: str
    function: Callable[..., object]
    arguments: tuple[np.ndarray, ...]
    keyed: bool = False
    folds: bool = False
    redraws: bool = False
    wide: bool = True
    exact: bool | None = True
    shared: tuple[int, ...] | None = None
    outside: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    dropped: Mapping[int, str] | str = field(default_factory=dict)
    skips: Mapping[str, str] = field(default_factory=dict)

    @property
    def floats(self) -> tuple[int, ...]:
        """Numbers of the float arguments."""
        return tuple(n for n, leaf in enumerate(self.arguments) if leaf.dtype.kind == "f")

    @property
    def integers(self) -> tuple[int, ...]:
        """Numbers of the other arguments."""
        return tuple(n for n, leaf in enumerate(self.arguments) if leaf.dtype.kind != "f")

    @property
    def whole(self) -> tuple[int, ...]:
        """Numbers of the integer arguments that are no flags and not empty."""
        return tuple(
            n
            for n in self.integers
            if self.arguments[n].dtype.kind in "iu" and self.arguments[n].size
        )

    def why_dropped(self, number: int) -> str | None:
        """Why a NaN in this argument does not come out, if it does not."""
        return self.dropped if isinstance(self.dropped, str) else self.dropped.get(number)


@dataclass(frozen=True, eq=False)
class Room:
    """The rows of a module, and why its other public names have none.

    Attributes:
        module: with an ``__all__``.
        rows: at least one for every name that is not among the exceptions.
        exceptions: public names without a row, each with the reason.
        marks: rows that fail a column today, by the kind of fault and the column:
            ``{"K7": {"lists": ["extract"]}}``. The test of a marked row fails when it passes, so
            that no mark outlives its fault.
    """

    module: ModuleType
    rows: list[Row]
    exceptions: Mapping[str, str]
    marks: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    @property
    def public(self) -> set[str]:
        """What the module exports, or defines where it has no list of that."""
        if hasattr(self.module, "__all__"):
            return set(self.module.__all__)
        own = self.module.__name__
        return {
            name
            for name, value in vars(self.module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == own
        }

    def names(self, row: Row) -> set[str]:
        """The public names that a row tries."""
        return set(row.name.split(", ")) & self.public

    def kind_of_fault(self, row: Row, column: str) -> str | None:
        """The kind of fault for which a row is marked, if it is."""
        kinds = (kind for kind, marked in self.marks.items() if row.name in marked.get(column, ()))
        return next(kinds, None)
