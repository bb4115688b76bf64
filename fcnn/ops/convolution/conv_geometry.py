"""The geometry of a convolution in integers, and the shapes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ...geometry import Pads, Shape, extent
from ...symbolic_sizes import larger, symbolic


@dataclass(frozen=True)
class Geometry:
    """The positions of windows on an input; all padding is resolved to integers.

    Args:
        stride: step for each space axis.
        pads: zeros (before, after) for each space axis; negative numbers crop.
        dilation: distance between kernel samples for each space axis.
        groups: number of groups that channels and features are split into.
        input_dilation: distance between input samples, for transposed convolutions.
        phases: number b of phases along each axis, for the polyphase layout: the output positions p, p + b, p + 2 b,
            ... of phase p are adjacent. The result is then (features, phases, *out, batch), the order of blocks in
            memory. 1 along every axis: positions in their usual order, (batch, *out, features).
        hwnc: x and the result are (*space, batch, channels), the order of Winograd's products in memory; not together
            with phases.

    Example:
        >>> g = Geometry((1, 1), ((0, 0), (0, 0)), (1, 1), 1, (1, 1), (1, 1))
        >>> g.out((6, 5), (3, 3))
        (4, 3)
    """

    stride: Shape
    pads: Pads
    dilation: Shape
    groups: int
    input_dilation: Shape
    phases: Shape
    hwnc: bool = False

    @property
    def rank(self) -> int:
        """Number of space axes."""
        return len(self.stride)

    @property
    def dense(self) -> bool:
        """Whether there is no stride, no dilation and only one group."""
        ones = (1,) * self.rank
        return self.stride == self.dilation == self.input_dilation == ones and self.groups == 1

    @property
    def plain(self) -> Geometry:
        """The same geometry with positions in their usual order and the batch first."""
        return replace(self, phases=(1,) * self.rank, hwnc=False)

    def spans(self, kernel: Shape) -> Shape:
        """Length of a dilated kernel along each axis."""
        return tuple(extent(k, d) for k, d in zip(kernel, self.dilation, strict=True))

    def out(self, space: Shape, kernel: Shape) -> Shape:
        """Number of positions along each axis."""
        spread = [extent(n, u) for n, u in zip(space, self.input_dilation, strict=True)]
        axes = zip(spread, self.pads, self.spans(kernel), self.stride, strict=True)
        out = tuple((n + lo + hi - span) // s + 1 for n, (lo, hi), span, s in axes)
        return tuple(larger(n, 0) if symbolic(n) else n for n in out)

    def result(self, batch: int, space: Shape, kernel: Shape, features: int) -> Shape:
        """Shape of the result."""
        out = tuple(n // b for n, b in zip(self.out(space, kernel), self.phases, strict=True))
        if self.polyphase:
            return (features, prod(self.phases), *out, batch)
        return (*out, batch, features) if self.hwnc else (batch, *out, features)

    @property
    def polyphase(self) -> bool:
        """Whether the result has an axis of phases."""
        return prod(self.phases) > 1

    def transposed(self, space: Shape, kernel: Shape) -> Geometry:
        """The convolution of an output gradient with the flipped kernel that gives the input gradient.

        Stride and input dilation are swapped; the padding makes the result as large as the input (Dumoulin and Visin
        2016, relationship 14).
        """
        axes = zip(space, self.out(space, kernel), self.spans(kernel), self.pads, strict=True)
        pads = []
        for (n, out, span, (lo, _)), s, u in zip(axes, self.stride, self.input_dilation, strict=True):
            before = span - 1 - lo
            pads.append((before, extent(n, u) + span - 1 - extent(out, s) - before))
        return Geometry(self.input_dilation, tuple(pads), self.dilation, self.groups, self.stride, (1,) * self.rank)
