import dataclasses
import json

import jax
import numpy as np
import pytest

from sparse_hyper_jax import dist
from sparse_hyper_jax.train.recipes import identity
from sparse_hyper_jax.train.recipes.identity import IdentityRecipe, initial_state, make_step
from sparse_hyper_jax.train.run_folder import RunFolder
from tests import folding
from tests.ops.examples import assert_close

from .examples import COMMON, collectives

STEPS = 12
HYPERLAYER_MESHES = ("tuples=2", "data=4,tuples=2", "data=2,tuples=2")[: 3 if folding.apart else 2]
RECIPES = {
    "hyperlayer": IdentityRecipe(size=8, batch=8, relocate_every=5),
    "chunks": IdentityRecipe(size=8, batch=8, relocate_every=0, chunk_size=2),
    "groups": IdentityRecipe(size=8, batch=8, relocate_every=0, sample_groups=2),
    "reinforce": IdentityRecipe(size=8, batch=8, method="reinforce"),
}


def scan_of(recipe):
    step = make_step(recipe)

    def scan(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, STEPS))

    if recipe.mesh is None:
        return jax.jit(scan), initial_state(recipe)
    mesh = dist.make_mesh(recipe.mesh)
    state = dist.shard_tuples(initial_state(recipe), mesh)
    return jax.jit(scan, out_shardings=(dist.tuple_shardings(state, mesh), None)), state


def steps_of(recipe):
    scan, state = scan_of(recipe)
    return scan(state, jax.random.key(1))


@pytest.fixture(scope="module")
def one_device():
    known = {}

    def result(name):
        if name not in known:
            known[name] = steps_of(RECIPES[name])
        return known[name]

    return result


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        *[("hyperlayer", mesh) for mesh in HYPERLAYER_MESHES],
        *[(name, "data=2,tuples=4") for name in ("chunks", "groups", "reinforce")],
    ],
)
def test_steps_are_those_of_one_device(name, mesh, one_device):
    recipe = dataclasses.replace(RECIPES[name], mesh=mesh)
    assert_close(steps_of(recipe), one_device(name), **COMMON)


def test_a_step_gathers_points_alone():
    recipe = IdentityRecipe(size=16, batch=8, relocate_every=0, mesh="data=2,tuples=4")
    scan, state = scan_of(recipe)
    exchanged = collectives(scan.lower(state, jax.random.key(1)).compile())
    points = 16 * (4 + 4 + 4)
    assert sorted(kind for name, kind in exchanged if name == "all-gather") == [
        f"f32[{points}]",
        "s32[16,12,2]",
    ]
    assert {name for name, _ in exchanged} == {"all-gather", "all-reduce", "reduce-scatter"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("mesh") / "run"
    recipe = IdentityRecipe(
        size=4, steps=STEPS, batch=8, relocate_every=0, out=out, quiet=True, mesh="data=2,tuples=2"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "draw", lambda recipe, folder: None)
        return recipe, recipe.run()


def test_recipe_on_a_mesh_writes_the_run_of_one_device(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "draw", lambda recipe, folder: None)
    recipe, result = finished
    alone = dataclasses.replace(recipe, mesh=None, out=tmp_path / "run")
    expected = alone.run()
    same = ("test_mse", "test_cells_found", "steps", "seed")
    assert_close({name: result[name] for name in same}, {name: expected[name] for name in same})
    for one, other in zip(
        RunFolder(recipe.out).metrics(), RunFolder(alone.out).metrics(), strict=True
    ):
        assert one.keys() == other.keys()
    with (
        np.load(recipe.out / "snapshots" / f"{STEPS:08d}.npz") as one,
        np.load(alone.out / "snapshots" / f"{STEPS:08d}.npz") as other,
    ):
        names = ("means", "variances", "values")
        assert_close(*({name: file[name] for name in names} for file in (one, other)), **COMMON)


def told(result):
    return {name: result[name] for name in ("test_mse", "test_cells_found", "steps", "out")}


def test_resumed_run_repeats_the_mesh_and_may_join_others(finished, monkeypatch):
    monkeypatch.setattr(identity, "draw", lambda recipe, folder: None)
    recipe, result = finished
    again = dataclasses.replace(recipe, resume=True)
    assert told(again.run()) == told(result)
    assert json.loads((recipe.out / "config.json").read_text())["fields"]["mesh"] == recipe.mesh
    with pytest.raises(ValueError, match="mesh was 'data=2,tuples=2' and is now 'data=4'"):
        dataclasses.replace(again, mesh="data=4").run()
    joined = []
    monkeypatch.setattr(identity.dist, "join_processes", lambda *words: joined.append(words))
    others = dataclasses.replace(again, coordinator="127.0.0.1:1234", rank=1, num_processes=2)
    assert told(others.run()) == told(result)
    assert joined == [("127.0.0.1:1234", 1, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mesh": "data=4,model=2"}, "found axis='model'"),
        ({"mesh": "tuples=3"}, "found --size 8 --mesh tuples=3; expected a multiple of tuples"),
        ({"mesh": "data=3"}, "found --batch 8 --mesh data=3; expected groups divided by 3"),
        ({"mesh": "data=8", "sample_groups": 2}, "found --batch 8 --mesh data=8"),
        ({"mesh": "tuples=4", "chunk_size": 4}, "found --chunk-size 4 --mesh tuples=4"),
        ({"num_processes": 2}, "found num_processes=2 without a coordinator"),
        ({"rank": 1}, "found rank=1 of num_processes=1"),
        ({"coordinator": "nowhere"}, "found coordinator='nowhere'; expected host:port"),
    ],
)
def test_wrong_meshes_are_refused_before_the_folder_is_made(tmp_path, options, message):
    recipe = IdentityRecipe(size=8, batch=8, out=tmp_path / "run", quiet=True, **options)
    with pytest.raises(ValueError, match=message):
        recipe.run()
    assert not (tmp_path / "run").exists()


def test_several_processes_need_a_mesh_and_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(identity.dist, "join_processes", lambda *words: None)
    recipe = IdentityRecipe(coordinator="127.0.0.1:1234", num_processes=2, quiet=True)
    with pytest.raises(ValueError, match=r"--num-processes 2 without a mesh; .* --mesh tuples=2"):
        recipe.run()
