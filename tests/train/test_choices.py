"""The recipes ``univariate`` and ``subset-bias``."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.diagnostics import gradient_report
from sparse_hyper_jax.estimators import ARSM, Enumeration, Subset
from sparse_hyper_jax.train.models.autoencoder import make_coder
from sparse_hyper_jax.train.models.estimators import make_estimator
from sparse_hyper_jax.train.recipe import Images
from sparse_hyper_jax.train.recipes import subset_bias, univariate
from sparse_hyper_jax.train.recipes.subset_bias import SubsetBiasRecipe, compared, measure
from sparse_hyper_jax.train.recipes.univariate import (
    REPORT_SEED,
    UnivariateRecipe,
    expected_reward,
    make_step,
    report,
    reward_of,
    rewards,
)
from tests.ops.examples import assert_names_itself_and_its_cure

from .toy import compiled_once

TOY = UnivariateRecipe(draws=5000, quiet=True)
BIAS = SubsetBiasRecipe(classes=32, hidden=(16,), steps=324, draws=60, quiet=True)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(autouse=True)
def _reports_are_compiled_at_once(monkeypatch):
    """Called as it is, each report is some hundred small programs."""

    def compiled(exact, estimate, keys, **options):
        def of(exact, keys):
            return gradient_report(exact, estimate, keys, **options)

        return jax.jit(of)(exact, keys)

    for module in (subset_bias, univariate):
        monkeypatch.setattr(module, "gradient_report", compiled)


def climbed(recipe):
    """Train as the recipe does, without a run folder."""
    step = make_step(recipe, recipe.estimator)
    keys = jax.random.split(jax.random.key(recipe.seed), recipe.steps)
    run = jax.jit(lambda keys: jax.lax.scan(step, jnp.zeros(recipe.classes), keys)[0])
    return float(expected_reward(run(keys)))


def test_rewards_differ_by_little():
    assert float(rewards(30)[-1]) == pytest.approx(0.5 + 1 / 30)
    assert float(expected_reward(jnp.zeros(30))) == pytest.approx(0.5 + 15.5 / 900)
    row, table = reward_of(4, Subset()), jnp.eye(4)
    assert [float(row(jnp.int32(z))) for z in range(4)] == pytest.approx(rewards(4))
    soft = UnivariateRecipe(method="straight_through").estimator
    assert [float(reward_of(4, soft)(table[z])) for z in range(4)] == pytest.approx(rewards(4))


def test_arsm_climbs_as_the_exact_gradient_does(tmp_path):
    result = dataclasses.replace(TOY, out=tmp_path / "run").run()
    exact, score = (
        dataclasses.replace(TOY, method=name) for name in ("enumeration", "score_function")
    )
    # Published for this toy: .53266 exact, .53269 ARSM, .5200 score function.
    assert climbed(exact) == pytest.approx(0.53266, abs=2e-5)
    assert result["reward"] == pytest.approx(0.53269, abs=2e-4)
    assert climbed(score) < 0.531
    of_score = report(score, score.estimator, jnp.zeros(30))
    assert result["at_uniform_logits"]["class_variance"] == pytest.approx(9.6e-8, rel=0.1)
    assert of_score["class_variance"] == pytest.approx(8.6e-3, rel=0.1)
    random = jax.random.normal(jax.random.key(REPORT_SEED), (30,))
    for z in (
        result["at_random_logits"]["largest_z"],
        report(score, score.estimator, random)["largest_z"],
    ):
        assert z < 4.5
    assert report(exact, exact.estimator, random)["variance"] < 1e-9
    assert result["evaluations"] == ARSM().evaluations((30,)) == 436


def test_bias_of_subsets_is_seen_and_that_of_unbiased_ones_is_not(tmp_path):
    result = dataclasses.replace(BIAS, out=tmp_path / "run").run()
    reports = result["estimators"]
    assert set(reports) == set(compared(BIAS.subset))
    for name in ("uninformed subset", "informed subset"):
        assert reports[name]["bias"] > 3 * reports[name]["noise"]
        assert reports[name]["bias"] > 0.2
    for name in ("RLOO", "without replacement"):
        assert reports[name]["bias"] < 3 * reports[name]["noise"]
    assert all(report["mean_absolute_error"] > 0 for report in reports.values())
    assert (tmp_path / "run" / "errors.png").stat().st_size > 1000


def test_a_subset_of_all_is_exact(monkeypatch):
    # That the other subsets are exact, too, is tested where estimators are.
    some = {name: compared(5)[name] for name in ("uninformed subset", "RLOO")}
    monkeypatch.setattr(subset_bias, "compared", lambda subset: some)
    recipe = dataclasses.replace(BIAS, classes=5, subset=5, draws=4)
    coder, parameters = make_coder(12, (6,), (1, 5), seed=1)
    images = jax.random.uniform(jax.random.key(0), (3, 12))
    reports, errors = measure(recipe, coder, parameters, images)
    assert reports["uninformed subset"]["mean_absolute_error"] < 1e-5
    assert np.abs(errors["uninformed subset"]).max() < 1e-4
    assert reports["RLOO"]["mean_absolute_error"] > 1e-4
    assert Enumeration().evaluations((1, 5)) == 5


@pytest.mark.parametrize(
    ("recipe", "found", "change"),
    [
        (
            dataclasses.replace(TOY, method="without_replacement", num_samples=6, classes=5),
            "6 distinct choices",
            "draw fewer",
        ),
        (dataclasses.replace(BIAS, subset=33), "--subset 33 of 32", "lower --subset"),
    ],
)
def test_too_few_classes_are_refused(recipe, found, change, tmp_path):
    recipe = dataclasses.replace(recipe, out=tmp_path / "run")
    assert_names_itself_and_its_cure(recipe.run, found, "at most", change)
    assert not (tmp_path / "run").exists()


def test_by_default_the_autoencoder_trains_for_five_epochs():
    images = Images(*[(np.zeros((100, 4)), np.zeros(100))] * 3, classes=10)
    assert dataclasses.replace(BIAS, steps=None).settle(images).steps == 5 * 12


def test_options_of_an_estimator_are_settled():
    settled = dataclasses.replace(TOY, method="gumbel_straight_through").settle(None)
    assert settled.num_samples is None
    assert settled.temperature == settled.estimator.temperature > 0


@pytest.mark.parametrize(("name", "has"), [("arsm", "it has none"), ("rloo", "(--num-samples)")])
def test_only_options_that_are_flags_are_offered(name, has):
    def make():
        make_estimator(name, temperature=1.0)

    assert_names_itself_and_its_cure(make, f"--temperature 1.0 with --method {name}", has, "leave")
