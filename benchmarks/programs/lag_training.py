"""Training for a number of CPU seconds: what every method of ``lags_quality`` has in common.

    pre = taps(x) + bias        one layer that reads the past, of 32 units
    y = perceptron(pre)         32 - 32 - 1, shared by all times

All start from the same distribution, small taps included, and have the same batches, optimizer and
course of the learning rate, which follows the share of the CPU seconds that is used up. Probes,
pruning and choosing count; compiling and the final measurement do not.
"""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

UNITS, HIDDEN = 32, 32
BATCH = 4
TAP_SPREAD = 0.02
"""Times one over the root of the channels: standard deviation of fresh weights of a tap."""

Params = dict[str, Any]
Forward = Callable[[Params, dict[str, Any], jax.Array], jax.Array]
"""Parameters, what is not trained (lags), inputs ``(b, T, C)`` -> pre-activations ``(b, T, o)``."""


class Task(NamedTuple):
    """What is to be predicted.

    Attributes:
        train: inputs ``(n, T, C)``, targets ``(n, T, 1)``.
        valid: likewise.
        test: likewise.
        lags: true ones, or those of somebody who knows.
        floor: the least loss that is possible, as far as known.
        reach: number of candidate lags.
        slots: number of taps of the methods that are told one.
        strict: the present is not to be read.
        binary: targets are 0 or 1, and the loss is in nats for each series.
    """

    train: tuple[jax.Array, jax.Array]
    valid: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]
    lags: np.ndarray
    floor: float | None
    reach: int
    slots: int
    strict: bool = False
    binary: bool = False


class State(NamedTuple):
    """What training changes."""

    params: Params
    moments: optax.OptState


ADAM = optax.scale_by_adam()


def start(key: jax.Array, channels: int, **more: jax.Array) -> State:
    """Draw all weights but those of the layer that reads the past, or take what is given."""
    keys = jax.random.split(key, 3)

    def draw(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        return jax.random.normal(key, shape) * np.sqrt(2 / shape[0])

    params = {
        "bias": 0.5 * jax.random.normal(keys[0], (UNITS,)),
        "one": draw(keys[1], (UNITS, HIDDEN)),
        "one_bias": jnp.zeros(HIDDEN),
        "two": draw(keys[2], (HIDDEN, 1)),
        "two_bias": jnp.zeros(1),
        **more,
    }
    return State(params, ADAM.init(params))


def fresh_taps(key: jax.Array, count: int, channels: int) -> jax.Array:
    """Draw weights ``(count, C, 32)`` of taps: as small for every method."""
    return jax.random.normal(key, (count, channels, UNITS)) * TAP_SPREAD / np.sqrt(channels)


def head(params: Params, pre: jax.Array) -> jax.Array:
    """Give outputs ``(b, T, 1)`` of pre-activations ``(b, T, 32)``."""
    units = jax.nn.relu(pre + params["bias"])
    return (
        jax.nn.relu(units @ params["one"] + params["one_bias"]) @ params["two"] + params["two_bias"]
    )


def loss_of(outputs: jax.Array, targets: jax.Array, binary: bool) -> jax.Array:
    """Give the mean squared error, or for binary targets nats for each series."""
    if binary:
        return optax.sigmoid_binary_cross_entropy(outputs, targets).sum((1, 2)).mean()
    return jnp.mean((outputs - targets) ** 2)


class Work(NamedTuple):
    """What a program for some steps of training is made of.

    Attributes:
        forward: gives pre-activations.
        name: tells programs apart that have the same shapes.
        binary: see :class:`Task`.
        steps: of one call.
        batch: series of one step; those of dense kernels cost less together.
        penalize: what is added to the loss.
    """

    forward: Forward
    name: tuple[Any, ...]
    binary: bool
    steps: int = 8
    batch: int = BATCH
    penalize: Callable[[Params], jax.Array] | None = None


class Given(NamedTuple):
    """What training reads: lags and the like, the training set, rates of the moment."""

    fixed: dict[str, Any]
    train: tuple[jax.Array, jax.Array]
    rates: dict[str, Any]


def chunk(work: Work, state: State, given: Given, key: jax.Array) -> State:
    """Train for some steps; parameters called ``positions`` have a rate of their own."""
    rates, binary = given.rates, work.binary

    def step(state: State, key: jax.Array) -> tuple[State, None]:
        chosen = jax.random.randint(key, (work.batch,), 0, len(given.train[0]))
        inputs, targets = (part[chosen] for part in given.train)
        fixed = given.fixed | {"key": key, "spread": rates["spread"]}

        def loss(params: Params) -> jax.Array:
            outputs = head(params, work.forward(params, fixed, inputs))
            value = loss_of(outputs, targets, binary) / (inputs.shape[1] if binary else 1)
            return value + (work.penalize(params) * rates["penalty"] if work.penalize else 0)

        moved, moments = ADAM.update(jax.grad(loss)(state.params), state.moments)
        slopes = cast(Params, moved)
        params = {
            name: part - rates["positions" if name == "positions" else "weights"] * slopes[name]
            for name, part in state.params.items()
        }
        return State(params, moments), None

    return jax.lax.scan(step, state, jax.random.split(key, work.steps))[0]


class Clock:
    """CPU seconds of this process, without those that are marked as not counting."""

    def __init__(self, seconds: float) -> None:
        """Start a budget of some seconds."""
        self.seconds, self.begun, self.free = seconds, time.process_time(), 0.0

    def share(self) -> float:
        """Say what share of the budget is used up."""
        return (time.process_time() - self.begun - self.free) / self.seconds

    def uncounted(self, function: Callable[[], Any]) -> Any:
        """Do something that does not count, as compiling."""
        begun = time.process_time()
        made = function()
        self.free += time.process_time() - begun
        return made


PROGRAMS: dict[Any, Any] = {}


def program(name: Any, function: Callable[..., Any], clock: Clock, *arguments: Any) -> Any:
    """Compile a function once for all runs with this name and these shapes; that does not count."""
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(arguments)]
    named = (name, str(shapes), str(jax.tree.structure(arguments)))

    def make() -> Any:
        compiled = jax.jit(function).lower(*arguments).compile()
        jax.block_until_ready(compiled(*arguments))  # the first call is slower
        return compiled

    if named not in PROGRAMS:
        PROGRAMS[named] = clock.uncounted(make)
    return PROGRAMS[named]


class Run:
    """One run of one method: its clock, its state, and how it goes on."""

    def __init__(self, task: Task, facts: dict[str, Any]) -> None:
        """Take the task and the facts of the run: method, seed, rate, seconds."""
        self.task, self.facts = task, dict(facts)
        self.clock = Clock(facts["seconds"])
        self.key = jax.random.key(1000 + facts["seed"])
        self.steps, self.bytes = 0, 0

    def next_key(self) -> jax.Array:
        """Give a new key."""
        self.key, key = self.clock.uncounted(lambda: jax.random.split(self.key))
        return key

    def start(self, **more: jax.Array) -> State:
        """Draw first weights, which does not count."""
        key, channels = self.next_key(), self.task.train[0].shape[-1]
        return self.clock.uncounted(lambda: start(key, channels, **more))

    def fresh_taps(self, count: int) -> jax.Array:
        """Draw first weights of taps, which does not count."""
        key, channels = self.next_key(), self.task.train[0].shape[-1]
        return self.clock.uncounted(lambda: fresh_taps(key, count, channels))

    def some_series(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Draw series of the training set without repetition."""
        count = min(count, len(self.task.train[0]))

        def draw(key: jax.Array, train: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
            chosen = jax.random.permutation(key, len(train[0]))[:count]
            return tuple(part[chosen] for part in train)

        arguments = (self.next_key(), self.task.train)
        return program(("series", count), draw, self.clock, *arguments)(*arguments)

    def train(
        self,
        work: Work,
        state: State,
        fixed: dict[str, Any],
        until: float,
        rates: Callable[[float], dict[str, float]] | None = None,
    ) -> State:
        """Train until a share of the seconds is used up; ``rates`` are those at a share."""
        function = partial(chunk, work)
        while (share := self.clock.share()) < until:
            weights = self.facts["rate"] * 0.5 * (1 + np.cos(np.pi * min(share, 1)))
            now = {"weights": weights, "positions": 0.0, "penalty": 0.0, "spread": 0.0}
            now |= rates(share) if rates else {}
            numbers = {name: np.float32(number) for name, number in now.items()}
            arguments = (state, Given(fixed, self.task.train, numbers), self.next_key())
            name = (*work.name, self.task.reach, work.steps, work.batch)
            made = program(name, function, self.clock, *arguments)
            self.bytes = max(self.bytes, made.memory_analysis().temp_size_in_bytes)
            state = jax.block_until_ready(made(*arguments))
            self.steps += work.steps
        return state


@lru_cache
def _judge(forward: Forward, binary: bool) -> Callable[..., jax.Array]:
    def loss(
        params: Params, fixed: dict[str, Any], inputs: jax.Array, targets: jax.Array
    ) -> jax.Array:
        return loss_of(head(params, forward(params, fixed, inputs)), targets, binary)

    return jax.jit(loss)


def measured(forward: Forward, state: State, fixed: dict[str, Any], task: Task) -> dict[str, float]:
    """Give the loss on validation and test sets; two series at a time."""
    run = _judge(forward, task.binary)
    fixed = fixed | {"key": jax.random.key(0)}
    found = {}
    for part in ("valid", "test"):
        inputs, targets = getattr(task, part)
        losses = [
            run(state.params, fixed, inputs[at : at + 2], targets[at : at + 2])
            for at in range(0, len(inputs), 2)
        ]
        found[part] = float(np.mean(losses))
    return found
