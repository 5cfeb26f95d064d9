"""A recipe that is killed and resumed ends as one that was not."""

import dataclasses
import shutil
from functools import partial

import pytest

from sparse_hyper_jax.train import recipe as skeleton
from sparse_hyper_jax.train import report
from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.owner import OWNER
from sparse_hyper_jax.train.recipes import packnet
from sparse_hyper_jax.train.run_folder import RunFolder

UNLIKE = {"seconds", "out", "resume"}


def run_and_keep(recipe, kept, *, saves=1):
    """Run a recipe; keep its folder as a kill leaves it right after that many checkpoints."""
    save, left = Checkpoints.save, [saves]

    def save_and_copy(self, *arguments):
        save(self, *arguments)
        left[0] -= 1
        if not left[0]:
            # The lock of a process that is dead is none.
            shutil.copytree(recipe.out, kept, ignore=shutil.ignore_patterns(OWNER))

    with pytest.MonkeyPatch.context() as patch:
        _save_at_every_boundary(patch)
        patch.setattr(Checkpoints, "save", save_and_copy)
        result = recipe.run()
    assert any(kept.rglob("_CHECKPOINT_METADATA"))
    assert not (kept / "result.json").exists()
    return result


def assert_ends_the_same(recipe, result, kept):
    """Resume what was kept, compare results."""
    with pytest.MonkeyPatch.context() as patch:
        _save_at_every_boundary(patch)
        # Pictures were seen.
        patch.setattr(RunFolder, "save_figure", lambda *arguments: None)
        patch.setattr(report, "write_report", lambda *arguments, **options: None)
        resumed = dataclasses.replace(recipe, out=kept, resume=True).run()
    assert told(resumed) == told(result)


def _save_at_every_boundary(patch):
    for module in (skeleton, packnet):
        patch.setattr(module, "train", partial(train, checkpoint_seconds=0.0))


def told(result):
    return {name: value for name, value in result.items() if name not in UNLIKE}
