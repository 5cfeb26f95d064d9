"""Calls of ``glimpse``."""

import numpy as np

from sparse_hyper_jax import glimpse
from tests.fuzz import draw
from tests.fuzz.wrong import Call, array, choice, count, flag, key, shape

SIDES = (6, 5)


def image(rng):
    return array(
        draw.reals(rng, SIDES),
        ranks=False,
        lengths=False,
        bad=(np.ones(3), np.ones((0, 3)), np.ones((2, 2, 2, 2))),
    )


def means(rng):
    return array(draw.means(rng, 3, SIDES), ranks=False, lengths=False, last=True)


def corners(rng):
    name = draw.pick(rng, *glimpse.GRIDS)
    grid = glimpse.GRIDS[name]
    arguments = {"raw": array(draw.reals(rng, (grid.count,))), "shape": shape(SIDES)}
    arguments |= {"bounded": flag(True)} if name == "affine" else {}
    return Call(f"glimpse.{name}_corners", getattr(glimpse, f"{name}_corners"), arguments, 2)


def grids(rng):
    name = draw.pick(rng, "grid_means", "upright_means")
    arguments = {"corners": array(draw.reals(rng, (4, 2)), last=True), "window": shape((3, 2))}
    return Call(f"glimpse.{name}", getattr(glimpse, name), arguments, 2)


def extract(rng):
    arguments = {"key": key(), "image": image(rng), "means": means(rng)}
    arguments |= {"variances": array(np.ones((3, 2)), ranks=False, last=True)}
    arguments |= {
        "num_global": count(2),
        "num_local": count(2),
        "region": shape((3, 3), optional=True),
        "draws": choice("pixel"),
        "global_from": choice("density"),
    }
    return Call("glimpse.extract", glimpse.extract, arguments, 4)


def read(rng):
    name = draw.pick(rng, "extract_hard", "bilinear")
    return Call(
        f"glimpse.{name}", getattr(glimpse, name), {"image": image(rng), "means": means(rng)}, 2
    )


def upright(rng):
    arguments = {
        "image": image(rng),
        "rows": array([0.5, 1.5], lengths=False),
        "columns": array([1.0, 2.0, 3.0], lengths=False),
    }
    arguments["variances"] = array([1.0, 2.0])
    return Call("glimpse.extract_upright", glimpse.extract_upright, arguments, 4)


CALLS = (corners, grids, extract, extract, read, upright)
