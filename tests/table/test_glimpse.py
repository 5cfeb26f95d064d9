"""Rows of the room ``glimpse``."""

import numpy as np

from sparse_hyper_jax import glimpse
from tests.table.columns import Table
from tests.table.examples import SAMPLED, SHAPE, between, eighths
from tests.table.row import Room, Row

READ = SAMPLED | {"num_local": 2}
PLACES = between(2, 3, 2)
WIDE = eighths(2, low=0.5, high=3.0)


def read(draws):
    return lambda key, *arguments: glimpse.extract(key, *arguments, draws=draws, **READ)


UNREAD = {0: "no window reads the first pixel"}

ROWS = [
    *(
        Row(
            f"{name}_corners",
            lambda raw, grid=grid: grid.corners(raw, SHAPE),
            (eighths(grid.count),),
        )
        for name, grid in glimpse.GRIDS.items()
    ),
    Row(
        "affine_corners, bounded=False",
        lambda raw: glimpse.affine_corners(raw, SHAPE, bounded=False),
        (eighths(6),),
    ),
    Row(
        "grid_means, upright_means",
        lambda four: (glimpse.grid_means(four, (3, 2)), glimpse.upright_means(four, (1, 4))),
        (eighths(4, 2),),
    ),
    Row("extract", read("glimpse"), (eighths(*SHAPE), PLACES, WIDE), keyed=True),
    Row(
        "extract, draws=pixel",
        read("pixel"),
        (eighths(*SHAPE, 2), PLACES, eighths(2, 3, 2, low=0.5, high=3.0)),
        keyed=True,
    ),
    Row(
        "extract_hard",
        glimpse.extract_hard,
        (eighths(*SHAPE, 2), PLACES),
        wide=False,
        dropped=UNREAD,
    ),
    Row(
        "extract_upright",
        glimpse.extract_upright,
        (eighths(*SHAPE, 2), PLACES[0, :, 0], PLACES[1, :, 1], WIDE),
    ),
    Row(
        "bilinear",
        glimpse.bilinear,
        (eighths(*SHAPE, 2), PLACES + np.float32([-1, 2])),
        dropped=UNREAD,
    ),
]

EXCEPTIONS = {
    "DRAWS": "a tuple of names, each of which a row tries",
    "GRIDS": "a table of functions, each of which has a row",
    "UPRIGHT": "a tuple of names of grids",
    "Grid": "a type",
}


class TestGlimpse(Table):
    room = Room(glimpse, ROWS, EXCEPTIONS)
