"""What a data set is here: plain arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Examples with labels, split into training and test.

    Attributes:
        train: (x, y); x (examples, *space, channels) float32, y (examples,) int32.
        test: likewise.
        classes: the labels' names.
        licence: where the data are from and under which terms, in a line.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    licence: str


def unit(images: np.ndarray) -> np.ndarray:
    """Bytes as float32 in [0, 1]: divided by 255.

    Example:
        >>> unit(np.array([0, 255], np.uint8)).tolist()
        [0.0, 1.0]
    """
    return np.divide(images, np.float32(255), dtype=np.float32)
