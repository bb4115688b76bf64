"""Arrays of other frameworks in this library's order of axes, and how far they differ."""

from __future__ import annotations

from math import prod

import numpy as np

from ..geometry import Shape
from .channel_order import to_last


def arranged(array: np.ndarray, wanted: np.ndarray, flattened: Shape | None) -> np.ndarray | None:
    """An array of another framework in this library's order of axes.

    Args:
        array: the array, with channels first or last.
        wanted: the output here.
        flattened: the shape (*space, channels) whose flattened form a vector may be; None: it is not.

    Returns:
        The array in the order that agrees better with what is wanted; None: it has another shape.
    """
    if array.ndim > 2:
        moved = np.moveaxis(array, 1, -1)
        if moved.shape == wanted.shape:
            as_it_is = array.shape == wanted.shape and difference(wanted, array) < difference(wanted, moved)
            return array if as_it_is else moved
    if array.shape == wanted.shape:
        if array.ndim == 2 and flattened is not None and array.shape[1] == prod(flattened):
            moved = array[:, to_last(flattened)]
            return moved if difference(wanted, moved) < difference(wanted, array) else array
        return array
    squeezed = array.reshape(array.shape[:1] + tuple(n for n in array.shape[1:] if n > 1))
    return squeezed if squeezed.shape == wanted.shape else None


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, divided by the largest number that is wanted."""
    if found.shape != wanted.shape:
        return float("inf")
    if not found.size:
        return 0.0
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    apart = np.abs(found - wanted).max()
    return float(apart / (np.abs(wanted).max() or 1.0)) if np.isfinite(apart) else float("inf")
