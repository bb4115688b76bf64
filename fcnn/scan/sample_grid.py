r"""Where the values inside a scanned network lie, in integers.

Inside one window, the values of a part are d samples apart; the windows are S samples apart. So over the whole image
the values are needed at the samples

.. math:: p S + j d, \qquad 0 \le p < P, \quad 0 \le j < n

and windows that share a sample have the same value there, which is computed once. All these samples are multiples of
the pitch g, the greatest common divisor of S and d.

Source:
    Giusti et al., "Fast image scanning with deep max-pooling convolutional neural networks", 2013, section 2 (S = 1);
    Li, Zhao and Wang, "Highly efficient forward and backward propagation of convolutional neural networks for pixelwise
    classification", 2014, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np

from ..geometry import Shape


@dataclass(frozen=True)
class SampleGrid:
    """Where the values of one part lie, along every axis of the space.

    Attributes:
        positions: windows along each axis, P.
        stride: samples between neighbouring windows, S; 0 if there is one window and nothing is scanned.
        local: values inside one window, n.
        step: samples between neighbouring values inside a window, d.
    """

    positions: Shape
    stride: Shape
    local: Shape
    step: Shape

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.local)

    @cached_property
    def pitch(self) -> Shape:
        """Samples between neighbouring values over the whole image, g."""
        return tuple(map(gcd, self.stride, self.step))

    @cached_property
    def fragments(self) -> Shape:
        """Interleaved grids of step d that make up the grid of pitch g."""
        return tuple(d // g for d, g in zip(self.step, self.pitch, strict=True))

    @cached_property
    def count(self) -> Shape:
        """Values over the whole image.

        Example:
            >>> SampleGrid((4,), (1,), (3,), (2,)).count    # windows at 0, 1, 2, 3 with values at 0, 2, 4 from there
            (8,)
        """
        rows = zip(self.positions, self.stride, self.local, self.step, self.pitch, strict=True)
        return tuple(((p - 1) * s + (n - 1) * d) // g + 1 for p, s, n, d, g in rows)

    @cached_property
    def extent(self) -> Shape:
        """Samples from the first to the last of these values."""
        return tuple((n - 1) * g + 1 for n, g in zip(self.count, self.pitch, strict=True))

    @cached_property
    def single(self) -> bool:
        """Whether a window holds one value."""
        return all(n == 1 for n in self.local)

    def after(self, kernel: Shape, stride: Shape, dilation: Shape, *, fragments: bool) -> tuple[SampleGrid, Shape]:
        """The grid after a window that slides inside the scanned one, and the stride that produces it.

        If one value is left in the scanned window, the stride inside it has no effect. It is then chosen so that values
        are computed only at the scanned positions.

        Args:
            kernel: samples of the sliding window.
            stride: its stride.
            dilation: distance between its samples.
            fragments: whether values are kept as fragments, so that each step remains a multiple of the previous one.

        Example:
            >>> SampleGrid((8,), (1,), (6,), (1,)).after((2,), (2,), (1,), fragments=True)
            (SampleGrid(positions=(8,), stride=(1,), local=(3,), step=(2,)), (2,))
        """
        local, steps, strides = [], [], []
        rows = zip(self.local, self.step, self.stride, self.pitch, kernel, stride, dilation, strict=True)
        for n, d, scan, g, k, s, e in rows:
            left = (n - e * (k - 1) - 1) // s + 1
            s = scan // g if left == 1 and scan else s
            local.append(left)
            strides.append(s)
            steps.append(d * s if left > 1 or fragments or not scan else scan)
        return SampleGrid(self.positions, self.stride, tuple(local), tuple(steps)), tuple(strides)

    def uses(self, axis: int, held: Shape | None = None) -> np.ndarray:
        """The number of windows that hold each value along an axis.

        Args:
            axis: the axis.
            held: how often each of the values inside one window counts; None: once.

        Example:
            >>> SampleGrid((4,), (1,), (3,), (2,)).uses(0).tolist()
            [1, 1, 2, 2, 2, 2, 1, 1]
        """
        where = np.arange(self.positions[axis])[:, None] * self.stride[axis]
        where = where + np.arange(self.local[axis]) * self.step[axis]
        often = np.broadcast_to(np.ones(self.local[axis], int) if held is None else held, where.shape)
        return np.bincount(where.ravel() // self.pitch[axis], often.ravel(), self.count[axis]).astype(int)
