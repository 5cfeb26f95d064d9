"""Two agents who act in turn: ways to estimate the gradient of what they are paid together.

The climbing game (Claus and Boutilier 1998): three actions each, one payoff for both, a best pair
of actions beside the worst ones, and a safe pair. The second agent sees what the first one did, so
its policy has a row of logits for each action of the first one. Nine pairs: the gradient is known.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from sparse_hyper_jax.diagnostics import gradient_report
from sparse_hyper_jax.estimators import (
    ARSM,
    RLOO,
    Enumeration,
    Estimator,
    GumbelStraightThrough,
    ScoreFunction,
    StraightThrough,
    WithoutReplacement,
    expectation,
)

PAYOFF = jnp.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])
DRAWS = 100_000
RUNS, STEPS, RATE = 50, 500, 0.03


class Policies(NamedTuple):
    """Logits of the first agent ``(3,)``, and of the second, a row per action of the first."""

    first: jax.Array
    second: jax.Array


Estimate = Callable[[Policies, jax.Array], Policies]


class Method(NamedTuple):
    """A way to estimate the gradient, and what it evaluates."""

    cost: int
    """Evaluations of the payoff; one with its derivative counts three times."""

    estimate: Estimate


def in_turn(policies: Policies, key: jax.Array, first: Estimator, second: Estimator) -> jax.Array:
    """Give the expected payoff as an expectation within another: the second agent's answer.

    A relaxed first choice reaches the second agent's logits, too: how the other will answer.
    """
    first_key, second_key = jax.random.split(key)

    def answered(action: jax.Array) -> jax.Array:
        row = action if first.relaxed else jax.nn.one_hot(action, 3)

        def paid(other: jax.Array) -> jax.Array:
            payoffs = row @ PAYOFF
            return payoffs @ other if second.relaxed else payoffs[other]

        return expectation(second_key, row @ policies.second, paid, estimator=second)

    return expectation(first_key, policies.first, answered, estimator=first)


def at_once(policies: Policies, key: jax.Array, estimator: Estimator) -> jax.Array:
    """Give the same of four independent choices: the second agent has an answer to every action."""
    logits = jnp.concatenate([policies.first[None], policies.second])

    def paid(choice: jax.Array) -> jax.Array:
        if estimator.relaxed:
            return choice[0] @ jnp.sum(PAYOFF * choice[1:], axis=-1)
        return PAYOFF[choice[0], choice[1 + choice[0]]]

    return expectation(key, logits, paid, estimator=estimator)


def with_peer_term(policies: Policies, key: jax.Array, count: int) -> jax.Array:
    """Give a function with the gradient of leave-one-out, and with how the other will answer.

    ``A (grad log p(a) + grad log p(b | a))`` where the second logarithm is differentiated through
    the first action as well, straight-through: backpropagation through agents (Li et al. 2024,
    arXiv 2401.12574).
    """

    def advantage_and_score(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first_key, second_key = jax.random.split(key)
        chances = jax.nn.softmax(policies.first)
        action = jax.random.categorical(first_key, policies.first)
        row = jax.nn.one_hot(action, 3) + chances - jax.lax.stop_gradient(chances)
        logits = row @ policies.second
        other = jax.random.categorical(second_key, logits)
        score = jax.nn.log_softmax(policies.first)[action] + jax.nn.log_softmax(logits)[other]
        return PAYOFF[action, other], score

    payoffs, scores = jax.vmap(advantage_and_score)(jax.random.split(key, count))
    advantages = (payoffs - jnp.mean(payoffs)) * count / (count - 1)
    return jnp.mean(advantages * scores)


def method(cost: int, paid: Callable[..., jax.Array], *rest: Any) -> Method:
    """Make a method of a function whose gradient is the estimate."""
    return Method(cost, lambda policies, key: jax.grad(paid)(policies, key, *rest))


METHODS = {
    "exact": method(9, in_turn, Enumeration(), Enumeration()),
    "score function": method(1, in_turn, ScoreFunction(), ScoreFunction()),
    "RLOO-4": method(4, at_once, RLOO(4)),
    "ARSM": method(4, at_once, ARSM()),
    "without replacement, 4": method(4, at_once, WithoutReplacement(4)),
    "in turn: RLOO-2, RLOO-2": method(4, in_turn, RLOO(2), RLOO(2)),
    "in turn: RLOO-2, exact": method(6, in_turn, RLOO(2), Enumeration()),
    "straight-through": method(3, at_once, StraightThrough()),
    "Gumbel straight-through": method(3, at_once, GumbelStraightThrough()),
    "in turn: straight-through, RLOO-2": method(6, in_turn, StraightThrough(), RLOO(2)),
    "RLOO-4 and peer term": method(4, with_peer_term, 4),
}


def start(key: jax.Array) -> Policies:
    """Draw policies that prefer something."""
    first, second = jax.random.split(key)
    return Policies(jax.random.normal(first, (3,)), jax.random.normal(second, (3, 3)))


def learn(estimate: Estimate, key: jax.Array, steps: int) -> jax.Array:
    """Climb the estimated gradient; give the payoff of the most likely actions."""
    start_key, step_key = jax.random.split(key)

    def step(policies: Policies, key: jax.Array) -> tuple[Policies, None]:
        slopes = estimate(policies, key)
        return jax.tree.map(lambda one, slope: one + RATE * slope, policies, slopes), None

    ended, _ = jax.lax.scan(step, start(start_key), jax.random.split(step_key, steps))
    action = jnp.argmax(ended.first)
    return PAYOFF[action, jnp.argmax(ended.second[action])]


def measure(facts: Facts, asked: Asked) -> Line:
    """Report on one method, at random policies; then let all runs learn by it."""
    cost, estimate = METHODS[facts["method"]]
    draws, runs, steps = (2, 2, 2) if asked.tiny else (DRAWS, RUNS, STEPS)
    policies = start(jax.random.key(facts["seed"]))
    exact = METHODS["exact"].estimate(policies, jax.random.key(0))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(1), facts["seed"]), draws)
    report = gradient_report(exact, lambda key: estimate(policies, key), keys)
    starts = jax.random.split(jax.random.fold_in(jax.random.key(2), facts["seed"]), runs)
    paid = jax.jit(jax.vmap(lambda key: learn(estimate, key, steps)))(starts)
    reached = {f"reached {value}": float(jnp.mean(paid == value)) for value in (11, 7, 6, 5)}
    figures = {field: float(value) for field, value in report._asdict().items()}
    return {"cost": cost, "draws": draws, "runs": runs, "steps": steps} | figures | reached
