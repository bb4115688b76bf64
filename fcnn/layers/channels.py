"""Layers that act on every position separately: slopes, factors and the order of channels."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax

from .. import geometry, ops
from ..facts import EachPosition, Locality
from ..geometry import Shape
from ..layer import Layer
from ..ops.norm import check_divides
from ..types import Parameter, Params
from .conv import check_flag
from .hyperparameters import check_number
from .initial import Initial, check, resolve


@dataclass(frozen=True, repr=False)
class PReLU(Layer):
    r"""A rectifier with a learned slope for negative inputs.

    .. math:: y_{\dots, c} = \max(x_{\dots, c}, 0) + a_c \min(x_{\dots, c}, 0)

    Weight decay would pull the slope towards 0, a ReLU; the decay mask of ``fcnn.training`` excludes it.

    Args:
        per_channel: whether every channel has its own slope; False: one slope for all, PyTorch's default.
        slope_init: initial slope, 0.25 in the paper and in PyTorch; an initialiser as ``bias_init`` of ``Conv``.

    Shapes:
        x (batch, *space, channels) to the same; params["slope"] () or, with ``per_channel``, (channels,).

    Raises:
        TypeError: a flag that is neither True nor False, or an initialiser of the wrong kind.

    Source:
        He et al., "Delving deep into rectifiers", 2015, section 2.1.

    Example:
        >>> net = PReLU()
        >>> net.apply(net.init(jax.random.key(0), (2,)), jax.numpy.array([[-4.0, 4.0]])).tolist()
        [[-1.0, 4.0]]
        >>> PReLU(per_channel=True).init(jax.random.key(0), (8, 8, 64))["slope"].shape
        (64,)
    """

    _: KW_ONLY
    per_channel: bool = False
    slope_init: Initial = ("constant", 0.25)

    def check(self) -> dict[str, Any]:
        return {
            "per_channel": check_flag(self.per_channel, "per_channel"),
            "slope_init": check(self.slope_init, "slope_init"),
        }

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        return {
            "slope": Parameter(
                shapes[0][-1:] if self.per_channel else (), resolve(self.slope_init), ("out",) * self.per_channel
            )
        }

    def locality(self, shape: Shape) -> Locality:
        return EachPosition(vectors=self.per_channel)

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.prelu(inputs[0], params["slope"])


@dataclass(frozen=True, repr=False)
class ScaleChannels(Layer):
    r"""Each channel times a learned factor, plus a learned offset if wanted.

    .. math:: y_{\dots, c} = \gamma_c \, x_{\dots, c} + b_c

    At the end of a residual branch, a small initial factor makes every block start close to the identity. With a bias
    it is what batch normalisation is at inference; ``fcnn.fold`` leaves it where no layer beside can take both.

    Args:
        initial: initial value of every factor; the default is ConvNeXt's 1e-6.
        bias: whether there is an offset for each channel; 0 initially.

    Shapes:
        x (batch, *space, channels) to the same; params["scale"] (channels,), params["bias"] (channels,).

    Raises:
        ValueError: an initial value that is not finite.

    Source:
        Touvron et al., "Going deeper with image transformers", 2021, equation 4 ("LayerScale"); Liu et al., "A ConvNet
        for the 2020s", 2022, uses it in every block.

    Example:
        >>> import fcnn
        >>> block = fcnn.residual(fcnn.serial(fcnn.Conv(64, 7, padding="SAME", groups=64), ScaleChannels(1e-6)))
        >>> block.init(jax.random.key(0), (14, 14, 64))["body"]["scale_channels1"]["scale"].shape
        (64,)
    """

    initial: float = 1e-6
    _: KW_ONLY
    bias: bool = False

    def check(self) -> dict[str, Any]:
        return {"initial": check_number(self.initial, "initial"), "bias": check_flag(self.bias, "bias")}

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        channels = shapes[0][-1:]
        found = {"scale": Parameter(channels, jax.nn.initializers.constant(self.initial), ("out",))}
        if self.bias:
            found["bias"] = Parameter(channels, jax.nn.initializers.zeros, ("out",))
        return found

    def locality(self, shape: Shape) -> Locality:
        return EachPosition()

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.scale_channels(inputs[0], params["scale"], params.get("bias"))


@dataclass(frozen=True, repr=False)
class ChannelShuffle(Layer):
    r"""Distribute the channels of every group over all groups, so that grouped convolutions exchange information.

    .. math:: y_{\dots,\, g j + i} = x_{\dots,\, (C / g) i + j}, \qquad 0 \le i < g, \quad 0 \le j < C / g

    Args:
        groups: g, a divisor of the C channels; use the groups of the preceding convolution.

    Shapes:
        x (batch, *space, channels) to the same.

    Raises:
        ValueError: groups that do not divide the channels.

    Source:
        Zhang et al., "ShuffleNet", 2018, section 3.1.

    Example:
        >>> ChannelShuffle(2).apply({}, jax.numpy.arange(6.0)[None]).tolist()
        [[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]]
    """

    groups: int

    def check(self) -> dict[str, Any]:
        return {"groups": geometry.integer(self.groups, "groups")}

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_divides(shapes[0][-1], self.groups)
        return shapes[0]

    def locality(self, shape: Shape) -> Locality:
        return EachPosition()

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.channel_shuffle(inputs[0], self.groups)
