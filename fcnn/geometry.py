"""Sizes of sliding windows, in integers: no arrays, no devices.

A window of ``kernel`` samples, ``dilation`` apart, moves in steps of ``stride`` over a space with ``pads`` added around
it. Every layer with windows computes their positions here; a window that does not fit raises before any array is
created. A size may be symbolic, as in ``jax.export``; then only a window that certainly does not fit raises.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import format_shape, refuse_traced
from .symbolic_sizes import below, larger, plain, symbolic

Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]
#: an amount (a name of NAMED, an integer, or pairs of integers), a mode of FILL, or both, (mode, amount)
Padding = Any

#: the modes that copy samples, and their names in jnp.pad; everything else pads with a constant
FILL = {"CIRCULAR": "wrap", "REFLECT": "reflect", "EDGE": "edge"}
NAMED = ("VALID", "SAME", "SAME_LOWER", "CAUSAL", *FILL)


@dataclass(frozen=True)
class Windows:
    """All positions of one window over one space.

    Attributes:
        space: samples along each axis, before padding.
        kernel: samples of the window along each axis.
        stride: step between windows, in samples.
        dilation: distance between neighbouring samples of a window.
        pads: samples added (before, after) along each axis.
        fill: the values of the added samples: "constant", "wrap", "reflect" or "edge".
        out: number of windows along each axis.
        overhang: samples past the padded end that the last window may cover, from ``ceil_mode``.
    """

    space: Shape
    kernel: Shape
    stride: Shape
    dilation: Shape
    pads: Pads
    fill: str
    out: Shape
    overhang: Shape

    @property
    def rank(self) -> int:
        """Number of space axes."""
        return len(self.space)

    @property
    def constant_pads(self) -> Pads:
        """``pads`` with the overhang of ``ceil_mode`` included."""
        return tuple((lo, hi + more) for (lo, hi), more in zip(self.pads, self.overhang, strict=True))

    def counts(self, *, padding: bool) -> tuple[Shape, ...]:
        """For each axis and window, the number of samples inside the data, or inside the data with its padding.

        Example:
            >>> slide((4,), 3, stride=2, padding=1).counts(padding=False)
            ((2, 3),)
        """
        found: list[Shape] = []
        for axis, size in enumerate(self.space):
            lo, hi = self.pads[axis] if padding or self.fill != "constant" else (0, 0)
            if self.constant_pads[axis] == (0, 0):
                found.append((self.kernel[axis],) * self.out[axis])
                continue
            step, last = self.dilation[axis], self.kernel[axis] - 1
            starts = range(
                -self.pads[axis][0], self.out[axis] * self.stride[axis] - self.pads[axis][0], self.stride[axis]
            )
            # sample j of a window lies at start + step j: count from the first to the last j within the bounds
            found.append(
                tuple(max(min(last, (size + hi - 1 - s) // step) - max(0, -((lo + s) // step)) + 1, 0) for s in starts)
            )
        return tuple(found)


def slide(
    space: Sequence[int],
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    what: str = "kernel",
    channels: int | None = None,
) -> Windows:
    r"""Place a window at every position of a space.

    Along an axis of size M, with a window of P samples d apart, a total padding of D samples and stride s,

    .. math:: \text{out} = \lfloor (M + D - (d(P - 1) + 1)) / s \rfloor + 1

    With ``ceil_mode`` the division rounds up, but a window that would start past the data is dropped.

    Args:
        space: size of each axis.
        kernel: window size, one number or one for each axis.
        stride: step, likewise.
        padding: the amount, the mode, or both. The amount is "VALID" (no padding), "SAME" (out = ceil(M / s), the odd
            sample after), "SAME_LOWER" (the odd sample before), "CAUSAL" (all before, so that position i depends on
            nothing after i), one integer, or one pair (before, after) for each axis. The added samples are zeros (for
            a maximum, values that never win), or copies: a pair (mode, amount) with the mode "CIRCULAR" (from the
            other end), "REFLECT" (mirrored at the first and last sample) or "EDGE" (the first and last sample
            repeated), such as ("REFLECT", 1) or ("EDGE", ((2, 0), (1, 1))). A mode alone adds floor((L - 1) / 2)
            samples before and floor(L / 2) after for windows of length L = d(P - 1) + 1, whatever the stride.
        dilation: distance between samples, likewise.
        ceil_mode: round the number of windows up, as PyTorch does.
        what: the name of the window in error messages.
        channels: number of input channels, shown in error messages beside the space.

    Returns:
        The windows.

    Raises:
        ValueError: a number is out of range, the padding is unknown, or the window does not fit.
        TypeError: a value is not a whole number.

    Source:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, relationship 8;
        the modes are those of Flax and of PyTorch's padding_mode.

    Example:
        >>> slide((227, 227), 11, stride=4).out     # AlexNet's first layer
        (55, 55)
        >>> slide((28,), 3, stride=2, padding="SAME").pads
        ((0, 1),)
        >>> slide((28,), 3, stride=2, padding="CIRCULAR").pads, slide((28,), 3, padding=("EDGE", 2)).pads
        (((1, 1),), ((2, 2),))
    """
    space = tuple(space)
    rank = len(space)
    if rank == 0:
        raise ValueError(
            f"{what} needs at least one space axis, but the input has channels only; "
            "give a shape (*space, channels) such as (28, 28, 1)"
        )
    sizes = per_axis(kernel, rank, what)
    strides = per_axis(stride, rank, "stride")
    dilations = per_axis(dilation, rank, "dilation")
    spans = tuple(extent(k, d) for k, d in zip(sizes, dilations, strict=True))
    mode, amount = split(padding)
    pads = pads_of(amount, space, spans, strides)
    check_copies(mode, pads, space, f'use a smaller {what} or padding="SAME"')
    out, overhang = [], []
    for size, span, step, (lo, hi) in zip(space, spans, strides, pads, strict=True):
        padded_size = size + lo + hi
        room = padded_size - span
        count = (room + (step - 1 if ceil_mode else 0)) // step + 1
        if symbolic(count):
            count = larger(count, 0)  # as JAX writes it, so that equal sizes are equal expressions
        if ceil_mode and (symbolic(count) or symbolic(lo)):  # one fewer where the last would start past the data
            count = -larger(-count, -(size + lo) // step)
        elif ceil_mode and (count - 1) * step >= size + lo:
            count -= 1
        if below(count, 1):
            reach = (
                f" (it spans {format_shape(spans)} with dilation {format_shape(dilations)})" if spans != sizes else ""
            )
            seen = space if channels is None else (*space, channels)
            padded = f" padded by {pads}" if pads != ((0, 0),) * rank else ""
            raise ValueError(
                f"{what} {format_shape(sizes)}{reach} does not fit an input of {format_shape(seen)}{padded}; "
                f'use padding="SAME" or a smaller {what}'
            )
        more = larger((count - 1) * step + span - padded_size, 0) if ceil_mode else 0
        out.append(count)
        overhang.append(more)
    fill = "constant" if mode is None else FILL[mode]
    return Windows(space, sizes, strides, dilations, pads, fill, tuple(out), tuple(overhang))


def extent(kernel: int, dilation: int) -> int:
    """Length of a dilated window from its first to its last sample, d (P - 1) + 1.

    Example:
        >>> extent(3, 2)
        5
    """
    return (kernel - 1) * dilation + 1


def split(padding: Padding) -> tuple[str | None, Any]:
    """The mode and the amount of a padding. The mode None means zeros; the amount None means a mode alone was given.

    Raises:
        ValueError: a pair whose first element is not a mode.

    Example:
        >>> split("SAME"), split("CIRCULAR"), split(("EDGE", 2))
        ((None, 'SAME'), ('CIRCULAR', None), ('EDGE', 2))
    """
    if isinstance(padding, str):
        return (padding, None) if padding in FILL else (None, padding)
    if isinstance(padding, (tuple, list)) and any(isinstance(part, str) for part in padding):
        if len(padding) != 2 or padding[0] not in FILL or padding[1] is None or padding[1] in [*FILL]:
            raise ValueError(
                f"padding {padding!r} is not a pair (mode, amount); the mode is one of {', '.join(FILL)}, the amount "
                'an integer, one pair (before, after) for each space axis, or "SAME", such as ("CIRCULAR", 1)'
            )
        return padding[0], padding[1]
    return None, padding


def pads_of(amount: Any, space: Shape, spans: Shape, strides: Shape) -> Pads:
    """The amount as pairs of integers; None: the amount that a mode alone adds."""
    if amount is None:  # as in Flax: at stride 1 there are as many windows as samples
        return tuple(((span - 1) // 2, span // 2) for span in spans)
    if not isinstance(amount, str):
        return pairs(amount, len(space))
    if amount == "VALID":
        return ((0, 0),) * len(space)
    if amount == "CAUSAL":
        return tuple((span - 1, 0) for span in spans)
    if amount not in NAMED:
        raise ValueError(
            f"padding {amount!r} is unknown; use one of {', '.join(NAMED)}, an integer, one pair (before, after) for "
            'each space axis, or a mode and an amount, such as ("CIRCULAR", 1)'
        )
    pads = []
    for size, span, step in zip(space, spans, strides, strict=True):
        total = (size - 1) // step * step + span - size
        total = total if span >= step else larger(total, 0)
        before = (total + (amount == "SAME_LOWER")) // 2
        pads.append((before, total - before))
    return tuple(pads)


def pairs(value: Any, rank: int, name: str = "padding") -> Pads:
    """Amounts (before, after) for each axis: an integer applies to every side, a pair to every axis.

    Raises:
        ValueError: the wrong number of pairs, or one pair that could also mean one number for each of two axes.

    Example:
        >>> pairs(1, 2), pairs((0, 2), 1)
        (((1, 1), (1, 1)), ((0, 2),))
    """
    refuse_traced(value, name)
    if isinstance(value, (tuple, list)):
        if len(value) == 2 and all(_whole(p) for p in value):
            lo, hi = integer(value[0], name, 0), integer(value[1], name, 0)
            if rank == 1 or lo == hi:
                return ((lo, hi),) * rank
            raise ValueError(
                f"{name} ({lo}, {hi}) could mean (before, after) or one number for each of the {rank} axes; "
                f"write one pair for each axis, such as (({lo}, {lo}), ({hi}, {hi}))"
            )
        if len(value) != rank or not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in value):
            raise ValueError(
                f"{name} {value!r} does not say (before, after) for each of the {rank} space axes; "
                f"write {((1, 1),) * rank} for one sample on every side"
            )
        return tuple((integer(lo, name, 0), integer(hi, name, 0)) for lo, hi in value)
    size = integer(value, name, 0)
    return ((size, size),) * rank


def check_copies(mode: str | None, pads: Sequence[tuple[int, int]], space: Shape, instead: str) -> None:
    """Raise where padding would copy more samples than there are, and say what to do instead."""
    if mode is None:
        return
    for pair, size in zip(pads, space, strict=True):
        added = larger(*pair)
        most = {"CIRCULAR": size, "REFLECT": size - 1, "EDGE": added * (size != 0)}[mode]
        if below(most, added):
            said = f'padding "{mode}" would add {added} samples to an axis of {size}, more than there are to copy'
            raise ValueError(f"{said}; {instead}")


def check_padding(padding: Padding) -> Padding:
    """Check a padding as far as possible without a shape, and make it hashable.

    Example:
        >>> check_padding([[1, 1], [2, 2]]), check_padding(["EDGE", [1, 1]])
        (((1, 1), (2, 2)), ('EDGE', (1, 1)))
    """
    mode, amount = split(padding)
    if mode is not None:
        return mode if amount is None else (mode, check_padding(amount))
    if isinstance(padding, str):
        pads_of(padding, (1,), (1,), (1,))
        return padding
    return check_pairs(padding)


def check_pairs(value: Any, name: str = "padding") -> Any:
    """Check amounts (before, after) as far as possible without a shape, and make them hashable.

    Example:
        >>> check_pairs([1, 2], "amount")
        (1, 2)
    """
    if isinstance(value, (tuple, list)):
        if not value:
            raise ValueError(f"{name} is empty; write one pair (before, after) for each space axis")
        if len(value) == 2 and all(_whole(p) for p in value):
            return tuple(integer(p, name, 0) for p in value)
        return pairs(value, len(value), name)
    return integer(value, name, 0)


def per_axis(value: int | Sequence[int], rank: int, name: str, minimum: int = 1) -> Shape:
    """One number for each axis: an integer applies to every axis.

    Example:
        >>> per_axis(3, 2, "kernel")
        (3, 3)
    """
    value = check_sizes(value, name, minimum)
    if isinstance(value, int):
        return (value,) * rank
    if len(value) != rank:
        raise ValueError(
            f"{name} {format_shape(value)} is for {len(value)} space axes, the input has {rank}; "
            f"give {rank} numbers, or one that holds along every axis"
        )
    return value


def check_sizes(value: Any, name: str, minimum: int = 1) -> int | Shape:
    """A whole number or a tuple of them, at least ``minimum``, as plain Python integers."""
    if getattr(value, "ndim", 0) == 1 and hasattr(value, "tolist"):  # a NumPy array counts as a tuple
        value = tuple(value.tolist())
    if isinstance(value, (tuple, list)):
        if not value:
            raise ValueError(f"{name} is empty; give one number for each space axis, or one that holds along all")
        return tuple(integer(v, name, minimum) for v in value)
    return integer(value, name, minimum)


def integer(value: Any, name: str, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``, as a plain Python integer.

    Raises:
        TypeError: not a whole number; a bool does not count as one.
        ValueError: below the minimum.
    """
    refuse_traced(value, name)
    if not _whole(value):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    value = operator.index(value)
    if value < minimum:
        raise ValueError(f"{name} is {value}, it must be at least {minimum}")
    return value


def check_shape(shape: Any) -> Shape:
    """The shape of one example, (*space, channels), as plain Python integers.

    Raises:
        TypeError: not a tuple of whole numbers, or an array instead of its shape.
        ValueError: empty, or a size below 1.
    """
    if hasattr(shape, "shape") and hasattr(shape, "dtype"):
        whole = len(shape.shape) == 1 and "int" in str(shape.dtype)
        raise TypeError(
            f"an array of {format_shape(tuple(shape.shape))} was given where a shape is expected; "
            + ("write tuple(shape)" if whole else "give the shape of one example, x.shape[1:]")
            + ", such as (28, 28, 1)"
        )
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"a shape is a tuple (*space, channels) such as (28, 28, 1), not {shape!r}")
    if not shape:
        raise ValueError("the shape of an example is empty; give (*space, channels) such as (28, 28, 1)")
    for size in shape:
        if size is None:
            raise TypeError(f"shape {tuple(shape)} has no batch axis and no unknown sizes; give numbers only")
        if not symbolic(size):
            integer(size, f"a size in the shape {tuple(shape)}")
    return tuple(plain(size) for size in shape)


def is_shape(value: Any) -> bool:
    """Whether value is the shape of one array, rather than a tuple or dict of several.

    Example:
        >>> is_shape((28, 28, 1)), is_shape(((3,), (4,)))
        (True, False)
    """
    return isinstance(value, tuple) and all(isinstance(size, int) or symbolic(size) for size in value)


def _whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
