"""How many random points each tuple gets, and from where: checked once."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_random_key
from sparse_hyper_jax.ops.distances import DENSITIES, Density
from sparse_hyper_jax.ops.own_draws import GLOBAL_FROM, GlobalFrom


class Counts(NamedTuple):
    """How many random points each tuple gets; checked, see :func:`check_counts`.

    Attributes:
        num_global: points drawn from all cells, or by the tuple's density.
        num_local: points drawn from the window.
        region: lengths of the window; empty without local points.
        density: that by which global points are drawn; None if all cells are alike.
    """

    num_global: int
    num_local: int
    region: tuple[int, ...]
    density: Density | None = None


def check_counts(
    key: jax.Array | None,
    shape: tuple[int, ...],
    num_global: int,
    num_local: int,
    region: Sequence[int] | None,
    *,
    global_from: GlobalFrom = "uniform",
    density: Density = "gaussian",
) -> Counts:
    """Return how many points to draw after checking that they can be drawn.

    Args:
        key: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        shape: see there.
        num_global: see there.
        num_local: see there.
        region: see there.
        global_from: see there.
        density: see there.

    Raises:
        ValueError: negative counts, a missing key, an unknown name, or a region that is missing or
            does not fit.
    """
    checks.check_choice("global_from", global_from, GLOBAL_FROM)
    checks.check_choice("density", density, tuple(DENSITIES))
    drawn_by = density if global_from == "density" else None
    num_global = checks.check_count("num_global", num_global)
    num_local = checks.check_count("num_local", num_local)
    if key is not None:
        check_random_key(key)
    checks.require(
        key is not None or not (num_global or num_local),
        f"key=None with num_global={num_global} and num_local={num_local}",
        "a key, because global and local points are random",
        "pass jax.random.key(seed), or set both counts to 0",
    )
    if region is None:
        checks.require(
            num_local == 0,
            f"num_local={num_local} without a region",
            "the window from which local points are drawn",
            f"pass region, one length per axis of shape {shape}, or num_local=0",
        )
        return Counts(num_global, num_local, (), drawn_by)
    region = checks.check_index_shape("region", region)
    checks.require(
        len(region) == len(shape),
        f"region {region} of length {len(region)}",
        f"length {len(shape)}, one entry per axis of shape {shape}",
        "give region one window length per learned axis",
    )
    return Counts(num_global, num_local, region, drawn_by)
