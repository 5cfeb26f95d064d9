from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.estimators import score_function_loss
from sparse_hyper_jax.glimpse import bilinear, grid_means, scale_corners
from sparse_hyper_jax.nn.glimpse_classifiers import HEADS, Head, ScoreFunctionClassifier
from sparse_hyper_jax.nn.glimpse_models import MODELS, glimpse_classifier
from tests import folding
from tests.ops.examples import assert_names_itself_and_its_cure

from .examples import drawn

SIDE, WINDOW = 8, (4, 4)
SMALL = {"features": 4, "hidden": 5, "channels": (2,), "strides": (4,)}
SAMPLING = {"num_global": 1, "num_local": 1}
SPREAD = 0.5

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def make(model="box", **options):
    sampling = {} if model == "conv" else SAMPLING
    options = SMALL | sampling | options
    return glimpse_classifier(model, SIDE, SIDE, WINDOW, rngs=nnx.Rngs(0), **options)


def never_run(*words, **options):
    """A classifier without numbers in it."""
    return nnx.eval_shape(lambda: make(*words, **options))


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def parts(model, wanted=nnx.Param):
    graph, params, rest = nnx.split(model, wanted, ...)
    return params, lambda params: nnx.merge(graph, params, rest)


@pytest.mark.parametrize(
    ("model", "head"), [*((model, "conv") for model in MODELS), ("box", "mlp")]
)
def test_the_first_loss_is_the_log_of_the_number_of_classes(model, head):
    x, labels = images(3, SIDE, SIDE, 3), np.array([0, 4, 9])

    # Other grids are read by the same code as boxes, and for them the head alone is learned.
    alone = folding.apart or model not in ("scale", "affine", "quad")

    @jax.jit
    def evaluate_and_train(key, x):
        # Made as users do, as this is about the numbers a classifier begins with.
        wanted = nnx.Param if alone else nnx.All(nnx.Param, nnx.PathContains("head"))
        params, merge = parts(make(model, head=head, glimpses=2, inputs=3), wanted)

        def loss(params):
            classifier = merge(params)
            soft = classifier(x, rngs=key)
            hard = classifier(x, deterministic=True) if alone else soft
            return cross_entropy(soft.logits, labels).mean(), (hard, soft)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, (hard, soft)), slopes = evaluate_and_train(jax.random.key(2), x)
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-6)
    assert hard.logits.shape == soft.logits.shape == (3, 10)
    np.testing.assert_array_equal(hard.logits, 0)
    np.testing.assert_array_equal(hard.log_probability, np.zeros(3))
    assert (np.asarray(soft.log_probability) == 0).all() == (model != "reinforce")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    last = slopes["last"] if model == "conv" else slopes["head"]["last"]
    assert np.abs(last["kernel"][...]).max() > 1e-3


@pytest.mark.parametrize("kind", HEADS)
def test_heads_see_every_glimpse_and_channel(kind):
    window = (4, 5)
    head = drawn(lambda: Head(window, 6, 7, kind=kind, hidden=9, rngs=nnx.Rngs(0)))
    glimpses = images(2, 3, *window, 2)
    # Glimpses lie side by side as channels, glimpse by glimpse.
    side_by_side = np.concatenate(np.moveaxis(glimpses, 1, 0), axis=-1)
    if kind == "mlp":
        side_by_side = side_by_side.reshape(2, -1)

    @nnx.jit
    def everything(head, glimpses):
        logits, pull = jax.vjp(head, glimpses)
        hidden = head.hidden(side_by_side)
        return logits, pull(2 * logits)[0], head.last(nnx.relu(hidden))

    logits, slopes, expected = everything(head, glimpses)
    assert logits.shape == (2, 7)
    assert (np.abs(slopes).max(axis=(0, 2, 3)) > 0).all()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_options_reach_the_network():
    classifier = never_run(
        "scale", reader="upright", coordinates=True, classes=3, variance_floor=0.25
    )
    assert classifier.attention.reader == "upright"
    assert classifier.attention.encoder.coordinates
    assert classifier.attention.variance_floor == 0.25
    assert classifier.head.last.bias.shape == (3,)
    for model, grid in (("stn", "affine"), ("reinforce", "scale")):
        attention = never_run(model).attention
        assert (attention.grid, attention.reader) == (grid, "bilinear")


@pytest.mark.parametrize("model", ["box", "conv"])
def test_all_models_take_the_same_network_of_ones_own(model):
    encoder = {"channels": (3, 2), "strides": (3, 2)}
    classifier = nnx.eval_shape(
        lambda: glimpse_classifier(model, 12, 9, (4, 4), rngs=nnx.Rngs(0), **encoder)
    )
    found = classifier.encoder if model == "conv" else classifier.attention.encoder
    assert found.strides == (3, 2)
    assert [layer.kernel.shape[1] for layer in found.convolutions] == [3, 2]


def test_mistakes_name_themselves_and_their_cure():
    for call, found, expected, change in (
        (lambda: never_run("ram"), "model='ram'", "'box', 'scale'", "choose model"),
        (
            lambda: never_run("quad", reader="upright"),
            "grid='quad'",
            "('scale', 'box')",
            "'sampled'",
        ),
        (lambda: never_run(head="gru"), "head='gru'", "'conv', 'mlp'", "choose head"),
        (
            lambda: glimpse_classifier("box", 28, 28, (3, 9), rngs=nnx.Rngs(0)),
            "3 x 9",
            "at least 4",
            "larger images",
        ),
        (
            lambda: glimpse_classifier("stn", 20, 28, (8, 8), rngs=nnx.Rngs(0)),
            "20 x 28",
            "from 28",
            "strides",
        ),
    ):
        assert_names_itself_and_its_cure(call, found, expected, change)


MIDDLE = np.float32([0.5, -0.5, 0.3])


def score_function_example():
    """A classifier of one small image whose numbers are the bias of its place."""
    options = {"channels": (2,), "strides": (4,), "head": "mlp", "hidden": 6, "classes": 3}

    def classifier():
        return glimpse_classifier(
            "reinforce", 8, 9, (3, 2), features=2, rngs=nnx.Rngs(0), **options
        )

    classifier = drawn(classifier, zeros=["place"])
    classifier.attention.place.bias[...] = jnp.asarray(MIDDLE)
    classifier.log_spread[...] = jnp.asarray(np.log([SPREAD]), jnp.float32)
    return classifier, images(8, 9), 1


def test_the_score_function_is_the_gradient_of_the_expected_loss():
    classifier, image, label = score_function_example()
    params, merge = parts(classifier)

    # The expectation as a sum over a grid of draws, 4.5 standard deviations to both sides.
    @jax.jit
    def enumerate_draws(params):
        axis = np.linspace(-4.5, 4.5, 25)
        noise = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        weights = np.exp(-0.5 * np.square(noise).sum(axis=1))
        weights /= weights.sum()

        def loss(noise):
            means = grid_means(scale_corners(MIDDLE + SPREAD * noise, image.shape), (3, 2))
            logits = merge(params).head(bilinear(image, means)[None, None, :, :, None])
            return cross_entropy(logits[0], label)

        losses = weights * jax.vmap(loss)(jnp.asarray(noise, jnp.float32))
        spread = (np.square(noise) - 1).sum(axis=1)
        return losses.sum(), losses @ (noise / SPREAD), losses @ spread

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def estimate(params, key):
        def surrogate(params):
            said = merge(params)(jnp.broadcast_to(image, (128, *image.shape)), rngs=key)
            losses = cross_entropy(said.logits, jnp.full(128, label))
            return score_function_loss(losses, said.log_probability, baseline="leave_one_out")

        value, slopes = jax.value_and_grad(surrogate)(params)
        return value, slopes["attention"]["place"]["bias"][...], slopes["log_spread"][..., 0]

    estimates = estimate(params, jax.random.split(jax.random.key(3), 256))
    pairs = zip(*jax.device_get((estimates, enumerate_draws(params))), strict=True)
    for several, exact in pairs:
        error = np.std(several, axis=0) / np.sqrt(len(several))
        assert (np.abs(np.mean(several, axis=0) - exact) < 4 * error + 1e-4).all()
        # Clear enough for its sign: a step against it makes draws of a low loss likelier.
        assert np.abs(exact / error).max() > 20


def test_no_gradient_reaches_the_place_through_the_reading():
    classifier, image, label = score_function_example()
    params, merge = parts(classifier)

    @jax.jit
    @jax.grad
    def slopes(params):
        said = merge(params)(image[None], rngs=jax.random.key(0))
        return cross_entropy(said.logits, jnp.array([label])).sum()

    found = slopes(params)
    for leaf in jax.tree.leaves((found["attention"], found["log_spread"])):
        np.testing.assert_array_equal(leaf, 0)
    assert np.abs(found["head"]["hidden"]["kernel"][...]).max() > 1e-3


def test_log_probabilities_are_those_of_the_draws_and_evaluation_takes_the_middle():
    classifier, image, _ = score_function_example()
    params, merge = parts(classifier)
    batch = np.stack([image, image])

    @jax.jit
    def say(params, key):
        classifier = merge(params)
        window = bilinear(image, grid_means(scale_corners(MIDDLE, (8, 9)), (3, 2)))
        return (
            classifier(batch, rngs=key),
            classifier(batch, deterministic=True),
            classifier.head(window[None, None, :, :, None]),
            jax.random.normal(key, (2, 1, 3)),
        )

    one, hard, middle, noise = jax.device_get(say(params, jax.random.key(0)))
    two, again, _, _ = jax.device_get(say(params, jax.random.key(1)))
    np.testing.assert_array_equal(hard.logits, again.logits)
    np.testing.assert_allclose(hard.logits[0], hard.logits[1], rtol=1e-6)
    np.testing.assert_array_equal(hard.log_probability, 0)
    np.testing.assert_allclose(hard.logits[0], middle[0], rtol=1e-4, atol=1e-5)
    # Every image has a draw of its own; at most the density of the middle.
    found = np.concatenate([one.log_probability, two.log_probability])
    assert len(np.unique(found)) == 4
    assert (found < -3 * np.log(SPREAD * np.sqrt(2 * np.pi))).all()
    expected = -0.5 * np.square(noise).sum(axis=(1, 2)) - 3 * np.log(SPREAD * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(one.log_probability, expected, rtol=1e-4)


@pytest.mark.parametrize("model", ["conv", "stn", "reinforce"])
def test_baselines_take_no_reader(model):
    with pytest.raises(TypeError, match="reader"):
        never_run(model, reader="sampled")


def test_the_score_function_needs_a_reader_without_gradient():
    ours = never_run("box")
    with pytest.raises(ValueError, match="reader='sampled' and grid='box'"):
        ScoreFunctionClassifier(ours.attention, ours.head)
