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
    Row(
        "grid_means, perspective",
        lambda four: glimpse.grid_means(four, (3, 2), perspective=True),
        (np.float32([[0, 0.5], [0.25, 3], [4, 5], [3, 0.25]]),),
    ),
    Row("box_means", lambda raw: glimpse.box_means(raw, (4, 5, 3), (2, 1, 3)), (eighths(6),)),
    Row(
        "thin_plate_means",
        lambda controls: glimpse.thin_plate_means(controls, (3, 4)),
        (eighths(2, 3, 2),),
    ),
    Row("extract", read("glimpse"), (eighths(*SHAPE), PLACES, WIDE), keyed=True),
    Row(
        "extract, draws=pixel",
        read("pixel"),
        (eighths(*SHAPE, 2), PLACES, eighths(2, 3, 2, low=0.5, high=3.0)),
        keyed=True,
    ),
    Row(
        "extract, rank=1, padding=reflection",
        lambda key, *arguments: glimpse.extract(
            key, *arguments, num_global=2, num_local=2, padding="reflection", rank=1
        ),
        (eighths(5, 2), np.float32([[-0.75], [1.625], [4.625]]), WIDE[:1]),
        keyed=True,
    ),
    Row(
        "extract, rank=3",
        lambda key, *arguments: glimpse.extract(
            key, *arguments, num_global=2, num_local=2, region=(2, 2, 3), rank=3
        ),
        (
            eighths(3, 4, 3),
            np.float32([[0.625, 1.375, 0.375], [1.25, 2.125, 1.625]]),
            eighths(3, low=0.5, high=3.0),
        ),
        keyed=True,
        dropped=UNREAD,
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
    *(
        Row(
            f"bilinear, padding={padding}, rank=3",
            lambda image, means, padding=padding: glimpse.bilinear(
                image, means, padding=padding, rank=3
            ),
            (eighths(3, 4, 3), np.float32([[-0.75, 1.375, 0.625], [0.375, 3.625, -0.25]])),
            dropped=UNREAD,
        )
        for padding in ("border", "reflection")
    ),
]

EXCEPTIONS = {
    "DRAWS": "a tuple of names, each of which a row tries",
    "PADDINGS": "a tuple of names, each of which a row tries",
    "GRIDS": "a table of functions, each of which has a row",
    "UPRIGHT": "a tuple of names of grids",
    "Grid": "a type",
}


class TestGlimpse(Table):
    room = Room(glimpse, ROWS, EXCEPTIONS)
