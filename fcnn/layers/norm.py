"""Normalisation layers. Statistics are kept in float32 or wider, whatever the parameters are."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import geometry, ops
from ..errors import shown
from ..geometry import Shape
from ..given import Parameter, Params, State
from ..layer import Layer
from ..ops.norm import check_divides, check_space_varies, check_variance
from .conv import check_flag


@dataclass(frozen=True, repr=False)
class _Normalization(Layer):
    """What the normalising layers with learned scale and bias have in common."""

    _: KW_ONLY
    epsilon: float = 1e-5
    scale: bool = True
    bias: bool = True

    def check(self) -> dict[str, Any]:
        check_flag(self.scale, "scale")
        check_flag(self.bias, "bias")
        return {"epsilon": check_number(self.epsilon, "epsilon", above=0)}

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        found = {}
        if self.scale:
            found["scale"] = Parameter(shapes[0][-1:], jax.nn.initializers.ones)
        if self.bias:
            found["bias"] = Parameter(shapes[0][-1:], jax.nn.initializers.zeros)
        return found


@dataclass(frozen=True, repr=False)
class BatchNorm(_Normalization):
    r"""Normalise each channel by the batch in training, and by running statistics in use.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    In training the mean and the (biased) variance are those of the batch, over examples and positions, and the
    state moves towards them:

    .. math:: \hat\mu \leftarrow a \hat\mu + (1 - a) \mu, \qquad
        \hat\sigma^2 \leftarrow a \hat\sigma^2 + (1 - a) \tfrac{m}{m - 1} \sigma^2

    with m values for each channel; an empty batch leaves it as it is. Put it before the activation, and give the layer
    before it ``bias=False``.

    Args:
        momentum: a, the share of the old value that is kept; PyTorch's ``momentum`` is 1 - a.
        epsilon: added to the variance.
        scale: whether a learned factor :math:`\gamma` follows.
        bias: whether a learned offset :math:`\beta` follows.

    Shapes:
        x (batch, *space, channels) to the same; params["scale"], params["bias"], state["mean"] and
        state["variance"] (channels,).

    Raises:
        ValueError: no state; in training, a single value for each channel, which has no variance.

    Source:
        Ioffe and Szegedy, "Batch normalization", 2015, algorithms 1 and 2.

    Example:
        >>> net = BatchNorm(momentum=0.5)
        >>> x = jnp.array([[1.0], [3.0]])
        >>> y, state = net.apply_train(net.init(jax.random.key(0), (1,)), x, state=net.init_state((1,)))
        >>> y.round(3).ravel().tolist(), state["mean"].tolist(), state["variance"].tolist()
        ([-1.0, 1.0], [1.0], [1.5])
    """

    _: KW_ONLY
    momentum: float = 0.9

    def check(self) -> dict[str, Any]:
        momentum = check_number(self.momentum, "momentum")
        if not 0 <= momentum <= 1:
            raise ValueError(
                f"momentum is {momentum:g}, it must be in [0, 1]: it is the share of the old statistics that is kept"
            )
        return {**super().check(), "momentum": momentum}

    def statistics(self, *shapes: Shape) -> dict[str, Parameter]:
        shape = shapes[0][-1:]
        return {
            "mean": Parameter(shape, jax.nn.initializers.zeros),
            "variance": Parameter(shape, jax.nn.initializers.ones),
        }

    def forward_eval(self, params: Params, state: State, *inputs: jax.Array) -> jax.Array:
        (x,) = inputs
        return ops.batch_norm(
            x, state["mean"], state["variance"], params.get("scale"), params.get("bias"), epsilon=self.epsilon
        )

    def forward_train(
        self, params: Params, state: State, key: jax.Array | None, *inputs: jax.Array
    ) -> tuple[jax.Array, State]:
        (x,) = inputs
        count = math.prod(x.shape[:-1])
        if count == 0:  # an empty batch says nothing of the data
            return self.forward_eval(params, state, x), state
        if geometry.below(count, 2):
            raise ValueError(
                f"x has shape {shown(x.shape)}: one value for each channel has no variance; "
                "train on batches of at least two examples, or use LayerNorm or GroupNorm"
            )
        mean, variance = ops.moments(x, tuple(range(x.ndim - 1)))
        y = ops.normalize(x, mean, variance, params.get("scale"), params.get("bias"), epsilon=self.epsilon)
        if geometry.symbolic(count):
            count = jnp.asarray(count).astype(variance.dtype)
        seen = {"mean": mean.ravel(), "variance": variance.ravel() * (count / (count - 1))}
        return y, {name: self._moved(state[name], value) for name, value in seen.items()}

    def _moved(self, old: jax.Array, new: jax.Array) -> jax.Array:
        new = new.astype(old.dtype)
        return (self.momentum * old + (1 - self.momentum) * new).astype(old.dtype)


@dataclass(frozen=True, repr=False)
class LayerNorm(_Normalization):
    r"""Normalise over the channels, at every position by itself.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    To normalise over channels and space together, use ``GroupNorm(1)``.

    Args:
        epsilon: added to the variance.
        scale: whether a learned factor :math:`\gamma` follows.
        bias: whether a learned offset :math:`\beta` follows.

    Shapes:
        x (batch, *space, channels) to the same; params["scale"] and params["bias"] (channels,).

    Raises:
        ValueError: an epsilon that is not above 0, or an input of a single channel, which has no variance.

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016, equation 3.

    Example:
        >>> net = LayerNorm()
        >>> net.apply(net.init(jax.random.key(0), (2,)), jnp.array([[1.0, 3.0]])).round(3).tolist()
        [[-1.0, 1.0]]
    """

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_variance(shapes[0][-1], shapes[0], "at each position", "use GroupNorm(1) or BatchNorm")
        return shapes[0]

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.layer_norm(inputs[0], params.get("scale"), params.get("bias"), epsilon=self.epsilon)


@dataclass(frozen=True, repr=False)
class GroupNorm(_Normalization):
    r"""Normalise groups of channels over the space, for each example by itself.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Args:
        groups: number of groups; 1 normalises the whole example.
        epsilon: added to the variance.
        scale: whether a learned factor :math:`\gamma` follows.
        bias: whether a learned offset :math:`\beta` follows.

    Shapes:
        x (batch, *space, channels) to the same; params["scale"] and params["bias"] (channels,).

    Raises:
        ValueError: groups that do not divide the channels, or that hold a single value, which has no variance.

    Source:
        Wu and He, "Group normalization", 2018, equation 7.

    Example:
        >>> GroupNorm(4).out_shape((8, 8, 32))
        (8, 8, 32)
    """

    groups: int

    def check(self) -> dict[str, Any]:
        return {**super().check(), "groups": geometry.integer(self.groups, "groups")}

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_divides(shapes[0][-1], self.groups)
        check_variance(math.prod(shapes[0]) // self.groups, shapes[0], "in each group", "use fewer groups")
        return shapes[0]

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.group_norm(inputs[0], self.groups, params.get("scale"), params.get("bias"), epsilon=self.epsilon)


@dataclass(frozen=True, repr=False)
class InstanceNorm(_Normalization):
    r"""Normalise each channel over the space, for each example by itself.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Args:
        epsilon: added to the variance.
        scale: whether a learned factor :math:`\gamma` follows (PyTorch's default is none).
        bias: whether a learned offset :math:`\beta` follows (PyTorch's default is none).

    Shapes:
        x (batch, *space, channels) to the same; params["scale"] and params["bias"] (channels,).

    Raises:
        ValueError: a space of a single sample, which has no variance.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016, equation 2.

    Example:
        >>> InstanceNorm(scale=False, bias=False).init(jax.random.key(0), (8, 8, 3))
        {}
    """

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_space_varies(shapes[0])
        return shapes[0]

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.instance_norm(inputs[0], params.get("scale"), params.get("bias"), epsilon=self.epsilon)


@dataclass(frozen=True, repr=False)
class LocalResponseNorm(Layer):
    r"""Divide by the activity of neighbouring channels at the same position.

    .. math:: y_i = x_i \Big/ \Bigl(k + \alpha \sum_{j = i - \lfloor n/2 \rfloor}^{i + \lfloor (n - 1)/2 \rfloor}
        x_j^2 \Bigr)^\beta

    The paper's formula and constants; PyTorch's ``alpha=a`` is ``alpha=a / size`` here.

    Args:
        size: channels in the neighbourhood, n.
        alpha: weight of the sum of squares.
        beta: exponent.
        k: offset, above 0.

    Shapes:
        x (batch, *space, channels) to the same.

    Raises:
        ValueError: a number out of range.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification", 2012, section 3.3.

    Example:
        >>> LocalResponseNorm().out_shape((27, 27, 96))
        (27, 27, 96)
    """

    _: KW_ONLY
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0

    def check(self) -> dict[str, Any]:
        return {
            "size": geometry.integer(self.size, "size"),
            "alpha": check_number(self.alpha, "alpha"),
            "beta": check_number(self.beta, "beta"),
            "k": check_number(self.k, "k", above=0),
        }

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.local_response_norm(inputs[0], size=self.size, alpha=self.alpha, beta=self.beta, k=self.k)


def check_number(value: Any, name: str, above: float | None = None) -> float:
    """Raise unless value is a finite number, above a bound where one is given."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {value!r}")
    value = float(value)
    if not math.isfinite(value) or (above is not None and not value > above):
        raise ValueError(f"{name} is {value:g}, it must be finite{'' if above is None else f' and above {above}'}")
    return value
