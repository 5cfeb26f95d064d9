"""Which estimator trains a categorical autoencoder best at equal evaluations? Binarised MNIST.

    python benchmarks/vae.py --mnist DIR               all settings and seeds
    python benchmarks/vae.py --mnist DIR --seeds 1 2   some seeds
    python benchmarks/vae.py --table                   from the JSON lines
    python benchmarks/vae.py --draw                    the table and docs/vae.png

One JSON line per run of the recipe ``vae``: -ELBO of the test images in nats and the variance of
the encoder's gradient along the way; and, where it ended, the variances of all estimators at the
same parameters. Every run has the same number of decoder evaluations per image, so that an
estimator with fewer of them per step makes more steps. Lines that are there already are not run
again. Adam with rate 0.001, batch 50, ten variables of five classes, one hidden layer of 200: set
beforehand, the same for all.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from report import Report, mean_and_spread, read_lines, train_and_show

from sparse_hyper_jax.train.plots import plot_band, read_curve
from sparse_hyper_jax.train.recipes.vae import VAERecipe
from sparse_hyper_jax.train.run_folder import RunFolder

NAME = "vae"
BUDGET = 110_000
"""Evaluations of the decoder per place in the batch."""

EVALUATED = 20
SETTINGS: dict[str, tuple[dict[str, Any], int, str]] = {
    "ARSM": ({"estimator": "arsm"}, 11, "#b2182b"),
    "RLOO-2": ({"estimator": "rloo", "num_samples": 2}, 2, "#92c5de"),
    "RLOO-11": ({"estimator": "rloo", "num_samples": 11}, 11, "#2166ac"),
    "Gumbel straight-through": ({"estimator": "gumbel_straight_through"}, 1, "#4d9221"),
}
"""Options, evaluations per step, colour."""

CURVES = ("eval_test_negative_elbo", "eval_encoder_variance")
COMPARED_AT = "RLOO-11"


def run(report: Report, setting: str, seed: int, mnist: Path) -> None:
    """Train once and write the line, unless it is there."""
    wanted = {"setting": setting, "seed": seed}
    if any(wanted.items() <= line.items() for line in read_lines(NAME)):
        return
    options, evaluations, _ = SETTINGS[setting]
    steps = BUDGET // evaluations
    with tempfile.TemporaryDirectory() as name:
        recipe = VAERecipe(
            **options,
            steps=steps,
            compare=setting == COMPARED_AT,
            evaluate_every=steps // EVALUATED // 500 * 500,
            data="mnist",
            data_dir=mnist,
            seed=seed,
            out=Path(name) / "run",
            quiet=True,
        )
        result = recipe.run()
        curves = {name: read_curve(RunFolder(recipe.out), name) for name in CURVES}
    # What else ran at the time decides the seconds.
    del result["out"], result["seconds"]
    shown = {name: values.round(3).tolist() for name, (_, values) in curves.items()}
    report.add(**result | wanted, curve={"steps": curves[CURVES[0]][0].tolist()} | shown)


def lines_of(setting: str) -> list[dict[str, Any]]:
    """Read the runs of a setting."""
    return [line for line in read_lines(NAME) if line["setting"] == setting]


def at_evaluations(line: dict[str, Any], share: float) -> float:
    """Give the test figure of a run after a share of the evaluations."""
    steps = np.asarray(line["curve"]["steps"])
    values = np.asarray(line["curve"][CURVES[0]])
    return float(np.interp(share * line["steps"], steps, values))


def table() -> str:
    """Give -ELBO and variances as a Markdown table."""
    shares = (0.25, 0.5, 1.0)
    names = [f"{BUDGET * share:,.0f}" for share in shares]
    rows = [
        "| estimator | evaluations per step | -ELBO after "
        + " | after ".join(names)
        + " | variance |",
        "|---" * (len(shares) + 3) + "|",
    ]
    for setting, (_, evaluations, _) in SETTINGS.items():
        runs = lines_of(setting)
        figures = [[at_evaluations(line, share) for line in runs] for share in shares]
        key = setting.lower().replace(" ", "_").replace("straight-through", "straight_through")
        variances = [
            line["encoder_variance"][key.replace("-", "_")]["variance"]
            for line in lines_of(COMPARED_AT)
        ]
        cells = [mean_and_spread(values, 1) for values in figures]
        cells += [mean_and_spread(variances, 0)]
        rows.append(f"| {setting} | {evaluations} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw test -ELBO and variance against evaluations, and -ELBO against steps."""
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for setting, (_, evaluations, colour) in SETTINGS.items():
        runs = lines_of(setting)
        if not runs:
            continue
        steps = np.asarray(runs[0]["curve"]["steps"])
        elbo, variance = (np.asarray([one["curve"][name] for one in runs]) for name in CURVES)
        plot_band(left, steps * evaluations, elbo, label=setting, color=colour)
        # Not from the start: a line down from there would hide the others.
        plot_band(middle, steps[1:], elbo[:, 1:], label=setting, color=colour)
        plot_band(right, steps * evaluations, variance, label=setting, color=colour)
    left.set(xlabel="decoder evaluations per image", ylabel="test -ELBO, nats", ylim=(95, 160))
    middle.set(xlabel="steps", ylabel="test -ELBO, nats", ylim=(95, 160), xlim=(0, BUDGET / 11))
    right.set(xlabel="decoder evaluations per image", ylabel="variance of the encoder's gradient")
    right.set_yscale("log")
    left.legend(frameon=False, fontsize=8)
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def train(seed: int, mnist: Path) -> None:
    """Make the lines of one seed."""
    report = Report(NAME, append=True)
    for setting in SETTINGS:
        run(report, setting, seed, mnist)


if __name__ == "__main__":
    train_and_show(
        __doc__.splitlines()[0],
        train,
        seeds=range(3),
        table=table,
        draw=draw,
        figure=Path("docs") / "vae.png",
    )
