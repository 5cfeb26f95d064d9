"""Find which lags of a series matter, by pursuit, and say how far to believe them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import optax

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.lag_tasks import (
    LagTask,
    canvas_task,
    read_columns,
    series_task,
    table_task,
)
from sparse_hyper_jax.train.limits import (
    Count,
    Counts,
    NotNegative,
    Positive,
    Whole,
    at_least,
    below,
    said,
)
from sparse_hyper_jax.train.models.lag_perceptron import LagModel, Probing
from sparse_hyper_jax.train.models.lag_study import LagStudy
from sparse_hyper_jax.train.recipe import Plan, Recipe

BEGIN, END = 0.03, 0.4
"""Shares of training between which taps are placed."""


class Data(NamedTuple):
    """A task, and the numbers that its size decides."""

    task: LagTask
    reach: int
    length: int
    window: int


@dataclass(frozen=True, kw_only=True)
class LagsRecipe(Recipe):
    """Find which lags of a series matter: one layer that reads at few lags, placed by pursuit."""

    name: ClassVar[str] = "lags"

    task: Literal["series", "canvas", "csv"] = "series"
    """A generated system with hidden lags; canvases of hidden width, read row by row; or columns
    of your own file."""

    method: Literal["pursuit", "known", "random", "recent", "given"] = "pursuit"
    """How lags are chosen: where the gain is largest; the true ones of a generated task; at random;
    the newest; or as --given."""

    data_file: Path | None = None
    """Csv: file *.csv or *.csv.gz with a line of names, and rows at equal distances in time."""

    targets: tuple[str, ...] = ()
    """Csv: columns to predict."""

    inputs: tuple[str, ...] = ()
    """Csv: columns to predict from; by default all, the past of the targets too."""

    missing: Literal["refuse", "previous"] = "refuse"
    """Csv: refuse cells without a value, or take that of the row before."""

    channels: Count = 32
    """Series: input channels."""

    correlation: Annotated[float, at_least(0), below(1)] = 0.9
    """Series: of an input with its next one; 0 for white inputs."""

    length: Count | None = None
    """Rows to generate; by default 262144 of a series, 96000 pixels of canvases."""

    reach: Count | None = None
    """Number of candidate lags; by default 1024 of a series, 128 of canvases, and of a file a
    twentieth of its rows, at most 128."""

    ahead: Whole = 1
    """Rows from the newest input to the target, the smallest lag: 1 predicts the next row."""

    taps: Count | None = None
    """Number of lags; by default as many as stand out, at most --most-taps, or 8 if they are not
    pursued."""

    most_taps: Count = 16
    """Most lags, if the number is left to the data."""

    min_gain: Positive = 1.0
    """Least gain of a lag, where 1 is the largest of all lags by chance: with the inputs of other
    times."""

    per_probe: Count = 2
    """Most lags that one probe places."""

    apart: Whole = 0
    """Steps on both sides of a lag in which no other one is placed."""

    given: tuple[Whole, ...] = ()
    """The lags of --method given."""

    restarts: Count = 3
    """Models with other weights and batches, to see which lags are found again."""

    hidden: Counts = (64, 32)
    """Units of the lag layer, and of layers behind it."""

    batch: Count = 4
    """Windows per step."""

    window: Count | None = None
    """Rows of a window that count, after as many as --reach that are only read; by default as many
    again, if there are."""

    learning_rate: Positive = 3e-3
    """Of Adam, falling to 0 along a cosine."""

    weight_decay: NotNegative = 1e-4
    """Of AdamW."""

    steps: Count = 600
    """Number of training steps; lags are placed in the first 40 %."""

    evaluate_every: Count = 100
    """Steps between validations; the best one of each restart is kept."""

    def check(self) -> None:
        """Raise also if a file lacks a name, or lags do not fit each other."""
        super().check()
        is_file = self.task == "csv"
        for flag, named, change in (
            ("a file", self.data_file is not None, "pass --data-file FILE"),
            ("a column to predict", len(self.targets) > 0, "pass --targets NAME"),
        ):
            found = f"{said(self, 'task')} without {flag}"
            require(named or not is_file, found, "a CSV file, and names of its columns", change)
        require(
            self.method != "known" or not is_file,
            said(self, "method", "task"),
            "a generated task, whose true lags are known",
            "change --method, or say what you believe with --method given --given LAGS",
        )
        require(
            self.method != "given" or len(self.given) > 0,
            f"{said(self, 'method')} without lags",
            "at least one",
            "pass --given 1 2 24, for instance",
        )
        require(
            len(set(self.given)) == len(self.given),
            said(self, "given"),
            "each lag once",
            "leave out what is there twice in --given",
        )
        own = is_file and (not self.inputs or bool(set(self.inputs) & set(self.targets)))
        require(
            self.ahead > 0 or not (own or self.task == "canvas"),
            f"{said(self, 'ahead')} with inputs among which the targets are",
            "to predict them from earlier rows",
            "raise --ahead" + (", or leave the targets out of --inputs" if is_file else ""),
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each task and method has its own options."""
        own = {
            "series": ("channels", "correlation", "length"),
            "canvas": ("length",),
            "csv": ("data_file", "targets", "inputs", "missing"),
        }
        others = {name for names in own.values() for name in names} - set(own[self.task])
        yield "task", sorted(others)
        if self.method != "pursuit":
            yield "method", ("most_taps", "min_gain", "per_probe", "apart")
        if self.method in ("given", "known"):
            yield "method", ("taps",)
        if self.method != "given":
            yield "method", ("given",)
        if self.taps is not None:
            yield "taps", ("most_taps", "min_gain")

    def load(self) -> Data:
        """Draw or read the series, and settle how far to look back."""
        if self.task == "csv":
            assert self.data_file is not None, "checked"
            table, inputs = read_columns(
                self.data_file, self.targets, self.inputs, missing=self.missing
            )
            length = len(table.values)
            reach = self.reach or max(1, min(128, length // 20))
            task = table_task(table, self.targets, inputs, reach=reach, ahead=self.ahead)
        elif self.task == "canvas":
            length, reach = self.length or 96_000, self.reach or 128
            task = canvas_task(self.seed, length=length, reach=reach, ahead=self.ahead)
        else:
            length, reach = self.length or 2**18, self.reach or 1024
            task = series_task(
                self.seed,
                length=length,
                channels=self.channels,
                reach=reach,
                ahead=self.ahead,
                correlation=self.correlation,
            )
        counted = len(task.parts.train.inputs) - reach
        window = self.window or min(max(reach, 64), counted)
        require(
            window <= counted,
            f"{said(self, 'window')} with {counted} rows of training that have all of their past",
            "at most as many",
            "lower --window or --reach",
        )
        return Data(task, reach, length, window)

    def settle(self, data: Data) -> Self:
        """Settle sizes, and the number of lags where it is not left to the data."""
        length = None if self.task == "csv" else data.length
        recipe = replace(self, reach=data.reach, length=length, window=data.window)
        lags, last = self.chosen(data), self.ahead + data.reach - 1
        require(
            all(self.ahead <= lag <= last for lag in lags),
            f"lags {' '.join(map(str, lags))} with {said(recipe, 'ahead', 'reach')}",
            f"lags from {self.ahead} to {last}",
            "change --ahead or --reach" + (", or --given" if self.given else ""),
        )
        if self.method != "pursuit":
            taps = len(lags) or self.taps or min(8, data.reach)
            recipe = replace(recipe, taps=taps)
        require(
            recipe.taps is None or recipe.taps <= data.reach,
            said(recipe, "taps", "reach"),
            "no more lags than candidates",
            "lower --taps, or raise --reach",
        )
        return recipe

    def chosen(self, data: Data) -> tuple[int, ...]:
        """Lags that need no search: those that are known, or given."""
        return data.task.known if self.method == "known" else self.given

    @property
    def slots(self) -> int:
        """Most lags that a model may have."""
        return self.taps or self.most_taps

    def probing(self) -> Probing:
        """Spread the probes over the first part of training."""
        assert self.steps is not None, "settled"
        first, last = (math.ceil(share * self.steps) for share in (BEGIN, END))
        wanted = -(-self.slots // self.per_probe) if self.method == "pursuit" else 0
        every = max(1, (last - first) // max(1, wanted))
        min_gain = self.min_gain if self.taps is None else None
        return Probing(first, every, wanted, self.per_probe, min_gain, self.apart)

    def plan(self, data: Data) -> Plan:
        """Train all restarts; report the one that validates best."""
        assert self.steps is not None, "settled"
        study = LagStudy(
            task=data.task,
            model=LagModel(data.reach, binary=self.task == "canvas"),
            probing=self.probing(),
            method=self.method,
            lags=tuple(lag - self.ahead for lag in self.chosen(data)),
            slots=self.slots,
            ahead=self.ahead,
            restarts=self.restarts,
            seed=self.seed,
            hidden=self.hidden,
            batch=self.batch,
            window=data.window,
            optimizer=optax.adamw(
                optax.cosine_decay_schedule(self.learning_rate, self.steps),
                weight_decay=self.weight_decay,
            ),
            quiet=self.quiet,
        )
        every = self.evaluate_every
        return Plan(
            study.make_step(),
            study.start(),
            study.finish,
            (study.parts.train,),
            study.evaluate,
            every,
            longest_dispatch=every,
        )
