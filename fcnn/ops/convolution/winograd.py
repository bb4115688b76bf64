r"""Winograd's minimal filtering: 36 multiplications instead of 144 for 4x4 outputs of a 3x3 kernel.

For a 5x5 kernel it takes 64 instead of 400.

.. math:: Y = A^T \left[ (G g G^T) \odot (B^T d B) \right] A

for every tile d of m + k - 1 samples along each axis and its m outputs Y (m = 4 here, kernel k). With channels, the
elementwise product becomes one matrix product for each point of a tile. The matrices evaluate polynomials at the points
0, 1, -1, 2, -2, 1/2, -1/2 and infinity, and interpolate them (Toom and Cook).

The transforms of all tiles along an axis are one banded matrix, which includes the padding, so they too are matrix
products, along rows and then along columns. With space first and (batch, channels) last, no product needs a transposed
copy. Rows of tiles are computed one after another where there are few rows and the transformed kernel is small compared
to a row, so that the data of a row stay in the processor's caches.

The rounding error of every output is proportional to the largest sample of its tile, even one outside its window
(:func:`growth`); ``locality`` keeps that small.

Source:
    Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4; Blahut, "Fast algorithms
    for signal processing", 2010, chapter 5, for the matrices; Barabasz et al., "Error analysis and improving the
    accuracy of Winograd convolution for deep neural networks", 2020, for the points.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, lcm, prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...geometry import Shape
from ...symbolic_sizes import assumed
from .conv_geometry import Geometry

#: outputs of a tile along an axis
TILE = 4
#: kernel sizes along an axis: tiles of up to 8 points, beyond which float32 loses too many digits
KERNELS = (3, 4, 5)
#: a row of tiles is computed separately if it has this many times the numbers of the transformed kernel ...
_ROW_OVER_KERNEL = 2
#: ... and there are at most this many rows, because each is compiled separately
_ROWS = 4
#: else rows are computed together, up to this many numbers of the transformed input, in at most this many parts
_TOGETHER, _PARTS = 5_000_000, 8
_POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Cross-correlate x (batch, height, width, channels) with a kernel (*kernel, channels, features), stride 1."""
    if not geometry.hwnc:
        y = forward(x.transpose(1, 2, 0, 3), kernel, replace(geometry, hwnc=True))
        return y.transpose(2, 0, 1, 3)
    plan = _Plan(x.shape, kernel.shape, geometry)
    u = plan.transformed(kernel)
    parts = [plan.computed(seen, u, *part) for part, seen in zip(plan.parts(), plan.seen(x), strict=True)]
    y = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    return y.reshape(*plan.out, plan.batch, plan.features)


class _Plan:
    """Sizes of one problem, x (height, width, batch, channels): tiles and points of a tile along both axes."""

    def __init__(self, x: Shape, kernel: Shape, geometry: Geometry) -> None:
        *space, self.batch, self.channels = x
        *sizes, _, self.features = kernel
        self.space, self.sizes = tuple(space), tuple(sizes)
        self.before = [lo for lo, _ in geometry.pads]
        self.out = geometry.out(self.space, self.sizes)
        self.points = [TILE + k - 1 for k in self.sizes]
        self.tiles = [-(-n // TILE) for n in self.out]

    def parts(self) -> list[tuple[int, int]]:
        """The rows of tiles that are computed together, as (first, last + 1)."""
        rows, columns = self.tiles
        batch = assumed(self.batch)
        row = columns * batch * (self.channels + self.features)
        if rows <= _ROWS and row >= _ROW_OVER_KERNEL * self.channels * self.features:
            together = 1
        else:
            numbers = prod(self.points) * rows * columns * batch * self.channels
            together = -(-rows // min(rows, _PARTS, max(1, ceil(numbers / _TOGETHER))))
        return [(first, min(rows, first + together)) for first in range(0, rows, together)]

    def transformed(self, kernel: jax.Array) -> jax.Array:
        """The kernel at all points: (points, channels, features)."""
        down, along = (_constant(kernel_matrix(k), kernel) for k in self.sizes)
        u = jnp.einsum("ap,bq,pqco->abco", down, along, kernel)
        return u.reshape(-1, self.channels, self.features)

    def limits(self, first: int, last: int) -> tuple[int, int]:
        """The range of rows of x that these rows of tiles read; empty if they read nothing but padding."""
        begin, height = TILE * first - self.before[0], self.space[0]
        end = begin + TILE * (last - first) + self.sizes[0] - 1
        return min(max(begin, 0), height), min(max(end, 0), height)

    def seen(self, x: jax.Array) -> list[jax.Array]:
        """The rows of x that each of the parts reads.

        X is split into pieces, which are concatenated, so that gradients of overlapping parts are added piece by piece.
        With slices, the gradient would be a sum of arrays of all rows, most of them zero.
        """
        limits = [self.limits(*part) for part in self.parts()]
        if limits == [(0, self.space[0])]:
            return [x]
        cuts = sorted({0, self.space[0], *(edge for pair in limits for edge in pair)})
        pieces = lax.split(x, [b - a for a, b in pairwise(cuts)])
        found = []
        for first, last in limits:
            here = [piece for piece, start in zip(pieces, cuts[:-1], strict=True) if first <= start < last]
            found.append(jnp.concatenate(here) if here else x[:0])
        return found

    def computed(self, seen: jax.Array, u: jax.Array, first: int, last: int) -> jax.Array:
        """The output (rows, width * batch * features) of the rows of tiles in range(first, last)."""
        width, rows, columns, (p, q) = self.space[1], last - first, self.tiles[1], self.points
        h = min(self.out[0], TILE * last) - TILE * first
        before = max(0, self.before[0] - TILE * first)
        down = _constant(input_matrix(seen.shape[0], h, before, self.sizes[0]), u)  # (p * rows, seen)
        along = _constant(input_matrix(width, self.out[1], self.before[1], self.sizes[1]), u)

        each = self.batch * self.channels
        v = (down @ seen.reshape(seen.shape[0], width * each)).reshape(p * rows, width, each)
        v = _batched(along, v)  # (p * rows, q * columns, batch * channels)
        v = v.reshape(p, rows, q, -1).swapaxes(1, 2).reshape(p * q, -1, self.channels)
        m = lax.dot_general(v, u, (((2,), (1,)), ((0,), (0,))))  # (p * q, tiles * batch, features)
        m = m.reshape(p, q, rows, -1).swapaxes(1, 2).reshape(p * rows, q * columns, self.batch * self.features)
        y = _batched(_constant(output_matrix(self.out[1], self.sizes[1]), u), m).reshape(p * rows, -1)
        return _constant(output_matrix(h, self.sizes[0]), u) @ y


def _batched(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Multiply every x[i] by the same matrix from the left."""
    many = jnp.broadcast_to(matrix, (x.shape[0], *matrix.shape))
    return lax.dot_general(many, x, (((2,), (1,)), ((0,), (0,))))


def _constant(matrix: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(matrix, like.dtype)


@lru_cache
def transforms(kernel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices of a tile along one axis: B^T of the input, G of the kernel, A^T of the output.

    Row j of B^T holds the coefficients, scaled to integers, of the polynomial that is zero at all points but the j-th.
    G evaluates the kernel at point j and divides by that polynomial's value there. A^T holds the powers of the points.
    The last point is infinity.

    Example:
        >>> transforms(3)[0][0].tolist()
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0]
    """
    count = TILE + kernel - 1
    points = _POINTS[: count - 1]
    for_input, for_kernel = np.zeros((count, count)), np.zeros((count, kernel))
    for_output = np.zeros((TILE, count))
    for j, point in enumerate(points):
        others = [other for other in points if other != point]
        coefficients = _with_roots(others)
        whole = lcm(*(c.denominator for c in coefficients))
        for_input[j, : count - 1] = [float(c * whole) for c in coefficients]
        value = whole * prod(point - other for other in others)
        for_kernel[j] = [float(point**k / value) for k in range(kernel)]
        for_output[:, j] = [float(point**k) for k in range(TILE)]
    coefficients = _with_roots(points)
    whole = lcm(*(c.denominator for c in coefficients))
    for_input[-1] = [float(c * whole) for c in coefficients]
    for_kernel[-1, -1], for_output[-1, -1] = 1 / whole, 1
    return for_input, for_kernel, for_output


def growth(kernel: int) -> float:
    r"""The size that sums along an axis reach before terms cancel, for samples and weights of at most 1.

    .. math:: \max_i \sum_j |A_{ij}| \, \|G_j\|_1 \, \|B_j\|_1

    with the rows j of G and B^T. For one channel, each rounding error of the result is at most one unit in the last
    place of the product of both axes' growth, the largest sample of the tile and the largest weight.

    Source:
        Barabasz et al. 2020, who bound the error by norms of the three matrices.

    Example:
        >>> [round(growth(k)) for k in KERNELS]
        [48, 74, 87]
    """
    for_input, for_kernel, for_output = (np.abs(matrix) for matrix in transforms(kernel))
    return float((for_output @ (for_kernel.sum(1) * for_input.sum(1))).max())


def _with_roots(roots: tuple[Fraction, ...] | list[Fraction]) -> list[Fraction]:
    """Coefficients, constant first, of the product of (x - root)."""
    found = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *found], [*(root * c for c in found), Fraction(0)]
        found = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return found


def kernel_matrix(kernel: int) -> np.ndarray:
    """The kernel transform along an axis, (points, kernel)."""
    return transforms(kernel)[1]


@lru_cache
def input_matrix(size: int, out: int, before: int, kernel: int) -> np.ndarray:
    """The input transforms of all tiles of an axis, (points * tiles, size); samples of the padding are omitted."""
    one = transforms(kernel)[0]
    tiles = -(-out // TILE)
    matrix = np.zeros((len(one), tiles, size))
    for tile in range(tiles):
        for k in range(len(one)):
            place = TILE * tile + k - before
            if 0 <= place < size:
                matrix[:, tile, place] = one[:, k]
    return matrix.reshape(len(one) * tiles, size)


@lru_cache
def output_matrix(out: int, kernel: int) -> np.ndarray:
    """The output transforms of all tiles of an axis, (out, points * tiles)."""
    one = transforms(kernel)[2]
    tiles = -(-out // TILE)
    matrix = np.einsum("rp,st->srpt", one, np.eye(tiles))
    return matrix.reshape(TILE * tiles, one.shape[1] * tiles)[:out]
