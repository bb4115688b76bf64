"""The type of all data sets: plain arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Examples with labels, split into training and test.

    Attributes:
        train: (x, y); x (examples, *space, channels) float32, y (examples,) int32.
        test: likewise.
        classes: the names of the classes.
        licence: source and licence of the data, in one line.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    licence: str


def unit(images: np.ndarray) -> np.ndarray:
    """Convert bytes to float32 in [0, 1], by dividing by 255.

    Example:
        >>> unit(np.array([0, 255], np.uint8)).tolist()
        [0.0, 1.0]
    """
    return np.divide(images, np.float32(255), dtype=np.float32)
