r"""Winograd's minimal filtering F(4x4, 3x3): 36 multiplications for 16 outputs of a 3x3 kernel instead of 144.

.. math:: Y = A^T \left[ (G g G^T) \odot (B^T d B) \right] A

for every tile d of 6x6 samples and its 4x4 outputs Y; over channels, the elementwise product becomes 36 matrix
products. The transforms of all tiles of an axis at once are one banded matrix, padding included, so that they too are
matrix products, along rows and then along columns. With space first and (batch, channels) last no product needs a
transposed copy.

Source:
    Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.3.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .geometry import Geometry

#: transforms for the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016, equations 17 to 19)
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32)
TILE, POINTS = OUTPUT.shape


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Cross-correlate x (batch, height, width, channels) with kernel (3, 3, channels, features), stride 1."""
    if not geometry.space_first:
        y = forward(x.transpose(1, 2, 0, 3), kernel, replace(geometry, space_first=True))
        return y.transpose(2, 0, 1, 3)
    height, width, batch, channels = x.shape
    features = kernel.shape[-1]
    h, w = geometry.out((height, width), (3, 3))
    rows, columns = -(-h // TILE), -(-w // TILE)
    down = _constant(input_matrix(height, h, geometry.pads[0][0]), x)  # (points * rows, height)
    along = _constant(input_matrix(width, w, geometry.pads[1][0]), x)
    transform = _constant(KERNEL, x)
    u = jnp.einsum("ap,bq,pqco->abco", transform, transform, kernel).reshape(POINTS * POINTS, channels, features)

    v = (down @ x.reshape(height, -1)).reshape(POINTS * rows, width, batch * channels)
    v = _batched(along, v)  # (points * rows, points * columns, batch * channels)
    v = _points_first(v, rows, columns).reshape(POINTS * POINTS, -1, channels)
    m = lax.dot_general(v, u, (((2,), (1,)), ((0,), (0,))))  # (points^2, tiles * batch, features)
    m = m.reshape(POINTS, POINTS, rows, columns * batch * features)
    m = m.swapaxes(1, 2).reshape(POINTS * rows, POINTS * columns, batch * features)
    y = _batched(_constant(output_matrix(w), x), m).reshape(POINTS * rows, -1)  # (points * rows, w * batch * features)
    y = _constant(output_matrix(h), x) @ y
    return y.reshape(h, w, batch, features)


def _points_first(v: jax.Array, rows: int, columns: int) -> jax.Array:
    """(points * rows, points * columns, rest) to (points, points, rows, columns * rest)."""
    return v.reshape(POINTS, rows, POINTS, columns * v.shape[-1]).swapaxes(1, 2)


def _batched(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Multiply every x[i] by the same matrix from the left."""
    many = jnp.broadcast_to(matrix, (x.shape[0], *matrix.shape))
    return lax.dot_general(many, x, (((2,), (1,)), ((0,), (0,))))


def _constant(matrix: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(matrix, like.dtype)


@lru_cache
def input_matrix(size: int, out: int, before: int) -> np.ndarray:
    """The input transforms of all tiles of an axis, (points * tiles, size); what lies in the padding is left out."""
    tiles = -(-out // TILE)
    matrix = np.zeros((POINTS, tiles, size), np.float32)
    for tile in range(tiles):
        for k in range(POINTS):
            place = TILE * tile + k - before
            if 0 <= place < size:
                matrix[:, tile, place] = INPUT[:, k]
    return matrix.reshape(POINTS * tiles, size)


@lru_cache
def output_matrix(out: int) -> np.ndarray:
    """The output transforms of all tiles of an axis, (out, points * tiles)."""
    tiles = -(-out // TILE)
    matrix = np.einsum("rp,st->srpt", OUTPUT, np.eye(tiles, dtype=np.float32))
    return matrix.reshape(TILE * tiles, POINTS * tiles)[:out]
