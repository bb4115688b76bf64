"""What a layer states about itself: once, in its class, for every tool.

``Layer.locality`` says what a layer does to the space, ``Layer.multiply_adds`` how much it computes, and
``Parameter.axes`` what the axes of its parameters mean. A subclass that overrides ``forward`` is another layer: what
its base class states no longer counts, and tools find out from its operations.
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
    """Every position is computed from the same position of the input alone, and in the same way.

    Attributes:
        vectors: whether from all its channels; False: every number by itself.
    """

    vectors: bool = True


@dataclass(frozen=True)
class SlidingWindow:
    """Every output is computed from a window of the input, in the same way at every position.

    Attributes:
        windows: where the windows lie.
    """

    windows: Windows


@dataclass(frozen=True)
class SpreadWindow:
    """Every input is spread over a window of the output, as by a transposed convolution.

    Attributes:
        kernel: samples of the window along each axis.
        stride: distance of the windows of neighbouring inputs.
        dilation: distance of neighbouring kernel samples.
        crops: outputs that are left out before and after, along each axis.
    """

    kernel: Shape
    stride: Shape
    dilation: Shape
    crops: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WholeSpace:
    """An output may depend on every position of the input, or on where it lies.

    Attributes:
        reason: why, to follow the layer's name in a sentence.
        way_out: what to do where positions have to be kept apart.
        window: for a window of a larger input, from its size along each axis to a layer that slides over the input and
            gives the same for every window, or the reason why there is none.
        vector: whether the layer leaves one vector of the whole space.
    """

    reason: str
    way_out: str
    window: Callable[[Shape], Any] | None = None
    vector: bool = False


@dataclass(frozen=True)
class Resampled:
    """The space is sampled anew, as by resizing, padding, cropping and pixel shuffling.

    Attributes:
        reason: why windows of a larger input cannot share the work, to follow the layer's name in a sentence.
        windows: which sample of the padded space each output is; None: to be found from operations.
        operations: a function of x (batch, *space, channels) that does the same by operations that can be followed;
            None: the layer itself.
    """

    reason: str
    windows: Windows | None = None
    operations: Callable[[Any], Any] | None = None


Locality = EachPosition | SlidingWindow | SpreadWindow | WholeSpace | Resampled


def counts(layer: Any, method: str) -> bool:
    """Whether what a layer's class states by a method is about this layer, and not about a base class.

    Args:
        layer: the layer.
        method: "locality" or "multiply_adds".

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
    """Whether a composition only hands arrays on from part to part, adds and concatenates them.

    Example:
        >>> hands_on(fcnn.residual(fcnn.Dense(3))), hands_on(fcnn.graph(a=fcnn.Dense(3))(lambda layer, x: layer.a(x)))
        (True, False)
    """
    owner = next(kind for kind in type(layer).__mro__ if "only_hands_on" in vars(kind))
    return layer.only_hands_on and nearest(layer, (owner,)) is not None


def locality(layer: Any, shape: Shape) -> Locality | None:
    """What a layer states that it does to the space; None where it states nothing.

    Args:
        layer: the layer.
        shape: shape of one example, (*space, channels).
    """
    return layer.locality(shape) if counts(layer, "locality") else None


def multiply_adds(layer: Any, shape: Shape) -> int | None:
    """How many multiplications by weights, each with an addition, a layer states; None where it states nothing.

    Args:
        layer: the layer.
        shape: shape of one example.
    """
    return layer.multiply_adds(shape) if counts(layer, "multiply_adds") else None
