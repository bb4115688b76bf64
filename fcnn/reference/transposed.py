"""Transposed convolution: what the backward of a convolution does to its gradient, as a forward."""

from __future__ import annotations

from typing import Any

import numpy as np

from .conv import check_bias, check_layout, product_gradients, product_in_groups
from .node import Node
from .windows import Sizes, Windows, each, resolve


class ConvTranspose(Node):
    r"""Transposed convolution: every input sample lays a scaled copy of the kernel into the output.

    .. math:: y_{s i + d j - p} \mathrel{+}= x_i \, W_j, \qquad
        \frac{\partial L}{\partial x_i} = \sum_j g_{s i + d j - p} \, W_j^\top, \quad
        \frac{\partial L}{\partial W_j} = \sum_i x_i^\top \, g_{s i + d j - p}

    The full result has (M - 1) s + d (P - 1) + 1 samples; padding crops it, ``output_padding`` adds after it.

    Args:
        kernel: W.
        bias: b, added to every sample of the output, or None.
        stride: s.
        padding: "VALID" (crops nothing), "SAME" (to s M samples), an integer, or pairs (before, after).
        dilation: d.
        groups: features of group g see channels of group g only.
        output_padding: samples added after, along every axis or for each.

    Shapes:
        x (batch, *space, channels) to (batch, *out, features);
        kernel (*kernel, channels // groups, features), bias (features,).

    Raises:
        ValueError: shapes that do not match, or a padding that has no transpose or crops everything.

    Source:
        Zeiler et al., "Deconvolutional networks", 2010; Dumoulin and Visin 2016, section 4.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import ConvTranspose
        >>> node = ConvTranspose(kernel=np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1), stride=2)
        >>> node.forward(np.array([1.0, 2.0]).reshape(1, 2, 1)).ravel().tolist()
        [1.0, 10.0, 102.0, 20.0, 200.0]
    """

    def __init__(
        self,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        stride: Sizes = 1,
        padding: Any = "VALID",
        dilation: Sizes = 1,
        groups: int = 1,
        output_padding: Sizes = 0,
    ) -> None:
        super().__init__(kernel=kernel, bias=bias)
        check_bias(kernel, bias)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.output_padding = output_padding

    def forward(self, x: np.ndarray) -> np.ndarray:
        kernel = self.params["kernel"]
        rank = check_layout(x, kernel, self.groups)
        windows, crops = self._place(x.shape[1:-1], kernel.shape[:rank])
        full = np.zeros((x.shape[0], *map(len, windows.sources), kernel.shape[-1]), x.dtype)
        for j in windows.samples():
            full[windows.at(j)] += product_in_groups(x, kernel[j], self.groups)
        y = _crop(full, crops)  # (batch, *out, features)
        if "bias" in self.params:
            y = y + self.params["bias"]
        return self.keep(y, x, windows, crops)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        x, windows, crops = self.recall(gradient)
        full = _crop(gradient, [(-lo, -hi) for lo, hi in crops])  # what was cropped has no gradient
        kernel, dx = self.params["kernel"], np.zeros_like(x)
        dkernel = np.zeros_like(kernel)
        for j in windows.samples():
            share, dkernel[j] = product_gradients(x, kernel[j], full[windows.at(j)], self.groups)
            dx += share
        self.add_gradient("kernel", dkernel)
        self.add_gradient("bias", gradient.sum(tuple(range(gradient.ndim - 1))))
        return (dx,)

    def _place(self, space: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Windows, list[tuple[int, int]]]:
        """The windows over the full result, one for each input sample, and what is cropped from it."""
        rank = len(space)
        s, d = each(self.stride, rank, "stride"), each(self.dilation, rank, "dilation")
        spans = [(p - 1) * a + 1 for p, a in zip(kernel, d, strict=True)]
        if self.padding == "SAME":
            # of span - s samples too many, half before; where the kernel is shorter than the stride, all after
            lows = [max(span - step, 0) // 2 for span, step in zip(spans, s, strict=True)]
            crops = [(lo, span - step - lo) for lo, span, step in zip(lows, spans, s, strict=True)]
        elif isinstance(self.padding, str) and self.padding != "VALID":
            raise ValueError(f"padding {self.padding!r} has no transposed convolution")
        else:
            crops = list(resolve(self.padding, space, spans, s))
        more = each(self.output_padding, rank, "output_padding", 0)
        crops = [(lo, hi - extra) for (lo, hi), extra in zip(crops, more, strict=True)]
        sizes = [(m - 1) * step + span for m, step, span in zip(space, s, spans, strict=True)]
        if any(size - lo - hi < 1 for size, (lo, hi) in zip(sizes, crops, strict=True)):
            raise ValueError(f"padding {self.padding} crops all of the {tuple(sizes)} samples")
        sources = tuple(np.arange(size) for size in sizes)
        return Windows(kernel, s, d, ((0, 0),) * rank, space, sources), crops


def _crop(x: np.ndarray, crops: list[tuple[int, int]]) -> np.ndarray:
    """Take samples away at (before, after) along each space axis; where the number is negative, add zeros."""
    for axis, (lo, hi) in enumerate(crops, start=1):
        kept = np.moveaxis(x, axis, 0)[max(lo, 0) : x.shape[axis] - max(hi, 0)]
        zeros = [np.zeros((max(-n, 0), *kept.shape[1:]), x.dtype) for n in (lo, hi)]
        x = np.moveaxis(np.concatenate([zeros[0], kept, zeros[1]]), 0, axis)
    return x
