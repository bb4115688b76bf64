"""Layers that rearrange values between channels and space."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax

from .. import geometry, ops
from ..facts import Locality, Resampled
from ..geometry import Shape
from ..layer import Layer
from ..ops.shuffle import check_order, shuffled, unshuffled
from ..types import Params


@dataclass(frozen=True, repr=False)
class _Shuffle(Layer):
    """Base class of the pixel shuffle and its inverse."""

    factor: int | tuple[int, ...]
    _: KW_ONLY
    order: str = "CRD"

    def check(self) -> dict[str, Any]:
        return {"factor": geometry.check_sizes(self.factor, "factor"), "order": check_order(self.order)}

    def multiply_adds(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, repr=False)
class PixelShuffle(_Shuffle):
    r"""Rearrange groups of channels into space: r times as many samples along each axis.

    In two dimensions, for :math:`0 \le i, j < r`,

    .. math:: y_{n,\, r p + i,\, r q + j,\, c} = x_{n,\, p,\, q,\, r^2 c + r i + j}

    Args:
        factor: r, one number or one for each axis of the space.
        order: order of the channels of x: "CRD" as above and in PyTorch, or "DCR" as in TensorFlow's
            ``depth_to_space``, which reads channel :math:`C (r i + j) + c` of x, for C channels of y.

    Shapes:
        x (batch, *space, channels) to (batch, *(space times r), channels / product of the factors).

    Raises:
        ValueError: factors whose product does not divide the channels, or an unknown order.

    Source:
        Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
        network", 2016, equation 4.

    Example:
        >>> PixelShuffle(2).out_shape((14, 14, 64))
        (28, 28, 16)
    """

    def infer_shape(self, *shapes: Shape) -> Shape:
        return shuffled(shapes[0], self.factor)

    def locality(self, shape: Shape) -> Locality:
        return Resampled("makes values between the samples")

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.pixel_shuffle(inputs[0], self.factor, order=self.order)


@dataclass(frozen=True, repr=False)
class PixelUnshuffle(_Shuffle):
    r"""Rearrange blocks of the space into channels: the inverse of ``PixelShuffle``.

    In two dimensions, for :math:`0 \le i, j < r`,

    .. math:: y_{n,\, p,\, q,\, r^2 c + r i + j} = x_{n,\, r p + i,\, r q + j,\, c}

    Args:
        factor: r, one number or one for each axis of the space.
        order: as for ``PixelShuffle``.

    Shapes:
        x (batch, *space, channels) to (batch, *(space / r), channels times the product of the factors).

    Raises:
        ValueError: factors that do not divide the space, or an unknown order.

    Source:
        Shi et al. 2016, the inverse of their equation 4; torch.nn.PixelUnshuffle.

    Example:
        >>> PixelUnshuffle((1, 2)).out_shape((28, 28, 3))
        (28, 14, 6)
    """

    def infer_shape(self, *shapes: Shape) -> Shape:
        return unshuffled(shapes[0], self.factor)

    def locality(self, shape: Shape) -> Locality:
        return Resampled("gathers blocks that begin at the window's first sample")

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.pixel_unshuffle(inputs[0], self.factor, order=self.order)
