"""Meshes: the devices as a grid with an axis for the batch and an axis for the tuples."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_instance

AXES = ("data", "tuples")
"""The batch is spread over ``data``, the continuous tuples and their points over ``tuples``."""


def make_mesh(axes: str | Mapping[str, int]) -> Mesh:
    """Arrange the first devices as a grid of ``data`` rows and ``tuples`` columns.

    ::

        make_mesh("data=2,tuples=3")            tuples 0   tuples 1   tuples 2
                                      data 0    device 0   device 1   device 2
                                      data 1    device 3   device 4   device 5

    Devices of one row stand next to each other, because they exchange most: each adds its part to
    the outputs of the row's slice of the batch.

    Args:
        axes: ``"data=4,tuples=2"``, or a mapping from names to lengths; an axis that is left out
            has length 1.

    Returns:
        mesh with the axes ``data`` and ``tuples``, of the first devices of ``jax.devices()``.

    Raises:
        ValueError: an unknown or repeated axis, a length that is no positive int, more devices than
            there are, or a process without any.

    Example:
        >>> from sparse_hyper_jax import dist
        >>> mesh = dist.make_mesh(f"data={jax.device_count()}")  # all devices share the batch
        >>> mesh.axis_names, mesh.shape["tuples"]
        (('data', 'tuples'), 1)
    """
    lengths = dict.fromkeys(AXES, 1) | _lengths(axes)
    count, devices = lengths["data"] * lengths["tuples"], jax.devices()
    checks.require(
        count <= len(devices),
        f"a mesh of {count} devices (data={lengths['data']}, tuples={lengths['tuples']})",
        f"at most the {len(devices)} devices that there are",
        "make an axis shorter (JAX_NUM_CPU_DEVICES=8 in the environment splits a CPU into eight)",
    )
    chosen = devices[:count]
    idle = set(range(jax.process_count())) - {device.process_index for device in chosen}
    checks.require(
        not idle,
        f"a mesh of {count} devices, none of them in process {min(idle, default=0)}",
        f"devices of all {jax.process_count()} processes",
        f"use all {len(devices)} devices or start fewer processes",
    )
    grid = np.asarray(chosen).reshape(lengths["data"], lengths["tuples"])
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_mesh(mesh: Mesh) -> None:
    """Raise unless ``mesh`` has the axes of :func:`make_mesh`.

    Raises:
        ValueError: no mesh, or one whose axes are missing or of another type.
    """
    check_instance("mesh", mesh, Mesh)
    checks.require(
        set(AXES) <= set(mesh.axis_names),
        f"a mesh with the axes {mesh.axis_names}",
        f"the axes {AXES}",
        "make it with make_mesh",
    )
    checks.require(
        all(kind == AxisType.Auto for kind in mesh.axis_types),
        f"a mesh with axes of the types {mesh.axis_types}",
        "AxisType.Auto, which leaves exchanges to the compiler",
        "make it with make_mesh",
    )


def check_divides(mesh: Mesh, axis: str, length: int, name: str) -> None:
    """Raise unless ``length`` things fall into equal parts along an axis of the mesh.

    Args:
        mesh: from :func:`make_mesh`.
        axis: ``"data"`` or ``"tuples"``.
        length: how many there are.
        name: what they are, in the plural.

    Raises:
        ValueError: the axis's length does not divide ``length``.
    """
    parts = mesh.shape[axis]
    checks.require(
        length % parts == 0,
        f"{length} {name} on a mesh with {axis}={parts}",
        f"a multiple of {parts}, so that every device has as many",
        f"change the number of {name} or the mesh",
    )


def spread(mesh: Mesh, axis: str) -> tuple[str, ...]:
    """Give an axis of the mesh for a ``PartitionSpec``, with all axes of length 1 behind it.

    They divide nothing; but over an axis that a spec leaves out ``shard_map`` sums gradients, and
    that is an exchange even where the sum has one term.
    """
    single = (name for name, length in mesh.shape.items() if length == 1)
    return (axis, *(name for name in single if name != axis))


def _lengths(axes: str | Mapping[str, int]) -> dict[str, int]:
    checks.require(
        isinstance(axes, str | Mapping),
        f"axes={axes!r:.80}",
        "names and lengths of axes",
        'write for instance "data=4,tuples=2"',
    )
    pairs = list(axes.items()) if isinstance(axes, Mapping) else _pairs(axes)
    names = [name for name, _ in pairs]
    lengths = {}
    for name, length in pairs:
        checks.check_choice("axis", name, AXES)
        checks.require(
            names.count(name) == 1,
            f"axis {name!r} more than once in {axes!r}",
            "every axis once",
            "leave one of them out",
        )
        lengths[name] = checks.check_count(name, length, least=1)
    return lengths


def _pairs(text: str) -> list[tuple[str, int]]:
    pairs = []
    for part in text.split(","):
        name, equals, length = (word.strip() for word in part.partition("="))
        checks.require(
            bool(name and equals) and length.isascii() and length.isdigit(),
            f"{part!r} in the mesh {text!r}",
            "an axis and its length, a positive int",
            'write for instance "data=4,tuples=2"',
        )
        pairs.append((name, int(length)))
    return pairs
