"""Rearrangement of values between channels and space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from .. import geometry
from ..errors import format_shape, layer_path
from ..geometry import Shape
from ..native import native

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Shaped

#: orders of the channels of a pixel shuffle, by ONNX's names
ORDERS = ("CRD", "DCR")


def pixel_shuffle(
    x: Shaped[Array, "batch *space channels"], factor: int | Sequence[int], *, order: str = "CRD"
) -> Shaped[Array, "batch *out features"]:
    r"""Rearrange groups of channels into space: r times as many samples along each axis.

    In two dimensions, for :math:`0 \le i, j < r`,

    .. math:: y_{n,\, r p + i,\, r q + j,\, c} = x_{n,\, p,\, q,\, r^2 c + r i + j}

    With ``order="DCR"``, channel :math:`C (r i + j) + c` of x is read instead, for C channels of y.

    Args:
        x: input.
        factor: r, one number or one for each axis of the space.
        order: "CRD": the channels that form one output channel are adjacent, as in PyTorch; "DCR": the channels of one
            position in the block are adjacent, as in TensorFlow's ``depth_to_space``. The names are ONNX's.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, features): space times the factors, channels divided by their product. Dtype of x.

    Raises:
        ValueError: factors whose product does not divide the channels, or an unknown order.

    Source:
        Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
        network", 2016, equation 4.

    Example:
        >>> pixel_shuffle(jnp.arange(8.0).reshape(1, 1, 2, 4), 2)[0, :, :, 0].tolist()
        [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]
    """
    with layer_path("pixel_shuffle"):
        x = jnp.asarray(native(x))
        check_order(order)
        out = shuffled(x.shape[1:], factor)
        factors = geometry.per_axis(factor, x.ndim - 2, "factor")
    rank, features = len(factors), out[-1]
    # the channel axis split: (features, *factors), or (*factors, features)
    within = (features, *factors) if order == "CRD" else (*factors, features)
    x = x.reshape(*x.shape[:-1], *within)
    first, last = (rank + 2, rank + 1) if order == "CRD" else (rank + 1, 2 * rank + 1)
    pairs = [axis for n in range(rank) for axis in (1 + n, first + n)]
    return x.transpose(0, *pairs, last).reshape(x.shape[0], *out)


def pixel_unshuffle(
    x: Shaped[Array, "batch *space channels"], factor: int | Sequence[int], *, order: str = "CRD"
) -> Shaped[Array, "batch *out features"]:
    r"""Rearrange blocks of the space into channels: the inverse of :func:`pixel_shuffle`.

    In two dimensions, for :math:`0 \le i, j < r`,

    .. math:: y_{n,\, p,\, q,\, r^2 c + r i + j} = x_{n,\, r p + i,\, r q + j,\, c}

    With ``order="DCR"``, channel :math:`C (r i + j) + c` of y is written instead, for C channels of x.

    Args:
        x: input.
        factor: r, one number or one for each axis of the space.
        order: as for :func:`pixel_shuffle`; "DCR" is TensorFlow's and ONNX's ``space_to_depth``.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, features): space divided by the factors, channels times their product. Dtype of x.

    Raises:
        ValueError: factors that do not divide the space, or an unknown order.

    Source:
        Shi et al. 2016, the inverse of their equation 4; torch.nn.PixelUnshuffle.

    Example:
        >>> pixel_unshuffle(jnp.arange(8.0).reshape(1, 2, 4, 1), 2)[0, 0].tolist()
        [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]
    """
    with layer_path("pixel_unshuffle"):
        x = jnp.asarray(native(x))
        check_order(order)
        out = unshuffled(x.shape[1:], factor)
        factors = geometry.per_axis(factor, x.ndim - 2, "factor")
    rank = len(factors)
    blocks = [size for pair in zip(out[:-1], factors, strict=True) for size in pair]
    x = x.reshape(x.shape[0], *blocks, x.shape[-1])
    space, within, last = range(1, 2 * rank, 2), range(2, 2 * rank + 1, 2), 2 * rank + 1
    return x.transpose(0, *space, *((last, *within) if order == "CRD" else (*within, last))).reshape(x.shape[0], *out)


def shuffled(shape: Shape, factor: int | Sequence[int]) -> Shape:
    """The shape of one example after a pixel shuffle.

    Example:
        >>> shuffled((4, 5, 12), 2)
        (8, 10, 3)
    """
    factors = _factors(shape, factor)
    within = math.prod(factors)
    if shape[-1] % within:
        raise ValueError(
            f"factor {factor} lays out {within} channels over the space, which do not divide the {shape[-1]} channels "
            f"of an input of {format_shape(shape)}; make a multiple of {within} channels before it, such as by "
            f"fcnn.Conv({within} * features, 1)"
        )
    return (*(size * r for size, r in zip(shape[:-1], factors, strict=True)), shape[-1] // within)


def unshuffled(shape: Shape, factor: int | Sequence[int]) -> Shape:
    """The shape of one example after the inverse of a pixel shuffle.

    Example:
        >>> unshuffled((8, 10, 3), 2)
        (4, 5, 12)
    """
    factors = _factors(shape, factor)
    for size, r in zip(shape[:-1], factors, strict=True):
        if size % r != 0:  # for a symbolic size: unless it is a known multiple
            raise ValueError(
                f"factor {factor} does not divide the space of an input of {format_shape(shape)}; crop or pad it to a "
                "multiple before, by fcnn.Crop or fcnn.Pad"
            )
    return (*(size // r for size, r in zip(shape[:-1], factors, strict=True)), shape[-1] * math.prod(factors))


def _factors(shape: Shape, factor: int | Sequence[int]) -> Shape:
    if len(shape) < 2:
        raise ValueError(
            f"an input of {format_shape(shape)} has channels only and no space; shuffle before Flatten, on (*space, "
            "channels)"
        )
    return geometry.per_axis(factor, len(shape) - 1, "factor")


def check_order(order: Any) -> str:
    """Raise unless ``order`` is a known order of channels."""
    if order not in ORDERS:
        raise ValueError(
            f'order {order!r} is unknown; use "CRD", PyTorch\'s, or "DCR", that of TensorFlow\'s depth_to_space'
        )
    return order
