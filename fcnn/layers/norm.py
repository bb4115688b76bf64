"""Normalisation layers. Statistics are kept in float32 or wider, whatever the dtype of the parameters."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import geometry, ops
from ..errors import format_shape
from ..facts import EachPosition, Locality, WholeSpace
from ..geometry import Shape
from ..layer import Layer
from ..ops.dtypes import common, wide
from ..ops.moments import rescale
from ..ops.norm import check_divides, check_space_varies, check_variance, example_axes
from ..symbolic_sizes import below, symbolic
from ..types import Parameter, Params, State
from .hyperparameters import check_flag, check_number

#: the locality of norms that take their statistics from the input
BY_ALL = WholeSpace(
    "takes its statistics over all positions",
    "use BatchNorm or LayerNorm, whose numbers do not depend on the rest of the image",
)


@dataclass(frozen=True, repr=False)
class _Normalization(Layer):
    """Base class of normalising layers with learned scale and bias."""

    _: KW_ONLY
    epsilon: float = 1e-5
    scale: bool = True
    bias: bool = True

    def check(self) -> dict[str, Any]:
        check_flag(self.scale, "scale")
        check_flag(self.bias, "bias")
        return {"epsilon": check_number(self.epsilon, "epsilon", above=0)}

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        return self.learned(shapes[0][-1:])

    def learned(self, shape: Shape) -> dict[str, Parameter]:
        """Declare scale and bias of a shape."""
        found, axes = {}, (*["place"] * (len(shape) - 1), "out")
        if self.scale:
            found["scale"] = Parameter(shape, jax.nn.initializers.ones, axes)
        if self.bias:
            found["bias"] = Parameter(shape, jax.nn.initializers.zeros, axes)
        return found

    def multiply_adds(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, repr=False)
class _Running(_Normalization):
    """Base class of layers that can keep running statistics."""

    _: KW_ONLY
    momentum: float | None = 0.9
    running: bool = True
    unbiased: bool = True

    def check(self) -> dict[str, Any]:
        check_flag(self.running, "running")
        check_flag(self.unbiased, "unbiased")
        momentum = None if self.momentum is None else check_number(self.momentum, "momentum")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(
                f"momentum is {momentum:g}, it must be in [0, 1]: it is the share of the old statistics that is kept"
            )
        return {**super().check(), "momentum": momentum}

    def statistics(self, *shapes: Shape) -> dict[str, Parameter]:
        if not self.running:
            return {}
        shape = shapes[0][-1:]
        found = {
            "mean": Parameter(shape, jax.nn.initializers.zeros, ("out",)),
            "variance": Parameter(shape, jax.nn.initializers.ones, ("out",)),
        }
        if self.momentum is None:
            found["count"] = Parameter(shape, jax.nn.initializers.zeros, ("out",))
        return found

    def stored(self, params: Params, state: State, x: jax.Array) -> jax.Array:
        """The output, normalised by the running statistics."""
        return ops.batch_norm(
            x, state["mean"], state["variance"], params.get("scale"), params.get("bias"), epsilon=self.epsilon
        )

    def moved(self, state: State, mean: jax.Array, variance: jax.Array, count: Any) -> State:
        """The state moved towards the mean and biased variance of ``count`` values for each channel."""
        if not self.running:
            return state
        for name, old in state.items():
            if wide(old.dtype) != old.dtype:
                raise ValueError(
                    f"the state's {name} has dtype {old.dtype}, in which a running average stalls before it "
                    "converges; train with the state in float32, jax.tree.map(lambda a: a.astype('float32'), state); "
                    "apply takes it in any dtype"
                )
        if self.unbiased:
            variance = variance * (count / (count - 1))
        seen = {"mean": mean.astype(state["mean"].dtype), "variance": variance.astype(state["variance"].dtype)}
        # statistics that are not finite would corrupt the running statistics of their channel permanently
        good = jnp.isfinite(seen["mean"]) & jnp.isfinite(seen["variance"])
        new = {}
        kept: Any = self.momentum
        if self.momentum is None:
            batches = jax.lax.stop_gradient(state["count"])
            kept = batches / (batches + 1)
            new["count"] = state["count"] + good.astype(batches.dtype)
        for name, value in seen.items():
            old = state[name]
            moved = kept * old + (1 - kept) * jnp.where(good, value, 0)
            new[name] = jnp.where(good, moved.astype(old.dtype), old)
        return {name: new[name] for name in state}


@dataclass(frozen=True, repr=False)
class BatchNorm(_Running):
    r"""Normalise each channel by the batch in training, and by running statistics at inference.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    In training the mean and the (biased) variance are those of the batch, over examples and positions, and the
    state moves towards them:

    .. math:: \hat\mu \leftarrow a \hat\mu + (1 - a) \mu, \qquad
        \hat\sigma^2 \leftarrow a \hat\sigma^2 + (1 - a) \tfrac{m}{m - 1} \sigma^2

    with m values for each channel. A channel whose batch mean or variance is not finite keeps its old statistics; an
    empty batch changes none. Put it before the activation, and give the layer before it ``bias=False``.

    Args:
        momentum: a, the weight of the old value; PyTorch's ``momentum`` is 1 - a. None: the mean over all batches so
            far, a = t / (t + 1) after t batches.
        running: whether to keep running statistics; False: batch statistics are used at inference too, so that an
            output depends on the other examples (PyTorch's ``track_running_stats=False``).
        unbiased: whether the running variance moves towards m / (m - 1) times that of the batch, as in PyTorch;
            False: towards that of the batch, as in Keras and Flax.
        epsilon: added to the variance.
        scale: whether a learned factor :math:`\gamma` follows.
        bias: whether a learned offset :math:`\beta` follows.

    Shapes:
        x (batch, *space, channels) to the same; params["scale"], params["bias"], state["mean"] and
        state["variance"] (channels,); with momentum None also state["count"] (channels,), the number of batches so far.

    Raises:
        ValueError: no state; in training, a single value for each channel, which has no variance, or a state in
            half precision, in which running averages stall.

    Source:
        Ioffe and Szegedy, "Batch normalization", 2015, algorithms 1 and 2.

    Example:
        >>> net = BatchNorm(momentum=0.5)
        >>> x = jnp.array([[1.0], [3.0]])
        >>> y, state = net.apply_train(net.init(jax.random.key(0), (1,)), x, state=net.init_state((1,)))
        >>> y.round(3).ravel().tolist(), state["mean"].tolist(), state["variance"].tolist()
        ([-1.0, 1.0], [1.0], [1.5])
    """

    def locality(self, shape: Shape) -> Locality:
        return EachPosition() if self.running else BY_ALL

    def forward_eval(self, params: Params, state: State, *inputs: jax.Array) -> jax.Array:
        return self.stored(params, state, *inputs) if self.running else self.of_batch(params, state, *inputs)[0]

    def forward_train(
        self, params: Params, state: State, key: jax.Array | None, *inputs: jax.Array
    ) -> tuple[jax.Array, State]:
        return self.of_batch(params, state, *inputs)

    def of_batch(self, params: Params, state: State, x: jax.Array) -> tuple[jax.Array, State]:
        """The output, normalised by the statistics of the batch, and the updated state."""
        count = math.prod(x.shape[:-1])
        if count == 0 and self.running:  # an empty batch has no statistics
            return self.stored(params, state, x), state
        if count != 0 and below(count, 2):
            raise ValueError(
                f"x has shape {format_shape(x.shape)}: one value for each channel has no variance; "
                "train on batches of at least two examples, or use LayerNorm or GroupNorm"
            )
        if symbolic(count):
            count = jnp.asarray(count).astype(wide(x.dtype))
        return self.by_batch(params, state, x, count)

    def by_batch(
        self, params: Params, state: State, x: jax.Array, count: Any, share: jax.Array | None = None
    ) -> tuple[jax.Array, State]:
        """:meth:`of_batch` for checked inputs; ``share`` weights the values, ``count`` is their number in all."""
        normal, mean, variance = ops.standardize(x, tuple(range(x.ndim - 1)), epsilon=self.epsilon, share=share)
        scale, bias = params.get("scale"), params.get("bias")
        y = rescale(normal, scale, bias, common(x, scale, bias))
        return y, self.moved(state, mean.ravel(), variance.ravel(), count)


@dataclass(frozen=True, repr=False)
class LayerNorm(_Normalization):
    r"""Normalise over the channels, at every position separately, or over other axes.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    On images, ``LayerNorm(axes=(-3, -2, -1))`` normalises over space and channels, with a factor for each value;
    ``GroupNorm(1)`` does the same with a factor for each channel.

    Args:
        axes: the axes of x to average over, never the batch; PyTorch's ``normalized_shape=(H, W, C)`` is
            ``axes=(-3, -2, -1)``; Keras's ``axis`` means the same.
        epsilon: added to the variance.
        scale: whether a learned factor :math:`\gamma` follows.
        bias: whether a learned offset :math:`\beta` follows.

    Shapes:
        x (batch, *space, channels) to the same; params["scale"] and params["bias"] have the sizes of the axes, in
        their order in x: (channels,) by default.

    Raises:
        ValueError: an epsilon that is not above 0, axes that x does not have, or a single value over them, which has
            no variance.

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016, equation 3.

    Example:
        >>> net = LayerNorm()
        >>> net.apply(net.init(jax.random.key(0), (2,)), jnp.array([[1.0, 3.0]])).round(3).tolist()
        [[-1.0, 1.0]]
        >>> LayerNorm(axes=(-3, -2, -1)).init(jax.random.key(0), (8, 8, 3))["scale"].shape
        (8, 8, 3)
    """

    _: KW_ONLY
    axes: int | tuple[int, ...] = -1

    def check(self) -> dict[str, Any]:
        given = tuple(self.axes) if isinstance(self.axes, (tuple, list)) else (self.axes,)
        if not given or any(isinstance(axis, bool) or not hasattr(axis, "__index__") for axis in given):
            raise TypeError(f"axes must be an integer or several, such as -1 or (-3, -2, -1), not {self.axes!r}")
        given = tuple(axis.__index__() for axis in given)
        if 0 in given:
            raise ValueError(f"axes {self.axes} have 0, the batch; a norm over the batch is BatchNorm")
        return {**super().check(), "axes": given if isinstance(self.axes, (tuple, list)) else given[0]}

    def of_channels(self, shape: Shape) -> bool:
        """Whether the axes are the channels alone, for an example of this shape."""
        return example_axes(self.axes, len(shape)) == (len(shape) - 1,)

    def infer_shape(self, *shapes: Shape) -> Shape:
        over = math.prod(shapes[0][axis] for axis in example_axes(self.axes, len(shapes[0])))
        if self.axes == -1:
            check_variance(over, shapes[0], "at each position", "use GroupNorm(1) or BatchNorm")
        else:
            check_variance(over, shapes[0], f"over the axes {self.axes}", "use more axes")
        return shapes[0]

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        sizes = tuple(shapes[0][axis] for axis in example_axes(self.axes, len(shapes[0])))
        return self.learned(sizes)

    def locality(self, shape: Shape) -> Locality:
        return EachPosition() if self.of_channels(shape) else BY_ALL

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        scale, bias = params.get("scale"), params.get("bias")
        return ops.layer_norm(inputs[0], scale, bias, axes=self.axes, epsilon=self.epsilon)


@dataclass(frozen=True, repr=False)
class GroupNorm(_Normalization):
    r"""Normalise groups of channels over the space, for each example separately.

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

    def locality(self, shape: Shape) -> Locality:
        return BY_ALL

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.group_norm(inputs[0], self.groups, params.get("scale"), params.get("bias"), epsilon=self.epsilon)


@dataclass(frozen=True, repr=False)
class InstanceNorm(_Running):
    r"""Normalise each channel over the space, for each example separately.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    With ``running`` the statistics of the example are used in training only, and running statistics at inference. These
    move towards the mean of the statistics in the batch as in :class:`BatchNorm`.

    Args:
        running: whether to keep and use running statistics (PyTorch's ``track_running_stats=True``).
        momentum: as for ``BatchNorm``.
        unbiased: as for ``BatchNorm``, with m samples of the space.
        epsilon: added to the variance.
        scale: whether a learned factor :math:`\gamma` follows (PyTorch's default is none).
        bias: whether a learned offset :math:`\beta` follows (PyTorch's default is none).

    Shapes:
        x (batch, *space, channels) to the same; params["scale"] and params["bias"] (channels,); with ``running``, a
        state like that of ``BatchNorm``.

    Raises:
        ValueError: a space of a single sample, which has no variance; with ``running``, no state.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016, equation 2.

    Example:
        >>> InstanceNorm(scale=False, bias=False).init(jax.random.key(0), (8, 8, 3))
        {}
        >>> InstanceNorm(running=True).init_state((8, 8, 3))["mean"].shape
        (3,)
    """

    _: KW_ONLY
    running: bool = False

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_space_varies(shapes[0])
        return shapes[0]

    def locality(self, shape: Shape) -> Locality:
        return EachPosition() if self.running else BY_ALL

    def forward_eval(self, params: Params, state: State, *inputs: jax.Array) -> jax.Array:
        return self.stored(params, state, *inputs) if self.running else self.of_examples(params, state, *inputs)[0]

    def forward_train(
        self, params: Params, state: State, key: jax.Array | None, *inputs: jax.Array
    ) -> tuple[jax.Array, State]:
        return self.of_examples(params, state, *inputs)

    def of_examples(self, params: Params, state: State, x: jax.Array) -> tuple[jax.Array, State]:
        """The output, normalised by the statistics of each example, and the updated state."""
        scale, bias = params.get("scale"), params.get("bias")
        if not self.running:
            return ops.instance_norm(x, scale, bias, epsilon=self.epsilon), state
        space = tuple(range(1, x.ndim - 1))
        normal, mean, variance = ops.standardize(x, space, epsilon=self.epsilon)
        y = rescale(normal, scale, bias, common(x, scale, bias))
        mean, variance = (a.reshape(x.shape[0], -1).mean(0) for a in (mean, variance))
        return y, self.moved(state, mean, variance, math.prod(x.shape[1:-1]))
