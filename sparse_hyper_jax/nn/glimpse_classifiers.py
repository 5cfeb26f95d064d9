"""Classifiers of large images, by name: with glimpses, with baselines of them, or without."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.glimpse import UPRIGHT
from sparse_hyper_jax.nn.glimpse_attention import GlimpseAttention, encoder_for
from sparse_hyper_jax.nn.image_encoder import ImageEncoder
from sparse_hyper_jax.nn.keys import Randomness, draw_key

MODELS = ("box", "scale", "affine", "quad", "stn", "reinforce", "conv")
BASELINES = {"stn": "affine", "reinforce": "scale"}
"""Models that read bilinearly, and their grids."""

HEADS = ("conv", "mlp")


class Classified(NamedTuple):
    """What a classifier says of a batch of images.

    Attributes:
        logits: ``(b, classes)``.
        log_probability: ``(b,)`` log density of the places that were drawn at random, the only way
            by which the score function learns them; 0 for all other models.
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
        rngs: stream ``params``.

    Raises:
        ValueError: an unknown kind, or windows too small for the convolutions.
    """

    def __init__(
        self,
        window: Sequence[int],
        inputs: int,
        classes: int,
        *,
        kind: str = "conv",
        hidden: int = 64,
        rngs: nnx.Rngs,
    ):
        checks.check_choice("head", kind, HEADS)
        if kind == "conv":
            height, width = window
            self.hidden = ImageEncoder(height, width, hidden, inputs=inputs, rngs=rngs)
        else:
            self.hidden = nnx.Linear(window[0] * window[1] * inputs, hidden, rngs=rngs)
        # Zeros: no class is favoured at first, so that the first loss is log(classes).
        zeros = nnx.initializers.zeros_init()
        self.last = nnx.Linear(hidden, classes, kernel_init=zeros, rngs=rngs)

    def __call__(self, glimpses: jax.Array) -> jax.Array:
        """Map glimpses ``(b, g, h, w, c)`` to logits ``(b, classes)``."""
        folded = jnp.moveaxis(glimpses, 1, 3)
        folded = folded.reshape(*folded.shape[:3], -1)
        if isinstance(self.hidden, nnx.Linear):
            folded = folded.reshape(len(folded), -1)
        return self.last(nnx.relu(self.hidden(folded)))


class GlimpseClassifier(nnx.Module):
    """Glimpse attention with a head on top.

    Args:
        attention: where to read, and how.
        head: what to make of it.
    """

    def __init__(self, attention: GlimpseAttention, head: Head):
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
        logits = self.head(windows)
        return Classified(logits, jnp.zeros(len(images)))


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

    Reference: Mnih et al. 2014, arXiv 1406.6247.
    """

    def __init__(self, attention: GlimpseAttention, head: Head, *, spread: float = 0.5):
        checks.require(
            attention.reader == "bilinear" and attention.grid in UPRIGHT,
            f"attention with reader={attention.reader!r} and grid={attention.grid!r}",
            f"reader 'bilinear' and a grid of {UPRIGHT}",
            "make the attention with these, or call glimpse_classifier('reinforce', ...)",
        )
        super().__init__(attention, head)
        checks.require(spread > 0, f"spread={spread}", "more than 0", "raise it")
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
        hard = attention.deterministic if deterministic is None else deterministic
        middle = attention.numbers(images)
        raw, log_probability = middle, jnp.zeros(len(images))
        if not hard:
            key = draw_key(rngs, attention.rngs)
            spread = jnp.exp(self.log_spread[...])[:, None]
            noise = jax.random.normal(key, middle.shape)
            raw = jax.lax.stop_gradient(middle + spread * noise)
            scores = jax.scipy.stats.norm.logpdf(raw, middle, spread)
            log_probability = jnp.sum(scores, axis=(1, 2))
        corners = jax.lax.stop_gradient(attention.corners(raw))
        return Classified(self.head(attention.read(images, corners)), log_probability)


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
        rngs: stream ``params``.
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
            rngs=rngs,
        )
        zeros = nnx.initializers.zeros_init()
        self.last = nnx.Linear(features, classes, kernel_init=zeros, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> Classified:
        """Classify images ``(b, H, W)`` or ``(b, H, W, inputs)``.

        Nothing is random: ``deterministic`` and ``rngs``, which the others take, change nothing.
        """
        logits = self.last(nnx.relu(self.encoder(images)))
        return Classified(logits, jnp.zeros(len(images)))


class EncoderOptions(TypedDict, total=False):
    """Options of the preprocessing network; see :class:`GlimpseAttention`."""

    channels: Sequence[int] | None
    strides: Sequence[int] | None


class AttentionOptions(EncoderOptions, total=False):
    """Options of :class:`GlimpseAttention`, which documents them and gives their defaults."""

    reader: str
    variance_scale: float
    variance_floor: float
    num_global: int
    num_local: int
    region: Sequence[int]
    draws: str
    deterministic: bool


def glimpse_classifier(
    model: str,
    height: int,
    width: int,
    window: Sequence[int],
    *,
    rngs: nnx.Rngs,
    classes: int = 10,
    glimpses: int = 1,
    inputs: int = 1,
    head: str = "conv",
    hidden: int = 64,
    features: int = 128,
    coordinates: bool = False,
    **options: Unpack[AttentionOptions],
) -> GlimpseClassifier | ConvClassifier:
    """Make a classifier by name; all have the same preprocessing network and the same head.

    ``"box"``, ``"scale"``, ``"affine"``, ``"quad"``: glimpses of that form through a hyperlayer;
    ``"stn"``: a spatial transformer, affine and bilinear; ``"reinforce"``: a random window of the
    form ``"scale"``, learned by the score function; ``"conv"``: no glimpse.

    Args:
        model: one of ``MODELS``.
        height: rows of an image.
        width: columns of an image.
        window: ``(h, w)`` of a glimpse.
        rngs: streams ``params`` and ``sample``.
        classes: number of classes.
        glimpses: windows per image.
        inputs: channels of an image.
        head: ``"conv"`` or ``"mlp"``.
        hidden: width of the head's hidden layer.
        features: width of the preprocessing network's hidden layer.
        coordinates: CoordConv in the preprocessing network.
        **options: further ones of :class:`GlimpseAttention`, see :class:`AttentionOptions`; the
            baselines bring their own reader, ``"conv"`` takes ``channels`` and ``strides`` only.

    Returns:
        the classifier; a call gives :class:`Classified`.

    Raises:
        ValueError: an unknown name, or an option that does not fit.
        TypeError: an option that the model does not take.

    References: Bloem 2018, arXiv 1810.09184; Jaderberg et al. 2015, arXiv 1506.02025 (stn); Mnih et
    al. 2014, arXiv 1406.6247 (reinforce).
    """
    checks.check_choice("model", model, MODELS)
    if model == "conv":
        _check_taken(model, options, tuple(EncoderOptions.__annotations__))
        return ConvClassifier(
            height,
            width,
            classes,
            inputs=inputs,
            features=features,
            channels=options.get("channels"),
            strides=options.get("strides"),
            coordinates=coordinates,
            rngs=rngs,
        )
    if model in BASELINES:
        _check_taken(model, options, tuple(set(AttentionOptions.__annotations__) - {"reader"}))
        options["reader"] = "bilinear"
    attention = GlimpseAttention(
        height,
        width,
        window,
        grid=BASELINES.get(model, model),
        glimpses=glimpses,
        inputs=inputs,
        features=features,
        coordinates=coordinates,
        rngs=rngs,
        **options,
    )
    reading = Head(window, inputs * glimpses, classes, kind=head, hidden=hidden, rngs=rngs)
    kind = ScoreFunctionClassifier if model == "reinforce" else GlimpseClassifier
    return kind(attention, reading)


def _check_taken(model: str, options: AttentionOptions, taken: Sequence[str]) -> None:
    for name in options:
        if name not in taken:
            raise TypeError(
                f"found the option {name!r} for the model {model!r}; "
                f"expected one of {', '.join(sorted(taken))}; leave it out"
            )
