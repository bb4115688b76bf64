"""Functions that move numbers about, which ONNX has as nodes; all keep the batch first."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...geometry import Shape

Array = jax.Array


def permute(x: Array, axes: Shape) -> Array:
    """Bring the axes of every example into another order; 1 is the first axis after the batch.

    Example:
        >>> permute(jnp.zeros((2, 3, 4, 5)), axes=(3, 1, 2)).shape
        (2, 5, 3, 4)
    """
    return jnp.transpose(x, (0, *axes))


def reshape(x: Array, shape: Shape) -> Array:
    """Give every example another shape.

    Example:
        >>> reshape(jnp.zeros((2, 12)), shape=(3, 4)).shape
        (2, 3, 4)
    """
    return jnp.reshape(x, (x.shape[0], *shape))


def channels_first_order(x: Array, shape: Shape) -> Array:
    """Bring flattened examples into the order that flattening with the channels first gives.

    Args:
        x: (batch, numbers), flattened with the channels last.
        shape: (*space, channels) before it was flattened.

    Example:
        >>> channels_first_order(jnp.arange(4.0)[None], shape=(2, 2)).tolist()
        [[0.0, 2.0, 1.0, 3.0]]
    """
    return jnp.moveaxis(jnp.reshape(x, (x.shape[0], *shape)), -1, 1).reshape(x.shape)


def take_slice(x: Array, bounds: tuple[tuple[int, int | None, int], ...]) -> Array:
    """A slice (start, stop, step) along every axis of an example.

    Example:
        >>> take_slice(jnp.arange(6.0).reshape(1, 6), bounds=((4, None, -2),)).tolist()
        [[4.0, 2.0, 0.0]]
    """
    return x[(slice(None), *(slice(*bound) for bound in bounds))]


def take_indices(x: Array, indices: tuple[Any, ...] | int, axis: int) -> Array:
    """The entries of these indices along an axis.

    Example:
        >>> take_indices(jnp.arange(4.0)[None], indices=(3, 0), axis=1).tolist()
        [[3.0, 0.0]]
    """
    return jnp.take(x, np.asarray(indices), axis=axis)


def negative_pad(x: Array, pads: tuple[tuple[int, int], ...], mode: str = "constant", value: float = 0.0) -> Array:
    """Add samples along the axes of an example; negative numbers take them away.

    Args:
        x: (batch, ...).
        pads: (before, after) for each axis of an example.
        mode: "constant", "reflect", "edge" or "wrap".
        value: what "constant" adds.

    Example:
        >>> negative_pad(jnp.arange(4.0)[None], pads=((-1, 2),)).tolist()
        [[1.0, 2.0, 3.0, 0.0, 0.0]]
    """
    more = [(0, 0), *((max(lo, 0), max(hi, 0)) for lo, hi in pads)]
    options = {"constant_values": np.asarray(value, x.dtype)} if mode == "constant" else {}
    x = jnp.pad(x, more, mode=mode, **options)
    ends = [(max(-lo, 0), n - max(-hi, 0)) for (lo, hi), n in zip(pads, x.shape[1:], strict=True)]
    return x[(slice(None), *(slice(*end) for end in ends))]


def tile(x: Array, repeats: Shape) -> Array:
    """Repeat the examples along their axes.

    Example:
        >>> tile(jnp.array([[1.0, 2.0]]), repeats=(2,)).tolist()
        [[1.0, 2.0, 1.0, 2.0]]
    """
    return jnp.tile(x, (1, *repeats))


def expand(x: Array, shape: Shape) -> Array:
    """Broadcast every example to a shape.

    Example:
        >>> expand(jnp.ones((2, 1, 3)), shape=(4, 3)).shape
        (2, 4, 3)
    """
    return jnp.broadcast_to(x, (x.shape[0], *np.broadcast_shapes(x.shape[1:], tuple(shape))))


def concatenate(*arrays: Array, axis: int = -1) -> Array:
    """Join arrays along an axis.

    Example:
        >>> concatenate(jnp.zeros((1, 2)), jnp.zeros((1, 3))).shape
        (1, 5)
    """
    return jnp.concatenate(arrays, axis)


def choose(*arrays: Array, operands: tuple[Any, ...]) -> Array:
    """Where a condition holds, one array, elsewhere another.

    Args:
        arrays: those of the three that depend on the input.
        operands: condition, first and second, each the place of an array, or a table and its dtype.

    Example:
        >>> choose(jnp.array([[True, False]]), operands=(0, (1.0, "float32"), (2.0, "float32"))).tolist()
        [[1.0, 2.0]]
    """
    condition, first, second = (
        arrays[given] if isinstance(given, int) else jnp.asarray(np.asarray(given[0], given[1])) for given in operands
    )
    dtype = first.dtype if isinstance(operands[1], int) else second.dtype
    return jnp.where(condition, first.astype(dtype), second.astype(dtype))


def convert(x: Array, dtype: str) -> Array:
    """The values in another dtype.

    Example:
        >>> convert(jnp.array([[1.7]]), dtype="int32").tolist()
        [[1]]
    """
    return x.astype(dtype)
