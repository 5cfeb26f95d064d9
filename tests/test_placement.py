import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.placement import gathered, placed_like, product_over_rows, with_whole_rows

ARRAY = np.arange(64, dtype="f").reshape(8, 8)


def placed(spec, kind="Explicit"):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    return jax.device_put(ARRAY, jax.NamedSharding(mesh, spec))


def spec_of(function, *arrays):
    return tuple(jax.typeof(jax.jit(function)(*arrays)).sharding.spec)


@pytest.mark.parametrize("spec", [jax.P(None, "d"), jax.P("d")])
def test_an_array_is_gathered_and_spread_again(spec):
    array = placed(spec)
    assert spec_of(gathered, array) == (None, None)
    assert spec_of(lambda one: placed_like(gathered(one), one), array) == (*spec, None)[:2]
    assert np.array_equal(gathered(array), ARRAY)


def test_rows_may_stay_spread():
    assert spec_of(with_whole_rows, placed(jax.P("d"))) == ("d", None)
    assert spec_of(with_whole_rows, placed(jax.P(None, "d"))) == (None, None)


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_a_product_over_rows_is_whole(kind):
    array = placed(jax.P("d"), kind)
    product = jax.jit(product_over_rows)(array, array)
    np.testing.assert_allclose(product, ARRAY.T @ ARRAY)
    assert product.sharding.is_fully_replicated or kind == "Auto"


def test_elsewhere_nothing_is_done():
    for array in (jnp.asarray(ARRAY), placed(jax.P("d"), "Auto")):
        assert gathered(array) is array
        assert with_whole_rows(array) is array
        assert placed_like(array, array) is array
