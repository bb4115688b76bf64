"""Sizes of transposed convolutions, in integers: how much of the full result is kept."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import format_shape
from .geometry import FILL, Padding, Pads, Shape, check_copies, extent, pads_of, per_axis, split
from .symbolic_sizes import below, larger, symbolic


def transposed(
    space: Sequence[int],
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    output_padding: int | Sequence[int] = 0,
    out: int | Sequence[int] | None = None,
) -> tuple[Shape, Pads]:
    r"""Output size of a transposed convolution, and the samples that it crops from the full result.

    The full result along an axis of size M has :math:`(M - 1) s + d (P - 1) + 1` samples. ``padding`` removes
    samples (before, after), ``output_padding`` adds samples after.

    Args:
        space: size of each axis of the input.
        kernel: window size.
        stride: distance between input samples in the output.
        padding: "VALID" crops nothing; "SAME" gives s M samples, with the odd one cropped after ("SAME_LOWER":
            before); an integer or pairs crop that many samples. A mode, alone (the size of "SAME") or with an amount,
            adds the cropped samples to those that padding of this mode would have copied there.
        dilation: distance between kernel samples.
        output_padding: samples added after; less than the stride or the dilation.
        out: the output size, instead of output_padding. "SAME" and a mode alone crop to it, from s (M - 1) + 1 to s M
            samples; with other paddings it determines output_padding.

    Returns:
        The output's space, and (before, after) to crop along each axis; a negative number adds.

    Raises:
        ValueError: a padding that has no transpose, no samples left after cropping, an output_padding that is too
            large, or a size ``out`` that cannot be reached.

    Source:
        Dumoulin and Visin 2016, relationship 13; torch.nn.ConvTranspose2d.

    Example:
        >>> transposed((14, 14), 4, stride=2, padding=1)
        ((28, 28), ((1, 1), (1, 1)))
        >>> transposed((14,), 3, stride=2, padding="SAME")
        ((28,), ((0, 1),))
        >>> transposed((14,), 3, stride=2, padding=1, out=28)
        ((28,), ((1, 0),))
    """
    space = tuple(space)
    rank = len(space)
    if rank == 0:
        raise ValueError("kernel needs at least one space axis; give a shape (*space, channels)")
    sizes, strides = per_axis(kernel, rank, "kernel"), per_axis(stride, rank, "stride")
    dilations = per_axis(dilation, rank, "dilation")
    more = per_axis(output_padding, rank, "output_padding", minimum=0)
    spans = tuple(extent(k, d) for k, d in zip(sizes, dilations, strict=True))
    full = tuple((m - 1) * s + p for m, s, p in zip(space, strides, spans, strict=True))
    mode, amount = split(padding)
    if amount == "CAUSAL":
        raise ValueError(
            'padding "CAUSAL" has no transposed convolution; use "VALID", "SAME", "SAME_LOWER" or pairs of integers'
        )
    if any(e >= max(s, d) for e, s, d in zip(more, strides, dilations, strict=True)):
        raise ValueError(
            f"output_padding {format_shape(more)} must be smaller than the stride {format_shape(strides)} or the "
            f"dilation {format_shape(dilations)} along every axis: with more, samples are added that no input reaches"
        )
    same = amount in ("SAME", "SAME_LOWER", None)
    pads = ((0, 0),) * rank if same else pads_of(amount, space, spans, strides)
    if same:
        wanted = largest = tuple(m * s for m, s in zip(space, strides, strict=True))
    else:
        wanted = tuple(f - lo - hi for f, (lo, hi) in zip(full, pads, strict=True))
        largest = tuple(w + max(s, d) - 1 for w, s, d in zip(wanted, strides, dilations, strict=True))
    surplus = tuple(p - s if same else lo + hi for p, s, (lo, hi) in zip(spans, strides, pads, strict=True))
    if out is not None:
        if any(more):
            raise ValueError(
                f"out and output_padding {format_shape(more)} say the same thing twice; leave one of them out"
            )
        smallest = wanted if not same else tuple(w - s + 1 for w, s in zip(wanted, strides, strict=True))
        wanted = per_axis(out, rank, "out")
        if any(map(symbolic, space)):
            raise ValueError(
                f"out {format_shape(wanted)} belongs to one size of the space, but {format_shape(space)} is symbolic; "
                "leave it out"
            )
        if not all(a <= n <= b for a, n, b in zip(smallest, wanted, largest, strict=True)):
            raise ValueError(
                f"out {format_shape(wanted)} cannot be reached from {format_shape(space)} with kernel "
                f"{format_shape(sizes)}, stride {format_shape(strides)} and padding {padding!r}; possible are "
                f"{format_shape(smallest)} to {format_shape(largest)}"
            )
        surplus = tuple(f - n for f, n in zip(full, wanted, strict=True))
    crops = []
    for axis in range(rank):
        if amount is None:
            lo = (spans[axis] - 1) // 2
        else:  # half of the padding of the SAME convolution; zero where the stride skips samples
            lo = (larger(surplus[axis], 0) + (amount == "SAME_LOWER")) // 2 if same else pads[axis][0]
        crops.append((lo, surplus[axis] - lo - more[axis]))
    wanted = tuple(n + e for n, e in zip(wanted, more, strict=True))
    if any(below(n, 1) for n in wanted):
        raise ValueError(
            f"padding {padding} crops all of the transposed convolution of {format_shape(space)} with kernel "
            f"{format_shape(sizes)} and stride {format_shape(strides)}; use a smaller padding"
        )
    check_copies(mode, crops, wanted, 'use a smaller kernel or padding="SAME"')
    return wanted, tuple(crops)


def folded(crops: Pads, padding: Padding) -> tuple[Pads, tuple[Pads, str]]:
    """Split the crops of a transposed convolution: samples to drop or add, and samples to fold back in which mode.

    Example:
        >>> folded(((1, -2),), "SAME"), folded(((1, -2),), "CIRCULAR")
        ((((1, -2),), (((0, 0),), 'constant')), (((0, -2),), (((1, 0),), 'wrap')))
    """
    mode, none = split(padding)[0], ((0, 0),) * len(crops)
    if mode is None:
        return crops, (none, "constant")
    added, copies = (tuple((f(lo, 0), f(hi, 0)) for lo, hi in crops) for f in (min, max))
    return added, (copies, FILL[mode])
