"""Resizing as multiplication by a matrix of weights along each axis; backward multiplies by its transpose."""

from __future__ import annotations

from math import ceil, floor
from typing import Any

import numpy as np

from .node import Node
from .windows import Sizes, each


class Resize(Node):
    r"""Resize the space, one axis after another.

    .. math:: y_i = \sum_j w_{ij} x_j, \qquad
        \frac{\partial L}{\partial x_j} = \sum_i w_{ij} \frac{\partial L}{\partial y_i}

    Args:
        size: samples along each axis; None leaves an axis unchanged.
        scale: alternatively, the factor by which the size grows.
        method: "nearest", "nearest_exact", "linear" or "cubic".
        align_corners: whether the first and last outputs coincide with the first and last samples.
        antialias: whether the kernel is widened when shrinking; None: yes with the convention "jax", no with "torch".
        convention: "torch" or "jax".

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: if the method is unknown, or both or neither of size and scale are given.

    Source:
        Keys, "Cubic convolution interpolation for digital image processing", 1981; torch.nn.functional.interpolate.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Resize
        >>> node = Resize(scale=2)
        >>> node.forward(np.array([0.0, 4.0]).reshape(1, 2, 1)).ravel().tolist()
        [0.0, 1.0, 3.0, 4.0]
        >>> node.backward(np.ones((1, 4, 1)))[0].ravel().tolist()
        [2.0, 2.0]
    """

    def __init__(
        self,
        size: Any = None,
        scale: float | Sizes | None = None,
        method: str = "linear",
        align_corners: bool = False,
        antialias: bool | None = None,
        convention: str = "torch",
    ) -> None:
        super().__init__()
        if (size is None) == (scale is None):
            raise ValueError(f"size is {size} and scale is {scale}: give one of them")
        if method not in ("nearest", "nearest_exact", "linear", "cubic"):
            raise ValueError(f"method {method!r} is unknown")
        self.size, self.scale, self.method, self.aligned = size, scale, method, align_corners
        self.jax = convention == "jax"
        self.antialias = self.jax if antialias is None else antialias

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.ndim < 3:
            raise ValueError(f"x has shape {x.shape}; resizing needs (batch, *space, channels)")
        matrices = [self._matrix(n, *axis) for n, axis in zip(x.shape[1:-1], self._axes(x.shape[1:-1]), strict=True)]
        y = x
        for axis, matrix in enumerate(matrices, start=1):
            y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
        return self.keep(y.astype(x.dtype), matrices)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (matrices,) = self.recall(gradient)
        dx = gradient
        for axis, matrix in enumerate(matrices, start=1):
            dx = np.moveaxis(np.tensordot(matrix.T, dx, (1, axis)), 0, axis)
        return (dx.astype(gradient.dtype),)

    def _axes(self, space: tuple[int, ...]) -> list[tuple[int, float]]:
        """The output size, and the step between outputs, along each axis."""
        if self.size is not None:
            wanted = self.size if isinstance(self.size, (tuple, list)) else (self.size,) * len(space)
            wanted = each(tuple(m or n for m, n in zip(wanted, space, strict=True)), len(space), "size")
            return [(m, n / m) for m, n in zip(wanted, space, strict=True)]
        scale: Any = self.scale
        factors = scale if isinstance(scale, (tuple, list)) else (scale,) * len(space)
        sizes = [floor(n * f) for n, f in zip(space, factors, strict=True)]
        return [(m, n / m if self.jax else 1 / f) for n, m, f in zip(space, sizes, factors, strict=True)]

    def _matrix(self, size: int, out: int, step: float) -> np.ndarray:
        """The weights (out, size) of one axis."""
        if self.aligned:
            step = (size - 1) / (out - 1) if out > 1 else 0.0
        rows = np.zeros((out, size))
        for i in range(out):
            if self.method.startswith("nearest"):
                half = 0.5 if self.jax or self.method == "nearest_exact" else 0.0
                # a fractional step may fall below its sample by a rounding error
                rows[i, min(floor((i + half) * step + 1e-9), size - 1)] = 1
            else:
                self._interpolate(rows[i], i, step)
        return rows

    def _interpolate(self, row: np.ndarray, i: int, step: float) -> None:
        size, wide = len(row), max(step, 1.0) if self.antialias else 1.0
        u = i * step if self.aligned and not self.antialias else (i + 0.5) * step - 0.5
        inside = self.jax or self.antialias
        reach = (1 if self.method == "linear" else 2) * wide
        for j in range(floor(u - reach), ceil(u + reach) + 1):
            weight = self._kernel((j - u) / wide)
            if not inside:
                row[min(max(j, 0), size - 1)] += weight  # beyond the ends the first and last samples are repeated
            elif 0 <= j < size:
                row[j] += weight
        if inside:
            row /= row.sum()

    def _kernel(self, t: float) -> float:
        t = abs(t)
        if self.method == "linear":
            return max(1 - t, 0.0)
        a = -0.5 if self.jax or self.antialias else -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0
