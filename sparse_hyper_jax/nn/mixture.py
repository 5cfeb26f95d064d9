"""A mixture of experts whose router learns by one of several gradients."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.estimators.default_vectors import (
    check_decay,
    fill_with_defaults,
    update_defaults,
)
from sparse_hyper_jax.estimators.routing import (
    RULES,
    Route,
    RoutingRule,
    balance_loss,
    check_jitter,
    sparse_mixer,
    top_route,
)
from sparse_hyper_jax.nn.keys import Randomness, check_rngs, draw_key
from sparse_hyper_jax.nn.options import (
    check_float_dtype,
    check_no_container,
    in_evaluation,
    initialised,
)
from sparse_hyper_jax.nn.placement import leave_to_compiler, reshape_like
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.precision import at_least_float32, wide_dtype

Router = RoutingRule | Literal["top", "default", "dense"]
ROUTERS = ("top", *RULES, "default", "dense")
Product = Literal["ragged", "all"]
PRODUCTS = get_args(Product)

KERNEL_INIT = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))


class DefaultVectors(nnx.Variable):
    """What stands for the experts that were not chosen, ``(E, out_features)``: no parameter.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> mixture = nn.Mixture(4, 8, 2, num_experts=3, router="default", rngs=nnx.Rngs(0))
        >>> mixture.defaults.shape, isinstance(mixture.defaults, nn.DefaultVectors)
        ((3, 2), True)
    """


class Mixed(NamedTuple):
    """What a mixture gives back.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> mixture = nn.Mixture(4, 8, 2, num_experts=3, router="top", rngs=nnx.Rngs(0))
        >>> mixed = mixture(jnp.ones((5, 4)))
        >>> mixed.y.shape, mixed.expert.shape, mixed.balance_loss.shape, mixed.defaults
        ((5, 2), (5,), (), None)
    """

    y: jax.Array
    """``(..., out_features)``."""

    expert: jax.Array
    """int32 ``(...)``, the expert of each token; of a dense router, the most probable one."""

    balance_loss: jax.Array
    """Scalar; see :func:`~sparse_hyper_jax.estimators.balance_loss`."""

    defaults: jax.Array | None
    """``(E, out_features)``, the next default vectors; None unless the router is ``"default"``."""


class Mixture(nnx.Module):
    """Experts with one hidden layer, of which each token sees one, chosen by a linear router.

    ``y = gate * E_D(x)`` with ``E_i(x) = relu(x A_i + a_i) B_i + b_i`` and ``D`` from the logits
    ``x R``. How the router is trained:

    - ``"top"``: the most probable expert, the ordinary gradient of its gate.
    - ``"gate"``, ``"first_order"``, ``"midpoint"``, ``"heun"``: an expert drawn at random, see
      :func:`~sparse_hyper_jax.estimators.sparse_mixer`.
    - ``"default"``: the most probable expert, and constant vectors for the others, also in
      evaluation, see :func:`~sparse_hyper_jax.estimators.fill_with_defaults`.
    - ``"dense"``: all experts, weighted by their probability, also in evaluation; E times the work.

    In evaluation mode (``layer.eval()`` or ``deterministic=True``) all but ``"dense"`` take the
    most probable expert and nothing is random. The default vectors do not change in a call: the
    training step stores what comes back::

        mixed = mixture(x)
        mixture.defaults[...] = mixed.defaults

    The router is computed in float32 or wider whatever ``dtype`` says.

    Args:
        in_features: length of the last axis of the input.
        hidden_features: units of an expert's hidden layer.
        out_features: length of the last axis of the output.
        num_experts: how many, E.
        router: one of the above.
        exact_at_argmax: see :func:`~sparse_hyper_jax.estimators.sparse_mixer`.
        jitter: see there; in training only.
        decay: share of the default vectors that a batch leaves as it is.
        product: ``"ragged"`` sorts tokens by expert and computes each with its own
            (``jax.lax.ragged_dot``), so that work does not grow with E on devices with such a
            kernel; a CPU computes all and masks. It supports ``jax.vmap`` only over tokens and
            parameters together. ``"all"`` computes every expert for every token and picks; it
            supports every transform.
        dtype: of the experts' computation; None infers it from input and parameters.
        param_dtype: of the parameters.
        kernel_init: initializer of ``(E, in, out)``; by default each expert as ``nnx.Linear``.
        bias_init: initializer of ``(E, out)``.
        deterministic: evaluate instead of train.
        rngs: stream ``params``; and ``sample`` for a random router.

    Raises:
        ValueError: an option is wrong.

    Reference: Shazeer et al. 2017, arXiv 1701.06538; Fedus et al. 2021, arXiv 2101.03961; Liu et
    al. 2023, arXiv 2310.00811; Panda et al. 2025, arXiv 2504.12463.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> mixture = nn.Mixture(4, 8, 2, num_experts=3, rngs=nnx.Rngs(0))
        >>> mixed = mixture(jnp.ones((5, 4)))
        >>> mixed.y.shape, mixed.expert.shape
        ((5, 2), (5,))
        >>> mixture(jnp.ones((5, 4)), deterministic=True).y.shape
        (5, 2)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        num_experts: int,
        *,
        router: Router = "midpoint",
        exact_at_argmax: bool = True,
        jitter: float | None = None,
        decay: float = 0.9,
        product: Product = "ragged",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = KERNEL_INIT,
        bias_init: Any = nnx.initializers.zeros_init(),  # noqa: B008 (pure)
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.num_experts = checks.check_count("num_experts", num_experts, least=1)
        hidden = checks.check_count("hidden_features", hidden_features, least=1)
        outputs = checks.check_count("out_features", out_features, least=1)
        checks.check_choice("router", router, ROUTERS)
        check_no_container(product=product, decay=decay, exact_at_argmax=exact_at_argmax)
        check_no_container(jitter=jitter, dtype=dtype, deterministic=deterministic)
        self.method, self.product, self.decay = router, product, decay
        self.exact_at_argmax, self.jitter = exact_at_argmax, jitter
        self.dtype, self.deterministic = dtype, deterministic
        kept = jnp.zeros((self.num_experts, outputs), _kept_dtype(param_dtype))
        self.defaults = DefaultVectors(kept) if router == "default" else None
        self._check_options()
        check_rngs(rngs, "params", *(["sample"] if router in RULES else []))

        def experts(name: str, init: Any, *shape: int) -> nnx.Param:
            shape = (self.num_experts, *shape)
            return nnx.Param(initialised(name, init, rngs.params(), shape, param_dtype))

        shapes = ((self.in_features, hidden), (hidden, outputs))
        kernels = [experts("kernel_init", kernel_init, *shape) for shape in shapes]
        self.kernels = nnx.List(kernels)
        self.biases = nnx.List([experts("bias_init", bias_init, shape[1]) for shape in shapes])
        self.router = nnx.Linear(
            self.in_features,
            self.num_experts,
            use_bias=False,
            param_dtype=param_dtype,
            promote_dtype=promote,
            rngs=rngs,
        )
        self.rngs = rngs["sample"].fork() if router in RULES else None

    def _check_options(self) -> None:
        checks.check_choice("method", self.method, ROUTERS)
        checks.check_choice("product", self.product, PRODUCTS)
        checks.require(
            (self.method == "default") == (self.defaults is not None),
            f"method={self.method!r} in a mixture "
            f"{'without' if self.defaults is None else 'with'} default vectors",
            "default vectors for the method 'default', and for no other",
            "make the mixture with another router",
        )
        check_jitter(self.jitter)
        check_decay(self.decay)
        checks.check_flag("exact_at_argmax", self.exact_at_argmax)
        checks.check_flag("deterministic", self.deterministic)
        check_float_dtype("dtype", self.dtype, inferred=True)

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> Mixed:
        """Map tokens.

        Args:
            x: ``(..., in_features)``, all leading axes tokens.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.

        Returns:
            the output and what training needs beside it.

        Raises:
            ValueError: no tokens, or tokens of another length.
        """
        self._check_options()
        x = as_array("x", x)
        checks.require(
            x.ndim >= 1 and x.shape[-1] == self.in_features and 0 not in x.shape,
            f"x of shape {x.shape}",
            f"(..., {self.in_features}), at least one token",
            "change x or in_features",
        )
        hard = in_evaluation(self.deterministic, deterministic)
        tokens = reshape_like(x, (-1, self.in_features), x, 1)
        logits = self.router(at_least_float32(tokens))
        route = self._route(logits, hard=hard, rngs=rngs)
        y, defaults = self._mix(tokens, logits, route, hard=hard)
        loss = balance_loss(logits, route.expert)
        lead = x.shape[:-1]
        y = reshape_like(y, (*lead, y.shape[1]), x, len(lead))
        return Mixed(y, reshape_like(route.expert, lead, x, len(lead)), loss, defaults)

    def _route(self, logits: jax.Array, *, hard: bool, rngs: Randomness | None) -> Route:
        if hard or self.method not in RULES:
            return top_route(logits)
        key = draw_key(rngs, self.rngs)
        return sparse_mixer(
            key,
            logits,
            method=self.method,
            exact_at_argmax=self.exact_at_argmax,
            jitter=self.jitter,
        )

    def _mix(
        self, tokens: jax.Array, logits: jax.Array, route: Route, *, hard: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        if self.method == "dense":
            outputs = self._every_expert(tokens)
            shares = jax.nn.softmax(logits).astype(outputs.dtype)
            return jnp.einsum("te,teo->to", shares, outputs), None
        outputs = self._own_expert(tokens, route.expert)
        if self.defaults is None:
            return route.gate.astype(outputs.dtype)[:, None] * outputs, None
        defaults = self.defaults[...]
        y = fill_with_defaults(logits, outputs, route.expert, defaults)
        if hard:
            return y, defaults
        return y, update_defaults(defaults, outputs, route.expert, decay=self.decay)

    def _own_expert(self, tokens: jax.Array, index: jax.Array) -> jax.Array:
        if self.product == "all":
            outputs = self._every_expert(tokens)
            return jnp.take_along_axis(outputs, index[:, None, None], axis=1)[:, 0]
        biases = [bias[...] for bias in self.biases]
        x, *kernels = self._promote(tokens)
        return leave_to_compiler(_sorted_by_expert, (x, index, kernels, biases), batch=tokens)

    def _every_expert(self, tokens: jax.Array) -> jax.Array:
        x, *kernels = self._promote(tokens)
        x = jnp.broadcast_to(x[:, None], (x.shape[0], self.num_experts, self.in_features))
        for layer, (kernel, bias) in enumerate(zip(kernels, self.biases, strict=True)):
            x = nnx.relu(x) if layer else x
            x = jnp.einsum("tei,eio->teo", x, kernel) + bias[...].astype(x.dtype)[None]
        return x

    def _promote(self, tokens: jax.Array) -> tuple[jax.Array, ...]:
        kernels = (kernel[...] for kernel in self.kernels)
        return promote((tokens, *kernels), dtype=self.dtype)


def _sorted_by_expert(
    tokens: jax.Array, index: jax.Array, kernels: list[jax.Array], biases: list[jax.Array]
) -> jax.Array:
    """Compute each token with its own expert, the tokens of an expert side by side."""
    order = jnp.argsort(index)
    owner, sizes = index[order], jnp.bincount(index, length=kernels[0].shape[0])
    x = tokens[order]
    for layer, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        x = nnx.relu(x) if layer else x
        # The gather's transpose sums over tokens: in float32, whatever x is.
        own = at_least_float32(bias)[owner]
        x = jax.lax.ragged_dot(x, kernel, sizes.astype(jnp.int32)) + own.astype(x.dtype)
    return x[jnp.argsort(order)]


def _kept_dtype(param_dtype: Any) -> jnp.dtype:
    check_float_dtype("param_dtype", param_dtype)
    return wide_dtype(jnp.dtype(param_dtype))
