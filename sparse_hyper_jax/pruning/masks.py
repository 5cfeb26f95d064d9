"""Trees of masks: make, apply, count, pack."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function, check_same_shape
from sparse_hyper_jax.parameter_paths import (
    check_fits,
    is_kernel,
    is_left_out,
    path_name,
    selected_leaves,
)
from sparse_hyper_jax.placement import gathered, placed_like
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.pruning.distributions import check_share, count_kept, uniform
from sparse_hyper_jax.pruning.patterns import UNSTRUCTURED, Pattern, check_pattern
from sparse_hyper_jax.pruning.select import keep_largest

Masks = Any
"""Tree like the parameters: bool arrays, and ``optax.MaskedNode()`` for leaves without a mask."""


def magnitude_masks(weights: Any, densities: Any, *, pattern: Pattern = UNSTRUCTURED) -> Masks:
    """Keep the entries of largest magnitude of every array, exactly as many as asked for.

    Args:
        weights: pytree of floats: the weights that the model uses, not theta.
        densities: tree of shares from 0 to 1 (:func:`uniform`, :func:`erk`), of an array keeps
            ``int(density * number of units)``; ``optax.MaskedNode()`` for leaves without a mask. Or
            one share, which stands for ``uniform(weights, share)``.
        pattern: what is kept or dropped as one.

    Returns:
        masks.

    Raises:
        ValueError: the pattern does not fit the shape of an array; a density is no share; the trees
            have different structures.

    Example:
        >>> from sparse_hyper_jax.pruning import apply_masks, density_report, magnitude_masks
        >>> params = {"kernel": jnp.array([[3.0, -1.0], [0.5, -2.0]]), "bias": jnp.zeros(2)}
        >>> masks = magnitude_masks(params, 0.5)  # of every kernel; a tree says more
        >>> apply_masks(params, masks)["kernel"].tolist()
        [[3.0, 0.0], [0.0, -2.0]]
        >>> density_report(params, masks).pruned
        0.5
    """
    check_pattern(pattern)

    def mask(leaf: jax.Array, density: float) -> Any:
        return pattern.mask(leaf, count_kept(density, pattern.units(leaf.shape)))

    return _map_with_densities(mask, weights, densities)


def global_magnitude_masks(weights: Any, densities: Any) -> Masks:
    """Keep the entries of largest magnitude of all arrays together but those of density 1.

    Args:
        weights: pytree of floats: the weights that the model uses. Theta would do only if all of it
            had the same alpha.
        densities: as for :func:`magnitude_masks`. Arrays of density 1 stay whole; of the others
            only the sum of their numbers of entries matters.

    Returns:
        masks.

    Raises:
        ValueError: a density is no share; the trees have different structures.

    Example:
        >>> from sparse_hyper_jax.pruning import density_report, global_magnitude_masks
        >>> large, small = ({"kernel": jnp.full((4, 4), size)} for size in (3.0, 1.0))
        >>> params = {"large": large, "small": small}
        >>> density_report(params, global_magnitude_masks(params, 0.5)).by_leaf  # a half together
        {'large/kernel': 1.0, 'small/kernel': 0.0}
    """
    parts: list[tuple[jax.Array, int]] = []

    def take_part(leaf: jax.Array, density: float) -> None:
        if density < 1:
            parts.append((leaf, count_kept(density, leaf.size)))

    _map_with_densities(take_part, weights, densities)
    wide = [leaf.astype(wide_dtype(*(leaf for leaf, _ in parts))) for leaf, _ in parts]
    kept = iter(keep_largest(wide, sum(count for _, count in parts)) if wide else ())
    return _map_with_densities(
        lambda leaf, density: next(kept) if density < 1 else jnp.ones_like(leaf, bool),
        weights,
        densities,
    )


def _map_with_densities(
    function: Callable[[jax.Array, float], Any], weights: Any, densities: Any
) -> Any:
    """Map leaves that have a density; the others have no mask."""
    structure = jax.tree.structure(weights)
    scalar = checks.is_real(densities) and jnp.ndim(densities) == 0
    if scalar and not jax.tree_util.treedef_is_leaf(structure):
        densities = _for_kernels(weights, densities)
    places = check_fits(weights, densities, "densities")

    def visit(path: tuple[Any, ...], leaf: Any, density: Any) -> Any:
        if is_left_out(density):
            return density
        name = path_name(path) or "the array"
        share = check_share(f"the density of {name}", density)
        return function(as_array(name, leaf), share)

    return jax.tree_util.tree_map_with_path(visit, weights, structure.unflatten(places))


def _for_kernels(weights: Any, share: Any) -> Any:
    """Give every kernel the same density."""
    checks.require(
        bool(selected_leaves(is_kernel, weights)),
        f"one density, {share!r:.80}, for a tree without kernels",
        "leaves named 'kernel' with two axes or more",
        "pass densities=uniform(weights, density, select=lambda path, leaf: ...)",
    )
    return uniform(weights, share)


def apply_masks(weights: Any, masks: Masks) -> Any:
    """Set the dropped entries to zero.

    The gradient of the result, not of ``weights``, is what sparse training wants: it says what the
    loss would gain from dropped entries too.

    Args:
        weights: pytree of arrays.
        masks: masks; leaves without one stay.

    Returns:
        the masked weights.

    Raises:
        ValueError: a mask has another shape than its leaf, or is not bool.

    Example:
        >>> from sparse_hyper_jax.pruning import apply_masks
        >>> params, masks = {"kernel": jnp.array([2.0, 3.0])}, {"kernel": jnp.array([True, False])}
        >>> loss = lambda weights: jnp.sum(weights["kernel"] ** 2) + weights["kernel"][1]
        >>> jax.grad(loss)(apply_masks(params, masks))["kernel"].tolist()  # of the dropped one, too
        [4.0, 1.0]
    """
    # Not a product: that of a dropped NaN or infinity would be NaN.
    return replace_entries(weights, masks, 0.0, where=False)


def replace_entries(tree: Any, masks: Masks, value: float, *, where: bool) -> Any:
    """Put a number in the place of the entries at which the masks are true, or false."""
    check_masks(tree, masks)

    def replaced(leaf: jax.Array, mask: Any) -> jax.Array:
        if is_left_out(mask):
            return leaf
        array, mask = as_array("an array", leaf), jnp.asarray(mask)
        return jnp.where(mask == where, jnp.asarray(value, array.dtype), array)

    return jax.tree.map(replaced, tree, masks)


def check_masks(tree: Any, masks: Masks) -> list[Any]:
    """Return the mask of every leaf after checking that it is bool and of the leaf's shape.

    Raises:
        ValueError: otherwise, or the trees have different structures.
    """
    places = check_fits(tree, masks, "masks")
    for (path, leaf), mask in zip(jax.tree_util.tree_leaves_with_path(tree), places, strict=True):
        if is_left_out(mask):
            continue
        name, shape = path_name(path) or "an array", jnp.shape(leaf)
        flags = as_array(f"the mask of {name}", mask)
        checks.require(
            flags.shape == shape and flags.dtype == jnp.bool_,
            f"a mask {flags.dtype}{list(flags.shape)} for {name} of shape {shape}",
            f"bool{list(shape)}",
            "make masks from the parameters, and gradients from masked weights",
        )
    return places


def combine_masks(function: Callable[..., jax.Array], masks: Masks, *more: Masks) -> Masks:
    """Combine masks entry by entry, for instance by ``jnp.logical_or``.

    Raises:
        ValueError: a shape differs, or the trees have different structures.

    Example:
        >>> from sparse_hyper_jax.pruning import combine_masks
        >>> one, two = {"kernel": jnp.array([True, False])}, {"kernel": jnp.array([True, True])}
        >>> combine_masks(jnp.logical_xor, one, two)["kernel"].tolist()  # where they differ
        [False, True]
    """
    check_function("function", function)
    masks, *others = (
        jax.tree.map(
            lambda mask: mask if is_left_out(mask) else as_array("a mask", mask, "numbers"),
            tree,
            is_leaf=is_left_out,
        )
        for tree in (masks, *more)
    )
    leaves = jax.tree.leaves(masks, is_leaf=is_left_out)
    for other in others:
        places = check_fits(masks, other, "masks", is_leaf=is_left_out)
        for mask, place in zip(leaves, places, strict=True):
            if not is_left_out(mask):
                check_same_shape(mask=mask, other=place)
    return jax.tree.map(
        lambda first, *rest: first if is_left_out(first) else function(first, *rest),
        masks,
        *others,
        is_leaf=is_left_out,
    )


class DensityReport(NamedTuple):
    """Shares of non-zeros, which "90 % sparse" may mean differently.

    Example:
        >>> from sparse_hyper_jax.pruning import density_report, magnitude_masks
        >>> params = {"kernel": jnp.arange(30.0).reshape(6, 5), "bias": jnp.zeros(10)}
        >>> density_report(params, magnitude_masks(params, 0.2))
        DensityReport(pruned=0.2, total=0.4, by_leaf={'kernel': 0.2})
    """

    pruned: float
    """Among the entries that have a mask."""

    total: float
    """Among all parameters, those without a mask included."""

    by_leaf: dict[str, float]
    """For every leaf that has a mask."""


def density_report(params: Any, masks: Masks) -> DensityReport:
    """Count what masks keep.

    Args:
        params: pytree of arrays; only shapes matter.
        masks: masks.

    Raises:
        ValueError: there is no mask, or one has another shape than its leaf, or is not bool.

    Example:
        >>> from sparse_hyper_jax.pruning import density_report, magnitude_masks
        >>> params = {"kernel": jnp.arange(30.0).reshape(6, 5), "bias": jnp.zeros(10)}
        >>> report = density_report(params, magnitude_masks(params, 0.2))
        >>> report.pruned, report.total  # "80 % sparse" of the kernel, "60 %" of all parameters
        (0.2, 0.4)
    """
    places = check_masks(params, masks)
    kept, sizes, other = {}, {}, 0
    for (path, leaf), mask in zip(jax.tree_util.tree_leaves_with_path(params), places, strict=True):
        if is_left_out(mask):
            other += jnp.size(leaf)
            continue
        name = path_name(path)
        kept[name], sizes[name] = int(jnp.sum(jnp.asarray(mask))), jnp.size(leaf)
    checks.require(bool(sizes), "no mask", "masks for at least one leaf", "check select=")
    of, all_of = sum(kept.values()), sum(sizes.values())
    return DensityReport(
        _share(of, all_of),
        _share(of + other, all_of + other),
        {name: _share(count, sizes[name]) for name, count in kept.items()},
    )


def _share(count: int, size: int) -> float:
    """Of no entries all are kept."""
    return count / size if size else 1.0


def pack_masks(masks: Masks) -> Any:
    """Store eight entries of a mask in a byte: uint8 arrays ``(ceil(size / 8),)``.

    Raises:
        ValueError: a mask is not bool.

    Example:
        >>> from sparse_hyper_jax.pruning import magnitude_masks, pack_masks
        >>> packed = pack_masks(magnitude_masks({"kernel": jnp.arange(300.0).reshape(30, 10)}, 0.1))
        >>> packed["kernel"].nbytes  # where bools take 300
        38
    """
    return jax.tree.map(
        lambda mask: jnp.packbits(gathered(as_array("a mask", mask, "flags")).reshape(-1)), masks
    )


def unpack_masks(packed: Any, params: Any) -> Masks:
    """Undo :func:`pack_masks`.

    Args:
        packed: what it gave.
        params: pytree of arrays, or of ``jax.ShapeDtypeStruct``, with the shapes of the masks.

    Raises:
        ValueError: a size does not fit, or the trees have different structures.

    Example:
        >>> from sparse_hyper_jax.pruning import magnitude_masks, pack_masks, unpack_masks
        >>> params = {"kernel": jnp.arange(12.0).reshape(4, 3)}
        >>> masks = magnitude_masks(params, 0.25)
        >>> again = unpack_masks(pack_masks(masks), params)  # by way of a file
        >>> bool(jnp.array_equal(again["kernel"], masks["kernel"]))
        True
    """

    def unpack(leaf: Any, bits: Any) -> Any:
        if is_left_out(bits):
            return bits
        known = not isinstance(leaf, jax.ShapeDtypeStruct)
        leaf = as_array("a parameter", leaf, "numbers") if known else leaf
        bits, size = as_array("packed", bits, "integers"), math.prod(leaf.shape)
        checks.check_shape("packed", bits, (-(-size // 8),), "eight entries per byte")
        mask = jnp.unpackbits(bits.astype(jnp.uint8), count=size).astype(bool).reshape(leaf.shape)
        return placed_like(mask, leaf) if known else mask

    structure, places = jax.tree.structure(params), check_fits(params, packed, "packed masks")
    return jax.tree.map(unpack, params, structure.unflatten(places))
