"""One gradient of a loss, looked at by all layers of a kind that can be watched."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_function, check_instance
from sparse_hyper_jax.nn.tap_layers import TapProbe

Path = tuple[Any, ...]


class Watchable(Protocol):
    """A layer that makes a probe of its own when it is told to."""

    def watch(self) -> None:
        """Get ready for a probe."""


Layer = TypeVar("Layer", bound=Watchable)


def observed_by(
    kind: type[Layer],
    model: nnx.Module,
    loss: Callable[..., jax.Array],
    arguments: tuple[Any, ...],
    *,
    missing: tuple[str, str, str],
) -> list[tuple[Path, Layer, Any]]:
    """Take one gradient of a loss, and give what every layer of a kind saw of its backward pass.

    Args:
        kind: of the layers.
        model: in which they are; it is not changed.
        loss: ``(model, *arguments) -> scalar``.
        arguments: what it takes besides.
        missing: what a model without such layers lacks, what is expected, and the cure.

    Returns:
        for every layer its path in the model, the layer, and what its probe saw.

    Raises:
        ValueError: no model, no function, or a model without such layers.
    """
    check_instance("model", model, nnx.Module)
    check_function("loss", loss, "a function of a model that gives a number")
    layers = _layers(kind, model)
    found, expected, change = missing
    checks.require(bool(layers), f"a {type(model).__name__} without {found}", expected, change)
    watching = nnx.clone(model)
    for _, layer in _layers(kind, watching):
        layer.watch()
    slopes = nnx.grad(loss, argnums=nnx.DiffState(0, TapProbe))(watching, *arguments)
    seen = dict(nnx.to_flat_state(slopes))
    return [(path, layer, seen[*path, "probe"].get_value()) for path, layer in layers]


def no_flags(model: nnx.Module) -> dict[Path, Any]:
    """Give all parameters of a model by their paths, with false flags in place of numbers."""
    flags = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), nnx.state(model, nnx.Param))
    return dict(nnx.to_flat_state(flags))


def _layers(kind: type[Layer], model: nnx.Module) -> list[tuple[Path, Layer]]:
    return [(path, layer) for path, layer in nnx.iter_modules(model) if isinstance(layer, kind)]
