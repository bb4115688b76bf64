"""Pooling layers over windows, and unpooling."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax

from .. import geometry, ops
from ..errors import format_shape
from ..facts import Locality, SlidingWindow
from ..geometry import Padding, Shape
from ..layer import Layer
from ..ops.cells import check_has_space
from ..ops.pool import check_power, pool_windows
from ..ops.unpool import unpool_like
from ..types import Params
from .hyperparameters import check_flag


@dataclass(frozen=True, repr=False)
class _Windowed(Layer):
    """Base class of pooling over windows."""

    window: int | tuple[int, ...]
    _: KW_ONLY
    stride: int | tuple[int, ...] | None = None
    padding: Padding = "VALID"
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False

    def check(self) -> dict[str, Any]:
        return {
            "window": geometry.check_sizes(self.window, "window"),
            "stride": None if self.stride is None else geometry.check_sizes(self.stride, "stride"),
            "padding": geometry.check_padding(self.padding),
            "dilation": geometry.check_sizes(self.dilation, "dilation"),
            "ceil_mode": check_flag(self.ceil_mode, "ceil_mode"),
        }

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_has_space(shapes[0])
        windows = pool_windows(shapes[0][:-1], self.window, channels=shapes[0][-1], **self._options())
        return (*windows.out, shapes[0][-1])

    def locality(self, shape: Shape) -> Locality | None:
        windows = pool_windows(
            shape[:-1], self.window, self.stride, self.padding, self.dilation, self.ceil_mode, shape[-1]
        )
        return SlidingWindow(windows)

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def slides(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def _options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "ceil_mode")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, repr=False)
class MaxPool(_Windowed):
    r"""The largest value in each window.

    .. math:: y_{n, i, c} = \max_j x_{n,\, s i + d j - p,\, c}

    Among equal values the first gets the gradient. NaN propagates. Padding counts as minus infinity and never gets a
    gradient.

    Args:
        window: window size. An integer applies to every axis between batch and channels: to all three of (batch, time,
            height, width, channels). A tuple such as (2, 2) fixes the number of space axes; any other number raises.
        stride: step between windows; None: the window size.
        padding: as for ``Conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: include windows that start in the data and end past it, as PyTorch does.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: a window that does not fit, or that covers nothing but padding.

    Source:
        Riesenhuber and Poggio, "Hierarchical models of object recognition in cortex", 1999.

    Example:
        >>> MaxPool(3, stride=2).out_shape((55, 55, 96))
        (27, 27, 96)
    """

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.max_pool(inputs[0], self.window, **self._options())


@dataclass(frozen=True, repr=False)
class AvgPool(_Windowed):
    r"""The mean of each window.

    .. math:: y_{n, i, c} = \frac{1}{|W_i|} \sum_{j \in W_i} x_{n,\, s i + d j - p,\, c}

    where W_i is the set of samples inside the data, or, with ``count_padding``, inside the data and its padding. With
    ``divisor`` the sum is divided by that number instead.

    Args:
        window: window size, as for ``MaxPool``.
        stride: step between windows; None: the window size.
        padding: as for ``Conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: as for ``MaxPool``.
        count_padding: whether padding counts in the number of samples; PyTorch's default is ``count_padding=True``,
            Keras counts data only.
        divisor: the number that every sum is divided by, PyTorch's ``divisor_override``; None: the number of samples.
            With 1 the output is the sum.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: a window that does not fit, or that covers nothing but padding.

    Source:
        LeCun et al. 1998, section II (subsampling).

    Example:
        >>> AvgPool(2).out_shape((28, 28, 6))
        (14, 14, 6)
    """

    _: KW_ONLY
    count_padding: bool = False
    divisor: int | None = None

    def check(self) -> dict[str, Any]:
        return {
            **super().check(),
            "count_padding": check_flag(self.count_padding, "count_padding"),
            "divisor": None if self.divisor is None else geometry.integer(self.divisor, "divisor"),
        }

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        counted = {"count_padding": self.count_padding, "divisor": self.divisor}
        return ops.avg_pool(inputs[0], self.window, **counted, **self._options())


@dataclass(frozen=True, repr=False)
class LpPool(_Windowed):
    r"""The p-norm of each window.

    .. math:: y_{n, i, c} = \Bigl( \sum_j |x_{n,\, s i + d j - p,\, c}|^p \Bigr)^{1/p}

    The derivative at a window of zeros is defined as 0. PyTorch's ``LPPool2d`` takes the power of x and not of
    ``|x|``: for odd p and negative x the result differs, or is NaN.

    Args:
        window: window size, as for ``MaxPool``.
        power: p, at least 1 and finite.
        stride: step between windows; None: the window size.
        padding: as for ``Conv``; zeros add nothing.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: as for ``MaxPool``; a partial window gives the norm of its samples, where PyTorch's ``LPPool2d``
            scales it up to a full window.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: a power below 1, or a window that does not fit.

    Source:
        Sermanet, Chintala and LeCun, "Convolutional neural networks applied to house numbers digit
        classification", 2012, equation 1.

    Example:
        >>> LpPool(2, power=3).out_shape((28, 28, 6))
        (14, 14, 6)
    """

    _: KW_ONLY
    power: float = 2.0

    def check(self) -> dict[str, Any]:
        return {**super().check(), "power": check_power(self.power)}

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.lp_pool(inputs[0], self.window, power=self.power, **self._options())


@dataclass(frozen=True, repr=False)
class MaxUnpool(_Windowed):
    r"""Put values back at the positions of the maxima of a max pooling, zeros elsewhere: two inputs, for a ``graph``.

    .. math:: z_{n, m, c} = y_{n, i, c} \text{ with the last } i \text{ for which }
        m = \operatorname{arg\,max}_{m \in W_i} x_{n, m, c} \text{, else } 0

    The first input holds the values to put back, the second is the input of the pooling. Window, stride, padding,
    dilation and ceil_mode are those of the pooling. No indices need to be passed through the network;
    :func:`fcnn.ops.max_pool_with_indices` and :func:`fcnn.ops.max_unpool` are the operations with explicit indices.

    Args:
        window: as for ``MaxPool``.
        stride: as for ``MaxPool``.
        padding: as for ``MaxPool``.
        dilation: as for ``MaxPool``.
        ceil_mode: as for ``MaxPool``.

    Shapes:
        y (batch, *out, channels) and x (batch, *space, channels) to (batch, *space, channels).

    Raises:
        ValueError: y does not have the shape of the pooled x, or a window does not fit.

    Source:
        Badrinarayanan, Kendall and Cipolla, "SegNet: a deep convolutional encoder-decoder architecture", 2017,
        section 3.

    Example:
        >>> import fcnn
        >>> @fcnn.graph(pool=MaxPool(2), inner=fcnn.Conv(4, 3, padding="SAME"), unpool=MaxUnpool(2))
        ... def segment(layer, x):
        ...     return layer.unpool(layer.inner(layer.pool(x)), x)
        >>> segment.out_shape((9, 8, 4))
        (9, 8, 4)
    """

    inputs: ClassVar[int | None] = 2

    def infer_shape(self, *shapes: Shape) -> Shape:
        pooled = super().infer_shape(shapes[1])
        if shapes[0] != pooled:
            raise ValueError(
                f"y has shape {format_shape(shapes[0])}, but x of {format_shape(shapes[1])} is pooled to "
                f"{format_shape(pooled)}; call layer.unpool(y, x) with y computed from the pooled x, and x from "
                "before the pooling"
            )
        return shapes[1]

    def locality(self, shape: Shape) -> None:
        """Nothing is stated for layers with two inputs."""

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return unpool_like(inputs[0], inputs[1], self.window, **self._options())
