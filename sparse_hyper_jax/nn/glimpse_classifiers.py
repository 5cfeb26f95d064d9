"""Classifiers of large images: with glimpses, with one that is drawn at random, or without."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.glimpse import UPRIGHT
from sparse_hyper_jax.nn.glimpse_attention import GlimpseAttention
from sparse_hyper_jax.nn.image_encoder import ImageEncoder, encoder_for
from sparse_hyper_jax.nn.keys import Randomness, check_rngs, draw_key
from sparse_hyper_jax.nn.options import LARGEST, SMALLEST, in_evaluation
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.precision import at_least_float32

HeadKind = Literal["conv", "mlp"]
HEADS = get_args(HeadKind)


class Classified(NamedTuple):
    """What a classifier says of a batch of images.

    Attributes:
        logits: ``(b, classes)``.
        log_probability: ``(b,)`` log density of the places that were drawn at random, the only way
            by which the score function learns them; 0 for all other models.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> model = nn.glimpse_classifier("conv", 28, 28, (8, 8), rngs=nnx.Rngs(0))
        >>> said = model(jnp.zeros((2, 28, 28, 1)))
        >>> said.logits.shape, said.log_probability.tolist()
        ((2, 10), [0.0, 0.0])
    """

    logits: jax.Array
    log_probability: jax.Array


class Head(nnx.Module):
    """Windows to logits: convolutions with the glimpses as channels, or a perceptron.

    Args:
        window: ``(h, w)`` of a glimpse.
        inputs: channels of all glimpses together.
        classes: number of classes.
        kind: ``"conv"`` or ``"mlp"``.
        hidden: width of the last hidden layer.
        channels: output channels of the convolutions, each with stride 2, see
            :class:`~sparse_hyper_jax.nn.image_encoder.ImageEncoder` for the default; ``"mlp"`` has
            none.
        rngs: stream ``params``.

    Raises:
        ValueError: an unknown kind, channels without convolutions, or windows too small for them.
    """

    def __init__(
        self,
        window: Sequence[int],
        inputs: int,
        classes: int,
        *,
        kind: HeadKind = "conv",
        hidden: int = 64,
        channels: Sequence[int] | None = None,
        rngs: nnx.Rngs,
    ):
        self.window = checks.check_index_shape("window", window)
        checks.require(len(self.window) == 2, f"window={window}", "(h, w)", "pass two lengths")
        self.inputs = checks.check_count("inputs", inputs, least=1)
        classes = checks.check_count("classes", classes, least=1)
        hidden = checks.check_count("hidden", hidden, least=1)
        checks.check_choice("head", kind, HEADS)
        checks.require(
            kind == "conv" or channels is None,
            f"channels={channels!r:.80} for a head of kind={kind!r}",
            "no channels, as it has no convolutions",
            "leave channels out, or pass kind='conv'",
        )
        check_rngs(rngs, "params")
        height, width = self.window
        if kind == "conv":
            self.hidden = ImageEncoder(
                height, width, hidden, channels=channels, inputs=self.inputs, rngs=rngs
            )
        else:
            self.hidden = nnx.Linear(
                height * width * self.inputs, hidden, promote_dtype=promote, rngs=rngs
            )
        # Zeros: no class is favoured at first, so that the first loss is log(classes).
        zeros = nnx.initializers.zeros_init()
        self.last = nnx.Linear(hidden, classes, kernel_init=zeros, promote_dtype=promote, rngs=rngs)

    def __call__(self, glimpses: jax.Array) -> jax.Array:
        """Map glimpses ``(b, g, h, w, c)`` to logits ``(b, classes)``, float32 or wider.

        Raises:
            ValueError: glimpses of another size, or another number of channels.
        """
        glimpses = at_least_float32(as_array("glimpses", glimpses))
        meaning = "(b, glimpses, h, w, channels of an image)"
        checks.check_shape("glimpses", glimpses, (None, None, *self.window, None), meaning)
        batch, count, height, width, channels = glimpses.shape
        checks.require(
            count * channels == self.inputs,
            f"{count} glimpses of {channels} channels",
            f"{self.inputs} channels of all glimpses together",
            "make the head for as many",
        )
        folded = jnp.moveaxis(glimpses, 1, 3).reshape(batch, height, width, self.inputs)
        if isinstance(self.hidden, nnx.Linear):
            folded = folded.reshape(batch, self.hidden.in_features)
        return self.last(nnx.relu(self.hidden(folded)))


class GlimpseClassifier(nnx.Module):
    """Glimpse attention with a head on top.

    Args:
        attention: where to read, and how.
        head: what to make of it.

    Raises:
        ValueError: something else.
    """

    def __init__(self, attention: GlimpseAttention, head: Head):
        check_instance("attention", attention, GlimpseAttention)
        check_instance("head", head, Head)
        self.attention, self.head = attention, head

    def __call__(
        self,
        images: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> Classified:
        """Classify images; see :meth:`GlimpseAttention.__call__` for shapes and options."""
        windows = self.attention(images, deterministic=deterministic, rngs=rngs)
        return _without_draws(self.head(windows))


class ScoreFunctionClassifier(GlimpseClassifier):
    """Reads where a draw falls, and learns the place by the score function: the REINFORCE baseline.

    The numbers ``a`` of a window are drawn from a normal distribution about those that the network
    gives, with one learned standard deviation per glimpse; the window is read bilinearly there,
    without a gradient towards the place. Use its ``log_probability`` with
    :func:`~sparse_hyper_jax.estimators.score_function_loss`. Evaluation takes the middle.

    Args:
        attention: with ``reader="bilinear"`` and an upright grid.
        head: what to make of a window.
        spread: standard deviation at the start, in raw units.

    Raises:
        ValueError: an attention that reads in another way, or no positive spread.

    Reference: Mnih et al. 2014, arXiv 1406.6247.
    """

    def __init__(self, attention: GlimpseAttention, head: Head, *, spread: float = 0.5):
        check_instance("attention", attention, GlimpseAttention)
        checks.require(
            attention.reader == "bilinear" and attention.grid in UPRIGHT,
            f"attention with reader={attention.reader!r} and grid={attention.grid!r}",
            f"reader 'bilinear' and a grid of {UPRIGHT}",
            "make the attention with these, or call glimpse_classifier('reinforce', ...)",
        )
        super().__init__(attention, head)
        checks.check_number("spread", spread, at_least=SMALLEST, at_most=LARGEST)
        self.log_spread = nnx.Param(jnp.full(attention.glimpses, jnp.log(spread)))

    def __call__(
        self,
        images: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> Classified:
        """Classify images; see :meth:`GlimpseAttention.__call__` for shapes and options."""
        attention = self.attention
        middle = attention.numbers(images)
        if in_evaluation(attention.deterministic, deterministic):
            return _without_draws(self._read(images, middle))
        spread = jnp.exp(at_least_float32(self.log_spread[...])).astype(middle.dtype)[None, :, None]
        noise = jax.random.normal(draw_key(rngs, attention.rngs), middle.shape, middle.dtype)
        drawn = jax.lax.stop_gradient(middle + spread * noise)
        scores = jax.scipy.stats.norm.logpdf(drawn, middle, jnp.broadcast_to(spread, drawn.shape))
        return Classified(self._read(images, drawn), jnp.sum(scores, axis=(1, 2)))

    def _read(self, images: jax.Array, numbers: jax.Array) -> jax.Array:
        corners = jax.lax.stop_gradient(self.attention.corners(numbers))
        return self.head(self.attention.read(images, corners))


class ConvClassifier(nnx.Module):
    """The preprocessing network alone, with a linear layer on top: no glimpse.

    Args:
        height: rows of an image.
        width: columns of an image.
        classes: number of classes.
        inputs: channels of an image.
        features: width of the last hidden layer.
        channels: output channels of its convolutions.
        strides: their strides.
        coordinates: let the first of them see where a pixel lies (CoordConv).
        shrink: let them see averages of squares of pixels of this side.
        rngs: stream ``params``.

    Raises:
        ValueError: an option that does not fit.
    """

    def __init__(
        self,
        height: int,
        width: int,
        classes: int,
        *,
        inputs: int = 1,
        features: int = 128,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        coordinates: bool = False,
        shrink: int = 1,
        rngs: nnx.Rngs,
    ):
        self.encoder = encoder_for(
            height,
            width,
            features,
            inputs=inputs,
            channels=channels,
            strides=strides,
            coordinates=coordinates,
            shrink=shrink,
            rngs=rngs,
        )
        zeros = nnx.initializers.zeros_init()
        classes = checks.check_count("classes", classes, least=1)
        self.last = nnx.Linear(
            self.encoder.features, classes, kernel_init=zeros, promote_dtype=promote, rngs=rngs
        )

    def __call__(
        self,
        images: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> Classified:
        """Classify images ``(b, H, W)`` or ``(b, H, W, inputs)``.

        Nothing is random: ``deterministic`` and ``rngs``, which the others take, change nothing.

        Raises:
            ValueError: images of another shape.
        """
        in_evaluation(False, deterministic)
        images = at_least_float32(as_array("images", images))
        return _without_draws(self.last(nnx.relu(self.encoder(images))))


def _without_draws(logits: jax.Array) -> Classified:
    return Classified(logits, jnp.zeros_like(logits[:, 0]))
