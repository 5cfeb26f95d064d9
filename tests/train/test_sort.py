from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.data import index_by_class, load_splits
from sparse_hyper_jax.train.models.sequence_losses import LOSSES
from sparse_hyper_jax.train.recipes.sort import SortRecipe, make_model, make_step
from tests.ops.examples import assert_names_itself_and_its_cure

SMALL = SortRecipe(n=3, batch=4, steps=20, quiet=True)
WAYS = [(method, loss) for method, losses in LOSSES.items() for loss in losses]


def train_once(recipe):
    index = index_by_class(load_splits("digits", None, seed=0).train)
    keys_of, state = make_model(recipe, index.images.shape[1:])
    step = jax.jit(make_step(recipe, keys_of))
    first, metrics = step(state, jax.random.key(0), index)
    # The schedule starts at zero: the second step is the first to move anything.
    second, _ = step(first, jax.random.key(1), index)
    return state.parameters, second.parameters, metrics


@pytest.mark.parametrize(("method", "loss"), WAYS)
def test_every_way_reaches_the_key_network(method, loss):
    before, after, metrics = train_once(replace(SMALL, method=method, loss=loss))
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before.network, after.network)
    assert all(0 < leaf < 1 for leaf in jax.tree.leaves(moved))


@pytest.mark.parametrize("learned", [True, False])
def test_certainty_is_learned_if_asked_for(learned):
    before, after, _ = train_once(replace(SMALL, weight_decay=0.0, learn_certainty=learned))
    assert (after.log_certainty != before.log_certainty) == learned


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"method": "rloo", "learn_certainty": True}, "--loss order --method rloo"),
        ({"loss": "means"}, "--loss means --method soft"),
        ({"n": 11}, "--n 11 distinct numbers of 1 digits"),
        (
            {"method": "mixture", "loss": "plain", "num_near": 16},
            "--num-near 16 --num-candidates 16",
        ),
        ({"digits": 12}, "12"),
        ({"channels": ()}, "--channels"),
        ({"channels": (4, 4, 4, 4)}, "--channels 4 4 4 4 with digits of 8 x 8"),
    ],
)
def test_wrong_options(wrong, found, tmp_path):
    recipe = replace(SMALL, out=tmp_path / "run", **wrong)
    assert_names_itself_and_its_cure(recipe.run, found, "", "")
    assert not (tmp_path / "run").exists()
