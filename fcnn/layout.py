"""Shapes whose axes look as if they were in another library's order. They may be intended, so this only warns."""

from __future__ import annotations

import sys
import warnings

from .errors import format_shape
from .geometry import Shape


class LayoutWarning(UserWarning):
    """The data look as if channels came first, or as if the channel axis was missing.

    If the layout is intended, switch the warning off: ``warnings.simplefilter("ignore", fcnn.LayoutWarning)``.
    """


#: packages whose stack frames are not the user's code
_INNER = ("fcnn", "jax", "contextlib")
#: an axis with at least this many samples is taken for a side of an image
_SIDE = 28
#: an axis with more samples than this is unlikely to be channels
_CHANNELS = 64


def warn(shape: Shape) -> None:
    """Warn where a shape (*space, channels) that windows will slide over looks like another library's layout.

    Example:
        >>> warn((224, 224, 3)), warn((16000, 1)), warn((100, 64)), warn((1, 1, 512))
        (None, None, None, None)
    """
    said = suspicion(shape)
    if said is not None:
        frame, level = sys._getframe(0), 1
        # attribute the warning to the user's line, so that Python shows it once
        while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in _INNER:
            frame, level = frame.f_back, level + 1
        warnings.warn(said, LayoutWarning, stacklevel=level)


def suspicion(shape: Shape) -> str | None:
    """What looks wrong about a shape, and what to do; None: nothing.

    Channels first: three axes, of which the first is 1, 3 or 4 and the other two look like the sides of an image. A
    missing channel axis: two axes of equal length that is not a power of two, as in MNIST.
    """
    if len(shape) not in (2, 3) or not all(type(size) is int for size in shape):  # symbolic sizes
        return None
    if len(shape) == 3 and _channels_first(*shape):
        channels, height, width = shape
        return (
            f"the shape {format_shape(shape)} of an example looks as if channels came first; here they come last, "
            f"{format_shape((height, width, channels))}: x.transpose(0, 2, 3, 1)"
        )
    if len(shape) == 2 and shape[0] == shape[1] >= _SIDE and shape[0] & (shape[0] - 1):
        return (
            f"the shape {format_shape(shape)} of an example looks like a grey image without its axis of channels; as "
            f"it is, a convolution takes it for {shape[0]} samples of sound with {shape[1]} channels: give "
            f"{format_shape((*shape, 1))} and x[..., None]"
        )
    return None


def _channels_first(channels: int, height: int, width: int) -> bool:
    if channels not in (1, 3, 4):
        return False
    if height == width:
        return width >= _SIDE
    return min(height, width) > _CHANNELS and max(height, width) <= 4 * min(height, width)
