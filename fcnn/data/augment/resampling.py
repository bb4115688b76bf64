"""Resampling an image: by whole-sample shifts, at any coordinates, by an affine map, by a displacement field.

These are the deterministic operations behind the augmentations. Each takes one image (*space, channels) with any
number of space axes; use ``jax.vmap`` for a batch. Coordinates are in samples, with 0 at the centre of the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from .augmentation import wide

#: the value beyond the border, or "edge": the nearest sample
Fill = float | Literal["edge"]
MODES = ("zeros", "edge", "reflect", "wrap")


def shift(image: jax.Array, offset: Any, mode: str = "zeros") -> jax.Array:
    r"""Shift an image by whole samples.

    .. math:: y_i = x_{i - o}

    Args:
        image: (*space, channels), of any dtype.
        offset: o, one integer per space axis; positive values shift to the right and down.
        mode: how the vacated samples are filled: "zeros", "edge" (the nearest sample), "reflect" (mirrored about the
            outermost sample, which is not repeated) or "wrap" (from the other end).

    Shapes:
        image (*space, channels), offset (rank,) to (*space, channels).

    Returns:
        The shifted image.

    Raises:
        ValueError: an unknown mode.

    Example:
        >>> shift(jnp.arange(1, 5)[:, None], [1], "reflect")[:, 0].tolist()
        [2, 1, 2, 3]
    """
    check_mode(mode)
    space = image.shape[:-1]
    rank = len(space)
    offset = jnp.asarray(offset, jnp.int32)
    places, inside = [], jnp.ones((1,) * rank, bool)
    for axis, size in enumerate(space):
        place = jnp.arange(size, dtype=jnp.int32) - offset[axis]
        along = [1] * rank
        along[axis] = size
        inside = inside & ((place >= 0) & (place < size)).reshape(along)
        places.append(_fold(place, size, mode).reshape(along))
    # one gather over all axes: on the CPU faster than a slice or a selection matrix for each example
    moved = image.at[tuple(places)].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], moved, jnp.zeros((), image.dtype)) if mode == "zeros" else moved


def _fold(place: jax.Array, size: int, mode: str) -> jax.Array:
    """Map places that may lie outside to indices from 0 to size - 1."""
    if mode == "wrap":
        return place % size
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        place = place % period
        return jnp.minimum(place, period - place) if size > 1 else jnp.zeros_like(place)
    return jnp.clip(place, 0, size - 1)


def check_mode(mode: Any) -> str:
    """Raise unless the mode is known."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is unknown; use one of {', '.join(MODES)}")
    return mode


def sample(image: jax.Array, coordinates: Sequence[jax.Array], fill: Fill = 0.0) -> jax.Array:
    r"""Sample an image at any coordinates by linear interpolation (bilinear for 2-D images).

    .. math:: y_q = \sum_p x_p \prod_d \max(0, 1 - |q_d - p_d|)

    Args:
        image: (*space, channels), floating point.
        coordinates: one array per space axis, in samples; they are broadcast against each other.
        fill: value of all samples beyond the border, or "edge": the nearest sample.

    Shapes:
        image (*space, channels), coordinates rank arrays (*out,) to (*out, channels).

    Returns:
        The values; differentiable with respect to the image and the coordinates.

    Example:
        >>> sample(jnp.array([[0.0], [10.0]]), [jnp.array([0.25, 1.5])])[:, 0].tolist()
        [2.5, 5.0]
    """
    space = image.shape[:-1]
    dtype = wide(image.dtype)
    ring = ((1, 1),) * len(space) + ((0, 0),)
    if fill == "edge":
        padded = jnp.pad(image, ring, mode="edge")
    else:
        padded = jnp.pad(image, ring, constant_values=jnp.asarray(fill, image.dtype))
    below, shares = [], []
    for axis, size in enumerate(space):
        # everything beyond the ring has the ring's value, so clipping to it is exact and keeps indices in bounds
        place = jnp.clip(coordinates[axis].astype(dtype), -1, size)
        low = jnp.minimum(jnp.floor(place), size - 1)
        below.append(low.astype(jnp.int32) + 1)
        shares.append((place - low)[..., None])

    def between(corner: tuple[int, ...]) -> jax.Array:
        axis = len(corner)
        if axis == len(space):
            places = tuple(low + step for low, step in zip(below, corner, strict=True))
            return padded.at[places].get(mode="promise_in_bounds").astype(dtype)
        return (1 - shares[axis]) * between((*corner, 0)) + shares[axis] * between((*corner, 1))

    return between(()).astype(image.dtype)


def affine(image: jax.Array, matrix: Any, offset: Any = 0.0, *, fill: Fill = 0.0) -> jax.Array:
    r"""Resample an image by an affine map, with one linear interpolation.

    .. math:: y_q = x(A q + b)

    Args:
        image: (*space, channels), floating point.
        matrix: A (rank, rank), from output coordinates to input coordinates, axes in the order of the image.
        offset: b (rank,), or one number.
        fill: value beyond the border, or "edge".

    Shapes:
        image (*space, channels) to (*space, channels).

    Returns:
        The resampled image.

    Source:
        The convention of ``scipy.ndimage.affine_transform``.

    Example:
        >>> turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])  # a quarter turn about the centre of 2 x 2 pixels
        >>> affine(jnp.array([[1.0, 2.0], [3.0, 4.0]])[..., None], turn, jnp.array([0.0, 1.0]))[..., 0].tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """
    space = image.shape[:-1]
    dtype = wide(image.dtype)
    matrix = jnp.asarray(matrix, dtype)
    offset = jnp.broadcast_to(jnp.asarray(offset, dtype), (len(space),))
    grid = _grid(space, dtype)
    coordinates = []
    for axis in range(len(space)):
        place = offset[axis]
        for other, along in enumerate(grid):
            place = place + matrix[axis, other] * along
        coordinates.append(place)
    return sample(image, coordinates, fill)


def displace(image: jax.Array, field: jax.Array, *, fill: Fill = 0.0) -> jax.Array:
    r"""Resample an image by a displacement field, with linear interpolation.

    .. math:: y_q = x(q + f_q)

    Args:
        image: (*space, channels), floating point.
        field: f (rank, *space), in samples.
        fill: value beyond the border, or "edge".

    Shapes:
        image (*space, channels), field (rank, *space) to (*space, channels).

    Returns:
        The resampled image.

    Source:
        Simard, Steinkraus and Platt 2003, section 2.

    Example:
        >>> displace(jnp.array([[0.0], [10.0], [20.0]]), jnp.full((1, 3), 0.5))[:, 0].tolist()
        [5.0, 15.0, 10.0]
    """
    space = image.shape[:-1]
    dtype = wide(image.dtype)
    grid = _grid(space, dtype)
    return sample(image, [place + field[axis].astype(dtype) for axis, place in enumerate(grid)], fill)


def affine_matrix(
    space: Sequence[int], *, degrees: Any = 0.0, scale: Any = 1.0, shear: Any = 0.0, translate: Any = 0.0
) -> tuple[jax.Array, jax.Array]:
    r"""The matrix and offset that shear, then scale, then rotate an image about its centre, then translate it.

    With the centre c, the translation t and, for images as (row, column), the factors

    .. math::
        R = \begin{pmatrix} \cos\theta & -\sin\theta \\ \sin\theta & \cos\theta \end{pmatrix}, \quad
        H = \begin{pmatrix} 1 & 0 \\ \tan\varphi & 1 \end{pmatrix}, \quad
        A = (R\, s\, H)^{-1}, \quad b = c - A (c + t)

    Args:
        space: size of each space axis; two axes if ``degrees`` or ``shear`` is used.
        degrees: rotation angle, anticlockwise when row 0 is on top.
        scale: factor s; above 1 enlarges.
        shear: angle by which vertical lines are tilted; the lower half moves to the right.
        translate: translation in samples, one number or one per axis.

    Returns:
        A (rank, rank) and b (rank,) for ``affine``, float32.

    Example:
        >>> matrix, offset = affine_matrix((5, 5), scale=2.0)
        >>> matrix.tolist(), offset.tolist()
        ([[0.5, 0.0], [0.0, 0.5]], [1.0, 1.0])
    """
    rank = len(space)
    number = jnp.float32
    inverse = jnp.eye(rank, dtype=number) / jnp.asarray(scale, number)
    if rank == 2:
        turn, lean = jnp.deg2rad(jnp.asarray(degrees, number)), jnp.tan(jnp.deg2rad(jnp.asarray(shear, number)))
        cos, sin, one, zero = jnp.cos(turn), jnp.sin(turn), jnp.ones((), number), jnp.zeros((), number)
        back = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
        upright = jnp.stack([jnp.stack([one, zero]), jnp.stack([-lean, one])])
        inverse = _product(upright, back) / jnp.asarray(scale, number)
    centre = jnp.asarray([(size - 1) / 2 for size in space], number)
    moved = centre + jnp.broadcast_to(jnp.asarray(translate, number), (rank,))
    return inverse, centre - (inverse * moved).sum(1)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A small matrix product by elementwise operations; in a matmul, accelerators would round the factors."""
    return (a[:, :, None] * b[None]).sum(1)


def smooth(field: jax.Array, deviation: float) -> jax.Array:
    r"""Smooth along every axis but the first by a Gaussian, truncated at four standard deviations, with zero padding.

    .. math:: y_i = \frac{\sum_j e^{-(i - j)^2 / 2 \sigma^2} x_j}{\sum_{|j| \le 4 \sigma} e^{-j^2 / 2 \sigma^2}}

    Args:
        field: (fields, *space), floating point.
        deviation: sigma, in samples; 0 has no effect.

    Shapes:
        field (fields, *space) to (fields, *space).

    Returns:
        The smoothed field.

    Source:
        The convention of ``scipy.ndimage.gaussian_filter`` with mode "constant".

    Example:
        >>> [round(v, 2) for v in smooth(jnp.array([[0.0, 1.0, 0.0]]), 0.5)[0].tolist()]
        [0.11, 0.79, 0.11]
    """
    if deviation == 0:
        return field
    reach = int(4 * deviation + 0.5)
    whole = sum(math.exp(-0.5 * (step / deviation) ** 2) for step in range(-reach, reach + 1))
    for axis in range(1, field.ndim):
        place = jnp.arange(field.shape[axis])
        apart = (place[:, None] - place).astype(field.dtype)
        weights = jnp.where(jnp.abs(apart) <= reach, jnp.exp(-0.5 * (apart / deviation) ** 2), 0) / whole
        # products with a matrix of weights: spaces are small, and per-example convolutions are slow
        if axis == field.ndim - 1:
            field = jnp.matmul(field, weights, precision="highest")
        else:
            turned = jnp.swapaxes(field, axis, -2)
            field = jnp.swapaxes(jnp.matmul(weights, turned, precision="highest"), axis, -2)
    return field


def _grid(space: Sequence[int], dtype: Any) -> list[jax.Array]:
    """The coordinates of all samples, one array per axis, each broadcastable to the space."""
    grid = []
    for axis, size in enumerate(space):
        along = [1] * len(space)
        along[axis] = size
        grid.append(jnp.arange(size).astype(dtype).reshape(along))
    return grid
