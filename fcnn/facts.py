"""Facts that a layer states about itself: once, in its class, for every tool.

``Layer.locality`` states how outputs depend on positions of the input, ``Layer.multiply_adds`` how much a layer
computes, and ``Parameter.axes`` what the axes of its parameters mean. A subclass that overrides ``forward`` is a
different layer: the statements of its base class no longer apply, and tools analyse its operations instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .geometry import Shape, Windows
from .identity import nearest

#: the methods that compute
FORWARD = ("forward", "forward_train", "forward_eval", "run")


@dataclass(frozen=True)
class EachPosition:
    """Every position is computed from the same position of the input alone, by the same function.

    Attributes:
        vectors: whether a position is computed from all its channels; False: from each channel separately.
    """

    vectors: bool = True


@dataclass(frozen=True)
class SlidingWindow:
    """Every output is computed from a window of the input, by the same function at every position.

    Attributes:
        windows: where the windows lie.
    """

    windows: Windows


@dataclass(frozen=True)
class SpreadWindow:
    """Every input is spread over a window of the output, as by a transposed convolution.

    Attributes:
        kernel: samples of the window along each axis.
        stride: distance between the windows of neighbouring inputs.
        dilation: distance between neighbouring kernel samples.
        crops: outputs dropped before and after, along each axis.
    """

    kernel: Shape
    stride: Shape
    dilation: Shape
    crops: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WholeSpace:
    """An output may depend on every position of the input, or on its own position.

    Attributes:
        reason: why; a phrase that continues a sentence after the layer's name.
        way_out: what to do where positions must stay independent.
        window: maps the size of a window, along each axis, to a layer that slides over a larger input and computes the
            same for every window, or to the reason why there is no such layer.
        vector: whether the layer reduces the whole space to one vector.
    """

    reason: str
    way_out: str
    window: Callable[[Shape], Any] | None = None
    vector: bool = False


@dataclass(frozen=True)
class Resampled:
    """The space is resampled, as by resizing, padding, cropping and pixel shuffling.

    Attributes:
        reason: why windows of a larger input cannot share the work; a phrase that continues a sentence after the
            layer's name.
        windows: which sample of the padded space each output is; None: to be derived from ``operations``.
        operations: an equivalent function of x (batch, *space, channels) whose operations can be analysed; None: the
            layer itself.
    """

    reason: str
    windows: Windows | None = None
    operations: Callable[[Any], Any] | None = None


Locality = EachPosition | SlidingWindow | SpreadWindow | WholeSpace | Resampled


def counts(layer: Any, method: str) -> bool:
    """Whether a statement that a layer inherits or defines applies to this layer, and not only to a base class.

    Args:
        layer: the layer.
        method: the method that makes the statement, "locality" or "multiply_adds".

    Example:
        >>> class Doubled(fcnn.Conv):
        ...     def forward(self, params, x):
        ...         return 2 * super().forward(params, x)
        >>> counts(fcnn.Conv(4, 3), "locality"), counts(Doubled(4, 3), "locality")
        (True, False)
    """
    order = type(layer).__mro__
    owner = next(kind for kind in order if method in vars(kind))
    computes = next(kind for kind in order if any(name in vars(kind) for name in FORWARD))
    if owner.__module__ == "fcnn.layer":
        return False
    if issubclass(owner, computes):
        return nearest(layer, (owner,)) is not None
    ours = computes.__module__.startswith(("fcnn.layers.", "fcnn.compose.", "fcnn.scan."))
    return ours and nearest(layer, (computes,)) is not None


def hands_on(layer: Any) -> bool:
    """Whether a composition only passes arrays from part to part, adds them and concatenates them.

    Example:
        >>> hands_on(fcnn.residual(fcnn.Dense(3))), hands_on(fcnn.graph(a=fcnn.Dense(3))(lambda layer, x: layer.a(x)))
        (True, False)
    """
    owner = next(kind for kind in type(layer).__mro__ if "only_hands_on" in vars(kind))
    return layer.only_hands_on and nearest(layer, (owner,)) is not None


def locality(layer: Any, shape: Shape) -> Locality | None:
    """The locality that a layer states; None where it states nothing.

    Args:
        layer: the layer.
        shape: shape of one example, (*space, channels).
    """
    return layer.locality(shape) if counts(layer, "locality") else None


def multiply_adds(layer: Any, shape: Shape) -> int | None:
    """The number of multiply-adds with weights that a layer states; None where it states nothing.

    Args:
        layer: the layer.
        shape: shape of one example.
    """
    return layer.multiply_adds(shape) if counts(layer, "multiply_adds") else None
