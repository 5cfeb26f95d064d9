"""What every recipe promises, over the list in ``tiny.py``."""

import dataclasses
import functools
import json
import types
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from sparse_hyper_jax.train.cli import RECIPES, main
from sparse_hyper_jax.train.limits import flag
from sparse_hyper_jax.train.run_folder import to_plain
from tests.ops.examples import assert_names_itself_and_its_cure

from .killing import assert_ends_the_same, run_and_keep
from .tiny import TINY, example_source, recipe_class, tiny
from .toy import compiled_once

WRONG = {int: -1, float: float("inf"), bool: "yes", str: 8}
"""Values that no field of a type takes; -1 is below every limit of counts."""


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run a tiny recipe once, first with an option that is refused, in the same folder.

    Gives it, its result, and a copy of the folder as a kill would have left it.
    """

    @functools.cache
    def run(name):
        folder = tmp_path_factory.mktemp(name)
        recipe = tiny(name, out=folder / "run")
        with pytest.raises(ValueError, match="found --steps 0; expected an int of at least 1"):
            dataclasses.replace(recipe, steps=0).run()
        assert not recipe.out.exists()
        saves = 3 if name == "packnet" else 1  # in the second training of the first task
        return recipe, run_and_keep(recipe, folder / "killed", saves=saves), folder / "killed"

    return run


def test_every_recipe_is_listed():
    assert set(TINY) == {*RECIPES, "logistic"}
    assert all(recipe_class(name).name == name for name in TINY)


@pytest.mark.parametrize("name", TINY)
def test_result_holds_all_fields_as_numbers(name, finished):
    recipe, result, _ = finished(name)
    fields = {field.name for field in dataclasses.fields(recipe)}
    assert fields | {"seconds"} < set(result)
    given = to_plain(recipe)
    assert {one: result[one] for one in TINY[name].options} == {
        one: given[one] for one in TINY[name].options
    }
    assert result["out"] == str(recipe.out)
    assert result["seconds"] > 0
    assert json.loads((recipe.out / "result.json").read_text()) == result
    config = json.loads((recipe.out / "config.json").read_text())
    assert config["recipe"] == name
    assert {one: config["fields"][one] for one in fields} == {one: result[one] for one in fields}
    for settled in fields & {"learning_rate", "evaluate_every", "steps", "canvas", "window"}:
        assert result[settled] > 0


@pytest.mark.parametrize("name", TINY)
def test_figures_are_drawn(name, finished):
    recipe, *_ = finished(name)
    drawn = {path.name for path in recipe.out.glob("*.png")}
    assert drawn == set(TINY[name].figures)
    for figure in drawn:
        assert (recipe.out / figure).read_bytes().startswith(b"\x89PNG")


def test_an_int_beyond_all_floats_is_no_number():
    recipe = tiny("sort", learning_rate=10**400)
    assert_names_itself_and_its_cure(recipe.check, "--learning-rate 1000", "finite number", "")


@pytest.mark.parametrize("name", TINY)
def test_killed_and_resumed_run_ends_the_same(name, finished):
    assert_ends_the_same(*finished(name))


def wrong_values(hint):
    """Give values that a field of this annotation must refuse."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return [value for limit in parts[1:] for value in beyond(parts[0], limit)] + wrong_values(
            parts[0]
        )
    if origin in (Union, types.UnionType):
        return wrong_values(next(part for part in parts if part is not types.NoneType))
    if origin is Literal:
        return ["magic"]
    if origin is tuple:
        return [(value,) for value in wrong_values(parts[0])] + [3]
    return [WRONG[hint]] if hint in WRONG else [7]


def beyond(kind, limit):
    numbers = {int: (-1, 0, 1, 2**40), float: (-1.0, 0.0, 0.5, 1.5)}
    tried = numbers.get(kind, ((),))  # of tuples, the empty one
    outside = [value for value in tried if not limit.holds(value)]
    assert outside, limit.expected
    return outside


@pytest.mark.parametrize("name", TINY)
def test_every_limit_is_refused_in_the_words_of_the_command_line(name, tmp_path):
    recipe = tiny(name, out=tmp_path / "run")
    hints = get_type_hints(type(recipe), include_extras=True)
    for field in dataclasses.fields(recipe):
        for value in wrong_values(hints[field.name]):
            # Ranks and processes have limits that only dist knows.
            if field.name in ("rank", "num_processes") and value == -1:
                continue
            wrong = dataclasses.replace(recipe, **{field.name: value})
            assert_names_itself_and_its_cure(wrong.check, flag(field.name), "", flag(field.name))
            assert_names_itself_and_its_cure(wrong.run, flag(field.name), "", flag(field.name))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_help_tells_every_field_and_a_typo_is_refused(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    names = [field.name for field in dataclasses.fields(recipe_class(name))]
    assert all(flag(field) in told for field in names)
    typos = [flag(field) + "z" for field in names]
    with pytest.raises(SystemExit) as ended:
        main([name, *typos])
    assert ended.value.code == 2
    refused = capsys.readouterr().err
    assert all(typo in refused for typo in typos)


IGNORED = [
    ("sort", {"num_near": 1}, "--num-near 1 with --method soft"),
    ("sort", {"num_candidates": 4}, "--num-candidates 4 with --method soft"),
    ("sort", {"num_samples": 8}, "--num-samples 8 with --method soft"),
    ("sort", {"payload": "images"}, "--payload images with --loss order"),
    (
        "sort",
        {"method": "mixture", "loss": "plain", "learn_certainty": False},
        "--no-learn-certainty with --method mixture",
    ),
    ("sort", {"method": "rloo", "loss": "plain", "num_near": 1}, "--num-near 1 with --method rloo"),
    ("identity", {"num_samples": 2}, "--num-samples 2 with --method hyperlayer"),
    ("identity", {"method": "reinforce", "num_global": 0}, "--num-global 0 with --method reinf"),
    ("identity", {"method": "rloo", "chunk_size": 2}, "--chunk-size 2 with --method rloo"),
    ("identity", {"method": "rloo", "sample_groups": 2}, "--sample-groups 2 with --method rloo"),
    (
        "identity",
        {"method": "arm", "num_global": 0, "num_local": 0, "tuple_density": "laplace"},
        "--tuple-density laplace with --method arm",
    ),
    ("identity", {"num_local": 0, "region": 3}, "--region 3 with --num-local 0"),
    (
        "identity",
        {"relocate_every": 0, "relocation_points": 9},
        "--relocation-points 9 with --relocate-every 0",
    ),
    ("glimpse", {"method": "conv"}, "--head mlp with --method conv"),
    ("glimpse", {"method": "stn", "num_local": 1}, "--num-local 1 with --method stn"),
    ("glimpse", {"points_per": "pixel"}, "--points-per pixel with --method scale"),
    ("glimpse", {"method": "given"}, "--width 8 with --method given"),
    ("glimpse", {"head_channels": (4,)}, "--head-channels 4 with --head mlp"),
    ("glimpse", {"warped": "digit"}, "--warped digit with --warp 0.0"),
    (
        "glimpse",
        {"rotated": True, "distractor_size": 4},
        "--distractor-size 4 with --rotated",
    ),
    (
        "glimpse",
        {"data": "cluttered", "data_dir": "."},
        "--canvas 28 with --data cluttered",
    ),
    ("sparse-backprop", {"method": "dense"}, "--ratio 0.25 with --method dense"),
    (
        "sparse-backprop",
        {"method": "error-feedback", "granularity": "shared"},
        "--granularity shared with --method error-feedback",
    ),
    (
        "sparse-backprop",
        {"memory": 0.0, "granularity": "shared"},
        "--granularity shared with --memory 0.0",
    ),
    ("powerprop", {"density": 0.2}, "--density 0.2 with --method dense"),
    ("powerprop", {"method": "static", "grown_size": 0.1}, "--grown-size 0.1 with --method static"),
    ("packnet", {"target": 0.5}, "--target 0.5 with --method packnet"),
    ("packnet", {"method": "sequential"}, "--keep 0.5 --retrain-steps 10 with --method sequential"),
    ("experts", {"jitter": 0.1}, "--jitter 0.1 with --method default"),
    ("experts", {"method": "top", "average": 0.5}, "--average 0.5 with --method top"),
    ("univariate", {"temperature": 1.0}, "--temperature 1.0 with --method arsm"),
    ("vae", {"method": "arsm", "num_samples": 3}, "--num-samples 3 with --method arsm"),
    ("subset-bias", {"download": True}, "--download with --data digits"),
    ("tbptt", {"lag": 5}, "--lag 5 with --method bound"),
    (
        "tbptt",
        {"method": "fixed", "delta": 0.75},
        "--delta 0.75 --largest-lag 6 with --method fixed",
    ),
    ("tbptt", {"data_dir": "."}, "--data-dir"),
    ("tbptt", {"task": "text"}, "--delay 3 --symbols 2 with --task text"),
    ("audio-to-image", {"validate": False}, "--no-validate with --task halves"),
    ("erbp", {"validate": False}, "--no-validate with --task disc"),
    (
        "erbp",
        {"task": "nmnist", "data_dir": ".", "discs": 400, "validate": False},
        "--evaluate-every 10 with --no-validate",
    ),
    ("delays", {"held_out": 2, "width": 8}, "--held-out 2 --width 8 with --task sum"),
    ("delays", {"method": "gaussian"}, "--groups 2 with --method gaussian"),
    ("delays", {"num_local": 1}, "--num-local 1 with --method pursuit"),
    ("delays", {"task": "fsdd", "data_dir": "."}, "--channels 2 with --task fsdd"),
    ("lags", {"targets": ("y",)}, "--targets y with --task series"),
    ("lags", {"task": "canvas"}, "--channels 2 with --task canvas"),
    ("lags", {"method": "random"}, "--most-taps 3 --min-gain 0.5 with --method random"),
    ("lags", {"given": (1, 2)}, "--given 1 2 with --method pursuit"),
    ("lags", {"taps": 2}, "--most-taps 3 --min-gain 0.5 with --taps 2"),
]


@pytest.mark.parametrize(("name", "options", "found"), IGNORED)
def test_options_without_effect_are_refused(name, options, found, tmp_path, capsys):
    if "data_dir" in options:
        options = options | {"data_dir": tmp_path}
    recipe = tiny(name, out=tmp_path / "run", quiet=False, **options)
    assert_names_itself_and_its_cure(recipe.run, found, "", "leave")
    assert not (tmp_path / "run").exists()
    assert "run folder" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in TINY if hasattr(recipe_class(name), "data")])
def test_files_need_a_folder_and_an_epoch_a_batch(name, tmp_path):
    out = tmp_path / "run"
    recipe = tiny(name, out=out, data="mnist")
    assert_names_itself_and_its_cure(recipe.run, "--data mnist without", "folder", "--data-dir")
    if name not in ("sort", "glimpse"):  # these draw their images with replacement
        recipe = tiny(name, out=out, batch=5000)
        assert_names_itself_and_its_cure(
            recipe.run, "--batch 5000 with 1297", "at most", "lower --batch"
        )
    assert not out.exists()


def test_a_run_of_before_is_refused_and_left_alone(tmp_path):
    fields = {"estimator": "soft", "n": 3, "steps": 20, "seed": 0, "batch": 4}
    old = json.dumps({"recipe": "sort", "fields": fields, "versions": {"sparse_hyper_jax": "0"}})
    (tmp_path / "config.json").write_text(old)
    recipe = tiny("sort", out=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"found .*config\.json.*; expected .*; .*--out DIR"):
        recipe.run()
    assert (tmp_path / "config.json").read_text() == old


def test_the_example_of_the_page_is_short_and_learns(tmp_path):
    assert len(example_source().splitlines()) <= 80
    result = recipe_class("logistic")(out=tmp_path / "run", quiet=True).run()
    assert result["test_accuracy"] > 0.9
