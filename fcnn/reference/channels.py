"""Operations on the channels at each position: learned slopes, learned factors, shuffling."""

from __future__ import annotations

import numpy as np

from .node import Node


class PReLU(Node):
    r"""The rectifier with a learned slope a for negative inputs, one for all channels or one per channel.

    .. math:: y = x \, [x > 0] + a x \, [x \le 0], \qquad
        \frac{\partial L}{\partial x} = g \, ([x > 0] + a \, [x \le 0]), \quad
        \frac{\partial L}{\partial a} = \sum g x \, [x \le 0], \quad g = \frac{\partial L}{\partial y}

    Args:
        slope: a.

    Shapes:
        x (..., channels), slope () or (channels,).

    Raises:
        ValueError: if there is neither one slope nor one per channel.

    Source:
        He et al., "Delving deep into rectifiers", 2015, equations 1 and 3.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import PReLU
        >>> node = PReLU(np.array(0.5))
        >>> node.forward(np.array([[-2.0, 3.0]])).tolist(), node.backward(np.ones((1, 2)))[0].tolist()
        ([[-1.0, 3.0]], [[0.5, 1.0]])
        >>> node.gradients["slope"].tolist()
        -2.0
    """

    def __init__(self, slope: np.ndarray) -> None:
        super().__init__(slope=slope)

    def forward(self, x: np.ndarray) -> np.ndarray:
        slope = self.params["slope"]
        if slope.shape not in ((), x.shape[-1:]):
            raise ValueError(f"slope {slope.shape} is neither one number nor one for each channel of x {x.shape}")
        return self.keep(np.where(x > 0, x, slope * x), x)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = self.recall(gradient)
        slope = self.params["slope"]
        shares = np.where(x > 0, 0, gradient * x)
        # a single slope: the sum is also over the channels
        self.add_gradient("slope", shares.sum(tuple(range(x.ndim - slope.ndim))))
        return (np.where(x > 0, gradient, gradient * slope),)


class ScaleChannels(Node):
    r"""Multiply each channel by a factor :math:`\gamma_c`, and add an offset :math:`b_c` if there is one.

    .. math:: y_{\dots, c} = \gamma_c x_{\dots, c} + b_c, \qquad
        \frac{\partial L}{\partial x_{\dots, c}} = \gamma_c g_{\dots, c}, \quad
        \frac{\partial L}{\partial \gamma_c} = \sum g_{\dots, c} x_{\dots, c}, \quad
        \frac{\partial L}{\partial b_c} = \sum g_{\dots, c}, \quad g = \frac{\partial L}{\partial y}

    Args:
        scale: the factors.
        bias: the offsets; None: there are none.

    Shapes:
        x (..., channels), scale and bias (channels,).

    Raises:
        ValueError: if there is not one factor, and one offset, per channel.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import ScaleChannels
        >>> node = ScaleChannels(np.array([0.5, 2.0]))
        >>> node.forward(np.array([[2.0, 3.0]])).tolist(), node.backward(np.ones((1, 2)))[0].tolist()
        ([[1.0, 6.0]], [[0.5, 2.0]])
        >>> node.gradients["scale"].tolist()
        [2.0, 3.0]
    """

    def __init__(self, scale: np.ndarray, bias: np.ndarray | None = None) -> None:
        super().__init__(**({"scale": scale} if bias is None else {"scale": scale, "bias": bias}))

    def forward(self, x: np.ndarray) -> np.ndarray:
        for name, what in (("scale", "factor"), ("bias", "offset")):
            if name in self.params and self.params[name].shape != x.shape[-1:]:
                raise ValueError(
                    f"{name} {self.params[name].shape} must have one {what} for each channel of x {x.shape}"
                )
        return self.keep(x * self.params["scale"] + self.params.get("bias", 0), x)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = self.recall(gradient)
        before = tuple(range(x.ndim - 1))
        self.add_gradient("scale", (gradient * x).sum(before))
        if "bias" in self.params:
            self.add_gradient("bias", gradient.sum(before))
        return (gradient * self.params["scale"],)


class ChannelShuffle(Node):
    r"""Interleave the channels of g groups; backward undoes this for the gradients.

    .. math:: y_{\dots,\, g j + i} = x_{\dots,\, (C / g) i + j}

    Args:
        groups: g.

    Shapes:
        x (..., channels) to the same.

    Raises:
        ValueError: if the groups do not divide the channels.

    Source:
        Zhang et al., "ShuffleNet", 2018, section 3.1.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import ChannelShuffle
        >>> ChannelShuffle(2).forward(np.arange(6.0)).tolist()
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups is {groups}, it must be at least 1")
        self.groups = groups

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.shape[-1] % self.groups:
            raise ValueError(f"groups {self.groups} do not divide {x.shape[-1]} channels")
        size = x.shape[-1] // self.groups
        source = [size * i + j for j in range(size) for i in range(self.groups)]  # of channel g j + i
        return self.keep(x[..., source], source)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (source,) = self.recall(gradient)
        dx = np.empty_like(gradient)
        dx[..., source] = gradient
        return (dx,)
