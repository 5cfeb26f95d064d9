"""Glimpses: read a small window of a large image, at a place that is learned.

::

    raw (3 to 8,)      grids.py      box, scale, affine or quad: corners of a window (4, 2)
         |                           grid_means: places of its pixels (h, w, 2)
    continuous tuples  points.py     neighbours, global and local pixels of each
         |
    integer tuples     extract.py    shares by density, gather, sum -> (h, w, C)
         |
    window

Between the corners and the window stand four ways to read: :func:`extract` samples (training),
:func:`extract_hard` rounds (evaluation), :func:`extract_upright` shares among all pixels at once,
where the window is upright, and :func:`bilinear` is the spatial transformer's, to compare with.
Everything is written for one image and one window: batches come by ``jax.vmap``. Signals and
volumes are read with ``rank=1`` and ``rank=3``, at :func:`box_means`; :func:`thin_plate_means`
bends a grid.

Reference: Bloem 2018, arXiv 1810.09184.
"""

from sparse_hyper_jax.glimpse.bilinear import bilinear
from sparse_hyper_jax.glimpse.extract import extract, extract_hard
from sparse_hyper_jax.glimpse.fills import box_means, thin_plate_means
from sparse_hyper_jax.glimpse.grids import (
    GRIDS,
    UPRIGHT,
    Grid,
    affine_corners,
    box_corners,
    grid_means,
    quad_corners,
    scale_corners,
    upright_means,
)
from sparse_hyper_jax.glimpse.padding import PADDINGS
from sparse_hyper_jax.glimpse.points import DRAWS
from sparse_hyper_jax.glimpse.upright import extract_upright

__all__ = [
    "DRAWS",
    "GRIDS",
    "PADDINGS",
    "UPRIGHT",
    "Grid",
    "affine_corners",
    "bilinear",
    "box_corners",
    "box_means",
    "extract",
    "extract_hard",
    "extract_upright",
    "grid_means",
    "quad_corners",
    "scale_corners",
    "thin_plate_means",
    "upright_means",
]
