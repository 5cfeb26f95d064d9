"""A tiny run of every recipe, also of the example in docs/contributing.md.

A recipe that is listed here is tested by ``test_recipes.py``.
"""

import importlib
import re
import sys
import types
from pathlib import Path
from typing import NamedTuple

from sparse_hyper_jax.train.cli import RECIPES
from sparse_hyper_jax.train.recipe import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "contributing.md"


class Tiny(NamedTuple):
    """Options of a run of a few seconds, two dispatches at least, and the figures it draws."""

    options: dict
    figures: tuple[str, ...]


TINY = {
    "sort": Tiny(
        {"n": 3, "batch": 4, "steps": 20, "evaluate_every": 10, "channels": (4,)}, ("sorted.png",)
    ),
    "identity": Tiny({"size": 4, "batch": 8, "steps": 120}, ("tuples.png",)),
    "glimpse": Tiny(
        {
            "canvas": 28,
            "batch": 2,
            "width": 8,
            "head": "mlp",
            "warp": 0.0,
            "steps": 20,
            "evaluate_every": 10,
        },
        ("glimpses.png",),
    ),
    "sparse-backprop": Tiny(
        {"hidden": (16,), "ratio": 0.25, "steps": 20, "evaluate_every": 10}, ("training.png",)
    ),
    "powerprop": Tiny({"hidden": (12, 8), "steps": 20, "evaluate_every": 10}, ("pruning.png",)),
    "packnet": Tiny(
        {
            "method": "packnet",
            "hidden": (12,),
            "tasks": 2,
            "keep": 0.5,
            "steps": 20,
            "retrain_steps": 10,
        },
        ("tasks.png",),
    ),
    "experts": Tiny(
        {
            "method": "default",
            "num_experts": 4,
            "width": 8,
            "expert_width": 6,
            "steps": 20,
            "evaluate_every": 10,
        },
        (),
    ),
    "associated": Tiny(
        {"depth": 3, "width": 8, "hyperlayer": 2, "steps": 20, "evaluate_every": 10},
        ("training.png",),
    ),
    "spiking-autoencoder": Tiny(
        {"width": 8, "time_steps": 3, "batch": 20, "steps": 20, "evaluate_every": 10},
        ("curve.png", "reconstructions.png"),
    ),
    "audio-to-image": Tiny(
        {
            "hidden": (8,),
            "width": 6,
            "time_steps": 3,
            "image_time_steps": 2,
            "batch": 20,
            "image_steps": 10,
            "steps": 20,
            "evaluate_every": 10,
        },
        ("curve.png", "syntheses.png"),
    ),
    "erbp": Tiny(
        {
            "discs": 24,
            "window": 6,
            "time_steps": 8,
            "hidden": (6,),
            "steps": 20,
            "evaluate_every": 10,
        },
        ("curve.png",),
    ),
    "univariate": Tiny({"classes": 5, "steps": 120, "draws": 50}, ("reward.png",)),
    "subset-bias": Tiny(
        {"classes": 8, "hidden": (8,), "subset": 3, "draws": 20, "steps": 120}, ("errors.png",)
    ),
    "vae": Tiny(
        {"variables": 2, "classes": 3, "hidden": (8,), "steps": 20, "evaluate_every": 10},
        ("curve.png", "reconstructions.png"),
    ),
    "tbptt": Tiny(
        {
            "delay": 3,
            "symbols": 2,
            "length": 60,
            "batch": 4,
            "width": 6,
            "window": 12,
            "largest_lag": 6,
            "positions": 2,
            "steps": 3,
        },
        ("lags.png",),
    ),
    "lags": Tiny(
        {
            "channels": 2,
            "length": 500,
            "reach": 70,
            "restarts": 2,
            "hidden": (6, 4),
            "window": 16,
            "most_taps": 3,
            "min_gain": 0.5,
            "steps": 20,
            "evaluate_every": 10,
        },
        ("lags.png",),
    ),
    "delays": Tiny(
        {"channels": 2, "reach": 6, "groups": 2, "batch": 4, "steps": 20, "evaluate_every": 10},
        ("curve.png", "delays.png"),
    ),
    "wiring": Tiny(
        {
            "nodes": 8,
            "edges": 2,
            "samples": 100,
            "swaps": 1,
            "probe_samples": 50,
            "width": 4,
            "batch": 10,
            "steps": 20,
            "evaluate_every": 10,
        },
        ("wiring.png",),
    ),
    "citations": Tiny(
        {
            "method": "pursuit",
            "keep": 0.5,
            "neighbours": 2,
            "width": 4,
            "steps": 20,
            "evaluate_every": 10,
        },
        ("training.png",),
    ),
    "characters": Tiny(
        {
            "length": 12,
            "depth": 1,
            "width": 8,
            "heads": 2,
            "pointers": 1,
            "near": 2,
            "num_global": 1,
            "num_local": 1,
            "batch": 2,
            "warmup": 5,
            "steps": 20,
            "evaluate_every": 10,
        },
        ("training.png",),
    ),
    "logistic": Tiny({"steps": 20, "evaluate_every": 10}, ()),
}


def recipe_class(name: str) -> type[Recipe]:
    """Give a recipe's class; that of the example comes from the page."""
    if name in RECIPES:
        module, _, attribute = RECIPES[name].target.partition(":")
        return getattr(importlib.import_module(module), attribute)
    return example().LogisticRecipe


def example_source() -> str:
    """Give the first Python block of the page."""
    return re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def example() -> types.ModuleType:
    """Make a module of the page's example."""
    name = "tests.train.example_of_the_page"
    if name not in sys.modules:
        sys.modules[name] = module = types.ModuleType(name)
        exec(compile(example_source(), str(PAGE), "exec"), vars(module))
    return sys.modules[name]


def tiny(name: str, **options) -> Recipe:
    """Make the tiny recipe of that name, with options changed."""
    return recipe_class(name)(**(TINY[name].options | {"quiet": True} | options))
