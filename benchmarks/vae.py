"""Which estimator trains a categorical autoencoder best at equal evaluations? Binarised MNIST.

Runs of the recipe ``vae``: -ELBO of the test images in nats and the variance of the encoder's
gradient along the way; and, where it ended, the variances of all estimators at the same parameters.
Every run has the same number of decoder evaluations per image, so that an estimator with fewer of
them per step makes more steps. Adam with rate 0.001, batch 50, ten variables of five classes, one
hidden layer of 200: set beforehand, the same for all.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.figures import band, tidy
from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid
from benchmarks.tables import markdown, spread

BUDGET = 110_000
"""Evaluations of the decoder per place in the batch."""

EVALUATED = 20
SETTINGS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "ARSM": ({"method": "arsm"}, 11, "arsm", "#b2182b"),
    "RLOO-2": ({"method": "rloo", "num_samples": 2}, 2, "rloo_2", "#92c5de"),
    "RLOO-11": ({"method": "rloo", "num_samples": 11}, 11, "rloo_11", "#2166ac"),
    "Gumbel straight-through": (
        {"method": "gumbel_straight_through"},
        1,
        "gumbel_straight_through",
        "#4d9221",
    ),
}
"""Options, evaluations per step, name among the compared, colour."""

CURVES = ("eval_test_negative_elbo", "eval_encoder_variance")
COMPARED_AT = "RLOO-11"


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once with the evaluations that each run has."""
    setting = facts["setting"]
    options, evaluations, *_ = SETTINGS[setting]
    steps = BUDGET // evaluations
    options = options | {"steps": steps, "evaluate_every": steps // EVALUATED // 500 * 500}
    options |= {"compare": setting == COMPARED_AT, "data": "mnist", "seed": facts["seed"]}
    return train("vae", asked, curves=CURVES, **options)


def after(line: Line, share: float) -> float:
    """Give the test figure of a run after a share of the evaluations."""
    return float(np.interp(share * line["steps"], line["curve"]["steps"], line["curve"][CURVES[0]]))


def write(lines: Lines) -> str:
    """Write -ELBO along the way, and the variances at equal parameters."""
    shares = (0.25, 0.5, 1.0)
    after_some = [f"after {BUDGET * share:,.0f}" for share in shares]
    after_some[0] = f"-ELBO {after_some[0]}"
    compared = lines.where(setting=COMPARED_AT).values("encoder_variance")
    rows = (
        [
            *(setting, evaluations),
            *(
                spread(".1f")([after(line, share) for line in lines.where(setting=setting)])
                for share in shares
            ),
            spread(".0f")([variances[key]["variance"] for variances in compared]),
        ]
        for setting, (_, evaluations, key, _) in SETTINGS.items()
    )
    return markdown(["estimator", "evaluations per step", *after_some, "variance"], rows)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw test -ELBO and variance against evaluations, and -ELBO against steps."""
    left, middle, right = figure.subplots(1, 3)
    for setting, (_, evaluations, _, colour) in SETTINGS.items():
        curves = lines.where(setting=setting).values("curve")
        steps = np.asarray(curves[0]["steps"])
        elbo, variance = (np.asarray([curve[name] for curve in curves]) for name in CURVES)
        style = {"label": setting, "color": colour}
        band(left, steps * evaluations, elbo, **style)
        # Not from the start: a line down from there would hide the others.
        band(middle, steps[1:], elbo[:, 1:], **style)
        band(right, steps * evaluations, variance, **style)
    left.set(xlabel="decoder evaluations per image", ylabel="test -ELBO, nats", ylim=(95, 160))
    middle.set(xlabel="steps", ylabel="test -ELBO, nats", ylim=(95, 160), xlim=(0, BUDGET / 11))
    right.set(xlabel="decoder evaluations per image", ylabel="variance of the encoder's gradient")
    right.set_yscale("log")
    left.legend(frameon=False, fontsize=8)
    tidy(left, middle, right)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(seed=asked.seeds if asked.mnist else [], setting=SETTINGS),
    measure=measure,
    tiny=[{"seed": 0, "setting": COMPARED_AT}],
    table=write,
    draw=draw,
    figure="vae",
    inches=(10.5, 3.2),
)
