from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from sparse_hyper_jax import dist
from sparse_hyper_jax.dist.mesh import check_mesh, spread


@pytest.mark.parametrize(
    ("axes", "lengths"),
    [
        ("data=4,tuples=2", (4, 2)),
        ("tuples=2,data=4", (4, 2)),
        (" tuples = 3 ", (1, 3)),
        ("data=1", (1, 1)),
        ({"data": 2, "tuples": 2}, (2, 2)),
        ({"tuples": 8}, (1, 8)),
        ({"tuples": np.prod((2, 2))}, (1, 4)),
        ({}, (1, 1)),
    ],
)
def test_mesh_of_the_first_devices(axes, lengths):
    mesh = dist.make_mesh(axes)
    assert mesh.axis_names == ("data", "tuples")
    assert mesh.devices.shape == lengths
    assert list(mesh.devices.flat) == jax.devices()[: np.prod(lengths)]
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert mesh == dist.make_mesh(axes)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("", "found '' in the mesh ''; expected an axis and its length.*; write for instance"),
        ("data", "found 'data' in the mesh 'data'"),
        ("data=2,", "found '' in the mesh 'data=2,'"),
        ("data=two", "found 'data=two'"),
        ("data=-2", "found 'data=-2'"),
        ("data=2.0", "found 'data=2.0'"),
        ("=2", "found '=2'"),
        ("data=²", "found 'data=²'"),
        ("data=0", "found data=0; expected an int of at least 1"),
        ({"tuples": 2.0}, "found tuples=2.0; expected an int"),
        ({"tuples": True}, "found tuples=True; expected an int"),
        (8, 'found axes=8; expected names and lengths of axes; write for instance "data=4'),
        (None, "found axes=None; expected"),
        (["data=2"], "found axes="),
        ({2: 2}, "found axis=2; expected one of"),
        ("model=2", "found axis='model'; expected one of 'data', 'tuples'"),
        ("data=2,data=4", "found axis 'data' more than once in 'data=2,data=4'; .*leave one"),
        (
            "data=3,tuples=3",
            r"found a mesh of 9 devices \(data=3, tuples=3\); expected at most the 8 .*"
            "JAX_NUM_CPU_DEVICES",
        ),
    ],
)
def test_wrong_meshes_are_named(axes, message):
    with pytest.raises(ValueError, match=message):
        dist.make_mesh(axes)


def test_a_process_without_devices_is_named(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="none of them in process 1; expected devices of all 2"):
        dist.make_mesh("data=4")


def test_another_mesh_is_refused():
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("rows",))
    with pytest.raises(ValueError, match=r"axes \('rows',\); expected the axes .*make_mesh"):
        check_mesh(mesh)


@pytest.mark.parametrize(
    "mesh", [None, 8, "data=2", jax.sharding.Mesh, jax.make_mesh((1, 1), ("data", "tuples"))]
)
def test_what_is_no_mesh_of_ours_is_refused(mesh):
    for call in (
        check_mesh,
        partial(dist.shard_tuples, np.ones(4)),
        partial(dist.shard_batch, np.ones(4)),
        partial(dist.tuple_shardings, np.ones(4)),
    ):
        with pytest.raises(ValueError, match=r"found .*; expected .*; "):
            call(mesh)


def test_axes_of_length_one_are_mentioned_behind_others():
    assert spread(dist.make_mesh("data=2,tuples=2"), "data") == ("data",)
    assert spread(dist.make_mesh("data=2"), "data") == ("data", "tuples")
    assert spread(dist.make_mesh("data=1"), "tuples") == ("tuples", "data")
