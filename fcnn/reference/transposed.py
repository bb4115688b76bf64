"""Transposed convolution: the input gradient of a convolution, as a forward operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from .conv import check_bias, check_layout, product_gradients, product_in_groups
from .node import Node
from .windows import Sizes, Windows, copied_from, each, mode_of, pad, resolve, unpad


class ConvTranspose(Node):
    r"""Transposed convolution: every input sample adds a scaled copy of the kernel to the output.

    .. math:: y_{s i + d j - p} \mathrel{+}= x_i \, W_j, \qquad
        \frac{\partial L}{\partial x_i} = \sum_j g_{s i + d j - p} \, W_j^\top, \quad
        \frac{\partial L}{\partial W_j} = \sum_i x_i^\top \, g_{s i + d j - p}

    The full result has (M - 1) s + d (P - 1) + 1 samples. Padding crops it; ``output_padding`` extends it at the end.

    Args:
        kernel: W.
        bias: b, added to every sample of the output, or None.
        stride: s.
        padding: "VALID" (crops nothing), "SAME" (crops to s M samples, an odd sample at the end), "SAME_LOWER" (an odd
            sample at the beginning), an integer, or pairs (before, after). With a mode, alone or with an amount, the
            cropped samples are added to those of which padding would have made copies there.
        dilation: d.
        groups: features of group g see only the channels of group g.
        output_padding: samples added at the end, for all axes or per axis; less than s or d.
        out: the output size, for all axes or per axis: "SAME" crops to it, otherwise output_padding is chosen to reach
            it; None: as results from the other arguments.

    Shapes:
        x (batch, *space, channels) to (batch, *out, features);
        kernel (*kernel, channels // groups, features), bias (features,).

    Raises:
        ValueError: if shapes do not match, or the padding has no transpose or crops everything.

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
        out: Sizes | None = None,
    ) -> None:
        super().__init__(kernel=kernel, bias=bias)
        check_bias(kernel, bias)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.output_padding, self.out = output_padding, out

    def forward(self, x: np.ndarray) -> np.ndarray:
        kernel = self.params["kernel"]
        rank = check_layout(x, kernel, self.groups)
        windows, crops = self._place(x.shape[1:-1], kernel.shape[:rank])
        full = np.zeros((x.shape[0], *map(len, windows.sources), kernel.shape[-1]), x.dtype)
        for j in windows.samples():
            full[windows.at(j)] += product_in_groups(x, kernel[j], self.groups)
        folded = self._folded(full.shape[1:-1], crops)
        y = _crop(full, crops if folded is None else [(min(lo, 0), min(hi, 0)) for lo, hi in crops])
        if folded is not None:
            y = unpad(y, folded)  # (batch, *out, features)
        if "bias" in self.params:
            y = y + self.params["bias"]
        return self.keep(y, x, windows, crops, folded)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        x, windows, crops, folded = self.recall(gradient)
        if folded is None:
            full = _crop(gradient, [(-lo, -hi) for lo, hi in crops])  # cropped samples have gradient 0
        else:  # samples that were added to another one have its gradient
            full = _crop(pad(gradient, folded), [(max(-lo, 0), max(-hi, 0)) for lo, hi in crops])
        kernel, dx = self.params["kernel"], np.zeros_like(x)
        dkernel = np.zeros_like(kernel)
        for j in windows.samples():
            share, dkernel[j] = product_gradients(x, kernel[j], full[windows.at(j)], self.groups)
            dx += share
        self.add_gradient("kernel", dkernel)
        self.add_gradient("bias", gradient.sum(tuple(range(gradient.ndim - 1))))
        return (dx,)

    def _place(self, space: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Windows, list[tuple[int, int]]]:
        """The windows over the full result, one per input sample, and the crops."""
        rank = len(space)
        s, d = each(self.stride, rank, "stride"), each(self.dilation, rank, "dilation")
        spans = [(p - 1) * a + 1 for p, a in zip(kernel, d, strict=True)]
        sizes = [(m - 1) * step + span for m, step, span in zip(space, s, spans, strict=True)]
        more = each(self.output_padding, rank, "output_padding", 0)
        if any(extra >= max(limits) for extra, *limits in zip(more, s, d, strict=True)):
            raise ValueError(f"output_padding {more} is neither below the stride {s} nor below the dilation {d}")
        out = None if self.out is None else each(self.out, rank, "out")
        mode, amount = mode_of(self.padding), self.padding
        if mode is not None:
            amount = None if isinstance(self.padding, str) else self.padding[1]
        if amount in ("SAME", "SAME_LOWER", None):
            # half of a surplus is cropped before; if the kernel is shorter than the stride, a deficit is added after
            wanted = [m * step for m, step in zip(space, s, strict=True)] if out is None else out
            if any(not m * step - step < n <= m * step for m, step, n in zip(space, s, wanted, strict=True)):
                raise ValueError(f"no SAME convolution with stride {s} makes {space} of {out}")
            odd = amount == "SAME_LOWER"
            lows = [(max(size - n, 0) + odd) // 2 for size, n in zip(sizes, wanted, strict=True)]
            if amount is None:  # a mode alone: half of the kernel
                lows = [(span - 1) // 2 for span in spans]
            crops = [(lo, size - n - lo) for lo, size, n in zip(lows, sizes, wanted, strict=True)]
        elif amount == "CAUSAL":
            raise ValueError(f"padding {self.padding!r} has no transposed convolution")
        else:
            crops = list(resolve(amount, space, spans, s))
            if out is not None:
                more = [n - (size - lo - hi) for n, size, (lo, hi) in zip(out, sizes, crops, strict=True)]
                if any(not 0 <= extra < max(limits) for extra, *limits in zip(more, s, d, strict=True)):
                    raise ValueError(f"{out} cannot be reached from {space}: it takes an output_padding of {more}")
        crops = [(lo, hi - extra) for (lo, hi), extra in zip(crops, more, strict=True)]
        if any(size - lo - hi < 1 for size, (lo, hi) in zip(sizes, crops, strict=True)):
            raise ValueError(f"padding {self.padding} crops all of the {tuple(sizes)} samples")
        sources = tuple(np.arange(size) for size in sizes)
        return Windows(kernel, s, d, ((0, 0),) * rank, space, sources), crops

    def _folded(self, full: tuple[int, ...], crops: list[tuple[int, int]]) -> Windows | None:
        """For a padding mode that copies samples: the samples to which those of the full result are added."""
        mode = mode_of(self.padding)
        if mode is None:
            return None
        pads, sources = tuple((max(lo, 0), max(hi, 0)) for lo, hi in crops), []
        for size, (lo, hi), crop in zip(full, pads, crops, strict=True):
            n = size - sum(crop)
            if max(lo, hi) > {"CIRCULAR": n, "REFLECT": n - 1, "EDGE": np.inf}[mode]:
                raise ValueError(f"padding {self.padding!r} would copy {(lo, hi)} samples of {n}, more than there are")
            sources.append(np.array([copied_from(q - lo, n, hi, mode) for q in range(n + lo + hi)]))
        ones = (1,) * len(full)
        return Windows(ones, ones, ones, pads, full, tuple(sources))


def _crop(x: np.ndarray, crops: list[tuple[int, int]]) -> np.ndarray:
    """Crop (before, after) samples along each space axis; negative numbers add zeros."""
    for axis, (lo, hi) in enumerate(crops, start=1):
        kept = np.moveaxis(x, axis, 0)[max(lo, 0) : x.shape[axis] - max(hi, 0)]
        zeros = [np.zeros((max(-n, 0), *kept.shape[1:]), x.dtype) for n in (lo, hi)]
        x = np.moveaxis(np.concatenate([zeros[0], kept, zeros[1]]), 0, axis)
    return x
