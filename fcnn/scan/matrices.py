"""A linear layer as a matrix acting on the flattened input."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import numpy as np

from .. import geometry
from ..errors import format_shape
from ..geometry import Shape
from ..layer import Layer
from ..layers.conv import Conv, LocallyConnected
from ..layers.dense import Dense
from ..layers.pool import AvgPool
from ..layers.whole_pool import GlobalAvgPool
from ..ops.pool import pool_windows, sample_shares
from ..ops.windows import patches
from ..types import Params

#: the largest matrix that is written out, in entries
LARGEST = 2**30


def matrix(layer: Layer, params: Params, shape: Shape, dtype: Any) -> np.ndarray:
    """The matrix that a linear layer multiplies the flattened input by, without the bias."""
    space, channels = shape[:-1], shape[-1]
    rows, columns = prod(shape), prod(layer.infer_shape(shape))
    if rows * columns > LARGEST:
        raise ValueError(
            f"{layer!r} on an input of {format_shape(shape)} is a matrix of {rows:,} by {columns:,} numbers, too large "
            "to be written out; give the shape of a smaller window"
        )
    number = np.arange(1, prod(space) + 1, dtype=np.int32).reshape(space)  # 0 is padding
    if isinstance(layer, Dense):
        return _laid_out(number.reshape(-1, 1), params["kernel"][None, None], prod(space))
    if isinstance(layer, GlobalAvgPool):
        share = np.full((1, 1, 1, 1), 1 / number.size, dtype)
        return _laid_out(number.reshape(1, -1), share * np.eye(channels, dtype=dtype), prod(space))
    if isinstance(layer, AvgPool):
        windows = pool_windows(space, layer.window, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
        share = sample_shares(windows, count_padding=layer.count_padding, divisor=layer.divisor)
        weights = share.reshape(-1, 1, 1, 1).astype(dtype) * np.eye(channels, dtype=dtype)
    elif isinstance(layer, (Conv, LocallyConnected)):
        moves = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        windows = geometry.slide(space, layer.kernel, **moves)
        weights = _ungrouped(params["kernel"], layer.groups)
        positions = 1 if isinstance(layer, Conv) else prod(windows.out)
        weights = weights.reshape(positions, prod(windows.kernel), channels, layer.features)
    else:
        raise TypeError(f"{layer!r} is not a matrix product")
    seen = np.asarray(jax.jit(patches, static_argnums=1)(number[None, ..., None], windows))
    return _laid_out(seen.reshape(prod(windows.out), prod(windows.kernel)), weights, prod(space))


def _laid_out(seen: np.ndarray, weights: np.ndarray, samples: int) -> np.ndarray:
    """The matrix, from the samples that each position sees and their weights.

    Shapes:
        seen (positions, kernel samples): the number of the sample, from 1, or 0 for padding; weights (positions or 1,
        kernel samples or 1, channels, features); result (samples * channels, positions * features).
    """
    positions, taken = seen.shape
    weights = np.broadcast_to(weights, (positions, taken, *weights.shape[2:]))
    channels, features = weights.shape[2:]
    made = np.zeros((samples + 1, channels, positions, features), weights.dtype)
    for j in range(taken):  # a window that wraps around may see a sample twice, at different j
        made[seen[:, j], :, np.arange(positions), :] += weights[:, j]
    return made[1:].reshape(samples * channels, positions * features)


def _ungrouped(kernel: np.ndarray, groups: int) -> np.ndarray:
    """A grouped kernel (..., channels // groups, features) as one over all channels, with zeros between groups."""
    *lead, channels, features = kernel.shape
    full = np.zeros((*lead, groups, channels, groups, features // groups), kernel.dtype)
    for group in range(groups):
        full[..., group, :, group, :] = kernel.reshape(*lead, channels, groups, features // groups)[..., group, :]
    return full.reshape(*lead, groups * channels, features)
