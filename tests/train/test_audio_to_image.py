import jax.numpy as jnp
import pytest

from sparse_hyper_jax.train.models.pictures_of_sounds import Pairs
from sparse_hyper_jax.train.recipes.audio_to_image import AudioToImageRecipe
from tests.ops.examples import assert_names_itself_and_its_cure

PART = jnp.ones((200, 64)), jnp.zeros(200, int)
PAIRS = Pairs(PART, PART, PART, PART, jnp.ones((10, 64)))


@pytest.mark.parametrize("options", [{"steps": 60}, {"steps": 10, "image_steps": 11}])
def test_steps_that_leave_none_for_sounds_are_told(options):
    recipe = AudioToImageRecipe(**options)
    assert_names_itself_and_its_cure(
        lambda: recipe.settle(PAIRS), f"--steps {options['steps']} of which", "sounds", "--steps"
    )
    assert AudioToImageRecipe(steps=61).settle(PAIRS).image_steps == 60


@pytest.mark.parametrize(
    ("options", "held_out"),
    [({}, None), ({"split": "speaker"}, 0), ({"split": "speaker", "held_out": 3}, 3)],
)
def test_a_speaker_is_recorded_where_one_is_left_out(options, held_out):
    recipe = AudioToImageRecipe(task="fsdd", **options)
    assert recipe.settle(PAIRS).held_out == held_out
