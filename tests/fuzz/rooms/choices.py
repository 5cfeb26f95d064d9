"""Oracles of ``estimators``: expectations of discrete choices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import estimators
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program


def softmax(logits):
    top = logits.max(-1, keepdims=True)
    powers = np.exp(logits - top)
    return powers / powers.sum(-1, keepdims=True)


def draw_logits(rng, shape, kind, *, banned=True):
    """Logits of any size; some classes are banned, never all of a row."""
    logits = draw.reals(rng, shape, np.float64, spread=draw.pick(rng, 1, 5, 50))
    if banned and rng.random() < 0.3:
        gone = rng.random(shape) < 0.3
        gone[..., rng.integers(shape[-1])] = False
        logits = np.where(gone, -np.inf, logits)
    return logits.astype(kind)


def softmax_off(logits):
    """How far off float32 probabilities may be: each logit rounds once after its largest."""
    apart = np.where(np.isfinite(logits), logits.max(-1, keepdims=True) - logits, 0)
    return EPS * (
        16 + 4 * np.minimum(apart, 100) + 2 * np.abs(np.where(np.isfinite(logits), logits, 0)).max()
    )


EVERY = {
    "enumeration": estimators.Enumeration,
    "score_function": lambda: estimators.ScoreFunction(3),
    "rloo": lambda: estimators.RLOO(3),
    "ar": estimators.AR,
    "ars": estimators.ARS,
    "arsm": estimators.ARSM,
    "arsm, each": lambda: estimators.ARSM(joint=False),
    "without_replacement": lambda: estimators.WithoutReplacement(2),
    "subset": lambda: estimators.Subset(2),
    "subset, informed": lambda: estimators.Subset(2, informed=True),
    "rebar": estimators.REBAR,
    "relax": lambda: estimators.RELAX(lambda z: jnp.sum(jax.nn.softmax(z) ** 2)),
    "straight_through": estimators.StraightThrough,
    "gumbel_straight_through": estimators.GumbelStraightThrough,
}


def expectation(rng):
    name = draw.pick(rng, "enumeration", *EVERY)
    variables, classes = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    estimator, kind = EVERY[name](), draw.dtype(rng)

    def of_classes(z, costs):
        if estimator.relaxed:
            return jnp.sum(z * costs) + jnp.sum(z[0] * costs[-1]) * jnp.sum(z[-1] * costs[0])
        rows = jnp.arange(variables)
        return jnp.sum(costs[rows, z]) + costs[-1, z[0]] * costs[0, z[-1]]

    def value_of(z, costs):
        return costs[np.arange(variables), z].sum() + costs[-1, z[0]] * costs[0, z[-1]]

    def arguments(rng):
        return {
            "logits": draw_logits(rng, (variables, classes), kind),
            "costs": draw.reals(rng, (variables, classes)),
        }

    def run(key, logits, costs):
        f = lambda z: of_classes(z, costs)  # noqa: E731
        estimate = estimator.estimate(key, logits, f)
        value = estimators.expectation(key, logits, f, estimator=estimator)
        return {"y": value, "gradient": estimate.gradient, "samples": estimate.samples}

    def expect(case, got):
        logits, costs, weight = case["logits"], case["costs"], case["weights"]
        chances, slip = softmax(logits), softmax_off(logits).max()
        every = list(itertools.product(range(classes), repeat=variables))
        values = np.array([value_of(z, costs) for z in every])
        odds = np.array([np.prod(chances[np.arange(variables), z]) for z in every])
        size = np.abs(values).max() + 1e-3
        samples, gradient = got["samples"], np.float64(got["gradient"])
        banned = chances == 0
        if (samples < 0).any() or (samples >= classes).any():
            return {"samples": Near(samples - 1)}
        low, high = values[odds > 0].min(), values[odds > 0].max()
        within = Near(np.clip(np.float64(got["y"]), low, high), 32 * EPS * size)
        # Towards the logits the slope is that of the estimate.
        expected = {
            "y": within,
            "d_logits": Near(weight * gradient, 8 * EPS * np.abs(weight * gradient) + LOST),
        }
        if (np.abs(gradient[np.isneginf(logits)]) > 0).any():
            return {"gradient": Near(np.where(np.isneginf(logits), 0, gradient))}
        if name == "enumeration":
            mean = (odds * values).sum()
            score = np.zeros(logits.shape)
            for z, odd, value in zip(every, odds, values, strict=True):
                score += (
                    odd * (value - mean) * ((np.arange(classes) == np.array(z)[:, None]) - chances)
                )
            off = 16 * size * slip * variables
            return expected | {"y": Near(mean, off), "gradient": Near(score, 2 * off)}
        if name in ("score_function", "rloo"):
            drawn = np.array([value_of(z, costs) for z in samples])
            base = drawn.mean() if name == "rloo" else 0
            factor = 1 / (len(drawn) - 1) if name == "rloo" else 1 / len(drawn)
            score = np.zeros(logits.shape)
            for z, value in zip(samples, drawn, strict=True):
                score += (
                    factor
                    * (value - base)
                    * ((np.arange(classes) == z[:, None]) - chances * (name != "rloo"))
                )
            off = 32 * size * slip
            return expected | {
                "y": Near(drawn.mean(), 32 * EPS * size),
                "gradient": Near(np.where(np.isneginf(logits), 0, score), off),
            }
        if banned.any() or name in (
            "rebar",
            "relax",
            "straight_through",
            "gumbel_straight_through",
        ):
            return expected
        # A constant on all logits of a row means nothing.
        rest = np.float64(np.abs(gradient).sum(-1)) * 64 * EPS + 64 * EPS * size * slip / EPS
        return expected | {
            "gradient": Near(gradient - gradient.mean(-1, keepdims=True), rest[:, None])
        }

    return Program(
        f"expectation, {name}",
        {"variables": variables, "classes": classes, "dtype": str(kind)},
        arguments,
        run,
        expect,
        keyed=True,
        slopes=("logits",),
    )


def pseudo_actions(rng):
    variables, classes = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    pairs = rng.integers(0, classes, (4, 2)).astype(np.int32)

    def arguments(rng):
        times = rng.exponential(size=(variables, classes))
        logs = np.log(times) - np.log(times.sum(-1, keepdims=True))
        return {"log_pi": logs.astype(np.float32), "logits": draw.reals(rng, (variables, classes))}

    def expect(case, got):
        expected = np.zeros((len(pairs), variables), np.int32)
        for n, (one, two) in enumerate(pairs):
            swapped = case["log_pi"].copy()
            swapped[:, [one, two]] = case["log_pi"][:, [two, one]]
            race = swapped - case["logits"]
            expected[n] = race.argmin(-1)
            # Where two come in together, rounding decides.
            near = np.sort(race, -1)
            if classes > 1 and (near[:, 1] - near[:, 0] < 1e-5).any():
                expected[n] = got["y"][n]
        return {"y": Near(expected)}

    return Program(
        "pseudo_actions",
        {"variables": variables, "classes": classes},
        arguments,
        lambda log_pi, logits: {"y": estimators.pseudo_actions(log_pi, logits, pairs)},
        expect,
    )


def without_replacement(rng):
    variables, classes, kind = int(rng.integers(1, 4)), int(rng.integers(2, 5)), draw.dtype(rng)
    count = int(rng.integers(1, min(6, classes**variables) + 1))

    def run(key, logits):
        samples, logs = estimators.sample_without_replacement(key, logits, count)
        return {"samples": samples, "logs": jnp.where(jnp.isneginf(logs), 7.0, logs)}

    def expect(case, got):
        logits, samples = case["logits"], got["samples"]
        log = logits - logits.max(-1, keepdims=True)
        log = log - np.log(np.exp(log).sum(-1, keepdims=True))
        total = log[np.arange(variables), samples].sum(-1)
        alive = np.float64(got["logs"]) != 7
        possible = np.prod(np.isfinite(logits).sum(-1))
        fine = len(np.unique(samples[alive], axis=0)) == alive.sum() == min(count, possible)
        size = np.abs(np.where(np.isfinite(logits), logits, 0)).max() + 1
        expected = np.where(alive, total, 7)
        return {
            "samples": Near(samples if fine else samples - 1),
            "logs": Near(expected, 64 * EPS * size),
        }

    return Program(
        "sample_without_replacement",
        {"variables": variables, "classes": classes, "count": count, "dtype": str(kind)},
        lambda rng: {"logits": draw_logits(rng, (variables, classes), kind)},
        run,
        expect,
        keyed=True,
    )


def perturbed(rng):
    variables, classes = int(rng.integers(1, 4)), int(rng.integers(1, 5))

    def arguments(rng):
        logits = draw.reals(rng, (variables, classes), np.float64, spread=3)
        logs = np.log(softmax(logits)).astype(np.float32)
        return {"logs": logs, "winners": rng.integers(0, classes, variables).astype(np.int32)}

    def expect(case, got):
        y = np.float64(got["y"])
        top = np.take_along_axis(y, case["winners"][:, None], 1)
        return {"y": Near(np.minimum(y, top))}

    return Program(
        "perturb_given_winner",
        {"variables": variables, "classes": classes},
        arguments,
        lambda key, logs, winners: {"y": estimators.perturb_given_winner(key, logs, winners)},
        expect,
        keyed=True,
        slopes=("logs",),
    )


FAMILIES = (expectation, expectation, expectation, pseudo_actions, without_replacement, perturbed)
