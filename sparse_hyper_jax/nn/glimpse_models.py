"""Classifiers of large images, by name: with glimpses, with baselines of them, or without."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack, cast, get_args

from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.glimpse.grids import GridName
from sparse_hyper_jax.glimpse.points import Draws
from sparse_hyper_jax.nn.glimpse_attention import GlimpseAttention, Reader
from sparse_hyper_jax.nn.glimpse_classifiers import (
    ConvClassifier,
    GlimpseClassifier,
    Head,
    HeadKind,
    ScoreFunctionClassifier,
)

GlimpseModel = Literal["box", "scale", "affine", "quad", "stn", "reinforce", "conv"]
MODELS = get_args(GlimpseModel)
BASELINES = {"stn": "affine", "reinforce": "scale"}
"""Models that read bilinearly, and their grids."""


class EncoderOptions(TypedDict, total=False):
    """Options of the preprocessing network; see :class:`GlimpseAttention`."""

    channels: Sequence[int] | None
    strides: Sequence[int] | None


class AttentionOptions(EncoderOptions, total=False):
    """Options of :class:`GlimpseAttention`, which documents them and gives their defaults."""

    reader: Reader
    variance_scale: float
    variance_floor: float
    num_global: int
    num_local: int
    region: Sequence[int]
    draws: Draws
    soft_argmax: float
    deterministic: bool


def glimpse_classifier(
    model: GlimpseModel,
    height: int,
    width: int,
    window: Sequence[int],
    *,
    rngs: nnx.Rngs,
    classes: int = 10,
    glimpses: int = 1,
    inputs: int = 1,
    head: HeadKind = "conv",
    hidden: int = 64,
    head_channels: Sequence[int] | None = None,
    features: int = 128,
    coordinates: bool = False,
    shrink: int = 1,
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
        head_channels: output channels of its convolutions, see :class:`Head`.
        features: width of the preprocessing network's hidden layer.
        coordinates: CoordConv in the preprocessing network.
        shrink: side of the squares of pixels whose averages that network sees.
        **options: further ones of :class:`GlimpseAttention`, see :class:`AttentionOptions`; the
            baselines bring their own reader, ``"conv"`` takes ``channels`` and ``strides`` only.

    Returns:
        the classifier; a call gives :class:`Classified`.

    Raises:
        ValueError: an unknown name, or an option that does not fit.
        TypeError: an option that the model does not take.

    References: Bloem 2018, arXiv 1810.09184; Jaderberg et al. 2015, arXiv 1506.02025 (stn); Mnih et
    al. 2014, arXiv 1406.6247 (reinforce).

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> model = nn.glimpse_classifier("box", 28, 28, (8, 8), classes=3, rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((2, 28, 28, 1)), deterministic=True).logits.shape
        (2, 3)
    """
    checks.check_choice("model", model, MODELS)
    shared: dict[str, Any] = {"inputs": inputs, "features": features, "rngs": rngs}
    shared |= {"coordinates": coordinates, "shrink": shrink}
    if model == "conv":
        _check_taken(model, options, tuple(EncoderOptions.__annotations__))
        shared |= {name: options.get(name) for name in ("channels", "strides")}
        return ConvClassifier(height, width, classes, **shared)
    if model in BASELINES:
        _check_taken(model, options, tuple(set(AttentionOptions.__annotations__) - {"reader"}))
        options["reader"] = "bilinear"
    attention = GlimpseAttention(
        height,
        width,
        window,
        # What is left of the models is named by its grid.
        grid=cast(GridName, BASELINES.get(model, model)),
        glimpses=glimpses,
        **shared,
        **options,
    )
    reading = Head(
        window,
        inputs * glimpses,
        classes,
        kind=head,
        hidden=hidden,
        channels=head_channels,
        rngs=rngs,
    )
    kind = ScoreFunctionClassifier if model == "reinforce" else GlimpseClassifier
    return kind(attention, reading)


def _check_taken(model: GlimpseModel, options: AttentionOptions, taken: Sequence[str]) -> None:
    for name in options:
        if name not in taken:
            raise TypeError(
                f"found the option {name!r} for the model {model!r}; "
                f"expected one of {', '.join(sorted(taken))}; leave it out"
            )
