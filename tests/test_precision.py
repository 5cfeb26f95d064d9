import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.precision import at_least_float32, float_dtype, wide_dtype

NARROW = ["bool", "int8", "int32", "uint32", "float16", "bfloat16", "float32", "float8_e4m3fn"]


@pytest.mark.parametrize("promotion", ["standard", "strict"])
@pytest.mark.parametrize("dtype", NARROW)
def test_all_of_up_to_32_bits_becomes_float32(dtype, promotion):
    with jax.numpy_dtype_promotion(promotion):
        wide = at_least_float32(np.ones(2, jnp.dtype(dtype)))
    assert wide.dtype == jnp.float32
    assert wide.tolist() == [1, 1]


@pytest.mark.parametrize("numbers", [1, 0.5, [1, 2], np.float16(3), np.ones((2, 3), bool)])
def test_takes_what_asarray_takes(numbers):
    wide = at_least_float32(numbers)
    assert wide.dtype == jnp.float32
    assert wide.tolist() == np.asarray(numbers, np.float32).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_wide_arrays_stay_what_they_are(dtype):
    with jax.enable_x64(True):
        array = jnp.ones(2, dtype)
        assert at_least_float32(array).dtype == dtype


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        # jnp.promote_types makes bfloat16 of this pair.
        (("int32", "bfloat16"), "float32"),
        (("bool", "float16"), "float32"),
        (("float16", "bfloat16"), "float32"),
        (("int64", "int32"), "float32"),
        (("float64", "bfloat16"), "float64"),
        (("int32", "float64", "float32"), "float64"),
        (("complex64", "float64"), "complex128"),
    ],
)
def test_several_arrays_share_a_dtype(dtypes, expected):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        arrays = [jnp.ones(1, dtype) for dtype in dtypes]
        assert wide_dtype(*arrays) == expected
        assert wide_dtype(*(array.dtype for array in arrays)) == expected
        assert wide_dtype(*reversed(arrays)) == expected


@pytest.mark.parametrize("dtype", NARROW)
def test_floats_keep_their_dtype_and_whole_numbers_become_float32(dtype):
    array = np.ones(2, jnp.dtype(dtype))
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    assert float_dtype(array) == (array.dtype if floats else jnp.float32)
