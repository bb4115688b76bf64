"""Channels first and channels last: the order of numbers in flattened examples and in kernels."""

from __future__ import annotations

from math import prod

import numpy as np

from ..geometry import Shape


def to_last(shape: Shape) -> np.ndarray:
    """Places in an example flattened with the channels first, in the order of one with the channels last.

    With these as indices of the last axis, ``last = first[..., places]``.

    Args:
        shape: of the example, (*space, channels).

    Example:
        >>> to_last((2, 3)).tolist()    # two positions of three channels
        [0, 2, 4, 1, 3, 5]
    """
    *space, channels = shape
    return np.moveaxis(np.arange(prod(shape)).reshape(channels, *space), 0, -1).ravel()


def to_first(shape: Shape) -> np.ndarray:
    """Places in an example flattened with the channels last, in the order of one with the channels first.

    Args:
        shape: of the example, (*space, channels).

    Example:
        >>> to_first((2, 3)).tolist(), to_last((2, 3))[to_first((2, 3))].tolist()
        ([0, 3, 1, 4, 2, 5], [0, 1, 2, 3, 4, 5])
    """
    return np.moveaxis(np.arange(prod(shape)).reshape(shape), -1, 0).ravel()


def transposed_kernel(kernel: np.ndarray, groups: int) -> np.ndarray:
    """The kernel of a transposed convolution as PyTorch and ONNX have it.

    Args:
        kernel: (*kernel, in // groups, out).
        groups: number of groups.

    Returns:
        (in, out // groups, *kernel).

    Example:
        >>> transposed_kernel(np.zeros((3, 3, 2, 8)), 2).shape
        (4, 4, 3, 3)
    """
    *sizes, into, out = kernel.shape
    split = kernel.reshape(*sizes, into, groups, out // groups)
    return np.moveaxis(split, (-2, -3, -1), (0, 1, 2)).reshape(into * groups, out // groups, *sizes)
