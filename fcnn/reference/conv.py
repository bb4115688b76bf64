"""Convolution: by its definition in plain loops, and as a vectorised node that the tests compare with them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from .node import Node
from .windows import Sizes, each, pad, place, unpad

#: the indices of one multiply-add: into the output, the input and the kernel
Use = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def conv_by_definition(
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Sizes = 1,
    pads: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> np.ndarray:
    r"""Convolve by definition, one multiply-add at a time, in any number of dimensions.

    .. math:: y_{n, i, o} = b_o + \sum_{j, c} x_{n,\, s i + d j - p,\, c} \; w_{j, c, o}

    Args:
        x: input.
        kernel: w, shared by all positions i.
        bias: b, or None.
        stride: s.
        pads: p, zeros around the space: an integer, or one pair (before, after) per axis.
        dilation: d.
        groups: each feature o sees only the channels of its group.

    Shapes:
        x (batch, *space, channels), kernel (*kernel, channels // groups, features), bias (features,)
        to (batch, *out, features).

    Source:
        LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import conv_by_definition
        >>> x, kernel = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), np.array([0.3, 0.5]).reshape(2, 1, 1)
        >>> conv_by_definition(x, kernel).ravel().round(9).tolist()
        [1.3, 2.1]
    """
    out, uses = _uses(x, kernel, stride, pads, dilation, groups)
    y = np.zeros((x.shape[0], *out, kernel.shape[-1]), x.dtype)
    for at_y, at_x, at_kernel in uses:
        y[at_y] += x[at_x] * kernel[at_kernel]
    return y if bias is None else y + bias


def conv_gradients_by_definition(
    x: np.ndarray,
    kernel: np.ndarray,
    gradient: np.ndarray,
    stride: Sizes = 1,
    pads: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The gradients of :func:`conv_by_definition`: every use of a weight adds its share.

    .. math:: \frac{\partial L}{\partial w_{j, c, o}} = \sum_{n, i} g_{n, i, o} \, x_{n,\, s i + d j - p,\, c},
        \qquad \frac{\partial L}{\partial x_{n, m, c}} = \sum_{s i + d j - p = m} \sum_o g_{n, i, o} \, w_{j, c, o},
        \qquad \frac{\partial L}{\partial b_o} = \sum_{n, i} g_{n, i, o}

    Args:
        x: input.
        kernel: w.
        gradient: g, with respect to the output.
        stride: as for the definition.
        pads: as for the definition.
        dilation: as for the definition.
        groups: as for the definition.

    Returns:
        The gradients with respect to x, kernel and bias, each with the shape of its variable.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import conv_gradients_by_definition
        >>> x, kernel = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), np.array([0.3, 0.5]).reshape(2, 1, 1)
        >>> g = np.array([-0.1, 0.2]).reshape(1, 2, 1)
        >>> [d.ravel().round(9).tolist() for d in conv_gradients_by_definition(x, kernel, g)]
        [[-0.03, 0.01, 0.1], [0.3, 0.4], [0.1]]
    """
    out, uses = _uses(x, kernel, stride, pads, dilation, groups)
    if gradient.shape != (x.shape[0], *out, kernel.shape[-1]):
        raise ValueError(f"the gradient has shape {gradient.shape}, the output (batch, {out}, {kernel.shape[-1]})")
    dx, dkernel, dbias = np.zeros_like(x), np.zeros_like(kernel), np.zeros(kernel.shape[-1], kernel.dtype)
    for at_y, at_x, at_kernel in uses:
        dkernel[at_kernel] += gradient[at_y] * x[at_x]
        dx[at_x] += gradient[at_y] * kernel[at_kernel]
    for at_y in product(*map(range, gradient.shape)):
        dbias[at_y[-1]] += gradient[at_y]
    return dx, dkernel, dbias


def _uses(
    x: np.ndarray, kernel: np.ndarray, stride: Sizes, pads: Any, dilation: Sizes, groups: int
) -> tuple[tuple[int, ...], Iterator[Use]]:
    """The output's space, and the indices of every multiply-add that does not involve padding."""
    rank = check_layout(x, kernel, groups)
    space, sizes = x.shape[1:-1], kernel.shape[:rank]
    s, d = each(stride, rank, "stride"), each(dilation, rank, "dilation")
    pairs = ((pads, pads),) * rank if isinstance(pads, int) else tuple(pads)
    axes = range(rank)
    out = tuple((space[a] + sum(pairs[a]) - (sizes[a] - 1) * d[a] - 1) // s[a] + 1 for a in axes)
    if min(out) < 1:
        raise ValueError(f"kernel {sizes} does not fit an input of {space} padded by {pairs}")
    channels, features = x.shape[-1] // groups, kernel.shape[-1]

    def walk() -> Iterator[Use]:
        for n, *i, o in product(range(x.shape[0]), *map(range, out), range(features)):
            first = o // (features // groups) * channels  # the first channel of o's group
            for *j, c in product(*map(range, sizes), range(channels)):
                m = [s[a] * i[a] + d[a] * j[a] - pairs[a][0] for a in axes]
                if all(0 <= m[a] < space[a] for a in axes):
                    yield (n, *i, o), (n, *m, first + c), (*j, c, o)

    return out, walk()


class Conv(Node):
    r"""Convolution, vectorised over everything except the samples of the kernel.

    For each kernel sample j, the samples of the padded x that it multiplies form a strided view, and the convolution
    is a sum of matrix products of these views:

    .. math:: y_i = b + \sum_j x_{s i + d j} \, W_j, \qquad
        \frac{\partial L}{\partial x_{s i + d j}} \mathrel{+}= g_i W_j^\top, \quad
        \frac{\partial L}{\partial W_j} = \sum_i x_{s i + d j}^\top \, g_i, \quad
        \frac{\partial L}{\partial b} = \sum_i g_i

    A sample that padding copies receives the gradients of all its copies.

    Args:
        kernel: W.
        bias: b, or None.
        stride: s, an integer or one per axis.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an integer, or pairs (before, after); "CIRCULAR", "REFLECT" or
            "EDGE" alone, or combined with one of these as (mode, amount); see ``place`` for the meaning of each.
        dilation: d.
        groups: features of group g see only the channels of group g.

    Shapes:
        x (batch, *space, channels) to (batch, *out, features);
        kernel (*kernel, channels // groups, features), bias (features,).

    Raises:
        ValueError: if shapes do not match, or the kernel does not fit.

    Source:
        LeCun et al. 1998, section II.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Conv
        >>> node = Conv(kernel=np.array([0.3, 0.5]).reshape(2, 1, 1), bias=np.zeros(1))
        >>> node.forward(np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)).ravel().round(9).tolist()
        [1.3, 2.1]
        >>> node.backward(np.array([-0.1, 0.2]).reshape(1, 2, 1))[0].ravel().round(9).tolist()
        [-0.03, 0.01, 0.1]
        >>> node.gradients["kernel"].ravel().round(9).tolist(), node.gradients["bias"].round(9).tolist()
        ([0.3, 0.4], [0.1])
    """

    def __init__(
        self,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        stride: Sizes = 1,
        padding: Any = "VALID",
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(kernel=kernel, bias=bias)
        check_bias(kernel, bias)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: np.ndarray) -> np.ndarray:
        kernel = self.params["kernel"]
        rank = check_layout(x, kernel, self.groups)
        windows = place(
            x.shape[1:-1], kernel.shape[:rank], stride=self.stride, padding=self.padding, dilation=self.dilation
        )
        padded = pad(x, windows)  # (batch, *padded, channels)
        y = np.zeros((x.shape[0], *windows.out, kernel.shape[-1]), x.dtype)
        for j in windows.samples():
            y += product_in_groups(padded[windows.at(j)], kernel[j], self.groups)
        if "bias" in self.params:
            y += self.params["bias"]
        return self.keep(y, padded, windows)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        padded, windows = self.recall(gradient)
        kernel, dpadded = self.params["kernel"], np.zeros_like(padded)
        dkernel = np.zeros_like(kernel)
        for j in windows.samples():
            seen = padded[windows.at(j)]  # (batch, *out, channels)
            dseen, dkernel[j] = product_gradients(seen, kernel[j], gradient, self.groups)
            dpadded[windows.at(j)] += dseen
        self.add_gradient("kernel", dkernel)
        self.add_gradient("bias", gradient.sum(tuple(range(gradient.ndim - 1))))
        return (unpad(dpadded, windows),)


def product_in_groups(x: np.ndarray, matrix: np.ndarray, groups: int) -> np.ndarray:
    """Multiply each group of channels by the columns of its features.

    Shapes:
        x (..., channels), matrix (channels // groups, features) to (..., features).
    """
    inputs = x.reshape(*x.shape[:-1], groups, -1)
    columns = matrix.reshape(matrix.shape[0], groups, -1)
    y = np.einsum("...gc,cgf->...gf", inputs, columns)  # (..., groups, features // groups)
    return y.reshape(*x.shape[:-1], matrix.shape[1])


def product_gradients(
    x: np.ndarray, matrix: np.ndarray, gradient: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of :func:`product_in_groups` with respect to x and to the matrix."""
    inputs = x.reshape(-1, groups, x.shape[-1] // groups)  # (positions, groups, channels // groups)
    errors = gradient.reshape(-1, groups, matrix.shape[1] // groups)  # (positions, groups, features // groups)
    columns = matrix.reshape(matrix.shape[0], groups, -1)
    dx = np.einsum("pgf,cgf->pgc", errors, columns)
    dmatrix = np.einsum("pgc,pgf->cgf", inputs, errors)
    return dx.reshape(x.shape), dmatrix.reshape(matrix.shape)


def check_layout(x: np.ndarray, kernel: np.ndarray, groups: int) -> int:
    """The number of space axes; raise if x and a shared kernel do not match."""
    rank = kernel.ndim - 2
    if rank < 1 or x.ndim != rank + 2:
        raise ValueError(
            f"x {x.shape} must be (batch, *space, channels), "
            f"kernel {kernel.shape} (*kernel, channels // groups, features)"
        )
    (count,) = each(groups, 1, "groups")
    if x.shape[-1] % count or kernel.shape[-1] % count or kernel.shape[-2] != x.shape[-1] // count:
        raise ValueError(f"kernel {kernel.shape} does not take {x.shape[-1]} channels in {count} groups")
    return rank


def check_bias(kernel: np.ndarray, bias: np.ndarray | None) -> None:
    """Raise unless there is one bias per feature, or none."""
    if bias is not None and np.shape(bias) != np.shape(kernel)[-1:]:
        raise ValueError(f"bias has shape {np.shape(bias)}, the kernel {np.shape(kernel)}: one for each feature")
