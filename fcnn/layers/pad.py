"""Layers that pad the space, or crop it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax

from .. import geometry, ops
from ..facts import Locality, Resampled
from ..geometry import Padding, Shape
from ..layer import Layer
from ..ops.cells import check_cells
from ..ops.pad import check_amount, check_value, cropped, padded
from ..types import Params

#: why windows of a larger input cannot share the computation at their borders
_BORDER = "whose border lies elsewhere in the image for every position"


@dataclass(frozen=True, repr=False)
class Pad(Layer):
    """Add samples around the space: a constant, or copies of existing samples.

    Layers that slide a window have their own ``padding``, which is computed as part of the layer.

    Args:
        padding: the amount: an integer, or one pair (before, after) for each axis. For copies, (mode, amount) with the
            mode "CIRCULAR" (from the other end), "REFLECT" (mirrored at the first and last sample) or "EDGE" (the first
            and last sample repeated), such as ("REFLECT", 1).
        value: the constant.

    Shapes:
        x (batch, *space, channels) to (batch, *(before + space + after), channels).

    Raises:
        ValueError: an amount below 0, more copies than there are samples, or a named padding that needs a window.

    Source:
        torch.nn.ConstantPad2d, ReflectionPad2d, ReplicationPad2d and CircularPad2d.

    Example:
        >>> Pad(((3, 3), (0, 1))).out_shape((28, 28, 1))
        (34, 29, 1)
        >>> Pad(("EDGE", 1)).apply({}, jax.numpy.array([[[1.0], [2.0]]])).ravel().tolist()
        [1.0, 1.0, 2.0, 2.0]
    """

    padding: Padding
    _: KW_ONLY
    value: float = 0.0

    def check(self) -> dict[str, Any]:
        padding = check_amount(self.padding)
        return {"padding": padding, "value": check_value(self.value, geometry.split(padding)[0])}

    def infer_shape(self, *shapes: Shape) -> Shape:
        _, pads = padded(shapes[0], self.padding)
        return (*(n + before + after for n, (before, after) in zip(shapes[0], pads, strict=False)), shapes[0][-1])

    def locality(self, shape: Shape) -> Locality:
        windows = geometry.slide(shape[:-1], 1, padding=self.padding)
        return Resampled(f"pads the window, {_BORDER}", windows=windows)

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.pad(inputs[0], self.padding, value=self.value)


@dataclass(frozen=True, repr=False)
class Crop(Layer):
    r"""Crop samples at the borders of the space, or crop it to a centred part.

    A centred part of m out of M samples starts at :math:`\lfloor (M - m) / 2 \rfloor`.

    Args:
        amount: number of samples to remove: an integer, or one pair (before, after) for each axis.
        size: instead of an amount, the number of samples to keep; an integer applies to every axis, None keeps an axis
            unchanged, such as (None, 24).

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: an amount that leaves nothing, or a size that is larger than the space.
        TypeError: both or neither of the two.

    Source:
        Ronneberger, Fischer and Brox, "U-Net", 2015, figure 1 ("copy and crop").

    Example:
        >>> Crop(1).out_shape((28, 28, 3)), Crop(((0, 1), (2, 2))).out_shape((28, 28, 3))
        ((26, 26, 3), (27, 24, 3))
        >>> Crop(size=24).out_shape((28, 31, 3))
        (24, 24, 3)
    """

    amount: int | tuple[Any, ...] | None = None
    _: KW_ONLY
    size: int | tuple[int | None, ...] | None = None

    def check(self) -> dict[str, Any]:
        if (self.amount is None) == (self.size is None):
            cropped((1, 1), self.amount, self.size)  # raises with the explanation
        return {
            "amount": None if self.amount is None else geometry.check_pairs(self.amount, "amount"),
            "size": None if self.size is None else check_cells(self.size, "size"),
        }

    def infer_shape(self, *shapes: Shape) -> Shape:
        cuts = cropped(shapes[0], self.amount, self.size)
        return (*(n - before - after for n, (before, after) in zip(shapes[0], cuts, strict=False)), shapes[0][-1])

    def locality(self, shape: Shape) -> Locality:
        return Resampled(f"cuts the window, {_BORDER}")

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.crop(inputs[0], self.amount, size=self.size)
