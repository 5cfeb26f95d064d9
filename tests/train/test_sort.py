from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.data import index_by_class, load_splits
from sparse_hyper_jax.train.recipes.sort import LOSSES, SortRecipe, make_model, make_step

SMALL = SortRecipe(n=3, batch=4, steps=20, quiet=True)
WAYS = [(estimator, loss) for estimator, losses in LOSSES.items() for loss in losses]


def train_once(recipe):
    index = index_by_class(load_splits("digits", None, seed=0).train)
    keys_of, state = make_model(recipe, index.images.shape[1:])
    step = jax.jit(make_step(recipe, keys_of))
    first, metrics = step(state, jax.random.key(0), index)
    # The schedule starts at zero: the second step is the first to move anything.
    second, _ = step(first, jax.random.key(1), index)
    return state.parameters, second.parameters, metrics


@pytest.mark.parametrize(("estimator", "loss"), WAYS)
def test_every_way_reaches_the_key_network(estimator, loss):
    before, after, metrics = train_once(replace(SMALL, estimator=estimator, loss=loss))
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before.network, after.network)
    assert all(0 < leaf < 1 for leaf in jax.tree.leaves(moved))


@pytest.mark.parametrize("learned", [True, False])
def test_certainty_is_learned_if_asked_for(learned):
    before, after, _ = train_once(replace(SMALL, weight_decay=0.0, learn_certainty=learned))
    assert (after.log_certainty != before.log_certainty) == learned


def test_a_run_reports_test_digits(tmp_path):
    result = replace(SMALL, out=tmp_path / "run").run()
    assert 0 <= result["exact_match"] <= result["element_match"] <= 1
    assert (tmp_path / "run" / "sorted.png").exists()


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"estimator": "rloo"}, "loss='order' with estimator='rloo'"),
        ({"loss": "means"}, "loss='means' with estimator='soft'"),
        ({"warp": -1.0}, "warp=-1.0"),
        ({"certainty": 0.0}, "certainty=0.0"),
    ],
)
def test_wrong_options(wrong, found):
    with pytest.raises(ValueError, match="found " + found):
        replace(SMALL, **wrong).run()
