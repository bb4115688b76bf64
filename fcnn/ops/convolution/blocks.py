"""Convolution of few channels as a matrix product over blocks of positions.

With few channels the rows of a patch are short, and copying them costs more than the product. So two neighbouring
positions along every axis form a block and are computed together. Their windows overlap: in two dimensions with kernel
5, 36 samples serve four positions, which as patches would copy 25 each. The kernel of a block is the kernel at each of
its positions and zeros elsewhere: the band of a small Toeplitz matrix. Products of zeros and samples are exact while
the samples are finite; ``locality`` handles the others. Channels come first and the batch last, so that copies are
long contiguous runs.
"""

from __future__ import annotations

from itertools import product
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from ...geometry import Shape
from .conv_geometry import Geometry

BLOCK = 2


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, channels, features), stride 1, one group."""
    plan = _Plan(x.shape, kernel.shape, geometry)
    y = plan.weights(kernel) @ plan.seen(x)
    return plan.result(y)


def input_gradient(g: jax.Array, kernel: jax.Array, geometry: Geometry, space: Shape) -> jax.Array:
    """The gradient of x: the gradients of the blocks' samples, added up where blocks overlap."""
    plan = _Plan((g.shape[-1 if geometry.polyphase else 0], *space, kernel.shape[-2]), kernel.shape, geometry)
    (y,) = jax.linear_transpose(plan.result, plan.of_result(g.dtype))(g)
    return plan.laid_back(plan.weights(kernel).T @ y)


def kernel_gradient(x: jax.Array, g: jax.Array, geometry: Geometry, kernel: Shape) -> jax.Array:
    """The gradient of the kernel: the gradient of the block matrix, with its bands added up."""
    shape = (*kernel, x.shape[-1], g.shape[0 if geometry.polyphase else -1])
    plan = _Plan(x.shape, shape, geometry)
    (y,) = jax.linear_transpose(plan.result, plan.of_result(g.dtype))(g)
    weights = lax.dot_general(y, plan.seen(x), (((1,), (1,)), ((), ())))
    (share,) = jax.linear_transpose(plan.weights, jax.ShapeDtypeStruct(shape, g.dtype))(weights)
    return share


class _Plan:
    """Sizes of one problem: b positions per block, the blocks along each axis, and the cells of b samples they read."""

    def __init__(self, x: Shape, kernel: Shape, geometry: Geometry) -> None:
        self.batch, *space, self.channels = x
        self.kernel, self.features = kernel[:-2], kernel[-1]
        self.rank, self.geometry, self.space = geometry.rank, geometry, tuple(space)
        self.out = geometry.out(self.space, self.kernel)
        self.b = tuple(min(BLOCK, n) for n in self.out)
        self.blocks = tuple(-(-n // b) for n, b in zip(self.out, self.b, strict=True))
        self.cells = tuple(-(-(k + b - 1) // b) for k, b in zip(self.kernel, self.b, strict=True))
        self.grid = tuple(n + c - 1 for n, c in zip(self.blocks, self.cells, strict=True))
        self.depth = prod(self.b) * self.channels

    def of_result(self, dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.features * prod(self.b), prod(self.blocks) * self.batch), dtype)

    def pads(self) -> list[tuple[int, int, int]]:
        """Padding to whole cells; it crops where the last samples are not read."""
        axes = zip(self.geometry.pads, self.grid, self.b, self.space, strict=True)
        return [(0, 0, 0), *((lo, cells * b - n - lo, 0) for (lo, _), cells, b, n in axes), (0, 0, 0)]

    def cells_of(self, x: jax.Array) -> jax.Array:
        """X (batch, *space, channels) as cells: (b * channels, *grid, batch)."""
        x = jnp.moveaxis(x, (0, -1), (-1, 0))  # (channels, *space, batch): copied once, not for every cell
        x = lax.pad(x, jnp.zeros((), x.dtype), self.pads())
        split = [self.channels]
        for cells, b in zip(self.grid, self.b, strict=True):
            split += [cells, b]
        x = x.reshape(*split, self.batch)
        inner = tuple(2 + 2 * a for a in range(self.rank))
        x = x.transpose(*inner, 0, *(1 + 2 * a for a in range(self.rank)), 1 + 2 * self.rank)
        return x.reshape(self.depth, *self.grid, self.batch)

    def seen(self, x: jax.Array) -> jax.Array:
        """The samples that each block reads: (cells * b * channels, blocks * batch)."""
        cells = self.cells_of(x)
        parts = []
        for place in product(*map(range, self.cells)):
            limits = [a + n for a, n in zip(place, self.blocks, strict=True)]
            parts.append(lax.slice(cells, (0, *place, 0), (self.depth, *limits, self.batch)))
        wide = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        return wide.reshape(len(parts) * self.depth, -1)

    def laid_back(self, share: jax.Array) -> jax.Array:
        """The transpose of :meth:`seen`: contributions of the blocks, added up at their samples.

        The additions are done in place, one after another; a sum of padded arrays would test every border for every
        sample.
        """
        parts = share.reshape(prod(self.cells), self.depth, *self.blocks, self.batch)
        cells = jnp.zeros((self.depth, *self.grid, self.batch), share.dtype)
        for part, place in zip(parts, product(*map(range, self.cells)), strict=True):
            start = (0, *place, 0)
            here = lax.dynamic_slice(cells, start, part.shape)
            cells = lax.dynamic_update_slice(cells, here + part, start)
        x = jax.ShapeDtypeStruct((self.batch, *self.space, self.channels), share.dtype)
        return jax.linear_transpose(self.cells_of, x)(cells)[0]

    def weights(self, kernel: jax.Array) -> jax.Array:
        """The matrix of a block: (features * b, cells * b * channels)."""
        spare = [c * b - k for c, b, k in zip(self.cells, self.b, self.kernel, strict=True)]
        placed = []
        for place in product(*map(range, self.b)):
            widths = [*((a, more - a) for a, more in zip(place, spare, strict=True)), (0, 0), (0, 0)]
            placed.append(jnp.pad(kernel, widths))
        split = [len(placed)]
        for cells, b in zip(self.cells, self.b, strict=True):
            split += [cells, b]
        weights = jnp.stack(placed).reshape(*split, self.channels, self.features)
        outer = tuple(1 + 2 * a for a in range(self.rank))
        inner = tuple(2 + 2 * a for a in range(self.rank))
        last = 1 + 2 * self.rank
        weights = weights.transpose(last + 1, 0, *outer, *inner, last)  # (features, b, cells, b, channels)
        return weights.reshape(self.features * prod(self.b), -1)

    def result(self, y: jax.Array) -> jax.Array:
        """(features * b, blocks * batch) to (batch, *out, features), or with phases (features, b, *blocks, batch)."""
        rank = self.rank
        if self.geometry.polyphase:
            return y.reshape(self.features, prod(self.b), *self.blocks, self.batch)
        y = y.reshape(self.features, *self.b, *self.blocks, self.batch)
        pairs = [axis for a in range(rank) for axis in (rank + 1 + a, 1 + a)]
        y = y.transpose(2 * rank + 1, *pairs, 0)
        whole = [n * b for n, b in zip(self.blocks, self.b, strict=True)]
        y = y.reshape(self.batch, *whole, self.features)
        return y if tuple(whole) == self.out else y[(slice(None), *(slice(0, n) for n in self.out))]
