"""Locally connected layers: the geometry of a convolution, with a separate kernel at every position."""

from __future__ import annotations

from typing import Any

import numpy as np

from .node import Node
from .windows import Sizes, each, pad, place, unpad


class LocallyConnected(Node):
    r"""A convolution without weight sharing: each weight is used once per example.

    .. math:: y_i = b_i + \sum_j x_{s i + d j} \, W_{i, j}, \qquad
        \frac{\partial L}{\partial x_{s i + d j}} \mathrel{+}= g_i W_{i, j}^\top, \quad
        \frac{\partial L}{\partial W_{i, j}} = x_{s i + d j}^\top \, g_i, \quad
        \frac{\partial L}{\partial b_i} = g_i

    Args:
        kernel: W, for every position.
        bias: b, for every position, or None.
        stride: as for ``Conv``.
        padding: as for ``Conv``.
        dilation: as for ``Conv``.
        groups: as for ``Conv``.

    Shapes:
        x (batch, *space, channels) to (batch, *out, features);
        kernel (*out, *kernel, channels // groups, features), bias (*out, features).

    Raises:
        ValueError: if shapes do not match, or the kernel does not fit.

    Source:
        LeCun, "Generalization and network design strategies", 1989, Net-3.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import LocallyConnected
        >>> node = LocallyConnected(kernel=np.arange(4.0).reshape(2, 2, 1, 1))    # two positions, two weights each
        >>> node.forward(np.ones((1, 3, 1))).ravel().tolist()
        [1.0, 5.0]
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
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: np.ndarray) -> np.ndarray:
        kernel, rank, (groups,) = self.params["kernel"], x.ndim - 2, each(self.groups, 1, "groups")
        windows = place(
            x.shape[1:-1],
            kernel.shape[rank : 2 * rank],
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        features = kernel.shape[-1]
        expected = (*windows.out, *windows.kernel, x.shape[-1] // groups, features)
        if kernel.shape != expected or features % groups or x.shape[-1] % groups:
            raise ValueError(f"kernel has shape {kernel.shape}, x {x.shape} in {groups} groups asks for {expected}")
        if "bias" in self.params and self.params["bias"].shape != (*windows.out, features):
            raise ValueError(f"bias has shape {self.params['bias'].shape}, it must be {(*windows.out, features)}")
        padded = pad(x, windows)  # (batch, *padded, channels)
        y = np.zeros((x.shape[0], *windows.out, groups, features // groups), x.dtype)
        for j in windows.samples():
            y += np.einsum("n...gc,...cgf->n...gf", *self._split(padded[windows.at(j)], self._at(j)))
        y = y.reshape(x.shape[0], *windows.out, features)
        if "bias" in self.params:
            y += self.params["bias"]
        return self.keep(y, padded, windows)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        padded, windows = self.recall(gradient)
        dkernel, dpadded = np.zeros_like(self.params["kernel"]), np.zeros_like(padded)
        g = gradient.reshape(*gradient.shape[:-1], self.groups, -1)  # (batch, *out, groups, features // groups)
        for j in windows.samples():
            seen, weights = self._split(padded[windows.at(j)], self._at(j))
            dpadded[windows.at(j)] += np.einsum("n...gf,...cgf->n...gc", g, weights).reshape(
                *gradient.shape[:-1], padded.shape[-1]
            )
            share = np.einsum("n...gc,n...gf->...cgf", seen, g)  # (*out, channels // groups, groups, ...)
            dkernel[self._index(j)] = share.reshape(*windows.out, *dkernel.shape[-2:])
        self.add_gradient("kernel", dkernel)
        self.add_gradient("bias", gradient.sum(0))
        return (unpad(dpadded, windows),)

    def _index(self, j: tuple[int, ...]) -> tuple[Any, ...]:
        """The index of sample j in the kernels of all positions."""
        return (*(slice(None) for _ in j), *j)

    def _at(self, j: tuple[int, ...]) -> np.ndarray:
        return self.params["kernel"][self._index(j)]  # (*out, channels // groups, features)

    def _split(self, seen: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split the groups into a separate axis."""
        return (
            seen.reshape(*seen.shape[:-1], self.groups, -1),  # (batch, *out, groups, channels // groups)
            weights.reshape(*weights.shape[:-1], self.groups, -1),  # (*out, channels // groups, groups, ...)
        )
