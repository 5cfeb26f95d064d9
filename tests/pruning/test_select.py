import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparse_hyper_jax.pruning import keep_largest
from tests.ops.examples import assert_names_itself_and_its_cure
from tests.pruning.examples import array, largest, same

keep_jit = jax.jit(lambda scores, count, among=None: keep_largest(scores, count, among=among))


def ties():
    """Arrays of no, one, two and three axes with few different magnitudes."""
    generator = np.random.default_rng(0)
    shapes = [(3, 4), (), (2, 3, 2), (5,)]
    return [np.float32(generator.integers(-2, 3, shape)) for shape in shapes]


def awkward():
    one, two = array(4, 5), array(7, seed=1)
    one[1] = [np.nan, -np.inf, np.inf, 0, -0.0]
    two[3:6] = [-np.nan, 1e-42, one[0, 0]]
    return [one, two]


def some(scores):
    generator = np.random.default_rng(3)
    return [generator.random(np.shape(one)) < 0.6 for one in scores]


@pytest.mark.parametrize("make", [ties, awkward])
@pytest.mark.parametrize("choice", ["all", "some"])
def test_every_count_agrees_with_sorting(make, choice):
    scores = make()
    among = some(scores) if choice == "some" else None
    total = sum(np.size(one) for one in scores)
    available = total if among is None else sum(int(one.sum()) for one in among)
    for count in range(total + 3):
        masks = keep_jit(scores, count, among)
        assert same(masks, largest(scores, count, among)), count
        assert sum(int(mask.sum()) for mask in masks) == min(count, available)


def test_a_static_count_and_a_traced_one_give_the_same():
    scores = ties()
    for count in [0, 7, 100]:
        assert same(keep_largest(scores, count), largest(scores, count))
        assert same(keep_jit(scores, jnp.int32(count)), largest(scores, count))


def test_equal_entries_are_taken_in_the_order_of_the_arrays():
    one, two = keep_largest([jnp.zeros((2, 3)), jnp.zeros((2, 2))], 8)
    assert one.tolist() == [[True] * 3] * 2
    assert two.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_dtypes(dtype):
    with jax.enable_x64(dtype == "float64"):
        scores = [jnp.asarray(one, dtype) for one in awkward()]
        if dtype == "float64":
            # A difference that float32 does not see.
            scores[0] = scores[0].at[2, :2].set(jnp.asarray([1 + 1e-12, 1 + 2e-12]))
        wide = [np.asarray(one, np.float64) for one in scores]
        for count in [1, 5, 9, 13, 26]:
            assert same(keep_jit(scores, count), largest(wide, count)), count


def test_nothing_is_taken_outside_among():
    scores = awkward()
    nothing = [np.zeros(one.shape, bool) for one in scores]
    assert not any(mask.any() for mask in keep_jit(scores, 5, nothing))


def test_it_maps_over_counts():
    scores = ties()
    counts = np.array([0, 3, 11])
    masks = jax.vmap(lambda count: keep_largest(scores, count))(counts)
    for row, count in enumerate(counts):
        assert same([mask[row] for mask in masks], largest(scores, count))


def test_masks_are_sharded_like_their_scores():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    specs = [PartitionSpec("x", "y"), PartitionSpec(("y", "x")), PartitionSpec(None, "x", "y")]
    scores = [np.round(2 * array(8, 6)), array(16, seed=1), np.round(array(3, 4, 2, seed=2))]
    among = some(scores)
    placed, allowed = (
        [
            jax.device_put(one, NamedSharding(mesh, spec))
            for one, spec in zip(arrays, specs, strict=True)
        ]
        for arrays in (scores, among)
    )
    for given, plain in [(None, None), (allowed, among)]:
        for count in [5, 37]:
            masks = keep_jit(placed, count, given)
            assert same(masks, largest(scores, count, plain))
            for mask, one in zip(masks, placed, strict=True):
                assert mask.sharding.is_equivalent_to(one.sharding, one.ndim)
                assert len(mask.sharding.device_set) == 8


def test_devices_exchange_counts_and_no_entries():
    mesh = Mesh(np.array(jax.devices()), ("x",))
    placed = jax.device_put(array(64, 32), NamedSharding(mesh, PartitionSpec("x")))
    text = keep_jit.lower([placed], 100).compile().as_text()
    assert "all-reduce" in text
    assert "f32[64,32]" not in text
    assert "s32[64,32]" not in text
    assert "pred[64,32]" not in text


ONES = jnp.ones(3)
MISTAKES = {
    "nothing": (lambda: keep_largest([], 1), "scores of dtypes []", "at least one array"),
    "two dtypes": (
        lambda: keep_largest([ONES, ONES.astype(jnp.bfloat16)], 1),
        "['bfloat16', 'float32']",
        "all of one float dtype",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected):
    assert_names_itself_and_its_cure(call, found, expected, "convert them to float32")


WRONG = {
    "ints": (lambda: keep_largest([jnp.arange(3)], 1), "dtype int32", "floats", "convert scores"),
    "one array": (lambda: keep_largest(ONES, 1), "scores=Array", "a list", "write [scores]"),
    "one flag": (
        lambda: keep_largest([ONES], 1, among=ONES > 0),
        "among=Array",
        "list of 1",
        "write [among]",
    ),
    "other flags": (
        lambda: keep_largest([ONES], 1, among=[jnp.ones(4, bool)]),
        "among of shape (4,)",
        "the same shape",
        "reshape",
    ),
    "no flags": (
        lambda: keep_largest([ONES], 1, among=[ONES]),
        "dtype float32",
        "flags",
        "convert among",
    ),
    "a traced share": (
        lambda: jax.eval_shape(lambda count: keep_largest([ONES], count), 0.5),
        "count of dtype float32",
        "integers",
        "convert count",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), WRONG.values(), ids=WRONG)
def test_other_mistakes_name_themselves_too(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_columns_on_a_mesh(kind):
    """Ties over the devices' borders, too."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    weights = np.round(array(6, 8))
    placed = jax.device_put(weights, NamedSharding(mesh, PartitionSpec(None, "d")))
    for count in (3, 20):
        (mask,) = keep_jit([placed], count)
        assert same([mask], largest([weights], count))
        assert mask.sharding.is_equivalent_to(placed.sharding, 2)


@pytest.mark.parametrize("count", [-1, True, 0.5, jnp.array(1.7)])
def test_a_count_is_a_number_of_entries(count):
    assert_names_itself_and_its_cure(
        lambda: keep_largest([ONES], count), f"count={count!r}", "at least 0", "pass a static int"
    )


def test_entries_are_counted_in_32_bits():
    one = jax.ShapeDtypeStruct((2**30,), jnp.float32)

    def call():
        jax.eval_shape(lambda *scores: keep_largest(scores, 1), one, one)

    assert_names_itself_and_its_cure(call, "2147483648 entries", "fewer than 2**31", "each array")
