"""Padding and cropping of the space of plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import lax

from .. import geometry
from ..errors import format_shape, layer_path
from ..geometry import Padding, Pads, Shape
from ..native import native
from ..symbolic_sizes import below
from .cells import cells_wanted
from .windows import copies

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Shaped


def pad(
    x: Shaped[Array, "batch *space channels"], padding: Padding, *, value: float = 0.0
) -> Shaped[Array, "batch *out channels"]:
    """Add samples around the space: a constant, or copies of existing samples.

    Args:
        x: input.
        padding: the amount: an integer, or one pair (before, after) for each axis. For copies, (mode, amount) with the
            mode "CIRCULAR" (from the other end), "REFLECT" (mirrored at the first and last sample) or "EDGE" (the first
            and last sample repeated), such as ("REFLECT", 1).
        value: the constant.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x.

    Raises:
        ValueError: an amount below 0, more copies than there are samples, or a named padding that needs a window.

    Source:
        numpy.pad, with the modes "constant", "wrap", "reflect" and "edge"; torch.nn.functional.pad.

    Example:
        >>> pad(jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), ("REFLECT", ((2, 1),))).ravel().tolist()
        [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    with layer_path("pad"):
        x = jnp.asarray(native(x))
        mode, pads = padded(x.shape[1:], check_amount(padding))
        value = check_value(value, mode)
    if mode is not None:
        return copies(x, pads, geometry.FILL[mode])
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=jnp.asarray(value, x.dtype))


def crop(
    x: Shaped[Array, "batch *space channels"],
    amount: int | Sequence[Any] | None = None,
    *,
    size: int | Sequence[int | None] | None = None,
) -> Shaped[Array, "batch *out channels"]:
    r"""Crop samples at the borders of the space, or crop it to a centred part.

    A centred part of m out of M samples starts at :math:`\lfloor (M - m) / 2 \rfloor`.

    Args:
        x: input.
        amount: number of samples to remove: an integer, or one pair (before, after) for each axis.
        size: instead of an amount, the number of samples to keep; an integer applies to every axis, None keeps an axis
            unchanged, such as (None, 24).

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x.

    Raises:
        ValueError: an amount that leaves nothing, or a size that is larger than the space.
        TypeError: both or neither of the two.

    Example:
        >>> crop(jnp.arange(6.0).reshape(1, 6, 1), ((2, 1),)).ravel().tolist()
        [2.0, 3.0, 4.0]
        >>> crop(jnp.arange(6.0).reshape(1, 6, 1), size=3).ravel().tolist()
        [1.0, 2.0, 3.0]
    """
    with layer_path("crop"):
        x = jnp.asarray(native(x))
        cuts = cropped(x.shape[1:], amount, size)
    starts = (0, *(before for before, _ in cuts), 0)
    limits = (n - after for n, (_, after) in zip(x.shape, ((0, 0), *cuts, (0, 0)), strict=True))
    return lax.slice(x, starts, tuple(limits))


def padded(shape: Shape, padding: Padding) -> tuple[str | None, Pads]:
    """The mode of a padding, None for a constant, and the amount along each axis of one example's space.

    Example:
        >>> padded((5, 4, 3), ("EDGE", 1)), padded((5, 4, 3), 2)
        (('EDGE', ((1, 1), (1, 1))), (None, ((2, 2), (2, 2))))
    """
    _check_space(shape, "pad")
    mode, amount = geometry.split(padding)
    pads = geometry.pairs(amount, len(shape) - 1)
    geometry.check_copies(mode, pads, shape[:-1], "add fewer, or zeros")
    return mode, pads


def cropped(shape: Shape, amount: Any, size: Any) -> Pads:
    """The number of samples to remove (before, after) along each axis of one example's space.

    Example:
        >>> cropped((5, 4, 3), 1, None), cropped((5, 4, 3), None, (2, None))
        (((1, 1), (1, 1)), ((1, 2), (0, 0)))
    """
    if (amount is None) == (size is None):
        raise TypeError(
            f"amount is {amount!r} and size is {size!r}; give one of them: the samples to remove, such as "
            "((1, 1), (0, 2)), or the size to keep, such as (24, 24)"
        )
    _check_space(shape, "crop")
    space = shape[:-1]
    if amount is not None:
        cuts = geometry.pairs(amount, len(space), "amount")
        if any(below(n - before - after, 1) for n, (before, after) in zip(space, cuts, strict=True)):
            raise ValueError(f"amount {amount} leaves nothing of an input of {format_shape(shape)}; remove less")
        _check_known(shape, [1 + before + after for before, after in cuts])
        return cuts
    wanted = cells_wanted(size, space, "size")
    if any(below(n, m) for n, m in zip(space, wanted, strict=True)):
        raise ValueError(
            f"size {size} is larger than an input of {format_shape(shape)}; crop to a smaller size, or add samples by "
            "fcnn.Pad"
        )
    _check_known(shape, wanted)
    befores = [(n - m) // 2 for n, m in zip(space, wanted, strict=True)]
    return tuple((before, n - m - before) for before, n, m in zip(befores, space, wanted, strict=True))


def _check_known(shape: Shape, needed: Sequence[int]) -> None:
    """Raise where a symbolic space may have too few samples: JAX slices only within bounds valid for all its values."""
    for size, least in zip(shape[:-1], needed, strict=True):
        if not below(least - 1, size):
            raise ValueError(
                f"the space of an input of {format_shape(shape)} is not known to have the {least} samples that a crop "
                f'needs; say so where it is made, jax.export.symbolic_shape("b, h, 3", constraints=["h >= {least}"])'
            )


def check_amount(padding: Any) -> Padding:
    """Check a padding given by numbers, or by a mode and numbers, as far as possible without a shape."""
    mode, amount = geometry.split(padding)
    if amount is None or isinstance(amount, str):
        raise ValueError(
            f"padding {padding!r} says how much only where there is a window; write an integer, one pair (before, "
            f"after) for each space axis, or a mode and an amount, such as ({mode or 'EDGE'!r}, 1)"
        )
    if _negative(amount):
        raise ValueError(f"padding {padding!r} is below 0; remove samples by fcnn.Crop")
    amount = geometry.check_pairs(amount)
    return amount if mode is None else (mode, amount)


def check_value(value: Any, mode: str | None) -> float:
    """Raise unless a constant is a number other than NaN, and 0 where a mode copies samples instead."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or hasattr(value, "aval"):
        raise TypeError(f"value must be a number that is known before anything is computed, not {value!r}")
    value = float(value)
    if value != value:
        raise ValueError("value is nan, which would spread through the network; use 0, or -inf before a maximum")
    if mode is not None and value != 0:
        raise ValueError(
            f"value {value:g} is not used by the mode {mode!r}, which copies samples; leave one of them out"
        )
    return value


def _negative(amount: Any) -> bool:
    if isinstance(amount, (tuple, list)):
        return any(map(_negative, amount))
    return isinstance(amount, int) and amount < 0


def _check_space(shape: Shape, what: str) -> None:
    if len(shape) < 2:
        raise ValueError(
            f"an input of {format_shape(shape)} has channels only and no space; {what} before Flatten, on (*space, "
            "channels)"
        )
