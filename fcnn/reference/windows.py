"""Window geometry, computed independently of the library: sizes, padding, and the samples that each window sees."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

Sizes = int | Sequence[int]
Pads = tuple[tuple[int, int], ...]
MODES = ("CIRCULAR", "REFLECT", "EDGE")
NAMES = ("VALID", "SAME", "SAME_LOWER", "CAUSAL", *MODES)
#: the source of a padded sample that is not a copy
NOTHING = -1


@dataclass(frozen=True)
class Windows:
    """All positions of one window over one space.

    Attributes:
        kernel: samples of the window along each axis.
        stride: step between windows.
        dilation: distance between neighbouring samples of a window.
        pads: samples added (before, after) along each axis.
        out: number of windows along each axis.
        sources: for each axis and each sample of the padded space, the data sample that it copies, or NOTHING.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pads
    out: tuple[int, ...]
    sources: tuple[np.ndarray, ...]

    def samples(self) -> Iterator[tuple[int, ...]]:
        """The positions j within a window, in reading order."""
        return product(*map(range, self.kernel))

    def at(self, j: Sequence[int]) -> tuple[slice, ...]:
        """The index into a padded array (batch, *padded, channels) that gives sample j of every window.

        Window i begins at s i; its sample j is d j further.
        """
        cuts = zip(j, self.stride, self.dilation, self.out, strict=True)
        return (slice(None), *(slice(d * k, d * k + s * (n - 1) + 1, s) for k, s, d, n in cuts))

    def inside(self, *, count_padding: bool = False) -> np.ndarray:
        """A padded array (1, *padded, 1) of ones where there is data (or its padding), zeros elsewhere."""
        mask = np.ones((1,) * (len(self.kernel) + 2))
        for axis, source in enumerate(self.sources, start=1):
            lo, hi = self.pads[axis - 1]
            real = source != NOTHING
            if count_padding:  # samples beyond the padding, in the last window of ceil_mode, are never counted
                real[: lo + source.max() + 1 + hi] = True
            mask = mask * real.reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
        return mask


def place(
    space: Sequence[int],
    kernel: Sequence[int],
    *,
    stride: Sizes = 1,
    padding: Any = "VALID",
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Windows:
    r"""Place a window at every position of a space.

    .. math:: \text{out} = \lfloor (M + D - (d(P - 1) + 1)) / s \rfloor + 1

    along an axis of M samples with D samples of padding in total, for P samples d apart and stride s. With
    ``ceil_mode`` the division rounds up, and a window that would begin beyond the data is left out.

    Args:
        space: samples along each axis.
        kernel: samples of the window along each axis.
        stride: step between windows; an integer applies to every axis.
        padding: "VALID" (none), "SAME" (out = ceil(M / s), an odd sample after), "SAME_LOWER" (before), "CAUSAL" (all
            before), an integer, or pairs (before, after); or a mode that copies samples, "CIRCULAR" (from the other
            end), "REFLECT" (mirrored) or "EDGE" (the nearest), combined with one of these amounts as (mode, amount), or
            alone for floor((L - 1) / 2) samples before and floor(L / 2) after, where L is the span of a window.
        dilation: distance between samples of a window.
        ceil_mode: whether to round up.

    Raises:
        ValueError: if the padding is unknown, more samples would be copied than there are, or the window does not fit.

    Source:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, relationship 8.

    Example:
        >>> from fcnn.reference.windows import place
        >>> place((227, 227), (11, 11), stride=4).out
        (55, 55)
        >>> place((3,), (3,), padding="CIRCULAR").sources[0].tolist()
        [2, 0, 1, 2, 0]
    """
    rank = len(space)
    sizes, strides = each(kernel, rank, "kernel"), each(stride, rank, "stride")
    dilations = each(dilation, rank, "dilation")
    spans = tuple((p - 1) * d + 1 for p, d in zip(sizes, dilations, strict=True))
    pads, mode = resolve(padding, space, spans, strides), mode_of(padding)
    out, sources = [], []
    for size, span, step, (lo, hi) in zip(space, spans, strides, pads, strict=True):
        last = size + lo + hi - span  # the last possible start of a window
        begins = list(range(0, last + (step if ceil_mode else 1), step))  # rounding up adds a window beyond the end
        if ceil_mode and begins and begins[-1] >= size + lo:  # the last window begins beyond the data
            begins.pop()
        if not begins:
            raise ValueError(f"a window that spans {span} samples does not fit {size} samples padded by {(lo, hi)}")
        length = max(size + lo + hi, begins[-1] + span)
        out.append(len(begins))
        sources.append(np.array([copied_from(q - lo, size, hi, mode) for q in range(length)]))
    return Windows(sizes, strides, dilations, pads, tuple(out), tuple(sources))


def resolve(padding: Any, space: Sequence[int], spans: Sequence[int], strides: Sequence[int]) -> Pads:
    """The pairs (before, after) that a padding stands for, given the spans of the windows.

    Raises:
        ValueError: if the name is unknown, or the numbers are not (before, after) for each axis.

    Example:
        >>> from fcnn.reference.windows import resolve
        >>> resolve("SAME", (28,), (3,), (2,)), resolve("CAUSAL", (28,), (3,), (1,)), resolve(1, (5, 5), (3, 3), (1, 1))
        (((0, 1),), ((2, 0),), ((1, 1), (1, 1)))
    """
    rank, mode = len(space), mode_of(padding)
    if mode is not None:
        if isinstance(padding, str):
            pairs: Pads = tuple(((span - 1) // 2, span // 2) for span in spans)
        elif padding[1] in MODES:
            raise ValueError(f"padding {padding} has two modes and no amount")
        else:
            pairs = resolve(padding[1], space, spans, strides)
        limits = [{"CIRCULAR": m, "REFLECT": m - 1, "EDGE": np.inf}[mode] for m in space]
        if any(max(pair) > limit for pair, limit in zip(pairs, limits, strict=True)):
            raise ValueError(f"padding {padding!r} would copy {pairs} samples of {tuple(space)}, more than there are")
        return pairs
    if isinstance(padding, str):
        if padding not in NAMES:
            raise ValueError(f"padding {padding!r} is unknown; use one of {', '.join(NAMES)}, or integers")
        if padding == "VALID":
            return ((0, 0),) * rank
        if padding == "CAUSAL":
            return tuple((span - 1, 0) for span in spans)
        # the last of ceil(M / s) windows begins at s (ceil(M / s) - 1): the missing samples are split between both ends
        lacks = [max((-(-m // s) - 1) * s + p - m, 0) for m, p, s in zip(space, spans, strides, strict=True)]
        halves = [(lack // 2, lack - lack // 2) for lack in lacks]  # the odd sample after
        return tuple((lo, hi) if padding == "SAME" else (hi, lo) for lo, hi in halves)
    if not isinstance(padding, (tuple, list)):
        return tuple((p, p) for p in each(padding, rank, "padding", 0))
    if len(padding) == 2 and not any(isinstance(p, (tuple, list)) for p in padding):
        lo, hi = each(padding, 2, "padding", 0)
        if rank > 1 and lo != hi:
            raise ValueError(f"padding {padding} is not clear for {rank} axes; write one pair for each axis")
        return ((lo, hi),) * rank
    if len(padding) != rank or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in padding):
        raise ValueError(f"padding {padding} does not say (before, after) for each of {rank} axes")
    lows, highs = (each(side, rank, "padding", 0) for side in zip(*padding, strict=True))
    return tuple(zip(lows, highs, strict=True))


def mode_of(padding: Any) -> str | None:
    """The mode of a padding that copies samples; None if it adds zeros.

    Example:
        >>> from fcnn.reference.windows import mode_of
        >>> mode_of("SAME"), mode_of("EDGE"), mode_of(("EDGE", 1))
        (None, 'EDGE', 'EDGE')
    """
    first = padding if isinstance(padding, str) else padding[0] if isinstance(padding, (tuple, list)) else None
    return first if isinstance(first, str) and first in MODES else None


def each(value: Any, rank: int, name: str, minimum: int = 1) -> tuple[int, ...]:
    """One integer per axis.

    Example:
        >>> from fcnn.reference.windows import each
        >>> each(3, 2, "kernel")
        (3, 3)
    """
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    try:
        values = tuple(operator.index(v) for v in values)
    except TypeError:
        raise TypeError(f"{name} must hold whole numbers, not {value!r}") from None
    if len(values) != rank or min(values, default=minimum) < minimum:
        raise ValueError(f"{name} is {value}, it must hold {rank} numbers of at least {minimum}, or one for all axes")
    return values


def pad(x: np.ndarray, windows: Windows, value: float = 0.0) -> np.ndarray:
    """Copy x (batch, *space, channels) into the padded space, filled with ``value`` elsewhere."""
    if x.ndim != len(windows.sources) + 2 or not np.issubdtype(x.dtype, np.floating):
        raise TypeError(f"x must be (batch, *space, channels) of floating-point numbers, not {x.shape} of {x.dtype}")
    for axis, source in enumerate(windows.sources, start=1):
        copied = source != NOTHING
        y = np.full((*x.shape[:axis], len(source), *x.shape[axis + 1 :]), value, x.dtype)
        np.moveaxis(y, axis, 0)[copied] = np.moveaxis(x, axis, 0)[source[copied]]
        x = y
    return x  # (batch, *padded, channels)


def unpad(gradient: np.ndarray, windows: Windows) -> np.ndarray:
    """Backward of :func:`pad`: the gradients of all copies of a sample are added, those of constants are dropped."""
    for axis, source in enumerate(windows.sources, start=1):
        copied = source != NOTHING
        dx = np.zeros((*gradient.shape[:axis], source.max() + 1, *gradient.shape[axis + 1 :]), gradient.dtype)
        # add.at instead of +=, which would count a repeated sample only once
        np.add.at(np.moveaxis(dx, axis, 0), source[copied], np.moveaxis(gradient, axis, 0)[copied])
        gradient = dx
    return gradient  # (batch, *space, channels)


def copied_from(place: int, size: int, hi: int, mode: str | None) -> int:
    """The data sample copied to a place, which may be before 0 or after the end; NOTHING if none."""
    if 0 <= place < size:
        return place
    if place >= size + hi:  # beyond the padding, in the last window of ceil_mode
        return NOTHING
    if mode == "CIRCULAR":
        return place % size
    if mode == "REFLECT":  # mirrored about the first or last sample
        return -place if place < 0 else 2 * (size - 1) - place
    if mode == "EDGE":
        return 0 if place < 0 else size - 1
    return NOTHING
